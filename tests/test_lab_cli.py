"""lab/cli.py and lab/tables.py: options in, a folder and a table out; what is refused, and how."""
import json
import os
import re
import shutil
from dataclasses import fields

import numpy as np
import pytest
import torch

import recap
import sim_tasks
from helpers import TINY_RUN
from data import UserError
from lab import cli, files, tables
from lab.cli import QUICK
from lab.files import read_json
from lab.run import Run
from settings import Settings

def parse(arguments):
    return cli.parser().parse_args(arguments)

def open_run(args):
    return Run(*cli.open_run(args, None))

def main(*arguments):
    return cli.main(recap.recap, recap.supervised, None, list(arguments))

# ---------------------------------------------------------------- settings as options

def test_every_setting_is_an_option():
    """Every field, once with a value of its own; booleans as --name and --no-name.

    What is not given stays None.
    """
    booleans = {f.name for f in fields(Settings) if isinstance(f.default, bool)}
    for f in fields(Settings):
        option = "--" + f.name.replace("_", "-")
        assert getattr(parse([]), f.name) is None
        if f.name in booleans:
            assert getattr(parse([option]), f.name) is True
            assert getattr(parse(["--no-" + option[2:]]), f.name) is False
            continue
        given = f.default
        if given is None:  # a share, or a number of steps or episodes
            given = 0.5 if f.type == float | None else 7
            given = "box" if f.name == "pretraining_tasks" else given
        value = getattr(parse([option, str(given)]), f.name)
        assert value == given and type(value) is type(given)
    assert booleans == {
        "supervised", "vision", "metadata", "bodies", "clip_returns", "force_corrections",
        "value_on_corrections", "token_loss", "insulation", "bf16", "value_clock",
    }  # fmt: skip

def test_no_insulation_on_the_command_line_reaches_the_run(tmp_path):
    for given, expected in (([], True), (["--insulation"], True), (["--no-insulation"], False)):
        out = str(tmp_path / f"{expected}{len(given)}")
        run = open_run(parse([*given, "--out", out]))
        assert run.settings == Settings(insulation=expected)
        assert recap.new_policy(run.settings).config.insulation == expected
        assert open_run(parse(["--resume", run.out])).settings == run.settings
    arguments = ["--quick", "--no-token-loss", "--evaluation-metadata", "fast", "--metadata"]
    quick = open_run(parse([*arguments, "--out", str(tmp_path / "quick")]))
    more = dict(token_loss=False, evaluation_metadata="fast", metadata=True)
    assert quick.settings == Settings(**QUICK, **more)

# ---------------------------------------------------------------- help

def test_help_has_its_groups_every_default_and_the_other_doors(monkeypatch):
    """What `python recap.py --help` prints: each setting in its group, with its default."""
    monkeypatch.setenv("COLUMNS", "80")
    shown = cli.parser().format_help()
    titles = re.findall(r"^(\w+):$", shown, re.MULTILINE)
    groups = ["task", "data", "labels", "training", "acting", "output"]
    assert [title for title in titles if title != "options"] == groups
    for door in ("-m reproduce", "-m robots", "-m benchmarks"):
        assert f"python {door} --help" in shown
    # One group after the other, and in each the text of every option in one line.
    parts = re.split(r"^(\w+):$", shown, flags=re.MULTILINE)
    text = {title: parts[parts.index(title) + 1] for title in groups}
    about = {}
    for title in groups:
        for entry in re.split(r"\n  (?=--)", text[title])[1:]:
            name = re.match(r"--([\w-]+)", entry)[1].replace("-", "_")
            about[name] = (title, " ".join(entry.split()))
    assert set(about) == {f.name for f in fields(Settings)} | {
        "out", "quick", "resume", "summary", "view", "episode", "compare", "axis", "tensorboard",
    }  # fmt: skip
    s = Settings()
    for f in fields(Settings):
        title, entry = about[f.name]
        assert title == f.metadata["group"]
        notes = entry[entry.rindex("(default: ") :]
        default = getattr(s, f.name)
        words = str(default) or "none"
        if isinstance(default, bool):
            words = ("no", "yes")[default]
        if f.default is None:  # it hangs on the task, or on --vision
            assert f.metadata["usual"] in notes
        if f.name == "pretraining_tasks":
            assert default == " ".join(sim_tasks.TASKS) and "all toys" in notes
        elif f.default is None:
            assert re.search(rf"\b{re.escape(f'{default:g}')}\b", notes), (f.name, notes)
        else:
            assert re.match(rf"\(default: {re.escape(words)}(; paper: .*)?\)$", notes), notes
        if f.metadata["paper"] is not None:
            assert f"paper: {f.metadata['paper']}" in notes
    assert "default: runs/TASK-seedN" in about["out"][1]

