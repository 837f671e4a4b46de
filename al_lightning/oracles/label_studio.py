"""Queries as tasks of a Label Studio project, answers as its annotations."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

from al_lightning.errors import PoolError
from al_lightning.history import Reason
from al_lightning.oracles.file_oracle import Columns, ties_among
from al_lightning.oracles.label_cell import Language, check_classes, plain_classes, words
from al_lightning.oracles.label_studio_server import MARK, TOKEN, LabelStudioError, Server, project_page
from al_lightning.oracles.oracle import SKIP, LabelRequest
from al_lightning.oracles.statements import Decisions, Statement
from al_lightning.oracles.votes import answers

_CONTROLS = {"multiclass": "Choices", "binary": "Choices", "multilabel": "Choices", "regression": "Number"}


@dataclass
class LabelStudioOracle:
    """Write each query as tasks of a Label Studio project; what people annotate there becomes labels.

    The run ends while answers are missing, and the same command goes on when they are there. An annotation that is
    changed later corrects the label; one that is skipped refuses it; one that is deleted takes nothing back. A project
    holds the labels of one pool: a record that has its task there already, by an earlier run, is not asked again.

    The access token is read from the environment variable ``LABEL_STUDIO_API_KEY``.

    Args:
        url: of the server, ``http://localhost:8080``.
        project: its number, as in ``/projects/3``. Its labelling interface has ``Choices`` with the names of the
            classes, or ``Number`` for regression.
        data: what the interface shows of a record: a function or mapping ``id -> {name: value}``, ``$name`` in the
            interface. Default: its key, ``$key``.
        classes: class names, or how many classes there are; see :class:`~al_lightning.oracles.FileOracle`.
        control: name of the control tag that holds the label, where the interface has several that could.
        annotators: how many people answer each record.
        adjudicator: e-mail address of the one whose word stands against all others.
        predictions: whether the model's answers go out with the tasks, as pre-annotations. They cost one inference of
            every queried record.
        score_ahead: whether the next candidates are scored while people answer; see FileOracle.

    Raises:
        ValueError: a setting out of its range.

    Example:
        >>> oracle = LabelStudioOracle("http://localhost:8080", project=7, classes=["cat", "dog"])  # doctest: +SKIP
    """

    url: str
    project: int
    data: Columns | None = None
    classes: int | Sequence[str] | None = None
    control: str | None = None
    annotators: int = 1
    adjudicator: str | None = None
    predictions: bool = False
    score_ahead: bool = False
    _request: LabelRequest | None = field(default=None, init=False, repr=False)

    def __post_init__(self) -> None:
        check_classes(self.classes)
        if not self.url.startswith(("http://", "https://")) or set("@?#") & set(self.url):
            raise ValueError(
                "LabelStudioOracle(url=...): http://host or https://host, with no user or token in it; the token is "
                f"read from the environment variable {TOKEN}."
            )
        if self.project < 1:
            raise ValueError(f"LabelStudioOracle(project={self.project}): a project's number, allowed: 1 or more.")
        if self.annotators < 1:
            raise ValueError(f"LabelStudioOracle(annotators={self.annotators}): at least 1 has to answer a record.")

    # ---- out ---------------------------------------------------------------------------------------------------

    def ask(self, request: LabelRequest) -> None:
        """Make the tasks that are not there yet."""
        self._request = request
        language, server = self._language(request), Server(self.url, self.project)
        name, control = self._control(server, language)
        there = {id for _, id in self._tasks(server, request)}
        look = self.data if callable(self.data) else (self.data or {}).get
        tasks = []
        for i, key in zip(request.ids.tolist(), request.keys, strict=True):
            if i in there:
                continue
            shown = {"key": str(key), **(look(i) or {})}
            task: dict[str, Any] = {
                "data": shown, "meta": {MARK: {"id": i, "key": str(key), "round": request.round}},
            }  # fmt: skip
            if i in request.predictions:
                value, confidence = request.predictions[i]
                result = {"from_name": name, "to_name": control["to_name"][0], "type": control["type"].lower()}
                result["value"] = _written(language, value)
                task["predictions"] = [
                    {"result": [result], "score": confidence, "model_version": f"round {request.round - 1}"}
                ]
            tasks.append(task)
        if tasks:
            server.make(tasks)

    def _language(self, request: LabelRequest) -> Language:
        return Language(task=request.task, classes=self.classes)  # refuses tasks no control tag can hold

    def _control(self, server: Server, language: Language) -> tuple[str, dict[str, Any]]:
        kind = _CONTROLS[language.task]
        found = {name: tag for name, tag in server.controls.items() if tag["type"] == kind}
        if self.control is not None:
            found = {name: tag for name, tag in found.items() if name == self.control}
        if len(found) != 1:
            named = "" if self.control is None else f" named {self.control!r}"
            tags = ", ".join(f"{name} <{tag['type']}>" for name, tag in server.controls.items()) or "none"
            raise LabelStudioError(
                f"{server.page}/settings/labeling has {len(found)} tags <{kind}>{named}, and task={language.task!r} "
                f"needs one. Its tags: {tags}. Change the interface, or name one with control=."
            )
        ((name, control),) = found.items()
        if kind == "Choices":
            self._check_choices(server, language, list(control["labels"]))
        return name, control

    def _check_choices(self, server: Server, language: Language, choices: list[str]) -> None:
        names = language.names or tuple(str(i) for i in range(language.count or 0))
        wrong = sorted(set(choices) ^ set(names)) if names else [c for c in choices if not c.isdecimal()]
        if wrong:
            raise LabelStudioError(
                f"{server.page}/settings/labeling offers the choices {', '.join(choices)}, and the classes are "
                f"{', '.join(names) or 'numbers, since classes= is not given'}; they differ in {', '.join(wrong)}."
            )

    def _id(self, task: Mapping[str, Any], request: LabelRequest) -> int:
        mark = task["meta"][MARK]
        id, key = int(mark["id"]), str(mark["key"])
        if not 0 <= id < request.size or str(request.key(id)) != key:
            raise PoolError(
                f"task {task['id']} of {self._page} is of record {id} with the key {key!r}, and "
                "this pool has no such record. A project holds the labels of one pool: use another project."
            )
        return id

    # ---- in ----------------------------------------------------------------------------------------------------

    def collect(self) -> Mapping[int, Any]:
        """The labels that follow from what is annotated by now."""
        assert self._request is not None, "ask() comes before collect()"
        return answers(self, self._request)

    def said(self, request: LabelRequest) -> list[Statement]:
        """Every annotation of a queried record, oldest first; of several by one person, the last.

        Raises:
            PoolError: an annotation that holds no label of the task, or of more than one control.
            LabelStudioError: the server does not answer, or refuses.
        """
        language, server = self._language(request), Server(self.url, self.project)
        name, _ = self._control(server, language)
        found: dict[tuple[int, str], tuple[str, Statement]] = {}
        for task, id in self._tasks(server, request):
            with _as_written(server.page, task):
                for at, said in _annotations(server, task, id, name, language) if id in request.queried else ():
                    if at >= found.get((id, said.who), (at, said))[0]:
                        found[id, said.who] = (at, said)
        return [said for _, said in sorted(found.values(), key=lambda pair: pair[0])]

    def _tasks(self, server: Server, request: LabelRequest) -> Iterator[tuple[dict[str, Any], int]]:
        for task in server.tasks():
            with _as_written(server.page, task):
                id = self._id(task, request)
            yield task, id

    @property
    def _page(self) -> str:
        return project_page(self.url, self.project)

    def rules(self) -> dict[str, Any]:
        """Return what ``al-lightning status`` and ``label`` need to know; they do not ask the server."""
        return {
            "classes": plain_classes(self.classes),
            "annotators": self.annotators,
            "adjudicator": self.adjudicator,
            "server": self._page,
        }

    def waits(self, request: LabelRequest, decisions: Decisions) -> Reason:
        """Return what people have to do: annotate, or settle ties."""
        return waiting_at(
            self._page,
            request,
            decisions,
            language=self._language(request),
            adjudicator=self.adjudicator,
        )


def waiting_at(
    server: str, request: LabelRequest, decisions: Decisions, *, language: Language, adjudicator: str | None
) -> Reason:
    """Return what people have to do on a labelling server, as a sentence and its numbers."""
    ties, numbers = ties_among(request, decisions, language=language, adjudicator=adjudicator)
    n = len(request.ids)
    sentence = f"waiting for {n} labels: annotate {server}, then run the same command{ties}"
    return Reason("waiting", sentence, {"labels": n, "server": server, **numbers})


def _annotations(
    server: Server, task: Mapping[str, Any], id: int, name: str, language: Language
) -> Iterator[tuple[str, Statement]]:
    """Yield what a task's annotations say, oldest first, and when each was said."""
    place = f"{server.page}/data?task={task['id']}"
    for annotation in sorted(task["annotations"], key=lambda a: str(a["updated_at"])):
        value = SKIP if annotation["was_cancelled"] else _read(annotation, name, language, place)
        if value is None:
            continue
        by = annotation["completed_by"]
        who = server.people.get(by, f"user {by}")
        line = int(annotation["id"])
        yield str(annotation["updated_at"]), Statement(id=id, value=value, who=who, source=place, line=line)


