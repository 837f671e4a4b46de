"""Where a round's weights come from: the modes of WarmStart by round, at what price, and when to keep them.

    python -m benchmarks.warm_start tune     # development seeds, validation records: the gate and settings are chosen
    python -m benchmarks.warm_start          # other seeds, test records; writes results/warm_start.json

The protocol of Ash & Adams (NeurIPS 2020, arXiv:1910.08475): a perceptron of two hidden layers of 100, Adam at 0.001 in
batches of 128, 1,000 records drawn at random a round, each fit until 99 % of its training records are right. Theirs are
CIFAR-10, CIFAR-100 and SVHN, which are not at hand: here Fashion-MNIST and letter. Compare gaps.

- *online*: rounds of 1,000, every round's model judged;
- *half*: half of the records, then all of them, as in the paper's table.

A gate says which rounds may start warm: from what is known before a round (the share of labels that are new, the
agreement of the last two models, rounds so far), the widest threshold at which the warm rounds of the development
seeds lost no more than 0.2 points on average against the same round of reset.

Seconds are processor seconds of the one thread that trains, with all that Lightning and this library do in a round, so
that a busy machine does not count; wall seconds and FLOPs stand beside them. Judging is off the bill. Rows that are
finished under ``runs/benchmarks`` are read, not made again.
"""

from __future__ import annotations

import argparse
import json
import tempfile
import time
import warnings
from collections.abc import Callable, Sequence
from functools import cache
from pathlib import Path
from statistics import mean
from typing import Any, NamedTuple

import lightning as L
import torch
from lightning.pytorch.callbacks import EarlyStopping
from lightning.pytorch.utilities.seed import isolate_rng
from torch import Tensor, nn
from torch.nn.functional import cross_entropy
from torch.utils.data import TensorDataset
from torchmetrics.functional.classification import multiclass_cohen_kappa

from al_lightning import ActiveLearner, PoolDataModule, WarmStart
from al_lightning.cli.build import be_quiet
from al_lightning.contrib import Dash, Fire, Replay, Thaw
from al_lightning.history import RoundRecord
from al_lightning.query import Random
from al_lightning.round_size import Listed
from benchmarks import data
from benchmarks.common import UNFINISHED, barebones_trainer, claim, paired, write_results
from benchmarks.gates import gaps, learn_gate

Row = dict[str, Any]

SEEDS = range(100, 105)
"""Of the claims; nothing was chosen on them."""
FEW = range(100, 102)
"""Of what is beside the claims."""
DEVELOPMENT = {"fashion-mnist": range(2), "letter": range(1)}
"""What settings and the gate were chosen on."""
ROUNDS, STEP, BATCH, TARGET, MOST_EPOCHS = 8, 1000, 128, 0.99, 300
UNSEEN = 1000
"""Records without labels, on which agreement between rounds is measured."""
WHOLE = ROUNDS * STEP
ALLOWED = -0.2
"""Points of accuracy that count as no loss."""
DATASETS = ("fashion-mnist", "letter")

STABLE: dict[str, Any] = {"mode": "keep", "stable": True, "epochs": 5}
CLAIMED: dict[str, dict[str, Any]] = {"reset": {"mode": "reset"}, "keep": {"mode": "keep"}, "stable": STABLE}
MODES: dict[str, dict[str, Any]] = {
    "shrink_perturb": {"mode": "shrink_perturb"},
    "fire": {"mode": "fire"},
    "dash": {"mode": "dash"},
    "replay": {"mode": "resume", "replay": 2},
    "distill": {"mode": "resume", "replay": 2, "distill": 0.33},
    "last_layer": {"mode": "keep", "freeze": ("trunk",), "epochs": 10},
    "freeze_thaw": {"mode": "keep", "freeze": ("trunk",), "thaw": 2, "epochs": 10},
}
METHODS = CLAIMED | MODES


