"""Changes of a run as lines of its journal, and those lines as rows of its database.

A commit and a recovery go the same way: the database only ever takes in lines.
"""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import asdict
from datetime import datetime, timezone
from typing import TYPE_CHECKING, Any

import numpy as np

from al_lightning.cost.ledger import stored
from al_lightning.oracles.oracle import SKIP
from al_lightning.pool.label_codec import decode, encode
from al_lightning.run.journal import Body

if TYPE_CHECKING:
    from al_lightning.run.changes import Change

_REFUSED = "skip"  # a JSON text of that meaning would have quotes


def to_text(value: Any, what: str) -> str:
    """Return a label, or SKIP, as it is written.

    Raises:
        PoolError: it cannot be written.
    """
    return _REFUSED if value is SKIP else encode(value, what)


def from_text(text: str | None) -> Any:
    """Return the label that was written; None where there is none."""
    return SKIP if text == _REFUSED else None if text is None else decode(text)


def now() -> str:
    """Return the time, UTC, to the second."""
    return datetime.now(timezone.utc).isoformat(timespec="seconds")


# ---- changes -> lines ---------------------------------------------------------------------------------------------


def lines_of(change: Change, db: sqlite3.Connection) -> list[Body]:
    """Return the lines of a change.

    Args:
        change: of a run.
        db: what it changes: metadata that stays as it is needs no line, and labels are named by the keys there.

    Raises:
        PoolError: a label cannot be written.
    """
    at = now()
    bodies: list[Body] = []
    if change.query is not None:
        q = change.query
        scores = [None if np.isnan(s) else float(s) for s in q.scores]
        bodies.append(query_line(change.round, q.ids.tolist(), scores, q.score_rounds.tolist()))
    if change.keys:
        bodies.append({"kind": "keys", "keys": [[i, key] for i, key in change.keys.items()]})
    changed = {**change.answers, **change.corrections}
    keys = _keys(db) | change.keys if changed else {}
    for i, value in changed.items():
        text = to_text(value, f"the label of id {i}")
        bodies.append(
            _label(
                change.round, i, keys.get(i, str(i)), text, *change.sources.get(i, ("", "")), at, change.places.get(i)
            )
        )
    for s in change.statements:
        said = None if s.value is None else to_text(s.value, f"id {s.id}")
        bodies.append(_statement(s.id, s.ask, s.who, s.source, s.line, at, said))
    known = dict(db.execute("SELECT key, value FROM meta"))
    meta = {"step": change.step, **change.meta}
    return [
        *bodies,
        {
            "kind": "commit",
            "round": change.round,
            "at": at,
            "meta": {key: value for key, value in meta.items() if json.dumps(value) != known.get(key)},
            "records": [] if change.record is None else [change.record.to_json()],
            "entries": [{**asdict(e), "flops": stored(e.flops)} for e in change.entries],
            "reasons": [_reason(change.round, r.kind, r.sentence, r.numbers) for r in change.reasons],
            "files": [[name, path, change.digests.get(name)] for name, path in change.files.items()],
            "dropped": list(change.dropped),
        },
    ]


def note_line(key: str, value: Any) -> Body:
    """Return the line of one value that is noted beside the run's steps."""
    return {"kind": "note", "key": key, "value": value}


def query_line(round: int, ids: list[int], scores: Sequence[float | None], score_rounds: list[int]) -> Body:
    """Return the line of a query: ids, best first, the scores they were picked by, and the rounds those are from."""
    return {"kind": "query", "round": round, "ids": ids, "scores": scores, "score_rounds": score_rounds}


def _label(round: int, id: int, key: str, text: str, who: str, source: str, at: str | None, place: int | None) -> Body:
    more = {} if place is None else {"place": place}
    return {"kind": "label", "round": round, "id": id, "key": key, **_said(text), "who": who, "source": source,
            "at": at, **more}  # fmt: skip


def _statement(id: int, ask: int, who: str, source: str, line: int, at: str, text: str | None) -> Body:
    said = {"withdrawn": True} if text is None else _said(text)
    return {"kind": "statement", "id": id, "ask": ask, **said, "who": who, "source": source, "line": line, "at": at}


def _said(text: str) -> Body:
    return {"skip": True} if text == _REFUSED else {"label": json.loads(text)}


def _text(body: Body) -> str | None:
    if body.get("withdrawn"):
        return None
    return _REFUSED if body.get("skip") else json.dumps(body["label"])


def _reason(round: int, kind: str, sentence: str, numbers: Any) -> Body:
    return {"round": round, "kind": kind, "sentence": sentence, "numbers": numbers}


def _keys(db: sqlite3.Connection) -> dict[int, str]:
    return dict(db.execute("SELECT id, key FROM record_key"))


# ---- lines -> rows --------------------------------------------------------------------------------------------------


def write(db: sqlite3.Connection, bodies: Iterable[Body]) -> None:
    """Take lines into a database; within a transaction.

    Args:
        db: the database.
        bodies: of the lines, in their order.
    """
    for body in bodies:
        _WRITERS[body["kind"]](db, body)


def _write_query(db: sqlite3.Connection, body: Body) -> None:
    columns = zip(body["ids"], body["scores"], body["score_rounds"], strict=True)
    rows = [(body["round"], place, *row) for place, row in enumerate(columns)]
    db.executemany("INSERT INTO query VALUES (?, ?, ?, ?, ?)", rows)


def _write_keys(db: sqlite3.Connection, body: Body) -> None:
    db.executemany("INSERT OR REPLACE INTO record_key VALUES (?, ?)", body["keys"])


