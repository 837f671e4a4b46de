"""What can go wrong, as vocabulary: every error names the value, what is allowed, and the way out."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence


def _some(values: Iterable[object], most: int = 10) -> str:
    """``1, 2, 3, ... (12 in all)``: enough to find the culprit, never a screenful."""
    values = list(values)
    shown = ", ".join(str(v) for v in values[:most])
    return shown if len(values) <= most else f"{shown}, ... ({len(values)} in all)"


def _rebuild(cls: type[Exception], args: tuple[object, ...], state: dict[str, object]) -> Exception:
    error = cls.__new__(cls, *args)
    error.__dict__.update(state)
    return error


class ActiveLearningError(Exception):
    """Base of every error this library raises on purpose."""

    def __reduce__(self) -> tuple[object, ...]:
        # Errors travel between processes; their constructors take counts and ids, not the message.
        return _rebuild, (type(self), self.args, self.__dict__)


class PoolExhausted(ActiveLearningError):
    """More records were asked for than the pool still has."""

    def __init__(self, requested: int, available: int, what: str = "unlabelled records") -> None:
        super().__init__(
            f"{requested} {what} requested, {available} available. "
            f"Ask for at most {available}, or add records to the pool."
        )
        self.requested = requested
        self.available = available


class PoolChanged(ActiveLearningError):
    """The dataset behind the pool is not the one this run started with."""


_CHEAPER = {
    "validate": "a smaller eval_batch_size= of the pool or limit_val_batches=0 of the Trainer",
    "score": "fewer candidates=",
    "cluster": "fewer clusters (n_clusters=)",
}
"""What a run needs less of a phase by."""


class RhoTooSmall(ActiveLearningError):
    """A run that cannot be done within the rho it was given."""

    def __init__(self, rho: float, least: float, parts: Mapping[str, float]) -> None:
        said = ", ".join(f"{phase} {value:.2f}" for phase, value in parts.items())
        ways = "".join(f", {way}" for phase, way in _CHEAPER.items() if phase in parts)
        super().__init__(
            f"WarmStart(rho={rho:g}) is less than the rounds and the shortest final fit come to: {least:.2f} "
            f"({said}), each fit validating on one batch at its end. Fewer rounds, smaller epochs=, first_epochs= or "
            f"final_epochs={ways}, or rho={least:.2f} help."
        )


class UnknownFlops(ActiveLearningError):
    """A limit on FLOPs where they cannot be counted."""

    def __init__(self, limit: str, why: Mapping[str, str]) -> None:
        kinds = "; ".join(f"{kind!r}: {reason}" for kind, reason in why.items())
        super().__init__(
            f"{limit} needs FLOPs, and they are unknown ({kinds}). Limit hours= or money= instead, or rho=, which is "
            "in seconds then."
        )


class PoolError(ActiveLearningError):
    """A dataset, an id or a label the pool cannot use."""


class BadLabelFile(PoolError):
    """A file of answers that is not what it should be; nothing of it was taken in, and it is left as it is."""

    def __init__(self, path: object, problems: Sequence[str]) -> None:
        rows = "\n".join(f"  {problem}." for problem in problems)
        super().__init__(f"{path}, of which nothing was taken in:\n{rows}\nRepair the file and start again.")
        self.path = str(path)
        self.problems = tuple(problems)


class DamagedShard(PoolError):
    """A file of records that is missing, no shard, changed since it was indexed, or cannot be read in a place."""


class BadPart(ActiveLearningError, ValueError):
    """Something given for a part of a run that is none, or parts that cannot go together."""


class PreflightFailed(ActiveLearningError):
    """The user's own code, or a setting of theirs, failed before anything was spent; the original is chained."""

    def __init__(self, path: str, error: BaseException, way_out: str) -> None:
        super().__init__(
            f"{path} failed, before anything was labelled or trained: {type(error).__name__}: {error}\n{way_out} "
            "Mended, the same run_dir goes on. fit(..., preflight=False) leaves out what is rehearsed on a batch."
        )
        self.path = path


