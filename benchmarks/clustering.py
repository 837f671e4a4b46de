"""Clusters of large pools, and one round on ten million records: ``python -m benchmarks.clustering --folder /scratch``.

Features are 128 numbers wide: a mixture of 1,000 Gaussian components whose centres and whose noise have the variance
``1 / i ** decay`` in direction i. Every measurement is made in a process of its own, on two threads, so that peaks of
memory do not hide each other: peak resident memory, less what was resident with the features before. Measurements that
are finished under ``runs/benchmarks`` are read, not made again. The ten million float16 records take 2.6 GB under
``--folder`` meanwhile.

- ``cluster``: N records into N / 10 clusters, N from 100,000 to three million; the exponent is that of a line through
  the logarithms of N and of seconds.
- ``objective``: sum of squared distances against FAISS's k-means with as many centroids and iterations.
- ``threshold``: both at the number of clusters where two levels begin.
- ``cluster_10m``: a memory-mapped float16 file into a million clusters.
- ``round_10m``: one round on that file with those clusters: a hundredth of the pool is proposed, and 2,000 records are
  picked from it by k-center greedy (10,000 are labelled) and by BADGE (errors and embeddings of a stub, 50 classes).
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.common import UNFINISHED, claim, write_results

Row = dict[str, Any]

THREADS = "2"
WIDTH, COMPONENTS = 128, 1000
SIZES = (100_000, 300_000, 1_000_000, 3_000_000)
OBJECTIVES = ((50_000, 1.0), (50_000, 2.0), (200_000, 1.0))
"""Records and decay of the spectrum."""
LARGE = 10_000_000
BLOCK = 100_000
GB = 1e9


def fill(out: np.ndarray, decay: float, seed: int = 0) -> np.ndarray:
    """Write the mixture into ``(n, 128)`` rows, of any floating type."""
    scale = np.arange(1, WIDTH + 1, dtype=np.float32) ** (-decay / 2)
    centres = np.random.default_rng(seed).standard_normal((COMPONENTS, WIDTH), dtype=np.float32)
    for start in range(0, len(out), BLOCK):
        rng = np.random.default_rng([seed, start])
        rows = out[start : start + BLOCK]
        noise = rng.standard_normal(rows.shape, dtype=np.float32)
        rows[:] = (centres[rng.integers(COMPONENTS, size=len(rows))] + noise) * scale
    return out


def status(key: str) -> float:
    """A number of bytes from ``/proc/self/status``: ``VmRSS`` is resident now, ``VmHWM`` the peak."""
    line = next(line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith(f"{key}:"))
    return int(line.split()[1]) * 1024


def measured(action: Callable[[], Any]) -> tuple[Any, Row]:
    """What it returns, its seconds, and its peak of memory in GB: in all, and over what was resident before.

    Seconds of the processor, of both threads, tell on a busy machine what it would take on an idle one.
    """
    from al_lightning.cost.ledger import Stopwatch

    Path("/proc/self/clear_refs").write_text("5")  # the peak begins here
    before, cpu = status("VmRSS"), time.process_time()
    with Stopwatch.running() as watch:
        result = action()
    cpu, peak = time.process_time() - cpu, status("VmHWM")
    return result, {
        "seconds": watch.seconds,
        "cpu_seconds": cpu,
        "extra_gb": (peak - before) / GB,
        "resident_gb": peak / GB,
    }


def objective(features: np.ndarray, clusters: Any) -> float:
    """Sum of squared distances to the centroid each record was given."""
    total = 0.0
    for start in range(0, len(features), BLOCK):
        rows = slice(start, start + BLOCK)
        gaps = features[rows].astype(np.float32) - clusters.centroids[clusters.assignments[rows]]
        total += float(np.einsum("ij,ij->", gaps, gaps, dtype=np.float64))
    return total


def cluster(n: int) -> Row:
    """Time and memory of N records into N / 10 clusters, in memory, float32."""
    from al_lightning.features.cluster import kmeans

    features = fill(np.empty((n, WIDTH), np.float32), decay=1.0)
    found, row = measured(lambda: kmeans(features, n // 10, seed=0))
    empty = n // 10 - len(np.unique(found.assignments))
    return {"records": n, "clusters": n // 10, **row, "flops": found.flops, "empty": empty}


def both(n: int, k: int, decay: float) -> Row:
    """Two levels against FAISS's flat k-means: the ratio of their objectives, and the seconds of each."""
    from al_lightning.features import cluster as module

    features = fill(np.empty((n, WIDTH), np.float32), decay)
    row: Row = {"records": n, "clusters": k, "decay": decay}
    for name, most_flat in (("two_level", 0), ("flat", k)):
        module.MOST_FLAT = most_flat
        found, cost = measured(lambda: module.kmeans(features, k, seed=0))
        row |= {f"{name}_seconds": cost["seconds"], f"{name}_objective": objective(features, found)}
    return {**row, "ratio": row["two_level_objective"] / row["flat_objective"]}


