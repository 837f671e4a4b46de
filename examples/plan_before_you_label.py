"""The bill before it is spent, and the run held against it: ``python examples/plan_before_you_label.py``."""

from __future__ import annotations

import lightning.pytorch as L

from al_lightning import ActiveLearner, Budget, PoolDataModule, Prices, WarmStart
from al_lightning.candidates import RandomSubset
from al_lightning.cli.problems import Classifier, digits
from al_lightning.planning.efficiency import Efficiency
from al_lightning.planning.planner import Way, plan
from al_lightning.planning.project import Project
from al_lightning.planning.schedule import trade_off
from al_lightning.planning.verdict import verdict
from al_lightning.query import Margin
from al_lightning.round_size import Listed
from al_lightning.steps.rehearse import rehearse


def main(run_dir: str = "runs/planned") -> None:
    """Plan, decide, run six rounds of the plan, and compare the bills."""
    train, val, _ = digits(seed=0)
    pool = PoolDataModule(train, val=val, task="multiclass", batch_size=16)
    trainer = L.Trainer(
        max_epochs=12, accelerator="cpu", logger=False, enable_checkpointing=False, enable_progress_bar=False
    )
    L.seed_everything(0)
    model = Classifier(in_features=64, classes=10, learning_rate=3e-2)
    cost = rehearse(trainer, model, pool)  # FLOPs and seconds of a record, on your model and a few batches

    prices = Prices(label=0.05, hour=30.0)
    project = Project(pool=pool.size, labels=400, epochs=12, prices=prices, val_labels=pool.val_labels, **vars(cost))
    warm = WarmStart("keep", epochs=4, first_epochs=8, final="previous", final_epochs=8)
    way = Way(sizes=[400], policy=warm, candidates=RandomSubset(0.3), worth=0.87)
    for schedule in trade_off(project, way, Efficiency()):
        print(f"{schedule.rounds:>2} rounds  {schedule.plan.labels:>4} labels  {schedule.money:.2f} {prices.currency}")
    found = verdict(project, way, Efficiency())
    print(f"cheapest: {found.choice}", *found.changes, sep="\n  ")

    sizes = [50, 50, 60, 70, 80, 90]
    planned = plan(project, Way(sizes=sizes, policy=warm, candidates=RandomSubset(0.3)))
    learner = ActiveLearner(
        trainer,
        query=Margin(),
        candidates=RandomSubset(0.3),
        round_size=Listed(sizes),
        fit=warm,
        stop=[Budget(money=1.1 * planned.money)],
        prices=prices,
        run_dir=run_dir,
    )
    result = learner.fit(model, datamodule=pool)
    for record in result.history:
        foreseen = record.forecast
        print(f"{record.labelled:>4} labels  {record.cost['money']:6.2f} of {foreseen['money']:.2f} {prices.currency}")
    print(f"planned: {planned.bill.flops:.4g} FLOPs, {planned.money:.2f} {prices.currency}")
    print(f"spent:   {result.bill.flops:.4g} FLOPs, {result.bill.money:.2f} {prices.currency}")


if __name__ == "__main__":
    main()