# ---------------------------------------------------------------- folders

def test_the_default_folder_names_task_and_seed_and_the_next_run_gets_the_next(
    tmp_path, monkeypatch
):
    monkeypatch.chdir(tmp_path)
    arguments = parse(["--task", "box", "--seed", "7"])
    names = [open_run(arguments).out for _ in range(3)]
    assert names == ["runs/box-seed7", "runs/box-seed7-2", "runs/box-seed7-3"]
    assert open_run(parse([])).out == "runs/fold_shirt-seed0"
    assert open_run(parse(["--quick"])).out == "runs/fold_collar-seed0-quick"
    assert open_run(parse(["--quick"])).out == "runs/fold_collar-seed0-quick-2"
    assert sorted(os.listdir("runs")) == [
        "box-seed7", "box-seed7-2", "box-seed7-3", "fold_collar-seed0-quick",
        "fold_collar-seed0-quick-2", "fold_shirt-seed0",
    ]  # fmt: skip
    # Each is a run that can go on.
    assert open_run(parse(["--resume", names[1]])).settings == Settings(task="box", seed=7)

def test_a_folder_is_claimed_by_one_run_alone(tmp_path, monkeypatch):
    """Of two that see it free at the same moment, one has it; by default the other takes the next.

    The claim is settings.json, whole: there is no moment at which a folder is neither free nor
    ready for --resume.
    """
    real = files.write_text
    seen = []

    def together(path, text, **how):
        """Another run claims the folder after this one found it free."""
        if not seen:
            seen.append(path)
            assert not os.path.exists(path)
            files.claim(os.path.dirname(path), {"seed": 1})
        real(path, text, **how)

    monkeypatch.setattr(files, "write_text", together)
    monkeypatch.chdir(tmp_path)
    assert open_run(parse(["--task", "box"])).out == "runs/box-seed0-2"
    assert read_json("runs/box-seed0", "settings.json") == {"seed": 1}
    seen.clear()
    with pytest.raises(UserError, match="named was taken by another run"):
        open_run(parse(["--out", "named"]))
    assert os.listdir("named") == ["settings.json"]

@pytest.mark.slow
@pytest.mark.skipif(os.name == "nt", reason="no fork")
def test_a_run_that_is_killed_at_its_first_moment_leaves_a_free_folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    child = os.fork()
    if child == 0:
        try:
            files.sync = lambda path: os._exit(9)
            cli.main(None, None, None, ["--out", "x"])
        finally:
            os._exit(1)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 9
    assert all(name.startswith(".writing-") for name in os.listdir("x"))
    assert open_run(parse(["--out", "x"])).settings == Settings()
    assert open_run(parse(["--resume", "x"])).settings == Settings()

def test_supervised_is_trained_first_and_only_when_asked(tmp_path, monkeypatch):
    monkeypatch.setattr(cli, "finish", lambda run, report: calls.append("finish"))
    calls = []

    def algorithm(name):
        def run(s, keep):
            assert keep.__self__.settings is s
            calls.append(name)

        return run

    for i, given in enumerate(([], ["--supervised"])):
        arguments = [*given, "--out", str(tmp_path / str(i))]
        assert cli.main(algorithm("recap"), algorithm("supervised"), None, arguments) == 0
    assert calls == ["recap", "finish", "supervised", "recap", "finish"]

def test_ctrl_c_says_how_to_go_on(tmp_path, capsys):
    def interrupted(s, keep):
        raise KeyboardInterrupt

    out = str(tmp_path / "x")
    assert cli.main(interrupted, interrupted, None, ["--out", out]) == 130
    assert f"python recap.py --resume {out} goes on" in capsys.readouterr().err

# ---------------------------------------------------------------- bad input

def complaint(capsys, *arguments):
    """Exit code 2 and one line on stderr; returns the line."""
    try:
        code = main(*arguments)
    except SystemExit as leave:  # argparse
        code = leave.code
    error = capsys.readouterr().err.strip()
    assert code == 2
    return error.splitlines()[-1]

