from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from al_lightning import PoolDataModule
from al_lightning.candidates import EveryK, ShardShare
from al_lightning.errors import PoolError
from tests.helpers import Records, blobs, learner, net, pool_of


def in_shards(view, shard_of):
    return replace(view, load_shard_of=lambda: np.asarray(shard_of))


def propose(selector, view, size=1, seed=0):
    return selector.propose(view=view, size=size, rng=np.random.default_rng(seed), state={})[0]


def scored(view, ids, scores, round):
    view.scores[ids], view.score_rounds[ids] = scores, round


TENS = np.arange(100) // 10


def test_whole_shards_and_of_the_last_one_a_part(make_view):
    ids = propose(ShardShare(0.25), in_shards(make_view(100), TENS))
    assert sorted(np.bincount(TENS[ids])[np.unique(TENS[ids])].tolist()) == [5, 10, 10]


def test_what_is_labelled_leaves_its_shard(make_view):
    view = in_shards(make_view(100, labelled=range(5)), TENS)
    for seed in range(20):
        ids = propose(ShardShare(0.2), view, seed=seed)
        assert len(ids) == 19
        assert len(np.unique(TENS[ids])) <= 3


def test_every_shard_has_its_turn_before_any_has_a_second(make_view):
    view, seen = in_shards(make_view(100), TENS), []
    for round in range(5):
        ids = propose(ShardShare(0.2), view, seed=round)
        scored(view, ids, 0.5, round)
        seen += ids.tolist()
    assert sorted(seen) == list(range(100))


def test_what_was_left_of_a_shard_comes_first_in_its_next_turn(make_view):
    view, halves = in_shards(make_view(100), TENS), []
    for round in range(20):
        ids = propose(ShardShare(0.05), view, seed=round)
        scored(view, ids, 0.5, round)
        halves.append(ids)
    assert all(len(np.unique(TENS[half])) == 1 for half in halves)  # never more than one shard is read
    assert sorted(TENS[half[0]] for half in halves[:10]) == list(range(10))
    assert sorted(np.concatenate(halves)) == list(range(100))


def test_the_shards_that_scored_best_on_average_come_first(make_view):
    view = in_shards(make_view(100), TENS)
    scored(view, np.arange(50), np.repeat([0.1, 0.9, 0.3, 0.8, 0.2], 10), 0)
    view.scores[20] = 5.0  # the best record of all is in a shard of others
    ids = propose(ShardShare(0.4, best=0.5), view)
    assert set(range(10, 20)) | set(range(30, 40)) <= set(ids.tolist())
    assert (ids >= 50).sum() == 20  # the others have never been scored


def test_shards_of_unlike_sizes(make_view):
    shard = np.repeat([0, 1, 2], [1, 1, 98])
    ids = [propose(ShardShare(0.1), in_shards(make_view(100), shard), seed=s) for s in range(20)]
    assert {len(found) for found in ids} == {10}
    assert len({tuple(np.unique(shard[found])) for found in ids}) > 1


def test_shards_need_not_be_numbered_in_order(make_view):
    ids = propose(ShardShare(0.2), in_shards(make_view(100), np.arange(100) % 5 + 7))
    assert len(np.unique(ids % 5)) == 1


@pytest.mark.parametrize("best", [-0.1, 1.0])
def test_nothing_but_the_best_is_refused(best):
    with pytest.raises(ValueError, match=rf"ShardShare\(best={best}\).*0 <= best < 1"):
        ShardShare(0.2, best=best)


@pytest.mark.parametrize("selector", [ShardShare(0.2), EveryK(ShardShare(0.2), 2)], ids=repr)
def test_a_pool_that_is_not_in_shards_is_refused_before_a_label_is_bought(selector, tmp_path):
    with pytest.raises(PoolError, match=r"not in shards.*ParquetShards or TarShards.*RandomSubset"):
        learner(tmp_path, candidates=selector).fit(net(), datamodule=pool_of())
    assert not (tmp_path / "run.sqlite").exists()


def test_a_dataset_of_ones_own_says_where_its_records_lie():
    data = Records(list(blobs(40)))
    data.shard_of = np.arange(40) // 8
    pool = PoolDataModule(data, task="multiclass")
    assert len(np.unique(propose(ShardShare(0.2), pool.view()) // 8)) == 1
    data.shard_of = np.arange(39)
    with pytest.raises(PoolError, match="shard_of has 39 entries, the pool 40 records"):
        propose(ShardShare(0.2), pool.view())
