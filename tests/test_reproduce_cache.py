"""Runs under runs/cache: what they share, whose sources made them, and that nothing changes."""
import filecmp
import json
import os
import shutil
from dataclasses import asdict, fields, replace

import numpy as np
import pytest
import torch

import recap
from helpers import ROOT, TINY_RUN
from lab.cli import TINY as QUICK_SIZES
from lab.run import Run
from reproduce import ablations, cache, extraction, headline
from reproduce.cache import COLLECTED, PRETRAINING, SFT
from settings import Settings

TINY = TINY_RUN | dict(corrected=0)

# Another value of every setting that is a word.
WORDS = {
    "task": "box",
    "cameras": "base",
    "pretraining_tasks": "box",
    "restart": "last",
    "output": "velocity",
    "flow_weight": "paper",
    "data": "D.npz",
    "size": "small",
}


def another(name, value):
    """A value of this setting that is not `value`."""
    if isinstance(value, str):
        return WORDS[name]
    if isinstance(value, bool):
        return not value
    return value + 1 if isinstance(value, int) else value * 0.5 + 0.01


def test_runs_share_a_file_only_if_they_agree_in_what_it_depends_on():
    base = Settings()
    names = {field.name for field in fields(Settings)}
    for changed in names - {"evaluation_metadata", "device"}:  # these need others, too
        settings = Settings(**{changed: another(changed, getattr(base, changed))})
        for name, keys in cache.SHARED.items():
            same = cache.shared_path(settings, name) == cache.shared_path(base, name)
            assert same == (changed not in (*keys, "pretraining_tasks")), (changed, name)
    assert set(PRETRAINING) < set(SFT) < set(COLLECTED) < names
    # What is left out is read only after the first collection, or in evaluations.
    assert names - set(COLLECTED) == {
        "iterations", "beta", "supervised", "evaluation_metadata", "pretraining_tasks",
        "evaluation_episodes", "lookahead", "positive", "force_corrections",
        "value_on_corrections", "policy_steps", "restart",
        "balance",
    }  # fmt: skip


def test_rows_differ_with_quick_too_and_without_it_are_what_they_say():
    groups = {"map": list(extraction.POINTS.values())}
    for name, (_, common, rows) in ablations.ABLATIONS.items():
        groups[name] = [common | change for change in rows.values()]
    base = dict(iterations=1, evaluation_episodes=500)
    for name, rows in groups.items():
        small = set()
        for row in rows:
            settings = Settings(**cache.sized(base | row, True))
            small.add(json.dumps(asdict(settings), sort_keys=True))
            full = asdict(Settings(**cache.sized(base | row, False)))
            assert full == asdict(Settings(**(base | row)))
            assert all(full[key] == x for key, x in (base | row).items())
        assert len(small) == len(rows), name
    asked = dict(iterations=2, autonomous=300, corrected=0, policy_steps=1, dropout=0.1)
    quick = cache.sized(asked | dict(evaluation_episodes=500), True)
    assert {key: quick[key] for key in asked} == asked | dict(autonomous=40)
    assert quick["evaluation_episodes"] == QUICK_SIZES["evaluation_episodes"]
    assert quick["sft_steps"] == QUICK_SIZES["sft_steps"]


# ---------------------------------------------------------------- the version of the sources


class Pool:
    """In this process: another one would not know of what a test replaces."""

    def __init__(self, jobs):
        self.map = map

    def __enter__(self):
        return self

    def __exit__(self, *error):
        pass