def cluster_10m(path: Path) -> Row:
    """Ten million float16 records, memory-mapped, into a million clusters; the assignments are kept beside the file."""
    from al_lightning.features.cluster import kmeans

    features = np.load(path, mmap_mode="r")
    found, row = measured(lambda: kmeans(features, len(features) // 10, seed=0))
    np.save(path.with_name("assignments.npy"), found.assignments)
    return {"records": len(features), "clusters": len(found.centroids), **row, "flops": found.flops}


def round_10m(path: Path) -> Row:
    """One round: seconds and peak memory of the proposal and of either strategy."""
    import torch

    from al_lightning import candidates, query, scoring
    from al_lightning.features.cluster import Clusters
    from al_lightning.pool.view import PoolView
    from al_lightning.query import Strategy

    features, assignments = np.load(path, mmap_mode="r"), np.load(path.with_name("assignments.npy"))
    n, k = len(features), len(features) // 10
    features[::16, 0].sum()  # a number of every page: what is measured from here on is beside the features
    rng = np.random.default_rng(0)
    labelled = rng.choice(n, 10_000, replace=False)
    clusters = Clusters(assignments, np.zeros((0, WIDTH), np.float32), 0.0)
    view = PoolView(
        size=n,
        round=1,
        unlabelled=np.setdiff1d(np.arange(n), labelled),
        labelled=labelled,
        scores=np.full(n, np.nan, np.float32),
        score_rounds=np.full(n, -1, np.int32),
        load_features=lambda: features,
        load_clusters=lambda n_clusters: clusters,
    )
    selector = candidates.Representatives(0.01, n_clusters=k)
    (ids, _), proposal = measured(lambda: selector.propose(view=view, size=2000, rng=rng, state={}))
    row: Row = {"records": n, "candidates": len(ids), "propose": proposal}
    logits = rng.standard_normal((len(ids), 50), dtype=np.float32) * 2
    said = scoring.Outputs(torch.from_numpy(logits), torch.from_numpy(np.asarray(features[ids], np.float32)))
    strategies: dict[str, Strategy] = {
        "kcenter": query.KCenterGreedy(),
        "badge": query.BADGE(),
    }
    for name, strategy in strategies.items():
        arrays = {column: values.numpy() for column, values in strategy.payload(said).items()}
        pick = partial(strategy.pick, view=view, ids=ids, arrays=arrays, size=2000, rng=np.random.default_rng(1))
        picked, row[name] = measured(pick)
        assert len(set(picked.tolist())) == 2000
    return row


def child(name: str, function: str, arguments: list[Any]) -> Row:
    """The row of this name: read if it was measured before, else measured in a process of its own."""
    path = UNFINISHED / "clustering" / f"{name}.json"
    if not path.exists():
        path.parent.mkdir(parents=True, exist_ok=True)
        threads = dict.fromkeys(("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"), THREADS)
        command = [sys.executable, "-m", "benchmarks.clustering", "--measure", json.dumps([function, arguments])]
        done = subprocess.run(command, env={**os.environ, **threads}, stdout=subprocess.PIPE, text=True, check=True)
        row = {"part": name, "threads": int(THREADS), **json.loads(done.stdout.splitlines()[-1])}
        path.write_text(json.dumps(row))
        print(row, flush=True)
    return dict(json.loads(path.read_text()))


def on_ten_million(folder: Path | None) -> list[Row]:
    """The rows of the large file, which is made and deleted here if one of them is missing."""
    parts = ("cluster_10m", "round_10m")
    if all((UNFINISHED / "clustering" / f"{part}.json").exists() for part in parts):
        return [child(part, part, []) for part in parts]
    with tempfile.TemporaryDirectory(dir=folder) as scratch:
        path = Path(scratch) / "features.npy"
        out = np.lib.format.open_memmap(path, mode="w+", dtype=np.float16, shape=(LARGE, WIDTH))
        fill(out, decay=1.0)
        out.flush()
        del out
        if not (UNFINISHED / "clustering" / "round_10m.json").exists():  # it needs the other's assignments
            (UNFINISHED / "clustering" / "cluster_10m.json").unlink(missing_ok=True)
        return [child(part, part, [str(path)]) for part in parts]


def claims_of(scaling: list[Row], objectives: list[Row], large: Row, round_: Row) -> list[Row]:
    """What was promised."""
    million = next(row for row in scaling if row["records"] == 1_000_000)
    records, seconds = (np.log([row[key] for row in scaling]) for key in ("records", "seconds"))
    exponent = np.polyfit(records, seconds, 1)[0]
    picks = [round_[name] for name in ("kcenter", "badge")]
    steps = [round_["propose"], *picks]
    return [
        claim("cluster_1m_seconds", million["seconds"], "<=", 60),
        claim("cluster_1m_extra_gb", million["extra_gb"], "<=", 2),
        claim("objective_against_flat", max(row["ratio"] for row in objectives), "<=", 1.04),
        claim("scaling_exponent", float(exponent), "<=", 1.15),
        claim("cluster_10m_resident_gb", large["resident_gb"], "<=", 8),
        claim("round_10m_seconds", max(step["seconds"] for step in steps), "<=", 60),
        claim("round_10m_extra_gb", max(step["extra_gb"] for step in steps), "<=", 4),
    ]


def main() -> None:
    """Measure and write."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--folder", type=Path, help="where ten million records are written; default: temporary files")
    parser.add_argument("--measure", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.measure:
        function, values = json.loads(arguments.measure)
        values = [Path(value) if isinstance(value, str) else value for value in values]
        print(json.dumps(globals()[function](*values)))
        return
    objectives = [child(f"objective_{n}_{decay}", "both", [n, n // 10, decay]) for n, decay in OBJECTIVES]
    threshold = [child(f"threshold_{k}", "both", [100_000, k, 1.0]) for k in (2048, 4096)]
    scaling = [child(f"cluster_{n}", "cluster", [n]) for n in SIZES]
    large, round_ = on_ten_million(arguments.folder)
    claims = claims_of(scaling, objectives, large, round_)
    rows = [*scaling, *objectives, *threshold, large, round_]
    path = write_results("clustering", "python -m benchmarks.clustering", rows, claims)
    print(*claims, path, sep="\n")


if __name__ == "__main__":
    main()
