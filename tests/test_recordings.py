"""What `python -m robots` records, and its way into line 7 of Algorithm 1.

Time is simulated throughout.
"""
import io
import json
import os
import sys
from contextlib import contextmanager
from dataclasses import replace
from functools import partial
from types import SimpleNamespace

import numpy as np
import pytest
import torch

import control
import recap
from benchmarks.driver import SimulatedTime
from control import Clock, drive
from hardware import SafeRobot
from helpers import TINY_RUN, episode, options, toy_value
from labels import label
from lab import cli
from lab.given import read
from lab.files import SCRATCH, load_dataset, load_network, save_dataset, save_network
from robots.__main__ import main, stand_still
from robots.recorder import Recorder
from robots.operators import Onlooker, Person, Referees
from robots.simulated import SimRobot
from sim_tasks import TASKS
from value import predict_values

COLLAR = ["--robot", "sim:FoldCollar"]
LIMIT = TASKS["fold_collar"].max_steps

@pytest.fixture
def commands(monkeypatch):
    """`python -m robots` on a clock that does not wait, chunks at once, and no thread.

    A list of all commands that reach the simulated robot.
    """
    clock = SimulatedTime()
    defaults = [clock if isinstance(x, Clock) else x for x in drive.__defaults__]
    monkeypatch.setattr(drive, "__defaults__", tuple(defaults))
    monkeypatch.setattr(control, "in_background", control.at_once)
    watched = partial(SafeRobot, now=clock.now, thread=False)
    monkeypatch.setattr("robots.__main__.SafeRobot", watched)
    received = []
    send = SimRobot.send_action

    def send_action(robot, action):
        received.append(action)
        return send(robot, action)

    monkeypatch.setattr(SimRobot, "send_action", send_action)
    torch.manual_seed(0)  # of the policy's noise
    return received

@pytest.fixture
def person(monkeypatch):
    """person(keys, answers): sits at the keyboard, and is asked for labels on the same terminal.

    keys: a text for every step, over all episodes.  answers: a text for every episode they end.
    Returns the keys that are left.
    """

    def sit_down(keys, answers):
        left = list(keys)

        def read_keys():
            return left.pop(0) if left else ""

        @contextmanager
        def keyboard():
            yield read_keys

        monkeypatch.setattr("robots.__main__.keyboard", keyboard)
        # They are there already, and need nothing to look at.
        monkeypatch.setattr("robots.__main__.wait_for", lambda person: None)
        monkeypatch.setattr("robots.__main__.view_of", lambda task: None)
        monkeypatch.setattr(sys, "stdin", io.StringIO("".join(f"{x}\n" for x in answers)))
        return left

    return sit_down

def typed(last, at=None):
    """What the keyboard says at steps 0 ... last: enter at the last, and `at`, {step: keys}."""
    pressed = at or {}
    return [pressed.get(t, "") for t in range(last)] + ["\n"]

def assert_same(one, other):
    """Two episodes, field by field."""
    assert set(one.observations) == set(other.observations)
    for name, x in one.observations.items():
        assert np.array_equal(x, other.observations[name]), name
    for name in ("actions", "subtask", "intervention", "stages"):
        assert np.array_equal(getattr(one, name), getattr(other, name)), name
    for name in ("task", "prompt", "max_length", "success", "source", "hz", "iteration"):
        assert getattr(one, name) == getattr(other, name), name

# ---------------------------------------------------------------- line 7

