"""Work of a fit that was killed is thrown away, and stays on the bill."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from al_lightning.fit import meter
from tests.helpers import Net, learner, net, pool_of


class Breaks(Net):
    """Fails in the second epoch of its second fit."""

    fits = 0

    def on_fit_start(self) -> None:
        self.fits += 1

    def training_step(self, batch: Any, batch_idx: int) -> Any:
        if self.fits == 2 and self.current_epoch == 1:
            raise RuntimeError("the machine was taken away")
        return super().training_step(batch, batch_idx)


def test_work_that_was_lost_is_on_the_bill_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(meter, "NOTE_SECONDS", 0.0)
    whole = learner(tmp_path / "whole").fit(net(), datamodule=pool_of())
    model = Breaks()
    model.load_state_dict(net().state_dict())
    with pytest.raises(RuntimeError, match="taken away"):
        learner(tmp_path / "broken").fit(model, datamodule=pool_of())
    for _ in range(2):  # a finished run that is opened again bills nothing twice
        model = Breaks()
        model.fits = 10
        result = learner(tmp_path / "broken").fit(model, datamodule=pool_of())
        assert result.bill.lines["lost"].records == 18  # one epoch of the second round's 18 labels
        assert result.bill.lines["lost"].flops > 0
        assert result.bill.lines["train"].records == whole.bill.lines["train"].records
    assert result.labelled.tolist() == whole.labelled.tolist()
    assert result.bill.flops == whole.bill.flops + result.bill.lines["lost"].flops
    assert "lost" not in whole.bill.lines
