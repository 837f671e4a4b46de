import json
from dataclasses import asdict, replace
from pathlib import Path

import pytest

from benchmarks import recipe
from benchmarks.recipe import PROBLEMS, Setting, choose, measure, shortlist, summarise

DIGITS = PROBLEMS["digits"]
SHORT = Setting(epochs=1, batch=200, learning_rate=3e-2, schedule="onecycle")


def rows(accuracies: dict[Setting, list[float]]) -> list[dict[str, object]]:
    return [{**asdict(s), "seed": i, "accuracy": a} for s, values in accuracies.items() for i, a in enumerate(values)]


def test_cheapest_within_tolerance_is_chosen() -> None:
    long, middle, short = (replace(SHORT, epochs=e) for e in (40, 20, 10))
    chosen, best = choose(DIGITS, rows({long: [95.0, 96.0], middle: [95.3, 95.3], short: [95.2, 95.3]}))
    assert (chosen, best) == (middle, long)


def test_equal_flops_are_settled_by_steps_then_accuracy() -> None:
    small, large, better = (
        replace(SHORT, batch=16),
        replace(SHORT, batch=64),
        replace(SHORT, batch=64, schedule="constant"),
    )
    chosen, best = choose(DIGITS, rows({small: [95.2], large: [95.1], better: [95.15]}))
    assert (chosen, best) == (better, small)


def test_shortlist_has_the_two_best_near_settings_of_each_length() -> None:
    a, b, c = (replace(SHORT, epochs=20, batch=n) for n in (16, 32, 64))
    d, far = replace(SHORT, epochs=10), replace(SHORT, epochs=5)
    assert shortlist(rows({a: [95.0], b: [94.8], c: [94.9], d: [94.3], far: [93.9]})) == [d, a, c]


def test_gaps_are_paired_by_seed() -> None:
    long, short = replace(SHORT, epochs=40), replace(SHORT, epochs=10)
    first, last = summarise(DIGITS, rows({long: [94.0, 96.0], short: [93.5, 95.5]}))
    assert (first["epochs"], first["points_below_best"], first["standard_error"]) == (10, 0.5, 0.0)
    assert (last["epochs"], last["accuracy"], last["points_below_best"], last["steps"]) == (40, 95.0, 0.0, 80)


def test_runs_already_measured_are_not_trained_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "rows.jsonl"
    (first,) = measure(DIGITS, [(SHORT, 0)], path)
    trained: list[int] = []

    def train(problem: object, setting: Setting, seed: int) -> dict[str, object]:
        trained.append(seed)
        return {**first, "seed": seed}

    monkeypatch.setattr(recipe, "train", train)
    again = list(measure(DIGITS, [(SHORT, 0), (SHORT, 1)], path))
    assert (trained, again[0]) == ([1], first)
    assert [json.loads(line) for line in path.read_text().splitlines()] == again


def test_no_test_record_is_read() -> None:
    from al_lightning.cli.problems import digits

    trained, held_out = DIGITS.data(7)
    assert len(trained) == 400
    seen = {tuple(x.tolist()) for dataset in (trained, held_out) for x, _ in dataset}
    assert len(seen) == 1797 - 360
    assert seen.isdisjoint(tuple(x.tolist()) for x, _ in digits(7).test)
