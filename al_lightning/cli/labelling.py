"""How the answers of a run are to be read, from its folder alone."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from al_lightning.cost.prices import Prices
from al_lightning.errors import PoolError
from al_lightning.history import Reason
from al_lightning.oracles.file_oracle import repeats, waiting
from al_lightning.oracles.label_cell import Language, language_of
from al_lightning.oracles.label_file import Reader
from al_lightning.oracles.oracle import LabelRequest
from al_lightning.oracles.statements import Decisions
from al_lightning.oracles.votes import decide
from al_lightning.run.intake import Intake, take_in
from al_lightning.run.reading import not_begun
from al_lightning.run.store import Saved


class Labelling:
    """Hold how a run's answers are to be read, from its folder alone."""

    def __init__(self, folder: Path, saved: Saved) -> None:
        self.folder, self.saved = folder, saved
        if "config" not in saved.meta:
            raise not_begun(folder)
        self.rules: dict[str, Any] = saved.meta.get("labelling") or {}
        self.task: str = saved.meta["config"]["task"]
        self.annotators: int = self.rules.get("annotators", 1)
        self.adjudicator: str | None = self.rules.get("adjudicator")
        self.queries = Path(self.rules.get("folder") or folder / "queries")

    @property
    def size(self) -> int:
        return int(self.saved.meta["fingerprint"]["size"])

    @property
    def reader(self) -> Reader:
        return Reader(
            language=language_of(self.task, self.rules.get("classes"), self.saved.answers.values()),
            queried=frozenset(i for query in self.saved.queries for i in query),
            key=lambda i: self.saved.keys.get(i, i),
            size=self.size,
            task=self.task,
        )

    @property
    def request(self) -> LabelRequest:
        def target(id: int) -> Any:
            raise PoolError("a run folder holds no labels but those that people gave.")

        ids = self.saved.open_ids
        prices = Prices(**self.rules.get("prices", {}))
        return LabelRequest(
            round=len(self.saved.queries),
            ids=np.asarray(ids, dtype=np.int64),
            keys=tuple(self.saved.keys.get(i, i) for i in ids),
            target=target,
            task=self.task,
            folder=self.folder / "queries",
            prices=prices,
        )

    @property
    def decisions(self) -> Decisions:
        rules: dict[str, Any] = {"annotators": self.annotators, "adjudicator": self.adjudicator}
        return decide(self.saved.statements, task=self.task, **rules, ids=frozenset(self.saved.open_ids))

    def intake(self, said: Any) -> Intake:
        return take_in(self.saved, said, self.task, self.annotators, self.adjudicator)

    def waits(self) -> Reason:
        n = len(self.saved.open_ids)
        if not self.rules:
            return Reason("waiting", f"waiting for {n} labels; run again when they are there", {"labels": n})
        language = Language(task=self.task, classes=self.rules.get("classes"))
        if "server" in self.rules:
            from al_lightning.oracles.label_studio import waiting_at

            return waiting_at(
                self.rules["server"], self.request, self.decisions, language=language, adjudicator=self.adjudicator
            )
        return waiting(
            self.queries,
            self.request,
            self.decisions,
            language=language,
            annotators=self.annotators,
            adjudicator=self.adjudicator,
            repeats=repeats(self.rules.get("repeat", 0.0), n),
        )
