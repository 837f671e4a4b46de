"""What cannot work is refused by name before the first label is asked for and the first step is trained."""

from __future__ import annotations

from pathlib import Path

import pytest

from al_lightning.oracles.oracle import FunctionOracle
from tests.compat.mistakes import MISTAKES, Counted, Mistake, Setting, Steps, refused, run


@pytest.mark.parametrize("mistake", MISTAKES, ids=lambda mistake: mistake.name)
def test_it_is_refused_by_name_before_anything_is_spent(mistake: Mistake, tmp_path: Path) -> None:
    outcome = refused(mistake, tmp_path / "run")
    assert isinstance(outcome.error, mistake.error), repr(outcome.error)
    assert (outcome.labels, outcome.steps) == (0, 0)
    missing = [words for words in mistake.words if words not in str(outcome.error)]
    assert not missing, str(outcome.error)


def test_the_run_without_a_mistake_works(tmp_path: Path) -> None:
    asked, steps = Counted(), Steps()
    result = run(Setting.working(), tmp_path, FunctionOracle(asked), steps)
    assert len(result.labelled) == asked.asked == 18
    assert steps.trained == 2 * (2 + 3)


def test_there_are_forty_rows_or_more_and_no_two_of_one_name() -> None:
    assert len({mistake.name for mistake in MISTAKES}) == len(MISTAKES) >= 40
