"""BADGE: records whose gradients would be large and unlike each other's."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from al_lightning.cost.ledger import Stopwatch
from al_lightning.errors import OutputMismatch, PoolExhausted
from al_lightning.features.blocks import MOST
from al_lightning.pool.view import PoolView
from al_lightning.query.base import Strategy
from al_lightning.query.nearest import Group, Nearest, Rows, blocks, squared_norms
from al_lightning.query.work import PickSize
from al_lightning.scoring.outputs import Outputs

_FEW, _MANY = 128, 1024
"""Proposals drawn at once; more, up to the second number, where most are refused."""


def badge_picks(errors: np.ndarray, embedding: np.ndarray, size: int, rng: np.random.Generator) -> np.ndarray:
    """Seed k-means++ (Arthur & Vassilvitskii 2007) on gradients ``g_i = e_i h_i'`` that are never written out.

    The first pick has the largest norm, as in the authors' code, with ties broken by ``rng``; each further one is drawn
    with probability proportional to its squared distance to the nearest pick so far. Distances are those of rank-one
    matrices, ``|g - g'|^2 = |e|^2 |h|^2 + |e'|^2 |h'|^2 - 2 (e.e') (h.h')``, in float32.

    Draws are exact and mostly do without the distances: a record is proposed by an upper bound of its weight, the
    distance to the earlier picks it has been compared with, compared with the rest, and accepted with probability
    weight / bound. Only when proposals are refused too often is everything compared with everything. At worst that is
    ``2 n size (C + d)`` floating-point operations, what comparing everything with every pick takes; a few percent of it
    are usual. Memory beside the factors: about ``40 n + 4 size (C + d)`` bytes.

    Args:
        errors: ``e``, ``(n, C)``, finite.
        embedding: ``h``, ``(n, d)``, finite.
        size: how many to pick.
        rng: draws.

    Returns:
        ``(size,)`` distinct positions, in the order they were picked. Where all are duplicates of picks, they are drawn
        uniformly.

    Raises:
        PoolExhausted: fewer records than ``size``.
    """
    return _seeded(errors, embedding, size, rng)[0]


def _seeded(errors: np.ndarray, embedding: np.ndarray, size: int, rng: np.random.Generator) -> tuple[np.ndarray, float]:
    n = len(errors)
    if size > n:
        raise PoolExhausted(size, n, "candidates")

    def read(at: np.ndarray) -> Rows:
        return np.asarray(errors[at], np.float32), np.asarray(embedding[at], np.float32)

    everyone = np.arange(n)
    nearest = Nearest(read, n, everyone[:0], size)
    picked: list[int] = []
    if size:
        norms = [np.prod([squared_norms(part) for part in read(everyone[b])], axis=0) for b in blocks(n, 64)]
        largest = np.concatenate(norms)
        picked.append(int(rng.choice(np.flatnonzero(largest == largest.max()))))
        nearest.add(picked[0])
        nearest.bring(everyone)
    weights, refused, count = _Weights(nearest.bound), 0, _FEW
    while len(picked) < size and weights.total > 0:
        if refused > n:  # as much work as to know all weights
            nearest.bring(everyone)
            weights, refused = _Weights(nearest.bound), 0
        drawn = weights.draw(count, rng)
        thresholds = rng.random(count) * nearest.bound[drawn]
        some, which = np.unique(drawn, return_inverse=True)
        nearest.bring(some)
        accepted = _accept(Group(nearest, some), which, thresholds, size - len(picked))
        picked.extend(some[accepted].tolist())
        weights.update(some, nearest.bound)
        refused += count - len(accepted)
        count = _FEW if 4 * len(accepted) > count else min(2 * count, _MANY)
    if len(picked) < size:  # nothing is left but duplicates of picks
        left = np.setdiff1d(everyone, picked)
        picked.extend(rng.choice(left, size - len(picked), replace=False).tolist())
    return np.array(picked, dtype=np.int64), nearest.flops


def _accept(group: Group, which: np.ndarray, thresholds: np.ndarray, most: int) -> list[int]:
    """Members of the group to pick: proposals, in turn, whose weight is above their threshold when their turn comes."""
    picked: list[int] = []
    for i, threshold in zip(which.tolist(), thresholds.tolist(), strict=True):
        if threshold < group.bound[i] and len(picked) < most:
            picked.append(i)
            group.add(i)
    group.close()
    return picked


class _Weights:
    """Draws in proportion to weights that change a few at a time: sums of groups are kept."""

    def __init__(self, bound: np.ndarray) -> None:
        self._width = max(1, int(len(bound) ** 0.5))
        self._table = np.zeros((-(-len(bound) // self._width), self._width))
        self._table.flat[: len(bound)] = np.maximum(bound, 0)
        self._sums = self._table.sum(axis=1)

    @property
    def total(self) -> float:
        return float(self._sums.sum())

    def draw(self, count: int, rng: np.random.Generator) -> np.ndarray:
        """Positions ``(count,)``, with replacement; by rounding one of weight 0 may be among them, once in an age."""
        ends = np.cumsum(self._sums)
        target = rng.random(count) * ends[-1]
        group = np.minimum(np.searchsorted(ends, target, side="right"), len(ends) - 1)
        inside = np.cumsum(self._table[group], axis=1)
        rest = target - (ends - self._sums)[group]
        return group * self._width + np.minimum((inside <= rest[:, None]).sum(axis=1), self._width - 1)

    def update(self, at: np.ndarray, bound: np.ndarray) -> None:
        self._table.flat[at] = np.maximum(bound[at], 0)
        groups = np.unique(at // self._width)
        self._sums[groups] = self._table[groups].sum(axis=1)


@dataclass(frozen=True)
class BADGE(Strategy):
    """Query records that would move the last layer far, each in another direction.

    The gradient of the loss in the last layer, had the model's own prediction been the label, is
    ``(p - onehot(argmax p)) h'``: long where the model is unsure, alike for records that teach the same. k-means++
    seeding picks long ones that differ.

    Both factors travel, ``C + d`` numbers a record for C classes and an embedding of width d, never their ``C x d``
    product.

    Source: J. T. Ash et al., "Deep batch active learning by diverse, uncertain gradient lower bounds", ICLR 2020.

    Example:
        >>> sorted(BADGE().requires)
        ['embedding', 'logits']
    """

    requires = frozenset({"logits", "embedding"})
    columns = ("errors", "embedding")
    tasks = ("multiclass", "binary")

    def payload(self, outputs: Outputs) -> dict[str, Tensor]:
        """Return ``{"errors": (n, C), "embedding": (n, d)}``.

        Raises:
            OutputMismatch: the model gives no embedding.
        """
        if outputs.embedding is None:
            raise OutputMismatch(
                "BADGE() needs the embedding of every record, and the model gives none. Give it an infer(batch) method "
                "that returns al_lightning.scoring.Outputs(logits=..., embedding=...): (n, d), of the last layer."
            )
        probabilities = outputs.distributions
        predicted = torch.nn.functional.one_hot(probabilities.argmax(dim=-1), probabilities.shape[-1])
        return {"errors": probabilities - predicted, "embedding": outputs.embedding.float().flatten(start_dim=1)}

    def work(self, at: PickSize) -> float:
        """FLOPs of comparing every candidate with every pick, at most."""
        return 2.0 * at.candidates * at.size * at.answers

    def _pick(
        self,
        *,
        view: PoolView,
        ids: np.ndarray,
        arrays: Mapping[str, np.ndarray],
        size: int,
        rng: np.random.Generator,
    ) -> np.ndarray:
        large = np.abs(arrays["embedding"]).max(axis=1, initial=0) > MOST
        if large.any():
            raise OutputMismatch(
                f"BADGE(): embeddings of ids {ids[large][:10].tolist()} ({large.sum()} in all) are above {MOST:g} in "
                f"size, and squares of their distances do not fit into float32; allowed: up to {MOST:g}. Look at what "
                "infer(batch) returns for these records."
            )
        with Stopwatch.running() as watch:
            picked, flops = _seeded(arrays["errors"], arrays["embedding"], size, rng)
        if view.spend is not None:
            view.spend(flops, watch.seconds)
        return ids[picked]
