"""The pictures of the symptom pages: one small run with each bug beside one without it.

    python exercises/hunts/hunt.py --figures [N ...]

All runs are on FoldCollar with `SIZE` and seed 0; a bug that takes more names it in `Bug.run`.
Two things save time.  Every policy starts from one network that the library without a bug has
trained to imitate (`WARM` steps, no indicator), in the place of the paper's pre-trained VLM.  And
the products that lie before `Bug.since` are those of the run without a bug.  The curves are drawn
by this tree's matplotlib and colours, never by those of the tree with the bug.
"""
import contextlib
import hashlib
import io
import json
import pickle
import re
import shutil
import sys
import tempfile
import textwrap
from dataclasses import replace
from functools import partial
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
import torch
from bugs import BUGS
from PIL import Image
from trees import HERE, modules_from, plant

from make_student_tree import ROOT, copy_modules

sys.path.insert(0, str(ROOT))
from lab import plots  # noqa: E402  (of this tree)

SIZE = dict(
    task="fold_collar", pretraining_tasks="", iterations=1, seed=0, demonstrations=100,
    autonomous=60, corrected=15, evaluation_episodes=100, draws=2, pretraining_steps=150,
    sft_steps=60, policy_steps=300, value_pretraining_steps=120, value_steps=50, value_batch=64,
)  # fmt: skip
WARM = 1600  # steps of imitation before the first stage
# What Algorithm 1 makes, in its order.
FILES = ("D_demo", "V_pre", "pi_pre", "D_0", "V_0", "pi_0", "D_1", "V_1", "pi_1")
EPSILON = 0.1  # of PPO
PPO_RATE = 3e-4  # its learning rate: at the others' so short a training ruins it, bug or none
BYTES = 60_000  # a picture is at most so large

# ---------------------------------------------------------------- the runs

