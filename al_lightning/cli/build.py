"""From a composed configuration to the parts of a run."""

from __future__ import annotations

import hashlib
import logging
import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import lightning.pytorch as L
import torch
from lightning.pytorch.loggers import Logger
from lightning.pytorch.utilities.model_helpers import is_overridden
from lightning.pytorch.utilities.seed import isolate_rng
from omegaconf import DictConfig, OmegaConf

from al_lightning.cli import paths
from al_lightning.cli.check import BadOption, check
from al_lightning.cli.secrets import check_config, check_options
from al_lightning.errors import ActiveLearningError
from al_lightning.fit.trainer import fresh_trainer
from al_lightning.learner import ActiveLearner, OnRound
from al_lightning.pool.datamodule import PoolDataModule
from al_lightning.presets import LEAST_ROUND, check_rho, choose_rho, numbers_of, ordinary_size
from al_lightning.result import Result

_LONGEST_NAME = 120
_CLUSTERS, _MEASURED = 20, 400
"""Clusters of the presets, and labels that they were measured with."""
_LEAST = {"labels": 1, "seed": 0, "stop_set": 0, "threads": 1}


class Parts(NamedTuple):
    """Hold what a run is made of."""

    model: L.LightningModule
    pool: PoolDataModule
    learner: ActiveLearner
    loggers: tuple[Logger, ...] = ()
    how: Mapping[str, Any] = {}

    def fit(self) -> Result:
        """Run it, or go on with it."""
        return self.learner.fit(self.model, self.pool, **self.how)


def folder_name(overrides: str) -> str:
    """A command line's overrides as the name of a folder: one level deep, not too long, the same every time.

    Args:
        overrides: as Hydra joins them, ``query=margin,seed=1``.
    """
    name = overrides.replace("/", "%2F")
    if len(name) > _LONGEST_NAME:
        name = f"{name[:_LONGEST_NAME]}-{hashlib.sha256(overrides.encode()).hexdigest()[:8]}"
    return name or "default"


def frugal_number(name: str, labels: Any, rho: Any) -> Any:
    """Return a number of the frugal preset, for configuration files; what is no number is refused where it is used.

    Args:
        name: one of :class:`~al_lightning.presets.Numbers`.
        labels: as configured.
        rho: as configured; ``"auto"`` is settled before any part is built.
    """
    number = rho if isinstance(rho, int | float) else 1.0
    return getattr(numbers_of(labels if isinstance(labels, int) else LEAST_ROUND, number), name)


