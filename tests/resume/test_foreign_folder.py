"""A run folder from somebody else executes nothing, whatever its files hold."""

from __future__ import annotations

import pickle
import re
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import IO, Any

import numpy as np
import pytest
import torch

from al_lightning import WarmStart
from al_lightning.candidates import Representatives
from al_lightning.errors import DamagedFile
from al_lightning.features import Layer
from al_lightning.oracles import FileOracle
from al_lightning.query import DistanceWeighted, KCenterGreedy, Margin
from al_lightning.round_size import Listed
from tests.helpers import fill, learner, net, pool_of


class Evil:
    """Makes a file when it is unpickled."""

    def __init__(self, mark: Path) -> None:
        self.mark = mark

    def __reduce__(self) -> Any:
        return Path.touch, (self.mark,)


PAYLOADS: dict[str, Callable[[IO[bytes], Evil], Any]] = {
    "pickle": lambda file, evil: pickle.dump(evil, file),
    "torch": lambda file, evil: torch.save({"state_dict": evil}, file),
    "npz": lambda file, evil: np.savez(file, scores=np.array([evil], dtype=object)),
    "npy": lambda file, evil: np.save(file, np.array([evil], dtype=object), allow_pickle=True),
}


def start(folder: Path) -> Any:
    parts: dict[str, Any] = {
        "query": DistanceWeighted(Margin()),
        "initial": KCenterGreedy(),
        "candidates": Representatives(0.5, n_clusters=4),
        "fit": WarmStart("keep", stable=True),
        "round_size": Listed([6, 6, 6]),
    }
    return learner(folder, oracle=FileOracle(), **parts).fit(
        net(), datamodule=pool_of(features=Layer("net.1", pretrained=True))
    )


@pytest.fixture(scope="module")
def waiting(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run that waits for the labels of its second round."""
    folder = tmp_path_factory.mktemp("waiting") / "run"
    start(folder)
    fill(folder / "queries" / "round-001.csv", lambda i: str(i % 3))
    assert start(folder).reason.kind == "waiting"
    return folder


@pytest.mark.filterwarnings("ignore:.* is stale or damaged")
@pytest.mark.parametrize("payload", PAYLOADS)
def test_nothing_in_it_is_executed(waiting: Path, tmp_path: Path, payload: str) -> None:
    evil = Evil(tmp_path / "mark")
    with (tmp_path / "file").open("wb") as file:
        PAYLOADS[payload](file, evil)
    data = sorted(p for p in waiting.rglob("*") if p.suffix in (".pt", ".npz", ".npy", ".ckpt"))
    refused = set()
    for path in data:
        folder = tmp_path / "run"
        shutil.copytree(waiting, folder)
        shutil.copyfile(tmp_path / "file", folder / path.relative_to(waiting))
        fill(folder / "queries" / "round-002.csv", lambda i: str(i % 3))
        try:
            start(folder)  # what this round does not need is not read
        except DamagedFile as error:
            assert re.search(rf"{path.name} cannot be read back .*recover {folder}", str(error))  # noqa: PT017
            refused.add(path.name)
        assert not evil.mark.exists(), path
        shutil.rmtree(folder)
    # Features and clusters are made again.
    assert refused == {path.name for path in data if path.parent.name != "features"}
    assert refused == {"initial.pt", "weights.pt", "moments.pt", "scores-001.npz"}


def test_the_mark_would_be_made(tmp_path: Path) -> None:
    evil = Evil(tmp_path / "mark")
    pickle.loads(pickle.dumps(evil))
    assert evil.mark.exists()
