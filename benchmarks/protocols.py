"""The protocols of the savings benchmark: data, model, labels and rounds; each with the recipe chosen for it."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import cache
from typing import Any, NamedTuple

import lightning as L
import numpy as np
import torch
from torch import Tensor, nn
from torch.utils.data import TensorDataset

from al_lightning.cli.problems import Classifier
from benchmarks import data
from benchmarks.common import RESULTS
from benchmarks.pretrained import SentenceClassifier, tokens
from benchmarks.resnet import ResNet18

TAIL = 50
"""How many times more records than the rarest the most frequent class of the long-tail protocol has."""

# Read once a process, whatever the seed.
_letter, _banking77, _fashion_mnist = cache(data.letter), cache(data.banking77), cache(data.fashion_mnist)


class Arrays(NamedTuple):
    """Records to label and records to test on; ``y`` int64."""

    x: Tensor
    y: Tensor
    x_test: Tensor
    y_test: Tensor


def letter(seed: int) -> Arrays:
    """16,000 / 4,000 letters, split by the seed, standardised with the pool's mean and deviation (no label is read)."""
    x, y = _letter()
    order = torch.from_numpy(np.random.default_rng(seed).permutation(len(y)))
    pool, test = order[:16000], order[16000:]
    mean, deviation = x[pool].mean(0), x[pool].std(0)
    x = (x - mean) / deviation
    return Arrays(x[pool], y[pool], x[test], y[test])


def long_tail(seed: int) -> Arrays:
    """Letters whose classes in the pool fall 50:1 by a geometric rule; the test part keeps its balance.

    Which class is rare is drawn by the seed.
    """
    whole = letter(seed)
    rng = np.random.default_rng([seed, 1])
    classes = whole.y.numpy()
    most, kinds = int(np.bincount(classes).min()), int(classes.max()) + 1
    sizes = np.rint(most * TAIL ** (-rng.permutation(kinds) / (kinds - 1))).astype(int)
    kept = np.concatenate([np.flatnonzero(classes == c)[:size] for c, size in enumerate(sizes)])
    ids = torch.from_numpy(rng.permutation(kept))
    return whole._replace(x=whole.x[ids], y=whole.y[ids])


def _official(found: data.TrainTest) -> Arrays:
    return Arrays(found.train.x, found.train.y, found.test.x, found.test.y)


def banking77(seed: int) -> Arrays:
    """10,003 / 3,080 questions as WordLlama embeddings; the authors' own split, whatever the seed."""
    return _official(_banking77())


def fashion_mnist(seed: int) -> Arrays:
    """60,000 / 10,000 pictures, uint8; the authors' own split, whatever the seed."""
    return _official(_fashion_mnist())


@cache
def _banking77_tokens() -> data.TrainTest:
    found = data.banking77_text()
    parts = [part._replace(x=tokens(part.x)) for part in (found.train, found.test)]
    return found._replace(train=parts[0], test=parts[1])


def banking77_tokens(seed: int) -> Arrays:
    """The questions of :func:`banking77` as token ids; the authors' own split, whatever the seed."""
    return _official(_banking77_tokens())


class ConvNet(Classifier):
    """Two convolutions and a hidden layer for 28x28 grey pictures, 56,714 parameters."""

    def __init__(self, classes: int = 10, **settings: Any) -> None:
        super().__init__(in_features=32 * 5 * 5, classes=classes, hidden=(64,), **settings)
        self.trunk = nn.Sequential(
            nn.Conv2d(1, 16, 3),
            nn.ReLU(),
            nn.MaxPool2d(2),
            nn.Conv2d(16, 32, 3),
            nn.ReLU(),
            nn.MaxPool2d(2),
            nn.Flatten(),
            *self.trunk,
        )

    def embed(self, x: Tensor) -> Tensor:
        """The input of the last layer, ``(n, 64)``, of uint8 pictures ``(n, 1, 28, 28)``."""
        return super().embed((x.float() / 255 - 0.286) / 0.353)


@dataclass(frozen=True)
class Protocol:
    """What one comparison runs on.

    Args:
        arrays: seed -> data.
        model: a module class or function; takes ``learning_rate`` and ``schedule``.
        labels: B, bought from the pool.
        first: labels of the baseline's first round.
        step: labels of its later rounds.
        recipe: name of the recipe's results, where it is another protocol's.
        eval_batch: records of a batch that is scored; what is fastest on a core, for every method alike.
        features: seed -> a vector per record to label, for distances and clusters; None: the records themselves.
        trainer: further settings of the Trainer, for every method alike.
    """

    arrays: Callable[[int], Arrays]
    model: Callable[..., L.LightningModule]
    labels: int
    first: int
    step: int
    recipe: str | None = None
    eval_batch: int = 512
    features: Callable[[int], np.ndarray] | None = None
    trainer: Mapping[str, Any] = field(default_factory=dict)


def letter_model(**settings: Any) -> Classifier:
    """MLP 16-256-256-26."""
    return Classifier(16, 26, hidden=(256, 256), label_smoothing=0.1, **settings)


def banking77_model(**settings: Any) -> Classifier:
    """MLP 256-256-77."""
    return Classifier(256, 77, hidden=(256,), label_smoothing=0.1, **settings)


def pretrained_model(**settings: Any) -> L.LightningModule:
    """all-MiniLM-L6-v2 and a linear head for 77 classes."""
    return SentenceClassifier(77, **settings)


PROTOCOLS = {
    "letter": Protocol(letter, letter_model, labels=3200, first=200, step=200),
    "banking77": Protocol(banking77, banking77_model, labels=4000, first=200, step=200),
    "fashion-mnist": Protocol(fashion_mnist, ConvNet, labels=6000, first=300, step=300, eval_batch=128),
    "inference-heavy": Protocol(fashion_mnist, ConvNet, labels=3000, first=300, step=300, eval_batch=128),
    "pretrained": Protocol(
        banking77_tokens,
        pretrained_model,
        labels=2000,
        first=200,
        step=200,
        eval_batch=64,
        features=lambda seed: _banking77().train.x.numpy(),
        trainer={"accelerator": "auto"},
    ),
    "fashion-mnist-resnet18": Protocol(
        fashion_mnist,
        ResNet18,
        labels=6000,
        first=300,
        step=300,
        eval_batch=1000,
        trainer={"accelerator": "gpu", "precision": "bf16-mixed"},
    ),
    "long-tail": Protocol(long_tail, letter_model, labels=3200, first=200, step=200, recipe="letter"),
}


def recipe(name: str) -> dict[str, Any]:
    """The recipe of a protocol, as ``python -m benchmarks.recipe`` chose it: epochs, batch, learning_rate, schedule."""
    path = RESULTS / f"recipe-{PROTOCOLS[name].recipe or name}.json"
    found: dict[str, Any] = json.loads(path.read_text())["recipe"]
    return found


def pool_and_test(name: str, seed: int) -> tuple[TensorDataset, TensorDataset]:
    """The records to label, and those to test on."""
    arrays = PROTOCOLS[name].arrays(seed)
    return TensorDataset(arrays.x, arrays.y), TensorDataset(arrays.x_test, arrays.y_test)
