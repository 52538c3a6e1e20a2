"""Not graded: it passes before you have written a line.  If it does not, mend your installation first."""
import importlib

import pytest


@pytest.mark.parametrize("module", ["adapters", "backbone", "baselines", "data", "hardware", "policy", "recap", "sim_tasks",
                                    "training", "value"])
def test_every_module_can_be_imported(module):
    importlib.import_module(module)
