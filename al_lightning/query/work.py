"""How large a pick is, by which its work beside inference is foreseen."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True)
class PickSize:
    """Hold what decides how long a strategy compares records before it has picked.

    Args:
        records: of the pool.
        candidates: that the query is made from.
        labelled: records with a label.
        size: of the query.
        features: width of the pool's features; 0 while unknown.
        answers: numbers that the model says of a record; 0 while unknown.
    """

    records: int
    candidates: int
    labelled: int
    size: int
    features: int
    answers: int
