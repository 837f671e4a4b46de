"""What selection costs: ``python -m benchmarks.selection --peers FOLDER``.

Every strategy that a peer has too, on the same arrays: time and memory of ours, of each peer that can run it, and of
the roofline, the time in which this machine could move the bytes or do the operations that the strategy is about. And
the throughput of scoring through ``Trainer.predict`` (``benchmarks/scoring.py``). ``benchmarks/peers/README.md`` says
how the peers' environments are made and how calls are timed. Two threads for everybody.
"""

from __future__ import annotations

import argparse
import json
import logging
import math
import os
import select
import statistics
import subprocess
import sys
import tempfile
import time
import warnings
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch

from benchmarks.common import RESULTS, claim, write_results
from benchmarks.ours import REFERENCES
from benchmarks.peers.worker import load
from benchmarks.scoring import measure_scoring, throughput_ratios

ROOT = Path(__file__).parents[1]
THREADS = 2
REPEATS = 7
SLOW, LIMIT = 30.0, 120.0
"""Seconds after which a call is not repeated, and after which it is given up."""
CALM = 0.3
"""Seconds before a call: threads of the library before spin for up to 0.2 seconds after their last work."""
TINY = 0.005
"""Seconds of roofline below which its ratio is not claimed: what is fixed about a call counts for more."""
RESOLUTION = 1 << 20
"""Bytes; memory below is not told apart."""
QUADRATIC = 10_000
"""Largest pool that references of quadratic cost are asked on."""
CLASSES, WIDTH, PASSES = 50, 256, 20
OURS = "al_lightning"


@dataclass(frozen=True)
class Problem:
    """A pool to select from."""

    n: int = 50_000
    size: int = 1000
    labelled: int = 1000


MAIN = Problem()


@dataclass(frozen=True)
class Work:
    """What a strategy is about: bytes that must come from memory, operations and logarithms that must be done."""

    bytes: float = 0.0
    flops: float = 0.0
    logs: float = 0.0

    def seconds(self, machine: Mapping[str, float]) -> float:
        """The largest of them, at the rates of this machine."""
        return max(getattr(self, each) / machine[f"{each}_per_second"] for each in ("bytes", "flops", "logs"))


@dataclass(frozen=True)
class Case:
    """A strategy, who else has it, and on what it is compared.

    Args:
        strategy: its name in ``benchmarks/ours.py`` and in the modules of the peers.
        peers: who has it.
        work: of a problem.
        problem: what is selected from.
        wasteful: what a peer wastes here, ``{peer: "seconds" or "memory"}``.
    """

    strategy: str
    peers: tuple[str, ...]
    work: Callable[[Problem], Work]
    problem: Problem = MAIN
    wasteful: Mapping[str, str] = field(default_factory=dict)


def _probabilities(p: Problem) -> Work:
    return Work(bytes=4 * p.n * CLASSES)


def _entropies(p: Problem) -> Work:
    return Work(bytes=4 * p.n * CLASSES, logs=p.n * CLASSES)


def _features(p: Problem) -> Work:
    return Work(bytes=4 * p.n * WIDTH)


def _clustering(clusters: int) -> Callable[[Problem], Work]:
    # ten passes over at most 64 records a cluster and one over all
    return lambda p: Work(flops=2 * clusters * WIDTH * (10 * min(p.n, 64 * clusters) + p.n))


def _k_center(p: Problem) -> Work:
    # the distances to the centers by matrix products; afterwards every pick reads all features: that takes longer
    return Work(bytes=4 * p.n * WIDTH * p.size, flops=2 * p.n * WIDTH * (p.labelled + p.size))


def _badge(p: Problem) -> Work:
    return Work(bytes=4 * p.n * (WIDTH + CLASSES) * p.size, flops=2 * p.n * (WIDTH + CLASSES) * p.size)


UNCERTAINTY = ("baal", "small_text", "scikit_activeml", "modal")
CASES = (
    Case("least_confidence", UNCERTAINTY, _probabilities),
    Case("margin", UNCERTAINTY, _probabilities),
    Case("entropy", UNCERTAINTY, _entropies),
    Case("power", ("baal",), _probabilities),
    Case("random", ("baal", "small_text", "scikit_activeml"), lambda p: Work(bytes=8 * p.size)),
    Case(
        "bald",
        ("baal", "small_text", "scikit_activeml"),
        lambda p: Work(bytes=4 * p.n * CLASSES * PASSES, logs=p.n * CLASSES * (PASSES + 1)),
        wasteful={"baal": "memory"},
    ),
    Case("information_density", ("modal",), lambda p: Work(bytes=2 * _features(p).bytes + _probabilities(p).bytes)),
    Case("information_density", ("modal",), _features, Problem(8_000, 1000, 1000)),
    Case("k_center", ("small_text", "scikit_activeml"), _k_center),
    Case("k_center", ("small_text",), _k_center, Problem(4_000, 50, 1000), wasteful={"small_text": "seconds"}),
    Case("badge", ("small_text", "scikit_activeml"), _badge),
    Case("badge", ("small_text", "scikit_activeml"), _badge, Problem(10_000, 10, 0), {"scikit_activeml": "memory"}),
    Case("k_means", ("small_text",), _clustering(1000)),
    Case("typiclust", ("scikit_activeml",), _clustering(500)),
    Case("prob_cover", ("scikit_activeml",), lambda p: Work(flops=p.n**2 * WIDTH)),
    Case("prob_cover", ("scikit_activeml",), lambda p: Work(flops=p.n**2 * WIDTH), Problem(8_000, 100, 100)),
)


