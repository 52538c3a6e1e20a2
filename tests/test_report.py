"""lab/report.py and lab/compare.py: the numbers in the pages, unpacked as a browser does."""
import base64
import gzip
import json
import os
import re
import shutil
from dataclasses import replace

import numpy as np
import pytest

import recap
import sim_tasks
from data import UserError
from helpers import TINY_RUN, episode, options
from lab import cli, report
from lab.compare import compare
from lab.files import load_dataset, load_network, read_json, write_text
from labels import advantages, episode_returns, label, step_advantages
from settings import Settings
from sim_tasks.render import LEFT, TOP, VIEW, Sketch
from value import predict_values

def data_of(path):
    """What a page holds."""
    with open(path, encoding="utf-8") as file:
        (text,) = re.findall(r"const DATA = (.*);\n", file.read())
    return json.loads(text)

def unpack(text):
    return json.loads(gzip.decompress(base64.b64decode(text)))

def main(*arguments):
    return cli.main(recap.recap, recap.supervised, None, list(arguments))

# ---------------------------------------------------------------- one run

def test_the_episodes_of_the_report_are_labelled_as_the_policy_learned_them(tiny):
    """V, A and I_t of D_1 as Algorithm 1 computes them, over the whole dataset."""
    out, _ = tiny
    s = Settings(**TINY_RUN)
    D = [load_dataset(os.path.join(out, f"D_{k}.npz")) for k in (0, 1)]
    V = predict_values(load_network(os.path.join(out, "V_1.npz")), D[0] + D[1])
    I = label(V, D[0] + D[1], s, iteration=1)[len(D[0]) :]
    A = [advantages(R, v, s.lookahead) for R, v in zip(episode_returns(D[1], s), V[len(D[0]) :])]
    group = unpack(data_of(os.path.join(out, "report.html"))["groups"]["D_1"])
    kinds = set()
    for shown in group["episodes"]:
        i = shown["index"]
        e = D[1][i]
        np.testing.assert_allclose(shown["V"], V[len(D[0]) + i], atol=6e-4)
        np.testing.assert_allclose(shown["A"], A[i], atol=6e-4)
        assert [x == "1" for x in shown["I"]] == I[i].tolist()
        assert [x == "1" for x in shown["intervention"]] == e.intervention.tolist()
        assert shown["subtask"] == e.subtask.tolist() and shown["success"] == e.success
        assert len(shown["frames"]) == len(e) + 1  # with o_T
        kinds.add(shown["kind"])
    assert kinds == {report.kind_of(e) for e in D[1]}

def test_where_returns_are_clipped_the_report_shows_what_was_trained_on(tiny, tmp_path):
    out = copy_of(tiny, tmp_path)
    s = Settings(**(TINY_RUN | {"clip_returns": True}))
    D = load_dataset(os.path.join(out, "D_1.npz"))
    V = predict_values(load_network(os.path.join(out, "V_1.npz")), D)
    write_text(os.path.join(out, "labels_1.json"), json.dumps({"epsilon": 0.0}))
    shown = report.Report(s, out).described(D, range(len(D)), 1)["episodes"]
    for x, A in zip(shown, step_advantages(V, D, s, 1)):
        np.testing.assert_allclose(x["A"], A, atol=6e-4)

def test_the_report_holds_what_the_run_measured_and_needs_nothing_else(tiny):
    out, metrics = tiny
    path = os.path.join(out, "report.html")
    data = data_of(path)
    assert data["stages"] == metrics["stages"] and data["finished"]
    assert data["there"] == data["n_products"] == 9
    assert data["positive"] == Settings(**TINY_RUN).positive == 0.2
    assert data["joints"] == [0, 1, 3, 4] and data["per_arm"] == 3  # the others are grippers
    assert data["changed"].keys() == TINY_RUN.keys() - {"task"}
    assert [name for name, *_ in data["value"]] == ["V_pre", "V_1"]
    history = data["history"]
    assert set(history) == {"V_pre", "V_0", "V_1", "pi_pre", "pi_0", "pi_1"}
    assert [point[0] for point in history["pi_pre"]] == [1, 2, 3]
    # No address but that of SVG, which names a language.
    with open(path, encoding="utf-8") as file:
        assert set(re.findall(r"https?://[^\"']*", file.read())) == {"http://www.w3.org/2000/svg"}
    assert os.path.getsize(path) < 3_000_000

