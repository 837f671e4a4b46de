"""The protocols of the savings benchmark: data, model, labels and rounds; each with the recipe chosen for it."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from functools import cache, partial
from typing import Any, NamedTuple

import lightning as L
import numpy as np
import torch
from torch import Tensor, nn
from torch.utils.data import TensorDataset

from al_lightning.cli.problems import Classifier, digits
from benchmarks import data
from benchmarks.common import RESULTS
from benchmarks.pretrained import BagOfTokens, SentenceClassifier, tokens
from benchmarks.resnet import ResNet18

TAIL = 50
"""How many times more records than the rarest the most frequent class of the long-tail protocol has."""

# Read once a process, whatever the seed.
_letter, _banking77, _fashion_mnist = cache(data.letter), cache(data.banking77), cache(data.fashion_mnist)
_adult, _goemotions = cache(data.adult), cache(data.goemotions)


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


def digits_pool(seed: int) -> Arrays:
    """1,437 / 360 handwritten digits of 64 pixels, split by the seed."""
    train, val, test = (part.tensors for part in digits(seed))
    return Arrays(torch.cat([train[0], val[0]]), torch.cat([train[1], val[1]]), *test)


def adult(seed: int) -> Arrays:
    """16,000 / 16,281 people, the pool drawn by the seed, standardised with its mean and deviation."""
    return _standardised(_part(_official(_adult()), 16_000, seed))


def goemotions(seed: int) -> Arrays:
    """16,000 / 4,590 comments as WordLlama embeddings, the pool drawn by the seed."""
    return _part(_official(_goemotions()), 16_000, seed)


def noisy(arrays: Callable[[int], Arrays], share: float, seed: int) -> Arrays:
    """The same records, a share of whose labels are shuffled among themselves; the test part is clean."""
    whole, rng = arrays(seed), np.random.default_rng([seed, 2])
    ids = rng.permutation(len(whole.y))[: round(share * len(whole.y))]
    y = whole.y.clone()
    y[torch.from_numpy(ids)] = whole.y[torch.from_numpy(rng.permutation(ids))]
    return whole._replace(y=y)


def small(arrays: Callable[[int], Arrays], size: int, seed: int) -> Arrays:
    """A part of the records to label."""
    return _part(arrays(seed), size, seed)


def _part(whole: Arrays, size: int, seed: int) -> Arrays:
    ids = torch.from_numpy(np.random.default_rng([seed, 3]).permutation(len(whole.y))[:size])
    return whole._replace(x=whole.x[ids], y=whole.y[ids])


def _standardised(whole: Arrays) -> Arrays:
    mean, deviation = whole.x.mean(0), whole.x.std(0).clamp_min(1e-6)
    return whole._replace(x=(whole.x - mean) / deviation, x_test=(whole.x_test - mean) / deviation)


class ConvNet(Classifier):
    """Two convolutions and a hidden layer for 28x28 grey pictures; 56,714 parameters with 16 channels."""

    def __init__(self, classes: int = 10, channels: int = 16, **settings: Any) -> None:
        super().__init__(in_features=2 * channels * 5 * 5, classes=classes, hidden=(4 * channels,), **settings)
        self.trunk = nn.Sequential(
            nn.Conv2d(1, channels, 3),
            nn.ReLU(),
            nn.MaxPool2d(2),
            nn.Conv2d(channels, 2 * channels, 3),
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
        proxy: a smaller module, for the methods that select by one.
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
    proxy: Callable[..., L.LightningModule] | None = None


def letter_model(**settings: Any) -> Classifier:
    """MLP 16-256-256-26."""
    return Classifier(16, 26, hidden=(256, 256), label_smoothing=0.1, **settings)


def letter_proxy(**settings: Any) -> Classifier:
    """MLP 16-96-96-26, a sixth of the model's work."""
    return Classifier(16, 26, hidden=(96, 96), label_smoothing=0.1, **settings)


def banking77_model(**settings: Any) -> Classifier:
    """MLP 256-256-77."""
    return Classifier(256, 77, hidden=(256,), label_smoothing=0.1, **settings)


