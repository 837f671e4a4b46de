"""Tables and pictures of the savings results, for people: ``python -m benchmarks.report``.

Reads ``results/savings-*.json``; writes the tables into ``benchmarks/README.md``, between its marks, and a picture per
protocol into ``docs/pictures``.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from matplotlib.figure import Figure

from benchmarks.common import RESULTS

README = Path(__file__).with_name("README.md")
PICTURES = Path(__file__).parents[1] / "docs" / "pictures"
BEGIN, END = "<!-- savings: begin -->", "<!-- savings: end -->"

Row = Mapping[str, Any]


def table(found: Mapping[str, Any]) -> str:
    """A protocol's methods, and its claims, in Markdown."""
    recipe, summary = found["recipe"], found["summary"]
    labels = next(row["labels"] for row in summary if row["method"] == "baseline")
    lines = [
        f"### {found['benchmark'].removeprefix('savings-')}",
        f"{labels:,} labels; recipe: {recipe['epochs']} epochs, batches of {recipe['batch']}, "
        f"learning rate {recipe['learning_rate']:g}, {recipe['schedule']}.",
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
    lines += ["", "| claim | value | goal | |", "|---|---|---|---|"]
    for c in found["claims"]:
        holds = "holds" if c["holds"] else "**does not hold**"
        lines.append(f"| `{c['name']}` | {c['value']:.3g} | {c['op']} {c['target']:g} | {holds} |")
    name = found["benchmark"]
    return "\n".join([*lines, "", f"![accuracy against compute](../docs/pictures/{name}.png)", ""])


def picture(summary: Sequence[Row], path: Path, title: str) -> None:
    """Accuracy against the baseline, with its interval, over rho; equal accuracy and rho of 1 are marked."""
    figure = Figure(figsize=(8, 4.5), layout="constrained")
    axes = figure.add_subplot()
    for r in summary:
        main = r["method"] in ("baseline", "frugal")
        axes.errorbar(r["rho"], r["difference"], yerr=r["ci"], fmt="o", color="C3" if main else "C0", capsize=3)
        axes.annotate(r["method"].replace("_", " "), (r["rho"], r["difference"]), (6, 4), textcoords="offset points")
    axes.margins(x=0.15)
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
    text = README.read_text()
    head, rest = text.split(BEGIN)
    README.write_text(f"{head}{BEGIN}\n{chr(10).join(parts)}\n{END}{rest.split(END)[1]}")
    print(README)


if __name__ == "__main__":
    main()