def digest(*things):
    """A short name for settings and the like."""
    text = json.dumps(things, sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()[:12]

def digest_of_sources(tree):
    """A short name for all modules of a tree."""
    return digest([path.read_text(encoding="utf-8") for path in sorted(tree.rglob("*.py"))])

def observed(scratch, tree, settings, since, warm=None, base=None):
    """Algorithm 1 once with the modules of `tree`; what was made before is not made again.

    scratch: a folder for runs.  settings: beside `SIZE`.  warm: the file of `warm_start`.
    since: the first of FILES that is made here, those before it are taken from the folder `base`.
    "" makes none, only the evaluations.
    Returns (the run's folder, what the picture shows of it: a dict).
    """
    folder = scratch / digest(digest_of_sources(tree), settings, since)
    folder.mkdir(exist_ok=True)
    if not (folder / "seen.pickle").exists():
        for name in FILES[: FILES.index(since)] if since else FILES:
            if not (folder / f"{name}.npz").exists():
                shutil.copy(base / f"{name}.npz", folder)
        with modules_from(tree), contextlib.redirect_stdout(io.StringIO()):
            seen = run_once(folder, dict(settings), warm)
        (folder / "seen.pickle").write_bytes(pickle.dumps(seen))
    return folder, pickle.loads((folder / "seen.pickle").read_bytes())

def warm_start(scratch, tree):
    """The network that imitates.  Returns its file."""
    path = scratch / f"warm-{digest_of_sources(tree)}.npz"
    if not path.exists():
        with modules_from(tree):
            import recap
            from lab.files import save_network

            s = recap.Settings(**SIZE)
            D_demo = recap.demonstrations(s)
            network = recap.train_policy(recap.new_policy(s), D_demo, None, s, WARM)
            save_network(network, path)
    return path

def run_once(folder, settings, warm):
    """The body of `observed`: every import in it is one of the tree's modules."""
    import recap
    from collection import roll_out
    from data import episode_seeds
    from lab.checks import flow_loss_by_eta, heldout_demonstrations
    from lab.files import load
    from lab.pictures import frames
    from lab.run import Run
    from value import predict_values

    ppo = settings.pop("ppo", False)
    s = recap.Settings(**SIZE | settings)
    run = Run(s, str(folder))
    new_policy = recap.new_policy

    def start(s, **size):
        return new_policy(s, **size) if size else load(warm)

    recap.new_policy = start
    if s.supervised:
        recap.supervised(s, run.keep)
    pi, V = recap.recap(s, run.keep)
    D = load(folder / "D_0.npz") + load(folder / "D_1.npz")
    how = {"beta": s.beta}
    if ppo:
        pi = run_ppo(run, s, D, V, warm)
        how = {"indicator": None}
    rollout = roll_out(s, s.target, episode_seeds(s.seed, "pictures", 8), pi, **how)[0]
    steps = np.linspace(0, len(rollout) - 1, 6).astype(int)
    unseen = heldout_demonstrations(s, s.demonstrations)
    chosen = [next(e for e in unseen if e.success == success) for success in (True, False)]
    D_demo = load(folder / "D_demo.npz")
    before = recap.label(predict_values(load(folder / "V_pre.npz"), D_demo), D_demo, s, 0)
    counted = run.labels[0]
    shown = ("name", "beta", "success", "success_se", "throughput", "throughput_se")
    stages = []
    for row in run.stages:
        stages.append({name: row[name] for name in shown})
    return {
        "stages": stages,
        "V": [values.tolist() for values in predict_values(V, chosen)],
        "labels": {
            "pre-\ntraining": float(np.concatenate(before).mean()),
            "rollouts": counted["positive_fraction_rollouts"],
            "demonstra-\ntions": counted["positive_fraction_demonstrations"],
        },
        "eta": flow_loss_by_eta(pi, D, s),
        "frames": frames(s.target, rollout, steps),
        "times": (steps / rollout.hz).tolist(),
        "success": bool(rollout.success),
    }

def run_ppo(run, s, D, V, warm):
    """PPO on the same data, from where the others begin.  Returns the policy."""
    import recap
    from baselines import ppo_loss
    from lab.files import load
    from labels import step_advantages
    from value import predict_values

    A = np.concatenate(step_advantages(predict_values(V, D), D, s, iteration=1))  # (M,)
    columns = {"advantage": A.astype(np.float32)}
    reference = load(warm).requires_grad_(False)
    loss = partial(ppo_loss, reference=reference, epsilon_ar=EPSILON, epsilon_flow=EPSILON)
    run.evaluate("imitation", reference, indicator=None)
    slow = replace(s, fine_tuning_rate=PPO_RATE)
    steps = s.policy_steps
    pi = run.keep("ppo", recap.train_policy, load(warm), D, None, slow, steps, loss, columns)
    run.evaluate("PPO", pi, indicator=None)
    return pi

# ---------------------------------------------------------------- the pictures

# Stage and β: what the x axis calls it.  Others are not drawn.
STAGES = {
    ("rl_pretrained", 1.0): "RL pre-\ntrained",
    ("offline_rl_sft", 1.0): "offline\nRL + SFT",
    ("recap_1", 1.0): "RECAP\nβ = 1",
    ("recap_1", 1.5): "RECAP\nβ = 1.5",
    ("supervised_sft", 1.0): "super-\nvised\n+ SFT",
    ("imitation", 1.0): "imita-\ntion",
    ("PPO", 1.0): "PPO",
}

def drawn_stages(seen):
    """Rows of the stages that are drawn, in the order of STAGES."""
    rows = {(row["name"], row["beta"]): row for row in seen["stages"]}
    return [rows[stage] for stage in STAGES if stage in rows]

def draw(ours, clean, shows):
    """This tree in colour, the library without the bug in grey.

    ours, clean: of `observed`.  shows: "V", "labels" or "eta".
    Returns a Figure of 1100 x 450 pixels.
    """
    fig = plt.figure(figsize=(11, 4.5), dpi=100, layout="constrained")
    grid = fig.add_gridspec(2, 6, height_ratios=(1.35, 1))
    axes = [fig.add_subplot(grid[0, 2 * i : 2 * i + 2]) for i in range(3)]
    draw_stages(axes[0], ours, clean, "success", 100)
    axes[0].set_title("success rate (%)", fontsize=plots.FONT)
    axes[0].legend(fontsize=8, frameon=False)
    draw_stages(axes[1], ours, clean, "throughput", 1)
    axes[1].set_title("successes per simulated hour", fontsize=plots.FONT)
    if shows == "V":
        draw_values(axes[2], ours, clean)
    else:
        draw_bars(axes[2], ours[shows], clean[shows], shows)
    for ax in axes:
        ax.tick_params(labelsize=8)
        ax.grid(axis="y", alpha=0.3)
        ax.spines[["top", "right"]].set_visible(False)
    times = [f"{time:.1f} s" for time in ours["times"]]
    times[-1] += ": success" if ours["success"] else ": failure"
    for i, frame in enumerate(ours["frames"]):
        ax = fig.add_subplot(grid[1, i])
        ax.imshow(frame)
        ax.set(xticks=[], yticks=[])
        ax.set_title(times[i], fontsize=8, pad=2)
    return fig

def draw_stages(ax, ours, clean, key, scale):
    """Success or throughput of every stage."""
    pairs = (
        (clean, plots.GREY, -0.06, 3.0, "without the bug"),
        (ours, plots.BLUE, 0.06, 1.6, "this tree"),
    )
    for seen, colour, shift, width, label in pairs:
        rows = drawn_stages(seen)
        x = np.arange(len(rows)) + shift
        y = scale * np.array([row[key] for row in rows])
        error = scale * np.array([row[f"{key}_se"] for row in rows])
        how = {"color": colour, "marker": "o", "markersize": 5, "capsize": 3, "linewidth": width}
        # A solid line along what descends from one another; baselines stand apart, dotted.
        ax.errorbar(x[:4], y[:4], error[:4], linestyle="-", label=label, **how)
        ax.errorbar(x[4:], y[4:], error[4:], linestyle=":", **how)
    names = [STAGES[row["name"], row["beta"]] for row in rows]
    ax.set_xticks(range(len(rows)), names, fontsize=8)
    ax.set_ylim(bottom=0)

def draw_values(ax, ours, clean):
    """V along a success and a failure."""
    for seen, colour, width in ((clean, plots.GREY, 3.0), (ours, plots.BLUE, 1.6)):
        for V, line in zip(seen["V"], ("-", "--")):
            ax.plot(np.arange(len(V)) / 10, V, line, color=colour, linewidth=width)
    ax.plot([], [], "-", color="black", label="a success")
    ax.plot([], [], "--", color="black", label="a failure")
    ax.set(ylim=(-1, 0.02), xlabel="time (s)")
    ax.legend(fontsize=8, frameon=False)
    ax.set_title("V along two demonstrations it has not seen", fontsize=plots.FONT)

def draw_bars(ax, ours, clean, shows):
    """Positive labels of three kinds of data, or the flow loss in parts of η: {name: number}."""
    scale = 100 if shows == "labels" else 1
    for found, colour, side in ((clean, plots.GREY, -0.2), (ours, plots.BLUE, 0.2)):
        height = scale * np.array(list(found.values()))
        ax.bar(np.arange(len(found)) + side, height, 0.38, color=colour)
    ax.set_xticks(range(len(ours)), list(ours), fontsize=8)
    titles = {"labels": "positive labels (%)", "eta": "flow loss of the last policy, by η"}
    ax.set_title(titles[shows], fontsize=plots.FONT)

def write_png(fig, path):
    """At most BYTES: as many colours as fit."""
    raw = io.BytesIO()
    fig.savefig(raw, format="png")
    plt.close(fig)
    picture = Image.open(raw).convert("RGB")
    for colours in (128, 64, 32, 16):
        out = io.BytesIO()
        picture.quantize(colours, dither=Image.Dither.NONE).save(out, "PNG", optimize=True)
        if len(out.getvalue()) <= BYTES:
            break
    path.write_bytes(out.getvalue())

LOOK = re.compile(r"\n!\[[^\n]*\n\n[^#]*?One small\s+run\s+proves\s+nothing\.\n")

def with_look(text, number, same):
    """The page with its picture, and below the title a few words on what the run was.

    text: of the page.  same: whether both runs have the same numbers.
    """
    run = dict(BUGS[number].run)
    besides = ""
    if run.pop("ppo", False):
        besides = "; as many of PPO, from where the others begin"
    if run.pop("supervised", False):
        besides = "; the supervised network with as many of both stages"
    special = "".join(f", {name} = {value!r}" for name, value in run.items())
    look = (
        f"One run, seed 0, on FoldCollar{special}: {WARM:,} steps of plain imitation, then "
        f"{SIZE['pretraining_steps']} of RL pre-training, {SIZE['sft_steps']} of SFT, "
        f"{SIZE['policy_steps']} of RECAP{besides}. {SIZE['evaluation_episodes']} episodes per "
        "point, bars ±1 s.e. of these episodes. Below, a rollout of the last policy. As a student "
        "would have looked at it; grey is the library without the bug, same seed. "
    )
    if same:
        look += "Every number is equal: the bug is out of reach of this run. "
    look += "One small run proves nothing."
    look = textwrap.fill(look, 88, break_on_hyphens=False)
    picture = f"![One run of this tree beside one without the bug]({number:02}.png)"
    title, rest = LOOK.sub("", text).split("\n", 1)
    return f"{title}\n\n{picture}\n\n{look}\n{rest}"

def write_figures(numbers):
    """Run, draw symptoms/NN.png and write its words into NN.md, one bug after the other."""
    torch.set_num_threads(1)
    # Kept: what was interrupted goes on.
    name = f"recap-hunts-{digest(SIZE, WARM, EPSILON, PPO_RATE)}"
    scratch = Path(tempfile.gettempdir()) / name
    scratch.mkdir(exist_ok=True)
    with tempfile.TemporaryDirectory() as trees:
        clean_tree = Path(trees) / "clean"
        copy_modules(clean_tree)
        warm = warm_start(scratch, clean_tree)
        base, _ = observed(scratch, clean_tree, {}, FILES[0], warm)
        for number in numbers:
            bug = BUGS[number]
            tree = Path(trees) / str(number)
            copy_modules(tree)
            plant(bug, tree)
            since = bug.since if bug.run else FILES[0]
            _, clean = observed(scratch, clean_tree, bug.run, since, warm, base)
            _, ours = observed(scratch, tree, bug.run, bug.since, warm, base)
            symptoms = HERE / "symptoms"
            write_png(draw(ours, clean, bug.shows), symptoms / f"{number:02}.png")
            same = all(ours[key] == clean[key] for key in ("stages", "V", "labels", "eta"))
            page = symptoms / f"{number:02}.md"
            text = with_look(page.read_text(encoding="utf-8"), number, same)
            page.write_text(text, encoding="utf-8")
            print(f"{number:3}  success, with and without the bug: {compared(ours, clean)}")

def compared(ours, clean):
    """Success of every stage in both runs, in one line."""
    parts = []
    for row, other in zip(drawn_stages(ours), drawn_stages(clean)):
        rates = f"{row['success']:.0%} {other['success']:.0%}"
        parts.append(f"{row['name']} β={row['beta']:g} {rates}")
    return ", ".join(parts)