def test_a_run_that_other_sources_made_is_used_with_a_warning(tmp_path, monkeypatch, capsys):
    """... and so is one that took over a file of theirs; what is kept stays as it is."""
    monkeypatch.chdir(tmp_path)

    def fake(s, keep):
        """Writes what Algorithm 1 would, as far as the cache knows."""
        for name in cache.SHARED:
            path = f"{cache.folder_of(s)}/{name}.npz"
            if not os.path.exists(path):
                np.savez(path, made=np.array(s.positive))

    monkeypatch.setattr(recap, "recap", fake)
    monkeypatch.setattr(Run, "write_recap_metrics", lambda run: run.json("metrics", dict))
    monkeypatch.setattr(cache, "workers", Pool)
    runs = [Settings(**(TINY | change)) for change in ({}, dict(positive=0.3), dict(seed=1))]

    def make(settings):
        """As make_runs."""
        cache.make_run(settings)
        return cache.version_of(os.path.join(cache.folder_of(settings), "run"))

    here = cache.VERSION
    assert make(runs[0]) == here
    monkeypatch.setattr(cache, "VERSION", "another")
    assert make(runs[0]) == here  # found, not made
    assert make(runs[1]) == here  # its pre-training is that of the first
    assert make(runs[2]) == "another"
    taken = np.load(os.path.join(cache.folder_of(runs[1]), "pi_pre.npz"))
    assert taken["made"] == runs[0].positive

    assert cache.make_runs(runs, 1) == [cache.folder_of(s) for s in runs]
    assert "warning: 2 of 3 runs" in capsys.readouterr().err
    cache.make_runs(runs[2:], 1)
    assert "warning" not in capsys.readouterr().err
    # Made before versions were kept.
    os.remove(os.path.join(cache.folder_of(runs[2]), "run.version"))
    cache.make_runs(runs[2:], 1)
    assert "warning: 1 of 1 runs" in capsys.readouterr().err


