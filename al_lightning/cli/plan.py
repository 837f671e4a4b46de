"""``al-lightning plan``: the bill before it is spent, the cheapest rounds, and whether active learning is worth it."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import InterpolationResolutionError
from rich.console import Console

from al_lightning.callbacks.warm_start import WarmStart
from al_lightning.candidates.whole import WholePool
from al_lightning.cli.build import be_quiet, build, compose_config, part
from al_lightning.cli.say import say_error
from al_lightning.cost.prices import Prices
from al_lightning.errors import ActiveLearningError
from al_lightning.features.source import Layer, RawInputs
from al_lightning.oracles.oracle import SKIP
from al_lightning.planning.architectures import architecture
from al_lightning.planning.efficiency import FRUGAL_WORTH, Efficiency
from al_lightning.planning.planned import Planned
from al_lightning.planning.planner import Way
from al_lightning.planning.project import BadProject, Project
from al_lightning.planning.schedule import Schedule, best_schedule, schedule, trade_off
from al_lightning.planning.signal import LabelSignal, label_signal
from al_lightning.planning.verdict import levers, verdict
from al_lightning.pool.datamodule import PoolDataModule
from al_lightning.presets import check_rho, frugal_rho
from al_lightning.report.plan import print_plan
from al_lightning.run.store import read_run
from al_lightning.steps.control import COMPARED
from al_lightning.steps.rehearse import rehearse

USAGE = """\
usage: al-lightning plan [--json] [option=value ...]

What a run would cost, round by round; how many rounds are the cheapest; whether active learning is worth it.

  al-lightning plan                                    the run that al-lightning run would make, measured on a batch
  al-lightning plan data=mine model=mine labels=2000   yours
  al-lightning plan architecture=resnet152 pool=1200000 labels=200000 epochs=90     before there is any code

  pool, labels, epochs            records; labels of ordinary active learning in small rounds; epochs of one training
  architecture, forward, train    a common model, or FLOPs a record
  rounds, growth                  the rounds; default: the cheapest
  prices.label, prices.hour, flops_per_second, inference_discount, annotators, control, round_money, round_hours,
  record_gigabytes, storage, egress
  random, maturity, worth        what labels are worth, docs/bill.md
  run_dir                        a run that was begun: whether the labels of its first round say anything