@pytest.mark.slow
def test_corrections_of_a_person_are_line_7(tiny, commands, person, no_pictures, tmp_path):
    """An evening of docs/FAQ.md: π⁰ alone, then with a person; lines 1 to 9 on what they leave."""
    run = tiny[0]
    mine = str(tmp_path / "mine.npz")
    policy = f"robots.checkpoint:actor:{run}/pi_0.npz,fold_collar,1"
    evening = [*COLLAR, "--policy", policy, "--keyboard", "--iteration", "1", "--out", mine]
    # Two episodes to the time limit, which the world itself labels; one that the person ends.
    left = person([""] * (2 * LIMIT) + typed(20, {3: " q"}), ["y"])
    assert main([*evening, "--episodes", "3", "--autonomous"]) == 0
    assert left == [] and sys.stdin.read() == ""
    # A chunk begins at every fourth step.  Whoever hands back in between keeps the arm until then.
    first = typed(29, {5: " ", 6: "q", 7: "qw\te", 9: " "})  # q, w: the left arm; tab, e: the right
    second = typed(24, {0: " ", 4: " ", 9: " ", 12: " "})  # back as a chunk begins; and again
    left = person(first + second, ["yes", "n"])
    assert main([*evening, "--episodes", "2", "--seed", "3"]) == 0
    assert left == [] and sys.stdin.read() == ""

    recorded = load_dataset(mine)
    alone = recorded[:3]
    corrected = recorded[3:]
    for e in recorded:
        assert (e.task, e.prompt, e.hz, e.iteration) == ("fold_collar", "fold collar up", 10, 1)
        assert e.max_length == LIMIT
    assert [e.source for e in recorded] == ["autonomous"] * 3 + ["corrected"] * 2
    assert [len(e) for e in recorded] == [LIMIT, LIMIT, 21, 30, 25]
    assert [e.success for e in recorded] == [False, False, True, True, False]
    assert not any(e.intervention.any() for e in alone)
    taken = [np.flatnonzero(e.intervention).tolist() for e in corrected]
    assert taken == [[5, 6, 7, 8, 9, 10, 11], [0, 1, 2, 3, 9, 10, 11]]
    # In control, the robot was sent where it stood at the takeover, 0.04 further for each key,
    # and after the second space where it stood then.
    e = corrected[0]
    there = np.tile(e.observations["state"][5], (len(e), 1))
    there[6:, 0] += 0.04
    there[7:] += [0.04, 0.04, 0, 0, 0, 0.04]
    there[9:] = e.observations["state"][9]
    theirs = np.isclose(e.actions, there, atol=1e-6).all(1)
    assert np.array_equal(theirs, e.intervention)

    # Joined with the demonstrations, as the page says.
    joined = str(tmp_path / "joined.npz")
    save_dataset(load_dataset(f"{run}/D_0.npz") + recorded, joined)
    used = {}

    def watched(s, keep):
        def watch(name, make, *arguments):
            used[name] = arguments
            return keep(name, make, *arguments)

        return recap.recap(s, watch)

    sizes = {name: x for name, x in TINY_RUN.items() if name not in ("task", "iterations")}
    out = tmp_path / "out"
    asked = ["--task", "fold_collar", "--data", joined, "--iterations", "1"]
    asked += ["--positive", "0.1", *options(sizes), "--out", str(out)]
    assert cli.main(watched, recap.supervised, None, asked) == 0
    # To the end: π¹ is evaluated.
    metrics = json.loads((out / "metrics.json").read_text(encoding="utf-8"))
    assert metrics["stages"][-1]["name"] == "recap_1"
    # D_1 are two rollouts (the third is held out for V) and the corrections.
    D_1 = load_dataset(out / "D_1.npz")
    assert len(D_1) == 4
    for e, expected in zip(D_1, [*alone[:2], *corrected]):
        assert_same(e, expected)
    # π¹ is trained on them: I is True where the person was in control, else it is V's judgement.
    _, D, I, s, _ = used["pi_1"]
    for e, expected in zip(D[-4:], D_1):
        assert_same(e, expected)
    values = predict_values(load_network(out / "V_1.npz"), D)
    judged = label(values, D, replace(s, force_corrections=False), iteration=1)
    for e, labels, by_value in zip(D, I, judged):
        assert labels[e.intervention].all()
        assert np.array_equal(labels, by_value | e.intervention)
    # V would have said so of none: to one that knows nothing the best steps are the last ones.
    theirs = np.concatenate([x[e.intervention] for e, x in zip(D, judged)])
    assert len(theirs) == 14 and not theirs.any()

# ---------------------------------------------------------------- the file

def test_recordings_are_added_to_what_is_there(tmp_path, commands):
    """Two sessions, one file."""
    out = str(tmp_path / "mine.npz")
    assert main([*COLLAR, "--iteration", "1", "--autonomous", "--out", out]) == 0
    (before,) = load_dataset(out)
    assert main([*COLLAR, "--iteration", "2", "--episodes", "2", "--seed", "5", "--out", out]) == 0
    episodes = load_dataset(out)
    assert len(commands) == sum(len(e) for e in episodes)
    assert_same(episodes[0], before)
    assert [e.iteration for e in episodes] == [1, 2, 2]
    assert [e.source for e in episodes] == ["autonomous", "corrected", "corrected"]
    assert [bool(e.intervention.any()) for e in episodes] == [False, True, True]

def test_recordings_are_added_to_any_dataset_that_fits(tmp_path, commands):
    """What those of the next test are not: refused for nothing."""
    out = str(tmp_path / "mine.npz")
    before = episode(7, task="fold_collar")
    save_dataset([before], out)
    assert main([*COLLAR, "--out", out]) == 0
    episodes = load_dataset(out)
    assert len(episodes) == 2 and commands
    assert_same(episodes[0], before)

