"""How far from the best stop every stopping rule ends, on recorded learning curves.

    python -m benchmarks.stopping record      # resumable, a data set and model at a time; see benchmarks/curves.py
    python -m benchmarks.stopping evaluate    # minutes; writes results/stopping.json

Cost of a stop = price of its labels + (1 - test accuracy) * value of an accuracy of 1. Regret = (cost at the rule's
stop - cost at the best round) / (cost of the worse end point - cost at the best round). A run is judged at prices for
which its best round lies between 10 % and 90 % of its labels. Rules read validation accuracy and what the run knows
without labels, never the test accuracy that judges them.

Whatever is learnt is learnt on the other data sets: the prior and the confidence of CostStopping, and the threshold of
every other rule, the one with the least mean regret there. The thresholds of the rules' own papers are judged beside
them.
"""

from __future__ import annotations

import argparse
from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import numpy as np

from al_lightning.callbacks.round_plateau import rounds_without_progress
from al_lightning.history import History, RoundRecord
from al_lightning.stop.cost_stopping import CostStopping, best_stop
from al_lightning.stop.learning_curve import Prior
from benchmarks.common import claim, write_results
from benchmarks.curves import PROTOCOLS, curves, path_of, record_all

VALUES = np.geomspace(10, 1e7, 241)
"""What an accuracy of 1 is worth, in labels: those prices are tried at which a run's best stop is not an end point."""
PRICES = 12
"""Prices at most that a run is judged at, spread evenly over the logarithm."""
INSIDE = (0.1, 0.9)
POINT = 0.01
CONFIDENCES = (0.6, 0.7, 0.8, 0.9, 0.95, 0.99)
"""That may be chosen for CostStopping."""


@dataclass(frozen=True)
class Curve:
    """One split of a data set with one model; the columns of :class:`benchmarks.curves.Round`, ``(rounds,)`` each."""

    dataset: str
    model: str
    val: int
    labels: np.ndarray
    columns: Mapping[str, np.ndarray]

    def __getitem__(self, name: str) -> np.ndarray:
        return self.columns[name]

    @cached_property
    def values(self) -> np.ndarray:
        """Prices to judge at, ``(p,)``: what an accuracy of 1 is worth."""
        best = self._cost(VALUES).argmin(axis=1)
        share = self.labels[best] / self.labels[-1]
        found = VALUES[(share >= INSIDE[0]) & (share <= INSIDE[1])]
        return found[np.unique(np.linspace(0, len(found) - 1, PRICES).round().astype(int))] if len(found) else found

    @cached_property
    def regrets(self) -> np.ndarray:
        """``(p, rounds)``: 0 at the best round, 1 at the worse end point."""
        cost = self._cost(self.values)
        best = cost.min(axis=1, keepdims=True)
        return (cost - best) / (np.maximum(cost[:, :1], cost[:, -1:]) - best)

    def _cost(self, values: np.ndarray) -> np.ndarray:
        return self.labels + values[:, None] * (1 - self["test"])

    def premature(self, stop: int, value: float) -> bool:
        """Whether it ended more than a point below the last round although going on to that would have paid."""
        lost = self["test"][-1] - self["test"][stop]
        return bool(lost > POINT and value * lost > self.labels[-1] - self.labels[stop])

    def history(self, stop: int) -> History:
        """What a run knows after that round."""
        rounds = tuple(
            RoundRecord(
                round=i + 1,
                labelled=int(self.labels[i]),
                queried=int(np.diff(self.labels, prepend=0)[i]),
                metrics={"val_acc": float(self["val"][i])},
                agreement=float(self["kappa"][i]) if i else None,
            )
            for i in range(stop + 1)
        )
        left = int(self.labels[-1] - self.labels[stop])
        return History(
            rounds=rounds, pool_size=int(self.labels[-1]), unlabelled=left, labelled=int(self.labels[stop]),
            val_labels=self.val,
        )  # fmt: skip


def load(names: Iterable[str]) -> list[Curve]:
    """The curves that are recorded."""
    found = []
    for group in curves([name for name in names if path_of(name).is_file()]):
        labels = np.array(group["labels"], dtype=float)
        for curve in group["curves"]:
            columns = dict(zip(group["columns"], curve.T, strict=True))
            found.append(Curve(group["dataset"], group["model"], group["val"], labels, columns))
    return found


