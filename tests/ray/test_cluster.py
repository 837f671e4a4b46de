"""How this process gets on with Ray: it asks for the extra, and keeps its own way of ending."""

from __future__ import annotations

import builtins
import signal

import pytest

from al_lightning.errors import ClusterUnavailable, MissingExtra
from al_lightning.query import Margin
from al_lightning.scoring import RayScorer, Workers
from al_lightning.scoring.question import Question
from al_lightning.scoring.ray.cluster import _own_sigterm
from al_lightning.scoring.ray.team import Team
from tests.helpers import pool_of
from tests.ray.problems import ask


def test_without_ray_the_extra_is_named(monkeypatch):
    def without_ray(name, *arguments, real=builtins.__import__, **more):
        if name == "ray":
            raise ImportError(name)
        return real(name, *arguments, **more)

    monkeypatch.setattr(builtins, "__import__", without_ray)
    with pytest.raises(MissingExtra, match=r"pip install 'al_lightning\[ray\]'"):
        ask(RayScorer(), pool_of(), Question.of(Margin(), seed=0))


def test_workers_that_never_start_are_given_up_on_unless_others_work():
    team = Team([Workers()], grows=True)
    for _ in range(20):  # preempted while they start, as often as it takes
        team.stillborn(OSError("node died"))
        team.ready()
    with pytest.raises(ClusterUnavailable, match=r"workers in a row were gone before they had started: no such module"):
        [team.stillborn(OSError("no such module")) for _ in range(10)]


def test_connecting_leaves_the_handler_of_sigterm_as_it_was():
    before = signal.getsignal(signal.SIGTERM)
    with _own_sigterm():  # what Ray does while it connects
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
    assert signal.getsignal(signal.SIGTERM) is before
