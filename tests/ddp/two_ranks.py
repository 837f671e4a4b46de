"""Runs on two processes; every rank writes what it saw. Started as a program by test_two_ranks.py."""

from __future__ import annotations

import json
import os
import sys
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch

from al_lightning.callbacks.stall_detection import StallDetection
from al_lightning.callbacks.warm_start import WarmStart
from al_lightning.candidates import ShardShare
from al_lightning.cost.budget import Budget
from al_lightning.fit.trainer import fresh_trainer
from al_lightning.oracles.oracle import FunctionOracle
from al_lightning.round_size import Fixed
from al_lightning.run import durable, store
from al_lightning.scoring.trainer import run_inference
from al_lightning.stop import AllOf, AnyOf, CostStopping, Coverage, FalseStart, StabilizingPredictions
from tests.helpers import Net, blobs, learner, net, pool_of, quiet
from tests.shards import noted, shards_in

writes: list[str] = []
SCORED = {"eleven": [50, 3, 17, 4, 59, 0, 21, 22, 8, 40, 1], "one": [7], "two": [9, 8]}


def spy_on_writes() -> None:
    """Note every opening of a run folder and every file written to it by this process."""
    init, write = store.Store.__init__, durable.write_aside

    def opened(self: Any, folder: Path) -> None:
        writes.append(str(folder))
        init(self, folder)

    def written(path: Path, action: Any) -> None:
        writes.append(str(path))
        write(path, action)

    store.Store.__init__ = opened  # type: ignore[method-assign]
    for module in list(sys.modules.values()):
        if getattr(module, "write_aside", None) is write:
            module.write_aside = written  # type: ignore[attr-defined]


class Stopped(Exception):
    """The program died here."""


class Uneven(Net):
    """Improves on rank 0 and is stuck on rank 1."""

    fits = 0

    def on_fit_start(self) -> None:
        self.fits += 1

    def training_step(self, batch: Any, batch_idx: int) -> Any:
        value = -float(self.current_epoch) if self.global_rank == 0 else 1.0
        self.log("uneven", value, on_step=False, on_epoch=True)
        return super().training_step(batch, batch_idx)


def seen(result: Any, pool: Any) -> dict[str, Any]:
    return {
        "labelled": result.labelled.tolist(),
        "labels": {str(k): v for k, v in pool.state.labels.items()},
        "weight": result.model.net[0].weight.tolist(),
        "metrics": [r.metrics for r in result.history],
        "agreement": [r.agreement for r in result.history],
        "trained": result.bill.records_trained,
        "inferred": result.bill.records_inferred,
        "validated": result.bill.lines["validate"].records,
        "rho": result.rho,
        "reason": result.reason.kind,
    }


