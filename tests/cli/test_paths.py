from pathlib import Path

import pytest

from al_lightning.cli import paths


@pytest.fixture
def package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    package = tmp_path / "al_lightning"
    (package / "cli").mkdir(parents=True)
    monkeypatch.setattr(paths, "__file__", str(package / "cli" / "paths.py"))
    return package


def test_wheel_has_it_inside_the_package(package: Path) -> None:
    (package / "conf").mkdir()
    (package.parent / "conf").mkdir()
    assert paths.config_dir() == package / "conf"


def test_source_tree_has_it_beside_the_package(package: Path) -> None:
    (package.parent / "conf").mkdir()
    assert paths.config_dir() == package.parent / "conf"


def test_neither_names_both_places(package: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"no configuration in .*al_lightning/conf or "):
        paths.config_dir()


def test_this_checkout_has_one() -> None:
    assert paths.config_dir().is_dir()