def test_a_run_that_is_not_over_has_a_report_of_what_there_is(tiny, tmp_path):
    out, metrics = tiny
    for name in ("settings.json", "D_0.npz", "V_0.npz", "D_1.npz", "seconds.json"):
        shutil.copy(os.path.join(out, name), tmp_path)
    for row in metrics["stages"]:
        if row["name"] != "recap_1":
            beta = "" if row["beta"] is None else "_beta1"
            (tmp_path / f"eval_{row['name']}{beta}.json").write_text(json.dumps(row))
    data = data_of(report.Report(Settings(**TINY_RUN), str(tmp_path)).write())
    assert not data["finished"] and data["there"] == 3 and list(data["groups"]) == ["D_0"]
    names = [row["name"] for row in data["stages"]]
    assert names == ["demonstrations", "rl_pretrained", "offline_rl_sft"]
    sft = unpack(data["groups"]["D_0"])
    assert all(set(e["I"]) == {"1"} for e in sft["episodes"])  # SFT

def test_the_report_is_written_after_every_stage(tmp_path, capsys):
    path = str(tmp_path / "out" / "report.html")
    seen = []

    def two_stages(s, keep):
        for name in ("D_0", "D_1"):
            keep(name, lambda: [episode(3)])
            seen.append(data_of(path)["there"])
        raise UserError("no more")

    arguments = [*options(TINY_RUN), "--out", os.path.dirname(path)]
    assert cli.main(two_stages, None, None, arguments) == 2
    assert seen == [1, 2] and "no more" in capsys.readouterr().err

def test_episodes_are_chosen_evenly_by_length_and_pairs_by_how_common_they_are():
    lengths = [9, 3, 7, 5, 4]
    D = [episode(T) for T in lengths] + [episode(8, success=False)]
    corrected = np.arange(6) == 2
    D.append(episode(6, source="corrected", intervention=corrected))
    # Of the successes 3 4 5 7 9 the second and the fourth; all of the others.
    assert report.choose(D) == [2, 4, 5, 6]
    # An operator who only watched corrected nothing.
    watched = episode(6, success=False, source="corrected")
    assert report.kind_of(watched) == "failure" and report.kind_of(D[6]) == "corrected"
    before = [episode(5, success=False) for _ in range(4)] + [episode(9)]
    after = [episode(T, success=True) for T in (3, 8, 6)] + [episode(7, success=False), episode(4)]
    # (fails, succeeds) thrice: 3, 6, 8 steps; then the other kinds, once each.
    assert report.choose_pairs(before, after) == [2, 3, 4]

def test_time_is_counted_by_subtask_and_standing_still_by_the_joints():
    e = episode(10)
    e = replace(e, subtask=np.array(["a"] * 4 + ["b"] * 6))
    state = np.zeros((10, 6), np.float32)
    state[:, 0] = [0, 1, 2, 3, 4, 5, 5, 5, 5, 6]  # still at steps 5, 6 and 7
    state[:, 2] = np.arange(10) % 2  # the gripper is no joint
    e.observations["state"] = state
    other = episode(20, success=False)
    other = replace(other, subtask=np.array(["a"] * 20))
    other.observations["state"] = np.arange(120, dtype=np.float32).reshape(20, 6)
    found = report.time_spent([e, other], [0, 1, 3, 4])
    assert found["spent"] == pytest.approx({"a": (0.4 + 2.0) / 2, "b": 0.6 / 2})
    assert found["still"]["b"] == pytest.approx(0.3 / 2)
    assert (found["episodes"], found["success"]) == (2, 0.5)
    # Of episodes of one step nothing is known to move.
    (spent,) = report.time_spent([episode(1), episode(1)], [0, 1, 3, 4])["spent"].values()
    assert spent == pytest.approx(0.1)