def policy_of(settings: dict[str, Any]) -> WarmStart:
    """Return the fit policy that settings are of: a mode of WarmStart, or one of those that are measured only."""
    others = {name: value for name, value in settings.items() if name != "mode"}
    if settings["mode"] in ("fire", "dash"):
        return {"fire": Fire, "dash": Dash}[settings["mode"]](**others)
    if "replay" in settings:
        return Replay(**others)
    return Thaw(**settings) if "thaw" in settings else WarmStart(**settings)


class Arrays(NamedTuple):
    """Records to label, in a drawn order, and records to judge on; ``y`` int64."""

    x: Tensor
    y: Tensor
    x_judge: Tensor
    y_judge: Tensor


@cache
def _whole(dataset: str) -> data.TrainTest:
    if dataset == "fashion-mnist":
        found = data.fashion_mnist()
        flat = [(part.x.flatten(1).float() / 255 - 0.286) / 0.353 for part in (found.train, found.test)]
        return found._replace(train=data.Split(flat[0], found.train.y), test=data.Split(flat[1], found.test.y))
    x, y = data.letter()
    x = (x - x.mean(0)) / x.std(0)
    order = torch.randperm(len(y), generator=torch.Generator().manual_seed(0))
    a, b = order[:15000], order[15000:]
    return data.TrainTest(data.Split(x[a], y[a]), data.Split(x[b], y[b]), 26)


def records(dataset: str, seed: int) -> Arrays:
    """A pool drawn by the seed.

    Development seeds are judged on the last sixth of the training part, which is in no pool, others on the test part.
    """
    train, test, _ = _whole(dataset)
    cut = len(train.y) * 5 // 6
    order = torch.randperm(cut, generator=torch.Generator().manual_seed(seed))[: WHOLE + UNSEEN]
    judge = data.Split(train.x[cut:], train.y[cut:]) if seed in DEVELOPMENT[dataset] else test
    return Arrays(train.x[order], train.y[order], judge.x, judge.y)


class Rows(TensorDataset):
    """Tensors that are read a batch at a time."""

    def __getitems__(self, positions: list[int]) -> list[tuple[Tensor, ...]]:
        index = torch.tensor(positions)
        return list(zip(*(tensor[index].unbind() for tensor in self.tensors), strict=True))


class Perceptron(L.LightningModule):
    """Two hidden layers of 100 with tanh, as in the paper's code; logs ``train_acc``."""

    def __init__(self, width: int, classes: int, optimiser: str) -> None:
        super().__init__()
        self.trunk = nn.Sequential(nn.Linear(width, 100), nn.Tanh(), nn.Linear(100, 100), nn.Tanh())
        self.head = nn.Linear(100, classes)
        self.optimiser = optimiser

    def forward(self, x: Tensor) -> Tensor:
        logits: Tensor = self.head(self.trunk(x))
        return logits

    def on_train_epoch_start(self) -> None:
        self.right, self.seen = torch.zeros(()), 0

    def training_step(self, batch: Sequence[Tensor], batch_idx: int) -> Tensor:
        x, y = batch
        logits = self(x)
        self.right += (logits.detach().argmax(1) == y).sum()
        self.seen += len(y)
        return cross_entropy(logits, y)

    def on_train_epoch_end(self) -> None:
        self.log("train_acc", self.right / self.seen)

    def configure_optimizers(self) -> Any:
        if self.optimiser == "sgd":
            return torch.optim.SGD(self.parameters(), lr=0.1)
        return torch.optim.Adam(self.parameters(), lr=1e-3, fused=True)


