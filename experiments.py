"""Experiments: runs kept under runs/cache by their settings, in parallel; their numbers over seeds; where results are written.

reproduce.py and ablations.py say what is run and drawn, this module how.  Stages that two runs have in common (pre-training, SFT, the first
collection) are made once: `SHARED` says which settings a stage's file depends on.
"""
import contextlib
import glob
import hashlib
import json
import math
import os
import shutil
import sys
from concurrent.futures import ProcessPoolExecutor
from dataclasses import asdict, dataclass, fields

import matplotlib.pyplot as plt
import numpy as np
import torch
from tqdm import tqdm

import recap
from claims import failures, ratio, text_of
from data import load_dataset, load_network
from runs import Run, write_text
from settings import QUICK, Settings

CACHE, RESULTS, FIGURES = "runs/cache", "results", "figures"
QUICK_RESULTS = "runs/quick"              # --quick shows that everything runs; its figures are no results

# What each stage's files depend on: runs that agree in these settings share the files.
PRETRAINING = ("seed", "demonstrations", "positive_pretraining", "dropout", "c_fail", "clip_returns", "batch", "draws",
               "learning_rate", "pretraining_steps", "value_learning_rate", "value_pretraining_steps", "value_batch", "vision",
               "cameras", "metadata", "metadata_dropout", "web", "bodies", "token_loss", "insulation", "output", "flow_weight",
               "device")
SFT = (*PRETRAINING, "task", "sft_steps", "fine_tuning_rate", "value_steps")
COLLECTED = (*SFT, "autonomous", "corrected", "execute", "euler", "subtask_every")
EXPERIENCE = tuple(f.name for f in fields(Settings) if f.name not in ("iterations", "episodes", "beta", "ask", "supervised"))
SHARED = {"D_demo": PRETRAINING, "V_pre": PRETRAINING, "pi_pre": PRETRAINING, "supervised_pre": PRETRAINING,
          "supervised_small": PRETRAINING, "D_0": SFT, "V_0": SFT, "pi_0": SFT, "supervised_sft": SFT, "D_1": COLLECTED,
          **dict.fromkeys(("V_1", "pi_1", "D_2", "V_2", "pi_2"), EXPERIENCE)}


# ---------------------------------------------------------------- runs: cached, shared, in parallel

def sized(change, quick):
    """Settings of one row; with --quick in its size: numbers of episodes and steps shrink as QUICK's, so rows still differ."""
    full, scale = asdict(Settings()), set(QUICK) - {"iterations", "episodes"}
    shrink = lambda key, x: min(x, max(1, round(x * QUICK[key] / full[key]))) if key in scale else x
    return QUICK | {key: shrink(key, x) for key, x in change.items() if key != "episodes"} if quick else change


def digest(*things):
    return hashlib.sha256(json.dumps(things, sort_keys=True).encode()).hexdigest()[:12]


def digest_of_sources(root):
    """Of the modules under `root` that a run's numbers come from."""
    core = "recap settings training value policy backbone baselines web data runs hardware adapters".split()
    paths = [os.path.join(root, f"{name}.py") for name in core] + sorted(glob.glob(os.path.join(root, "sim_tasks", "*.py")))
    return digest([open(path, encoding="utf-8").read() for path in paths])


VERSION = digest_of_sources(os.path.dirname(os.path.abspath(__file__)))


def version_of(path):
    """VERSION of the sources that made a run ("FOLDER/run") or a shared file, as kept beside it."""
    path += ".version"
    return open(path).read() if os.path.exists(path) else "not known"


def folder_of(settings):
    return os.path.join(CACHE, f"{settings.task}-{settings.seed}-{digest(asdict(settings))}")


def shared_path(settings, name):
    values = [getattr(settings, key) for key in SHARED[name]]
    return os.path.join(CACHE, "shared", f"{name}-{digest(settings.pretraining, *values)}.npz")