@pytest.mark.parametrize(
    "arguments, words",
    [
        (["--task", "juggle"], ["task", "juggle", "fold_shirt"]),
        (["--iterations", "-1"], ["iterations", "-1", ">= 0"]),
        (["--beta", "-0.5"], ["beta", "-0.5", ">= 0"]),
        (["--beta", "nan"], ["beta", "nan"]),
        (["--device", "tpu"], ["device", "tpu"]),
        (["--positive", "1.5"], ["positive", "1.5"]),
        (["--batch", "0"], ["batch", "0"]),
        (["--seed", "x"], ["seed", "x"]),
        (["--execute", "9"], ["execute", "9", "8"]),
        (["--dropout", "0"], ["dropout", "(0, 1)"]),
        (["--seed", str(2**63)], ["seed", "<="]),
        (["--beta", "1e308"], ["beta", "1e+308", "1000"]),
        (["--c-fail", "1e308"], ["c_fail", "1e+308", "1000"]),
        (["--autonomous", "1" + "0" * 30], ["autonomous", "<="]),
        (["--horizon", "100000"], ["horizon", "1000"]),
        (["--learning-rate", "1e308"], ["learning_rate", "1e+308"]),
    ],
)
def test_bad_arguments(capsys, arguments, words, tmp_path):
    line = complaint(capsys, *arguments, "--out", str(tmp_path / "new"))
    assert all(word in line for word in words), line
    assert not (tmp_path / "new").exists()

def test_a_device_that_is_not_there_is_refused_before_anything_is_made(
    capsys, tmp_path, monkeypatch
):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    line = complaint(capsys, "--device", "cuda", "--out", str(tmp_path / "new"))
    assert "cuda is not available" in line
    assert not (tmp_path / "new").exists()

def test_a_folder_with_something_in_it_is_left_alone(capsys, tiny, tmp_path):
    out, _ = tiny

    def times():
        return {name: os.stat(os.path.join(out, name)).st_mtime_ns for name in os.listdir(out)}

    before = times()
    assert "--resume" in complaint(capsys, "--quick", "--out", out)
    assert before == times()
    assert "settings.json" in complaint(capsys, "--resume", str(tmp_path))
    assert "no other option" in complaint(capsys, "--resume", out, "--seed", "3")
    (tmp_path / "settings.json").write_text('{"ask": "fast"}')
    assert "not the settings of a run" in complaint(capsys, "--resume", str(tmp_path))