class RunMismatch(ActiveLearningError):
    """The run folder holds a run with another configuration, on which what was bought or trained depends.

    Args:
        folder: of the run.
        differing: key -> what the folder has, and what this run has.
        why: key -> what depends on it; None: the whole run does.
    """

    def __init__(
        self, folder: object, differing: dict[str, tuple[object, object]], why: dict[str, str] | None = None
    ) -> None:
        because = {key: f"; {(why or {})[key]}" if key in (why or {}) else "" for key in differing}
        rows = "\n".join(
            f"  {k}: the folder has {a!r}, this run has {b!r}{because[k]}" for k, (a, b) in differing.items()
        )
        super().__init__(
            f"{folder} belongs to a run with another configuration. Differing keys:\n{rows}\n"
            "Choose another run_dir, or start with the folder's configuration."
        )
        self.keys = tuple(differing)


class Interrupted(SystemExit, KeyboardInterrupt):
    """Ctrl-C or SIGTERM ended a run cleanly; left alone, the process exits with 130 or 143."""

    said = False
    """Whether the way to go on was printed."""


class RunLocked(ActiveLearningError):
    """Another process is working on the run folder."""


class CannotWrite(ActiveLearningError):
    """A folder or file of a run that cannot be written: the disk is full, or it is read-only."""

    def __init__(self, path: object, why: object) -> None:
        super().__init__(
            f"{path} cannot be written: {why}. What was committed before is whole. Make room, or make it writable, and "
            "run the same command: it goes on from there."
        )


class DamagedFile(ActiveLearningError):
    """A file of a run folder that is not what the run wrote; nothing in it was executed, and it is left as it is."""

    def __init__(self, path: object, folder: object, why: str, way: str | None = None) -> None:
        super().__init__(
            f"{path} cannot be read back ({why}): it is damaged, gone, or from somebody else. "
            + (way or f"Bring it back from a copy, or rebuild what can be rebuilt: al-lightning recover {folder}.")
        )
        self.path, self.why = str(path), why


class UnsupportedTrainer(ActiveLearningError):
    """A Trainer that rounds cannot be built from."""


class UnsupportedModel(ActiveLearningError):
    """A model that loses its weights, or cannot be scored."""


class OutputMismatch(ActiveLearningError):
    """The model's output is not what the task says."""


class BadScores(ActiveLearningError):
    """Scores that are NaN or infinite; never patched."""

    def __init__(self, ids: Sequence[int], name: str = "score") -> None:
        super().__init__(
            f"{name} is NaN or infinite for ids {_some(ids)}. "
            "Look at these records and at the model's outputs for them; no value is patched in."
        )
        self.ids = tuple(int(i) for i in ids)


class NegativeScores(ActiveLearningError):
    """Scores below zero where only their ratios mean something."""

    def __init__(self, ids: Sequence[int], who: str) -> None:
        super().__init__(
            f"{who} takes scores of 0 or more, and the score is negative for ids {_some(ids)}. Margin, Entropy, "
            "LeastConfidence, VariationRatio, BALD and Variance give none below 0; Stochastic goes around what "
            "weighs scores, not into it."
        )
        self.ids = tuple(int(i) for i in ids)


class UnknownMonitor(ActiveLearningError):
    """A monitored quantity that the model never logged."""

    def __init__(self, monitor: str, available: Iterable[str], who: str) -> None:
        names = sorted(available)
        super().__init__(
            f"{who} monitors {monitor!r}, which is not available. Available: {', '.join(names) or 'nothing'}. "
            f"Log it with self.log({monitor!r}, ...) in your LightningModule, or monitor one that is."
        )
        self.available = tuple(names)


class FeaturesMissing(ActiveLearningError):
    """Features were asked for that the pool does not have, or not yet."""


class MissingExtra(ActiveLearningError, ImportError):
    """An optional dependency that is not installed."""

    def __init__(self, package: str, extra: str, what: str) -> None:
        super().__init__(f"{what} needs {package}, which is not installed: pip install 'al_lightning[{extra}]'")


class ClusterUnavailable(ActiveLearningError):
    """No cluster to score on: not there, of other versions, or without room for a worker."""


class WorkerFailed(ActiveLearningError):
    """A worker that cannot open the data or the model, or that returns what is no answer."""


class PoisonedRecord(ActiveLearningError):
    """A record that cannot be scored on any worker."""

    def __init__(self, id: int, shard: object, why: str) -> None:
        super().__init__(
            f"the record with id {id} cannot be scored: {why}. It was isolated in {shard}; the other records of it are "
            "not at fault. Repair it, or leave it out of the candidates, and start again: what was scored is kept."
        )
        self.id = id
