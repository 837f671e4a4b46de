from __future__ import annotations

import inspect
from pathlib import Path
from typing import Any

import hydra
import pytest
from hydra import compose, initialize_config_dir
from hydra.utils import instantiate
from omegaconf import DictConfig, OmegaConf

from al_lightning.cli.build import build, folder_name, register_resolvers
from al_lightning.cli.paths import config_dir

CONF = config_dir()
FILES = sorted(path.relative_to(CONF).with_suffix("").as_posix() for path in CONF.rglob("*.yaml"))
GROUPS = [name for name in FILES if "/" in name]
PARTS = [name for name in GROUPS if not name.startswith("experiment/")]
EMPTY = {"logger/none", "stop/none"}


@pytest.fixture(autouse=True)
def resolvers() -> None:
    register_resolvers()


def composed(folder: Path, *overrides: str) -> DictConfig:
    with initialize_config_dir(version_base="1.3", config_dir=str(CONF)):
        return compose("run", [f"run_dir={folder}", "logger=none", *overrides])


def targets(node: Any, path: str = "") -> list[tuple[str, dict[str, Any]]]:
    if isinstance(node, list):
        return [found for i, part in enumerate(node) for found in targets(part, f"{path}[{i}]")]
    if not isinstance(node, dict):
        return []
    own = [(path, node)] if "_target_" in node else []
    return own + [found for key, part in node.items() for found in targets(part, f"{path}.{key}")]


def test_every_group_is_chosen_by_default() -> None:
    groups = {name.split("/")[0] for name in GROUPS}
    written = (CONF / "run.yaml").read_text()
    assert [group for group in groups if f"- {group}:" not in written] == []


def test_every_file_is_checked_here() -> None:
    assert set(FILES) - set(GROUPS) == {"run", "compare", "plan"}
    assert {name for name in PARTS if OmegaConf.load(CONF / f"{name}.yaml") == {}} == EMPTY


@pytest.mark.parametrize("name", PARTS)
def test_part_can_be_built(name: str, tmp_path: Path) -> None:
    group, option = name.split("/")
    cfg = composed(tmp_path, f"{group}={option}")
    if name in EMPTY:
        assert not cfg.get(group)
        return
    extra = {"logger": False} if group == "trainer" else {}  # as build() does: loggers are a group of their own
    found = instantiate(cfg[group], **extra, _convert_="all")
    for built in found.values() if group == "stop" else [found]:
        assert not isinstance(built, dict), f"{name} has no _target_"


@pytest.mark.parametrize("name", [name for name in GROUPS if name.startswith("experiment/")])
def test_experiment_says_what_it_is_and_can_be_built(name: str, tmp_path: Path) -> None:
    cfg = composed(tmp_path, f"experiment={name.split('/')[1]}")
    assert cfg.about
    assert build(cfg).learner.run_dir == tmp_path


@pytest.mark.parametrize("name", PARTS)
def test_config_never_restates_a_default(name: str) -> None:
    for path, node in targets(OmegaConf.to_container(OmegaConf.load(CONF / f"{name}.yaml"))):
        parameters = inspect.signature(hydra.utils.get_object(node["_target_"])).parameters
        restated = {key for key, value in node.items() if key in parameters and parameters[key].default == value}
        assert not restated, f"{name}{path} restates the default of {restated}"


def test_compared_methods_are_experiments() -> None:
    methods = OmegaConf.load(CONF / "compare.yaml").methods
    assert [m for m in methods if f"experiment/{m}" not in GROUPS] == []


def test_stopping_rules_can_be_combined(tmp_path: Path) -> None:
    learner = build(composed(tmp_path, "stop=[labels,plateau,stall]", "labels=77")).learner
    assert [type(rule).__name__ for rule in learner.stop] == ["Budget", "RoundPlateau"]
    assert learner.stop[0].labels == 77
    assert learner.watch.fits is not None


def test_one_stopping_rule_needs_no_brackets(tmp_path: Path) -> None:
    assert [type(rule).__name__ for rule in build(composed(tmp_path, "stop=plateau")).learner.stop] == ["RoundPlateau"]


def test_seed_alone_decides_the_first_weights(tmp_path: Path) -> None:
    def weights(*overrides: str) -> list[float]:
        return build(composed(tmp_path, *overrides)).model.head.weight.flatten().tolist()

    assert weights("seed=1") == weights("seed=1", "query=kcenter", "fit=reset", "labels=50")
    assert weights("seed=1") != weights("seed=2")


def test_folder_names_stay_one_level_short_and_apart() -> None:
    assert folder_name("") == "default"
    assert folder_name("query=margin,seed=1") == "query=margin,seed=1"
    assert "/" not in folder_name("data.root=/a/b")
    names = {folder_name("x" * 500 + end) for end in "ab"}
    assert len(names) == 2
    assert max(map(len, names)) < 200