def left_behind(path, *episodes):
    """What a session leaves that is killed."""
    recorder = Recorder(path)
    recorder.__enter__()
    for e in episodes:
        recorder.add(e)

def lengths(path):
    return [len(e) for e in load_dataset(path)]

def test_what_a_killed_session_recorded_is_kept_whatever_became_of_the_file(tmp_path):
    out = str(tmp_path / "mine.npz")
    save_dataset([episode(3)], out)
    left_behind(out, episode(9), episode(8))
    # Meanwhile somebody puts others in front of what is there.
    save_dataset([episode(4), episode(5), episode(6), *load_dataset(out)], out)
    with Recorder(out):
        pass
    assert lengths(out) == [4, 5, 6, 3, 9, 8]
    # Killed after it joined them, before it removed the files: they are there already.
    left_behind(out, episode(7))
    save_dataset([*load_dataset(out), episode(7)], out)
    with Recorder(out):
        pass
    assert lengths(out) == [4, 5, 6, 3, 9, 8, 7]
    assert os.listdir(tmp_path) == ["mine.npz"]

def test_who_reads_a_dataset_is_told_what_a_killed_session_left_beside_it(tmp_path, capsys):
    out = str(tmp_path / "mine.npz")
    save_dataset([episode(3)], out)
    assert len(read(out, None)) == 1 and capsys.readouterr().err == ""
    left_behind(out, episode(9), episode(8))
    assert len(read(out, None)) == 1
    said = capsys.readouterr().err
    assert said.startswith(f"warning: without 2 episodes in {out}.episodes (python -m robots")

def test_a_session_killed_while_it_wrote_locks_nobody_out(tmp_path):
    out = str(tmp_path / "mine.npz")
    left_behind(out, episode(3))
    (tmp_path / "mine.npz.episodes" / f"{SCRATCH}x").mkdir()
    for n in (4, 5):
        with Recorder(out) as recorder:
            recorder.add(episode(n))
    assert lengths(out) == [3, 4, 5]

def test_two_sessions_with_one_file_lose_nothing(tmp_path):
    out = str(tmp_path / "mine.npz")
    one, other = Recorder(out).__enter__(), Recorder(out).__enter__()
    one.add(episode(3))
    other.add(episode(4))
    one.__exit__()
    other.add(episode(5))
    other.__exit__()
    assert sorted(lengths(out)) == [3, 4, 5]

def text(path):
    path.write_text("a diary\nof two lines\n", encoding="utf-8")

def checkpoint(path):
    save_network(toy_value(width=16, layers=1), str(path))

def dataset(changes=None, **fields):
    """A `write` of a dataset that would fit but for these changes of an episode."""

    def write(path):
        e = replace(episode(7), **fields)
        observations = {name: change(e.observations) for name, change in (changes or {}).items()}
        observations = e.observations | observations
        observations = {name: x for name, x in observations.items() if x is not None}
        save_dataset([replace(e, observations=observations)], str(path))

    return write

REFUSED = {
    "a text": (text, ["not a dataset", "expected a new file"]),
    "a checkpoint": (checkpoint, ["not a dataset", "expected a new file"]),
    "another rate": (dataset(hz=50), ["50 Hz", "expected 10"]),
    "another state": (dataset({"state": lambda seen: seen["state"][:, :5]}), ["(5,)", "(6,)"]),
    "other keypoints": (dataset({"keypoints": lambda seen: seen["keypoints"][:, :2]}), ["(2, 20)"]),
    "no keypoints": (dataset({"keypoints": lambda seen: None}), ["keypoints", "expected"]),
    "a camera": (dataset({"base": lambda seen: np.zeros((7, 4, 4, 3), np.uint8)}), ["base"]),
}

@pytest.mark.parametrize("name", REFUSED)
def test_recordings_are_not_added_to_anything_else(name, tmp_path, commands, capsys):
    write, words = REFUSED[name]
    out = tmp_path / "mine.npz"
    write(out)
    before = out.read_bytes()
    assert main([*COLLAR, "--out", str(out)]) == 2
    line = capsys.readouterr().err
    assert line.startswith("python -m robots: error: ") and line.count("\n") == 1
    assert str(out) in line and all(word in line for word in words), line
    assert out.read_bytes() == before
    assert commands == []