def run(dataset: str, settings: dict[str, Any], seed: int, sizes: Sequence[int], optimiser: str = "adam") -> Row:
    """All rounds with one policy; every list has an entry per round, costs are sums up to there."""
    x, y, x_judge, y_judge = records(dataset, seed)
    unseen = x[WHOLE:]
    trainer = barebones_trainer(MOST_EPOCHS)
    reached = EarlyStopping(
        "train_acc", mode="max", stopping_threshold=TARGET, patience=MOST_EPOCHS, check_on_train_epoch_end=True
    )
    trainer.callbacks.append(reached)  # type: ignore[attr-defined]
    row: Row = {key: [] for key in ("labels", "epochs", "accuracies", "agreements", "flops", "cpu_seconds", "seconds")}
    before, spent, began = torch.empty(0), 0.0, time.process_time()

    @torch.inference_mode()
    def judge(record: RoundRecord, trained: L.LightningModule) -> None:
        nonlocal before, spent, began
        spent += time.process_time() - began
        trained.eval()
        accuracy = 100 * (trained(x_judge).argmax(1) == y_judge).double().mean()
        now = trained(unseen).argmax(1)
        kappa = multiclass_cohen_kappa(now, before, int(y.max()) + 1).item() if len(before) else None
        cost = {"flops": record.cost["flops"], "seconds": record.cost["seconds"], "cpu_seconds": spent}
        seen = {"labels": record.labelled, "epochs": record.epochs, "accuracies": float(accuracy), "agreements": kappa}
        for key, value in {**seen, **cost}.items():
            row[key].append(round(value, 4) if isinstance(value, float) else value)
        before, began = now, time.process_time()

    with isolate_rng():
        torch.manual_seed(seed)
        model = Perceptron(x.shape[1], int(y.max()) + 1, optimiser)
    with tempfile.TemporaryDirectory() as folder, warnings.catch_warnings():
        warnings.filterwarnings("ignore", ".*does not have many workers")
        learner = ActiveLearner(
            trainer,
            query=Random(),
            round_size=Listed(list(sizes)),
            run_dir=Path(folder) / "run",
            fit=policy_of(settings),
            seed=seed,
        )
        pool = PoolDataModule(Rows(x[:WHOLE], y[:WHOLE]), task="multiclass", batch_size=BATCH)
        began = time.process_time()
        learner.fit(model, datamodule=pool, on_round=judge)
    return row | {"accuracy": row["accuracies"][-1], "accuracy_mean": round(mean(row["accuracies"]), 4)}


def measured(protocol: str, dataset: str, method: str, seed: int, sizes: Sequence[int], optimiser: str = "adam") -> Row:
    """A row, read where it is there already."""
    settings = METHODS[method]
    key = {"protocol": protocol, "dataset": dataset, "method": method, "seed": seed, "optimiser": optimiser}
    name = "-".join([protocol, dataset, method, optimiser, *map(str, sizes[:1]), str(seed)])
    path = UNFINISHED / "warm_start" / f"{name}.json"
    wanted = json.loads(json.dumps({"settings": settings, "sizes": list(sizes)}))
    found = json.loads(path.read_text()) if path.exists() else {}
    if {k: found.get(k) for k in wanted} != wanted:
        found = {**key, **wanted, **run(dataset, settings, seed, sizes, optimiser)}
        path.parent.mkdir(parents=True, exist_ok=True)
        path.with_suffix(".tmp").write_text(json.dumps(found))
        path.with_suffix(".tmp").replace(path)
        print(name, found["accuracies"], found["epochs"], f"{found['cpu_seconds'][-1]} s", flush=True)
    return found


def online(dataset: str, methods: Sequence[str], seeds: Sequence[int]) -> list[Row]:
    """Rounds of 1,000."""
    return [measured("online", dataset, method, seed, [STEP] * ROUNDS) for seed in seeds for method in methods]


