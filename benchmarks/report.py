"""Tables and pictures of results, for people: ``python -m benchmarks.report``.

Reads ``results/savings-*.json``, ``selection.json``, ``clustering.json`` and ``corrupted.json``; writes the tables into
``benchmarks/README.md``, between its marks, and a picture per protocol into ``docs/pictures``.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from statistics import mean
from typing import Any

from matplotlib import colormaps
from matplotlib.figure import Figure

from benchmarks.common import RESULTS

README = Path(__file__).with_name("README.md")
PICTURES = Path(__file__).parents[1] / "docs" / "pictures"

Row = Mapping[str, Any]


def table(found: Mapping[str, Any]) -> str:
    """A protocol's methods, and its claims, in Markdown."""
    recipe, summary = found["recipe"], found["summary"]
    gpus = {row.get("environment", {}).get("gpu") for row in found["rows"]}
    where = f" On {gpus.pop()}." if len(gpus) == 1 and None not in gpus else ""
    labels = next(row["labels"] for row in summary if row["method"] == "baseline")
    lines = [
        f"### {found['benchmark'].removeprefix('savings-')}",
        f"{labels:,} labels; recipe: {recipe['epochs']} epochs, batches of {recipe['batch']}, "
        f"learning rate {recipe['learning_rate']:g}, {recipe['schedule']}.{where}",
        "",
        "| method | seeds | accuracy % | against the baseline | macro-F1 | worst class | labels to match | ρ "
        "| ρ in seconds | rounds | trained | inferred |",
        "|---|---|---|---|---|---|---|---|---|---|---|---|",
    ]
    for r in summary:
        lines.append(
            f"| {r['method']} | {r['seeds']} | {r['accuracy']:.2f} | {r['difference']:+.2f} ± {r['ci']:.2f} "
            f"| {r['macro_f1']:.2f} | {r['worst_recall']:.1f} | {r['labels_to_match']:,.0f} | {r['rho']:.2f} "
            f"| {r['rho_seconds']:.2f} | {r['rounds']:.0f} | {r['records_trained']:,.0f} "
            f"| {r['records_inferred']:,.0f} |"
        )
    name = found["benchmark"]
    return "\n".join(
        [*lines, "", *claims(found["claims"]), "", f"![accuracy against compute](../docs/pictures/{name}.png)", ""]
    )


def claims(found: Sequence[Row]) -> list[str]:
    """Lines of a table of claims."""
    lines = ["| claim | value | goal | |", "|---|---|---|---|"]
    for c in found:
        holds = "holds" if c["holds"] else "**does not hold**"
        lines.append(f"| `{c['name']}` | {c['value']:.3g} | {c['op']} {c['target']:g} | {holds} |")
    return lines


def selection(found: Mapping[str, Any]) -> str:
    """Time and memory of every strategy, ours, the peers' and the roofline's, in Markdown."""
    rows = [row for row in found["rows"] if row["part"] == "strategy"]
    libraries = list(dict.fromkeys(row["library"] for row in rows))
    by = {(row["strategy"], row["n"], row["library"]): row for row in rows}

    def cell(row: Row | None) -> str:
        if row is None:
            return ""
        if "error" in row:
            return "no memory" if "Memory" in row["error"] else row["error"]
        return f"{time_of(row['seconds'])}, {max(row['memory'] / 1e6, 0.1):,.{int(row['memory'] < 1e7)}f} MB"

    lines = [
        f"| strategy | pool | roofline | {' | '.join(libraries)} |",
        "|---|---|---|" + "---|" * len(libraries),
    ]
    for r in found["ratios"]:
        cells = [cell(by.get((r["strategy"], r["n"], library))) for library in libraries]
        lines.append(f"| {r['strategy']} | {r['n']:,} | {time_of(r['roofline_seconds'])} | {' | '.join(cells)} |")
    return "\n".join([*lines, "", *claims(found["claims"]), ""])


def clustering(found: Mapping[str, Any]) -> str:
    """Time and memory of clusters by the size of the pool, and of a round on ten million records, in Markdown."""
    rows = {row["part"]: row for row in found["rows"]}
    lines = ["| records | clusters | time | memory beside the features | FLOPs |", "|---|---|---|---|---|"]
    for r in sorted((r for part, r in rows.items() if part.startswith("cluster_")), key=lambda r: r["records"]):
        lines.append(
            f"| {r['records']:,} | {r['clusters']:,} | {time_of(r['seconds'])} | {r['extra_gb']:.2f} GB "
            f"| {r['flops'] / 1e12:.3g} T |"
        )
    one = rows["round_10m"]
    lines += ["", f"One round on {one['records']:,} records, {one['candidates']:,} of them candidates:", ""]
    lines += ["| step | time | memory beside the features |", "|---|---|---|"]
    for step in ("propose", "kcenter", "badge"):
        lines.append(f"| {step} | {time_of(one[step]['seconds'])} | {one[step]['extra_gb']:.2f} GB |")
    return "\n".join([*lines, "", *claims(found["claims"]), ""])