# ---- rules with a threshold: curve and threshold -> whether each round would stop ----------------------------------


def _fell(values: np.ndarray, times: int) -> np.ndarray:
    falls = np.concatenate([[False], np.diff(values) < 0])
    return np.array([bool(falls[max(0, i - times + 1) : i + 1].all()) and i >= times for i in range(len(values))])


def _windowed(values: np.ndarray, width: int) -> np.ndarray:
    padded = [np.mean(values[max(0, i - width + 1) : i + 1]) for i in range(len(values))]
    return np.array(padded)


def _plateau(curve: Curve, threshold: float) -> np.ndarray:
    values = curve["val"]
    since = [
        rounds_without_progress(list(values[: i + 1]), mode="max", min_delta=threshold) for i in range(len(values))
    ]
    return np.array(since) >= 2


def _stable(curve: Curve, threshold: float) -> np.ndarray:
    kappa = curve["kappa"]
    return np.concatenate([[False, False], (kappa[2:] + kappa[1:-1]) / 2 >= threshold])


def _converged(curve: Curve, threshold: float) -> np.ndarray:
    gradient = np.diff(_windowed(1 - curve["error"], 3), prepend=np.nan)
    return (gradient > 0) & (gradient < threshold)


@dataclass(frozen=True)
class Rule:
    """A rule with one threshold.

    Args:
        stops: curve and threshold to ``(rounds,)``, whether each round would stop the run.
        published: its own threshold.
        others: that may be chosen for it.
    """

    stops: Callable[[Curve, float], np.ndarray]
    published: float
    others: Sequence[float] = field(default=())

    def stop(self, curve: Curve, threshold: float) -> tuple[int, bool]:
        """The round it stops after, and whether it did so before the labels were spent."""
        found = np.flatnonzero(self.stops(curve, threshold))
        last = len(curve.labels) - 1
        return (int(found[0]), True) if len(found) else (last, False)


SMALL = (0.001, 0.002, 0.005, 0.01, 0.02, 0.03, 0.05, 0.08, 0.12, 0.2, 0.3, 0.4)
RULES = {
    "stabilizing_predictions": Rule(_stable, 0.99, (0.8, 0.85, 0.9, 0.92, 0.94, 0.95, 0.96, 0.97, 0.98, 0.995)),
    "classification_change": Rule(lambda c, t: c["changed"] <= t, 0.0, SMALL),
    "overall_uncertainty": Rule(lambda c, t: np.concatenate([[False], c["uncertainty"][:-1] < t]), 0.05, (*SMALL, 0.6)),
    "pool_covered": Rule(lambda c, t: c["coverage"] >= t, 0.9, (0.1, 0.15, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8)),
    "round_plateau": Rule(_plateau, 0.0, (*SMALL[:8],)),
    "max_expected_error": Rule(lambda c, t: c["error"] <= t, 0.01, (*SMALL, 0.5)),
    "performance_convergence": Rule(_converged, 5e-5, (1e-4, 2e-4, 5e-4, *SMALL[:7])),
    "oracle_accuracy": Rule(lambda c, t: c["picked"] >= t, 0.9, (0.3, 0.35, 0.4, 0.45, 0.5, 0.6, 0.7, 0.8, 0.95)),
    "highest_entropy": Rule(lambda c, t: c["highest"] <= t, 0.01, (0.5, 0.6, 0.7, 0.75, 0.8, 0.85, 0.9, 0.95)),
    "max_confidence": Rule(lambda c, t: c["surest"] < t, 0.001, (0.1, 0.15, 0.2, 0.25, 0.3, 0.35, 0.4)),
    "falling_variance": Rule(lambda c, t: _fell(c["spread"], int(t)), 2, (1, 3, 4)),
    "contradictory_information": Rule(lambda c, t: _fell(c["contradiction"], int(t)), 3, (1, 2, 4)),
}
"""Named after what they are called in Pullar-Strecker et al., 2022, where there is a name; thresholds are theirs."""


# ---- what is learnt ------------------------------------------------------------------------------------------------


