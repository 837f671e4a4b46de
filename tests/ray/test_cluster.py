"""How this process gets on with Ray: it asks for the extra, and keeps its own way of ending."""

from __future__ import annotations

import builtins
import signal

import pytest

from al_lightning import Margin, RayScorer
from al_lightning.errors import MissingExtra
from al_lightning.scoring.question import Question
from al_lightning.scoring.ray_cluster import _own_sigterm
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


def test_connecting_leaves_the_handler_of_sigterm_as_it_was():
    before = signal.getsignal(signal.SIGTERM)
    with _own_sigterm():  # what Ray does while it connects
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
    assert signal.getsignal(signal.SIGTERM) is before