@contextlib.contextmanager
def opened(settings, folder):
    """The `Run` in `folder`, made if need be; what is printed meanwhile goes to its log.txt."""
    torch.set_num_threads(1)
    os.makedirs(folder, exist_ok=True)
    with open(os.path.join(folder, "log.txt"), "a") as log, contextlib.redirect_stdout(log), contextlib.redirect_stderr(log):
        yield Run(settings, folder, recap.KINDS)


def make_run(settings, work=None):
    """Make, or go on with, the run of these settings; then work(run) in its folder, if given."""
    os.makedirs(os.path.join(CACHE, "shared"), exist_ok=True)
    with opened(settings, folder_of(settings)) as run:
        files = [(shared_path(settings, name), run.path(f"{name}.npz")) for name in SHARED]
        if not os.path.exists(run.path("settings.json")):         # a new run is of other sources if a file is that it takes over
            taken = [version_of(shared) for shared, _ in files if os.path.exists(shared)]
            write_text(run.path("run.version"), next((version for version in taken if version != VERSION), VERSION))
        run.json("settings", lambda: asdict(settings))
        if not os.path.exists(run.path("metrics.json")):
            for shared, own in files:
                _copy(shared, own)
            recap.recap(run)
            for shared, own in files:
                if _copy(own, shared):
                    write_text(f"{shared}.version", version_of(run.path("run")))
            recap.write_recap_metrics(run)
        if work is not None:
            work(run)


def _copy(source, target):
    """If there is a source and no target yet; all or nothing, as every file here.  -> whether it did"""
    if missing := os.path.exists(source) and not os.path.exists(target):
        recap.write_atomically(target, lambda temporary: shutil.copyfile(source, temporary), ".npz")
    return missing


def make_runs(all_settings, jobs, work=None):
    """`make_run` for many, side by side.  -> list of folders

    Runs that wait for the pre-training of another one come after it, and find its files.
    """
    first, later, coming = [], [], set()          # coming: what one of the first will make
    for settings in all_settings:
        keys = {shared_path(settings, name) for name in ("pi_pre", *(("supervised_pre",) if settings.supervised else ()))}
        missing = {key for key in keys if not os.path.exists(key)}
        (later if missing and missing <= coming else first).append(settings)
        coming |= missing
    with ProcessPoolExecutor(jobs) as pool, tqdm(total=len(all_settings), desc="runs", disable=None) as bar:
        for group in (first, later):
            for _ in pool.map(make_run, group, [work] * len(group)):
                bar.update()
    folders = [folder_of(settings) for settings in all_settings]
    if old := [folder for folder in folders if version_of(os.path.join(folder, "run")) != VERSION]:
        print(f"warning: {len(old)} of {len(folders)} runs come from other or unknown sources, e.g. {old[0]}", file=sys.stderr)
    return folders


def read_json(*path):
    with open(os.path.join(*path)) as file:
        return json.load(file)


def network_of(folder, name):
    return load_network(os.path.join(folder, f"{name}.npz"), recap.KINDS)[0]


def data_of(run):
    """D_ℓ of a finished run: D_0 to D_K."""
    return [e for k in range(run.settings.iterations + 1) for e in load_dataset(run.path(f"D_{k}.npz"))]


def metrics_of(folder):
    return read_json(folder, "metrics.json")


def stage_of(folder, name, beta):
    if beta is None:          # demonstrations: an operator's, so there is no evaluation of a policy
        return next(x for x in metrics_of(folder)["stages"] if x["name"] == name)
    return read_json(folder, f"eval_{name}_beta{beta:g}.json")


# ---------------------------------------------------------------- numbers

def spread(values):
    """Mean over seeds, its standard error, and n."""
    values = np.asarray(values, float)
    error = values.std(ddof=1) / math.sqrt(len(values)) if len(values) > 1 else None
    return {"mean": float(values.mean()), "se": error if error is None else float(error), "n": len(values)}


