"""ranks.py: shares that make up the whole; (slow) a run of two ranks is that of one."""
import os
import signal
import socket
import subprocess
import sys
import time

import numpy as np
import pytest
import torch

import ranks
from data import UserError
import helpers
from helpers import ROOT, TINY_RUN
from lab.files import load, read_json, save_dataset
from test_given import SIZES, foreign

needs_gloo = pytest.mark.skipif(
    not (torch.distributed.is_available() and torch.distributed.is_gloo_available()),
    reason="torch is built without gloo",
)

def test_alone_everything_is_as_it_was(monkeypatch):
    monkeypatch.delenv("TORCHELASTIC_RUN_ID", raising=False)
    with ranks.joined():
        batch = {"x": torch.arange(5)}
        assert ranks.own_share(batch) is batch
        assert ranks.agree(lambda: 3) == 3
        g = torch.ones(2)
        ranks.average([g])
        assert (ranks.rank(), ranks.size(), g.tolist()) == (0, 1, [1.0, 1.0])

@pytest.mark.parametrize("size", [2, 3, 4])
def test_shares_make_up_the_batch_and_their_means_its_mean(monkeypatch, size):
    monkeypatch.setattr(ranks, "size", lambda: size)
    batch = {"x": torch.randn(12, 3)}, torch.arange(12)
    rows = []
    means = []
    for rank in range(size):
        monkeypatch.setattr(ranks, "rank", lambda: rank)
        part, number = ranks.own_share(batch)
        assert torch.equal(part["x"], batch[0]["x"][number])
        rows += number.tolist()
        means.append(part["x"].mean())
    assert sorted(rows) == list(range(12))
    torch.testing.assert_close(torch.stack(means).mean(), batch[0]["x"].mean())
    with pytest.raises(UserError, match=f"batch: 13 rows, expected a multiple of the {size} ranks"):
        ranks.own_share(torch.arange(13))

# ---------------------------------------------------------------- real ranks

def launch(n, *program, **more):
    """torchrun with n ranks on this machine."""
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone"]
    command += [f"--nproc-per-node={n}", *program]
    env = os.environ | {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    how = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True, "env": env}
    return subprocess.Popen(command, **(how | more))

def run_ranks(n, text, folder, timeout):
    """A program by its text, to its end: its status and what it printed, out and err."""
    path = folder / "program.py"
    path.write_text(text, encoding="utf-8")
    process = launch(n, str(path))
    out, err = process.communicate(timeout=timeout)
    return process.returncode, out, err

TOGETHER = '''
import torch
from data import UserError
from ranks import agree, average, dealt, joined, own_share, rank, size

@dealt
def play(seeds, wrong=None):
    if wrong in seeds:
        raise UserError(f"seed {wrong}")
    return [(seed, rank()) for seed in seeds]

with joined():
    x, y = torch.full((2, 3), float(rank())), torch.tensor(10.0 * rank())
    average([x, y])
    assert x.tolist() == [[1.0] * 3] * 2 and y == 10, (x, y)
    found = play(list(range(100, 107)))
    assert [seed for seed, _ in found] == list(range(100, 107)), found
    assert [who for _, who in found] == [0, 1, 2, 0, 1, 2, 0], found
    assert play([5]) == [(5, 0)]
    for seed in range(4):
        try:
            play([0, 1, 2, 3], wrong=seed)
            assert False
        except UserError as error:
            assert str(error) == f"seed {seed}"
    assert agree(lambda: f"said by {rank()}") == "said by 0"
    # One write, end of line included: the ranks share a pipe.
    print(f"rank {rank()} of {size()} is done\\n", end="", flush=True)
'''

@pytest.mark.slow
@needs_gloo
def test_what_ranks_do_together(tmp_path):
    """Means over ranks; episodes in the order of their seeds; an error of one is that of all."""
    status, out, err = run_ranks(3, TOGETHER, tmp_path, timeout=300)
    assert status == 0, err
    # Some versions of gloo print lines of their own there.
    said = [line for line in out.splitlines() if line.startswith("rank ")]
    assert sorted(said) == [f"rank {i} of 3 is done" for i in range(3)]

LOST = '''
import os, signal, time
from ranks import LostRank, joined, rank

with joined():
    if rank() == 1:
        os.kill(os.getpid(), signal.SIGKILL)
    try:
        time.sleep(60)  # not waiting for the other: torchrun is the first to notice
    except LostRank as error:
        print(f"said: {error}")
'''

@pytest.mark.slow
@needs_gloo
def test_a_rank_that_torchrun_ends_says_why(tmp_path):
    status, out, err = run_ranks(2, LOST, tmp_path, timeout=50)
    assert status != 0
    assert "said: rank 0 of 2 lost another one (torchrun sent SIGTERM)" in out, err

def weights_of(folder, name):
    return torch.cat([x.flatten() for x in load(folder / f"{name}.npz").parameters()])

def options():
    asked = TINY_RUN | {"pretraining_steps": 400}
    return [f"--{name.replace('_', '-')}={x}" for name, x in asked.items()]

