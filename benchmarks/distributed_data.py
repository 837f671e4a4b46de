"""The same records and model through Ray Data: ``map_batches`` on a pool of actors, as its documentation has it."""

from __future__ import annotations

import logging
import os
import time
import warnings
from typing import Any

import numpy as np
import torch

from al_lightning.query import Margin
from al_lightning.scoring.outputs import Outputs
from al_lightning.scoring.ray.cluster import imported
from al_lightning.scoring.ray.scorer import RayScorer

WORKERS, RECORDS, ROUNDS = 2, 65_536, 2


class Predictor:
    """What one would write by hand: the model is loaded once per actor, a batch is scored in inference mode."""

    def __init__(self, model: Any) -> None:
        import ray

        self.model = ray.get(model).eval()

    def __call__(self, batch: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
        rows = batch["data"]
        with torch.inference_mode():
            logits = self.model.infer([torch.from_numpy(rows[:, 1:].copy())]).logits
        return {"id": rows[:, 0].astype(np.int64), "score": Margin().payload(Outputs(logits))["score"].numpy()}


def by_ray_data(x: np.ndarray, model: Any, batch: int) -> np.ndarray:
    """Margins of all records; their ids go along, in front, because blocks come back in any order."""
    import ray

    rows = np.concatenate([np.arange(len(x), dtype=np.float32)[:, None], x], axis=1)
    scored = ray.data.from_numpy([rows[i : i + 4096] for i in range(0, len(rows), 4096)]).map_batches(
        Predictor,
        fn_constructor_args=(ray.put(model),),
        compute=ray.data.ActorPoolStrategy(size=WORKERS),
        batch_size=batch,
        num_cpus=1,
    )
    found = np.full(len(x), np.nan, np.float32)
    for part in scored.iter_batches(batch_size=None, batch_format="numpy"):
        found[part["id"]] = part["score"]
    return found


def against_ray_data(repeats: int = 3) -> list[dict[str, Any]]:
    """One row per repeat: rounds of scoring from nothing, workers included; sides take turns."""
    from benchmarks.distributed_models import Computing, ask, model_of, pool_of

    ray = imported()
    warnings.filterwarnings("ignore")
    ray.init(
        address="local", num_cpus=WORKERS + 1, include_dashboard=False, log_to_driver=False, logging_level=logging.ERROR
    )
    ray.data.DataContext.get_current().enable_progress_bars = False
    pool, model, rows = pool_of(RECORDS, batch=512), model_of(Computing), []
    x = pool.eval_data.tensors[0].numpy()

    def ours() -> list[float]:
        scorer = RayScorer(workers=WORKERS)
        try:
            return [_timed(lambda: ask(scorer, pool, model)) for _ in range(ROUNDS)]
        finally:
            scorer.close()

    def theirs() -> list[float]:
        return [_timed(lambda: by_ray_data(x, model, 512)) for _ in range(ROUNDS)]

    closest = float(np.abs(by_ray_data(x, model, 512) - _here(pool, model)).max())
    for repeat in range(repeats):
        found = {side.__name__: side() for side in ((ours, theirs) if repeat % 2 else (theirs, ours))}
        rows.append(
            {
                "part": "ray_data",
                "repeat": repeat,
                "records": RECORDS,
                "workers": WORKERS,
                "seconds": found["ours"],
                "seconds_ray_data": found["theirs"],
                "ratio": found["ours"][0] / found["theirs"][0],
                "ratio_of_rounds": sum(found["ours"]) / sum(found["theirs"]),
                "ratio_of_later_rounds": sum(found["ours"][1:]) / sum(found["theirs"][1:]),
                "largest_difference": closest,
                "load": os.getloadavg()[0],
            }
        )
    ray.shutdown()
    return rows


def _here(pool: Any, model: Any) -> np.ndarray:
    from al_lightning.scoring.trainer import TrainerScorer
    from benchmarks.distributed_models import ask

    return ask(TrainerScorer(), pool, model).arrays["score"]


def _timed(action: Any) -> float:
    start = time.perf_counter()
    action()
    return time.perf_counter() - start
