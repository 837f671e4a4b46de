"""The figures of the article this library starts from, made again by the planner: ``python -m benchmarks.figures``.

J. Prendki, "Compute-saving active learning", 2022, https://alectio.com/2022/12/06/compute-saving-active-learning/.
Four PNGs in ``docs/pictures`` and their data in ``results/figures.json``: (1) larger rounds, (2) weights cleared every
round against resumed on new data, (3) and (4) what free inference would gain on two tasks. No run is made: it is
arithmetic, with a forward pass of the model as the unit and a backward pass as two.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import accumulate
from pathlib import Path
from typing import Any

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from al_lightning.contrib import Replay
from al_lightning.planning.architectures import architecture
from al_lightning.planning.planner import Way, plan
from al_lightning.planning.project import Project
from benchmarks.common import claim, write_results

PICTURES = Path(__file__).parents[1] / "docs" / "pictures"
IMAGENET = Project(pool=1_200_000, labels=200_000, epochs=90, forward=architecture("resnet152").forward)
SQUAD_EPOCHS = ((12, 1), (4, 1), (12, 10))
"""Epochs of a training and stochastic passes per score."""
Row = dict[str, Any]


def squad(epochs: int, passes: int) -> Project:
    """SQuAD's 87,599 questions and BiDAF."""
    forward = architecture("bidaf").forward
    return Project(pool=87_599, labels=20_000, epochs=epochs, forward=forward, passes=passes)


def curve(project: Project, size: int, **how: Any) -> list[Row]:
    """Labels and EFLOPs after every round of so many labels, training and inference apart."""
    made = plan(project, Way(sizes=[size] * (project.labels // size), **how))
    parts = [(r.labelled, r.flops - inferred(project, r.inferred), inferred(project, r.inferred)) for r in made.rounds]
    train, infer = (list(accumulate(part[i] for part in parts)) for i in (1, 2))
    return [
        {"labels": labels, "train": a / 1e18, "inference": b / 1e18}
        for (labels, _, _), a, b in zip(parts, train, infer, strict=True)
    ]


def inferred(project: Project, records: int) -> float:
    """FLOPs of inferring so many records for a query."""
    return records * project.passes * project.forward


def total(row: Row) -> float:
    """All EFLOPs up to there."""
    return float(row["train"] + row["inference"])


def gain(row: Row) -> float:
    """How many times less compute it were if inference cost nothing."""
    return total(row) / float(row["train"])


def figures() -> list[Row]:
    """Every point of every figure."""
    rows: list[Row] = []

    def add(figure: int, name: str, points: Sequence[Row]) -> None:
        rows.extend({"figure": figure, "curve": name, **point} for point in points)

    for size in (10_000, 20_000, 50_000, 100_000):
        add(1, f"rounds of {size:,}", curve(IMAGENET, size))
    add(2, "cleared every round", curve(IMAGENET, 10_000))
    add(2, "resumed on new data", curve(IMAGENET, 10_000, policy=Replay(replay=0)))
    for size in (10_000, 50_000):
        add(3, f"rounds of {size:,}", curve(IMAGENET, size))
    for epochs, passes in SQUAD_EPOCHS:
        add(4, f"{epochs} epochs, {passes} pass{'es' if passes > 1 else ''}", curve(squad(epochs, passes), 2_000))
    return rows


def ends(rows: Sequence[Row], figure: int) -> dict[str, Row]:
    """The last point of every curve of a figure."""
    return {row["curve"]: row for row in rows if row["figure"] == figure}


TITLES = {
    1: "ResNet-152, 1.2 M images, 200,000 labels: larger rounds",
    2: "Weights cleared every round, or resumed on new data",
    3: "ResNet-152 on ImageNet: if inference were free",
    4: "BiDAF on SQuAD: if inference were free",
}


def draw(figure: int, rows: Sequence[Row]) -> Path:
    """One figure as a PNG."""
    canvas = Figure(figsize=(7, 4.2), layout="constrained")
    axes: Axes = canvas.add_subplot()
    for i, name in enumerate(ends(rows, figure)):
        points = [row for row in rows if row["figure"] == figure and row["curve"] == name]
        labels = [row["labels"] for row in points]
        label = name if figure < 3 else f"{name}: {gain(points[-1]):.2f}x"
        scale = 1.0 if figure < 4 else total(points[-1])
        axes.plot(labels, [total(row) / scale for row in points], color=f"C{i}", marker=".", label=label)
        if figure > 2:
            axes.plot(labels, [row["train"] / scale for row in points], color=f"C{i}", linestyle="--")
    unit = "compute so far, EFLOP" if figure < 4 else "compute so far / all of it"
    axes.set(xlabel="labels", ylabel=unit, title=TITLES[figure], ylim=(0, None))
    axes.xaxis.set_major_formatter(lambda value, _: f"{value:,.0f}")
    axes.grid(alpha=0.25)
    axes.spines[["top", "right"]].set_visible(False)
    axes.legend(title="dashed: without inference" if figure > 2 else None, frameon=False)
    path = PICTURES / f"article-{figure}.png"
    path.parent.mkdir(parents=True, exist_ok=True)
    canvas.savefig(path, dpi=110)
    return path


def main() -> None:
    """Draw and write."""
    rows = figures()
    one, two, three, four = (ends(rows, figure) for figure in (1, 2, 3, 4))
    claims = [
        claim(
            "figure_1_ratio_10k_over_50k", total(one["rounds of 10,000"]) / total(one["rounds of 50,000"]), ">=", 4.2
        ),
        claim(
            "figure_2_final_ratio",
            two["cleared every round"]["train"] / two["resumed on new data"]["train"],
            ">=",
            10.5,
        ),
        claim("figure_3_gain", gain(three["rounds of 10,000"]), "<=", 1.04),
        claim("figure_4_gain", gain(four["12 epochs, 10 passes"]), ">=", 2.7),
    ]
    shares = {name: row["inference"] / total(row) for name, row in four.items()}
    pictures = [draw(figure, rows).name for figure in TITLES]
    path = write_results(
        "figures", "python -m benchmarks.figures", rows, claims, inference_shares=shares, pictures=pictures
    )
    print(*claims, shares, path, sep="\n")


if __name__ == "__main__":
    main()
