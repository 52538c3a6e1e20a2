"""lab/run.py: what a run leaves, and that an interrupted one ends with the same bits."""
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from dataclasses import asdict

import numpy as np
import pytest

import recap
from helpers import ROOT, TINY_RUN, episode, options
from lab import cli, files
from lab.files import load_dataset, load_network
from lab.pictures import draw_pictures
from lab.run import Run
from settings import Settings

def comparable(metrics):
    """The numbers of a run without its wall-clock times."""
    stages = [{key: x for key, x in row.items() if key != "seconds"} for row in metrics["stages"]]
    return stages, metrics["value"], metrics["labels"], metrics["settings"]

pytestmark = pytest.mark.usefixtures("no_pictures")

def resume(folder):
    assert cli.main(recap.recap, recap.supervised, None, ["--resume", str(folder)]) == 0
    with open(os.path.join(folder, "metrics.json"), encoding="utf-8") as file:
        return json.load(file)

def test_a_run_leaves_what_it_promises(tiny):
    out, metrics = tiny
    assert [(row["name"], row["beta"]) for row in metrics["stages"]] == [
        ("demonstrations", None), ("rl_pretrained", 1), ("offline_rl_sft", 1), ("recap_1", 1),
        ("recap_1", 1.5),
    ]  # fmt: skip
    # An untrained policy stands still at the joint limits: some advantages tie at ε_ℓ, and ties
    # are not positive.
    assert metrics["labels"][0]["positive_fraction_rollouts"] == pytest.approx(0.2, abs=0.02)
    assert metrics["settings"] == asdict(Settings(**TINY_RUN))
    products = ["D_demo", "V_pre", "pi_pre", "D_0", "V_0", "pi_0", "D_1", "V_1", "pi_1"]
    pictures = ["learning_curve.png", "value_trace.png", "before.gif", "after.gif"]
    for name in pictures + [f"{product}.npz" for product in products]:
        assert os.path.getsize(os.path.join(out, name)) > 0
    sources = {e.source for e in load_dataset(os.path.join(out, "D_1.npz"))}
    assert sources == {"autonomous", "corrected"}
    # V is checked where it is used: not V_0, which labels nothing.
    assert set(metrics["value"]) >= {"V_pre", "V_1"} and "V_0" not in metrics["value"]
    for name, x in metrics["value"]["V_1"].items():
        assert metrics["value"][name] == x  # of the last V, once more at the top

def test_where_a_task_has_no_pictures_none_are_promised(tiny, tmp_path, monkeypatch):
    out, metrics = tiny
    for name, frames in (("filmed", 3), ("blind", 0)):
        folder = str(tmp_path / name)
        shutil.copytree(out, folder, ignore=shutil.ignore_patterns("*.gif"))
        pictures = [np.zeros((8, 8, 3), np.uint8)] * frames
        monkeypatch.setattr("lab.pictures.film", lambda *x: pictures)
        said = draw_pictures(Run(Settings(**TINY_RUN), folder), metrics)
        films = [name for name in sorted(os.listdir(folder)) if name.endswith(".gif")]
        assert films == (["after.gif", "before.gif"] if frames else [])
        assert said is None if not frames else said.startswith("before.gif, after.gif: number")

@pytest.mark.slow
@pytest.mark.parametrize(
    "lost",
    [
        ["pi_1.npz", "eval_recap_1*"],
        ["D_1.npz", "V_1.npz", "value_V_1.json", "labels_1.json", "pi_1.npz", "eval_recap_1*"],
    ],
)
def test_resume_ends_with_the_same_numbers(tiny, tmp_path, lost):
    """An interruption leaves a prefix of the files; the rest is made again, bit for bit."""
    out, metrics = tiny
    copied = tmp_path / "out"
    shutil.copytree(out, copied)
    for pattern in [*lost, "metrics.json", "seconds.json", "*.png", "*.gif"]:
        found = list(copied.glob(pattern))
        assert found, pattern
        for path in found:
            path.unlink()
    assert comparable(resume(copied)) == comparable(metrics)
    for name in ("pi_1.npz", "V_1.npz"):
        a, b = (np.load(os.path.join(folder, name)) for folder in (out, copied))
        assert all(np.array_equal(a[key], b[key]) for key in a.files)

@pytest.mark.slow
def test_resume_after_kill_9(tiny, tmp_path):
    """A process of its own, in another working directory."""
    out, metrics = tiny
    killed = str(tmp_path / "killed")
    environment = os.environ | {"OMP_NUM_THREADS": "1", "MPLBACKEND": "Agg"}
    program = os.path.join(ROOT, "recap.py")
    command = [sys.executable, program, *options(TINY_RUN), "--out", "killed"]
    process = subprocess.Popen(command, cwd=tmp_path, env=environment, stdout=subprocess.DEVNULL)
    while process.poll() is None and not os.path.exists(os.path.join(killed, "D_0.npz")):
        time.sleep(0.01)
    process.send_signal(signal.SIGKILL)
    process.wait()
    assert os.path.exists(os.path.join(killed, "D_0.npz"))
    assert not os.path.exists(os.path.join(killed, "metrics.json"))
    assert comparable(resume(killed)) == comparable(metrics)