def _written(language: Language, value: Any) -> dict[str, Any]:
    if language.task == "regression":
        return {"number": value}
    written = language.write_json(value)
    return {"choices": [str(choice) for choice in (written if isinstance(written, list) else [written])]}


def _read(annotation: Mapping[str, Any], name: str, language: Language, place: str) -> Any:
    """The label in an annotation; None where the control tag was left empty."""
    values = [part["value"] for part in annotation["result"] if part.get("from_name") == name]
    if not values and language.task != "multilabel":
        return None
    found = [choice for value in values for choice in value.get("choices", [value.get("number")])]
    try:
        if not all(isinstance(value.get("choices", []), list) for value in values) or None in found:
            raise ValueError(found)
        return language.read_json(found)  # a list: a choice that is called skip is none
    except ValueError:
        raise PoolError(
            f"{place}: annotation {annotation['id']} is {words(', '.join(map(str, found)))}; allowed: "
            f"{language.allowed}. Correct it there; nothing was taken in."
        ) from None


@contextmanager
def _as_written(page: str, task: Mapping[str, Any]) -> Iterator[None]:
    """Refuse by name what neither this library nor Label Studio has written: a task that was edited and imported."""
    try:
        yield
    except (AttributeError, LookupError, TypeError, ValueError) as error:
        raise PoolError(
            f"task {task.get('id')} of {page} is not as it was made ({type(error).__name__}: {words(str(error))}). "
            "Undo what was edited by hand, or delete the task there: it is asked again. Nothing was taken in."
        ) from error
