from __future__ import annotations

import subprocess
import sys

CODE = """
import sys, lightning.pytorch, torchmetrics.functional
before = set(sys.modules)  # what these two load where it is installed, rich and matplotlib for example
import al_lightning
print([name for name in ("rich", "matplotlib", "pandas", "ray") if name in set(sys.modules) - before])
print([name for name in ("hydra", "omegaconf", "wandb", "sklearn") if name in sys.modules])
"""


def test_importing_the_library_loads_nothing_that_few_need() -> None:
    done = subprocess.run([sys.executable, "-c", CODE], capture_output=True, text=True, check=True)
    assert done.stdout == "[]\n[]\n"


VERBS = """
import sys
from al_lightning.cli.main import main
for verb in ("status", "label", "approve", "export", "doubt"):
    main([verb, "nowhere", *(["x.csv"] if verb in ("label", "doubt") else [])])
print([name for name in ("torch", "lightning", "hydra", "matplotlib", "requests") if name in sys.modules])
"""


def test_verbs_that_train_nothing_load_nothing_that_trains() -> None:
    done = subprocess.run([sys.executable, "-c", VERBS], capture_output=True, text=True, check=True)
    assert done.stdout == "[]\n"
    assert done.stderr.count("is no run folder") == 5
