"""One local cluster for all tests here: a head of two cores; tests add nodes of their own and kill them."""

from __future__ import annotations

import signal
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from al_lightning.scoring.ray import call as ray_call
from al_lightning.scoring.ray.cluster import imported
from al_lightning.scoring.ray.scorer import RayScorer
from al_lightning.scoring.ray.team import Team, Workers


class Shared(RayScorer):
    """Leaves the workers to the tests that follow: to start them takes seconds."""

    def close(self) -> None:
        pass


HANDLER = signal.getsignal(signal.SIGTERM)


@pytest.fixture(autouse=True)
def own_sigterm() -> Iterator[None]:
    """Ray puts in a handler of its own with every node it starts; it would stay for the tests after these."""
    yield
    signal.signal(signal.SIGTERM, HANDLER)


@pytest.fixture(scope="session")
def cluster() -> Iterator[Any]:
    pytest.importorskip("ray", reason="scoring on Ray needs the extra: pip install -e '.[ray]'")
    ray = imported()
    from ray.cluster_utils import Cluster

    running = Cluster(initialize_head=True, head_node_args={"num_cpus": 2, "include_dashboard": False})
    ray.init(address=running.address, log_to_driver=False, logging_level="ERROR")
    yield running
    ray.shutdown()
    running.shutdown()


@pytest.fixture(scope="session")
def team(cluster: Any) -> Iterator[Team]:
    team = Team([Workers()], grows=True)
    yield team
    team.close()


@pytest.fixture(autouse=True)
def patient(monkeypatch: pytest.MonkeyPatch) -> None:
    """A machine that is busy with other things is slow to start workers, and that is no warning."""
    monkeypatch.setattr(ray_call, "_SILENCE", 600.0)


@pytest.fixture
def scorer(team: Team) -> Callable[..., RayScorer]:
    """A RayScorer with these settings and the workers there are."""

    def make(**settings: Any) -> RayScorer:
        made = Shared(**{"shard_size": 16, **settings})
        made._team = team
        return made

    return make