Every option of al-lightning run is one here: experiment=ordinary, fit=reset, candidates.share=0.1, query=bald ..."""

_PROJECT = ("inference_discount", "annotators", "control", "round_money", "round_hours")
_STORE = ("record_gigabytes", "storage", "egress")


def plan(arguments: Sequence[str]) -> int:
    """Plan and print.

    Args:
        arguments: overrides and ``--json``, the verb excluded.

    Returns:
        Exit code: 0, or 1 for an error of this library or of the configuration.
    """
    from hydra.errors import HydraException

    if any(a in ("-h", "--help") for a in arguments):
        print(USAGE)
        return 0
    be_quiet()
    own = [a for a in arguments if a != "--json"]
    try:
        found = planned(compose_config("plan", own), own)
    except (ActiveLearningError, HydraException, ValueError) as error:
        say_error(error)
        return 1
    if len(own) < len(arguments):
        print(json.dumps(found.to_json(), indent=1))
    else:
        print_plan(Console(), found)
    return 0


def planned(cfg: DictConfig, overrides: Sequence[str] = ()) -> Planned:
    """Plan what a configuration says.

    Args:
        cfg: a composed ``conf/plan.yaml``.
        overrides: what it was composed with; the command that runs the plan repeats those that a run understands.

    Raises:
        BadProject: a number that a plan cannot be made from.
    """
    if cfg.get("proxy"):
        raise BadProject(
            "a proxy is chosen, and a plan is of rounds of one model: leave proxy= and experiment=proxy out."
        )
    check_rho(cfg.rho)
    project, about, signal = _project(cfg)
    if cfg.rho == "auto":
        cfg = cfg.copy()
        cfg.rho = frugal_rho(project)
    way = _way(cfg, project)
    given = {name: cfg[name] for name in ("random", "maturity") if cfg[name] is not None}
    efficiency = Efficiency(**given)
    found = verdict(project, way, efficiency, signal)
    chosen = found.schedule
    if cfg.rounds is not None:
        chosen = _asked(cfg, project, way, efficiency)
    if chosen is None:
        chosen = best_schedule(project, way, efficiency)  # one round
    return Planned(
        project=project,
        about=about,
        efficiency=efficiency,
        schedule=chosen,
        trade_off=trade_off(project, way, efficiency, chosen.growth),
        levers=levers(project, chosen.way),
        verdict=found,
        run=_command(overrides, cfg, chosen),
    )


def _asked(cfg: DictConfig, project: Project, way: Way, efficiency: Efficiency) -> Schedule:
    if not isinstance(cfg.rounds, int) or cfg.rounds < 1:
        raise BadProject(f"rounds={cfg.rounds!r}: a whole number, allowed: 1 or more, or null for the cheapest.")
    if not isinstance(cfg.growth, int | float) or not 0 < cfg.growth < float("inf"):
        raise BadProject(f"growth={cfg.growth!r}: labels of a round / those of the one before, allowed: above 0.")
    found = schedule(project, way, efficiency, cfg.rounds, cfg.growth)
    if found is None:
        raise BadProject(
            f"rounds={cfg.rounds}: as good as {project.labels:,} labels picked in small rounds takes fewer labels than "
            "one a round: ask for fewer rounds."
        )
    return found


def _project(cfg: DictConfig) -> tuple[Project, tuple[str, ...], LabelSignal | None]:
    own = {name: cfg[name] for name in (*_PROJECT, *_STORE)}
    own |= {"labels": cfg.labels, "prices": Prices(**_given(cfg.prices)), "passes": max(1, part(cfg, "query").passes)}
    if cfg.flops_per_second is not None:
        own["flops_per_second"] = cfg.flops_per_second
    if cfg.architecture is None and cfg.forward is None:
        return _measured(cfg, own)
    known = None if cfg.architecture is None else architecture(cfg.architecture)
    missing = [name for name in ("pool", "epochs") if cfg[name] is None]
    if missing:
        raise BadProject(f"{' and '.join(missing)} missing: without your data and Trainer they are not known.")
    if known is not None:
        forward, train = known.forward, known.train
        flops = f"{forward:.3g} FLOPs to infer {known.record}, {train:.3g} to train"
        about = f"{cfg.architecture}: {flops} ({known.source})"
    else:
        forward, train = cfg.forward, cfg.train
        about = "forward and train: as given" if train else "forward: as given; train: 3 times as much, an assumption"
    return Project(pool=cfg.pool, epochs=cfg.epochs, forward=forward, train=train, **own), (about,), None


def _measured(cfg: DictConfig, own: dict[str, Any]) -> tuple[Project, tuple[str, ...], LabelSignal | None]:
    a_run = cfg.copy()
    OmegaConf.update(a_run, "prices", {"_target_": "al_lightning.Prices", **_given(cfg.prices)}, merge=False)
    OmegaConf.update(a_run, "run_dir", "never written")
    OmegaConf.update(a_run, "logger", None, merge=False)
    OmegaConf.update(a_run, "rho", 1.0 if cfg.rho == "auto" else cfg.rho)
    parts = build(a_run)
    found = rehearse(parts.learner.trainer, parts.model, parts.pool)
    epochs = cfg.epochs or parts.learner.recipe.epochs
    if epochs is None:
        raise BadProject("epochs missing: this Trainer has no limit on them.")
    seconds: dict[str, Any] = {"forward_seconds": found.forward_seconds, "train_seconds": found.train_seconds}
    if cfg.flops_per_second is not None:
        seconds = {}
    project = Project(
        pool=cfg.pool or parts.pool.size,
        epochs=epochs,
        forward=found.forward,
        train=found.train,
        val_labels=parts.pool.val_labels,
        validated_per_epoch=found.validated_per_epoch,
        validated_per_fit=found.validated_per_fit,
        **seconds,
        **own,
    )
    how = "seconds: measured on this machine" if seconds else "seconds: by flops_per_second"
    about = f"a record: {found.forward:.3g} FLOPs to infer, {found.train:.3g} to train, measured on your model; {how}"
    return project, (about,), _signal(parts.pool, _bought(cfg, parts.pool))


def _begun(cfg: DictConfig) -> Path | None:
    """The folder of a run that was begun; None where none was named, or it is still to be made."""
    try:
        folder = Path(cfg.run_dir)
    except InterpolationResolutionError:  # the default is named by a running Hydra
        return None
    return folder if (folder / "run.sqlite").exists() else None


def _bought(cfg: DictConfig, pool: PoolDataModule) -> dict[int, Any]:
    """Labels that are there: of the first round of a run, which no model has chosen, or those the data comes with."""
    folder = _begun(cfg)
    if folder is None:
        return dict(pool.state.labels)
    saved = read_run(folder)
    if not saved.queries:
        return {}
    pool.check_fingerprint(saved.meta["fingerprint"])
    answers = {i: saved.answers.get(i, SKIP) for i in saved.queries[0]}
    return {i: answer for i, answer in answers.items() if answer is not SKIP}


def _signal(pool: PoolDataModule, labels: Mapping[int, Any]) -> LabelSignal | None:
    """Return what the labels say; None without labels, classes, or features that are there without a model."""
    source, ids = pool.features, np.array(sorted(labels), dtype=np.int64)
    if not len(ids) or pool.task not in COMPARED or source is None or isinstance(source, Layer):
        return None
    features = source.compute(pool, ids) if isinstance(source, RawInputs) else source[ids]
    return label_signal(features, [int(labels[int(i)]) for i in ids], ids=ids)


def _way(cfg: DictConfig, project: Project) -> Way:
    query, policy, candidates = part(cfg, "query"), part(cfg, "fit"), part(cfg, "candidates")
    ordinary = isinstance(policy, WarmStart) and policy.mode == "reset" and isinstance(candidates, WholePool)
    worth = cfg.worth if cfg.worth is not None else 1.0 if ordinary else FRUGAL_WORTH
    if not isinstance(worth, int | float) or not 0 < worth <= 1.5:
        raise BadProject(f"worth={worth!r}: of labels beside ordinary active learning's, allowed: above 0, to 1.5.")
    selects = query.needs_inference
    return Way(sizes=(project.labels,), policy=policy, candidates=candidates, selects=selects, worth=worth)


def _given(node: DictConfig) -> dict[str, Any]:
    values: Any = OmegaConf.to_container(node)
    return {key: value for key, value in values.items() if value is not None and key != "_target_"}


def _command(overrides: Sequence[str], cfg: DictConfig, chosen: Schedule) -> str:
    """The command that runs the schedule, with what of the overrides a run understands."""
    known = {*compose_config("run", []), "experiment"}
    # A run that was begun goes on with its own rounds only.
    taken = ("labels", "round_size", "prices", *(("run_dir",) if _begun(cfg) else ()))
    kept = [o for o in overrides if (key := o.lstrip("+~").split("=")[0].split(".")[0]) in known and key not in taken]
    sizes = ",".join(str(size) for size in chosen.way.sizes)
    prices = [f"+prices.{key}={value}" for key, value in _given(cfg.prices).items()]
    words = [*kept, *prices, f"labels={chosen.plan.labels}", "round_size=listed", f"'round_size.sizes=[{sizes}]'"]
    return " ".join(["al-lightning run", *words])
