"""Not graded: it passes before you have written a line.  If not, mend your installation first."""
import importlib

import pytest

MODULES = (
    "backbone", "baselines", "collection", "control", "data", "hardware", "labels", "policy",
    "recap", "settings", "value", "lab.cli", "robots", "sim_tasks",
)  # fmt: skip

@pytest.mark.parametrize("module", MODULES)
def test_every_module_can_be_imported(module):
    importlib.import_module(module)