def test_what_has_no_sketch_is_shown_by_pictures_cameras_or_keypoints():
    class Plain:
        def sketch(self, observation):
            return None

        def picture(self, observation):
            return None

    keypoints = report.seen(Plain(), episode(5))["keypoints"]
    assert np.shape(keypoints) == (5, 80) and np.min(keypoints) == 0 and np.max(keypoints) == 99
    e = episode(130)
    e.observations["base"] = np.zeros((130, 8, 8, 3), np.uint8)
    shown = report.seen(Plain(), e)
    assert shown["every"] == 3 and len(shown["pictures"]) == 44  # 130 / 3
    assert base64.b64decode(shown["pictures"][0])[:2] == b"\xff\xd8"  # a JPEG
    # Cameras of other heights, and one without colours.
    seen = {"low": np.full((4, 6, 3), 7, np.uint8), "high": np.full((6, 5, 1), 9, np.uint8)}
    picture = report.picture_of(Plain(), seen)
    assert picture.shape == (6, 11, 3)
    assert (picture[:4, :6] == 7).all() and (picture[4:, :6] == 0).all()
    assert (picture[:, 6:] == 9).all()

def test_a_sketch_has_the_scene_where_it_is():
    """Discs of the bases and handles, by hand; a table's edge beyond the picture."""
    task = sim_tasks.TASKS["fold_shirt"]
    seen = {name: x[0] for name, x in task.world([0]).observe().items()}
    strokes = task.sketch(seen)
    discs = [numbers[1:3] for kind, numbers, _, _ in strokes if kind == "disc"]
    scale = Sketch.GRAIN / VIEW
    for handle in seen["keypoints"][:2, :2]:
        x = round(float((handle[0] - LEFT) * scale)), round(float((TOP - handle[1]) * scale))
        assert x in discs
    assert [words for kind, _, _, words in strokes if kind == "text"] == ["flatten shirt"]
    rings = [stroke for stroke in strokes if stroke[0] == "ring"]
    assert len(rings) == 2 and task.sketch(seen) == strokes

# ---------------------------------------------------------------- --view

def copy_of(tiny, tmp_path, *without):
    folder = tmp_path / "old"
    shutil.copytree(tiny[0], folder)
    for name in without:
        (folder / name).unlink()
    return str(folder)

def test_view_makes_the_report_of_an_old_run(tiny, tmp_path, monkeypatch, capsys):
    """Of a run from before there were reports: no history, no rollouts, no o_T."""
    new = ("report.html", "history.jsonl", "before.npz", "after.npz", "eval_demonstrations.json")
    folder = copy_of(tiny, tmp_path, *new)
    opened = []
    monkeypatch.setenv("DISPLAY", ":0")
    monkeypatch.setattr("webbrowser.open", opened.append)
    assert main("--view", folder) == 0
    path = os.path.join(folder, "report.html")
    assert capsys.readouterr().out.strip() == path and opened == ["file://" + path]
    data = data_of(path)
    assert data["history"] == {} and data["start"] is None
    # The same rollouts are made again.
    assert list(data["groups"]) == ["D_0", "D_1", "before", "after"]
    assert data["groups"] == data_of(os.path.join(tiny[0], "report.html"))["groups"]

def test_view_opens_with_the_episode_that_is_asked_for(tiny, tmp_path, monkeypatch, capsys):
    folder = copy_of(tiny, tmp_path)
    monkeypatch.delenv("DISPLAY", raising=False)
    for i in range(8):
        assert main("--view", folder, "--episode", f"1:{i}") == 0
        data = data_of(os.path.join(folder, "report.html"))
        assert data["start"] == f"D_1:{i}"
        assert i in [e["index"] for e in unpack(data["groups"]["D_1"])["episodes"]]
    capsys.readouterr()
    for given, message in (
        ("1:8", "expected an episode of D_1, 0 to 7"), ("2:0", "k from 0 to 1"),
        ("x", "expected k:i"),
    ):  # fmt: skip
        assert main("--view", folder, "--episode", given) == 2
        assert message in capsys.readouterr().err
    assert main("--episode", "1:0") == 2
    assert "without --view" in capsys.readouterr().err
    assert main("--view", str(tmp_path / "none")) == 2
    assert "--view: there is no" in capsys.readouterr().err

# ---------------------------------------------------------------- --compare

