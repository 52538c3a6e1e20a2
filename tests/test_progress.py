"""lab/progress.py and lab/words.py: lines and losses of a run, while it runs."""
import json
import sys
import types

import pytest

import recap
from helpers import TINY_RUN, TINY_POLICY, episode, fresh
from lab import cli, progress
from lab.progress import Progress, Stage, clock, read_history, stages_of
from lab.words import flow_words, label_words, value_words
from policy import VLA
from settings import Settings

class Watch:
    """A clock that is set."""

    def __init__(self):
        self.now = 0.0

    def __call__(self):
        return self.now

def test_the_stages_are_those_that_algorithm_1_makes():
    for settings, n in (({}, 12), ({"iterations": 0}, 6), ({"supervised": True}, 15)):
        s = Settings(**settings)
        made = []

        def keep(name, make, *arguments):
            made.append((name, arguments[-1] if name[0] != "D" else 0))
            return [episode(3)] if name[0] == "D" else fresh(VLA, TINY_POLICY)

        patched = pytest.MonkeyPatch()
        patched.setattr(recap, "predict_values", lambda V, D: [])
        patched.setattr(recap, "label", lambda *given, **named: [])
        if s.supervised:
            recap.supervised(s, keep)
        recap.recap(s, keep)
        patched.undo()
        stages = stages_of(s)
        assert {name: stage.steps for name, stage in stages.items()} == dict(made)
        assert len(stages) == n

def told(tmp_path, capsys, seconds):
    """A `Progress` of three stages, and a function that returns what it printed since."""
    stages = {"D_0": Stage(0, 10, 0), "V_0": Stage(100, 80, 10), "pi_0": Stage(200, 80, 20)}
    made = Progress(stages, str(tmp_path / "history.jsonl"), seconds)

    def lines():
        return capsys.readouterr().out.splitlines()

    return made, lines

def test_where_there_is_no_terminal_a_line_comes_every_ten_seconds_at_most(tmp_path, capsys):
    seconds = Watch()
    run, lines = told(tmp_path, capsys, seconds)
    run.begin("D_0")
    seconds.now = 5.0
    run.end("D_0", made=True)
    run.begin("V_0")
    assert lines() == []
    for step in range(10, 101, 10):
        seconds.now += 4.0
        run.watch(step, 3.0, 1.0)
    shown = lines()
    assert [line[:9] for line in shown] == ["[   13 s]", "[   25 s]", "[   37 s]"]
    # At 25 s: 10 + 80 / 2 of 200 are done, so 150 are left, at half a second each.
    what = "V_0, value function: 50%, loss 3.000, 1:15 to go"
    assert shown[1] == f"[   25 s] {'stage 2 of 3':<18} {what}"
    assert all(len(line) <= 100 for line in shown)

def test_what_an_earlier_process_made_says_nothing_about_the_speed(tmp_path, capsys):
    seconds = Watch()
    seconds.now = 1000.0
    run, lines = told(tmp_path, capsys, seconds)
    for name in ("D_0", "V_0"):
        run.begin(name)
        run.end(name, made=False)
    run.begin("pi_0")
    seconds.now = 1020.0
    run.watch(100, 3.0, 1.0)  # 40 of 100 in 20 s
    assert lines()[-1].endswith("stage 3 of 3       pi_0, policy: 50%, loss 3.000, 0:30 to go")

def test_on_a_terminal_it_is_one_bar(tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True, raising=False)
    seconds = Watch()
    run, _ = told(tmp_path, capsys, seconds)
    run.begin("V_0")
    seconds.now = 8.0
    run.watch(50, 3.25, 1.0)
    run.line("a line above")
    run.close()
    shown = capsys.readouterr()
    assert shown.out == "a line above\n"
    last = [x for x in shown.err.split("\r") if "3.25" in x][0]
    begin = "stage 1 of 3: V_0, value function: 50%, loss 3.250, 0:08, 0:32 to go |"
    assert last.startswith(begin) and len(last) <= 100

