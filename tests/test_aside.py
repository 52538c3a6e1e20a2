"""lab/aside.py: what a second process measures is what the run itself would have measured."""
import io
import json
import multiprocessing
import os
import pickle
import signal
from concurrent.futures.process import BrokenProcessPool

import pytest
import torch

import recap
from helpers import TINY_RUN
from lab.aside import AsideRun, aside
from lab.run import Run
from lab.workers import workers
from settings import Settings

def measured(run):
    """Everything measured, without the times that it took."""
    recap.recap(run.settings, run.keep)
    if isinstance(run, AsideRun):
        run.finish()
    stages = [{x: value for x, value in row.items() if x != "seconds"} for row in run.stages]
    return stages, run.labels, run.value_report

@pytest.fixture(scope="module")
def alone(tmp_path_factory):
    """What a run in one process measures."""
    return measured(Run(Settings(**TINY_RUN), str(tmp_path_factory.mktemp("alone"))))

@pytest.mark.parametrize("killed", [False, True])
def test_a_second_process_changes_no_number(alone, tmp_path, killed, capsys):
    """Not even if it is killed: then the run measures by itself."""
    with workers(1) as pool:
        worker = pool.submit(os.getpid).result()
        if killed:
            os.kill(worker, signal.SIGKILL)
        run = AsideRun(Settings(**TINY_RUN), str(tmp_path), None, pool)
        assert measured(run) == alone
    # The other process left the files, and said nothing.
    assert json.loads((tmp_path / "labels_1.json").read_text(encoding="utf-8")) == alone[1][0]
    assert capsys.readouterr().out.count("offline_rl_sft") == 1

def tensors_in(thing):
    """How many tensors are pickled with it."""
    found = []

    class Pickler(pickle.Pickler):
        def persistent_id(self, x):
            if isinstance(x, torch.Tensor):
                found.append(x)

    Pickler(io.BytesIO()).dump(thing)
    return len(found)

def test_no_tensor_goes_to_the_other_process(tmp_path):
    """Torch moves what is sent to shared memory, in place and in a thread of its own: whoever
    computes with it meanwhile reads memory that is free, now and then NaN.
    """
    sent = []

    class Pool:
        def submit(self, function, *arguments):
            sent.append(arguments)
            raise BrokenProcessPool

    run = AsideRun(Settings(**TINY_RUN), str(tmp_path), None, Pool())
    recap.recap(run.settings, run.keep)
    run.finish()
    assert len(sent) == 9
    assert [tensors_in(arguments) for arguments in sent] == [0] * 9
    assert tensors_in([{"x": [(torch.ones(1), 2)]}, torch.nn.Linear(1, 1)]) > 0

forked = pytest.mark.skipif(
    multiprocessing.get_start_method() != "fork", reason="another process has other functions"
)

@forked
def test_the_files_are_made_in_the_other_process(tmp_path, monkeypatch):
    """Here nobody measures: every number is read from a file."""
    here = os.getpid()

    def elsewhere(*arguments):
        assert os.getpid() != here
        return {"name": "x", "beta": 1.0, "success": 0, "success_se": 0, "throughput": 0,
                "throughput_se": 0}  # fmt: skip

    monkeypatch.setattr("lab.run.evaluate", elsewhere)
    with workers(1) as pool:
        run = AsideRun(Settings(**TINY_RUN), str(tmp_path), None, pool)
        recap.recap(run.settings, run.keep)
        run.finish()
    assert [row["name"] for row in run.stages][1:] == ["x"] * 4

@forked
def test_an_error_of_the_other_process_ends_the_run(tmp_path, monkeypatch):
    def broken(*arguments):
        raise ZeroDivisionError("no evaluation")

    monkeypatch.setattr("lab.run.evaluate", broken)
    with pytest.raises(ZeroDivisionError, match="no evaluation"):
        with aside(Run(Settings(**TINY_RUN), str(tmp_path))) as run:
            recap.recap(run.settings, run.keep)
