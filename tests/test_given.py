"""From data alone: how episodes that somebody brings are cut, and Algorithm 1 on them."""
import json
import os
import subprocess
import sys
from dataclasses import replace

import numpy as np
import pytest

import recap
import sim_tasks
from collection import demonstrate
from data import WORDS, stack_steps, task_of
from helpers import ROOT, options
from lab import cli
from lab.files import load_dataset, load_network, save_dataset
from lab.given import datasets, split
from settings import Settings
from value import predict_values

NAME = "fold the napkin"
SIZES = dict(
    pretraining_steps=3, sft_steps=2, policy_steps=3, value_pretraining_steps=3, value_steps=2,
    batch=8, value_batch=8,
)  # fmt: skip

def foreign(n, iteration=0, source="demonstration", first_seed=0):
    """Demonstrations of FoldCollar as somebody else's robot would record them.

    Another name, 50 Hz, a state of 14 numbers and no keypoints.
    """
    seeds = range(first_seed, first_seed + n)
    episodes = []
    for e in demonstrate(sim_tasks.TASKS["fold_collar"], seeds, "mixed"):
        points = e.observations["keypoints"][:, :, :2].reshape(len(e), 8)
        state = np.concatenate([e.observations["state"], points], 1)  # (T, 14)
        taken = np.arange(len(e)) % 5 == 0 if source == "corrected" else e.intervention
        episodes.append(
            replace(
                e, task=NAME, prompt=NAME, hz=50.0, observations={"state": state}, source=source,
                subtask=np.array(["turn over"] * len(e)), metadata="", iteration=iteration,
                intervention=taken,
            )  # fmt: skip
        )
    return episodes

@pytest.fixture(scope="module")
def demos():
    return foreign(12)

@pytest.fixture(scope="module")
def whole(demos):
    """Demonstrations, and two iterations of somebody's policy and corrections."""
    data = list(demos)
    for k in (1, 2):
        data += foreign(5, k, "autonomous", 20 * k) + foreign(2, k, "corrected", 20 * k + 10)
    return data

@pytest.fixture(autouse=True)
def nothing_added(monkeypatch):
    monkeypatch.setattr(sim_tasks, "ADDED", {})

def settings_of(episodes, **changes):
    sim_tasks.add_task(task_of(episodes))
    return Settings(task=NAME, **changes)

def same(one, other):
    return np.array_equal(one.actions, other.actions) and one.iteration == other.iteration

# ---------------------------------------------------------------- how they are cut

@pytest.mark.parametrize(
    "n, out", [(1, []), (2, [1]), (3, [2]), (9, [8]), (10, [9]), (35, [9, 19, 29])]
)
def test_every_tenth_episode_is_held_out_and_one_of_two(n, out):
    kept, heldout = split(list(range(n)))
    assert heldout == out and kept == [i for i in range(n) if i not in out]

def test_what_is_held_out_is_never_trained_on(whole):
    s = settings_of(whole, iterations=2)
    found = datasets(whole, s)
    assert set(found) == {
        "D_demo", "D_0", "D_1", "D_2", "held out V_pre", "held out V_1", "held out V_2",
    }  # fmt: skip
    trained = [e for name in ("D_demo", "D_0", "D_1", "D_2") for e in found[name]]
    heldout = [e for name, D in found.items() if name.startswith("held out") for e in D]
    assert not {id(e) for e in trained} & {id(e) for e in heldout}
    # Nothing is lost: what is not held out is trained on, in its own iteration.
    assert {id(e) for e in trained + heldout} == {id(e) for e in whole}
    for k in (0, 1, 2):
        assert {e.iteration for e in found[f"D_{k}"]} == {k}
        out = found[f"held out V_{k or 'pre'}"]
        assert out and {e.iteration for e in out} == {k}
    # V is checked on what π did alone.
    assert {e.source for e in found["held out V_1"]} == {"autonomous"}
    assert {e.source for e in found["D_1"]} == {"autonomous", "corrected"}

def test_other_tasks_of_the_data_are_pre_trained_on(demos):
    others = [replace(e, task="other", prompt="turn over") for e in demos[:3]]
    s = settings_of(demos + others, iterations=0)
    found = datasets(demos + others, s)
    assert {e.task for e in found["D_demo"]} == {NAME, "other"}
    assert {e.task for e in found["D_0"] + found["held out V_pre"]} == {NAME}

