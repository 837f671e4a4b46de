"""What was given for each part of a run: what is plainly meant is taken, the rest refused by name."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Sequence
from typing import Any

from al_lightning.callbacks.stall_detection import StallDetection
from al_lightning.candidates.base import CandidateSelector
from al_lightning.cost.prices import Prices
from al_lightning.errors import BadPart
from al_lightning.history import RoundSize
from al_lightning.pool.datamodule import PoolDataModule
from al_lightning.query.base import Strategy
from al_lightning.round_size import Fixed

_PARTS: dict[str, tuple[Callable[[Any], bool], str]] = {
    "query": (lambda x: isinstance(x, Strategy), "a strategy, for example Margin()"),
    "initial": (lambda x: isinstance(x, Strategy), "a strategy, for example Random()"),
    "candidates": (lambda x: isinstance(x, CandidateSelector), "a selector, for example RandomSubset(0.3)"),
    "round_size": (
        callable,
        "a number of labels, or a size: EvenRounds(labels=400, rounds=7) or Listed([20, 10])",
    ),
    "fit": (lambda x: _has(x, "plan", "final_plan"), 'a fit policy, for example WarmStart("keep")'),
    "oracle": (
        lambda x: _has(x, "ask", "collect"),
        "an oracle: DatasetOracle(), FunctionOracle(labels.__getitem__), FileOracle(...), what has ask() and collect()",
    ),
    "proxy": (lambda x: is_module(x), "a LightningModule"),
    "prices": (lambda x: isinstance(x, Prices), "Prices(label=..., hour=...)"),
    "scoring": (lambda x: _has(x, "run", "close"), "a scorer, for example RayScorer()"),
    "energy": (lambda x: _has(x, "kwh"), "a meter, for example NvmlEnergy()"),
    "on_round": (callable, "a function of a RoundRecord and the module"),
}
"""What each part of an ActiveLearner is, and how to say so."""


def _has(part: Any, *methods: str) -> bool:
    return all(callable(getattr(part, name, None)) for name in methods)


def _is(value: Any, name: str) -> bool:
    """Return whether it is Lightning's class of that name, from whichever of Lightning's two packages."""
    return any(base.__name__ == name for base in type(value).__mro__)


def is_module(model: Any) -> bool:
    """Return whether it is a LightningModule, compiled or not."""
    return _is(getattr(model, "_orig_mod", model), "LightningModule")


def _shown(value: Any) -> str:
    if inspect.isclass(value):
        return f"the class {value.__name__}"
    text = repr(value)
    return text if isinstance(value, int | float | str | list | tuple) and len(text) < 60 else type(value).__name__


def check_part(name: str, value: Any) -> None:
    """Raise BadPart unless the value can be that part of an ActiveLearner."""
    right, words = _PARTS[name]
    if inspect.isclass(value):
        raise BadPart(f"{name} is {_shown(value)}, not an instance of it: write {name}={value.__name__}(...).")
    if not right(value):
        raise BadPart(f"{name} is {_shown(value)}; allowed: {words}.{_instantiate(value, name)}")


def _instantiate(value: Any, name: str) -> str:
    """Return what to do with a part of a configuration that nobody has built yet."""
    if type(value).__name__ not in ("DictConfig", "ListConfig", "dict"):
        return ""
    return f" A configuration is built first: hydra.utils.instantiate(cfg.{name.split('[')[0]})."


def round_size_of(value: Any) -> RoundSize:
    """A round size; a number means rounds of that many labels."""
    if isinstance(value, int) and not isinstance(value, bool):
        if value < 1:
            raise BadPart(f"round_size={value}: labels of a round, allowed: 1 or more.")
        return Fixed(value)
    check_part("round_size", value)
    size: RoundSize = value
    return size


def rules_of(stop: Any) -> list[Any]:
    """The stopping rules; one need not be in a list.

    Raises:
        BadPart: one of them is no rule.
    """
    listed = isinstance(stop, Sequence) and not isinstance(stop, str)
    rules = list(stop) if listed and type(stop).__name__ != "ListConfig" else [stop]
    for i, rule in enumerate(rules):
        name = f"stop[{i}]" if listed else "stop"
        if inspect.isclass(rule):
            raise BadPart(f"{name} is {_shown(rule)}, not an instance of it: write stop=[{rule.__name__}(...)].")
        if not (callable(rule) or isinstance(rule, StallDetection)):
            raise BadPart(
                f"{name} is {_shown(rule)}; allowed: stopping rules such as Budget(labels=400) or "
                f"RoundPlateau('val_acc'), one or a list of them.{_instantiate(rule, name)}"
            )
    return rules


def check_given(trainer: Any, seed: Any, **parts: Any) -> None:
    """Raise BadPart unless everything that was given can be the part of an ActiveLearner that it was given for."""
    _check_trainer(trainer)
    for name, part in parts.items():
        if part is not None or name == "query":
            check_part(name, part)
    if seed is not None and (not isinstance(seed, int) or isinstance(seed, bool) or seed < 0):
        raise BadPart(f"seed={seed!r}: allowed: a whole number, 0 or more, or None: the run draws one and keeps it.")


def check_model(model: Any, name: str = "model") -> None:
    """Raise BadPart unless it is a LightningModule."""
    if inspect.isclass(model):
        raise BadPart(f"{name} is {_shown(model)}, not an instance of it: write {model.__name__}(...).")
    if not is_module(model):
        raise BadPart(
            f"{name} is {_shown(model)}, which is no LightningModule: put it in one, with training_step and "
            "configure_optimizers, as for Trainer.fit."
        )


def check_datamodule(datamodule: Any) -> None:
    """Raise BadPart, with the way to make one, unless it is a pool."""
    if isinstance(datamodule, PoolDataModule):
        return
    if inspect.isclass(datamodule):
        raise BadPart(f"datamodule is {_shown(datamodule)}, not an instance of it: PoolDataModule(dataset, task=...).")
    if hasattr(datamodule, "train_dataloader"):
        what = f"PoolDataModule({type(datamodule).__name__}(...), task=...) makes a pool of the records it trains on"
    elif hasattr(datamodule, "dataset"):
        what = "PoolDataModule(loader.dataset, task=..., batch_size=...) makes a pool of the records it loads"
    elif hasattr(datamodule, "__getitem__"):
        what = "PoolDataModule(dataset, task=...) makes a pool of it"
    else:
        what = "allowed: PoolDataModule(dataset or LightningDataModule, task=...)"
    raise BadPart(f"datamodule is {_shown(datamodule)}, which is no pool: {what}.")


def _check_trainer(trainer: Any) -> None:
    """Raise BadPart unless it is a Trainer, or a function that may return one."""
    if inspect.isclass(trainer):
        raise BadPart(f"trainer is {_shown(trainer)}, not an instance of it: write {trainer.__name__}(...).")
    if not (_is(trainer, "Trainer") or callable(trainer)):
        raise BadPart(f"trainer is {_shown(trainer)}; allowed: a lightning Trainer, or a function that builds one.")
