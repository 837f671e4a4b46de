"""Scoring through the user's Trainer: exact ids in, arrays aligned with them out, on one device or many."""

from __future__ import annotations

import time
import warnings
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any, ClassVar

import lightning.pytorch as L
import numpy as np
from lightning.pytorch.utilities.memory import garbage_collection_cuda, is_oom_error
from lightning.pytorch.utilities.model_helpers import is_overridden
from lightning.pytorch.utilities.seed import isolate_rng
from torch import nn

from al_lightning.cost.flops import FlopMeter
from al_lightning.cost.ledger import Stopwatch
from al_lightning.errors import ActiveLearningError
from al_lightning.fit.ranks import Ranks
from al_lightning.fit.trainer import borrowed_for_scoring
from al_lightning.pool.datamodule import PoolDataModule
from al_lightning.pool.views import read
from al_lightning.query.base import Strategy, check_task
from al_lightning.scoring.infer import decides_itself, infer
from al_lightning.scoring.outputs import Outputs
from al_lightning.scoring.question import Answers, Payload, Question, Readable, Request, Scorer
from al_lightning.scoring.samples import Samples
from al_lightning.scoring.scores import Scores

_STEP_SECONDS = 0.1
"""How long batches share one ``predict_step``: how often a progress bar moves, at least."""


@dataclass
class _Found:
    """Hold what a process has scored."""

    ids: list[np.ndarray] = field(default_factory=list)
    rows: list[dict[str, np.ndarray]] = field(default_factory=list)
    forwards: int = 0
    width: int = 0


class _ScoringModule(L.LightningModule):
    """Runs ``infer`` and a payload on indexed batches; the user's module is in here unchanged."""

    def __init__(
        self, model: nn.Module, pool: Readable, payload: Payload, meter: FlopMeter, samples: Samples | None
    ) -> None:
        super().__init__()
        self.model = model
        self.found = _Found()
        self._pool, self._payload, self._meter, self._samples = pool, payload, meter, samples
        self.place = None if decides_itself(model) else pool.place
        self._before, self._transfer, self._after = transfer_hooks(pool, model)

    def predict_step(self, dataloader_iter: Iterator[tuple[Any, int, int]]) -> bool:
        # What Lightning does between two steps takes as long as a small model does: a step goes on for a while.
        end = time.perf_counter() + _STEP_SECONDS
        for (ids, batch), _, _ in dataloader_iter:
            self._score(ids.numpy(), batch)
            if time.perf_counter() >= end:
                break
        return True  # Lightning warns of a predict_step that returns nothing

    def _on_device(self, batch: Any) -> Any:
        batch = self._before(self.trainer.precision_plugin.convert_input(batch), 0)
        return self._after(self._transfer(batch, self.trainer.strategy.root_device, 0), 0)

    def _score(self, ids: np.ndarray, batch: Any) -> None:
        """Score a batch; one that memory has no room for in halves, and those in halves again."""
        if len(ids) <= (self._pool.scoring_batch_size or len(ids)):
            if self._fits(ids, batch):
                return
            self._halve(len(ids))
        most, loader = self._pool.scoring_batch_size or 1, self._pool.indexed_dataloader(ids, self.place)
        for start in range(0, len(ids), most):
            some, part = loader.collate_fn(read(loader.dataset, ids[start : start + most].tolist()))
            self._score(some.numpy(), part)

    def _halve(self, size: int) -> None:
        garbage_collection_cuda()
        if self._pool.scoring_batch_size is None:
            warnings.warn(
                f"{size} records at once do not fit in memory while scoring: batches are halved until they do. "
                "PoolDataModule(eval_batch_size=...) sets their size from the start.",
                stacklevel=2,
            )
        self._pool.scoring_batch_size = size // 2

    def _fits(self, ids: np.ndarray, batch: Any) -> bool:
        try:
            self._answer(ids, self._on_device(batch))
        except RuntimeError as error:
            if len(ids) == 1 or not is_oom_error(error):
                raise
            return False
        return True

    def _answer(self, ids: np.ndarray, batch: Any) -> None:
        found = self.found

        def answer() -> Outputs:
            with self._meter.counting("forward", len(ids)):
                outputs = infer(
                    self.model, batch, items=self._pool.items, task=self._pool.task, place=self.place
                ).check(len(ids))
            found.forwards += len(ids)
            found.width = outputs.logits.shape[-1] if outputs.logits.ndim > 1 else 1
            return outputs

        values = self._payload(answer() if self._samples is None else self._samples.of(self.model, answer, int(ids[0])))
        row = {name: value.detach().float().cpu().numpy() for name, value in values.items()}
        wrong = {name: len(value) for name, value in row.items() if len(value) != len(ids)}
        if wrong:
            raise ActiveLearningError(f"payload rows {wrong} for a batch of {len(ids)} records: one row per record.")
        found.ids.append(ids)
        found.rows.append(row)


