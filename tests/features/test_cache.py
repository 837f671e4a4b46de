"""Caches of features and clusters: what they say of themselves, and what becomes of a stale or damaged one."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from al_lightning import Budget
from al_lightning.candidates import Representatives
from al_lightning.features import Layer
from al_lightning.round_size import Fixed
from al_lightning.run.durable import read_arrays
from tests.helpers import blobs, learner, net, pool_of

FILES = ("features-60.npz", "clusters-4-60.npz")


def run(folder: Path, labels: int = 30, features: Any = None, seed: int = 0) -> Any:
    made = learner(
        folder, candidates=Representatives(0.5, n_clusters=4), round_size=Fixed(6), stop=[Budget(labels=labels)]
    )
    source = Layer("net.1", pretrained=True) if features is None else features
    return made.fit(net(seed=seed), datamodule=pool_of(features=source))


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """A run of 18 labels, one from other weights, and how the first goes on where nothing happens to its files."""
    root = tmp_path_factory.mktemp("made")
    before = run(root / "run", labels=18)
    run(root / "other", labels=18, seed=1)
    shutil.copytree(root / "run", root / "whole")
    return {"root": root, "before": before.bill, "labelled": run(root / "whole").labelled.tolist()}


def truncate(path: Path, other: Path) -> None:
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def remove(path: Path, other: Path) -> None:
    path.unlink()


def swap(path: Path, other: Path) -> None:
    path.write_bytes((other / path.name).read_bytes())


def rewrite(change: Callable[[dict[str, np.ndarray]], Any]) -> Callable[[Path, Path], None]:
    def damage(path: Path, other: Path) -> None:
        arrays = read_arrays(path)
        change(arrays)
        np.savez(path, **arrays)

    return damage


def one_number(arrays: dict[str, np.ndarray]) -> None:
    next(iter(value for name, value in arrays.items() if name != "about"))[0] += 1


def other_type(arrays: dict[str, np.ndarray]) -> None:
    arrays.update({name: value.astype(np.float64) for name, value in arrays.items() if name != "about"})


DAMAGES: dict[str, Callable[[Path, Path], None]] = {
    "cut off": truncate,
    "gone": remove,
    "of another run": swap,
    "one number": rewrite(one_number),
    "other type": rewrite(other_type),
    "other names": rewrite(lambda arrays: arrays.update({"x": arrays.pop(sorted(arrays)[-1])})),
    "says nothing": rewrite(lambda arrays: arrays.pop("about")),
}


@pytest.mark.parametrize("name", FILES)
@pytest.mark.parametrize("damage", DAMAGES)
def test_a_stale_or_damaged_one_is_made_again(tmp_path: Path, made: dict[str, Any], damage: str, name: str) -> None:
    folder = tmp_path / "run"
    shutil.copytree(made["root"] / "run", folder)
    DAMAGES[damage](folder / "features" / name, made["root"] / "other" / "features")
    with pytest.warns(UserWarning, match=rf"{name} is stale or damaged \(\w+\): it is made again"):
        result = run(folder)
    phase = "embed" if name == FILES[0] else "cluster"
    assert result.bill.lines[phase].flops == 2 * made["before"].lines[phase].flops, "on the bill"
    assert len(result.labelled) == 30
    if name != FILES[0]:  # the model that embedded first is gone
        assert result.labelled.tolist() == made["labelled"]
    assert len(list((folder / "features").glob("*.npz"))) == 2


def test_what_was_made_again_is_good(tmp_path: Path, made: dict[str, Any]) -> None:
    shutil.copytree(made["root"] / "run", tmp_path / "run")
    for name in FILES:
        truncate(tmp_path / "run" / "features" / name, tmp_path)
    with pytest.warns(UserWarning, match="it is made again"):
        run(tmp_path / "run", labels=24)
    assert len(run(tmp_path / "run", labels=30).labelled) == 30  # a warning would be an error


def test_what_a_cache_says_of_itself(made: dict[str, Any]) -> None:
    says = {
        (run, name): json.loads(str(read_arrays(made["root"] / run / "features" / name)["about"]))
        for run in ("run", "other")
        for name in FILES
    }
    features = says["run", FILES[0]]
    assert features["arrays"] == {"features": [[60, 8], "<f4"]}
    assert {len(found["made_from"]) for found in says.values()} == {16}
    assert {len(found["checksum"]) for found in says.values()} == {16}
    assert says["other", FILES[0]]["made_from"] != features["made_from"], "another model"


def test_clusters_of_an_array_that_has_changed_are_made_again(tmp_path: Path) -> None:
    array = blobs().tensors[0].numpy()
    first = run(tmp_path, labels=18, features=array)
    with pytest.warns(UserWarning, match="features have changed since they were clustered"):
        second = run(tmp_path, labels=24, features=array[:, ::-1].copy())
    assert second.bill.lines["cluster"].flops == 2 * first.bill.lines["cluster"].flops