def test_a_dataset_is_called_one(commands, tmp_path, capsys):
    """Whoever reads it goes by its name."""
    assert main([*COLLAR, "--out", str(tmp_path / "mine")]) == 2
    assert "mine, expected a name that ends in .npz" in capsys.readouterr().err and not commands

def test_an_iteration_is_not_negative(commands, capsys):
    assert main([*COLLAR, "--iteration", "-1"]) == 2
    assert "--iteration: -1, expected 0 or more" in capsys.readouterr().err
    assert commands == []

def test_teleoperation_is_demonstration(commands, person, tmp_path, monkeypatch):
    """With a policy that stands still there is nobody to correct."""
    monkeypatch.setattr("robots.__main__.load", lambda name: stand_still)
    person(typed(9, {2: " q"}), ["y"])
    out = str(tmp_path / "mine.npz")
    assert main([*COLLAR, "--policy", "mine:still", "--keyboard", "--out", out]) == 0
    (e,) = load_dataset(out)
    assert (e.source, e.iteration, e.success, len(e)) == ("demonstration", 0, True, 10)

# ---------------------------------------------------------------- who looks on

def test_an_onlooker_never_takes_over_but_ends_the_episode(commands, person, tmp_path):
    """Up to there it is the episode of nobody at all."""
    nobody = str(tmp_path / "nobody.npz")
    assert main([*COLLAR, "--autonomous", "--out", nobody]) == 0
    left = person(typed(9, {2: " ", 3: "qw\td", 6: " "}), ["n"])
    looked_on = str(tmp_path / "looked_on.npz")
    assert main([*COLLAR, "--autonomous", "--keyboard", "--out", looked_on]) == 0
    assert left == [] and sys.stdin.read() == ""
    (whole,) = load_dataset(nobody)
    (e,) = load_dataset(looked_on)
    assert (e.source, e.success, len(e)) == ("autonomous", False, 10) and len(whole) > 10
    assert not e.intervention.any()
    assert np.array_equal(e.actions, whole.actions[:10])

def test_an_onlooker_stops_the_robot(commands, person, tmp_path, capsys):
    """Nobody ended the second episode: it stays, not labelled, and the first one is safe."""
    out = str(tmp_path / "mine.npz")
    person([*typed(5), "", "", "", "x"], ["y"])
    assert main([*COLLAR, "--autonomous", "--keyboard", "--episodes", "3", "--out", out]) == 2
    assert "EmergencyStop" in capsys.readouterr().err
    assert len(commands) == 6 + 3
    assert [(e.success, len(e)) for e in load_dataset(out)] == [(True, 6), (None, 3)]

def test_what_a_person_discards_is_done_again(commands, person, tmp_path):
    out = str(tmp_path / "mine.npz")
    left = person(typed(4) + typed(6), ["r", "y"])
    assert main([*COLLAR, "--keyboard", "--out", out]) == 0
    assert left == [] and sys.stdin.read() == ""
    assert [(e.success, len(e)) for e in load_dataset(out)] == [(True, 7)]

def test_an_onlooker_asks_a_person_and_lets_nothing_through():
    presses = ["", " q", " "]
    operator = Person(None, lambda: presses.pop(0))
    onlooker = Onlooker(operator)
    seen = {"state": np.zeros((1, 6))}
    for in_control in (False, True, False):
        assert onlooker.wants_control(seen).tolist() == [False]
        assert operator.in_control == in_control
    assert presses == []

# ---------------------------------------------------------------- who labels

def referee(over, success, name):
    return SimpleNamespace(
        over=lambda: over, outcome=lambda: (success, [success]), subtask=lambda: name
    )

# which of the two have ended the episode, and whose label it is
ENDS = [((False, False), 0), ((True, False), 0), ((False, True), 1), ((True, True), 0)]

@pytest.mark.parametrize("over, who", ENDS)
def test_whoever_ends_the_episode_labels_it(over, who):
    for success in (True, False):
        said = [not success, not success]
        said[who] = success
        both = Referees([referee(over[0], said[0], "lift"), referee(over[1], said[1], "wave")])
        assert both.over() == any(over)
        assert both.outcome() == (success, [success])
        assert both.subtask() == "lift"

def test_a_person_is_not_asked_what_the_world_knows(commands, person, tmp_path, capsys):
    """The hasty policy fails by itself, and the person who looks on has nothing to say."""
    out = str(tmp_path / "mine.npz")
    person([], [])
    assert main([*COLLAR, "--autonomous", "--keyboard", "--seed", "1", "--out", out]) == 0
    (e,) = load_dataset(out)
    assert e.success is False and e.stages.tolist() == [False]
    assert "success?" not in capsys.readouterr().out