def corrupted(found: Mapping[str, Any]) -> str:
    """How much of what is corrupted every strategy buys early, and what a later model names of it, in Markdown."""
    by = {(r["method"], r["kind"], r["dataset"], r["share"]): r for r in found["summary"]}
    places = list(dict.fromkeys((r["dataset"], r["share"]) for r in found["summary"]))
    ways = sorted(next(r for r in found["summary"] if r["kind"] == "inputs")["by_way"])
    methods = dict.fromkeys(r["method"] for r in found["summary"])
    columns = [f"{dataset}, {share:.0%}" for dataset, share in places]
    lines = [
        f"| strategy | {' | '.join(columns)} | {' | '.join(ways)} | wrong labels | recall | precision |",
        "|---|" + "---|" * (len(places) + len(ways) + 3),
    ]
    for method in methods:
        inputs, labels = ([by[(method, kind, *place)] for place in places] for kind in ("inputs", "labels"))
        cells = [f"{r['enrichment']:.2f} ± {r['ci']:.2f}" for r in inputs]
        cells += [f"{mean(r['by_way'][way] for r in inputs):.2f}" for way in ways]
        cells += [f"{mean(r['enrichment'] for r in labels):.2f}"]
        for of in ("recall", "precision"):
            values = [r[of] for r in labels]
            cells.append(f"{min(values):.2f} to {max(values):.2f}")
        lines.append(f"| {method} | {' | '.join(cells)} |")
    return "\n".join([*lines, "", *claims(found["claims"]), ""])


def time_of(seconds: float) -> str:
    """Seconds for people: 1.23 s, 45 ms."""
    return f"{seconds:.3g} s" if seconds >= 1 else f"{1000 * seconds:.3g} ms"


def between(text: str, name: str, part: str) -> str:
    """A text with what stands between its marks of this name replaced."""
    begin, end = f"<!-- {name}: begin -->", f"<!-- {name}: end -->"
    head, rest = text.split(begin)
    return f"{head}{begin}\n{part}\n{end}{rest.split(end)[1]}"


def picture(summary: Sequence[Row], path: Path, title: str) -> None:
    """Accuracy against the baseline, with its interval, over rho; equal accuracy and rho of 1 are marked."""
    figure = Figure(figsize=(9, 4.8), layout="constrained")
    axes = figure.add_subplot()
    colours = ["black", "C3", *map(colormaps["tab20"], range(20))]
    for i, r in enumerate(sorted(summary, key=lambda r: r["method"] not in ("baseline", "frugal"))):
        main, name = i < 2, r["method"].replace("_", " ")
        style: dict[str, Any] = {
            "marker": "*" if main else "os^D"[i % 4],
            "markersize": 14 if main else 6,
            "zorder": 3 if main else 2,
        }
        at = r["rho"], r["difference"]
        axes.errorbar(*at, yerr=r["ci"], linestyle="", color=colours[i], capsize=3, label=name, **style)
    axes.margins(x=0.15)
    figure.legend(loc="outside right upper", fontsize="small", frameon=False)
    axes.axvline(1, color="0.6", linestyle="--")
    axes.axhline(-0.5, color="0.6", linestyle=":")
    axes.set(
        xscale="log",
        xlabel="ρ: all compute / one training on the final labels",
        ylabel="accuracy against the baseline, points",
        title=title,
        xticks=[1, 2, 5, 10],
        xticklabels=["1", "2", "5", "10"],
    )
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=120)


def main() -> None:
    """Write tables and pictures."""
    parts = []
    for path in sorted(RESULTS.glob("savings-*.json")):
        found = json.loads(path.read_text())
        parts.append(table(found))
        picture(found["summary"], PICTURES / f"{found['benchmark']}.png", found["benchmark"].removeprefix("savings-"))
    text = between(README.read_text(), "savings", "\n".join(parts))
    for name, section in (("selection", selection), ("clustering", clustering), ("corrupted", corrupted)):
        text = between(text, name, section(json.loads((RESULTS / f"{name}.json").read_text())))
    README.write_text(text)
    print(README)


if __name__ == "__main__":
    main()