def run_inference(
    trainer: L.Trainer,
    model: L.LightningModule,
    pool: Readable,
    ids: np.ndarray,
    payload: Payload,
    meter: FlopMeter | None = None,
    samples: Samples | None = None,
) -> tuple[dict[str, np.ndarray], float, float, int]:
    """Infer exactly ``ids`` through the Trainer and gather what ``payload`` returns.

    Under several processes each takes a share, and all get everything. The user's callbacks, batch limits and
    samplers are set aside meanwhile and put back. A batch that memory has no room for goes through in halves; the
    batches of later calls are as small.

    Args:
        trainer: a Trainer, used or not; its settings (device, precision, strategy) are used.
        model: the user's module (or a compiled one).
        pool: where the records are.
        ids: ``(n,)`` ids to infer.
        payload: ``Outputs -> {name: (rows, ...) tensor}``.
        meter: FLOP measurements to use and extend.
        samples: how several answers to every record are drawn; ``payload`` then gets an iterable of Outputs.

    Returns:
        Arrays aligned with ``ids``, FLOPs, seconds, and the width of the logits.

    Raises:
        OutputMismatch: the logits are not what the task says.
        ActiveLearningError: the ids that came back are not the ids that were sent.
    """
    ids = np.asarray(ids, dtype=np.int64)
    meter = meter or FlopMeter()
    if len(ids) == 0:
        return {}, 0.0, 0.0, 0
    ranks = Ranks(trainer)
    module = _ScoringModule(unwrapped(model), pool, payload, meter, samples)
    # Loaders draw from the global generator even without shuffling: scoring must not change how the user trains.
    if isinstance(pool, L.LightningDataModule):
        pool.trainer = trainer  # its transfer hooks may ask
    with Stopwatch.running() as watch, isolate_rng(), borrowed_for_scoring(trainer, model):
        share = ids[ranks.rank :: ranks.world]
        # An empty share still takes part in the collective calls, with a record nobody counts.
        loader = pool.indexed_dataloader(share if len(share) else ids[:1], module.place)
        trainer.predict(module, dataloaders=loader, return_predictions=False)
        width = pool.width = module.found.width
    parts = ranks.gather(module.found if len(share) else _Found())
    got = np.concatenate([x for part in parts for x in part.ids])
    rows = [row for part in parts for row in part.rows]
    order = np.argsort(got)
    if not np.array_equal(got[order], np.sort(ids)):
        raise ActiveLearningError(f"{len(ids)} records were sent to the model and {len(got)} others came back.")
    position = order[np.searchsorted(got[order], ids)]
    arrays = {name: np.concatenate([row[name] for row in rows])[position] for name in rows[0]}
    return arrays, meter.flops("forward", sum(part.forwards for part in parts)), watch.seconds, width


class TrainerScorer:
    """Infers through the user's Trainer, in this process or in those of its job."""

    every_rank: ClassVar[bool] = True

    def run(self, request: Request) -> Answers:
        """Ask about all of them, see :class:`~al_lightning.scoring.question.Scorer`."""
        r = request
        with r.question.on(unwrapped(r.model)) as payload:
            arrays, flops, seconds, width = run_inference(
                r.trainer, r.model, r.pool, r.ids, payload, r.meter, r.question.samples
            )
        return Answers(
            ids=r.ids, arrays=arrays, width=width, records=len(r.ids), flops=flops, seconds=seconds, wall=seconds
        )

    def close(self) -> None:
        """Nothing to let go of."""


def ask_candidates(
    trainer: L.Trainer,
    model: L.LightningModule,
    pool: PoolDataModule,
    ids: np.ndarray,
    strategy: Strategy,
    *,
    seed: int,
    meter: FlopMeter | None = None,
) -> tuple[dict[str, np.ndarray], float, float, int]:
    """Infer ids for a strategy, as often as it wants to; see :func:`run_inference`.

    Args:
        trainer: as for :func:`run_inference`, like ``model``, ``pool``, ``ids`` and ``meter``.
        model: the user's module.
        pool: where the records are.
        ids: ``(n,)`` ids to infer.
        strategy: whose payload travels.
        seed: of what is drawn meanwhile: dropout masks.
        meter: FLOP measurements to use and extend.
    """
    question = Question.of(strategy, seed=seed)
    request = Request(trainer=trainer, model=model, pool=pool, ids=ids, question=question, meter=meter or FlopMeter())
    found = TrainerScorer().run(request)
    return found.arrays, found.flops, found.seconds, found.width


def score(
    trainer: L.Trainer,
    model: L.LightningModule,
    pool: PoolDataModule,
    strategy: Strategy,
    *,
    rng: np.random.Generator | None = None,
    scoring: Scorer | None = None,
) -> Scores:
    """Infer this round's candidates for a hand-written loop; ``strategy.pick(scores, size=...)`` makes the query.

    Args:
        trainer: the Trainer that has just fitted.
        model: the module that was fitted.
        pool: the pool; ``pool.candidates`` are inferred, all unlabelled records where none were chosen.
        strategy: what will pick.
        rng: generator for ties; default: one seeded with 0 and the number of labels.
        scoring: who infers, for example a :class:`~al_lightning.scoring.ray.scorer.RayScorer`; default: the Trainer.
    """
    ids = pool.unlabelled if pool.candidates is None else pool.candidates
    rng = rng or np.random.default_rng([0, len(pool.labelled)])
    check_task(strategy, pool.task)
    view = pool.view(round=len(pool.labelled))
    if not strategy.needs_inference:
        return Scores(ids, {}, view, rng)
    question = Question.of(strategy, seed=int(rng.integers(2**32)))
    request = Request(trainer=trainer, model=model, pool=pool, ids=ids, question=question)
    found = (scoring or TrainerScorer()).run(request)
    if "score" in found.arrays:
        pool.state.record_scores(ids, found.arrays["score"], len(pool.labelled))
    return Scores(ids, found.arrays, view, rng, found.flops, found.seconds, found.width)


def transfer_hooks(pool: Any, model: nn.Module) -> tuple[Any, Any, Any]:
    """The user's hooks before, for and after the transfer of a batch, from where Lightning would take them."""
    before, transfer, after = (
        getattr(pool if is_overridden(name, pool, L.LightningDataModule) else model, name)
        for name in ("on_before_batch_transfer", "transfer_batch_to_device", "on_after_batch_transfer")
    )
    return before, transfer, after


def unwrapped(model: nn.Module) -> nn.Module:
    """The module itself where ``torch.compile`` wrapped it."""
    return getattr(model, "_orig_mod", model)
