"""Small networks: one thread is as fast as two here, and leaves the other core alone."""
import os
import sys

import pytest
import torch

sys.path.insert(0, os.path.join(os.path.dirname(__file__), ".."))      # the modules are flat, at the root


@pytest.fixture(autouse=True, scope="session")
def one_thread():
    torch.set_num_threads(1)