def test_those_wait_whose_pretraining_another_run_makes(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    first = Settings(**TINY)
    same = Settings(**(TINY | dict(positive=0.3)))
    supervised = Settings(**(TINY | dict(positive=0.3, supervised=True)))  # needs another network
    other = Settings(**(TINY | dict(seed=1)))
    rounds = cache.two_rounds([first, same, supervised, other])
    assert rounds == ([first, supervised, other], [same])
    path = cache.shared_path(first, "pi_pre")
    os.makedirs(os.path.dirname(path))
    open(path, "w").close()
    assert cache.two_rounds([first, same]) == ([first, same], [])


def test_the_version_is_that_of_the_modules_sources(tmp_path):
    for folder in ("lab", "sim_tasks", "reproduce", "examples"):
        shutil.copytree(os.path.join(ROOT, folder), tmp_path / folder)
    for name in os.listdir(ROOT):
        if name.endswith(".py"):
            shutil.copy(os.path.join(ROOT, name), tmp_path)
    assert cache.digest_of_sources(ROOT) == cache.digest_of_sources(tmp_path)
    for name, counts in (
        ("lab/plots.py", False),
        ("examples/aloha.py", True),
        ("reproduce/stages.py", False),
        ("reproduce/slow_operator.py", True),
        ("hardware.py", False),
        ("recap.py", True),
        ("labels.py", True),
        ("collection.py", True),
        ("control.py", True),
        ("lab/evaluation.py", True),
        ("sim_tasks/arms.py", True),
    ):
        before = cache.digest_of_sources(tmp_path)
        with open(tmp_path / name, "a", encoding="utf-8") as file:
            file.write("\n")
        assert (cache.digest_of_sources(tmp_path) != before) == counts, name


def test_every_module_of_the_method_counts():
    """What recap.py imports, directly or not, of the root and of lab/run.py's measurements."""
    root = {name[:-3] for name in os.listdir(ROOT) if name.endswith(".py")}
    assert set(cache.METHOD.split()) == root - {"hardware"}  # which only drives robots


# ---------------------------------------------------------------- whole runs


@pytest.mark.slow
def test_a_cached_run_is_the_run_of_the_command_line(tmp_path, monkeypatch):
    """Shared pre-training changes nothing; a second call finds everything made."""
    monkeypatch.chdir(tmp_path)
    torch.set_num_threads(1)
    settings = [Settings(**TINY), Settings(**(TINY | dict(positive=0.3)))]
    folders = cache.make_runs(settings, 1)
    before = {}
    for folder in folders:
        for name in os.listdir(folder):
            if name.endswith((".npz", "metrics.json")):
                path = os.path.join(folder, name)
                before[path] = os.stat(path).st_mtime_ns
    assert cache.make_runs(settings, 1) == folders
    assert before == {path: os.stat(path).st_mtime_ns for path in before}

    out = str(tmp_path / "alone")
    os.makedirs(out)
    run = Run(settings[1], out)
    recap.recap(settings[1], run.keep)

    def without_times(stages):
        return [{key: x for key, x in row.items() if key != "seconds"} for row in stages]

    kept = cache.metrics_of(folders[1])
    assert without_times(run.stages) == without_times(kept["stages"])
    with open(os.path.join(folders[1], "settings.json"), encoding="utf-8") as file:
        assert json.load(file) == asdict(settings[1])

    # Another β takes over what was trained, and V alone is the run's V.
    third = cache.make_runs([Settings(**(TINY | dict(positive=0.3, beta=3.0)))], 1)[0]
    ours = os.path.join(folders[1], "pi_1.npz")
    assert filecmp.cmp(os.path.join(third, "pi_1.npz"), ours, shallow=False)
    alone = ablations.value_alone(settings[1])
    assert alone["train_loss"] == kept["value"]["V_pre"]["train_loss"]


@pytest.mark.slow
def test_a_method_is_the_call_it_stands_for_from_either_start_at_any_rate(tmp_path, monkeypatch):
    """`extract` against train_policy and evaluate called here, for one method, two networks."""
    monkeypatch.chdir(tmp_path)
    torch.set_num_threads(1)
    s = Settings(**(TINY | dict(supervised=True)))
    starts = {
        "supervised_pre": "filtered_imitation",
        "pi_pre": "filtered_imitation_from_pi_pre",
    }
    cache.make_run(s, lambda run: extraction.extract(run, ["filtered imitation"], tuple(starts)))
    folder = cache.folder_of(s)
    made = {name for name in os.listdir(folder) if "imitation" in name or "AWR" in name}
    expected = set()
    for file in starts.values():
        expected |= {f"baseline_{file}.npz", f"eval_{file}_beta1.json"}
    assert made == expected

    D = cache.data_of(folder, 1)
    assert {e.iteration for e in D} == {0, 1}
    drawn = np.concatenate([np.full(len(e), e.success) for e in D])
    for start, file in starts.items():
        network = recap.train_policy(
            cache.network_of(folder, start), D, None, s, s.policy_steps,
            loss=extraction.plain_loss, drawn=drawn,
        )  # fmt: skip
        kept = cache.network_of(folder, f"baseline_{file}")
        for a, b in zip(network.state_dict().values(), kept.state_dict().values()):
            assert torch.equal(a, b)
        assert cache.stage_of(folder, file, 1.0)["episodes"] == s.evaluation_episodes

    faster = extraction.at_rate("filtered imitation", 2.0)
    cache.make_run(s, lambda run: extraction.extract(run, [faster]))
    network = recap.train_policy(
        cache.network_of(folder, "supervised_pre"), D, None,
        replace(s, fine_tuning_rate=2 * s.fine_tuning_rate), s.policy_steps,
        loss=extraction.plain_loss, drawn=drawn,
    )  # fmt: skip
    kept = cache.network_of(folder, "baseline_filtered_imitation_ratex2")
    for a, b in zip(network.state_dict().values(), kept.state_dict().values()):
        assert torch.equal(a, b)


@pytest.mark.slow
def test_sft_in_as_many_steps_is_sft_where_it_has_as_many(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    torch.set_num_threads(1)
    s = Settings(**(TINY | dict(sft_steps=7, policy_steps=7)))
    cache.make_run(s, headline.rivals)
    folder = cache.folder_of(s)
    pi_0 = cache.network_of(folder, "pi_0")
    long_sft = cache.network_of(folder, "long_sft")
    for a, b in zip(pi_0.state_dict().values(), long_sft.state_dict().values()):
        assert torch.equal(a, b)
    once, again = (cache.stage_of(folder, name, 1.0) for name in ("offline_rl_sft", "long_sft"))
    assert once.keys() == again.keys()
    for key in once.keys() - {"name", "seconds"}:
        assert once[key] == again[key], key
    assert cache.stage_of(folder, headline.POSITIVES, 1.0)["episodes"] == s.evaluation_episodes
