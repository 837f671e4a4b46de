"""Learning curves of ordinary active learning, for judging stopping rules on: ``python -m benchmarks.stopping record``.

Margin, rounds of one size, the whole pool scored every round, weights reset; all records of a data set are split anew
for every curve into pool, stop set, validation and test. Splits of a data set have the same numbers of records, so all
of them train at once, as one model whose layers hold a matrix per split.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cache
from itertools import pairwise
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import avg_pool2d, cross_entropy
from torch.optim.lr_scheduler import OneCycleLR
from torchmetrics.functional.classification import multiclass_cohen_kappa

from al_lightning.cli.problems import digits
from al_lightning.features.neighbours import project
from al_lightning.query.margin import margin_score
from al_lightning.report.environment import environment
from al_lightning.stop.pool_covered import DIMS, SAMPLE, covered_share
from benchmarks import data
from benchmarks.common import RESULTS

ROUNDS = 20
SPLITS = 20
MODELS = ("linear", "mlp")
HIDDEN = 128
BATCH = 32
LEAST_STEPS = 200
"""A fit on few labels goes on until it has made this many steps."""
RATES = {"linear": 0.02, "mlp": 0.01}


@dataclass(frozen=True)
class Protocol:
    """How many records of a data set go where; the rest is not used."""

    load: Callable[[], data.Split]
    size: int
    pool: int
    val: int
    stop: int
    test: int
    epochs: int = 12


def _whole(found: data.TrainTest) -> data.Split:
    return data.Split(torch.cat([found.train.x, found.test.x]), torch.cat([found.train.y, found.test.y]))


def _digits() -> data.Split:
    parts = [part.tensors for part in digits()]
    return data.Split(torch.cat([x for x, _ in parts]), torch.cat([y for _, y in parts]))


def _pictures() -> data.Split:
    x, y = _whole(data.fashion_mnist())
    return data.Split(avg_pool2d(x.float() / 255, 2).flatten(1), y)


PROTOCOLS = {
    "digits": Protocol(_digits, size=20, pool=900, val=150, stop=150, test=597),
    "letter": Protocol(data.letter, size=150, pool=13_000, val=500, stop=1000, test=5500),
    "banking77": Protocol(
        lambda: _whole(data.banking77()), size=200, pool=8500, val=500, stop=1000, test=3083, epochs=6
    ),
    "adult": Protocol(lambda: _whole(data.adult()), size=50, pool=20_000, val=500, stop=1000, test=20_000),
    "goemotions": Protocol(
        lambda: _whole(data.goemotions()), size=200, pool=20_000, val=500, stop=1000, test=15_000, epochs=6
    ),
    "fashion-mnist": Protocol(_pictures, size=150, pool=10_000, val=500, stop=1000, test=20_000, epochs=6),
}


class Round(NamedTuple):
    """What is known of one split after a fit; what the pool says is of its unlabelled records, by this round's model.

    Attributes:
        test: accuracy on the test records; no rule reads it.
        val: accuracy on the validation records.
        kappa: Cohen's kappa on the stop set with the round before; NaN in the first.
        changed: share of the stop set that is predicted otherwise than the round before; NaN in the first.
        uncertainty: mean score of the strategy, one minus the margin.
        coverage: share of the pool that is covered, as Coverage reads it.
        error: mean of one minus the highest probability.
        entropy: mean entropy / log(classes).
        highest: highest entropy / log(classes).
        spread: variance of the entropy / log(classes).
        picked: accuracy on the records queried next, before they are trained on.
        surest: lowest entropy / log(classes) of the records queried next.
        contradiction: mean confidence in wrong answers about them.
    """

    test: float
    val: float
    kappa: float
    changed: float
    uncertainty: float
    coverage: float
    error: float
    entropy: float
    highest: float
    spread: float
    picked: float
    surest: float
    contradiction: float


class Stack:
    """As many small classifiers as there are splits, trained at once, from the same weights every time."""

    def __init__(self, model: str, splits: int, dims: int, classes: int) -> None:
        widths = (dims, classes) if model == "linear" else (dims, HIDDEN, classes)
        self.layers: list[tuple[Tensor, Tensor]] = []
        for seed, (a, b) in enumerate(pairwise(widths)):
            drawn = torch.randn(splits, a, b, generator=torch.Generator().manual_seed(seed))
            self.layers.append((drawn * (2 / a) ** 0.5, torch.zeros(splits, 1, b)))
        self.rate = RATES[model]
        self.flops = 2 * sum(a * b for a, b in pairwise(widths))
        self.weights: list[tuple[Tensor, Tensor]] = []

    def logits(self, x: Tensor) -> Tensor:
        """``(splits, n, dims)`` to ``(splits, n, classes)``."""
        for i, (w, b) in enumerate(self.weights):
            x = torch.baddbmm(b, x.relu() if i else x, w)
        return x

    def of(self, split: int, x: Tensor) -> Tensor:
        """Probabilities of one split's model, ``(n, dims)`` to ``(n, classes)``."""
        for i, (w, b) in enumerate(self.weights):
            x = torch.addmm(b[split], x.relu() if i else x, w[split])
        return x.softmax(1)

    def fit(self, x: Tensor, y: Tensor, labelled: Tensor, epochs: int, generator: torch.Generator) -> int:
        """Train on ``labelled``, ids ``(splits, n)``; returns the records each went through."""
        self.weights = [(w.clone().requires_grad_(), b.clone().requires_grad_()) for w, b in self.layers]
        splits, n = labelled.shape
        steps = max(LEAST_STEPS, epochs * -(-n // BATCH))
        optimiser = torch.optim.Adam([p for layer in self.weights for p in layer], lr=self.rate, foreach=True)
        schedule = OneCycleLR(optimiser, self.rate, total_steps=steps)
        queue, size = labelled[:, :0], min(BATCH, n)
        for _ in range(steps):
            if queue.shape[1] < size:
                order = torch.rand(splits, n, generator=generator).argsort(1)
                queue = torch.cat([queue, labelled.gather(1, order)], 1)
            ids, queue = queue[:, :size], queue[:, size:]
            loss = cross_entropy(self.logits(x[ids]).flatten(0, 1), y[ids].flatten()) * splits
            optimiser.zero_grad()
            loss.backward()
            optimiser.step()
            schedule.step()
        self.weights = [(w.detach(), b.detach()) for w, b in self.weights]
        return steps * size


@cache
def _loaded(name: str) -> tuple[Tensor, Tensor, int]:
    x, y = PROTOCOLS[name].load()
    x = (x - x.mean(0)) / x.std(0).clamp_min(1e-6)  # no label is read
    return x, y, int(y.max()) + 1


def record(name: str, model: str, *, splits: int = SPLITS, rounds: int = ROUNDS) -> dict[str, Any]:
    """Curves of one data set and model, all splits at once."""
    p, (x, y, classes) = PROTOCOLS[name], _loaded(name)
    features, _ = project(x.numpy(), DIMS, seed=0)
    rngs = [np.random.default_rng([split, 5]) for split in range(splits)]
    ends = np.cumsum([p.pool, p.val, p.stop, p.test])
    parts = [np.split(rng.permutation(len(y)), ends) for rng in rngs]
    left = [pool for pool, *_ in parts]
    labelled = [np.empty(0, np.int64)] * splits
    picked = [rng.choice(pool, p.size, replace=False) for rng, pool in zip(rngs, left, strict=True)]
    stack, generator = Stack(model, splits, x.shape[1], classes), torch.Generator().manual_seed(0)
    before: list[Tensor | None] = [None] * splits
    found: list[list[Round]] = [[] for _ in range(splits)]
    trained, scored, train_seconds, score_seconds = [], [], [], []
    for _ in range(rounds):
        labelled = [np.concatenate(pair) for pair in zip(labelled, picked, strict=True)]
        left = [np.setdiff1d(pool, ids) for pool, ids in zip(left, picked, strict=True)]
        start = time.perf_counter()
        trained.append(stack.fit(x, y, torch.from_numpy(np.stack(labelled)), p.epochs, generator))
        train_seconds.append((time.perf_counter() - start) / splits)
        scored.append(len(left[0]))
        score_seconds.append(0.0)
        for s, (_, val, stop, test, _) in enumerate(parts):
            start = time.perf_counter()
            probabilities = stack.of(s, x[left[s]])
            score = margin_score(probabilities)
            picked[s] = left[s][score.topk(p.size).indices.numpy()]
            score_seconds[-1] += (time.perf_counter() - start) / splits
            entropy = torch.special.entr(probabilities).sum(1) / np.log(classes)
            asked = stack.of(s, x[picked[s]])
            confidence, answer = asked.max(1)
            wrong = answer != y[picked[s]]
            now = stack.of(s, x[stop]).argmax(1)
            kappa = changed = float("nan")
            if (last := before[s]) is not None:
                changed = float((now != last).float().mean())
                kappa = float(multiclass_cohen_kappa(now, last, num_classes=classes)) if changed else 1.0
            before[s] = now
            found[s].append(
                Round(
                    test=_accuracy(stack, s, x, y, test),
                    val=_accuracy(stack, s, x, y, val),
                    kappa=kappa,
                    changed=changed,
                    uncertainty=float(score.mean()),
                    coverage=covered_share(
                        features[rngs[s].choice(left[s], min(SAMPLE, len(left[s])), replace=False)],
                        features[labelled[s]],
                    )[0],
                    error=float(1 - probabilities.amax(1).mean()),
                    entropy=float(entropy.mean()),
                    highest=float(entropy.max()),
                    spread=float(entropy.var()),
                    picked=1 - float(wrong.float().mean()),
                    surest=float((torch.special.entr(asked).sum(1) / np.log(classes)).min()),
                    contradiction=float((confidence * wrong).mean()),
                )
            )
    return {
        "dataset": name,
        "model": model,
        "classes": classes,
        "labels": [p.size * (i + 1) for i in range(rounds)],
        "val": p.val,
        "stop": p.stop,
        "test": p.test,
        "flops_per_record": {"train": 3 * stack.flops, "forward": stack.flops},
        "trained": trained,
        "scored": scored,
        "train_seconds": [round(v, 4) for v in train_seconds],
        "score_seconds": [round(v, 4) for v in score_seconds],
        "columns": list(Round._fields),
        "curves": [[[_short(v) for v in of_round] for of_round in curve] for curve in found],
    }


def _accuracy(stack: Stack, split: int, x: Tensor, y: Tensor, ids: np.ndarray) -> float:
    return float((stack.of(split, x[ids]).argmax(1) == y[ids]).float().mean())


def _short(value: float) -> float | None:
    return None if np.isnan(value) else float(f"{value:.4g}")


def path_of(name: str, folder: Path = RESULTS) -> Path:
    """Where the curves of a data set are."""
    return folder / f"curves-{name}.json"


def record_all(names: list[str], *, folder: Path = RESULTS, **settings: int) -> None:
    """Record what is not there yet; a data set's file is written after each of its models."""
    for name in names:
        path = path_of(name, folder)
        groups: list[dict[str, Any]] = json.loads(path.read_text())["groups"] if path.is_file() else []
        for model in MODELS:
            if any(group["model"] == model for group in groups):
                continue
            start = time.perf_counter()
            groups.append(record(name, model, **settings))
            head = {"command": "python -m benchmarks.stopping record", "environment": environment()}
            fields = [f"{json.dumps(key)}: {json.dumps(value)}" for key, value in head.items()]
            body = ",\n  ".join(json.dumps(group, allow_nan=False, separators=(",", ":")) for group in groups)
            aside = path.with_suffix(".json.tmp")
            aside.write_text("{\n " + ",\n ".join([*fields, f'"groups": [\n  {body}\n ]']) + "\n}\n")
            aside.replace(path)
            print(f"{name} {model}: {time.perf_counter() - start:.0f} s, {path}", flush=True)


def curves(names: list[str], *, folder: Path = RESULTS) -> Iterator[dict[str, Any]]:
    """What was recorded: a group per data set and model, its curves an array ``(splits, rounds, columns)``."""
    for name in names:
        for group in json.loads(path_of(name, folder).read_text())["groups"]:
            yield {**group, "curves": np.array(group["curves"], dtype=float)}
