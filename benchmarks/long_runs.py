"""How long the verbs for people take on a run of many rounds and labels: ``status``, ``export``, ``label``, ``report``.

    python -m benchmarks.long_runs                # 1,000 rounds, 100,000 labels
    python -m benchmarks.long_runs --rounds 250   # fewer; writes nothing

The run folder is made as a run makes it, step by step through its store, and nothing in it was trained: three people
answered every query in files, and one in a hundred labels was corrected. Each verb is the whole command in a process of
its own, the best of three.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import tempfile
import time
from contextlib import closing
from pathlib import Path
from typing import Any

import numpy as np

from al_lightning.cost.ledger import Entry
from al_lightning.history import Reason, RoundRecord
from al_lightning.oracles.file_oracle import FileOracle
from al_lightning.oracles.statements import Statement
from al_lightning.run.store import Change, Query, Store
from benchmarks.common import claim, write_results

ROUNDS, PER_ROUND = 1_000, 100
NAMES = [f"class {i}" for i in range(10)]
PEOPLE = ("ann", "bob", "eve")
SECONDS = {"status": 1.0, "export": 3.0, "label": 3.0, "report": 10.0}
"""Verb -> seconds it may take."""


def long_run(folder: Path, rounds: int, per_round: int = PER_ROUND) -> Path:
    """Make a run folder of so many rounds, the last of which waits for its answers."""
    size = (rounds + 1) * per_round
    ids = np.random.default_rng(0).permutation(size).reshape(-1, per_round)
    meta: dict[str, Any] = {
        "config": {
            "task": "multiclass",
            "query": {"class": "Margin"},
            "initial": {"class": "Random"},
            "candidates": {"class": "RotatingSubset"},
            "seed": 0,
        },
        "fingerprint": {"size": size},
        "labelling": {**FileOracle(classes=NAMES).rules(), "prices": {"label": 0.1, "currency": "USD"}},
        "pricing": {"label": 0.1, "hour": 1.0, "currency": "USD", "val_labels": 0, "label_costs": False},
        "flops_per_record": {"train": 6e6, "forward": 2e6},
        "train_rate": {"records": 1000, "seconds": 1.0},
        "in_flight": None,
        "fits": 0,
    }
    with closing(Store(folder)) as store:
        store._db.execute("PRAGMA synchronous=OFF")  # nobody's labels are lost here
        saved = store.load()

        def commit(step: str, round: int, **effects: Any) -> None:
            change = saved.placed(Change(step=step, round=round, **effects))
            store.commit(change)
            saved.apply(change)

        commit("query", 0, meta=meta)
        for round, asked in enumerate(ids.tolist(), start=1):
            scores = np.linspace(1, 0, per_round)
            query = Query(ids=np.array(asked), scores=scores, score_rounds=np.full(per_round, round - 1))
            keys = {i: f"images/{i:07d}.png" for i in asked}
            commit("label", round, query=query, keys=keys, entries=(_work("score", round, 5_000),))
            if round > rounds:
                break
            commit("train", round, **_answers(asked, round, saved.answers))
            work, reasons = (_work("train", round, 10_000), _work("validate", round, 500)), tuple[Reason, ...]()
            if round % 100 == 0:
                reasons = (Reason("plateau", "nothing gained", {"round": round}),)
            record = _record(round, per_round)
            commit("decide", round, record=record, entries=work, reasons=reasons, meta={"fits": round})
    return folder


def _answers(asked: list[int], round: int, known: dict[int, Any]) -> dict[str, Any]:
    who = PEOPLE[round % len(PEOPLE)]
    source = f"queries/round-{round:03d}.csv"
    corrections = {i: (known[i] + 1) % 10 for i in list(known)[:: len(known) or 1]}
    answers = {i: i % 10 for i in asked}
    said = [Statement(id=i, value=v, who=who, source=source, line=k) for k, (i, v) in enumerate(answers.items(), 2)]
    said += [Statement(id=i, value=v, who=who, source="fixes.csv", line=2) for i, v in corrections.items()]
    sources = {s.id: (s.who, s.source) for s in said}
    return {"answers": answers, "corrections": corrections, "statements": tuple(said), "sources": sources}


def _work(phase: str, round: int, records: int) -> Entry:
    return Entry(phase=phase, round=round, records=records, flops=records * 6e6, seconds=records / 1000)


def _record(round: int, per_round: int) -> RoundRecord:
    cost = {"flops": round * 1e11, "seconds": round * 15.5, "money": round * 10.1, "rho": 0.2}
    metrics = {"val_acc": 1 - 1 / (round + 1), "val_loss": 2 / round, "train_loss": 1 / round}
    labelled = round * per_round
    return RoundRecord(round=round, labelled=labelled, queried=per_round, metrics=metrics, epochs=3, cost=cost)


def seconds(*arguments: str) -> float:
    """How long a command takes, as a process of its own; the best of three."""
    took = []
    for _ in range(3):
        began = time.perf_counter()
        subprocess.run([sys.executable, "-m", "al_lightning.cli.main", *arguments], check=True, capture_output=True)
        took.append(time.perf_counter() - began)
    return min(took)


def main() -> int:
    """Command line."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.long_runs", description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--rounds", type=int, default=ROUNDS)
    rounds = parser.parse_args().rounds
    with tempfile.TemporaryDirectory() as place:
        folder = long_run(Path(place) / "run", rounds)
        answers = Path(place) / "answers.csv"
        answers.write_text("id,label\n")
        more = {
            "export": ["-o", f"{place}/labels.csv"],
            "label": [str(answers)],
            "report": ["-o", f"{place}/report"],
        }
        rows = []
        for verb, most in SECONDS.items():
            took = seconds(verb, str(folder), *more.get(verb, []))
            rows.append({"verb": verb, "rounds": rounds, "labels": rounds * PER_ROUND, "seconds": round(took, 2)})
            print(rows[-1], f"allowed: {most}")
    claims = [claim(f"{row['verb']} seconds", row["seconds"], "<=", SECONDS[row["verb"]]) for row in rows]
    if rounds >= ROUNDS:
        print(write_results("long_runs", "python -m benchmarks.long_runs", rows, claims))
    return 0 if all(c["holds"] for c in claims) else 1


if __name__ == "__main__":
    sys.exit(main())