def write_arrays(folder: Path, problem: Problem, *, seed: int = 0) -> Path:
    """A pool with features that decay along their axes, as embeddings do, and what a linear model says of it.

    ``features.npy (n, d)``, ``probabilities.npy (n, C)``, ``samples.npy (passes, n, C)``, ``labelled.npy`` ids,
    ``classes.npy (n,)`` and ``delta.npy``, within which a record has 20 neighbours on average.
    """
    folder.mkdir(parents=True, exist_ok=True)
    rng = np.random.default_rng(seed)
    decay = (1 + np.arange(WIDTH)) ** -0.5
    classes = rng.integers(CLASSES, size=problem.n)
    centres = 2 * decay * rng.standard_normal((CLASSES, WIDTH))
    features = (1 + centres[classes] + decay * rng.standard_normal((problem.n, WIDTH))).astype(np.float32)
    logits = (features @ rng.standard_normal((WIDTH, CLASSES)) / 4).astype(np.float32)
    samples = np.empty((PASSES, problem.n, CLASSES), np.float32)
    for answer in samples:
        answer[:] = _softmax(logits + 0.5 * rng.standard_normal(logits.shape, np.float32))
    some = features[rng.choice(problem.n, min(problem.n, 200), replace=False)]
    squared = (some**2).sum(1)[:, None] + (features**2).sum(1) - 2 * some @ features.T
    arrays = {
        "features": features,
        "probabilities": _softmax(logits),
        "samples": samples,
        "labelled": rng.choice(problem.n, problem.labelled, replace=False),
        "classes": classes,
        "delta": np.sqrt(np.quantile(squared, min(1.0, 20 / problem.n))),
    }
    for name, array in arrays.items():
        np.save(folder / f"{name}.npy", array)
    return folder


def _softmax(logits: np.ndarray) -> np.ndarray:
    grown = np.exp(logits - logits.max(axis=1, keepdims=True))
    return grown / grown.sum(axis=1, keepdims=True)


def environment_of(threads: int) -> dict[str, str]:
    """The environment of a worker."""
    names = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS", "NUMEXPR_NUM_THREADS")
    return {**os.environ, **dict.fromkeys(names, str(threads))}


class Worker:
    """A process that runs one strategy of one library."""

    def __init__(self, command: Sequence[str]) -> None:
        pipe = subprocess.PIPE
        self._process = subprocess.Popen(
            command,
            cwd=ROOT,
            env=environment_of(THREADS),
            stdin=pipe,
            stdout=pipe,
            stderr=subprocess.DEVNULL,
            text=True,
        )
        self.seconds: list[float] = []
        self.result: dict[str, Any] = {}
        self._ready = False

    @property
    def done(self) -> bool:
        """Whether there is nothing left to time."""
        return bool(self.result) or max(self.seconds, default=0) > SLOW

    def call(self) -> None:
        """Time one call."""
        assert self._process.stdin is not None
        if not self._ready:  # asked as late as this, so that workers load beside each other
            self._expect("ready")
            self._ready = True
        if self.result:
            return
        time.sleep(CALM)
        try:
            self._process.stdin.write("\n")
            self._process.stdin.flush()
        except BrokenPipeError:
            pass
        self.seconds += self._expect("seconds")

    def finish(self) -> dict[str, Any]:
        """The row: median seconds without the first call if there were others, memory, picks; or why there are none."""
        if not self.result:
            assert self._process.stdin is not None
            self._process.stdin.close()
            self._process.stdin = None  # communicate() would flush it
            self._expect("memory")
        if "memory" in self.result:
            timed = self.seconds[1:] or self.seconds
            self.result |= {"seconds": statistics.median(timed), "repeats": [round(s, 6) for s in timed]}
        self._process.kill()
        self._process.communicate()
        return self.result

    def _expect(self, key: str) -> list[Any]:
        assert self._process.stdout is not None
        if not select.select([self._process.stdout], [], [], LIMIT)[0]:
            self.result = {"error": f"longer than {LIMIT:.0f} s"}
            return []
        line = self._process.stdout.readline()
        reply = json.loads(line) if line else {"error": f"ended with exit status {self._process.wait()}"}
        if "error" in reply or key == "memory":
            self.result = reply
            return []
        return [reply[key]]