def main(root: Path) -> None:
    warnings.simplefilter("ignore")
    spy_on_writes()

    def ddp(**kwargs: Any) -> Any:
        return quiet(strategy="ddp", devices=2, **kwargs)

    report: dict[str, Any] = {"processes": {}}
    trainer, model, pool = ddp(), net(), pool_of()
    result = learner(root / "whole", trainer, stop_set=9).fit(model, datamodule=pool)
    rank = int(os.environ.get("LOCAL_RANK", 0))
    report["world"] = torch.distributed.get_world_size()
    report["whole"] = seen(result, pool)

    # Scoring with weights both ranks know; more ranks than records in one case.
    scorer = fresh_trainer(trainer)
    report["scores"] = {
        name: run_inference(scorer, model, pool, np.array(ids), lambda o: {"x": o.logits})[0]["x"].tolist()
        for name, ids in SCORED.items()
    }

    def stop(record: Any, module: Any) -> None:
        if record.round == 2:
            raise Stopped

    try:
        learner(root / "resumed", ddp(), stop_set=9, on_round=stop).fit(net(), datamodule=pool_of())
    except Stopped:
        report["stopped"] = True
    other_weights = net(seed=10 + rank)  # the folder's are used, on every rank
    pool = pool_of()
    report["resumed"] = seen(learner(root / "resumed", ddp(), stop_set=9).fit(other_weights, datamodule=pool), pool)

    policy, pool = WarmStart("keep", epochs=0.4, stable=True, final="previous", final_epochs=0.4), pool_of()
    report["parts"] = seen(learner(root / "parts", ddp(max_epochs=4), fit=policy).fit(net(), datamodule=pool), pool)

    policy, proxy, pool = WarmStart("keep", final="initial"), net(hidden=4), pool_of()
    report["proxy"] = seen(learner(root / "proxy", ddp(), fit=policy, proxy=proxy).fit(net(), datamodule=pool), pool)

    for name, kept in (("frozen", False), ("cached", True)):
        policy, pool = WarmStart("keep", freeze=("net.0",), cached=kept), pool_of()
        result = learner(root / name, ddp(), fit=policy, stop_set=9).fit(net(), datamodule=pool)
        embedded = result.bill.lines["embed"].records if kept else 0
        report[name] = seen(result, pool) | {"embedded": embedded, "head": result.model.net[2].weight.tolist()}

    rules = [CostStopping(price_per_point=0.01, agreement=-1.0), Budget(flops=1e9)]
    sizes, pool = Fixed(6), pool_of(features=blobs().tensors[0].numpy())
    stops = AnyOf([AllOf([Coverage(), StabilizingPredictions()]), *rules])
    result = learner(root / "rules", ddp(), round_size=sizes, stop_set=9, stop=[stops]).fit(net(), datamodule=pool)
    report["rules"] = seen(result, pool) | {
        "sentence": result.reason.sentence,
        "coverage": [r.coverage for r in result.history],
        "uncertainty": [r.uncertainty for r in result.history],
    }

    stall = StallDetection("uneven", mode="min", patience=1, max_restarts=1)
    uneven, pool = Uneven(), pool_of()
    result = learner(root / "stall", ddp(max_epochs=9, callbacks=[stall])).fit(uneven, datamodule=pool)
    report["stall"] = {
        "reason": result.reason.kind,
        "fits": uneven.fits,
        "aborted": result.bill.lines["aborted"].records,
    }

    watch = [StallDetection("train_loss", reference="chance", patience=1.0), FalseStart("val_acc")]
    diverging, pool = DivergesOnOne(), pool_of(val=blobs(60, seed=1))
    result = learner(root / "control", ddp(max_epochs=12), stop=watch).fit(diverging, datamodule=pool)
    control = result.bill.lines["control"]
    report["control"] = {
        "attempts": [r.attempts for r in result.history],
        "rates": diverging.rates,
        "records": control.records,
        "flops": control.flops,
        "labelled": result.labelled.tolist(),
    }

    data = shards_in(root / f"shards-{rank}", "parquet")
    pool, before = pool_of(data), noted(data.notes)
    result = learner(root / "sharded", ddp(), candidates=ShardShare(0.1)).fit(net(), datamodule=pool)
    report["shards"] = {
        "labelled": result.labelled.tolist(),
        "billed": result.bill.bytes,
        "read here": noted(data.notes) - before,
    }

    report["errors"] = {
        "oracle": error_of(
            lambda: learner(root / "oracle", ddp(), oracle=FunctionOracle(refuse)).fit(net(), pool_of())
        ),
        "mismatch": error_of(lambda: learner(root / "whole", ddp(), stop_set=9, seed=5).fit(net(), pool_of())),
        "data": error_of(lambda: learner(root / "data", ddp()).fit(net(), pool_of(blobs(seed=rank)))),
    }
    report["writes"] = writes
    (root / f"rank-{rank}.json").write_text(json.dumps(report))


class DivergesOnOne(Net):
    """What it logs in its first fit is NaN on rank 1; notes the rate of every batch."""

    fits = 0

    def __init__(self) -> None:
        super().__init__(lr=0.3)
        self.rates: list[float] = []

    def on_fit_start(self) -> None:
        self.fits += 1

    def on_train_batch_start(self, batch: Any, batch_idx: int) -> None:
        self.rates.append(self.trainer.optimizers[0].param_groups[0]["lr"])

    def log(self, name: str, value: Any, **kwargs: Any) -> None:
        broken = name == "train_loss" and self.fits == 1 and self.global_rank == 1
        super().log(name, value * float("nan") if broken else value, **kwargs)


def refuse(id: int) -> int:
    raise ConnectionError("the labelling server is down")


def error_of(action: Callable[[], Any]) -> str:
    try:
        action()
    except Exception as error:
        return f"{type(error).__name__}: {error}"
    return "none"


if __name__ == "__main__":
    main(Path(sys.argv[1]))