def test_a_task_is_what_the_data_say_of_themselves(demos):
    task = task_of(demos)
    assert (task.name, task.prompt, task.subtasks) == (NAME, NAME, ("turn over",))
    assert (task.hz, task.max_steps, task.action_dim, task.n_arms) == (50.0, 55, 6, 2)
    assert not (task.has_world or task.has_demonstrator or task.has_coach)
    found = settings_of(demos).interface
    assert (found.state_dim, found.keypoints, found.absolute) == (14, (), (2, 5))
    assert found.vocabulary == (*WORDS, *"fold the napkin turn over".split())
    states = np.concatenate([e.observations["state"] for e in demos])
    np.testing.assert_allclose(found.state_mean, states.mean(0), rtol=1e-4)
    np.testing.assert_allclose(found.state_std, np.maximum(states.std(0), 1e-3), rtol=1e-4)
    # An odd number of actions is one arm; a state of fewer numbers says nothing of actions.
    odd = [replace(e, actions=e.actions[:, :5]) for e in demos]
    assert task_of(odd).n_arms == 1
    for n, arms in ((2, 1), (4, 2)):
        assert task_of([replace(e, actions=e.actions[:, :n]) for e in demos]).n_arms == arms
    few = [replace(e, observations={"state": e.observations["state"][:, :4]}) for e in demos]
    assert task_of(few).absolute == (0, 1, 2, 3, 4, 5)

def test_settings_of_such_a_task_are_in_seconds(demos):
    s = settings_of(demos)
    assert (s.lookahead, s.horizon, s.execute, s.corrected) == (50, 40, 20, 0)

# ---------------------------------------------------------------- python recap.py --data

def main(*arguments):
    return cli.main(recap.recap, recap.supervised, None, [str(x) for x in arguments])

def json_of(folder, name):
    with open(os.path.join(folder, name), encoding="utf-8") as file:
        return json.load(file)

@pytest.fixture
def saved(tmp_path, demos):
    path = str(tmp_path / "D.npz")
    save_dataset(demos, path)
    return path

def test_lines_1_and_2_run_on_demonstrations_and_end_with_checks(saved, demos, tmp_path, capsys):
    out = tmp_path / "out"
    assert main("--data", saved, *options(SIZES), "--out", out) == 0
    printed = capsys.readouterr().out
    assert "there is no world in which to evaluate the policy" in printed
    layout = "actions: taken as arms: 2, numbers of each: 3, no targets for the state: 2, 5"
    assert layout in printed
    assert "V_pre held out" in printed and "β" not in printed.replace("by η", "")
    metrics = json_of(out, "metrics.json")
    assert metrics["task"] == NAME and metrics["stages"] == [] and metrics["labels"] == []
    assert metrics["settings"]["iterations"] == 0
    for report in (metrics["value"], metrics["value"]["V_pre"]):
        assert {"heldout_loss", "train_loss", "heldout_correlation"} <= set(report)
        assert report["heldout_loss"] > 0
    # Uniform but for three steps: ln 201.
    assert metrics["value"]["heldout_loss"] == pytest.approx(np.log(201), rel=0.05)
    D = load_dataset(out / "D_demo.npz")
    assert len(D) == 11 and not any(same(e, demos[9]) for e in D)
    for name in ("V_pre", "pi_pre", "V_0", "pi_0"):
        network = load_network(out / f"{name}.npz")
        assert network.config.interface.state_dim == 14 and network.config.interface.hz == 50
    assert load_network(out / "pi_0.npz").config.horizon == 40
    assert not (out / "D_1.npz").exists()

@pytest.mark.slow
def test_lines_8_and_9_run_on_the_iterations_of_the_data(
    whole, tmp_path, capsys, monkeypatch
):
    path = tmp_path / "D.npz"
    save_dataset(whole, path)
    out = tmp_path / "out"
    assert main("--data", path, *options(SIZES), "--out", out) == 0
    printed = capsys.readouterr().out
    for name in ("V_1 held out", "V_2 held out", "labels 1", "labels 2", "pi_2"):
        assert f"] {name} " in printed
    metrics = json_of(out, "metrics.json")
    assert metrics["settings"]["iterations"] == 2 and metrics["stages"] == []
    assert [found["iteration"] for found in metrics["labels"]] == [1, 2]
    labels = metrics["labels"][1]
    # ε_ℓ is of the newest rollouts, of which a fifth is positive; a fifth was corrected.
    assert labels["positive_fraction_rollouts"] == pytest.approx(0.2, abs=0.02)
    assert labels["corrected_fraction"] == pytest.approx(0.2, abs=0.02)
    assert labels["positive_given_good"] is labels["positive_given_bad"] is None
    for k in (1, 2):
        given = [e for e in whole if e.iteration == k]
        used = load_dataset(out / f"D_{k}.npz")
        assert len(used) == len(given) - 1 and all(any(same(e, x) for x in given) for e in used)
    one = tmp_path / "one"
    asked = []
    monkeypatch.setattr(cli, "finish", lambda run, report: None)
    arguments = ["--data", str(path), "--iterations", "1", "--out", str(one)]
    assert cli.main(lambda s, keep: asked.append(s.iterations), None, None, arguments) == 0
    assert asked == [1]  # recap.recap makes as many: test_recap.py

