"""Train, test, and return the metric that a search looks at."""

from __future__ import annotations

from typing import Any

import hydra
import lightning as L
from hydra.utils import instantiate
from omegaconf import DictConfig

from al_lightning import ActiveLearner, Budget, PoolDataModule, query


def train(cfg: DictConfig) -> tuple[dict[str, Any], dict[str, Any]]:
    """Build everything from the configuration, train, and test the best checkpoint."""
    if cfg.get("seed"):
        L.seed_everything(cfg.seed, workers=True)
    datamodule = PoolDataModule(instantiate(cfg.data), task="multiclass")
    model = instantiate(cfg.model)
    callbacks = [instantiate(callback) for callback in cfg.callbacks.values()]
    logger = [instantiate(one) for one in cfg.logger.values()]
    trainer = instantiate(cfg.trainer, callbacks=callbacks, logger=logger)
    objects = {"cfg": cfg, "datamodule": datamodule, "model": model, "callbacks": callbacks, "trainer": trainer}
    if cfg.get("train"):
        rounds = {"round_size": 16, "stop": Budget(labels=48), "run_dir": cfg.output_dir}
        ActiveLearner(trainer, query=query.Margin(), **rounds).fit(model, datamodule)
    train_metrics = dict(trainer.callback_metrics)
    if cfg.get("test"):
        ckpt_path = trainer.checkpoint_callback.best_model_path
        if ckpt_path == "":
            ckpt_path = None
        trainer.test(model=model, datamodule=datamodule, ckpt_path=ckpt_path, weights_only=False)
    test_metrics = trainer.callback_metrics
    return {**train_metrics, **test_metrics}, objects


@hydra.main(version_base="1.3", config_path="conf", config_name="train.yaml")
def main(cfg: DictConfig) -> float | None:
    """Return the metric that a sweeper such as Optuna's optimises."""
    metrics, _ = train(cfg)
    return metrics[cfg.optimized_metric].item() if cfg.get("optimized_metric") else None


if __name__ == "__main__":
    main()