@pytest.mark.slow
@needs_gloo
def test_two_ranks_make_the_run_of_one_and_any_number_goes_on_with_it(tmp_path):
    """Data the same to rounding, weights to what rounding does to 400 steps of AdamW."""
    one, two = tmp_path / "one", tmp_path / "two"
    alone = [sys.executable, "recap.py", *options(), "--out", str(one)]
    subprocess.run(alone, cwd=ROOT, check=True, capture_output=True)
    process = launch(2, "recap.py", *options(), "--out", str(two), cwd=ROOT)
    # One is killed amid the training of π_pre.
    until(lambda: (two / "V_pre.npz").exists(), process)
    time.sleep(1)
    victim = youngest_rank(process.pid)
    os.kill(victim, signal.SIGKILL)
    out, err = process.communicate(timeout=300)
    assert process.returncode != 0
    ours = [line for line in err.splitlines() if line.startswith("recap.py: error")]
    assert len(ours) == 1 and "lost another one" in ours[0], err
    assert f"python recap.py --resume {two} goes on" in ours[0]
    assert not (two / "pi_pre.npz").exists()
    # Two go on, and end; D_demo and V_pre are those of before.
    process = launch(2, "recap.py", "--resume", str(two), cwd=ROOT)
    out, err = process.communicate(timeout=600)
    assert process.returncode == 0, err
    assert out.count("] D_0 ") == 1  # one rank speaks
    for name in ("D_demo", "D_0"):
        for a, b in zip(load(one / f"{name}.npz"), load(two / f"{name}.npz"), strict=True):
            assert np.array_equal(a.actions, b.actions) and a.success == b.success
    for name, tolerance in (("V_pre", 1e-6), ("pi_pre", 1e-3), ("pi_0", 1e-3)):
        a, b = weights_of(one, name), weights_of(two, name)
        assert (a - b).norm() < tolerance * a.norm(), name
    # Without the last files, one rank goes on where two were.
    for name in ("pi_1.npz", "metrics.json"):
        (two / name).unlink()
    again = [sys.executable, "recap.py", "--resume", str(two)]
    subprocess.run(again, cwd=ROOT, check=True, capture_output=True)
    first = [read_json(out / "metrics.json")["stages"][0] for out in (one, two)]
    assert first[0] == first[1]

@pytest.mark.slow
@needs_gloo
def test_two_ranks_of_two_machines_are_two_of_one(tmp_path):
    """Two agents of torchrun that find each other, here on one machine: bit for bit."""
    tiny = [f"--{name.replace('_', '-')}={x}" for name, x in TINY_RUN.items()]
    outs = [tmp_path / "one", tmp_path / "two"]
    process = launch(2, "recap.py", *tiny, "--out", str(outs[0]), cwd=ROOT)
    _, err = process.communicate(timeout=300)
    assert process.returncode == 0, err
    with socket.socket() as free:
        free.bind(("localhost", 0))
        port = free.getsockname()[1]
    command = [sys.executable, "-m", "torch.distributed.run", "--nnodes=2", "--nproc-per-node=1"]
    command += ["--rdzv-backend=c10d", f"--rdzv-endpoint=localhost:{port}", "--rdzv-id=test"]
    command += ["--local-addr=localhost", "recap.py", *tiny, "--out", str(outs[1])]
    agents = [subprocess.Popen(command, cwd=ROOT, stderr=subprocess.PIPE) for _ in range(2)]
    for agent in agents:
        _, err = agent.communicate(timeout=300)
        assert agent.returncode == 0, err
    for name in ("V_pre", "pi_pre", "V_1", "pi_1"):
        assert torch.equal(weights_of(outs[0], name), weights_of(outs[1], name)), name

@pytest.mark.slow
@needs_gloo
def test_all_ranks_know_a_task_that_the_data_name(tmp_path):
    """And its sizes: networks of several ranks are one."""
    outs = [tmp_path / "one", tmp_path / "two"]
    save_dataset(foreign(12), tmp_path / "D.npz")
    arguments = ["recap.py", "--data", str(tmp_path / "D.npz"), *helpers.options(SIZES), "--out"]
    subprocess.run([sys.executable, *arguments, str(outs[0])], cwd=ROOT, check=True)
    process = launch(2, *arguments, str(outs[1]), cwd=ROOT)
    _, err = process.communicate(timeout=300)
    assert process.returncode == 0, err
    for name in ("V_pre", "pi_0"):
        a, b = (weights_of(out, name) for out in outs)
        assert (a - b).norm() < 1e-3 * a.norm(), name

@pytest.mark.slow
@needs_gloo
def test_ranks_share_out_the_runs_of_a_figure(tmp_path):
    process = launch(2, "-m", "reproduce", "fig12", "--quick", "--seeds", "0", "1", cwd=tmp_path)
    out, err = process.communicate(timeout=600)
    assert process.returncode == 0, err
    assert out.count("n = 2 seeds (0, 1)") == 1
    made = sorted(tmp_path.glob("runs/cache/fold_collar-*/metrics.json"))
    assert len(made) >= 2 and all(read_json(path)["stages"] for path in made)
    rows = read_json(tmp_path / "runs/quick/results/fig12.json")
    assert rows["seeds"] == [0, 1]

def until(condition, process, seconds=200):
    deadline = time.monotonic() + seconds
    while not condition():
        assert process.poll() is None and time.monotonic() < deadline, process.communicate()
        time.sleep(0.05)

def youngest_rank(parent):
    """A process of torchrun's: the last one that it started."""
    found = subprocess.run(
        ["pgrep", "-P", str(parent)], check=True, capture_output=True, text=True
    )
    return int(found.stdout.split()[-1])
