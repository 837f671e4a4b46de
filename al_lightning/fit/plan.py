"""How a round is trained: a plan, and the weights it starts from."""

from __future__ import annotations

import math
import warnings
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Literal, NamedTuple, Protocol

import numpy as np
import torch
from torch import Tensor, nn

from al_lightning.errors import UnsupportedModel, UnsupportedTrainer
from al_lightning.history import History
from al_lightning.pool.sampler import PartSampler, ReplaySampler
from al_lightning.seeds import generator, number

Start = Literal["initial", "previous", "shrink_perturb", "fire", "dash"]
Rate = Literal["schedule", "peak"]
Weights = Mapping[str, Tensor]
COMPILED = "_orig_mod."


@dataclass(frozen=True, kw_only=True)
class FitPlan:
    """Hold what one fit does.

    Args:
        start: ``initial`` weights (pretrained ones included), ``previous`` round's weights, or those after
            ``shrink_perturb``, ``fire`` or ``dash``.
        epochs: a number (int), a share of the Trainer's own (float), or None for the Trainer's own. A share that does
            not come to whole epochs is rounded up to them, and each goes over all new labels and as many old ones,
            others every time, as make up the share.
        rate: the learning rate follows the user's ``schedule``, or stays at its ``peak``.
        rate_scale: factor of the learning rate, whatever the schedule.
        average: share of the fit's steps, its last, whose weights are averaged; 0 keeps the last ones.
        moments: whether the optimiser's state is kept for the next fit and, from ``previous`` weights, gone on with.
        replay: None trains on all labelled records; a number trains on the new labels and ``replay`` times as many
            old ones, drawn at random.
        distill: weight of the divergence from the previous round's predictions on old records; it needs ``replay``,
            whose old records are then others in every batch. None: the loss is the user's alone.
        freeze: prefixes of parameter names that do not train.
        cached: whether the frozen part runs once per record, and its activations are read afterwards.
        shrink: factor of the previous weights under ``shrink_perturb``.
        perturb: factor of fresh weights under ``shrink_perturb``.
        val_batches: the fit validates once, at its end, on so many batches at most; None: as the Trainer says.
        final: whether this is the consolidating fit that makes the delivered model.

    Example:
        >>> FitPlan(start="previous", epochs=0.5).final
        False
    """

    start: Start = "initial"
    epochs: int | float | None = None
    rate: Rate = "schedule"
    rate_scale: float = 1.0
    average: float = 0.0
    moments: bool = False
    replay: float | None = None
    distill: float | None = None
    freeze: tuple[str, ...] = ()
    cached: bool = False
    shrink: float = 0.4
    perturb: float = 0.1
    val_batches: int | None = None
    final: bool = False

    def kind(self, *, distils: bool) -> str:
        """Return what a training pass of this plan is called where its FLOPs are kept.

        Args:
            distils: whether it looks at replayed records, which a former model is asked about.
        """
        more = [f"frozen {','.join(self.freeze)}"] if self.freeze else []
        more += ["cached"] if self.cached else []
        more += ["distilled"] if distils else []
        return ", ".join(["train", *more])


@dataclass(frozen=True, kw_only=True)
class Length:
    """Hold how long a fit runs, in whole epochs.

    Args:
        epochs: epochs to train; None: the Trainer's own.
        records: labelled records an epoch goes over; None: all, or those that are replayed.
    """

    epochs: int | None
    records: int | None = None

    @classmethod
    def of(cls, plan: FitPlan, *, recipe: int | None, labelled: int, new: int) -> Length:
        """Work it out.

        Args:
            plan: the plan.
            recipe: the Trainer's own epochs, None where nothing limits them.
            labelled: records with a label.
            new: how many of them are new.

        Raises:
            UnsupportedTrainer: a share of epochs that are not known.
        """
        if not isinstance(plan.epochs, float):
            return cls(epochs=plan.epochs)
        if recipe is None:
            raise UnsupportedTrainer(
                f"epochs={plan.epochs} is a share of the Trainer's epochs, and this Trainer has no limit on them: set "
                "max_epochs, pass ActiveLearner.fit(..., recipe_epochs=...), or give epochs as a whole number."
            )
        wanted = plan.epochs * recipe
        if plan.replay is not None or not 0 < new < labelled:  # no old records to make up a share of
            return cls(epochs=max(1, round(wanted)))
        epochs = max(1, math.ceil(wanted - 1e-9))
        records = max(new, round(wanted / epochs * labelled))
        return cls(epochs=epochs, records=records if records < labelled else None)


class FitPolicy(Protocol):
    """Plan every fit of a run from what has happened so far."""

    def plan(self, history: History) -> FitPlan:
        """The plan of the next round's fit."""

    def final_plan(self, history: History) -> FitPlan | None:
        """The plan of the consolidating fit after the last round, or None to deliver the last round's model."""