@pytest.mark.parametrize("name", ["pi_pre.npz", "D_demo.npz"])
@pytest.mark.parametrize("damage", ["truncated", "foreign"])
def test_damaged_files_are_named_and_kept(capsys, tiny, tmp_path, name, damage):
    copied = tmp_path / "out"
    shutil.copytree(tiny[0], copied)
    path = copied / name
    if damage == "truncated":
        path.write_bytes(path.read_bytes()[: len(path.read_bytes()) // 2])
    else:
        np.savez(path, something=np.arange(3))
    content = path.read_bytes()
    line = complaint(capsys, "--resume", str(copied))
    assert name in line and ("dataset" in line or "checkpoint" in line)
    assert path.read_bytes() == content

# ---------------------------------------------------------------- tables

def write_metrics(folder, success, throughput, task="box", K=1, seed=0, **settings):
    """A finished run whose SFT has 50 % and 100 per hour, and every iteration the same numbers."""

    def row(name, success, throughput):
        fixed = {"beta": 1.0, "failed_early": 0.0, "episodes": 10}
        return {"name": name, "success": success, "throughput": throughput} | fixed

    stages = [row("offline_rl_sft", 0.5, 100.0)]
    stages += [row(f"recap_{k + 1}", success, throughput) for k in range(K)]
    metrics = {"task": task, "stages": stages, "value": {"heldout_correlation": 0.5}}
    metrics["settings"] = {"task": task, "iterations": K, "lookahead": 10, "seed": seed} | settings
    folder.mkdir()
    (folder / "metrics.json").write_text(json.dumps(metrics))
    return str(folder)

def test_summary_of_runs_by_hand(tmp_path, capsys):
    """Two seeds: 60 and 80 % (mean 70 ± 10), throughput 2 and 3 times that of SFT (2.50 ± 0.50).

    Failures are 0.8 and 0.4 of its own.
    """
    a = write_metrics(tmp_path / "a", 0.6, 200.0)
    b = write_metrics(tmp_path / "b", 0.8, 300.0, seed=1)
    lines = tables.summary([a, b]).splitlines()
    line = next(line for line in lines if line.startswith("recap_1"))
    assert [x.strip() for x in re.split(r"\s{2,}", line.strip())][1:] == [
        "70.0 ± 10.0", "0.0 ± 0.0", "250 ± 50", "2.50 ± 0.50", "0.60 ± 0.20", "2.50 ± 0.50",
    ]  # fmt: skip
    assert main("--summary", a, b) == 0
    assert capsys.readouterr().out.splitlines() == lines
    for other, message in (
        (write_metrics(tmp_path / "c", 0.6, 1.0, "espresso"), "runs of box, espresso, expected"),
        (write_metrics(tmp_path / "d", 0.6, 1.0, K=2), "runs of other stages"),
        (str(tmp_path / "none"), "holds no metrics.json"),
    ):
        with pytest.raises(ValueError, match=message):
            tables.summary([a, other])
        assert message in complaint(capsys, "--summary", a, other)

def test_a_summary_is_of_other_seeds_alone(tmp_path, capsys):
    """Nothing else may differ, no run may count twice, and one run has no ± of its own."""
    a = write_metrics(tmp_path / "a", 0.6, 200.0)
    copy = write_metrics(tmp_path / "copy", 0.6, 200.0)
    other = write_metrics(tmp_path / "other", 0.6, 200.0, seed=1, lookahead=5)
    for folders, message in (
        ([a, a], f"{a} and {a} are both of seed 0, expected each once"),
        ([a, copy], f"{a} and {copy} are both of seed 0"),
        ([a, other], f"lookahead is 10 in {a}, 5 in {other}, expected runs that differ in their"),
    ):
        assert message in complaint(capsys, "--summary", *folders)
    (tmp_path / "all").mkdir()
    (tmp_path / "all/metrics.json").write_text('{"task": "box", "stages": [{"name": "g"}]}')
    assert "has no row offline_rl_sft" in complaint(capsys, "--summary", str(tmp_path / "all"))
    (tmp_path / "all/metrics.json").write_text('{"task": "bo')
    assert "metrics.json: not a JSON" in complaint(capsys, "--summary", str(tmp_path / "all"))
    for text in ("[]", "3", '{"stages": 3}', '{"stages": [{"name": "offline_rl_sft"}]}'):
        (tmp_path / "all/metrics.json").write_text(text)
        for option in ("--summary", "--compare"):
            said = complaint(capsys, option, str(tmp_path / "all"))
            assert "metrics.json: not the metrics of a run" in said

    never = write_metrics(tmp_path / "never", 1.0, 0.0, seed=2)
    text = tables.summary([never])
    assert "nan" not in text and "±" not in text.split("\n", 1)[1]
    line = next(line for line in text.splitlines() if line.startswith("recap_1"))
    assert line.split()[2:] == ["100.0", "0.0", "0", "0.00", "0.00", "0.00"]

def test_the_table_of_a_run_by_hand(tiny):
    """Gains over SFT and over the best earlier policy, at either β of the last policy."""
    _, metrics = tiny
    rows = [dict(row) for row in metrics["stages"]]
    sets = ((0.3, 30), (0.25, 150.0), (0.5, 100.0), (0.6, 200.0), (0.9, 300.0))
    for row, (success, throughput) in zip(rows, sets, strict=True):
        row["success"] = success
        row["throughput"] = throughput
    lines = tables.table(metrics | {"stages": rows}).splitlines()
    assert len(lines) == 1 + len(rows) + 2 + 2
    assert [line.split()[0] for line in lines[1:6]] == [row["name"] for row in rows]
    assert "90.0%" in lines[5] and "1.5" in lines[5].split()[1]
    gain = "recap_1 at β = 1: throughput × 2.00, failures × 0.80 of offline_rl_sft;"
    assert lines[6] == gain
    assert lines[7] == "throughput × 1.33 of rl_pretrained, the best before"
    gain = "recap_1 at β = 1.5: throughput × 3.00, failures × 0.20 of offline_rl_sft;"
    assert lines[8] == gain
    assert lines[9] == "throughput × 2.00 of rl_pretrained, the best before"
    rows[2]["throughput"] = 0.0
    assert "throughput undefined (0 before)" in tables.table(metrics | {"stages": rows})

def test_the_presets_are_settings():
    """--quick is the first look; what tests run is not offered to people."""
    for preset in (QUICK, cli.TINY, TINY_RUN):
        assert Settings(**preset)
    assert "tiny" not in cli.parser().format_help().lower()