# ---------------------------------------------------------------- keep and measure

def test_a_product_is_made_once_and_goes_through_its_file(tmp_path, monkeypatch, capsys):
    """What is made is read back from its file, by this process and by the next."""
    measured = []
    monkeypatch.setattr(Run, "measure", lambda run, name, *rest: measured.append(name))
    made = []

    def make(n):
        made.append(n)
        return [episode(n)]

    run = Run(Settings(), str(tmp_path))
    first = run.keep("D_x", make, 5)
    assert run.keep("D_x", make, 6) is first and made == [5] and len(first[0]) == 5
    real = files.load_dataset(tmp_path / "D_x.npz")
    assert np.array_equal(real[0].actions, first[0].actions)
    again = Run(Settings(), str(tmp_path)).keep("D_x", make, 7)
    assert made == [5] and np.array_equal(again[0].actions, first[0].actions)
    network = run.keep("V_x", recap.new_value, Settings())
    assert not network.training and network.config == load_network(tmp_path / "V_x.npz").config
    assert measured == ["D_x", "D_x", "V_x"]
    assert "1 autonomous episodes (100% succeed)" in capsys.readouterr().out

def test_every_product_is_measured_by_its_name(tmp_path, monkeypatch):
    """Which row a policy is, with which indicator and β, and on which episodes V is checked."""
    rows = []
    checked = []
    run = Run(Settings(task="fold_shirt", beta=2.0, demonstrations=3), str(tmp_path))
    target = "lab.run."
    told = {}

    def noted(policy, D, s, indicator):
        told[policy] = indicator
        return {"0-1": 0.5}

    monkeypatch.setattr(
        target + "evaluate", lambda s, *given: rows.append(given) or {"name": given[0]}
    )
    monkeypatch.setattr(target + "evaluate_demonstrations", lambda s: {"name": "demonstrations"})
    monkeypatch.setattr(target + "flow_loss_by_eta", noted)
    monkeypatch.setattr(target + "heldout_demonstrations", lambda s, n: ("demonstrations", n))
    monkeypatch.setattr(target + "heldout_rollouts", lambda s, policy, k: ("rollouts", policy, k))
    monkeypatch.setattr(
        target + "check_value", lambda value, *given: checked.append((value, *given[:2])) or {}
    )
    monkeypatch.setattr(
        target + "count_labels", lambda V, I, D, s, k: {"iteration": k, "of": f"{V} {I} {D}"}
    )
    monkeypatch.setattr(Run, "add_stage", lambda run, row: run.stages.append(row["name"]))
    for words in ("flow_words", "label_words", "value_words"):
        monkeypatch.setattr(f"lab.run.{words}", lambda found: [str(found)])

    def measure(name, *arguments):
        run.made[name] = name
        run.measure(name, name, arguments)

    D_demo = [episode(5, source="demonstration", iteration=0) for _ in range(4)]
    D_demo.append(episode(5, task="box", source="demonstration", iteration=0))
    D = [episode(5, iteration=1), episode(5, iteration=1, source="corrected")]
    D.append(episode(5, iteration=2))
    measure("D_demo")
    measure("V_pre", "new V", D_demo)
    measure("pi_pre", "new pi", D_demo, "I")
    measure("V_0", "V_pre", D)
    measure("pi_0", "pi_pre", D, "I")
    for name in ("supervised_small", "supervised_pre", "supervised_sft"):
        measure(name, "new pi", D_demo, None)
    measure("V_1", "V_pre", D)
    measure("pi_1", "pi_pre", "D", "I")
    assert run.stages == ["demonstrations"] + [row[0] for row in rows]
    assert rows == [
        ("rl_pretrained", "pi_pre", 1.0, True, None),
        ("offline_rl_sft", "pi_0", 1.0, True, None),
        ("supervised_small", "supervised_small", 1.0, None, None),
        ("supervised", "supervised_pre", 1.0, None, None),
        ("supervised_sft", "supervised_sft", 1.0, None, None),
        ("recap_1", "pi_1", 1.0, True, None),
        ("recap_1", "pi_1", 2.0, True, None),
    ]
    assert checked == [
        ("V_pre", D_demo[:3], ("demonstrations", 3)),
        ("V_1", D[:1], ("rollouts", "pi_0", 1)),
    ]
    shown = dict.fromkeys(("pi_pre", "pi_0", "pi_1"), True)
    hidden = dict.fromkeys(("supervised_small", "supervised_pre", "supervised_sft"))
    assert told == shown | hidden
    assert run.labels == [{"iteration": 1, "of": "V_1 I D"}]