def compare(case: Case, interpreters: Mapping[str, str], arrays: Path, warm: tuple[Path, int]) -> list[dict[str, Any]]:
    """One row per library that has the strategy, ours first."""
    modules = {OURS: "benchmarks.ours", **{peer: f"benchmarks.peers.{peer}" for peer in case.peers}}
    problem = (str(arrays), str(case.problem.size), str(warm[0]), str(warm[1]))
    workers = {
        library: Worker([interpreters[library], "-m", module, case.strategy, *problem])
        for library, module in modules.items()
        if library in interpreters
    }
    for repeat in range(REPEATS + 1):
        order = list(workers.values())
        for worker in order if repeat % 2 else order[::-1]:
            if not worker.done:
                worker.call()
    found = {library: worker.finish() for library, worker in workers.items()}
    picked = {library: set(result.pop("picked", ())) for library, result in found.items()}
    head = {"part": "strategy", "strategy": case.strategy, **vars(case.problem)}
    for library, result in found.items():
        if picked[library] and library != OURS:
            result["overlap"] = len(picked[library] & picked[OURS]) / case.problem.size
    right = agreement(case, arrays, picked[OURS])
    if right is not None:
        found[OURS]["as_reference"] = right
    return [{**head, "library": library, **result} for library, result in found.items()]


def agreement(case: Case, arrays: Path, picked: Iterable[int]) -> float | None:
    """Share of the reference's picks that are ours too; None for a strategy that draws, or too large a pool."""
    reference = REFERENCES.get(case.strategy)
    quadratic = case.strategy in ("k_center", "information_density")
    if reference is None or (quadratic and case.problem.n > QUADRATIC):
        return None
    expected = load(reference, arrays, case.problem.size)
    return len(set(expected.tolist()) & set(picked)) / case.problem.size


def measure_machine() -> dict[str, float]:
    """Rates of this machine, the best of several tries: bytes read, products of matrices, logarithms in the cache."""
    torch.set_num_threads(THREADS)
    large, square, block = torch.ones(1 << 26), torch.randn(2048, 2048), torch.rand(1 << 17)
    out = torch.empty_like(block)
    return {
        "bytes_per_second": large.nbytes / min(_timed(large.sum) for _ in range(9)),
        "flops_per_second": 2 * len(square) ** 3 / min(_timed(lambda: square @ square) for _ in range(9)),
        "logs_per_second": len(block) / min(_timed(lambda: torch.log(block, out=out)) for _ in range(99)),
    }


def _timed(call: Callable[[], Any]) -> float:
    start = time.perf_counter()
    call()
    return time.perf_counter() - start


# ---- claims --------------------------------------------------------------------------------------------------------


def ratios(rows: Sequence[Mapping[str, Any]], cases: Sequence[Case], machine: Mapping[str, float]) -> list[dict]:
    """Per case, ours against the fastest and the leanest peer, each wasteful one, and the roofline."""
    found = []
    for case in cases:
        mine = [r for r in rows if r["strategy"] == case.strategy and r["n"] == case.problem.n]
        ours = next((r for r in mine if r["library"] == OURS and "seconds" in r), None)
        peers = {r["library"]: r for r in mine if r["library"] != OURS and "seconds" in r}
        row: dict[str, Any] = {"strategy": case.strategy, "n": case.problem.n, "failed": ours is None}
        found.append(row)
        if ours is None:
            continue
        roofline = case.work(case.problem).seconds(machine)
        row |= {"roofline_seconds": roofline, "against_roofline": ours["seconds"] / roofline, "tiny": roofline < TINY}
        if peers:
            row["time_against_fastest"] = ours["seconds"] / min(r["seconds"] for r in peers.values())
            row["memory_against_leanest"] = _bytes(ours) / min(map(_bytes, peers.values()))
        for peer, resource in case.wasteful.items():
            if peer in peers:
                of = _bytes if resource == "memory" else _seconds
                row.setdefault("gains", {})[f"{peer} {resource}"] = of(peers[peer]) / of(ours)
    return found


def _bytes(row: Mapping[str, Any]) -> float:
    return max(row["memory"], RESOLUTION)


def _seconds(row: Mapping[str, Any]) -> float:
    return row["seconds"]


