"""One V and one policy from scratch on the data of finished runs (the end of Sec. IV-C)."""
import os
import shutil

import pytest

import recap
import sim_tasks
from helpers import ROOT, TINY_RUN, options
from lab import cli
from lab.files import load_dataset, read_json, write_text
from reproduce import __main__ as command
from reproduce import cache, generalist
from settings import Settings

SHIRT = dict(
    task="fold_shirt", pretraining_tasks="", demonstrations=3, autonomous=3, corrected=1,
    evaluation_episodes=2, execute=8, euler=1,
)  # fmt: skip

@pytest.fixture(scope="module")
def runs(tiny, tmp_path_factory):
    """Two finished runs, of two tasks."""
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(tmp_path_factory.mktemp("runs"))
        # Checks that nobody here reads.
        patch.setattr("lab.run.flow_loss_by_eta", lambda *given: {})
        patch.setattr("lab.run.check_value", lambda *given: {})
        settings = Settings(**(TINY_RUN | SHIRT))
        cache.make_run(settings)
        return [tiny[0], os.path.abspath(cache.folder_of(settings))]

def generalist_folder():
    """The only one below runs/cache."""
    (name,) = [name for name in os.listdir(cache.CACHE) if name.startswith("generalist-")]
    return os.path.join(cache.CACHE, name)

@pytest.mark.slow
def test_the_generalist_learns_from_all_runs_and_stands_beside_their_last_stages(
    runs, tmp_path, monkeypatch, capsys
):
    monkeypatch.chdir(tmp_path)
    trained = []

    def policy_spy(policy, D, I, s, n_steps):
        trained.append((D, n_steps, I, bool(policy.fitted)))
        return recap.train_policy(policy, D, I, s, n_steps)

    def value_spy(value, D, s, n_steps):
        trained.append((D, n_steps, None, bool((value.head.weight != 0).any())))
        return recap.train_value(value, D, s, n_steps)

    monkeypatch.setattr(generalist, "train_policy", policy_spy)
    monkeypatch.setattr(generalist, "train_value", value_spy)
    assert command.main(["generalist", "--runs", *runs]) == 0

    expected = []
    for folder in runs:
        for k in (0, 1):
            expected += load_dataset(os.path.join(folder, f"D_{k}.npz"))
    # V, then π, both from scratch; π in the steps of pre-training and of one fine-tuning.
    assert [n for _, n, _, _ in trained] == [3, 3 + 3]
    assert not any(begun for *_, begun in trained)
    for D, *_ in trained:
        assert [e.actions.tobytes() for e in D] == [e.actions.tobytes() for e in expected]
    I = trained[1][2]
    assert len(I) == len(expected) and not all(positive.all() for positive in I)

    folder = generalist_folder()
    metrics = read_json(folder, "metrics.json")
    tasks = ("fold_collar", "fold_shirt")
    shown = [(row["name"], row["beta"], row["episodes"]) for row in metrics["stages"]]
    assert shown == [("generalist_fold_collar", 1.5, 6), ("generalist_fold_shirt", 2.0, 6)]
    for run, task, row in zip(runs, tasks, metrics["stages"]):
        assert metrics["specialists"][task] == read_json(run, "metrics.json")["stages"][-1]
        assert len(row["per_stage_success"]) == len(sim_tasks.TASKS[task].stages)  # in its own task
    lines = [line.split()[:2] for line in capsys.readouterr().out.strip().splitlines()[-5:-1]]
    assert lines == [
        ["fold_collar", "specialist"],
        ["fold_collar", "generalist"],
        ["fold_shirt", "specialist"],
        ["fold_shirt", "generalist"],
    ]

    # The same command goes on: what is lost is made again, with the same numbers.
    for name in ("generalist_pi.npz", "eval_generalist_fold_shirt_beta2.json", "metrics.json"):
        os.remove(os.path.join(folder, name))
    assert command.main(["generalist", "--runs", *runs]) == 0
    assert len(trained) == 3  # not V
    again = read_json(generalist_folder(), "metrics.json")

    def without_times(stages):
        return [{key: x for key, x in row.items() if key != "seconds"} for row in stages]

    assert without_times(again["stages"]) == without_times(metrics["stages"])

def test_a_generalist_learns_from_runs_of_tasks_of_ones_own(tmp_path, monkeypatch, capsys):
    """They are found by their file, and called by their name."""
    monkeypatch.chdir(tmp_path)
    own = os.path.join(ROOT, "examples", "own_task.py") + ":LID_AND_BALL"
    tiny = TINY_RUN | SHIRT | dict(task=own, pretraining_tasks="", demonstrations=6)
    sizes = [*options(tiny), "--out", "run"]
    assert cli.main(recap.recap, recap.supervised, None, sizes) == 0
    assert command.main(["generalist", "--runs", "run"]) == 0
    assert "lid_and_ball  generalist" in capsys.readouterr().out

def test_a_generalist_needs_finished_runs(runs, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    assert command.main(["generalist", "--runs", str(tmp_path)]) == 2
    line = capsys.readouterr().err
    assert "there is no" in line and "metrics.json" in line
    shutil.copytree(runs[0], tmp_path / "b")
    (tmp_path / "b" / "D_1.npz").unlink()
    assert command.main(["generalist", "--runs", runs[1], str(tmp_path / "b")]) == 2
    line = capsys.readouterr().err
    assert str(tmp_path / "b" / "D_1.npz") in line and "finished run" in line
    # Two of one task, and what is no run of one task.
    shutil.copytree(runs[0], tmp_path / "again")
    assert command.main(["generalist", "--runs", *runs, str(tmp_path / "again")]) == 2
    line = capsys.readouterr().err
    assert f"{runs[0]} and {tmp_path / 'again'} are both of fold_collar" in line
    write_text(tmp_path / "again" / "metrics.json", '{"task": "box", "stages": []}')
    assert command.main(["generalist", "--runs", str(tmp_path / "again")]) == 2
    assert "is not of one task" in capsys.readouterr().err
    assert not os.path.exists(cache.CACHE)
