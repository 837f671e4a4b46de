"""Label Studio: tasks out, annotations in. The same tests run against the real server where it is installed."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from al_lightning.cli.main import main
from al_lightning.errors import ActiveLearningError, PoolError
from al_lightning.oracles import LabelStudioOracle
from al_lightning.oracles.label_studio_server import TOKEN, LabelStudioError
from al_lightning.oracles.oracle import SKIP
from al_lightning.run.store import read_run
from tests.helpers import learner, net, pool_of
from tests.label_studio import servers
from tests.label_studio.servers import Server

NAMES = ["a", "b", "c"]
CHOICES = "".join(f'<Choice value="{name}"/>' for name in NAMES)
INTERFACE = f'<View><Text name="it" value="$key"/><Choices name="label" toName="it">{CHOICES}</Choices></View>'
KEYS = [f"img-{i:03d}.png" for i in range(60)]


@pytest.fixture(scope="module", params=["stand-in", "real"])
def server(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    if request.param == "real" and not servers.installed():
        pytest.skip("Label Studio is not installed: set LABEL_STUDIO to its command to run this against a real server")
    folder = tmp_path_factory.mktemp("server")
    with servers.real(folder) if request.param == "real" else servers.stand_in() as found:
        yield found


@pytest.fixture(autouse=True)
def _token(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(TOKEN, servers.TOKEN)


def start(folder: Path, oracle: Any, keys: Any = KEYS, **kwargs: Any) -> Any:
    return learner(folder, oracle=oracle, **kwargs).fit(net(), datamodule=pool_of(keys=keys))


def id_of(task: dict[str, Any]) -> int:
    return KEYS.index(task["data"]["key"])


def annotate(server: Server, project: int) -> None:
    """Answer what has no answer, truthfully: class i % 3."""
    for task in server.tasks(project):
        if not task["annotations"]:
            server.annotate(task, {"choices": [NAMES[id_of(task) % 3]]})


def test_a_run_answered_on_the_server_ends_as_one_answered_by_the_dataset(server: Server, tmp_path: Path) -> None:
    whole = learner(tmp_path / "whole").fit(net(), datamodule=pool_of(keys=KEYS))
    project = server.project(INTERFACE)
    oracle = LabelStudioOracle(server.url, project, classes=NAMES, predictions=True)
    starts = 0
    while True:
        result, starts = start(tmp_path / "run", oracle), starts + 1
        if result.reason.kind != "waiting":
            break
        n = len(read_run(tmp_path / "run").open_ids)
        assert str(result.reason) == (
            f"waiting for {n} labels: annotate {server.url}/projects/{project}, then run the same command"
        )
        tasks = server.tasks(project)
        assert start(tmp_path / "run", oracle).reason == result.reason  # started too early
        assert server.tasks(project) == tasks  # nothing is asked twice
        annotate(server, project)
    assert starts == 4
    assert result.labelled.tolist() == whole.labelled.tolist()
    assert len(server.tasks(project)) == len(result.labelled)
    log = read_run(tmp_path / "run").statements
    assert {s.who for s in log} == {servers.EMAIL}
    assert all(s.source.startswith(f"{server.url}/projects/{project}/data?task=") for s in log)


def test_predictions_go_out_with_the_tasks_and_are_on_the_bill(server: Server, tmp_path: Path) -> None:
    spent = {}
    for predictions in (False, True):
        folder, project = tmp_path / str(predictions), server.project(INTERFACE)
        oracle = LabelStudioOracle(server.url, project, classes=NAMES, predictions=predictions)
        start(folder, oracle)
        assert not any(task.get("predictions") for task in server.tasks(project))  # no model has learnt anything yet
        annotate(server, project)
        start(folder, oracle)
        asked = [task for task in server.tasks(project) if not task["annotations"]]
        assert [bool(task.get("predictions")) for task in asked] == [predictions] * len(asked)
        spent[predictions] = sum(e.records for e in read_run(folder).entries if e.phase == "score")
    assert spent[True] == spent[False] + len(asked)
    for task in asked:
        (prediction,) = task["predictions"]
        (result,) = prediction["result"]
        assert (result["from_name"], result["to_name"], result["type"]) == ("label", "it", "choices")
        assert result["value"]["choices"][0] in NAMES
        assert 1 / 3 <= prediction["score"] <= 1
    right = [task["predictions"][0]["result"][0]["value"]["choices"] == [NAMES[id_of(task) % 3]] for task in asked]
    assert any(right)


def test_partial_answers_refusals_and_corrections(server: Server, tmp_path: Path) -> None:
    project = server.project(INTERFACE)
    oracle = LabelStudioOracle(server.url, project, classes=NAMES)
    start(tmp_path, oracle)
    first, second, *rest = server.tasks(project)
    server.annotate(first, None)
    server.annotate(second, {"choices": ["b"]})
    assert start(tmp_path, oracle).reason.numbers["labels"] == len(rest)
    saved = read_run(tmp_path)
    assert saved.answers == {id_of(first): SKIP, id_of(second): 1}
    _, second, *_ = server.tasks(project)
    server.annotate(second, {"choices": ["c"]})
    annotate(server, project)
    start(tmp_path, oracle)
    saved = read_run(tmp_path)
    assert saved.answers[id_of(second)] == 2
    assert [s.value for s in saved.statements if s.id == id_of(second)] == [1, 2]


def test_labels_of_an_earlier_run_are_not_asked_again(server: Server, tmp_path: Path) -> None:
    project = server.project(INTERFACE)
    oracle = LabelStudioOracle(server.url, project, classes=NAMES)
    start(tmp_path / "a", oracle)
    annotate(server, project)
    n = len(server.tasks(project))
    start(tmp_path / "b", oracle)  # the same seed, so the same first query
    assert len(read_run(tmp_path / "b").answers) == n
    with pytest.raises(PoolError, match="A project holds the labels of one pool"):
        start(tmp_path / "c", oracle, keys=[f"other-{i}" for i in range(60)])


def edited(task: dict[str, Any], where: str, value: Any) -> dict[str, Any]:
    """A task as somebody who exports, edits and imports a project may leave it."""
    *way, last = where.split(".")
    place: Any = task
    for part in way:
        place = place[int(part) if part.isdecimal() else part]
    if value is ...:
        del place[last]
    else:
        place[last] = value
    return task


@pytest.mark.parametrize(
    ("where", "value", "words"),
    [
        ("meta.al_lightning", "yes", "is not as it was made"),
        ("meta.al_lightning.id", "seven", "is not as it was made"),
        ("meta.al_lightning.id", 7, "A project holds the labels of one pool"),
        ("meta.al_lightning.key", ..., "is not as it was made .KeyError: .*key"),
        ("annotations", None, "is not as it was made"),
        ("annotations.0.updated_at", ..., "is not as it was made .KeyError"),
        ("annotations.0.completed_by", {"id": 1}, "is not as it was made .TypeError"),
        ("annotations.0.result", None, "is not as it was made"),
        ("annotations.0.result.0.value", ..., "is not as it was made .KeyError"),
        ("annotations.0.result.0.value", ["a"], "is not as it was made"),
        ("annotations.0.result.0.value.choices", "a", "is 'a'; allowed: a, b, c or skip"),
        ("annotations.0.result.0.value.choices", None, "is not as it was made|allowed: a, b, c"),
        ("annotations.0.result.0.value.choices", [None], "is 'None'; allowed: a, b, c or skip"),
        ("annotations.0.result.0.value.choices", ["a;b"], "is 'a;b'; allowed: a, b, c or skip"),
        ("annotations.0.result.0.value.choices", ["skip"], "is 'skip'; allowed: a, b, c or skip"),
        ("annotations.0.result.0.value.choices", ["a", "b"], "is 'a, b'; allowed: a, b, c or skip"),
        ("annotations.0.result.0.value.choices", [["a"]], "allowed: a, b, c or skip"),
    ],
)
def test_what_was_edited_by_hand_is_refused_with_its_task(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, where: str, value: Any, words: str
) -> None:
    with servers.stand_in() as server:
        project = server.project(INTERFACE)
        oracle = LabelStudioOracle(server.url, project, classes=NAMES)
        start(tmp_path, oracle)
        annotate(server, project)
        tasks = server.tasks(project)
        tasks[3] = edited(tasks[3], where, value)
        with monkeypatch.context() as patch:
            patch.setattr("al_lightning.oracles.label_studio_server.Server.tasks", lambda self: iter(tasks))
            with pytest.raises(PoolError, match=words) as refused:
                start(tmp_path, oracle)
        assert str(tasks[3]["id"]) in str(refused.value)
        assert read_run(tmp_path).statements == []
        start(tmp_path, oracle)  # undone, it goes on
        assert len(read_run(tmp_path).answers) == 12


def test_a_task_that_was_imported_again_counts_by_its_time(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with servers.stand_in() as server:
        project = server.project(INTERFACE)
        oracle = LabelStudioOracle(server.url, project, classes=NAMES)
        start(tmp_path, oracle)
        annotate(server, project)
        tasks = server.tasks(project)
        again = json.loads(json.dumps(tasks[0]))
        again["annotations"][0] |= {"updated_at": "0001-01-01T00:00:00Z", "id": 999}
        again["annotations"][0]["result"][0]["value"]["choices"] = [NAMES[(id_of(again) + 1) % 3]]
        monkeypatch.setattr("al_lightning.oracles.label_studio_server.Server.tasks", lambda self: iter([*tasks, again]))
        start(tmp_path, oracle)
        assert read_run(tmp_path).answers[id_of(again)] == id_of(again) % 3


def test_status_does_not_need_the_server(
    server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    project = server.project(INTERFACE)
    start(tmp_path, LabelStudioOracle(server.url, project, classes=NAMES))
    monkeypatch.delenv(TOKEN)
    assert main(["status", str(tmp_path)]) == 0
    assert f"annotate{server.url}/projects/{project}" in "".join(capsys.readouterr().out.split())


@pytest.mark.parametrize(
    ("interface", "words"),
    [
        (INTERFACE.replace('"c"', '"d"'), "differ in c, d"),
        (INTERFACE.replace("Choices", "Labels").replace("Choice ", "Label "), r"0 tags <Choices>"),
        (INTERFACE.replace("</View>", '<Choices name="more" toName="it"><Choice value="x"/></Choices></View>'),
         "2 tags <Choices>, and task='multiclass' needs one"),
    ],
)  # fmt: skip
def test_an_interface_that_does_not_fit_is_said_before_anything_is_asked(
    server: Server, tmp_path: Path, interface: str, words: str
) -> None:
    project = server.project(interface)
    with pytest.raises(LabelStudioError, match=words):
        start(tmp_path, LabelStudioOracle(server.url, project, classes=NAMES))
    assert server.tasks(project) == []


def test_a_server_that_refuses_or_is_not_there(server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    project = server.project(INTERFACE)
    with pytest.raises(LabelStudioError, match=r"projects/999999 is not there"):
        start(tmp_path / "a", LabelStudioOracle(server.url, 999999, classes=NAMES))
    wrong = "f" * 40
    monkeypatch.setenv(TOKEN, wrong)
    with pytest.raises(LabelStudioError, match=f"refuses the access token in {TOKEN}") as refused:
        start(tmp_path / "b", LabelStudioOracle(server.url, project, classes=NAMES))
    assert wrong not in str(refused.value)
    monkeypatch.delenv(TOKEN)
    with pytest.raises(LabelStudioError, match="no access token"):
        start(tmp_path / "c", LabelStudioOracle(server.url, project, classes=NAMES))


def test_nobody_listens_and_the_run_goes_on_when_somebody_does(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("al_lightning.oracles.label_studio_server._WAIT", 0.0)
    with servers.stand_in() as gone:
        project = gone.project(INTERFACE)
    with pytest.raises(LabelStudioError, match="does not answer"):
        start(tmp_path, LabelStudioOracle(gone.url, project, classes=NAMES))
    with servers.stand_in() as back:
        oracle = LabelStudioOracle(back.url, back.project(INTERFACE), classes=NAMES)
        assert start(tmp_path, oracle).reason.kind == "waiting"


def test_a_personal_access_token_is_exchanged(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    with servers.stand_in() as server:
        project = server.project(INTERFACE)
        monkeypatch.setenv(TOKEN, "a.personal.token")
        start(tmp_path, LabelStudioOracle(server.url, project, classes=NAMES))
        assert server.tasks(project)


def test_the_token_reaches_no_file(server: Server, tmp_path: Path) -> None:
    project = server.project(INTERFACE)
    oracle = LabelStudioOracle(server.url, project, classes=NAMES)
    start(tmp_path, oracle)
    annotate(server, project)
    start(tmp_path, oracle)
    assert servers.TOKEN not in repr(oracle)
    for path in tmp_path.rglob("*"):
        assert path.is_dir() or servers.TOKEN.encode() not in path.read_bytes(), path


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"url": "localhost:8080"}, "http://host or https://host"),
        ({"url": "http://user:secret@host"}, "no user or token"),
        ({"annotators": 0}, "at least 1"),
        ({"classes": ["a", "a"]}, "given twice"),
    ],
)
def test_settings_out_of_range(settings: dict[str, Any], words: str) -> None:
    with pytest.raises(ValueError, match=words) as found:
        LabelStudioOracle(**{"url": "http://localhost:8080", "project": 1, **settings})
    assert "secret" not in str(found.value)
    assert not isinstance(found.value, ActiveLearningError)