def claims_of(found: Sequence[Mapping[str, Any]], rows: Sequence[Mapping[str, Any]], throughput: float) -> list[dict]:
    """The claims; one about peers is left out where none ran, and one about the roofline where all is tiny."""
    gains = [gain for row in found for gain in row.get("gains", {}).values()]
    large = [row for row in found if not row.get("tiny")]
    right = [row["as_reference"] for row in rows if "as_reference" in row]
    values: list[tuple[str, list[float], Callable[[list[float]], float], str, float]] = [
        ("time_against_fastest_peer_max", _column(found, "time_against_fastest"), max, "<=", 1.05),
        (
            "time_against_roofline_max",
            _column(large, "against_roofline"),
            max,
            "<=",
            2,
        ),
        ("memory_against_leanest_peer_max", _column(found, "memory_against_leanest"), max, "<=", 1.0),
        ("wasteful_peer_speedup_min", gains, min, ">=", 10),
        ("scoring_throughput_ratio", [throughput], min, ">=", 0.95),
        ("picks_as_reference_min", right, min, ">=", 1.0),
        ("strategies_failed", [float(sum(row["failed"] for row in found))], max, "<=", 0),
    ]
    return [claim(name, of(some), op, goal) for name, some, of, op, goal in values if some and not math.isnan(some[0])]


def _column(rows: Sequence[Mapping[str, Any]], name: str) -> list[float]:
    return [row[name] for row in rows if name in row]


def interpreters_in(folder: Path | None) -> dict[str, str]:
    """By library: ours, and the peers whose environment is there."""
    peers = sorted({peer for case in CASES for peer in case.peers})
    paths = {peer: folder / peer / "bin" / "python" for peer in peers} if folder else {}
    return {OURS: sys.executable, **{peer: str(path) for peer, path in paths.items() if path.exists()}}


def run(
    cases: Sequence[Case],
    interpreters: Mapping[str, str],
    *,
    scoring_records: int = 30_000,
    folder: Path = RESULTS,
    known: Mapping[str, Any] | None = None,
) -> Path:
    """Measure the cases and the scoring path, and write ``selection.json``.

    Args:
        cases: to measure.
        interpreters: by library.
        scoring_records: of the scoring path; 0 leaves it out.
        folder: where to.
        known: an earlier ``selection.json``; what is not measured now is kept from it.
    """
    machine, measured = measure_machine(), []
    with tempfile.TemporaryDirectory() as scratch:
        warm = write_arrays(Path(scratch) / "warm", Problem(500, 10, 100), seed=1), 10
        for problem in dict.fromkeys(case.problem for case in cases):
            arrays = write_arrays(Path(scratch) / "arrays", problem)
            for case in cases:
                if case.problem == problem:
                    rows = compare(case, interpreters, arrays, warm)
                    print(*rows, sep="\n", flush=True)
                    measured += rows
    if scoring_records:
        measured += measure_scoring(scoring_records)
    new = {_about(row) for row in measured}
    rows = [*(row for row in (known["rows"] if known else ()) if _about(row) not in new), *measured]
    # The fastest of all runs that rows are from: no roofline is lower for what slowed the machine in one of them.
    for rates in (measure_machine(), known["machine"] if known else {}):
        machine = {name: max(rate, rates.get(name, rate)) for name, rate in machine.items()}
    strategies = [row for row in rows if row["part"] == "strategy"]
    there = {(row["strategy"], row["n"]) for row in strategies}
    every = (*CASES, *(case for case in cases if case not in CASES))
    found = ratios(strategies, [case for case in every if (case.strategy, case.problem.n) in there], machine)
    throughput = throughput_ratios(rows)
    return write_results(
        "selection",
        "python -m benchmarks.selection --peers FOLDER",
        rows,
        claims_of(found, rows, min(throughput.values(), default=math.nan)),
        folder=folder,
        machine=machine,
        peers=[library for library in interpreters if library != OURS],
        ratios=found,
        scoring=throughput,
    )


def _about(row: Mapping[str, Any]) -> tuple[Any, ...]:
    """What a row measures, whoever did it."""
    return row["part"], row.get("strategy", row.get("case")), row.get("n")


def main() -> None:
    """Measure and write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--peers", type=Path, help="folder of the peers' environments; without it, ours alone")
    parser.add_argument(
        "--only", nargs="+", metavar="STRATEGY", help="these, or scoring, anew; the rest as in the results file"
    )
    arguments = parser.parse_args()
    logging.getLogger("lightning.pytorch").setLevel(logging.ERROR)
    warnings.filterwarnings("ignore", module="lightning")
    interpreters = interpreters_in(arguments.peers)
    if arguments.only:
        cases = [case for case in CASES if case.strategy in arguments.only]
        path = RESULTS / "selection.json"
        known = json.loads(path.read_text()) if path.exists() else None
        scoring = 30_000 if "scoring" in arguments.only else 0
        print(run(cases, interpreters, scoring_records=scoring, known=known).read_text())
    else:
        print(run(CASES, interpreters).read_text())


if __name__ == "__main__":
    main()
