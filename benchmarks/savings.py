"""What each lever saves, and what all of them save together: one command per protocol.

    python -m benchmarks.savings letter             # full: 20 paired seeds and the ablation
    python -m benchmarks.savings letter --quick     # three seeds of a quarter of the labels, in a minute

Every method gets the same records, first weights, labels, batch, optimiser and schedule: the recipe that
``python -m benchmarks.recipe`` chose. Methods are configurations of ``al-lightning run``, written below as its
overrides. Nothing is validated and nothing stops early: the number of labels is the protocol's. Runs that are finished
under ``runs/benchmarks`` are read, not made again, so the command can be interrupted.
"""

from __future__ import annotations

import argparse
import json
import sys
import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from hashlib import sha256
from itertools import pairwise
from math import isfinite
from pathlib import Path
from statistics import mean
from typing import Any

import lightning as L
import torch
from lightning.pytorch.utilities.seed import isolate_rng
from omegaconf import OmegaConf, open_dict
from torch.utils.flop_counter import FlopCounterMode

from al_lightning.cli.build import be_quiet, build, compose_config
from al_lightning.features.source import RawInputs
from al_lightning.history import RoundRecord
from al_lightning.pool.datamodule import PoolDataModule
from al_lightning.report.environment import environment
from benchmarks.common import RESULTS, UNFINISHED, claim, gain_kept, paired, write_results
from benchmarks.protocols import PROTOCOLS, pool_and_test, recipe

Row = dict[str, Any]

SEEDS = {
    "letter": range(100, 120),
    "banking77": range(100, 120),
    "pretrained": range(100, 103),
    "fashion-mnist-resnet18": range(100, 103),
}
"""Seeds of the claims; none was looked at while anything was chosen."""
FEW_SEEDS = range(100, 105)
EQUAL = -0.5
"""Points of accuracy that the paired difference's interval may reach down to."""
KEPT = 0.5
"""Share of the gain over random labels that is kept, at least."""
_KEPT = ("gain_kept", "gain_kept_low", "gain_kept_high")
ALLOWED = {"inference-heavy": -1.0, "pretrained": -1.0}
"""The same, where equal accuracy is not the goal."""

CLUSTERS = 64
"""Of the representatives; few, since clusters are dear beside models as small as these."""

MAIN: dict[str, list[str]] = {
    "everything": ["experiment=everything"],
    "random": ["experiment=random"],
    "one_shot": ["experiment=one_shot"],
    "naive_frugal": ["experiment=naive_frugal"],
    "baseline": ["experiment=ordinary"],
    "frugal": ["experiment=frugal"],
}
ABLATION: dict[str, list[str]] = {
    # One lever, the rest as the baseline has it.
    "scoring_only": ["experiment=ordinary", "candidates=staggered", "~candidates.spend", "candidates.share=0.12"],
    "warm_start_only": [
        "experiment=ordinary",
        "fit=frugal",
        "~fit.rho",  # the baseline's scoring alone is more than it
        "fit.epochs=0.14",
        "fit.final_epochs=0.5",
        "fit.final_average=0.85",  # half of the recipe is long enough for its first steps to weigh little
    ],
    "round_sizes_only": ["experiment=ordinary", "round_size=spread", "~round_size.size", "round_size.rounds=6"],
    # All levers but one.
    "frugal_whole_pool": ["experiment=frugal", "candidates=whole"],
    "frugal_margin": ["experiment=frugal", "query=margin"],
    "frugal_random_candidates": ["experiment=frugal", "candidates=random_share", "candidates.fraction=0.3"],
    "frugal_reset": ["experiment=frugal", "fit=reset"],
    "frugal_without_final_fit": ["experiment=frugal", "fit.final=null", "~fit.rho"],
    "frugal_baseline_rounds": ["experiment=frugal", "round_size=fixed"],
    # Clusters against chance at equal all-in compute: chance infers as many more records as the clusters cost.
    "representatives": [
        "experiment=ordinary",
        "candidates=representatives",
        "candidates.share=0.1",
        f"candidates.n_clusters={CLUSTERS}",
    ],
    "random_candidates": ["experiment=ordinary", "candidates=random_share", "candidates.fraction=0.1"],
}
WITH_ABLATION = ("letter", "banking77")
CURVE: dict[str, list[str]] = {
    # The preset with more and less to spend. More pays as more rounds, each trained as before: seven rounds that are
    # trained longer stay behind.
    f"frugal_rho_{rho:g}": [
        "experiment=frugal",
        f"fit.rho={rho - 0.02}",
        f"round_size.rounds={rounds}",
        f"candidates.spend={spend}",
    ]
    for rho, rounds, spend in ((0.7, 5, 0.15), (1.5, 10, 0.3), (2, 14, 0.4))
}
WITH_CURVE = (*WITH_ABLATION, "fashion-mnist")
PROXY: dict[str, list[str]] = {
    "proxy": ["experiment=proxy"],
    "proxy_averaged": ["experiment=proxy", "+fit.final_average=0.7"],
}
FREE: dict[str, list[str]] = {
    # A proxy that costs next to nothing is trained and asked about everything in every round.
    "proxy": ["experiment=proxy", "candidates=whole", "fit.first_epochs=null", "fit.epochs=null"],
}
WITH_PROXY = {"letter": PROXY, "banking77": PROXY, "fashion-mnist": PROXY, "pretrained": FREE}


