"""lab/annotate.py: what it writes is what the paper's formulas give, row by row."""
import json
import os
import re
from dataclasses import replace

import numpy as np
import pytest
from helpers import episode, run_program

from lab import annotate
from lab.files import load_network, save_dataset
from recap import new_value, train_value
from value import predict_values

FEW = ["--value-pretraining-steps", "2"]
KEYS = ["episode_index", "frame_index"]

def dataset():
    """Two tasks: rollouts of two iterations, some corrected; and demonstrations alone."""
    D = []
    for i in range(12):
        intervention = np.zeros(10 + i, bool)
        source = "autonomous"
        if i % 4 == 3:
            intervention[2:5] = True
            source = "corrected"
        D.append(
            episode(10 + i, i % 2 == 0, "fold_collar", source, 1 + i // 6, intervention, seed=i)
        )
    for i in range(6):
        D.append(episode(8, i > 2, "box", "demonstration", 0, seed=20 + i))
    return [replace(e, prompt="build box" if e.task == "box" else "fold collar up") for e in D]

def run(*arguments):
    """The exit status of the command, in this process."""
    try:
        from robots.lerobot_data import read_lerobot
    except ImportError:
        read_lerobot = None
    return annotate.main(new_value, train_value, read_lerobot, [*map(str, arguments)])

def rows(path):
    """{name: column} of frames.parquet or frames.npz."""
    if str(path).endswith(".npz"):
        with np.load(path) as file:
            return dict(file)
    pq = pytest.importorskip("pyarrow.parquet", reason="pip install -r requirements-lerobot.txt")
    table = pq.read_table(path)
    return {name: table[name].to_numpy() for name in table.column_names}

@pytest.fixture
def saved(tmp_path):
    path = tmp_path / "D.npz"
    save_dataset(dataset(), path)
    return path

@pytest.fixture
def without_pyarrow(monkeypatch):
    monkeypatch.setattr(annotate, "pyarrow", None)

def test_every_column(tmp_path, saved, without_pyarrow):
    before = saved.read_bytes()
    assert run(saved, "--out", tmp_path / "out", *FEW, "--lookahead", 4, "--positive", 0.25) == 0
    assert saved.read_bytes() == before
    D = dataset()
    V = predict_values(load_network(tmp_path / "out/V.npz"), D)
    found = rows(tmp_path / "out/frames.npz")
    report = json.loads((tmp_path / "out/report.json").read_text())
    assert list(report) == ["box", "fold_collar"]
    i = 0
    pools = {"box": [], "fold_collar": []}
    for k, e in enumerate(D):
        T = len(e)
        own = {name: column[i : i + T] for name, column in found.items()}
        i += T
        assert (own["episode_index"] == k).all() and own["frame_index"].tolist() == [*range(T)]
        # Eq. 5, a limit of 50 steps, C_fail as long: steps still to do, over 100.
        R = [-(T - 1 - t + (0 if e.success else 50)) / 100 for t in range(T)]
        assert np.allclose(own["return"], R) and np.allclose(own["value"], V[k])
        # Four steps ahead for rollouts, to the end for demonstrations.
        for t in range(T):
            A = R[t] - V[k][t]
            if e.task == "fold_collar" and t + 4 < T:
                A = -4 / 100 + V[k][t + 4] - V[k][t]
            assert own["advantage"][t] == pytest.approx(A, abs=1e-6)
            positive = own["advantage"][t] > np.float32(report[e.task]["epsilon"])
            assert own["indicator"][t] == (positive or e.intervention[t])
        assert len(set(own["held_out"])) == 1
        if e.task == "box" or (e.source == "autonomous" and e.iteration == 2):
            pools[e.task].append(own["advantage"] > np.float32(report[e.task]["epsilon"]))
    assert i == len(found["value"])
    # The thresholds: of the newest rollouts as asked, of demonstrations as in pre-training.
    assert np.concatenate(pools["fold_collar"]).mean() == pytest.approx(0.25, abs=0.02)
    assert np.concatenate(pools["box"]).mean() == pytest.approx(0.3, abs=0.02)
    for task, share in (("fold_collar", 12), ("box", 6)):
        at = np.array([e.task == task for e in D])[found["episode_index"]]
        assert report[task]["episodes"] == share
        assert report[task]["positive"] == pytest.approx(found["indicator"][at].mean())

def test_v_never_sees_what_is_held_out(tmp_path, saved, without_pyarrow):
    seen = []

    def train(value, D, s, n_steps):
        seen.extend(D)
        return train_value(value, D, s, n_steps)

    arguments = [str(saved), "--out", str(tmp_path / "out"), *FEW]
    assert annotate.main(new_value, train, None, arguments) == 0
    found = rows(tmp_path / "out/frames.npz")
    out = {int(i) for i in found["episode_index"][found["held_out"]]}
    D = dataset()
    assert len(seen) == len(D) - len(out)
    for e in seen:
        assert not any(np.array_equal(e.actions, D[i].actions) for i in out)
    # A fifth of each task.
    assert sorted(D[i].task for i in out) == ["box", "fold_collar", "fold_collar"]

def test_what_is_measured_is_of_the_held_out_episodes(tmp_path, saved, without_pyarrow):
    assert run(saved, "--out", tmp_path / "out", "--value-pretraining-steps", 30) == 0
    found = rows(tmp_path / "out/frames.npz")
    report = json.loads((tmp_path / "out/report.json").read_text())
    D = dataset()
    collar = np.array([e.task == "fold_collar" for e in D])[found["episode_index"]]
    unseen = found["held_out"] & collar
    expected = np.corrcoef(found["value"][unseen], found["return"][unseen])[0, 1]
    assert report["fold_collar"]["correlation"] == pytest.approx(expected, abs=2e-3)  # float32
    assert report["fold_collar"]["held_out"] == 2 and report["box"]["held_out"] == 1
    assert report["box"]["auc"] is None  # one episode has no other outcome beside it
    # Another seed holds out others.
    assert np.array_equal(annotate.hold_out(D, 0), annotate.hold_out(D, 0))
    assert not np.array_equal(annotate.hold_out(D, 0), annotate.hold_out(D, 1))

def test_a_lerobot_folder_gives_the_same_numbers(tmp_path, saved):
    pytest.importorskip("pyarrow", reason="pip install -r requirements-lerobot.txt")
    from robots.lerobot_data import write_lerobot

    write_lerobot(dataset(), tmp_path / "lerobot")
    assert run(saved, "--out", tmp_path / "a", *FEW) == 0
    assert run(tmp_path / "lerobot", "--out", tmp_path / "b", *FEW) == 0
    one = rows(tmp_path / "a/frames.parquet")
    other = rows(tmp_path / "b/frames.parquet")
    assert list(one)[:2] == KEYS and list(one) == list(other)
    for name in one:
        assert one[name].dtype == other[name].dtype and np.array_equal(one[name], other[name])

@pytest.mark.slow
def test_the_command(tmp_path, saved, monkeypatch, capsys):
    arguments = [saved, "--out", tmp_path / "out", *FEW]
    assert run_program(monkeypatch, "lab/annotate.py", *arguments) == 0
    box, collar, last = capsys.readouterr().out.splitlines()
    assert box.startswith("box: 6 episodes (50% succeed); V on the 1 held out: correlation")
    assert "judged to the end, ε = " in box and "judged to 10 steps, ε = " in collar
    assert f"{sum(len(e) for e in dataset())} frames" in last

@pytest.mark.parametrize(
    "change, match",
    [
        (lambda D: [replace(D[0], success=None), *D[1:]],
         r"success: no label of 1 of 18 episodes \(0\).*a bool column success of meta/episodes"),
        (lambda D: D[:13], "task 'box': one episode, expected two or more"),
        (lambda D: [replace(D[0], prompt="fold my collar"), *D[1:]], r"unknown words \['my'\]"),
        (lambda D: [replace(D[0], max_length=9), *D[1:]],
         "max_length: an episode of 10 steps, expected at most its 9"),
    ],
    ids=("no label", "one episode", "unknown word", "too long"),
)  # fmt: skip
def test_datasets_that_cannot_be_judged(tmp_path, capsys, change, match):
    save_dataset(change(dataset()), tmp_path / "D.npz")
    assert run(tmp_path / "D.npz", "--out", tmp_path / "out", *FEW) == 2
    said = capsys.readouterr().err
    assert re.search(match, said) and said.count("\n") == 1
    assert os.listdir(tmp_path) == ["D.npz"]

def test_a_device_that_is_not_there(tmp_path, saved, monkeypatch, capsys):
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)
    assert run(saved, "--out", tmp_path / "out", *FEW, "--device", "cuda") == 2
    said = capsys.readouterr().err
    assert "--device: cuda is not available" in said and said.count("\n") == 1

def test_nothing_is_overwritten(tmp_path, saved, capsys):
    (tmp_path / "out").mkdir()
    (tmp_path / "out/V.npz").write_text("precious")
    assert run(saved, "--out", tmp_path / "out", *FEW) == 2
    said = capsys.readouterr().err
    # It cannot go on with one, as recap.py can.
    assert said.endswith("exists and is not an empty folder, expected a new one\n")
    assert os.listdir(tmp_path / "out") == ["V.npz"]

def test_what_is_no_dataset(tmp_path, capsys):
    assert run(tmp_path / "none.npz", "--out", tmp_path / "out") == 2
    assert "none.npz" in capsys.readouterr().err
    assert annotate.main(None, None, None, [str(tmp_path), "--out", str(tmp_path / "out")]) == 2
    assert "pip install -r requirements-lerobot.txt" in capsys.readouterr().err
