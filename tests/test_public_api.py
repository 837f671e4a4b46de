"""The face of the library: what the root exports, what has moved, how many settings there are, and how docs begin."""

from __future__ import annotations

import doctest
import inspect
import re
import subprocess
import sys
from importlib import import_module
from pathlib import Path
from typing import Any

import pytest

import al_lightning
from al_lightning import errors
from al_lightning.callbacks import StallDetection, WarmStart
from al_lightning.candidates import EveryK, RandomSubset
from al_lightning.learner import ActiveLearner
from al_lightning.query import Margin
from al_lightning.round_size import Fixed
from al_lightning.run.describe import differing
from tests.helpers import net, pool_of, quiet

FOLDERS = (
    "callbacks", "candidates", "contrib", "cost", "features", "fit", "oracles", "query", "round_size", "scoring",
    "shards", "stop",
)  # fmt: skip
NO_VERBS = {"What", "Whether", "How", "Where", "When", "Which", "Who", "A", "An", "The", "One", "Each", "Base"}


def exported() -> dict[str, Any]:
    """Every public name, by where it is documented; old names are not among them."""
    found = {f"al_lightning.{name}": getattr(al_lightning, name) for name in al_lightning.ROOT}
    for folder in FOLDERS:
        module = import_module(f"al_lightning.{folder}")
        found |= {f"{folder}.{name}": getattr(module, name) for name in module.__all__}
    return {name: thing for name, thing in found.items() if inspect.isclass(thing) or inspect.isfunction(thing)}


def own_doc(thing: Any) -> str:
    return (vars(thing).get("__doc__") if inspect.isclass(thing) else thing.__doc__) or ""


PUBLIC = exported()


def test_the_root_is_a_dozen_names_the_bases_and_the_errors() -> None:
    assert len(al_lightning.USERS) == 12
    raised = {n for n, x in vars(errors).items() if inspect.isclass(x) and issubclass(x, errors.ActiveLearningError)}
    assert raised <= set(al_lightning.ERRORS)
    bases = {"Strategy", "CandidateSelector", "FitPolicy", "RoundSize", "Oracle", "Scorer", "StoppingRule"}
    assert set(al_lightning.BASES) == bases
    assert {*al_lightning.ROOT} <= {*al_lightning.__all__} <= {*dir(al_lightning)}
    with pytest.raises(AttributeError, match="has no attribute 'Nothing'"):
        _ = al_lightning.Nothing


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("Margin", "query.Margin"), ("Novel", "query.DistanceWeighted"), ("Badge", "query.BADGE"),
        ("Seals", "candidates.SEALS"), ("RandomShare", "candidates.RandomSubset"),
        ("Staggered", "candidates.RotatingSubset"), ("Spread", "round_size.EvenRounds"),
        ("PoolCovered", "stop.Coverage"),
    ],
)  # fmt: skip
def test_an_old_name_works_and_says_where_it_is_now(old: str, new: str) -> None:
    with pytest.warns(DeprecationWarning, match=rf"al_lightning\.{re.escape(new)} now"):
        found = getattr(al_lightning, old)
    module, _, name = new.rpartition(".")
    home = import_module(f"al_lightning.{module}")
    assert found is getattr(home, name)
    if old != name:
        with pytest.warns(DeprecationWarning, match=name):
            assert getattr(home, old) is found


def test_every_old_name_is_still_there() -> None:
    for name in set(al_lightning.__all__) - set(al_lightning.ROOT):
        with pytest.warns(DeprecationWarning, match=" now: from al_lightning"):
            assert getattr(al_lightning, name) is not None


def test_a_program_that_imports_everything_goes_on(tmp_path: Path) -> None:
    program = tmp_path / "program.py"
    made = "Novel(Margin()), Staggered(0.3), RandomShare(share=0.2), Spread(9, 3)"
    program.write_text(f"from al_lightning import *\nprint({made})")
    done = subprocess.run([sys.executable, str(program)], capture_output=True, text=True, check=True)
    assert "DistanceWeighted(strategy=Margin(" in done.stdout
    assert "RandomSubset(fraction=0.2)" in done.stdout
    assert "al_lightning.Novel is al_lightning.query.DistanceWeighted now" in done.stderr


@pytest.mark.parametrize(("kind", "most"), [(ActiveLearner, 12), (WarmStart, 10), (StallDetection, 6)])
def test_settings_are_few(kind: type, most: int) -> None:
    settings = [name for name in inspect.signature(kind).parameters if name != "trainer"]
    assert len(settings) <= most, settings


def test_what_fit_is_told_may_still_be_given_to_the_learner(tmp_path: Path) -> None:
    seen: list[int] = []
    with pytest.warns(DeprecationWarning, match=r"learner\.fit\(model, pool, on_round=\.\.\.\)"):
        old = ActiveLearner(
            quiet(),
            query=Margin(),
            round_size=Fixed(20),
            run_dir=tmp_path,
            on_round=lambda record, module: seen.append(record.labelled),  # type: ignore[call-arg]
        )
    old.fit(net(), pool_of())
    assert seen == [20, 40, 60]


def test_a_folder_of_the_last_release_is_compared_by_the_names_of_this_one() -> None:
    old = {
        "query": {"class": "Novel", "strategy": {"class": "Margin", "reduction": "mean"}, "weight": 0.3},
        "candidates": {"class": "EveryK", "selector": {"class": "RandomShare", "share": 0.2}, "k": 2},
        "fit": {"class": "WarmStart", "mode": "keep", "gate": None, "shrink": 0.4, "perturb": 0.1, "replay": 1.0},
    }
    now = {
        "query": {"class": "DistanceWeighted", "strategy": {"class": "Margin", "reduction": "mean"}, "weight": 0.3},
        "candidates": {"class": "EveryK", "selector": {"class": "RandomSubset", "fraction": 0.2}, "k": 2},
        "fit": {"class": "WarmStart", "mode": "keep"},
    }
    assert differing(old, now) == {}
    old["candidates"]["selector"]["share"] = 0.3  # type: ignore[index]
    old["fit"]["gate"] = 0.9
    assert set(differing(old, now)) == {"candidates.selector.fraction", "fit.gate"}
    assert EveryK(RandomSubset(0.2), 2).count(unlabelled=100, size=5) == 20


SAID = [n for n, x in PUBLIC.items() if not (inspect.isclass(x) and issubclass(x, BaseException))]


@pytest.mark.parametrize("name", SAID)
def test_a_docstring_begins_with_a_verb(name: str) -> None:
    first = own_doc(PUBLIC[name]).strip().split(None, 1)[0]
    assert first.rstrip(",.:") not in NO_VERBS


METHODS = [
    name
    for name, thing in PUBLIC.items()
    if inspect.isclass(thing) and not issubclass(thing, BaseException) and not inspect.isabstract(thing)
    and not getattr(thing, "_is_protocol", False)
]  # fmt: skip


@pytest.mark.parametrize("name", METHODS)
def test_a_public_class_shows_an_example_that_runs(name: str) -> None:
    kind = PUBLIC[name]
    assert ">>> " in own_doc(kind)
    given = dict(vars(sys.modules[kind.__module__]))
    test = doctest.DocTestParser().get_doctest(own_doc(kind), given, name, None, None)
    said: list[str] = []
    assert doctest.DocTestRunner(verbose=False).run(test, out=said.append).failed == 0, "".join(said)