def learn_prior(seen: Sequence[Curve]) -> Prior:
    """CostStopping's prior: power laws fitted to the mean curves of other data sets and models, and what is around."""
    groups: dict[tuple[str, str], list[Curve]] = defaultdict(list)
    for curve in seen:
        groups[curve.dataset, curve.model].append(curve)
    means = [(members[0].labels, np.mean([1 - c["test"] for c in members], axis=0)) for members in groups.values()]
    exponents = np.log([fitted_exponent(labels, error) for labels, error in means])
    noise = []
    for curve in seen:
        rest = curve["val"] - curve["test"]
        noise.append(np.var(rest, ddof=1) * curve.val / np.mean(curve["test"] * (1 - curve["test"])))
    return Prior(
        exponent=round(float(np.exp(exponents.mean())), 3),
        exponent_sd=round(float(exponents.std(ddof=1)), 3),
        noise=round(float(np.mean(noise)), 3),
    )


def fitted_exponent(labels: np.ndarray, error: np.ndarray) -> float:
    """``c`` of the least-squares ``error = floor + b * labels ** -c``, both ``(rounds,)``."""
    exponents, floors = np.geomspace(0.05, 3, 80)[:, None, None], np.linspace(0, 1, 60)[:, None] * error.min()
    power = (labels / labels[-1]) ** -exponents
    b = ((error - floors) * power).sum(-1, keepdims=True) / (power**2).sum(-1, keepdims=True)
    misfit = ((error - floors - b * power) ** 2).sum(-1)
    return float(exponents[np.unravel_index(misfit.argmin(), misfit.shape)[0], 0, 0])


def learn_confidence(seen: Sequence[Curve], prior: Prior) -> float:
    """CostStopping's confidence: the one with the least mean regret."""

    def regret(confidence: float) -> float:
        stops = [(c, cost_stopping(c, prior, confidence, stop_set=True)) for c in seen]
        return float(np.mean([row["regret"] for curve, stop_at in stops for row in judged(curve, stop_at)]))

    return min(CONFIDENCES, key=regret)


def chosen(rule: Rule, seen: Sequence[Curve]) -> float:
    """The threshold with the least mean regret."""
    grid = sorted({rule.published, *rule.others})
    return min(grid, key=lambda t: float(np.mean(np.concatenate([c.regrets[:, rule.stop(c, t)[0]] for c in seen]))))


# ---- judging -------------------------------------------------------------------------------------------------------


def always(stop: tuple[int, bool]) -> Callable[[float], tuple[int, bool]]:
    """A rule that stops there whatever accuracy is worth."""
    return lambda value: stop


def judged(curve: Curve, stop_at: Callable[[float], tuple[int, bool]]) -> list[dict[str, Any]]:
    """A run at all its prices."""
    found = []
    for value, regrets in zip(curve.values, curve.regrets, strict=True):
        stop, stopped = stop_at(value)
        found.append({
            "regret": regrets[stop], "premature": curve.premature(stop, value), "stopped": stopped,
            "labels": curve.labels[stop] / curve.labels[-1], "accuracy": curve["test"][stop],
        })  # fmt: skip
    return found


def cost_stopping(
    curve: Curve, prior: Prior, confidence: float, *, stop_set: bool
) -> Callable[[float], tuple[int, bool]]:
    """Its stop at any price; a forecast does not depend on the price, so each is made once."""
    last = len(curve.labels) - 1
    rule = CostStopping(price_per_point=1.0, labels=int(curve.labels[-1]), confidence=confidence, prior=prior)
    seen = []
    for i in range(last):
        history = curve.history(i)
        forecast = rule.forecast(history)
        if forecast is not None and not (stop_set and curve["kappa"][i] < rule.agreement):
            seen.append((i, forecast.high, rule.costs(history, forecast) / history.bill.prices.label))

    def stop_at(value: float) -> tuple[int, bool]:
        found = next((i for i, gain, cost in seen if best_stop(gain, cost, value=value)[1] <= 0), None)
        return (last, False) if found is None else (found, True)

    return stop_at


