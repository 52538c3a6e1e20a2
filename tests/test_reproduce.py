"""python -m reproduce: the command line, figures over seeds, methods, the record of mistakes."""
import math
import os
from dataclasses import asdict, replace

import numpy as np
import pytest
import torch

import sim_tasks
from collection import demonstrate
from lab.files import read_json
from reproduce import __main__ as command
from reproduce import ablations, extraction, guidance, statistics, value_traces
from reproduce.options import Options, UsageError
from reproduce.stages import pace_of_positives
from reproduce.value_traces import (
    KINDS_OF_MISTAKES,
    calibration_error,
    drops_find_mistakes,
    falls_from_grasp_to_slip,
    mean_after,
    mistakes,
)
from settings import Settings
from sim_tasks import find_task
from sim_tasks.arms import World
from helpers import ROOT, episode
from test_reproduce_claims import row

# ---------------------------------------------------------------- the command line


def noting(ran, name):
    """In the place of a figure: notes in `ran` that it was asked for, and how."""
    return lambda o: ran.append((name, o))


def test_quick_results_do_not_replace_real_ones_and_only_keeps_the_others(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Options((1, 2), 1, False).keep("fig7", {"box": 1, "espresso": 2})
    Options((1, 2), 1, True).keep("fig7", {"box": 0})
    assert Options((1, 2), 1, False).read("fig7")["rows"] == {"box": 1, "espresso": 2}
    kept = Options((1, 2), 1, False, ["box"]).keep("fig7", {"box": 3})
    assert kept == {"box": 3, "espresso": 2}
    known = ("box", "espresso")
    with pytest.raises(UsageError, match=r"--seeds: \(1, 3\), expected \(1, 2\)"):
        Options((1, 3), 1, False, ["box"]).parts(known, "fig7")  # other seeds do not mix
    assert Options((1, 3), 1, False).parts(known, "fig7") == [*known]
    assert Options((1, 3), 1, False, [*known]).parts(known, "fig7") == [*known]


def test_asked_again_results_lie_apart_and_no_picture_is_drawn(tmp_path, monkeypatch, capsys):
    """On five seeds of their own, of what a claim is judged by."""
    monkeypatch.chdir(tmp_path)
    ran = []
    for known in (command.FIGURES, command.KNOBS):
        for name in known:
            monkeypatch.setitem(known, name, noting(ran, name))
    Options((31, 32), 1, False).keep("fig7", {"box": 1})
    assert command.main(["all", "--again"]) == 0
    assert [name for name, _ in ran] == ["fig7", "fig9", "fig11", "fig12", "fig4", "cfg"]
    assert command.main(["ablation", "corrections", "--again"]) == 0
    assert ran[-1][0] == "corrections"
    for _, o in ran:
        assert o.seeds == (41, 42, 43, 44, 45)
        o.draw("fig7", lambda: pytest.fail("drawn"))
    ran[0][1].keep("fig7", {"box": 2})
    assert Options((1,), 1, False).read("fig7")["rows"] == {"box": 1}
    assert os.listdir("results/again") == ["fig7.json"] and not os.path.exists("docs")
    for what in (["map"], ["ablation", "web"]):
        assert command.main([*what, "--again"]) == 2
        assert f"--again: {what[-1]}, expected one of cfg, corr" in capsys.readouterr().err


def test_what_the_sweeps_of_fig_11_chose_is_asked_again_and_nothing_else(tmp_path, monkeypatch):
    """The best of AWR, and of PPO with and without a penalty, by the results in the repository."""
    asked = []
    monkeypatch.setattr(extraction, "make_runs", lambda *x: asked.append(x[2].keywords["names"]))
    monkeypatch.setattr(extraction, "rows_of", lambda *x: pytest.fail("done"))
    for again in (False, True):
        with pytest.raises(pytest.fail.Exception):
            extraction.fig11(Options((41,), 1, True, again=again))
    assert asked == [list(extraction.METHODS), list(extraction.CHOSEN)]
    rows = read_json(ROOT, "results", "fig11.json")["rows"]
    with_penalty = {name: x for name, x in rows.items() if "ε=inf" not in name}
    best = [statistics.best_of(rows, kind) for kind in ("AWR", "PPO")]
    best.append(statistics.best_of(with_penalty, "PPO"))
    assert set(best) <= set(extraction.CHOSEN)


def test_asked_again_guidance_and_corrections_are_what_the_claims_read(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)

    class Stop(Exception):
        pass

    class Recorder:
        """A run that notes at which β it is evaluated."""

        settings = Settings(iterations=0)
        out = ""

        def __init__(self):
            self.betas = []

        def evaluate(self, name, policy, beta):
            self.betas.append(beta)

        def json(self, name, make):
            raise Stop

    def run_one(group, jobs, work):
        recorders.append(Recorder())
        work(recorders[-1])

    def note_settings(group, jobs):
        asked.append(group)
        raise Stop

    recorders = []
    asked = []
    monkeypatch.setattr(guidance, "network_of", lambda folder, name: None)
    monkeypatch.setattr(guidance, "make_runs", run_one)
    monkeypatch.setattr(ablations, "make_runs", note_settings)
    for again in (False, True):
        o = Options((41,), 1, False, again=again)
        for figure in (guidance.cfg, lambda o: ablations.ablation("corrections", o)):
            with pytest.raises(Stop):
                figure(o)
    assert recorders[0].betas == [0, 0.5, 1, 1.5, 2, 2.5, 3, 5]
    assert recorders[1].betas == [1, 1.5, 5]
    assert [len(group) for group in asked] == [5, 3]
    assert [s.corrected for s in asked[1]] == [50, 0, 190]
    assert all(s.force_corrections and s.value_on_corrections for s in asked[1])


def test_results_of_other_seeds_are_replaced_only_if_asked(tmp_path, monkeypatch, capsys):
    """Told before anything runs.  More seeds with the same among them lose nothing."""
    monkeypatch.chdir(tmp_path)
    ran = []
    for known, name in ((command.FIGURES, "fig7"), (command.KNOBS, "web")):
        monkeypatch.setitem(known, name, noting(ran, name))
    Options((31, 32), 1, False).keep("fig7", {"box": 1})
    Options((31, 32), 1, False).keep("ablation_web", {})
    for what in (["fig7"], ["ablation", "web"]):
        assert command.main([*what, "--seeds", "31"]) == 2
        error = capsys.readouterr().err
        assert "--seeds: (31,), " in error and ".json is of (31, 32)" in error and not ran
        for more in (["--seeds", "7", "--replace"], [], ["--seeds", "7", "--quick"]):
            assert command.main([*what, *more]) == 0
        assert len(ran) == 3
        ran.clear()


def test_results_are_not_replaced_part_by_part_either(tmp_path, monkeypatch, capsys):
    """--only, of all the parts that a file holds."""
    monkeypatch.chdir(tmp_path)
    ran = []
    monkeypatch.setitem(command.FIGURES, "fig9", noting(ran, "fig9"))
    Options((31, 32), 1, False).keep("fig9", {"box": 1, "fold_shirt": 2})
    only = ["fig9", "--only", "box", "fold_shirt", "--seeds", "31"]
    assert command.main(only) == 2
    assert "fig9.json is of (31, 32)" in capsys.readouterr().err and not ran
    assert command.main([*only, "--replace"]) == 0 and ran


def test_claims_of_a_folder_without_results_are_refused(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    assert command.main(["claims"]) == 2
    assert "claims: no results in results, expected some" in capsys.readouterr().err
    assert os.listdir(tmp_path) == []
    Options((1, 2, 3), 1, False).keep("fig12", {})
    monkeypatch.setattr("reproduce.claims.report", lambda *read: "written\n")
    assert command.main(["claims"]) == 0 and os.path.exists("results/claims.md")


def test_a_picture_that_fails_is_a_warning(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    o = Options((1,), 1, False)

    def broken():
        raise RuntimeError("no fonts")

    o.draw("fig7", broken)
    path = os.path.join("docs/images", "fig7.png")
    assert f"warning: no {path} (RuntimeError: no fonts)" in capsys.readouterr().err


def test_one_seed_has_no_standard_error():
    """Not ± 0.000, as if it were certain."""
    one = statistics.spread([0.5])
    two = statistics.spread([0.4, 0.6])
    assert statistics.plus_minus(one, 3) == "0.500" and statistics.percent(one) == "50.0 %"
    assert statistics.plus_minus(two, 3) == "0.500 ± 0.100"
    assert statistics.percent(two) == "50.0 ± 10.0 %"


def test_rows_whose_beta_differs_beyond_a_printed_digit_are_two(monkeypatch):
    monkeypatch.setattr(statistics, "row_of", lambda folders, name, beta: beta)
    rows = statistics.rows_of([], [("a", 1.0), ("a", 1.00000001), ("a", 2.5), ("b", None)])
    assert rows == {"a β=1": 1.0, "a β=1.00000001": 1.00000001, "a β=2.5": 2.5, "b": None}


def test_only_wants_tasks_that_the_figure_has(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    known = ("box", "espresso")
    assert Options((1,), 1, True).parts(known, "fig7") == ["box", "espresso"]
    assert Options((1,), 1, True, ["fold_shirt", "box"]).parts(known, "fig7") == ["box"]
    expected = "--only: fold_shirt, expected some of box, espresso for fig7"
    with pytest.raises(UsageError, match=expected):
        Options((1,), 1, True, ["fold_shirt"]).parts(known, "fig7")
    ran = []
    for name in command.FIGURES:
        monkeypatch.setitem(command.FIGURES, name, noting(ran, name))
    assert command.main(["all", "--only", "espresso"]) == 0  # of all, those that have the task
    assert [name for name, _ in ran] == ["fig7", "fig4", "cfg", "checks", "headline"]
    assert all(o.only == ["espresso"] for _, o in ran)
    assert command.main(["fig11", "--only", "fold_shirt"]) == 2
    assert command.main(["fig9", "--only", "espresso"]) == 2
    assert "--only: espresso, expected some that fig9 has" in capsys.readouterr().err
    # Told before the first figure.
    Options((1, 2), 1, False).keep("checks", {"box": 1, "espresso": 2})
    assert command.main(["all", "--only", "espresso", "--seeds", "7"]) == 2
    assert "--seeds: (7,), expected (1, 2)" in capsys.readouterr().err and len(ran) == 5


@pytest.mark.parametrize(
    "words, message",
    [
        (["fig7", "box"], "fig7: box, expected nothing"),
        (["fig7", "--seeds", "3", "3"], "3 3, expected each once"),
        (["fig7", "--runs", "a", "b"], "--runs: a b, expected with generalist alone"),
        (["generalist", "--runs", "a", "--quick"], "--runs: a, expected with generalist alone"),
    ],
)
def test_a_stray_name_a_seed_given_twice_and_runs_that_nobody_asked_for_are_told(
    words, message, monkeypatch, capsys
):
    for name in ("fig7", "generalist"):
        monkeypatch.setitem(command.FIGURES, name, lambda o: pytest.fail("ran"))
    assert command.main(words) == 2 and message in capsys.readouterr().err


@pytest.mark.parametrize("option, value", [("--seeds", "-1"), ("--seeds", "x"), ("--jobs", "0")])
def test_bad_numbers_on_the_command_line(option, value, capsys):
    with pytest.raises(SystemExit):
        command.main(["counts", f"{option}={value}"])
    expected = f"argument {option}: '{value}', expected an integer >="
    assert expected in capsys.readouterr().err


def test_unknown_ablation(capsys):
    assert command.main(["ablation", "nonsense"]) == 2
    assert "nonsense" in capsys.readouterr().err


def test_all_and_ablation_all_run_everything_once_with_their_own_seeds(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    ran = []
    for known in (command.FIGURES, command.KNOBS):
        for name in known:
            monkeypatch.setitem(known, name, noting(ran, name))
    ours = (31, 32, 33, 34, 35)
    assert command.main(["all"]) == 0
    assert [name for name, _ in ran] == list(command.FIGURES) and ran[-1][0] == "claims"
    assert dict(ran)["map"].seeds == dict(ran)["fig7"].seeds == ours
    assert dict(ran)["headline"].seeds == (41, 42, 43, 44, 45)
    ran.clear()
    assert command.main(["ablation", "all", "--seeds", "5"]) == 0
    assert command.main(["ablations"]) == command.main(["ablations", "web"]) == 0
    others = ["web", "start", "rate", "online", "critic", "climb", "handover", "clock"]
    knobs = [*ablations.ABLATIONS, *others]
    assert [name for name, _ in ran] == [*knobs, *knobs, "web"]
    assert [o.seeds for _, o in ran] == [(5,)] * len(knobs) + [ours] * (len(knobs) + 1)
    ran.clear()
    assert command.main(["fig8"]) == 0 and [name for name, _ in ran] == ["fig7"]
    assert command.main(["ablation"]) == 2


# ---------------------------------------------------------------- tables and pictures


def test_the_picture_of_the_knobs_compares_each_row_with_the_first_of_its_knob(
    tmp_path, monkeypatch
):
    """N = 1 at twice and 1.5 times the throughput of N = 10; k = 2 in its own rows.

    What was not run, or has no RECAP, is left out.
    """
    monkeypatch.chdir(tmp_path)
    o = Options((1, 2), 1, False)
    drawn = []

    def draw(self, name, function, groups, title):
        drawn.append((name, groups))

    monkeypatch.setattr(Options, "draw", draw)
    variants = {"N = 10": {}, "N = 1": dict(lookahead=1), "new": {}}
    monkeypatch.setitem(ablations.ABLATIONS, "lookahead", ("", {}, variants))
    ablations.draw_knobs(o)
    assert not drawn

    throughput = {
        "rl_pretrained β=1": {"N = 10": (100, 200), "N = 1": (200, 400)},
        "recap_1 β=1": {"N = 10": (100, 200), "N = 1": (200, 400)},
        "recap_1 β=2": {"N = 10": (200, 200), "N = 1": (300, 300)},
    }
    rows = {}
    for n in ("N = 10", "N = 1"):
        for stage, x in throughput.items():
            rows[f"{n} | {stage}"] = row([0.5, 0.5], x[n])
    o.keep("ablation_lookahead", {"policy": rows})
    cameras = {f"{c} | rl_pretrained β=1": row([0.5], [1]) for c in ("all three", "base only")}
    o.keep("ablation_cameras", {"policy": cameras})
    restart = {
        "from π_pre | recap_2 β=1": row([0.5, 0.5], (10, 10)),
        "from π^{k-1} | recap_2 β=1": row([0.5, 0.5], (5, 5)),
    }
    o.keep("ablation_restart", {"policy": restart})
    ablations.draw_knobs(o)
    ((name, groups),) = drawn
    got = {}
    for label, group in groups.items():
        got[label] = {stage: pytest.approx(x["ratio"]) for stage, x in group.items()}
    assert name == "ablations"
    assert got == {
        "lookahead: N = 10 (K = 1, n = 2)": {"recap_K β=": 1, "recap_K β=1": 1},
        "N = 1": {"recap_K β=": 1.5, "recap_K β=1": 2},
        "restart: from π_pre (K = 2, n = 2)": {"recap_K β=1": 1},
        "from π^{k-1}": {"recap_K β=1": 0.5},
    }


def test_the_slow_operator_corrects_at_the_slowest_pace_and_the_task_is_the_same():
    """Metres per step of the hands that move, by the median: 0.010, and of others 0.017."""
    slow = find_task(ablations.SLOWLY["task"])
    for task, pace in ((sim_tasks.TASKS["fold_shirt"], 0.017), (slow, 0.010)):
        world = task.world(range(4))
        operator = task.coach(world, range(4))
        moved = []
        for _ in range(40):
            before = world.hands.copy()
            world.step(operator.act(None))
            moved.append(np.linalg.norm(world.hands - before, axis=-1))
        moved = np.array(moved)
        assert np.median(moved[moved > 1e-3]) == pytest.approx(pace, rel=0.05)
        assert task.stages == slow.stages and task.max_steps == slow.max_steps


def test_no_two_knobs_have_a_row_of_one_name():
    """They stand in one picture."""
    names = []
    for _, _, variants in ablations.ABLATIONS.values():
        names += list(variants)[1:]  # the first, the default, has its knob's name before it
    assert len(set(names)) == len(names) > 30

def test_counts_hold_the_settings_of_the_figures_and_the_papers_numbers(
    tmp_path, monkeypatch, capsys
):
    monkeypatch.chdir(tmp_path)
    assert command.main(["counts"]) == 0
    with open("results/counts.md", encoding="utf-8") as file:
        text = file.read()
    assert text in capsys.readouterr().out
    ours = {}
    paper = {}
    for line in text.splitlines():
        if line.startswith("|"):
            task, name, *numbers = [cell.strip() for cell in line.split("|")[1:-1]]
            assert len(numbers) == 4
            if name.startswith("here"):
                ours[task, name] = numbers
            elif name.startswith("paper"):
                paper[task, name] = numbers
    shown = "100 for pre-training, 100 for SFT"
    assert ours["box", "here"] == ["2", shown, "150", "100"]
    assert ours["fold_collar", "here"][-1] == "0" and ours["fold_shirt", "here"][-1] == "50"
    assert ours["fold_shirt", "here, fig9"][2:] == ["200", "0"]
    assert paper["espresso", "paper, App. F"] == ["1", "–", "414", "429"]
    assert {task for task, _ in ours} == {task for task, _ in paper} == set(sim_tasks.TASKS)


# ---------------------------------------------------------------- Fig. 11 and the map


def test_a_method_has_a_file_of_its_own_whose_name_is_ascii():
    files = [extraction.file_of(name) for name in extraction.METHODS]
    files += [extraction.file_of(name, "pi_0") for name in extraction.METHODS]
    assert len(set(files)) == len(files) and all(file.isascii() for file in files)

def test_the_points_of_the_map_are_what_their_names_say():
    at = {}
    for point, change in extraction.POINTS.items():
        at[point] = extraction.map_settings(31, False, **change)
    base = at["base"]
    assert base.autonomous + base.corrected == 200
    assert (base.policy_steps, base.iterations, base.evaluation_episodes) == (3500, 1, 500)
    assert base == Settings(seed=31, iterations=1, evaluation_episodes=500, supervised=True)
    for point, s in at.items():
        changed = {key for key, x in asdict(s).items() if x != getattr(base, key)}
        if s.vision:  # images take more steps by themselves
            assert point.startswith("images")
            changed -= {"pretraining_steps", "sft_steps", "policy_steps"}
        assert len(changed) == len(extraction.POINTS[point])
        n = s.autonomous + s.corrected
        expected = 50 if "50 episodes" in point else 600 if "600" in point else 200
        assert n == expected, point
        if not s.vision:
            assert (f"{s.policy_steps} gradient steps" == point) == (s.policy_steps != 3500)
        assert (s.corrected == 0) == ("none" in point)
        assert s.corrected in (0, round(n / 4 - 0.1))
    assert set(extraction.MAPPED) < set(extraction.METHODS)
    # What is drawn over steps differs in nothing but them.
    for n, point in extraction.STEPS.items():
        assert replace(base, policy_steps=n) == at[point]


def test_awr_from_the_mean_and_from_the_quantile_differ_by_the_clip_alone():
    """A normal, T = 0.5 deviations.

    Two steps that are not clipped have weights exp(2 ΔA / σ) apart in both forms.  From the mean
    every step above mean + 0.5 ln 20 deviations has the same weight, from the 95 % quantile only
    those that lie as far above that.
    """
    A = 3 + 0.2 * torch.randn(4000, generator=torch.Generator().manual_seed(0))
    found = extraction.methods(A, None, None, None)
    weights = {}
    for name in ("mean", "q95"):
        weights[name] = found[f"AWR T=0.5 {name}"]["columns"]["weight"].numpy()
    z = ((A - A.mean()) / A.std()).numpy()
    low = np.argmin(z)
    high = np.argmin(abs(z - 1.4))
    for name, top in (("mean", 0), ("q95", np.quantile(z, 0.95))):
        w = weights[name]
        clipped = z > top + 0.5 * math.log(20)
        assert w.mean().item() == pytest.approx(1, rel=1e-5) and 0 < clipped.sum() < len(z)
        apart = np.log(w[high] / w[low]).item()
        assert apart == pytest.approx(2 * (z[high] - z[low]), rel=1e-4)
        assert w[clipped].min() == w.max() and (w[~clipped] < w.max()).all()


def test_methods_of_fig11_one_command_after_the_other_make_one_sweep(tmp_path, monkeypatch):
    """Asked for the last and the second method: only they are run, both stay.

    They are drawn behind RECAP in the sweep's order.
    """
    monkeypatch.chdir(tmp_path)
    asked = []
    drawn = []

    def make_runs(group, jobs, work):
        asked.append(work.keywords["names"])
        return [s.seed for s in group]

    def row_of(folders, name):
        return row([0.5] * len(folders), folders)

    def rows_of(folders, stages):
        return {f"{name} β={beta:g}": row_of(folders, name) for name, beta in stages}

    def draw(self, name, function, groups):
        if name == "fig11_sweep":
            for names in groups.values():
                drawn[-1] += names
        else:
            drawn.append(list(groups["fold_shirt"]))

    monkeypatch.setattr(extraction, "make_runs", make_runs)
    monkeypatch.setattr(extraction, "row_of", row_of)
    monkeypatch.setattr(extraction, "rows_of", rows_of)
    monkeypatch.setattr(extraction, "table", lambda rows, base: "")
    monkeypatch.setattr(Options, "draw", draw)
    methods = extraction.METHODS[-1], extraction.METHODS[1]
    for name in methods:
        assert command.main(["fig11", "--seeds", "3", "4", "--only", name]) == 0
    assert asked == [[name] for name in methods]
    # The second command draws what the first one found, too, and RECAP beside it.
    assert methods[0] in drawn[0] and methods[1] not in drawn[0]
    assert {*methods, "recap_2 β=2"} <= set(drawn[1])
    assert set(Options((3, 4), 1, False).read("fig11")["rows"]) == set(drawn[1])
    assert command.main(["fig11", "--seeds", "3", "--only", methods[0]]) == 2


# ---------------------------------------------------------------- the record of mistakes


def test_the_pace_of_positive_steps_by_hand():
    """Ten steps of 0.1 rad, then ten of 0.3; only autonomous episodes and joints count."""
    D = [episode(21, seed=i, source=source) for i, source in enumerate(("autonomous", "corrected"))]
    for e in D:
        joint = np.concatenate([np.arange(11) * 0.1, 1 + np.arange(1, 11) * 0.3])
        e.observations["state"] = np.zeros((21, 6))
        e.observations["state"][:, 3] = joint
        e.observations["state"][:, 2] = np.arange(21) % 2  # the gripper
    fast = np.arange(21) >= 10
    joints = [0, 1, 3, 4]
    assert pace_of_positives(D, [fast, ~fast], joints) == pytest.approx(0.3 / 0.2)
    assert pace_of_positives(D, [~fast, fast], joints) == pytest.approx(0.1 / 0.2)
    assert pace_of_positives(D, [fast | ~fast, fast], joints) == pytest.approx(1)

def test_the_record_of_mistakes_lines_up_with_what_was_seen():
    """An edge grasp is taken in step t exactly where it is first seen in o_{t+1}.

    Items are replayed as they were.
    """
    for task in ("fold_shirt", "fold_diverse"):
        spec = sim_tasks.TASKS[task]
        seeds = list(range(12))
        episodes = demonstrate(spec, seeds, "mixed")
        found = 0
        record = mistakes(spec, seeds, episodes)
        for i, e in enumerate(episodes):
            grasp, slip, edge_let_go, let_go, turn = [record[kind][i] for kind in KINDS_OF_MISTAKES]
            assert not turn.any()  # here is one way only
            edge = e.observations["keypoints"][:, :2, 7] > 0  # (T, arm)
            taken = (edge[1:] & ~edge[:-1]).any(1)  # (T - 1,)
            assert (grasp[:-1] == taken).all() and len(grasp) == len(e)
            held = e.observations["keypoints"][:, :2, 7:9].max(-1) > 0  # by the edge or well
            lost_edge = (edge[:-1] & ~held[1:]).any(1)  # an edge grasp that ended
            lost = (held[:-1] & ~held[1:]).any(1)
            assert lost_edge[slip[:-1]].all() and lost[let_go[:-1]].all()
            assert lost_edge[edge_let_go[:-1]].all() and not lost_edge[let_go[:-1]].any()
            assert not (edge_let_go & (slip | let_go)).any()
            found += taken.sum()
            # No edge grasp, and nothing let go.
            opening = np.diff(e.observations["state"][:, [2, 5]], axis=0) > 0
            quiet = ~edge[1:].any(1) & ~edge[:-1].any(1) & ~opening.any(1)
            assert not (grasp | slip | edge_let_go | let_go)[:-1][quiet].any()
        assert found > 10


def test_mistakes_are_counted_on_the_items_that_the_data_are_of(monkeypatch):
    """Every second rollout is about the measured item, and is replayed with it."""

    def by_operator(s, task, seeds, policy, iteration, item):
        return demonstrate(task, seeds, "mixed", item=item)

    monkeypatch.setattr(value_traces, "roll_out", by_operator)
    monkeypatch.setattr(value_traces, "network_of", lambda folder, name: None)
    s = Settings(task="fold_diverse", evaluation_episodes=24)
    episodes, record = value_traces.rollouts_for_drops(s, "folder")
    assert len(episodes) == 24
    assert sum("button-up" in e.prompt for e in episodes[:12]) == 12
    assert sum("button-up" in e.prompt for e in episodes[12:]) < 6
    for e, grasp in zip(episodes, record["edge grasp"], strict=True):
        edge = e.observations["keypoints"][:, :2, 7] > 0  # (T, arm)
        assert (grasp[:-1] == (edge[1:] & ~edge[:-1]).any(1)).all() and len(grasp) == len(e)
    assert sum(grasp.sum() for grasp in record["edge grasp"]) > 10

def test_a_half_held_by_its_edge_that_is_opened_before_it_slips_is_no_slip():
    """From the first edge grasp on the arms stand still and the grippers open.

    That is one more mistake, once, of its own kind.
    """
    spec = sim_tasks.TASKS["fold_shirt"]
    seeds = list(range(12))
    episodes = demonstrate(spec, seeds, "mixed")
    record = mistakes(spec, seeds, episodes)["edge grasp"]
    opened = []
    for e, wrong in zip(episodes, record):
        actions = e.actions.copy()
        t = int(wrong.argmax()) + 1
        if wrong.any():
            actions[t:] = e.observations["state"][min(t, len(e) - 1)]
            actions[t:, [2, 5]] = 1
        opened.append(replace(e, actions=actions))
    by_kind = mistakes(spec, seeds, opened)
    seen = 0
    for i, wrong in enumerate(record):
        if wrong.any() and wrong.argmax() < len(wrong) - 5:
            after = {kind: x[i][wrong.argmax() + 1 :].sum() for kind, x in by_kind.items()}
            assert after == dict.fromkeys(KINDS_OF_MISTAKES, 0) | {"edge let go": 1}
            seen += 1
    assert seen > 5


def test_a_wrong_turn_comes_before_every_end_of_the_wrong_way():
    spec = sim_tasks.TASKS["fold_collar"]
    seeds = list(range(100))
    episodes = demonstrate(spec, seeds, "mixed")
    record = mistakes(spec, seeds, episodes)
    world = World(spec, seeds)
    wrong = 0
    for i, e in enumerate(episodes):
        turns = np.flatnonzero(record["wrong turn"][i])
        handles = e.observations["keypoints"][:, :2, :2]  # (T, arm, xy)
        goals = world.wrong_goals[i, 0]  # (arm, xy)
        ended = np.linalg.norm(handles[-1] - goals, axis=-1).min() < 0.1
        if not e.success and len(e) < e.max_length and ended:
            wrong += 1
            assert len(turns) and turns[0] < len(e) - 3
        if e.success:
            assert len(turns) <= 2  # some begin so, and come back
    assert wrong > 5

def test_v_falls_from_the_grasp_to_the_slip_as_pairs_say():
    rng = np.random.default_rng(0)
    V = [rng.integers(8, size=30) / 8 for _ in range(4)]
    record = {kind: [rng.random(30) < 0.2 for _ in V] for kind in ("edge grasp", "slip")}
    before = [v[t] for v, m in zip(V, record["edge grasp"]) for t in range(29) if m[t]]
    after = [v[t + 1] for v, m in zip(V, record["slip"]) for t in range(29) if m[t]]
    pairs = [(b > a) + 0.5 * (b == a) for b in before for a in after]
    assert falls_from_grasp_to_slip(V, record) == pytest.approx(np.mean(pairs))
    none = {kind: [np.zeros(30, bool)] * 4 for kind in record}
    assert falls_from_grasp_to_slip(V, none) is None

def test_calibration_is_of_the_step_after_the_mistake():
    V = [np.array([0.0, -1.0, -2.0, -3.0]), np.array([-4.0, -8.0])]
    record = [np.array([True, False, False, True]), np.array([True, False])]
    assert mean_after(V, record) == pytest.approx((-1 - 8) / 2)  # the last step has none after it
    assert mean_after(V, [np.zeros(4, bool), np.zeros(2, bool)]) is None

def test_calibration_is_about_the_mean_return():
    """V knows the mean of returns that scatter: no error.  With an offset of 0.1, that."""
    rng = np.random.default_rng(0)
    V = rng.uniform(-1, 0, 50_000)
    R = V + rng.normal(0, 0.3, len(V))
    halves = [V[:20_000], V[20_000:]], [R[:20_000], R[20_000:]]
    assert calibration_error(*halves) < 0.01
    hopeful = [v + 0.1 for v in halves[0]]
    assert calibration_error(hopeful, halves[1]) == pytest.approx(0.1, abs=0.01)
    # Right on average, and far too sure: 0.4 at either end, on average 0.2.
    steep = [1.8 * v + 0.4 for v in halves[0]]
    assert calibration_error(steep, halves[1]) == pytest.approx(0.2, abs=0.01)

def test_drops_find_mistakes_is_an_auc():
    rng = np.random.default_rng(0)
    V = [rng.integers(8, size=30) / 8 for _ in range(4)]  # many drops are equal
    wrong = [rng.random(30) < 0.2 for _ in range(4)]
    drop = np.concatenate([v[:-1] - v[1:] for v in V])
    bad = np.concatenate([w[:-1] for w in wrong])
    pairs = drop[bad][:, None] - drop[~bad][None]
    expected = ((pairs > 0) + 0.5 * (pairs == 0)).mean()
    assert drops_find_mistakes(V, wrong) == pytest.approx(expected)
    first = np.array([True, False, False])
    assert drops_find_mistakes([np.array([0.0, -1.0, -1.0])], [first]) == 1.0
    assert drops_find_mistakes([np.zeros(3)], [np.zeros(3, bool)]) is None