def _write_label(db: sqlite3.Connection, body: Body) -> None:
    id, text, old = body["id"], _text(body), None
    found = db.execute("SELECT value, skipped FROM label WHERE id = ?", (id,)).fetchone()
    if found is not None:
        old = _REFUSED if found[1] else found[0]
        if "place" in body:
            db.execute("DELETE FROM label WHERE id = ?", (id,))  # it comes back in another place
    value = (None, 1) if text == _REFUSED else (text, 0)
    db.execute(
        "INSERT INTO label (seq, id, value, skipped) VALUES (?, ?, ?, ?) "
        "ON CONFLICT (id) DO UPDATE SET value = excluded.value, skipped = excluded.skipped",
        (body.get("place"), id, *value),
    )
    if body["at"] is not None:
        db.execute(
            "INSERT INTO audit (id, at, who, source, old, new) VALUES (?, ?, ?, ?, ?, ?)",
            (id, body["at"], body["who"], body["source"], old, text),
        )


def _write_statement(db: sqlite3.Connection, body: Body) -> None:
    names = ("id", "ask", "who", "source", "line", "at")
    db.execute(
        f"INSERT INTO statement ({', '.join(names)}, value) VALUES (?, ?, ?, ?, ?, ?, ?)",
        (*(body[name] for name in names), _text(body)),
    )


def _write_commit(db: sqlite3.Connection, body: Body) -> None:
    for key, value in body["meta"].items():
        db.execute("INSERT OR REPLACE INTO meta VALUES (?, ?)", (key, json.dumps(value)))
    for record in body["records"]:
        row = (record["round"], int(record["final"]), json.dumps(record))
        db.execute("INSERT OR REPLACE INTO round VALUES (?, ?, ?)", row)
    names = ("phase", "round", "records", "flops", "seconds", "bytes")
    db.executemany(
        f"INSERT INTO ledger ({', '.join(names)}) VALUES (?, ?, ?, ?, ?, ?)",
        [tuple(entry[name] for name in names) for entry in body["entries"]],
    )
    db.executemany(
        "INSERT INTO reason (round, kind, sentence, numbers) VALUES (?, ?, ?, ?)",
        [(r["round"], r["kind"], r["sentence"], json.dumps(r["numbers"])) for r in body["reasons"]],
    )
    db.executemany("INSERT OR REPLACE INTO file VALUES (?, ?, ?)", body["files"])
    db.executemany("DELETE FROM file WHERE name = ?", [(name,) for name in body["dropped"]])


def _write_note(db: sqlite3.Connection, body: Body) -> None:
    db.execute("INSERT OR REPLACE INTO meta VALUES (?, ?)", (body["key"], json.dumps(body["value"])))


_WRITERS = {
    "query": _write_query,
    "keys": _write_keys,
    "label": _write_label,
    "statement": _write_statement,
    "commit": _write_commit,
    "note": _write_note,
}


# ---- rows -> lines --------------------------------------------------------------------------------------------------


def snapshot(db: sqlite3.Connection) -> list[Body]:
    """Return lines of one change from nothing to all that a database of today's format holds.

    Args:
        db: the database.
    """
    return [*_queries(db), {"kind": "keys", "keys": [*map(list, _keys(db).items())]}, *_labels(db), *_statements(db),
            _all_commits(db)]  # fmt: skip


def _queries(db: sqlite3.Connection) -> Iterator[Body]:
    for (round,) in db.execute("SELECT DISTINCT round FROM query ORDER BY round").fetchall():
        picked = db.execute("SELECT id, score, score_round FROM query WHERE round = ? ORDER BY position", (round,))
        ids, scores, score_rounds = (list(column) for column in zip(*picked, strict=True))
        yield query_line(round, ids, scores, score_rounds)


def _labels(db: sqlite3.Connection) -> Iterator[Body]:
    """Lines of every change of a label that was noted; before them, of labels from before such changes were."""
    keys, rounds = _keys(db), dict(db.execute("SELECT id, round FROM query"))
    audit = db.execute("SELECT id, at, who, source, old, new FROM audit ORDER BY seq").fetchall()
    first: dict[int, str | None] = {}
    for id, *_, old, _ in audit:
        first.setdefault(id, old)
    places: dict[int, int] = {}

    def line(id: int, text: str, who: str = "", source: str = "", at: str | None = None) -> Body:
        place = places.pop(id, None)  # once; a correction stays where the label is
        return _label(rounds.get(id, 0), id, keys.get(id, str(id)), text, who, source, at, place)

    for place, id, value, skipped in db.execute("SELECT seq, id, value, skipped FROM label ORDER BY seq").fetchall():
        places[id] = place
        text = first.get(id, _REFUSED if skipped else value)
        if text is not None:
            yield line(id, text)
    for id, at, who, source, _, new in audit:
        yield line(id, new, who, source, at)


def _statements(db: sqlite3.Connection) -> list[Body]:
    found = db.execute("SELECT id, ask, who, source, line, at, value FROM statement ORDER BY seq")
    return [_statement(*row) for row in found]


def _all_commits(db: sqlite3.Connection) -> Body:
    names = ("phase", "round", "records", "flops", "seconds", "bytes")
    return {
        "kind": "commit",
        "round": 0,
        "at": now(),
        "meta": {key: json.loads(value) for key, value in db.execute("SELECT key, value FROM meta")},
        "records": [json.loads(r) for (r,) in db.execute("SELECT record FROM round ORDER BY round, final")],
        "entries": [
            dict(zip(names, row, strict=True))
            for row in db.execute(f"SELECT {', '.join(names)} FROM ledger ORDER BY seq")
        ],
        "reasons": [
            _reason(round, kind, sentence, json.loads(numbers))
            for round, kind, sentence, numbers in db.execute(
                "SELECT round, kind, sentence, numbers FROM reason ORDER BY seq"
            )
        ],
        "files": [list(row) for row in db.execute("SELECT name, path, digest FROM file")],
        "dropped": [],
    }