def evaluate(all_curves: Sequence[Curve]) -> dict[str, list[tuple[Curve, list[dict[str, Any]]]]]:
    """Every rule on every curve, by what the other data sets have taught."""
    found: dict[str, list[tuple[Curve, list[dict[str, Any]]]]] = defaultdict(list)
    for name in dict.fromkeys(curve.dataset for curve in all_curves):
        here = [c for c in all_curves if c.dataset == name]
        elsewhere = [c for c in all_curves if c.dataset != name]
        prior = learn_prior(elsewhere)
        confidence = learn_confidence(elsewhere, prior)
        thresholds = {rule: chosen(RULES[rule], elsewhere) for rule in RULES}
        print(name, prior, confidence, thresholds, flush=True)
        for curve in here:
            for with_stop_set, label in ((True, "cost_stopping"), (False, "cost_stopping, no stop set")):
                found[label].append(
                    (curve, judged(curve, cost_stopping(curve, prior, confidence, stop_set=with_stop_set)))
                )
            for label, rule in RULES.items():
                for kind, threshold in (("", thresholds[label]), (", as published", rule.published)):
                    stop = rule.stop(curve, threshold)
                    found[label + kind].append((curve, judged(curve, always(stop))))
            found["all labels"].append((curve, judged(curve, always((len(curve.labels) - 1, False)))))
    return dict(found)


def summary(rule: str, judgements: Sequence[Mapping[str, Any]], **more: Any) -> dict[str, Any]:
    """Of a rule, over runs and prices."""
    regret = np.array([j["regret"] for j in judgements])
    return {
        "rule": rule,
        **more,
        "judgements": len(regret),
        "regret_median": round(float(np.median(regret)), 4),
        "regret_p90": round(float(np.quantile(regret, 0.9)), 4),
        "regret_mean": round(float(regret.mean()), 4),
        **{
            key: round(float(np.mean([j[name] for j in judgements])), 4)
            for key, name in (
                ("premature", "premature"), ("stopped", "stopped"), ("labels_share", "labels"), ("accuracy", "accuracy")
            )
        },
    }  # fmt: skip


def main() -> None:
    """Record, or evaluate."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=("record", "evaluate"))
    parser.add_argument("names", nargs="*", default=list(PROTOCOLS), metavar="DATASET", help=", ".join(PROTOCOLS))
    arguments = parser.parse_args()
    if arguments.what == "record":
        record_all(arguments.names)
        return
    found = evaluate(load(arguments.names))
    rows, everything, linear = [], [], []
    for rule, runs in found.items():
        everything.append(summary(rule, [j for _, judgements in runs for j in judgements]))
        linear.append(summary(rule, [j for c, judgements in runs if c.model == "linear" for j in judgements]))
        for dataset, model in dict.fromkeys((c.dataset, c.model) for c, _ in runs):
            judgements = [j for c, js in runs if (c.dataset, c.model) == (dataset, model) for j in js]
            rows.append(summary(rule, judgements, dataset=dataset, model=model))
    everything.sort(key=lambda row: row["regret_mean"])
    linear.sort(key=lambda row: row["regret_mean"])
    ours = next(row for row in everything if row["rule"] == "cost_stopping")
    others = [row for row in everything if not row["rule"].startswith("cost_stopping")]
    rank = 1 + sum(row["regret_mean"] < ours["regret_mean"] for row in others)
    curves_there = [c for c, _ in found["cost_stopping"]]
    claims = [
        claim("cost_stopping_regret_median", ours["regret_median"], "<=", 0.05),
        claim("cost_stopping_regret_p90", ours["regret_p90"], "<=", 0.15),
        claim("premature_stop_rate", ours["premature"], "<=", 0.02),
        claim("cost_stopping_mean_cost_rank", rank, "==", 1),
        claim("datasets", len({c.dataset for c in curves_there}), ">=", 6),
        claim("runs", len(curves_there), ">=", 240),
    ]
    prior = learn_prior(curves_there)
    learnt = {"cost_stopping_of_all": {**vars(prior), "confidence": learn_confidence(curves_there, prior)}}
    path = write_results(
        "stopping", "python -m benchmarks.stopping evaluate", rows, claims, learnt=learnt, summary=everything,
        linear=linear,
    )  # fmt: skip
    for row in everything:
        print(f"{row['rule']:42} " + " ".join(f"{k} {v}" for k, v in row.items() if k != "rule"))
    print(*claims, path, sep="\n")


if __name__ == "__main__":
    main()