def half(dataset: str, seeds: Sequence[int]) -> list[Row]:
    """Half of the records, then all of them."""
    return [
        measured("half", dataset, method, seed, [WHOLE // 2] * 2, optimiser)
        for seed in seeds
        for optimiser in ("sgd", "adam")
        for method in ("reset", "keep")
    ]


def learn() -> list[Row]:
    """The gate of every claimed warm mode, from the development seeds alone; by data set, and for both together."""
    rows = [row for dataset in DATASETS for row in online(dataset, tuple(CLAIMED), DEVELOPMENT[dataset])]
    return [
        {"method": method, "dataset": dataset or "both", **rule}
        for method in ("keep", "stable")
        for dataset in (*DATASETS, None)
        for rule in learn_gate([r for r in gaps(rows, method) if dataset in (None, r["dataset"])], ALLOWED)
    ]


# ---- results -----------------------------------------------------------------------------------------------------


def low(rows: Sequence[Row], method: str, key: str) -> float:
    """Lower end of the 95 % interval of the difference to reset, in points."""
    difference, width = paired(rows, method, "reset", key)
    return difference - width


def ratio(rows: Sequence[Row], method: str, key: str) -> float:
    """How many times more reset takes, on average over the seeds."""
    base = {row["seed"]: row[key][-1] for row in rows if row["method"] == "reset"}
    return mean(base[row["seed"]] / row[key][-1] for row in rows if row["method"] == method)


def table(rows: Sequence[Row]) -> list[Row]:
    """Per data set, protocol, optimiser and method: accuracy and what it took, beside reset on the same seeds."""
    groups: dict[tuple[str, ...], list[Row]] = {}
    for row in rows:
        groups.setdefault((row["protocol"], row["dataset"], row["optimiser"]), []).append(row)
    lines = []
    for (protocol, dataset, optimiser), group in groups.items():
        for method in dict.fromkeys(row["method"] for row in group):
            own = [row for row in group if row["method"] == method]
            line = {"protocol": protocol, "dataset": dataset, "optimiser": optimiser, "method": method}
            line |= {"seeds": len(own), "accuracy": mean(row["accuracy"] for row in own)}
            line["by_round"] = [round(mean(a), 2) for a in zip(*(row["accuracies"] for row in own), strict=True)]
            if method != "reset":
                if len(own) > 1:
                    for key in ("accuracy", "accuracy_mean"):
                        line[f"{key}_difference"], line[f"{key}_interval"] = paired(group, method, "reset", key)
                line |= {f"{key}_ratio": ratio(group, method, key) for key in ("cpu_seconds", "seconds", "flops")}
            lines.append({k: round(v, 3) if isinstance(v, float) else v for k, v in line.items()})
    return lines


def claims_of(rows: Sequence[Row]) -> list[dict[str, Any]]:
    """The claims, of Fashion-MNIST's rounds of 1,000, and letter's beside them."""
    main, letter = ([r for r in rows if r["dataset"] == d and r["protocol"] == "online"] for d in DATASETS)
    difference, width = paired(main, "keep", "reset")
    claims = [
        claim("online_time_ratio", ratio(main, "stable", "cpu_seconds"), ">=", 5.0),
        claim("online_flops_ratio", ratio(main, "stable", "flops"), ">=", 5.0),
        claim("online_accuracy_ci_low", low(main, "stable", "accuracy_mean"), ">=", ALLOWED),
        claim("online_final_accuracy_ci_low", low(main, "stable", "accuracy"), ">=", ALLOWED),
        claim("online_keep_gap_ci_high", difference + width, "<", 0.0),
        claim("seeds", len({r["seed"] for r in main if r["method"] == "stable"}), ">=", 5),
    ]
    if letter:
        claims += [
            claim("letter_time_ratio", ratio(letter, "stable", "cpu_seconds"), ">=", 5.0),
            claim("letter_accuracy_ci_low", low(letter, "stable", "accuracy_mean"), ">=", ALLOWED),
        ]
    return claims


def main() -> None:
    """Run what is asked for; without a word, all of it, the results written after every part."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("what", nargs="?", choices=["tune"])
    tune = parser.parse_args().what == "tune"
    torch.set_num_threads(1)
    be_quiet()
    if tune:
        print(*learn(), sep="\n")
        return
    parts: list[Callable[[], list[Row]]] = [
        lambda: online("fashion-mnist", tuple(CLAIMED), SEEDS),
        *(lambda seed=seed: online("fashion-mnist", tuple(MODES), [seed]) for seed in FEW),
        lambda: online("letter", tuple(CLAIMED), FEW),
        lambda: half("fashion-mnist", FEW),
        lambda: half("letter", FEW),
    ]
    rows: list[Row] = []
    for part in parts:
        rows += part()
        learnt = learn()  # from rows on disk after the first time
        claims = claims_of(rows)
        path = write_results(
            "warm_start", "python -m benchmarks.warm_start", rows, claims, learnt=learnt, table=table(rows)
        )
        print(*claims, path, sep="\n", flush=True)


if __name__ == "__main__":
    main()
