from __future__ import annotations

import numpy as np
import pytest

from al_lightning.candidates import EveryK, RandomSubset, Representatives, WholePool


def play(selector, make_view, rounds, *, size=2, query=2, n=40):
    """Candidates per round of a run in which every candidate is scored and ``query`` scored records are labelled."""
    scores, labelled, state, counts = np.full(n, np.nan), [], {}, []
    for round in range(rounds):
        view = make_view(n, labelled=labelled, scores=scores)
        ids, state = selector.propose(view=view, size=size, rng=np.random.default_rng(round), state=state)
        scores[ids] = 0.5
        counts.append(len(ids))
        labelled += [i for i in np.flatnonzero(~np.isnan(scores)).tolist() if i not in labelled][:query]
    return counts


@pytest.mark.parametrize(
    ("k", "counts"), [(1, [40, 38, 36, 34, 32]), (2, [40, 0, 36, 0, 32]), (3, [40, 0, 0, 34, 0]), (9, [40, 0, 0, 0, 0])]
)
def test_infers_in_every_kth_round(make_view, k, counts):
    assert play(EveryK(WholePool(), k), make_view, 5) == counts


def test_infers_early_when_scores_run_out_and_counts_from_there(make_view):
    # 4 are scored, 2 queried a round: the third round has none left and is the new first
    assert play(EveryK(RandomSubset(0.1), 3), make_view, 7) == [4, 0, 4, 0, 4, 0, 3]


def test_hands_the_inner_selector_its_own_state(make_view):
    view = make_view(30, features=np.random.default_rng(0).normal(size=(30, 2)), scores=np.zeros(30))
    rng, selector = np.random.default_rng(0), EveryK(Representatives(0.2), 2)
    _, first = selector.propose(view=view, size=1, rng=rng, state={})
    _, second = selector.propose(view=view, size=1, rng=rng, state=first)
    _, third = selector.propose(view=view, size=1, rng=rng, state=second)
    assert [s["selector"] for s in (first, second, third)] == [{"n_clusters": 6}] * 3
    assert [s["since"] for s in (first, second, third)] == [1, 2, 1]


def test_says_what_it_uses():
    assert EveryK(WholePool(), 2).reuses_scores
    assert not EveryK(WholePool(), 2).uses_features
    assert EveryK(Representatives(0.2), 2).uses_features


@pytest.mark.parametrize("k", [0, -1, 1.5])
def test_k_is_a_number_of_rounds(k):
    with pytest.raises(ValueError, match=rf"EveryK\(k={k}\).*allowed"):
        EveryK(WholePool(), k)