def clusters_of(labels: int) -> int:
    """Clusters that candidates are drawn from: they cost the same of few labels, and beside few there is less room."""
    return max(2, min(_CLUSTERS, _CLUSTERS * labels**2 // _MEASURED**2))


def register_resolvers() -> None:
    """Make the functions that configuration files call, such as ``${frugal:rounds,...}``, known to them."""
    OmegaConf.register_new_resolver("frugal", frugal_number, replace=True)
    OmegaConf.register_new_resolver("ordinary_size", ordinary_size, replace=True)
    OmegaConf.register_new_resolver("clusters_of", clusters_of, replace=True)
    OmegaConf.register_new_resolver("folder_name", folder_name, replace=True)
    OmegaConf.register_new_resolver("without_secrets", without_secrets, replace=True)


def without_secrets(folder: str, *, _root_: DictConfig) -> str:
    """The folder that Hydra writes options to, once it is known that none of them is a secret.

    Args:
        folder: as the configuration has it.
        _root_: the whole configuration, from OmegaConf.

    Raises:
        BadOption: one is.
    """
    check_config(OmegaConf.to_container(_root_, resolve=False))
    return folder


def compose_config(name: str, overrides: Sequence[str], config_dir: Path | None = None) -> DictConfig:
    """Compose a configuration as Hydra's command line does.

    Args:
        name: of the file in the folder of configurations.
        overrides: ``data=mine``, ``seed=1``.
        config_dir: a further folder of configurations, the user's.

    Raises:
        HydraException: there is no such option.
        BadOption: one holds a secret.
    """
    from hydra import compose, initialize_config_dir

    check_options(overrides)
    register_resolvers()
    more = [] if config_dir is None else [f"hydra.searchpath=['file://{config_dir.resolve()}']"]
    with initialize_config_dir(version_base="1.3", config_dir=str(paths.config_dir())):
        cfg = compose(name, [*overrides, *more])
    check_config(OmegaConf.to_container(cfg, resolve=False))
    return cfg


def part(cfg: DictConfig, name: str, **extra: Any) -> Any:
    """Build one part.

    Args:
        cfg: the whole configuration.
        name: its key, dots allowed.
        **extra: further arguments of the part.

    Raises:
        BadOption: the part refuses a setting.
    """
    from hydra.errors import InstantiationException
    from hydra.utils import instantiate

    node = OmegaConf.select(cfg, name)
    check(OmegaConf.to_container(node, resolve=True), name)
    try:
        return instantiate(node, **extra, _convert_="all")
    except InstantiationException as error:
        cause = error.__cause__
        if isinstance(cause, ActiveLearningError):
            raise cause from None
        reason = str(cause) if isinstance(cause, ValueError) else str(error)
        raise BadOption(f"{name}: {reason}") from error


def _check_numbers(cfg: DictConfig) -> None:
    check_rho(cfg.rho)
    for name, least in _LEAST.items():
        value = cfg[name]
        if name == "threads" and value is None:
            continue
        if not isinstance(value, int) or isinstance(value, bool) or value < least:
            raise BadOption(f"{name}={value!r}: allowed: a whole number, {least} or more.")


def build(cfg: DictConfig, on_round: OnRound | None = None) -> Parts:
    """Build a run. The same seed gives the same first weights, whatever else differs.

    Args:
        cfg: a composed ``conf/run.yaml``.
        on_round: see :meth:`~al_lightning.learner.ActiveLearner.fit`.

    Raises:
        BadOption: a part refuses a setting.
        ActiveLearningError: parts that do not fit together.
    """
    _check_numbers(cfg)
    if cfg.threads is not None:
        torch.set_num_threads(cfg.threads)
    pool = part(cfg, "data")
    L.seed_everything(cfg.seed, verbose=False)
    model = part(cfg, "model")
    proxy = part(cfg, "proxy") if cfg.get("proxy") else None
    logger: Any = part(cfg, "logger") if cfg.get("logger") else False
    trainer = part(cfg, "trainer", logger=logger)
    if cfg.rho == "auto":
        prices = part(cfg, "prices")
        cfg = cfg.copy()
        cfg.rho = choose_rho(trainer, model, pool, cfg.labels, prices, cfg.run_dir)
    try:
        learner = ActiveLearner(
            trainer,
            query=part(cfg, "query"),
            initial=part(cfg, "initial"),
            candidates=part(cfg, "candidates"),
            round_size=part(cfg, "round_size"),
            fit=part(cfg, "fit"),
            proxy=proxy,
            stop=[part(cfg, f"stop.{rule}") for rule in cfg.get("stop") or {}],
            oracle=part(cfg, "oracle"),
            prices=part(cfg, "prices"),
            stop_set=cfg.stop_set,
            run_dir=cfg.run_dir,
            seed=cfg.seed,
        )
    except ValueError as error:
        raise BadOption(str(error)) from error
    loggers = tuple(logger) if isinstance(logger, list) else (logger,) if logger else ()
    how: dict[str, Any] = {name: part(cfg, name) for name in ("scoring", "energy") if cfg.get(name)}
    return Parts(model, pool, learner, loggers, {**how, "on_round": on_round, "preflight": cfg.get("preflight", True)})


def evaluate(parts: Parts) -> dict[str, float]:
    """Return what the model logs on the test data. For reports only: it is off the bill, and draws nothing.

    Args:
        parts: the run; without test data, the result is empty.
    """
    model, pool, learner = parts.model, parts.pool, parts.learner
    if not is_overridden("test_dataloader", pool, L.LightningDataModule):
        return {}
    with isolate_rng():
        trainer = fresh_trainer(learner.trainer, model=model, datamodule=pool)
        found = trainer.test(model, datamodule=pool, verbose=False)
    return {name: float(value) for metrics in found for name, value in metrics.items()}


def be_quiet() -> None:
    """Keep advice to people who write training scripts off the screen, and what libraries say as they are loaded."""
    logging.getLogger("lightning.pytorch").setLevel(logging.ERROR)
    logging.getLogger("lightning.fabric").setLevel(logging.ERROR)
    logging.getLogger("faiss.loader").setLevel(logging.WARNING)  # which processor features it looked for
    for message in (
        ".*does not have many workers",
        "The number of training batches .* is smaller than the logging interval",
        ".*isinstance.treespec, LeafSpec.. is deprecated",
        "Experiment logs directory .* exists and is not empty",
    ):
        warnings.filterwarnings("ignore", message)