def snapshot(model: nn.Module) -> dict[str, Tensor]:
    """Copy all weights and buffers to the CPU, by names that do not tell what of the model is compiled."""
    return {plain(name): value.detach().cpu().clone() for name, value in model.state_dict().items()}


def load(model: nn.Module, weights: Weights) -> None:
    """Put a snapshot back, whatever of the model has been compiled since."""
    names = {plain(name): name for name in model.state_dict()}
    own = {names.get(plain(name), name): value for name, value in weights.items()}
    # What the module's own state_dict() leaves out is not missed: parts that do not train, in many a large model.
    model.load_state_dict(own, strict=own.keys() != set(names.values()))


def plain(name: str) -> str:
    """A parameter's or submodule's name without what ``torch.compile`` puts in, around the whole model or inside it."""
    return name.replace(COMPILED, "")


def reinitialise(model: nn.Module, seed: int) -> None:
    """Draw new weights: the model's own ``reset_parameters()`` if it has one, else that of every submodule.

    Parameters that no such method draws (a bare ``nn.Parameter``) stay as they are; a module that has some defines
    ``reset_parameters()`` itself.

    Args:
        model: changed in place.
        seed: of the draw; the global generator is left as it was.
    """
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        own = getattr(model, "reset_parameters", None)
        if callable(own):
            own()
            return
        for module in model.modules():
            reset = getattr(module, "reset_parameters", None) or getattr(module, "_reset_parameters", None)
            if callable(reset):
                reset()


class Served(NamedTuple):
    """Hold what a fit's epochs go over.

    Args:
        ids: in this order; None: all labelled ones.
        sampler: of positions in them; None: all of them, shuffled.
    """

    ids: np.ndarray | None = None
    sampler: PartSampler | ReplaySampler | None = None


def records_of(
    plan: FitPlan, length: Length, *, labelled: np.ndarray, new: int, batch: int, seed: int, round: int
) -> Served:
    """The records of a fit.

    Args:
        plan: says how many old records are replayed.
        length: of the fit; says whether an epoch goes over a part only.
        labelled: ids in the order of labelling, ``(L,)``.
        new: how many of them, the last, are new.
        batch: records of a batch.
        seed: of the run.
        round: of the fit.
    """
    old, part = len(labelled) - new, number(seed, round, "part")
    if plan.replay is None or not 0 < new < len(labelled):
        return Served(
            sampler=None if length.records is None else PartSampler(old=old, new=new, size=length.records, seed=part)
        )
    if plan.distill is not None:
        return Served(sampler=ReplaySampler(old=old, new=new, batch=batch, replay=plan.replay, seed=part))
    count = min(old, int(np.rint(plan.replay * new)))
    replayed = generator(seed, round, "replay").choice(labelled[:old], size=count, replace=False)
    return Served(ids=np.concatenate([labelled[old:], replayed]))


@contextmanager
def modes_kept(modules: Iterable[nn.Module]) -> Iterator[None]:
    """Leave every module in the mode, training or eval, that it had: Lightning's fit trains in the modes it finds."""
    before = [(m, m.training) for m in modules]
    try:
        yield
    finally:
        for m, training in before:
            m.training = training


@contextmanager
def evaluating(model: nn.Module) -> Iterator[None]:
    """Put all modules in eval mode, and those that were not back afterwards."""
    with modes_kept(model.modules()):
        model.eval()
        yield


@contextmanager
def frozen(model: nn.Module, prefixes: tuple[str, ...]) -> Iterator[None]:
    """Keep parts of the model from training: no gradients, and eval mode, so that BatchNorm's statistics stay too.

    Args:
        model: changed in place, restored after.
        prefixes: of parameter names, at module boundaries (``"net.0"`` does not mean ``"net.01"``).

    Raises:
        UnsupportedModel: a prefix that names nothing.
    """

    def inside(name: str, prefix: str) -> bool:
        name = plain(name)
        return name == prefix or name.startswith(prefix + ".")

    for prefix in prefixes:
        if not any(inside(name, prefix) for name, _ in model.named_parameters()):
            names = sorted({name.split(".")[0] for name, _ in model.named_parameters()})
            raise UnsupportedModel(f"freeze={prefix!r} names no parameter; top-level names are {', '.join(names)}.")
    stopped = [p for name, p in model.named_parameters() if p.requires_grad and any(inside(name, x) for x in prefixes)]
    still = [m for name, m in model.named_modules() if any(inside(name, x) for x in prefixes)]
    for p in stopped:
        p.requires_grad_(False)
    try:
        with modes_kept(still), warnings.catch_warnings():
            for m in still:
                m.train(False)
            # Lightning warns of modules in eval mode; here they are meant to be.
            warnings.filterwarnings("ignore", message=r"Found \d+ module\(s\) in eval mode")
            yield
    finally:
        for p in stopped:
            p.requires_grad_(True)