def row_of(folders, name, beta=1.0):
    """One stage over the runs of one task and other seeds: per-seed success and throughput, and their spreads.

    se_evaluation: the mean standard error of one seed's own evaluation, beside the spread between seeds.
    """
    x = [stage_of(folder, name, beta) for folder in folders]
    return {key: spread([a[key] for a in x]) | {"se_evaluation": float(np.mean([a[f"{key}_se"] for a in x])),
                                                "values": [a[key] for a in x]} for key in ("success", "throughput")} | {
        "per_stage_success": [a["per_stage_success"] for a in x], "episodes": x[0]["episodes"],
        "failed_early": spread([a["failed_early"] for a in x]), "subtask_accuracy": [a.get("subtask_accuracy") for a in x]} | (
        {"items": {item: [a["items"].get(item, {}).get("success") for a in x] for item in x[0]["items"]}} if "items" in x[0] else {})


def rows_of(folders, stages):
    """{"NAME β=b" or "NAME": `row_of`} of several stages [(name, β or None), ...]."""
    return {name if beta is None else f"{name} β={beta:g}": row_of(folders, name, beta) for name, beta in stages}


def table(rows, base=None):
    """Rows of `rows_of` as text: mean ± standard error over seeds (and that of one seed's evaluation).

    base: the row to whose throughput and failures the others are compared.
    """
    width = 2 + max(map(len, rows))
    text = [f"{'':<{width}}{'success %':^22}{'per hour':^18}" + (f"{'throughput × [95 %]':^26}{'failures × [95 %]':^26}" if base else "")]

    def cell(x, scale, digits):
        seeds = "–" if x["se"] is None else f"{scale * x['se']:.{digits}f}"
        return f"{scale * x['mean']:.{digits}f} ± {seeds} ({scale * x['se_evaluation']:.{digits}f})"
    for name, row in rows.items():
        line = f"{name:<{width}}{cell(row['success'], 100, 1):^22}{cell(row['throughput'], 1, 0):^18}"
        if base:
            line += f"{text_of(ratio(row['throughput']['values'], rows[base]['throughput']['values'])):^26}"
            line += f"{text_of(ratio(failures(row), failures(rows[base]))):^26}"
        text.append(line)
    return "\n".join(text)


class UsageError(ValueError):
    """The command line asks for what cannot be."""


@dataclass
class Options:
    """Of the command line: which seeds and parts, how many processes, and whether it is only to be quick."""
    seeds: tuple
    jobs: int
    quick: bool
    only: list | None = None

    def parts(self, known, name):
        """Those of `known` (tasks, points of the map) that --only asks for, all without it.

        UsageError if none is left, or if others will stay in results/NAME.json, whose seeds are not these.
        """
        asked, old = [part for part in known if not self.only or part in self.only], self.read(name)
        if not asked:
            raise UsageError(f"--only: {' '.join(self.only)}, expected some of {', '.join(known)} for {name}")
        if old and set(old["rows"]) - set(asked) and self.only and old["seeds"] != list(self.seeds):
            raise UsageError(f"--seeds: {tuple(self.seeds)}, expected {tuple(old['seeds'])} as for the other parts in {name}.json")
        return asked

    def folder(self, kind):
        folder = os.path.join(QUICK_RESULTS, kind) if self.quick else kind
        os.makedirs(folder, exist_ok=True)
        return folder

    def read(self, name):
        """results/NAME.json, or None.  {"seeds", "rows": {part or row: ...}}"""
        path = os.path.join(self.folder(RESULTS), f"{name}.json")
        return read_json(path) if os.path.exists(path) else None

    def keep(self, name, rows):
        """Write results/NAME.json; parts that --only left out stay as they were.  -> rows"""
        if self.only and (old := self.read(name)):
            rows = old["rows"] | rows
        text = json.dumps({"seeds": list(self.seeds), "rows": rows}, indent=1)
        write_text(os.path.join(self.folder(RESULTS), f"{name}.json"), text)
        return rows

    def draw(self, name, function, *arguments):
        """figures/NAME.png from function(*arguments) -> Figure."""
        figure = function(*arguments)
        path = os.path.join(self.folder(FIGURES), f"{name}.png")
        recap.write_atomically(path, lambda temporary: figure.savefig(temporary, dpi=110), ".png")
        plt.close(figure)