def test_such_a_run_goes_on_where_it_was_interrupted(saved, tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert main("--data", "D.npz", *options(SIZES), "--out", "out") == 0
    expected = load_network("out/pi_0.npz").state_dict()
    for name in ("pi_0.npz", "V_0.npz", "metrics.json"):
        os.remove(os.path.join("out", name))
    sim_tasks.ADDED.clear()  # as in a new process
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    monkeypatch.chdir(elsewhere)
    assert main("--resume", tmp_path / "out") == 0
    again = load_network(tmp_path / "out" / "pi_0.npz").state_dict()
    assert all((x == again[name]).all() for name, x in expected.items())
    assert json_of(tmp_path / "out", "metrics.json")["task"] == NAME
    capsys.readouterr()
    os.remove(saved)
    assert main("--resume", tmp_path / "out") == 2
    line = capsys.readouterr().err.strip()
    assert "\n" not in line and "D.npz" in line

def test_a_first_look_at_a_task_that_the_data_name(saved, tmp_path):
    out = tmp_path / "out"
    assert main("--quick", "--data", saved, "--task", NAME, *options(SIZES), "--out", out) == 0
    assert json_of(out, "metrics.json")["task"] == NAME

def test_who_does_not_know_the_task_of_the_data_measures_nothing(saved, tmp_path, monkeypatch):
    """A process that is spawned, as on Windows, has only what it imports."""
    monkeypatch.setattr("lab.workers.multiprocessing.get_start_method", lambda: "spawn")
    monkeypatch.setattr("lab.aside.workers", None)
    assert main("--data", saved, *options(SIZES), "--out", tmp_path / "out") == 0

# ---------------------------------------------------------------- data, and a world

WORLD = """
import numpy as np
from sim_tasks.task import Task

class Napkin:
    stage = 0
    lost = False

    def reset(self, seed):
        self.state = np.zeros(14)

    def observe(self):
        return {"state": self.state}

    def step(self, action):
        self.state[:6] = action

NAPKIN = Task(
    name="fold the napkin", prompt="fold the napkin", subtasks=("turn over",), hz=50.0,
    max_steps=55, action_dim=6, scene=Napkin,
)
"""

@pytest.fixture
def world(tmp_path):
    """A world of the task of the data, without an expert."""
    path = tmp_path / "napkin.py"
    path.write_text(WORLD, encoding="utf-8")
    return f"{path}:NAPKIN"

def test_where_there_is_a_world_algorithm_1_goes_on_after_the_data(
    saved, whole, world, tmp_path, monkeypatch
):
    """K is its default there, or that of the data, if they have more; --quick has its own."""
    assert cli.with_data({"data": saved}, None)[0].iterations == 0
    later = [replace(e, iteration=3) for e in whole if e.iteration == 2]
    found = []
    for name, episodes in (("two", whole), ("three", whole + later)):
        path = str(tmp_path / f"{name}.npz")
        save_dataset(episodes, path)
        found.append(cli.with_data({"data": path, "task": world}, None)[0].iterations)
    found.append(cli.with_data({"data": saved, "task": world}, None)[0].iterations)
    asked = {"data": saved, "task": world, "iterations": 0}
    found.append(cli.with_data(asked, None)[0].iterations)
    assert found == [2, 3, 2, 0]
    asked = []
    monkeypatch.setattr(cli, "finish", lambda run, report: None)
    arguments = ["--quick", "--data", saved, "--task", world, "--out", str(tmp_path / "out")]
    assert cli.main(lambda s, keep: asked.append(s), None, None, arguments) == 0
    assert (asked[0].iterations, asked[0].corrected) == (1, 0)

def filmed(demos, height, width):
    """The demonstrations with images whose left half is bright."""
    found = []
    for e in demos:
        top = np.zeros((len(e), height, width, 3), np.uint8)
        top[:, :, : width // 2] = 200
        found.append(replace(e, observations=e.observations | {"top": top}))
    return found

@pytest.mark.parametrize("size, side", [("toy", 24), ("small", 64)])
def test_images_that_are_no_squares_become_those_that_the_networks_read(
    demos, size, side, tmp_path
):
    """So a robot's own recordings, of 128 x 96 pixels, can be learned from."""
    path = str(tmp_path / "D.npz")
    save_dataset(filmed(demos, 96, 128), path)
    s, found = cli.with_data({"data": path, "vision": True, "size": size}, None)
    top = found["D_0"][0].observations["top"]
    assert s.interface.cameras == ("top",) and s.interface.image == side
    assert top.shape[1:] == (side, side, 3)
    assert (top[:, :, : side // 2] == 200).all() and (top[:, :, side // 2 :] == 0).all()
    save_dataset(filmed(demos, 48, 48), path)  # squares stay
    s, found = cli.with_data({"data": path, "vision": True, "size": size}, None)
    assert s.interface.image == found["D_0"][0].observations["top"].shape[1] == 48
    s, found = cli.with_data({"data": path, "size": size}, None)
    assert s.interface.cameras == ()

def test_of_lerobot_images_are_asked_for_as_large_as_the_world_shows_them(demos, world, tmp_path):
    with open(world.rpartition(":")[0], "a", encoding="utf-8") as file:
        file.write("""
class Filmed(Napkin):
    def observe(self):
        return super().observe() | {"top": np.zeros((40, 40, 3), np.uint8)}

from dataclasses import replace
NAPKIN = replace(NAPKIN, scene=Filmed)
""")
    asked = []

    def read_lerobot(path, cameras, side):
        asked.append((cameras, side))
        return filmed(demos, side, side) if side else demos

    folder = str(tmp_path)
    s, _ = cli.with_data({"data": folder, "task": world, "vision": True}, read_lerobot)
    assert s.interface.image == 40
    s, _ = cli.with_data({"data": folder, "vision": True, "size": "small"}, read_lerobot)
    assert s.interface.image == 64
    cli.with_data({"data": folder}, read_lerobot)
    assert asked == [(None, 40), (None, 64), ((), None)]

def test_iterations_of_another_task_of_the_data_do_not_count(demos, tmp_path):
    others = [replace(e, task="other", iteration=1, source="autonomous") for e in demos[:2]]
    path = str(tmp_path / "D.npz")
    save_dataset(demos + others, path)
    s, found = cli.with_data({"data": path}, None)
    assert s.iterations == 0 and set(found) == {"D_demo", "D_0", "held out V_pre"}

def test_one_demonstration_will_not_do_where_nobody_shows_another(
    demos, world, tmp_path, capsys
):
    path = tmp_path / "D.npz"
    save_dataset(demos[:1], path)
    line = complaint(capsys, tmp_path / "out", "--data", path, "--task", world)
    assert "data: one episode of iteration 0, expected two or more" in line

# ---------------------------------------------------------------- what cannot be

def complaint(capsys, out, *arguments):
    """The line that it ends with; nothing was made."""
    assert main(*arguments, *options(SIZES), "--out", out) == 2
    line = capsys.readouterr().err.strip()
    assert line.startswith("recap.py: error: ") and "\n" not in line
    assert not os.path.exists(out)
    return line

def spoil(demos, i, **change):
    """The demonstrations with another episode i."""
    data = list(demos)
    data[i] = replace(data[i], **change)
    return data

def without_state(demos):
    return [replace(e, observations={"force": e.observations["state"]}) for e in demos]

def rollouts_without_demonstrations(demos):
    return [replace(e, iteration=1, source="autonomous") for e in demos]

def corrected_alone(demos):
    return demos + [replace(e, iteration=1, source="corrected") for e in demos[:3]]

@pytest.mark.parametrize(
    "change, more, words",
    [
        (lambda D: spoil(D, 4, success=None), [], ["success", "1 of 12", "4"]),
        (rollouts_without_demonstrations, [], ["data", "iteration 0"]),
        (without_state, [], ["force", "'state'"]),
        (corrected_alone, [], ["data", "no autonomous", "iteration 1"]),
        (lambda D: D[:1], [], ["data", "one episode", "two or more"]),
        (lambda D: D, ["--iterations", 3], ["--iterations: 3", "0 of the data"]),
        (lambda D: D, ["--task", "box"], ["data", "'box'", NAME]),
        (lambda D: D, ["--task", "juggle"], ["task: 'juggle'"]),
        (lambda D: spoil(D, 3, hz=10.0), [], ["hz", "10.0", "50.0"]),
        (lambda D: D, ["--corrected", 5], ["corrected: 5", "no coach"]),
    ],
)
def test_data_that_will_not_do_are_said_in_one_line(demos, change, more, words, tmp_path, capsys):
    path = tmp_path / "D.npz"
    save_dataset(change(list(demos)), path)
    line = complaint(capsys, tmp_path / "out", "--data", path, *more)
    assert all(word in line for word in words), line

def test_files_that_will_not_do_are_said_in_one_line(saved, tmp_path, capsys):
    out = tmp_path / "out"
    assert "none.npz" in complaint(capsys, out, "--data", tmp_path / "none.npz")
    with open(saved, "rb") as file:
        content = file.read()
    (tmp_path / "half.npz").write_bytes(content[: len(content) // 2])
    assert "half.npz" in complaint(capsys, out, "--data", tmp_path / "half.npz")
    # A folder takes pyarrow, which here there is not.
    line = complaint(capsys, out, "--data", tmp_path)
    assert "pip install -r requirements-lerobot.txt" in line

def test_data_meet_a_checkpoint_of_other_sizes_or_words(saved, demos, tmp_path):
    out = tmp_path / "out"
    assert main("--data", saved, *options(SIZES), "--out", out) == 0
    V = load_network(out / "V_pre.npz")
    pi = load_network(out / "pi_0.npz")
    assert len(predict_values(V, demos)) == 12

    def told(episodes):
        with pytest.raises(ValueError) as error:
            predict_values(V, episodes)
        assert "\n" not in str(error.value)
        return str(error.value)

    short = {"state": demos[0].observations["state"][:, :6]}
    assert told(spoil(demos, 0, observations=short)[:1]) == (
        "state: shape (6,), expected (14,) as the networks read it"
    )
    message = told([replace(demos[0], prompt="fold the napkins")])
    assert "unknown words ['napkins']" in message and "nearest: napkin" in message
    message = told([replace(demos[0], prompt="fold the napkin turn over turn")])
    assert message.startswith("text: 6 words") and message.endswith("expected at most 5")
    fewer = replace(demos[0], actions=demos[0].actions[:, :4])
    with pytest.raises(ValueError, match=r"actions: shape \(4,\), expected \(6,\)"):
        stack_steps([fewer], pi.config.interface, horizon=pi.config.horizon)

@pytest.mark.slow
def test_a_checkpoint_of_data_loads_where_the_data_are_not(saved, demos, tmp_path):
    """In a process that knows neither the data nor the toys."""
    out = tmp_path / "out"
    assert main("--data", saved, *options(SIZES), "--out", out) == 0
    V = load_network(out / "V_pre.npz")
    expected = predict_values(V, demos[:1])[0][:3]
    os.remove(saved)
    script = """
import sys, types
class Toy:  # in the place of the toys: a name, and no sizes or words
    def __init__(self, **fields):
        self.name, self.max_steps = fields["name"], fields["max_steps"]
sys.modules["sim_tasks.toys"] = types.SimpleNamespace(Toy=Toy)
import sim_tasks
sim_tasks.TASKS.clear()
import torch
from lab.files import load_dataset, load_network
from value import predict_values
V = load_network(sys.argv[1] + "/V_pre.npz")
print(*predict_values(V, load_dataset(sys.argv[1] + "/D_demo.npz")[:1])[0][:3])
print(load_network(sys.argv[1] + "/pi_0.npz").config.interface == V.config.interface)
"""
    done = subprocess.run(
        [sys.executable, "-c", script, str(out)], cwd=ROOT, capture_output=True, text=True,
        encoding="utf-8",
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    numbers, equal = done.stdout.splitlines()
    np.testing.assert_allclose([float(x) for x in numbers.split()], expected, atol=1e-6)
    assert equal == "True"

def test_rollouts_of_iteration_0_and_too_long_episodes_are_refused(demos):
    """SFT would call a policy's failures positive; the returns would fail after training."""
    sim_tasks.add_task(task_of(demos))
    s = Settings(task=NAME)
    stray = [replace(e, source="autonomous") for e in demos[:2]]
    with pytest.raises(ValueError, match="2 autonomous episodes of iteration 0"):
        datasets([*demos, *stray], s)
    long = replace(demos[0], max_length=len(demos[0]) - 1)
    with pytest.raises(ValueError, match="max_length"):
        datasets([*demos, long], s)
