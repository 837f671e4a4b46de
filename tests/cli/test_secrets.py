"""A secret among the options of the command is refused before anything is written, and no message repeats it."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from al_lightning.cli.build import compose_config
from al_lightning.cli.check import BadOption
from al_lightning.cli.main import main
from al_lightning.cli.secrets import check_config, check_options

SECRET = "s3cr3t0123456789"
REFUSED = [
    f"oracle.url=http://{SECRET}@localhost:8080",
    f"oracle.url=https://ann:{SECRET}@localhost:8080",
    f"oracle.url='http://localhost:8080/?token={SECRET}'",
    f"oracle.url=http://localhost:8080,http://ann:{SECRET}@localhost:8081",
    f"+oracle.token={SECRET}",
    f"++oracle.api_key={SECRET}",
    f"+oracle.headers={{Authorization: Token {SECRET}}}",
    f"+oracle.headers.X-Me={SECRET}",
    f"+logger.wandb_api_key={SECRET}",
    f"+data.password={SECRET}",
    f"+data.path=postgres://ann:{SECRET}@host/base",
]
ALLOWED = [
    "oracle.url=http://localhost:8080",
    "data.path=s3://bucket/file@2",
    "model.pad_token=x",
    "model.num_tokens=5",
    "+data.password='${oc.env:PASSWORD}'",
    "+data.token=null",
    "tokenizer=word",
    "--multirun",
]


def written(folder: Path) -> list[Path]:
    return [
        path for path in folder.rglob("*") if SECRET in str(path) or (path.is_file() and SECRET in path.read_text())
    ]


@pytest.mark.parametrize("option", REFUSED)
def test_a_secret_among_the_options_is_refused_before_anything_is_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], option: str
) -> None:
    monkeypatch.chdir(tmp_path)
    for more in ([], ["-m"]):
        assert main(["run", *more, "oracle=label_studio", option]) == 1
        said = capsys.readouterr()
        assert "it seems to hold a secret" in said.err
        assert "environment variable" in said.err
        assert SECRET not in said.out + said.err
    assert not list(tmp_path.iterdir())
    with pytest.raises(BadOption) as refused:
        compose_config("run", ["oracle=label_studio", option])
    assert SECRET not in str(refused.value)


@pytest.mark.parametrize("flags", [[], ["-m"]])
def test_a_secret_in_a_configuration_of_ones_own_is_refused_too(tmp_path: Path, flags: list[str]) -> None:
    mine = tmp_path / "mine" / "oracle"
    mine.mkdir(parents=True)
    text = f"_target_: al_lightning.oracles.LabelStudioOracle\nurl: http://ann:{SECRET}@localhost:8080\nproject: 1\n"
    (mine / "server.yaml").write_text(text)
    folder = tmp_path / "work"
    folder.mkdir()
    command = ["run", *flags, "--config-dir", str(mine.parent), "oracle=server", "seed=1", "out=runs"]
    program = [sys.executable, "-m", "al_lightning.cli.main", *command]
    done = subprocess.run(program, cwd=folder, capture_output=True, text=True, timeout=240, check=False)
    assert done.returncode == 1
    assert "oracle.url: it seems to hold a secret" in done.stderr
    assert SECRET not in done.stdout + done.stderr
    assert not written(folder)


def test_what_is_no_secret_or_stands_in_the_environment_is_allowed() -> None:
    check_options(ALLOWED)
    check_config({"oracle": {"url": "http://localhost:8080", "token": "${oc.env:TOKEN}", "key": None}, "tokens": ["a"]})
