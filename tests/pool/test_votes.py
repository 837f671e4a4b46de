"""From what people said to labels: majorities, ties, adjudication, corrections, and how far they agree."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from torch import tensor
from torchmetrics.functional.classification import multiclass_cohen_kappa

from al_lightning.oracles.oracle import SKIP
from al_lightning.oracles.statements import Statement
from al_lightning.oracles.votes import agreement, current, decide, news


def by(who: str, value: Any, id: int = 1, source: str = "a.csv", ask: int = 1) -> Statement:
    return Statement(id=id, value=value, who=who, source=source, ask=ask)


def label(*said: Statement, task: str = "multiclass", **rules: Any) -> Any:
    decisions = decide(said, task=task, **rules)
    assert set(decisions.answers) | set(decisions.ties) | set(decisions.few) <= {1}
    return decisions.answers[1].value if decisions.answers else "tie" if decisions.ties else "few"


@pytest.mark.parametrize(
    ("votes", "expected"),
    [
        ([1], 1),
        ([1, 1, 2], 1),
        ([2, 1, 1, 3], 1),
        ([1, 2], "tie"),
        ([1, 2, 3], "tie"),
        ([1, 1, 2, 2, 3], "tie"),
        ([SKIP, SKIP, 1], SKIP),
        ([SKIP, 1, 1], 1),
        ([SKIP, 1], "tie"),
    ],
)
def test_the_majority_decides_and_a_tie_waits(votes: list[Any], expected: Any) -> None:
    assert label(*(by(f"p{k}", value) for k, value in enumerate(votes))) == expected


def test_each_class_has_its_majority_and_numbers_their_median() -> None:
    sets = [[1, 0, 0], [1, 1, 0], [0, 1, 0]]
    assert label(*(by(f"p{k}", v) for k, v in enumerate(sets)), task="multilabel") == [1, 1, 0]
    assert label(by("a", [1, 0]), by("b", [0, 0]), task="multilabel") == "tie"
    assert label(by("a", 1.0), by("b", 5.0), by("c", 2.0), task="regression") == 2.0
    assert label(by("a", [1.0, 0.0]), by("b", [3.0, 4.0]), task="regression") == [2.0, 2.0]


@pytest.mark.parametrize("other", [[1.0, 2.0], [1.0, 2.0, 3.0]])
def test_numbers_of_unlike_length_wait_for_a_word(other: list[float]) -> None:
    for first in (0.5, [0.5]):
        said = by("a", first), by("b", other)
        assert label(*said, task="regression") == "tie"
        assert label(*said, by("eve", 0.5), task="regression", adjudicator="eve") == 0.5


def test_the_adjudicator_decides_alone_and_before_all_have_answered() -> None:
    said = (by("ann", 1), by("bob", 1), by("eve", 2))
    assert label(*said, adjudicator="eve") == 2
    assert label(by("eve", 2), annotators=3, adjudicator="eve") == 2
    assert label(by("ann", 1), by("bob", 2), adjudicator="eve") == "tie"
    assert decide(said, task="multiclass", adjudicator="eve").answers[1].who == "eve"


def test_a_record_waits_for_as_many_people_as_are_asked_for() -> None:
    assert label(by("ann", 1), by("bob", 1), annotators=3) == "few"
    assert label(by("ann", 1), by("bob", 1), by("cy", 2), annotators=3) == 1


def test_the_last_word_of_a_person_counts() -> None:
    assert label(by("ann", 1), by("ann", 2, source="b.csv")) == 2
    assert label(by("ann", 1), by("ann", 2, source="b.csv"), by("ann", 0)) == 0
    # ... and an unnamed answer until somebody gives one by name.
    assert label(by("", 1), by("eve", 2)) == 2
    assert label(by("eve", 2), by("", 1)) == "tie"


def test_news_is_what_is_new_changed_or_said_by_another() -> None:
    first = [by("", 1), by("", 0, id=2)]
    assert news([], first) == first
    assert news(first, first) == []
    assert news(first, []) == [], "an emptied file withdraws nothing"
    changed = by("", 2)
    assert news(first, [changed, first[1]]) == [changed]
    back = by("", 1)
    assert news([*first, changed], [back, first[1]]) == [back]
    signed = by("eve", 2)
    withdrawn, now = news(first, [signed])
    assert (withdrawn.value, withdrawn.who, now) == (None, "", signed)
    assert label(*first[:1], withdrawn, now) == 2


def test_what_other_files_say_is_no_news_of_this_one() -> None:
    log = [by("", 1), by("", 2, source="fixes.csv")]
    assert news(log, [by("", 1)]) == [], "an older file does not undo a correction from a later one"
    assert current(log)[1][1][""].value == 2


def test_agreement_is_cohens_kappa() -> None:
    rng = np.random.default_rng(0)
    a = rng.integers(0, 3, 200)
    b = np.where(rng.random(200) < 0.7, a, rng.integers(0, 3, 200))
    log = [by("ann", int(v), id=i) for i, v in enumerate(a)] + [by("bob", int(v), id=i) for i, v in enumerate(b)]
    (pair,) = agreement(log, task="multiclass")
    assert pair.between == ("ann", "bob")
    assert pair.records == 200
    assert pair.equal == pytest.approx((a == b).mean())
    assert pair.kappa == pytest.approx(float(multiclass_cohen_kappa(tensor(a), tensor(b), num_classes=3)))
    assert str(pair).startswith("ann / bob: ")


def test_agreement_of_records_asked_twice() -> None:
    log = [by("", 1), by("", 1, ask=2), by("", 0, id=2), by("", 1, id=2, ask=2), by("", 0, id=3)]
    (pair,) = agreement(log, task="multiclass")
    assert (pair.between, pair.records, pair.equal) == (("first answer", "second answer"), 2, 0.5)
    assert label(*log[:2]) == 1
    assert decide(log, task="multiclass").answers[2].value == 0, "the second answer decides nothing"
    assert agreement([by("", 1), by("", 1, ask=2)], task="multiclass")[0].kappa is None
    assert agreement([by("", 1.0), by("", 1.5, ask=2)], task="regression")[0].kappa is None