def banking77_proxy(**settings: Any) -> Classifier:
    """MLP 256-64-77, a quarter of the model's work."""
    return Classifier(256, 77, hidden=(64,), label_smoothing=0.1, **settings)


def digits_model(**settings: Any) -> Classifier:
    """MLP 64-128-10."""
    return Classifier(64, 10, **settings)


def adult_model(**settings: Any) -> Classifier:
    """MLP 108-64-2."""
    return Classifier(_adult().train.x.shape[1], 2, hidden=(64,), label_smoothing=0.1, **settings)


def goemotions_model(**settings: Any) -> Classifier:
    """MLP 256-256-28."""
    return Classifier(256, 28, hidden=(256,), label_smoothing=0.1, **settings)


def pretrained_model(**settings: Any) -> L.LightningModule:
    """all-MiniLM-L6-v2 and a linear head for 77 classes."""
    return SentenceClassifier(77, **settings)


PROTOCOLS = {
    "letter": Protocol(letter, letter_model, labels=3200, first=200, step=200, proxy=letter_proxy),
    "banking77": Protocol(banking77, banking77_model, labels=4000, first=200, step=200, proxy=banking77_proxy),
    "fashion-mnist": Protocol(
        fashion_mnist,
        ConvNet,
        labels=6000,
        first=300,
        step=300,
        eval_batch=128,
        proxy=partial(ConvNet, channels=6),  # a sixth of the model's work
    ),
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
        proxy=partial(BagOfTokens, 77),
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


FOR_VERDICTS = {
    # Of these no saving is claimed: they are what benchmarks/verdicts.py asks whether active learning is worth it on.
    "digits": Protocol(digits_pool, digits_model, labels=400, first=40, step=40),
    "adult": Protocol(adult, adult_model, labels=1600, first=160, step=160, recipe="banking77"),
    "goemotions": Protocol(goemotions, goemotions_model, labels=3000, first=300, step=300, recipe="banking77"),
    "letter-small": Protocol(
        partial(small, letter, 1760), letter_model, labels=1600, first=160, step=160, recipe="letter"
    ),
    "banking77-small": Protocol(
        partial(small, banking77, 2200), banking77_model, labels=2000, first=200, step=200, recipe="banking77"
    ),
}
_DISTURBED = {
    "letter": Protocol(letter, letter_model, labels=2000, first=200, step=200, recipe="letter"),
    "banking77": Protocol(banking77, banking77_model, labels=2500, first=250, step=250, recipe="banking77"),
    "adult": FOR_VERDICTS["adult"],
}
for _about, _share in (("noisy", 0.6), ("shuffled", 1.0)):
    for _name, _clean in _DISTURBED.items():
        FOR_VERDICTS[f"{_name}-{_about}"] = replace(_clean, arrays=partial(noisy, _clean.arrays, _share))
PROTOCOLS |= FOR_VERDICTS


_SOURCES = {
    "long-tail": "letter",
    "pretrained": "banking77",
    "inference-heavy": "fashion-mnist",
    "fashion-mnist-resnet18": "fashion-mnist",
}


def source_of(name: str) -> str:
    """The data set that a protocol's records are from."""
    if name in FOR_VERDICTS:
        return name.split("-")[0]
    return _SOURCES.get(name, name)


def recipe(name: str) -> dict[str, Any]:
    """The recipe of a protocol, as ``python -m benchmarks.recipe`` chose it: epochs, batch, learning_rate, schedule."""
    path = RESULTS / f"recipe-{PROTOCOLS[name].recipe or name}.json"
    found: dict[str, Any] = json.loads(path.read_text())["recipe"]
    return found


def pool_and_test(name: str, seed: int) -> tuple[TensorDataset, TensorDataset]:
    """The records to label, and those to test on."""
    arrays = PROTOCOLS[name].arrays(seed)
    return TensorDataset(arrays.x, arrays.y), TensorDataset(arrays.x_test, arrays.y_test)
