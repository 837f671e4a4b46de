"""What can be wrong, and that it is said: the shard, the record, the way out."""

from __future__ import annotations

import time

import pytest
import torch
from torch.utils.data import TensorDataset

from al_lightning.errors import (
    ActiveLearningError,
    BadScores,
    ClusterUnavailable,
    OutputMismatch,
    PoisonedRecord,
    PoolChanged,
    UnsupportedModel,
    WorkerFailed,
)
from al_lightning.query import BADGE, Margin
from al_lightning.scoring.question import Question
from al_lightning.scoring.ray import call as ray_call
from al_lightning.scoring.ray.scorer import RayScorer
from al_lightning.scoring.ray.team import Team, Workers
from tests.helpers import blobs, pool_of
from tests.ray.problems import Locked, NotANumber, Noted, ask, reads

pytestmark = pytest.mark.xdist_group("ray")
MARGIN = Question.of(Margin(), seed=0)


def test_nobody_answers_at_the_address():
    start = time.monotonic()
    with pytest.raises(ClusterUnavailable, match=r"no cluster answers at 127\.0\.0\.1:9"):
        ask(RayScorer(address="127.0.0.1:9"), pool_of(), MARGIN)
    assert time.monotonic() - start < 10


def test_an_address_that_is_none():
    with pytest.raises(ClusterUnavailable, match="allowed: 'host:port'"):
        ask(RayScorer(address="ray://head:10001"), pool_of(), MARGIN)


def test_no_room_for_a_worker(cluster):
    scorer = RayScorer()
    scorer._team = Team([Workers(gpus=1)], grows=False)
    with pytest.raises(ClusterUnavailable, match=r"one takes \{'CPU': 1, 'GPU': 1\}, and the cluster has \{'CPU'"):
        ask(scorer, pool_of(), MARGIN)


def test_no_room_yet_is_waited_for_and_said(cluster, monkeypatch):
    monkeypatch.setattr(ray_call, "_SILENCE", 0.0)
    scorer = RayScorer()
    scorer._team = Team([Workers(count=1, gpus=1)], grows=True)
    with pytest.raises(UserWarning, match=r"no worker has started .* one takes \{'CPU': 1, 'GPU': 1\}.*'GPU': 0"):
        ask(scorer, pool_of(), MARGIN)
    scorer._team.close()


def test_other_versions_on_the_worker(scorer, monkeypatch):
    here = {**ray_call.versions(), "torch": "1.0.0"}
    monkeypatch.setattr(ray_call, "versions", lambda: here)
    with pytest.raises(WorkerFailed, match=r"worker and driver differ.*torch 1\.0\.0"):
        ask(scorer(), pool_of(), MARGIN)


def test_a_model_that_cannot_be_sent(scorer):
    with pytest.raises(UnsupportedModel, match=r"the model Locked\.guard \(lock\) cannot be sent to workers"):
        ask(scorer(), pool_of(), MARGIN, model=Locked())


def test_a_dataset_that_cannot_be_sent(scorer, tmp_path):
    data = blobs()
    data.file = (tmp_path / "open").open("w")
    with (
        data.file,
        pytest.raises(UnsupportedModel, match=r"the dataset TensorDataset\.file .*RayScorer\(dataset=...\)"),
    ):
        ask(scorer(), pool_of(data), MARGIN)


def missing():
    raise FileNotFoundError("/mnt/pool")


def test_a_dataset_that_cannot_be_opened_there(scorer):
    with pytest.raises(WorkerFailed, match=r"the pool's dataset cannot be opened.*FileNotFoundError: /mnt/pool"):
        ask(scorer(dataset=missing), pool_of(), MARGIN)


@pytest.mark.parametrize("other", [lambda: blobs(59), lambda: blobs(60, seed=5)], ids=["shorter", "others"])
def test_a_dataset_that_is_another_one_there(scorer, other):
    with pytest.raises(PoolChanged):
        ask(scorer(dataset=other), pool_of(), MARGIN)


def test_a_dataset_that_is_opened_there_is_not_sent(scorer, tmp_path):
    data = blobs()
    data.file = (tmp_path / "open").open("w")  # could not be
    with data.file:
        assert len(ask(scorer(dataset=blobs), pool_of(data), MARGIN).ids) == 60


@pytest.mark.parametrize(("does", "size"), [("raises", 16), ("exits", 1)])  # to replace a worker takes seconds
def test_a_poisoned_record_is_named(scorer, tmp_path, does, size):
    pool = pool_of(Noted(tmp_path, at=37, does=does), batch_size=min(8, size))
    with pytest.raises(PoisonedRecord, match=rf"id 37 cannot be scored.*shard {37 // size}") as caught:
        ask(scorer(shard_size=size), pool, MARGIN)
    assert caught.value.id == 37
    assert sum(ids.count(37) for ids in reads(tmp_path).values()) < 10  # not for ever


def test_nan_is_named_with_its_shard(scorer):
    data = blobs()
    data.tensors[0][41, 0] = 7
    with pytest.raises(BadScores, match=r"shard 2 \(16 records, ids 32 to 47\): score is NaN .* ids 41") as caught:
        ask(scorer(), pool_of(data), MARGIN, model=NotANumber())
    assert caught.value.ids == (41,)


def one_short(outputs):
    return {"score": outputs.logits[1:, 0]}


def test_a_wrong_count_is_said_with_its_shard(scorer):
    from contextlib import nullcontext

    question = Question(lambda model: nullcontext(one_short), "one short")
    with pytest.raises(ActiveLearningError, match=r"shard \d \(.*\): payload rows \{'score': 7\} for a batch of 8"):
        ask(scorer(), pool_of(), question)


def test_outputs_that_are_not_what_the_task_says(scorer):
    with pytest.raises(OutputMismatch, match=r"shard \d .*BADGE\(\) needs the embedding"):
        ask(scorer(), pool_of(), Question.of(BADGE(), seed=0))


@pytest.mark.parametrize(
    ("settings", "says"),
    [
        ({"shard_size": 0}, "shard_size=0"),
        ({"deadline": -1.0}, "deadline=-1"),
        ({"enough": 0.0}, "0 < enough <= 1"),
    ],
)
def test_settings_out_of_range(settings, says):
    with pytest.raises(ValueError, match=says):
        RayScorer(**settings)


@pytest.mark.parametrize("settings", [{"count": 0}, {"cpus": 1.5}, {"gpus": -1}, {"cpus": 0}])
def test_workers_out_of_range(settings):
    with pytest.raises(ValueError, match="Workers"):
        Workers(**settings)


def test_tensors_of_one_record_are_a_pool_too(scorer):
    data = TensorDataset(torch.zeros(1, 4), torch.zeros(1, dtype=torch.long))
    assert len(ask(scorer(), pool_of(data), MARGIN).ids) == 1
