"""Stopping rules in real runs: what is measured for them, what they refuse, what a budget keeps."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from lightning.pytorch.loggers import CSVLogger

from al_lightning.callbacks.warm_start import WarmStart
from al_lightning.candidates import RandomSubset
from al_lightning.cost.budget import Budget
from al_lightning.cost.prices import Prices
from al_lightning.errors import FeaturesMissing
from al_lightning.history import RoundRecord
from al_lightning.query import DistanceWeighted, KCenterGreedy, Margin
from al_lightning.round_size import Fixed
from al_lightning.stop import AnyOf, CostStopping, Coverage, OverallUncertainty, StabilizingPredictions
from tests.helpers import blobs, learner, net, pool_of, quiet

FEATURES = blobs().tensors[0].numpy()


@pytest.mark.parametrize(
    ("stop", "kwargs", "error", "message"),
    [
        (StabilizingPredictions(), {}, ValueError, "StabilizingPredictions needs agreement .* pass stop_set="),
        (AnyOf([StabilizingPredictions()]), {}, ValueError, "StabilizingPredictions needs agreement"),
        (
            OverallUncertainty(),
            {"query": KCenterGreedy()},
            ValueError,
            "OverallUncertainty .* KCenterGreedy gives none",
        ),
    ],
)
def test_a_rule_that_cannot_decide_is_refused(
    tmp_path: Path, stop: Any, kwargs: Any, error: type[Exception], message: str
) -> None:
    with pytest.raises(error, match=message):
        learner(tmp_path, stop=[stop], **kwargs)


def test_coverage_needs_features(tmp_path: Path) -> None:
    with pytest.raises(FeaturesMissing, match="Coverage compares records by the pool's features"):
        learner(tmp_path, stop=[Coverage()]).fit(net(), datamodule=pool_of())


def test_uncertainty_and_coverage_are_in_the_record_and_on_the_bill(tmp_path: Path) -> None:
    seen: list[RoundRecord] = []
    pool = pool_of(features=FEATURES)
    result = learner(
        tmp_path, stop=[Coverage(1.0), OverallUncertainty(1e-6)], on_round=lambda r, m: seen.append(r)
    ).fit(net(), datamodule=pool)
    assert seen[0].uncertainty is None  # nothing was scored for the first query
    fresh = pool.state.scores[pool.state.score_rounds == 1]
    assert len(fresh)
    assert all(0 < r.uncertainty < 1 for r in seen[1:])
    assert all(0 <= r.coverage <= 1 for r in seen)
    assert result.bill.lines["neighbours"].flops > 0
    plain = learner(tmp_path / "plain").fit(net(), datamodule=pool_of())
    assert all(r.coverage is None for r in plain.history)
    assert np.array_equal(plain.labelled, result.labelled)


def test_the_forecast_is_logged(tmp_path: Path) -> None:
    logger = CSVLogger(tmp_path / "log")
    rule = CostStopping(price_per_point=1e6, agreement=-1)
    learner(tmp_path / "run", quiet(logger=logger), stop=[rule], stop_set=9).fit(net(), datamodule=pool_of())
    header = Path(logger.log_dir, "metrics.csv").read_text().splitlines()[0]
    assert {"al/forecast_gain", "al/forecast_gain_low", "al/forecast_net"} <= set(header.split(","))


SETTINGS: dict[str, dict[str, Any]] = {
    "reset": {},
    "stop set": {"stop_set": 9},
    "keep": {"fit": WarmStart("keep", epochs=1)},
    "final": {"fit": WarmStart("keep", epochs=0.5, final="previous", final_epochs=1.0)},
    "resume, share": {"fit": WarmStart("resume", epochs=1), "candidates": RandomSubset(0.4)},
    "features": {"query": DistanceWeighted(Margin(), dims=2)},
}


def spent(tmp_path: Path, budget: Budget | None, settings: dict[str, Any], **kwargs: Any) -> Any:
    stop = [] if budget is None else [budget]
    return learner(tmp_path, round_size=Fixed(6), stop=stop, **settings, **kwargs).fit(
        net(), datamodule=pool_of(features=FEATURES)
    )


@pytest.mark.parametrize("name", SETTINGS)
@pytest.mark.parametrize("share", [0.35, 0.8])
def test_a_budget_is_never_exceeded(tmp_path: Path, name: str, share: float) -> None:
    whole = spent(tmp_path / "whole", None, SETTINGS[name])
    limit = share * whole.bill.flops
    result = spent(tmp_path / "flops", Budget(flops=limit), SETTINGS[name])
    assert result.bill.flops <= limit
    assert result.reason.kind == "budget"
    assert len(result.history) >= 2  # and is made use of
    assert result.bill.flops >= 0.4 * limit

    rho = 1 + share * (whole.rho - 1)
    result = spent(tmp_path / "rho", Budget(rho=rho), SETTINGS[name])
    assert result.rho is not None
    assert result.rho <= rho or len(result.history) == 1


def test_a_budget_of_money_counts_the_labels_it_would_buy(tmp_path: Path) -> None:
    prices = Prices(label=1.0, hour=0.0)
    result = spent(tmp_path, Budget(money=9 + 6 * 3 + 5), {"prices": prices})  # nine validation labels
    assert result.bill.money == 9 + 6 * 3
    assert result.reason.kind == "budget"
    assert "another round would come to 33 of 32 (27 spent)" in str(result.reason)


def test_a_final_fit_is_cut_to_what_is_left_or_left_out(tmp_path: Path) -> None:
    policy = WarmStart("keep", epochs=1, first_epochs=1, final="previous", final_epochs=6)
    settings: dict[str, Any] = {"fit": policy, "recipe_epochs": 8}
    whole = spent(tmp_path / "whole", None, settings)
    assert whole.history[-1].epochs == 6
    train = whole.bill.lines["train"]
    first, six_epochs = whole.history[0].cost["flops"], 6 * 6 * train.flops / train.records
    cut = spent(tmp_path / "cut", Budget(flops=first + 0.7 * six_epochs), settings)
    assert cut.bill.flops <= first + 0.7 * six_epochs
    assert [r.final for r in cut.history] == [False, True]
    assert 1 <= cut.history[-1].epochs < 6
    none = spent(tmp_path / "none", Budget(flops=first + 0.01 * six_epochs), settings)
    assert [r.final for r in none.history] == [False]
    assert "a final fit would come to" in str(none.reason)


def test_a_warm_start_and_a_budget_agree_on_rho(tmp_path: Path) -> None:
    policy = WarmStart("keep", epochs=0.25, first_epochs=0.25, final="previous", final_epochs=0.25, rho=0.98)
    trainer = quiet(max_epochs=8, limit_val_batches=0)
    result = learner(
        tmp_path, trainer, round_size=Fixed(10), candidates=RandomSubset(0.2), fit=policy, stop=[Budget(rho=1.0)]
    ).fit(net(), datamodule=pool_of())
    assert result.rho is not None
    assert result.rho <= 1.0
    assert result.history[-1].final
