"""Small networks: one thread is as fast as two here, and leaves the other core alone."""
import json
import os
import sys

import matplotlib
import pytest
import torch

# The modules are flat, at the root.
sys.path.insert(0, os.path.join(os.path.dirname(__file__), ".."))
matplotlib.use("Agg")

@pytest.fixture(autouse=True, scope="session")
def one_thread():
    torch.set_num_threads(1)

@pytest.fixture
def few_questions(monkeypatch):
    """A pool of 300: 20,000 take a second, with pictures several."""
    from sim_tasks import questions

    real = questions.questions
    monkeypatch.setattr(questions, "questions", lambda n, seed: real(300, seed))

@pytest.fixture
def no_pictures(monkeypatch):
    """Runs draw none: they take longer than all else, and change no number."""
    monkeypatch.setattr("lab.cli.draw_pictures", lambda run, metrics: None)

@pytest.fixture(scope="session")
def tiny(tmp_path_factory):
    """A whole run at the smallest size: its folder, and metrics.json.  To be read, not changed."""
    import recap
    from helpers import TINY_RUN, options
    from lab import cli

    out = str(tmp_path_factory.mktemp("run") / "out")
    arguments = [*options(TINY_RUN), "--out", out]
    assert cli.main(recap.recap, recap.supervised, None, arguments) == 0
    with open(os.path.join(out, "metrics.json"), encoding="utf-8") as file:
        return out, json.load(file)
