from __future__ import annotations

import dataclasses
import json

from al_lightning.run.describe import describe


def test_every_exported_method_has_a_row(table):
    for module, rows, methods in table:
        assert methods, f"{module.__name__} exports no method at all"
        named = {type(row).__name__ for row in rows}
        missing = {m.__name__ for m in methods} - named
        assert not missing, f"{module.__name__} exports {missing}: add a row to tests/contract/conftest.py"
        hidden = named - {m.__name__ for m in methods}
        assert not hidden, f"{hidden} are in the table and not in {module.__name__}.__all__"


def test_every_method_describes_its_settings_as_data(table):
    for _, rows, _ in table:
        for row in rows:
            description = describe(row)
            assert json.loads(json.dumps(description)) == description
            assert describe(dataclasses.replace(row)) == description