def another(tiny, tmp_path, name, seed, success=None, **settings):
    """A copy of the tiny run's numbers, with another seed, successes and settings."""
    folder = tmp_path / name
    folder.mkdir()
    metrics = read_json(tiny[0], "metrics.json")
    metrics["seed"] = metrics["settings"]["seed"] = seed
    metrics["settings"] |= settings
    for row in metrics["stages"]:
        row["success"] = row["success"] if success is None else success
    (folder / "metrics.json").write_text(json.dumps(metrics))
    shutil.copy(os.path.join(tiny[0], "history.jsonl"), folder)
    return str(folder)

def test_compare_averages_over_seeds_and_sets_apart_the_axis(tiny, tmp_path):
    runs = [another(tiny, tmp_path, f"a{i}", i, x) for i, x in enumerate((0.2, 0.4, 0.9))]
    data = data_of(compare(runs))
    (group,) = data["groups"]
    assert data["names"][-1] == "recap_1 β=1.5" and len(group["rows"]) == 5
    # Mean, and Student's t of two degrees of freedom.
    half = 4.30 * np.std([0.2, 0.4, 0.9], ddof=1) / np.sqrt(3)
    assert group["rows"][0]["success"] == pytest.approx({"mean": 0.5, "half": half})
    assert group["history"]["pi_1"][0][2] == 0  # three times the same training
    # One run has no interval, and nothing is NaN.
    lone = compare([runs[0]])
    assert data_of(lone)["groups"][0]["rows"][0]["success"] == {"mean": 0.2, "half": None}
    with open(lone, encoding="utf-8") as file:
        assert "NaN" not in file.read()
    more = another(tiny, tmp_path, "b", 0, 0.6, sft_steps=50)
    data = data_of(compare([*runs, more], "sft_steps"))
    assert [g["name"] for g in data["groups"]] == [
        "sft_steps = 2 (seed 0, 1, 2)", "sft_steps = 50 (seed 0)",
    ]  # fmt: skip
    assert [g["rows"][0]["success"]["mean"] for g in data["groups"]] == pytest.approx([0.5, 0.6])

def test_two_versions_of_the_code_are_set_apart_by_their_folders(tiny, tmp_path):
    """With the same settings and seeds: nothing else tells them apart."""
    success = {"before-seed0": 0.2, "before-seed1": 0.4, "after-seed0": 0.7, "after-seed1": 0.9}
    runs = []
    for name, x in success.items():
        runs.append(another(tiny, tmp_path, name, int(name[-1]), x))
    groups = data_of(compare(runs, "folder"))["groups"]
    assert [(g["name"], g["n"]) for g in groups] == [
        ("folder = before (seed 0, 1)", 2), ("folder = after (seed 0, 1)", 2),
    ]  # fmt: skip
    assert [g["rows"][0]["success"]["mean"] for g in groups] == pytest.approx([0.3, 0.8])
    with pytest.raises(UserError, match="have the same settings and seed, 0.*--axis folder"):
        compare(runs)

def test_a_run_from_before_a_setting_was_there_can_be_compared_in_it(tiny, tmp_path):
    old, new = (another(tiny, tmp_path, name, 0) for name in ("old", "new"))
    path = os.path.join(old, "metrics.json")
    metrics = read_json(path)
    del metrics["settings"]["sft_steps"]
    write_text(path, json.dumps(metrics))
    for runs in ([old, new], [new, old]):
        names = {g["name"] for g in data_of(compare(runs, "sft_steps"))["groups"]}
        assert names == {"sft_steps = None (seed 0)", "sft_steps = 2 (seed 0)"}

def test_compare_refuses_what_may_not_be_averaged(tiny, tmp_path, capsys):
    a = another(tiny, tmp_path, "a", 0)
    b = another(tiny, tmp_path, "b", 1, sft_steps=50)
    c = another(tiny, tmp_path, "c", 2, sft_steps=50, batch=16)
    for given, message in (
        ((a, b), "sft_steps is 2 in"), ((a, a), "have the same settings and seed, 0"),
        ((a, c, "--axis", "sft_steps"), "batch is 8 in"),
        ((a, "--axis", "nothing"), "--axis: 'nothing', expected a setting"),
        ((str(tmp_path),), "holds no metrics.json"),
    ):  # fmt: skip
        assert main("--compare", *given) == 2
        assert message in capsys.readouterr().err
    assert main("--compare", a, b, "--axis", "sft_steps") == 0
    assert capsys.readouterr().out.strip() == str(tmp_path / "compare.html")
