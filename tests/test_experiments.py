"""exercises/experiments/: five pages alike, bands that fit them, and a check that knows outside."""
import json
import re
import subprocess
import sys

import numpy as np
import pytest
from pages import ROOT, read

FOLDER = ROOT / "exercises" / "experiments"
sys.path.insert(0, str(FOLDER))
import run  # noqa: E402

NAMES = list(run.EXPERIMENTS)
each = pytest.mark.parametrize("name", NAMES)

def page_of(name):
    return read(FOLDER / f"{1 + NAMES.index(name)}_{name}.md")

def mean(name, line, point, kind="throughput"):
    return np.mean(run.reference(name)["curve"][line][point][kind])

@each
def test_a_page_says_all_that_an_assignment_says(name):
    page = page_of(name)
    assert "**Question.**" in page and "**Read**" in page
    titles = re.findall(r"^## (.*)$", page, re.M)
    assert titles == [
        "Before you run", "Run", "What a correct run gives", "Hand in", "Rubric", "What goes wrong",
    ]  # fmt: skip
    assert f"run.py {name} --seed S" in page and f"reference/{name}.png" in page
    assert sum(int(n) for n in re.findall(r"^\| (\d+) \|", page, re.M)) == 10
    assert f"({1 + NAMES.index(name)}_{name}.md)" in read(FOLDER / "README.md")

@each
def test_the_band_has_every_point_of_the_experiment_and_says_where_it_is_from(name):
    known = run.reference(name)
    experiment = run.EXPERIMENTS[name]
    assert list(known["curve"]) == list(experiment.lines)
    for points in known["curve"].values():
        assert list(points) == list(experiment.points)
        for x in points.values():
            assert all(len(x[kind]) == len(known["seeds"]) == 5 for kind in run.KINDS)
    assert min(known["seeds"]) >= 31
    assert (FOLDER / "reference" / f"{name}.png").exists()
    if known["made by"].startswith("python -m reproduce"):
        expected = dict(zip(("made by", "curve", "seeds"), run.from_results(name)))
        again = "python exercises/experiments/run.py --from-results makes it anew"
        assert known == expected, again

def test_the_curves_are_as_the_pages_say():
    guided = "RECAP, guided (β = 2)"
    for line in ("RECAP, β = 1", guided):
        points = list(run.EXPERIMENTS["lookahead"].points)
        assert max(points, key=lambda point: mean("lookahead", line, point)) == "N = 5"
        for name in ("positive", "corrections"):
            points = list(run.EXPERIMENTS[name].points)
            rates = [mean(name, line, point) for point in points]
            assert rates == sorted(rates, reverse=name == "positive")
    line = "RECAP, second iteration"
    rates = {beta: mean("guidance", line, f"β={beta}") for beta in ("0", "1", "2.5", "3", "5")}
    assert rates["0"] < rates["1"] < rates["2.5"] and rates["5"] < rates["3"]
    won = {beta: mean("guidance", line, f"β={beta}", "success") for beta in ("1", "2", "3", "5")}
    assert won["1"] > won["2"] > won["3"] > won["5"] + 0.1
    for point in list(run.EXPERIMENTS["filtering"].points)[1:]:
        others = [x for x in run.EXPERIMENTS["filtering"].lines if x != "positives only"]
        best = max(mean("filtering", x, point) for x in others)
        assert mean("filtering", "positives only", point) > best
        assert min(others, key=lambda x: mean("filtering", x, point)) == "filtered imitation"

def test_a_band_holds_19_of_20_of_other_seeds():
    rng = np.random.default_rng(0)
    inside = 0
    for _ in range(4000):
        *known, other = rng.normal(300, 20, 6)
        low, high = run.band(known)
        inside += low <= other <= high
    assert abs(inside / 4000 - 0.95) < 0.012

def test_a_curve_outside_of_the_band_is_called_so():
    known = run.reference("lookahead")["curve"]
    curve = {}
    for line, points in known.items():
        curve[line] = {x: {kind: [np.mean(v)] for kind, v in y.items()} for x, y in points.items()}
    assert "outside" not in run.compare(curve, known)
    curve["RECAP, β = 1"]["N = 5"]["throughput"] = [200.0]
    found = [x for x in run.compare(curve, known).splitlines() if "outside" in x]
    assert len(found) == 1 and found[0].startswith("RECAP, β = 1, N = 5 ")

@each
def test_a_student_gets_a_table_a_file_and_a_picture(name, tmp_path, monkeypatch, capsys):
    """With runs that somebody has made already, all at the mean of the band."""
    known = run.reference(name)["curve"]
    curve = {}
    for line, points in known.items():
        curve[line] = {x: {kind: [np.mean(v)] for kind, v in y.items()} for x, y in points.items()}
    labels = [{"positive_given_good": 0.5, "positive_given_bad": 0.25}]
    monkeypatch.setattr(run, "measure", lambda *arguments: curve)
    monkeypatch.setattr(run, "metrics_of", lambda folder: {"labels": labels})
    monkeypatch.setattr(run, "read_json", lambda folder, file: {"1": 0.01, "5": 0.14})
    monkeypatch.setattr(run, "ROOT", tmp_path)
    run.run(name, 7, 1, quick=False)
    out = capsys.readouterr().out
    expected = "outside the central 99 % of the data: β=1 1.0 %, β=5 14.0 %"
    if name != "guidance":
        expected = "50% of the good steps, 25% of the bad"
    assert expected in out
    made = tmp_path / "runs" / "experiments"
    assert json.loads(read(made / f"{name}-seed7.json"))["curve"] == curve
    assert (made / f"{name}-seed7.png").stat().st_size > 10_000

@each
def test_settings_of_a_point_are_those_of_the_figure(name):
    experiment = run.EXPERIMENTS[name]
    s = experiment.settings(list(experiment.points)[-1], seed=7)
    assert s.task == "fold_shirt" and s.seed == 7 and s.evaluation_episodes == 500
    assert s.iterations == (2 if name == "guidance" else 1)
    if name == "lookahead":
        assert s.lookahead == 40

@pytest.mark.parametrize("arguments", [[], ["no_such"], ["lookahead", "--seed", "-1"]], ids=str)
def test_a_wrong_command_is_one_line(arguments):
    command = [sys.executable, FOLDER / "run.py", *arguments]
    done = subprocess.run(command, capture_output=True, encoding="utf-8")
    assert done.returncode == 2 and "error: " in done.stderr.splitlines()[-1]

def test_json_of_the_bands_is_small():
    for name in NAMES:
        assert (FOLDER / "reference" / f"{name}.json").stat().st_size < 10_000
        json.loads(read(FOLDER / "reference" / f"{name}.json"))
