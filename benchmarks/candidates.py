"""Which candidates to infer: ``python -m benchmarks.candidates``.

Digits without its test records: 1,000 in the pool, the rest held out for accuracy, drawn anew per seed. Sixteen rounds
of 25 labels by margin, weights kept, four epochs a round. Every selector infers the same share of the unlabelled
records in every round; the whole pool is the ceiling. Differences are paired by seed. What clustering costs is in the
rows.
"""

from __future__ import annotations

import logging
import statistics
import tempfile
import warnings
from typing import Any

import torch
from torch.utils.data import ConcatDataset, Subset

from al_lightning import ActiveLearner, Budget, PoolDataModule, WarmStart
from al_lightning.candidates import RandomSubset, Representatives, WholePool
from al_lightning.candidates.base import CandidateSelector
from al_lightning.cli.problems import Classifier, digits
from al_lightning.features import RawInputs
from al_lightning.query import Margin
from al_lightning.round_size import Fixed
from benchmarks.common import barebones_trainer, claim, paired, write_results

SEEDS = range(100, 130)
SHARE = 0.2
SELECTORS: dict[str, CandidateSelector] = {
    "whole": WholePool(),
    "random": RandomSubset(SHARE),
    "rotation": Representatives(SHARE, memory=False),
    "rotation_and_memory": Representatives(SHARE, memory=True),
}


def run(name: str, seed: int) -> dict[str, Any]:
    """One run: accuracy in percent on the held-out records, and what it cost."""
    splits = digits(seed)
    records: ConcatDataset[Any] = ConcatDataset([splits.train, splits.val])
    order = torch.randperm(len(records), generator=torch.Generator().manual_seed(seed)).tolist()
    pool = PoolDataModule(Subset(records, order[:1000]), task="multiclass", batch_size=16, features=RawInputs())
    x, y = (torch.stack(column) for column in zip(*(records[i] for i in order[1000:]), strict=True))
    trainer = barebones_trainer(8)
    torch.manual_seed(seed)
    model = Classifier(in_features=64, classes=10, learning_rate=1e-2, schedule="constant")
    with tempfile.TemporaryDirectory() as folder:
        result = ActiveLearner(
            trainer,
            query=Margin(),
            candidates=SELECTORS[name],
            round_size=Fixed(25),
            fit=WarmStart("keep", epochs=4),
            stop=[Budget(labels=400)],
            run_dir=folder,
            seed=seed,
        ).fit(model, datamodule=pool)
    with torch.inference_mode():
        correct = (result.model.eval()(x).argmax(dim=-1) == y).float().mean()
    return {
        "method": name,
        "seed": seed,
        "accuracy": round(100 * float(correct), 3),
        "records_inferred": result.bill.records_inferred,
        "flops": result.bill.flops,
        "flops_clustering": result.bill.lines["cluster"].flops if "cluster" in result.bill.lines else 0.0,
        "seconds": result.bill.seconds,
    }


def main() -> None:
    """Measure and write."""
    logging.getLogger("lightning.pytorch").setLevel(logging.ERROR)
    warnings.filterwarnings("ignore")
    rows = [run(name, seed) for seed in SEEDS for name in SELECTORS]
    pairs = {
        "rotation_over_random": ("rotation", "random"),
        "memory_over_rotation": ("rotation_and_memory", "rotation"),
        "random_over_whole": ("random", "whole"),
        "rotation_over_whole": ("rotation", "whole"),
    }
    intervals = {name: paired(rows, *pair) for name, pair in pairs.items()}
    claims = [claim(f"{name}_ci_low", intervals[name][0] - intervals[name][1], ">", 0.0) for name in list(pairs)[:2]]
    summary = {
        name: {
            "accuracy": statistics.mean(r["accuracy"] for r in rows if r["method"] == name),
            "records_inferred": statistics.mean(r["records_inferred"] for r in rows if r["method"] == name),
            "flops": statistics.mean(r["flops"] for r in rows if r["method"] == name),
        }
        for name in SELECTORS
    }
    path = write_results(
        "candidates", "python -m benchmarks.candidates", rows, claims, intervals=intervals, summary=summary
    )
    print(summary, intervals, path, sep="\n")


if __name__ == "__main__":
    main()
