from __future__ import annotations

import subprocess
import sys

import pytest

import al_lightning

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
for verb in ("status", "label", "approve", "export"):
    main([verb, "nowhere", *(["x.csv"] if verb == "label" else [])])
print([name for name in ("torch", "lightning", "hydra", "matplotlib", "requests") if name in sys.modules])
"""


def test_verbs_that_train_nothing_load_nothing_that_trains() -> None:
    done = subprocess.run([sys.executable, "-c", VERBS], capture_output=True, text=True, check=True)
    assert done.stdout == "[]\n"
    assert done.stderr.count("is no run folder") == 4


def test_every_name_of_the_library_is_loaded_from_where_it_is() -> None:
    homes = al_lightning._HOMES
    assert sorted(name for names in homes.values() for name in names.split()) == sorted(al_lightning.__all__)
    assert all(hasattr(al_lightning, name) for name in al_lightning.__all__)
    assert {*al_lightning.__all__} <= {*dir(al_lightning)}
    with pytest.raises(AttributeError, match="has no attribute 'Nothing'"):
        _ = al_lightning.Nothing