def test_a_history_is_that_of_the_last_process(tmp_path, capsys):
    path = tmp_path / "history.jsonl"
    run, _ = told(tmp_path, capsys, Watch())
    run.begin("V_0")
    for step in (10, 20):
        run.watch(step, 2.0, 0.5)
    with open(path, "a", encoding="utf-8") as file:
        file.write('{"name": "V_0", "st')  # killed as it wrote
    run.watch(30, 9.0, 0.5)  # lost with it
    run.watch(40, 9.0, 0.5)
    for step in (10, 20, 30):  # made again
        run.watch(step, 1.0, 0.25)
    run.begin("pi_0")
    run.watch(5, 4.0, 1.0)
    assert read_history(path) == {
        "V_0": [[10, 1.0, 0.25], [20, 1.0, 0.25], [30, 1.0, 0.25]], "pi_0": [[5, 4.0, 1.0]],
    }  # fmt: skip
    assert json.loads(path.read_text().splitlines()[0]) == {
        "name": "V_0", "step": 10, "of": 100, "loss": 2.0, "norm": 0.5,
    }  # fmt: skip
    assert read_history(tmp_path / "none") == {}

def test_tensorboard_gets_the_same_scalars(tiny, tmp_path, monkeypatch, capsys):
    scalars = []
    module = types.ModuleType("torch.utils.tensorboard")

    class SummaryWriter:
        def __init__(self, folder):
            scalars.append(folder)

        def add_scalar(self, *given):
            scalars.append(given)

        def close(self):
            scalars.append("closed")

    module.SummaryWriter = SummaryWriter
    monkeypatch.setitem(sys.modules, "torch.utils.tensorboard", module)
    make = progress.summary_writer()
    run = Progress({}, str(tmp_path / "history.jsonl"), Watch(), make("here"))
    run.begin("V_x")
    run.watch(10, 2.0, 0.5)
    run.close()
    assert scalars == ["here", ("loss/V_x", 2.0, 10), ("gradient norm/V_x", 0.5, 10), "closed"]
    # Where the package is missing, nothing begins.
    monkeypatch.setitem(sys.modules, "torch.utils.tensorboard", None)
    out = tmp_path / "out"
    arguments = ["--tensorboard", "--out", str(out)]
    assert cli.main(recap.recap, recap.supervised, None, arguments) == 2
    assert "pip install tensorboard" in capsys.readouterr().err and not out.exists()

def test_minutes_and_hours():
    assert [clock(x) for x in (0.4, 61, 3599.6, 3725)] == ["0:00", "1:01", "1:00:00", "1:02:05"]

# ---------------------------------------------------------------- words

VALUE = {
    "heldout_correlation": 0.614, "heldout_loss": 3.5, "train_loss": 3.25, "outcome_auc": 0.834,
    "prompt_effect": 0.05, "heldout_success": 0.7,
}  # fmt: skip

def test_the_checks_of_v_are_sentences_also_where_there_is_no_number():
    found = value_words(VALUE)
    assert "correlation with the return 0.61" in found[0]
    assert found[1] == "V separates successes from failures in mid-episode: 0.83 (chance: 0.5)"
    assert "3.50 on new episodes, 3.25 on its own" in found[2] and "0.050" in found[3]
    for share, kind in ((1.0, "failures"), (0.0, "successes")):
        none = {"outcome_auc": None, "heldout_success": share, "heldout_correlation": None}
        lines = value_words(VALUE | none | {"prompt_effect": None})
        assert lines[1] == f"V: no {kind} to speak of" and "no correlation" in lines[0]
        assert len(lines) == 3
    # Of a run from before there was the share.
    old = {name: x for name, x in VALUE.items() if name != "heldout_success"}
    unknown = value_words(old | {"outcome_auc": None})
    assert unknown[1] == "V: no failures, or no successes, to separate"

def test_labels_and_flow_are_sentences():
    labels = {
        "iteration": 1, "epsilon": -0.02671, "positive_fraction_rollouts": 0.4,
        "positive_fraction_demonstrations": 0.589, "positive_fraction_successes": 0.8,
        "positive_fraction_failures": None, "corrected_fraction": None,
        "positive_given_good": 0.546, "positive_given_bad": 0.212,
    }  # fmt: skip
    assert label_words(labels) == [
        "ε = -0.0267",
        "positive: 40% of the newest rollouts' steps, 59% of the demonstrations'",
        "positive: 80% of the steps of successes, none of failures",
        "positive: 55% of steps that look good, 21% of bad-looking ones",
    ]
    flow = {"0-0.5": 0.12345, "0.5-1": 0.04}
    assert flow_words(flow) == ["flow loss by η: 0-0.5 0.123, 0.5-1 0.04"]

def test_lines_of_a_run_fit_the_page(tmp_path, capsys):
    from lab.run import Run

    run = Run(Settings(**TINY_RUN), str(tmp_path))
    run.say("labels 1", "word " * 40, "short")
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == 4 and all(len(line) <= 100 for line in lines)
    assert lines[0].startswith("[") and lines[3] == " " * 29 + "short"
