"""A run on two processes that scores on a cluster; every rank writes what it saw. Started by test_two_ranks.py."""

from __future__ import annotations

import json
import os
import sys
import warnings
from pathlib import Path
from typing import Any

from al_lightning.scoring.ray.scorer import RayScorer
from tests.helpers import learner, net, pool_of, quiet


class Counted(RayScorer):
    """Notes how often this process asks."""

    asked = 0

    def run(self, request: Any) -> Any:
        self.asked += 1
        return super().run(request)


def seen(result: Any) -> dict[str, Any]:
    return {
        "labelled": result.labelled.tolist(),
        "weight": result.model.net[0].weight.tolist(),
        "inferred": result.bill.records_inferred,
        "candidates": [r.candidates for r in result.history],
    }


def main(root: Path) -> None:
    warnings.simplefilter("ignore")
    scorer = Counted(shard_size=16)
    report: dict[str, Any] = {
        name: seen(learner(root / name, quiet(strategy="ddp", devices=2), **options).fit(net(), datamodule=pool_of()))
        for name, options in (("here", {}), ("there", {"scoring": scorer}))
    }
    report["asked"] = scorer.asked
    (root / f"rank-{os.environ.get('LOCAL_RANK', 0)}.json").write_text(json.dumps(report))


if __name__ == "__main__":
    main(Path(sys.argv[1]))
