"""Takes single lines of a damaged journal into a database that is being rebuilt."""

from __future__ import annotations

import sqlite3
from collections import defaultdict
from collections.abc import Sequence

from al_lightning.run.journal import Body
from al_lightning.run.lines import now, query_line, write


def salvage(db: sqlite3.Connection, bodies: Sequence[Body]) -> list[Body]:
    """Take in single lines of changes that are not whole; a query that was lost is made of the labels it brought."""
    left, of_round = [], defaultdict(list)
    for body in bodies:
        if body["kind"] == "label":
            of_round[body["round"]].append(body["id"])
    queries = {body["round"]: body for body in bodies if body["kind"] == "query"}
    (rounds,) = db.execute("SELECT coalesce(max(round), 0) FROM query").fetchone()
    known = {id for (id,) in db.execute("SELECT id FROM query")} | {i for q in queries.values() for i in q["ids"]}
    for round in range(rounds + 1, max([rounds, *queries, *of_round]) + 1):
        ids = [i for i in dict.fromkeys(of_round[round]) if i not in known]
        query = queries.get(round) or query_line(round, ids, [None] * len(ids), [-1] * len(ids))
        if query["ids"]:  # those that come after one of which nothing is left move up
            rounds += 1
            write(db, [{**query, "round": rounds}])
    queried = {id for (id,) in db.execute("SELECT id FROM query")}
    for body in bodies:
        if body["kind"] == "query" or (body["kind"] == "label" and body["id"] not in queried):
            left += [body] if body["kind"] == "label" else []
            continue
        write(db, [body])
    _step_again(db)
    return left


def _step_again(db: sqlite3.Connection) -> None:
    """Set the step that a run goes on with which has lost some changes: what is open, or a fit."""
    known = {key for (key,) in db.execute("SELECT key FROM meta")}
    usual: Body = {"attempt": 2, "restarts": 0, "fits": 0, "withdrawn": [], "stop": [], "stop_set": [], "labelling": {}}
    usual["step"] = "train"
    meta = {key: value for key, value in usual.items() if key not in known}
    if "config" not in known:
        meta["unconfigured"] = True
    unanswered = "SELECT count(*) FROM query WHERE id NOT IN (SELECT id FROM label)"
    if db.execute(unanswered).fetchone()[0]:
        meta["step"] = "label"
    nothing: Body = {"records": [], "entries": [], "reasons": [], "files": [], "dropped": []}
    write(db, [{"kind": "commit", "round": 0, "at": now(), "meta": meta, **nothing}])