@dataclass(frozen=True)
class Scale:
    """How large a comparison is.

    Args:
        labels: B.
        first: labels of the baseline's first round.
        step: labels of its later rounds.
        seeds: one run per method and seed.
        methods: name -> overrides.
    """

    labels: int
    first: int
    step: int
    seeds: Sequence[int]
    methods: Mapping[str, list[str]]

    @classmethod
    def of(cls, name: str, quick: bool) -> Scale:
        """The protocol's, or a quarter of its labels and the rows that the leading claims need."""
        protocol = PROTOCOLS[name]
        if quick:
            few = {method: MAIN[method] for method in ("random", "baseline", "frugal")}
            return cls(protocol.labels // 4, protocol.first // 2, protocol.step // 2, range(3), few)
        methods = {
            **MAIN,
            **(CURVE if name in WITH_CURVE else {}),
            **(ABLATION if name in WITH_ABLATION else {}),
            **WITH_PROXY.get(name, {}),
        }
        return cls(protocol.labels, protocol.first, protocol.step, SEEDS.get(name, FEW_SEEDS), methods)


def pool(*, protocol: str, seed: int, batch_size: int) -> PoolDataModule:
    """The protocol's records as a pool; what Hydra builds for ``data``."""
    records, _ = pool_and_test(protocol, seed)
    chosen = PROTOCOLS[protocol]
    return PoolDataModule(
        records,
        task="multiclass",
        features=chosen.features(seed) if chosen.features else RawInputs(),
        batch_size=batch_size,
        eval_batch_size=chosen.eval_batch,
    )


def model(*, protocol: str, learning_rate: float, schedule: str) -> L.LightningModule:
    """The protocol's model; what Hydra builds for ``model``."""
    return PROTOCOLS[protocol].model(learning_rate=learning_rate, schedule=schedule)


def proxy(*, protocol: str, learning_rate: float, schedule: str) -> L.LightningModule:
    """The protocol's proxy; what Hydra builds for ``proxy``."""
    build = PROTOCOLS[protocol].proxy
    assert build is not None
    return build(learning_rate=learning_rate, schedule=schedule)


def configure(name: str, scale: Scale, method: str, seed: int, folder: Path) -> Any:
    """A run's configuration: the method's own, with the protocol's data, model and recipe put in."""
    chosen = recipe(name)
    common = ["logger=none", f"labels={scale.labels}", f"seed={seed}"]
    cfg = compose_config("run", [*common, *scale.methods[method]])
    with open_dict(cfg):
        cfg.run_dir = str(folder)
        cfg.data = {
            "_target_": "benchmarks.savings.pool",
            "protocol": name,
            "seed": seed,
            "batch_size": chosen["batch"],
        }
        cfg.model = {
            "_target_": "benchmarks.savings.model",
            "protocol": name,
            "learning_rate": chosen["learning_rate"],
            "schedule": chosen["schedule"],
        }
        if "proxy" in cfg:
            cfg.proxy = {**cfg.model, "_target_": "benchmarks.savings.proxy"}
        cfg.trainer.update(max_epochs=chosen["epochs"], **PROTOCOLS[name].trainer)
        cfg.trainer.callbacks = []  # nothing is validated
        if cfg.round_size._target_ == "al_lightning.round_size.Fixed" and cfg.round_size.size != scale.labels:
            cfg.round_size = {"_target_": "al_lightning.round_size.Fixed", "size": scale.step, "first": scale.first}
        elif cfg.round_size._target_ == "al_lightning.round_size.Doubling":
            cfg.round_size.first = scale.first
        if method == "random_candidates":
            cfg.candidates.fraction = round(cfg.candidates.fraction + clusters_as_share(name, scale), 4)
    return cfg


def clusters_as_share(name: str, scale: Scale) -> float:
    """The share of the pool that could be inferred every round for what clustering it once costs."""
    records, _ = pool_and_test(name, 0)
    x = records.tensors[0]
    with FlopCounterMode(display=False) as counter, torch.inference_mode():
        PROTOCOLS[name].model()(x[:1])
    size, width = len(x), x[0].numel()
    clustering = 2 * CLUSTERS * width * (10 * min(size, 64 * CLUSTERS) + size)  # as features.cluster.kmeans says
    scored = sum(size - labelled for labelled in range(scale.first, scale.labels, scale.step))
    return float(clustering / (counter.get_total_flops() * scored))


def digest_of(cfg: Any) -> str:
    """What tells a run with these settings from one with others."""
    wanted = OmegaConf.to_container(cfg, resolve=True)
    assert isinstance(wanted, dict)
    told = {key: value for key, value in wanted.items() if key not in ("run_dir", "about")}
    return sha256(json.dumps(told).encode()).hexdigest()[:12]


def known(name: str, method: str, seed: int, folder: Path, digest: str) -> Row | None:
    """The row of this very run where it is finished and measured: in ``folder``, or among the committed results."""
    path = folder / "row.json"
    found = json.loads(path.read_text()) if path.exists() else committed(name).get((method, seed), {})
    return dict(found) if found.get("settings") == digest else None


def measure(name: str, scale: Scale, method: str, seed: int, folder: Path) -> Row:
    """A row: read where the run is finished and measured, else made."""
    path = folder / "row.json"
    cfg = configure(name, scale, method, seed, folder)
    digest = digest_of(cfg)
    found = known(name, method, seed, folder, digest)
    if found is not None:
        return found
    if path.exists():
        raise SystemExit(f"{folder} was made with other settings: delete it, and run again.")
    curve: list[tuple[int, float]] = []

    def on_round(record: RoundRecord, trained: L.LightningModule) -> None:
        curve.append((record.labelled, quality(trained, name, seed)["accuracy"]))

    # Off the bill; and only where it is asked for, since it takes time.
    parts = build(cfg, on_round if method == "baseline" else None)
    result = parts.fit()
    bill = result.bill.to_json()
    taken = ("records_trained", "records_inferred", "flops", "flops_reference", "seconds", "seconds_reference")
    row = {
        "method": method,
        "seed": seed,
        "settings": digest,
        "labels": len(result.labelled),
        **quality(parts.model, name, seed),
        "rounds": len({record.round for record in result.history}),
        **{key: bill[key] for key in taken},
        "phases": {phase: line["flops"] for phase, line in bill["phases"].items()},
        **({"curve": curve} if curve else {}),
        "environment": environment(),
    }
    aside = path.with_suffix(".tmp")
    aside.write_text(json.dumps(row))
    aside.replace(path)
    return row


@cache
def committed(name: str) -> dict[tuple[str, int], Row]:
    """The rows of the results file, by method and seed."""
    path = RESULTS / f"savings-{name}.json"
    rows = json.loads(path.read_text())["rows"] if path.exists() else []
    return {(row["method"], row["seed"]): row for row in rows}


@torch.inference_mode()
def quality(trained: L.LightningModule, name: str, seed: int) -> Row:
    """Accuracy, macro-F1 and the recall of the worst class on the test records, in percent. Off the bill."""
    _, test = pool_and_test(name, seed)
    x, y = test.tensors
    with isolate_rng():
        chosen = PROTOCOLS[name].trainer.get("accelerator")
        device = torch.device("cuda" if chosen == "gpu" or (chosen == "auto" and torch.cuda.is_available()) else "cpu")
        trained.to(device).eval()
        predicted = torch.cat([trained(part.to(device)).argmax(dim=1).cpu() for part in x.split(1024)])
        trained.cpu()  # as the Trainer left it
    kinds = int(y.max()) + 1
    right = torch.bincount(y[predicted == y], minlength=kinds).double()
    there, said = (torch.bincount(v, minlength=kinds).double() for v in (y, predicted))
    f1 = 2 * right / (there + said).clamp(min=1)
    recall = right / there.clamp(min=1)
    numbers = {"accuracy": (predicted == y).double().mean(), "macro_f1": f1.mean(), "worst_recall": recall.min()}
    return {key: round(100 * float(value), 4) for key, value in numbers.items()}


def claims_of(rows: Sequence[Row], name: str) -> list[dict[str, Any]]:
    """The claims that these rows of a protocol can support, each recomputable from them."""
    have = {row["method"] for row in rows}

    def ratio(method: str, over: str, under: str) -> float:
        return mean(row[over] / row[under] for row in rows if row["method"] == method)

    def average(method: str, key: str) -> float:
        return mean(row[key] for row in rows if row["method"] == method)

    def times(method: str, key: str) -> float:
        base = {row["seed"]: row[key] for row in rows if row["method"] == "baseline"}
        return mean(base[row["seed"]] / row[key] for row in rows if row["method"] == method)

    def low(a: str, b: str, key: str = "accuracy") -> float:
        found, half = paired(rows, a, b, key)
        return found - half

    best = best_baseline(rows)
    difference, _ = paired(rows, "frugal", best)
    allowed = ALLOWED.get(name, EQUAL)
    claims = [
        claim("rho", ratio("frugal", "flops", "flops_reference"), "<=", 1.0),
        claim("rho_seconds", ratio("frugal", "seconds", "seconds_reference"), "<=", 1.0),
        claim("accuracy_difference", difference, ">=", allowed),
        claim("accuracy_difference_ci_low", low("frugal", best), ">=", allowed),
    ]
    if "random" in have:
        kept = gain_kept(rows, "frugal", best)
        found = {"gain_kept": kept.value, "gain_kept_ci_low": kept.low}
        claims += [claim(key, value, ">=", KEPT) for key, value in found.items() if isfinite(value)]
    if all("labels_to_match" in row for row in rows) and "random" in have:
        claims.append(claim("speed_up", speed_up(rows, "frugal"), ">=", 1.0))
    if name == "long-tail":  # its test records are balanced, its pool is not
        claims += [
            claim(f"{key}_difference_ci_low", low("frugal", "baseline", key), ">=", EQUAL)
            for key in ("macro_f1", "worst_recall")
        ]
    lever: dict[str, Callable[[], list[dict[str, Any]]]] = {
        "frugal_rho_2": lambda: [
            claim("rho_2", ratio("frugal_rho_2", "flops", "flops_reference"), "<=", 2.0),
            claim("rho_2_accuracy_difference_ci_low", low("frugal_rho_2", "baseline"), ">=", allowed),
        ],
        "proxy_averaged": lambda: [
            claim("proxy_averaged_rho", ratio("proxy_averaged", "flops", "flops_reference"), "<=", 1.0),
            claim("proxy_averaged_accuracy_difference_ci_low", low("proxy_averaged", "baseline"), ">=", allowed),
        ],
        "scoring_only": lambda: [
            claim("scoring_only_records_ratio", times("scoring_only", "records_inferred"), ">=", 8.0),
            claim("scoring_only_ci_low", low("scoring_only", "baseline"), ">=", -0.4),
        ],
        "warm_start_only": lambda: [
            claim("warm_start_only_training_ratio", times("warm_start_only", "records_trained"), ">=", 5.0),
            claim("warm_start_only_ci_low", low("warm_start_only", "baseline"), ">=", -0.4),
        ],
        "round_sizes_only": lambda: [
            claim("round_sizes_only_rounds", average("round_sizes_only", "rounds"), "<=", 6),
            claim("round_sizes_only_ci_low", low("round_sizes_only", "baseline"), ">=", -0.6),
        ],
        "representatives": lambda: [
            claim("representatives_over_random_ci_low", low("representatives", "random_candidates"), ">", 0.0)
        ],
    }
    return claims + [c for method, make in lever.items() if method in have for c in make()]


def best_baseline(rows: Sequence[Row]) -> str:
    """Return the baseline that reaches the highest mean accuracy: ours is held against that one."""
    found = dict.fromkeys(row["method"] for row in rows if row["method"].startswith("baseline"))
    return max(found, key=lambda method: mean(row["accuracy"] for row in rows if row["method"] == method))


def speed_up(rows: Sequence[Row], method: str) -> float:
    """Return how many times as many labels it takes to match a method as to match random ones.

    Both are counted on the baseline's own curve, which ends at the protocol's labels.
    """
    by = {(row["method"], row["seed"]): row["labels_to_match"] for row in rows}
    seeds = [seed for m, seed in by if m == method and ("random", seed) in by]
    return mean(by[method, seed] / by["random", seed] for seed in seeds)


def labels_to_match(points: Sequence[Sequence[float]], accuracy: float) -> float:
    """How many labels the baseline needed for an accuracy, by linear interpolation between its rounds.

    Args:
        points: labels and accuracy after every round of the baseline.
        accuracy: to be matched.

    Returns:
        Labels; the last round's where the baseline never got there, so that a gain is not extrapolated.
    """
    for (n0, a0), (n1, a1) in pairwise(points):
        if a1 >= accuracy > a0:
            return n0 + (n1 - n0) * (accuracy - a0) / (a1 - a0)
    return float(points[0][0] if accuracy <= points[0][1] else points[-1][0])


def summarise(rows: Sequence[Row]) -> list[Row]:
    """One line per method: means over seeds, and the paired difference to the baseline with its 95 % interval."""
    table, have = [], {row["method"] for row in rows}
    for method in dict.fromkeys(row["method"] for row in rows):
        mine = [row for row in rows if row["method"] == method]
        difference, half = paired(rows, method, "baseline")
        kept = gain_kept(rows, method, "baseline") if "random" in have else None
        line = {
            "method": method,
            "seeds": len(mine),
            **{key: mean(row[key] for row in mine) for key in ("labels", "accuracy", "macro_f1", "worst_recall")},
            "difference": difference,
            "ci": half,
            "rho": mean(row["flops"] / row["flops_reference"] for row in mine),
            "rho_seconds": mean(row["seconds"] / row["seconds_reference"] for row in mine),
            **{key: mean(row[key] for row in mine) for key in ("rounds", "records_trained", "records_inferred")},
            "labels_to_match": mean(row["labels_to_match"] for row in mine),
            **({} if kept is None else {"speed_up": speed_up(rows, method)}),
            # Without a gain that is told from 0 there is no share of it.
            **({} if kept is None or not isfinite(kept.low) else dict(zip(_KEPT, kept, strict=True))),
        }
        table.append({key: round(v, 3) if isinstance(v, float) else v for key, v in line.items()})
    return table


def report(table: Sequence[Row], claims: Sequence[Mapping[str, Any]]) -> None:
    """Print both."""
    print(f"{'method':<26}{'accuracy':>9}{'diff':>7}{'± 95%':>7}{'rho':>7}{'rho_s':>7}{'rounds':>7}{'inferred':>10}")
    for r in table:
        print(
            f"{r['method']:<26}{r['accuracy']:>9.2f}{r['difference']:>7.2f}{r['ci']:>7.2f}{r['rho']:>7.2f}"
            f"{r['rho_seconds']:>7.2f}{r['rounds']:>7.1f}{r['records_inferred']:>10.0f}"
        )
    for c in claims:
        print(f"{c['name']}: {c['value']:.3f} {c['op']} {c['target']}: {'holds' if c['holds'] else 'DOES NOT HOLD'}")


def run(
    name: str, *, quick: bool, part: tuple[int, int] = (0, 1), only: Sequence[str] = (), finished: bool = False
) -> bool:
    """Make the runs, then write what came of them; returns whether every claim holds.

    Args:
        name: of the protocol.
        quick: a quarter of the labels, three seeds.
        part: ``(i, n)`` makes every n-th seed from the i-th only, and writes nothing: several processes share the work.
        only: makes the runs of these methods, and writes nothing.
        finished: makes no run, and writes what is finished; the claims ``seeds`` and ``methods_missing`` then say what
            is missing.
    """
    scale = Scale.of(name, quick)
    folder = UNFINISHED / f"savings-{name}{'-quick' if quick else ''}"
    rows = []
    # Seed by seed, method by method, so that a machine that slows down slows all methods.
    for i, seed in enumerate(scale.seeds):
        if i % part[1] != part[0]:
            continue
        for method in only or scale.methods:
            where = folder / method / f"seed-{seed}"
            if finished:
                row = known(name, method, seed, where, digest_of(configure(name, scale, method, seed, where)))
                if row is None:
                    continue
            else:
                row = measure(name, scale, method, seed, where)
            rows.append(row)
            print(f"{method} {seed}: {rows[-1]['accuracy']:.2f}", file=sys.stderr)
    if part[1] > 1 or only:
        return True
    made = {method: {row["seed"] for row in rows if row["method"] == method} for method in scale.methods}
    # Differences are paired with the baseline, and an interval takes two.
    paired_with = {m for m in scale.methods if len(made[m] & made["baseline"]) > 1}
    rows = [row for row in rows if row["method"] in paired_with and row["seed"] in made["baseline"]]
    curves = {row["seed"]: row["curve"] for row in rows if row["method"] == "baseline"}
    rows = [{**row, "labels_to_match": round(labels_to_match(curves[row["seed"]], row["accuracy"]), 1)} for row in rows]
    claims, table = claims_of(rows, name), summarise(rows)
    claims.append(claim("seeds", min(len(made[m]) for m in paired_with), ">=", len(scale.seeds)))
    claims.append(claim("methods_missing", len(made) - len(paired_with), "<=", 0))
    report(table, claims)
    if quick:  # too few labels and seeds to claim anything from
        print(f"rows: {folder}")
        return True
    command = f"OMP_NUM_THREADS=1 python -m benchmarks.savings {name}"
    print(write_results(f"savings-{name}", command, rows, claims, recipe=recipe(name), summary=table))
    return all(c["holds"] for c in claims)


def restate(name: str) -> bool:
    """Write the summary and claims of the committed rows anew, as rules for them are now; makes no run.

    Args:
        name: of the protocol.
    """
    found = json.loads((RESULTS / f"savings-{name}.json").read_text())
    rows, before = found["rows"], {c["name"]: c for c in found["claims"]}
    claims = claims_of(rows, name) + [before[key] for key in ("seeds", "methods_missing") if key in before]
    table = summarise(rows)
    report(table, claims)
    kept = {key: found[key] for key in ("environment", "recipe")}  # rows are as they were made
    print(write_results(f"savings-{name}", found["command"], rows, claims, **kept, summary=table))
    return all(c["holds"] for c in claims)


def main() -> int:
    """Command line."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.savings", description=(__doc__ or "").splitlines()[0])
    parser.add_argument("protocol", choices=sorted(PROTOCOLS))
    parser.add_argument("--quick", action="store_true", help="a quarter of the labels, three seeds; claims nothing")
    parser.add_argument("--part", default="0/1", help="i/n: only every n-th seed, from the i-th; to share the work")
    parser.add_argument("--only", default="", help="method,method: make their runs, write no results")
    parser.add_argument("--finished", action="store_true", help="make no run, write what is finished")
    parser.add_argument("--restate", action="store_true", help="make no run, write the claims of committed rows anew")
    options = parser.parse_args()
    if options.restate:
        return 0 if restate(options.protocol) else 1
    first, count = map(int, options.part.split("/"))
    torch.set_num_threads(1)
    be_quiet()
    for message in ("classes .* have no labelled record", "You defined a `validation_step` but have no"):
        warnings.filterwarnings("ignore", message)
    only = tuple(filter(None, options.only.split(",")))
    held = run(options.protocol, quick=options.quick, part=(first, count), only=only, finished=options.finished)
    return 0 if held else 1


if __name__ == "__main__":
    sys.exit(main())
