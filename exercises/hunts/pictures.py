"""The pictures of the symptom pages: one small run of Algorithm 1 with each bug beside one without it.

    python exercises/hunts/hunt.py --figures [N ...]

All runs are on FoldCollar with `SIZE` and seed 0; a bug that needs more names it in `Bug.run`.  Two things save time.  Every
policy starts from one network that the library without a bug has trained to imitate (`WARM` steps, no indicator), in the
place of the paper's pre-trained VLM.  And the files of a run that lie before `Bug.since` are those of the run without a bug.
The curves are drawn by this tree's matplotlib and colours, never by those of the tree with the bug.
"""
import contextlib
import io
import pickle
import re
import shutil
import sys
import tempfile
from dataclasses import replace
from functools import partial
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
import torch
from PIL import Image

import hunt
from bugs import BUGS

sys.path.insert(0, str(hunt.ROOT))
import plots
from experiments import digest, digest_of_sources

SIZE = dict(task="fold_collar", pretraining_tasks="", iterations=1, seed=0, demonstrations=100, autonomous=60, corrected=15,
            episodes=100, draws=2, pretraining_steps=150, sft_steps=60, policy_steps=300, value_pretraining_steps=120,
            value_steps=50, value_batch=64)
WARM = 1600                # steps of imitation before the first stage
FILES = ("D_demo", "V_pre", "pi_pre", "D_0", "V_0", "pi_0", "D_1", "V_1", "pi_1")      # in the order of Algorithm 1
EPSILON = 0.1              # of PPO
PPO_RATE = 3e-4            # its learning rate: at that of the others so short a training ruins the policy, bug or none
BYTES = 60_000             # a picture is at most so large


# ---------------------------------------------------------------- the runs

def observed(scratch, tree, settings, since, warm=None, base=None):
    """Algorithm 1 once with the modules of `tree`.  -> what the picture shows of it, a dict

    scratch: a folder for files of runs; settings: beside `SIZE`; since: the first file of FILES that is made here, those before
    it are taken from the folder `base`.  "" makes none, only the evaluations.  What was made before is not made again.
    """
    folder = scratch / digest(digest_of_sources(tree), settings, since)
    folder.mkdir(exist_ok=True)
    if not (folder / "seen.pickle").exists():
        for name in FILES[:FILES.index(since)] if since else FILES:
            if not (folder / f"{name}.npz").exists():
                shutil.copy(base / f"{name}.npz", folder)
        with hunt.modules_from(tree), contextlib.redirect_stdout(io.StringIO()):
            seen = _run(folder, dict(settings), warm)
        (folder / "seen.pickle").write_bytes(pickle.dumps(seen))
    return folder, pickle.loads((folder / "seen.pickle").read_bytes())


def warm_start(scratch, tree):
    """The network that imitates.  -> its file"""
    path = scratch / f"warm-{digest_of_sources(tree)}.npz"
    if not path.exists():
        with hunt.modules_from(tree):
            import recap
            from data import save_network
            s = recap.Settings(**SIZE)
            D_demo = recap.multi_task_demonstrations(s)
            torch.manual_seed(s.seed)
            network, _ = recap.train_policy(recap.new_policy(s), D_demo, s, WARM, recap.all_positive(D_demo), dropout=1.0)
            save_network(network, path)
    return path


def _run(folder, settings, warm):
    """The body of `observed`: every import in it is one of the tree's modules."""
    import recap
    from baselines import ppo_loss
    from data import load_network
    from training import predict_values

    ppo = settings.pop("ppo", False)
    s = recap.Settings(**SIZE | settings)
    spec = recap.sim_tasks.TASKS[s.task]
    run, new = recap.Run(s, str(folder), recap.KINDS), recap.new_policy
    start = lambda: load_network(warm, recap.KINDS)[0]
    recap.new_policy = lambda s, **size: new(s, **size) if size else start()
    recap.recap(run)
    last, how = "pi_1", dict(beta=s.beta)
    if ppo:
        D = [e for k in (0, 1) for e in recap.load_dataset(folder / f"D_{k}.npz")]
        V = load_network(folder / "V_1.npz", recap.KINDS)[0]
        columns = {"advantage": np.concatenate(recap.step_advantages(V, D, s, s.lookahead)).astype(np.float32)}
        loss = partial(ppo_loss, reference=start().requires_grad_(False), epsilon_ar=EPSILON, epsilon_flow=EPSILON)
        recap.evaluate(run, "imitation", start(), indicator=None)
        last, how = "ppo", dict(indicator=None)
        pi = run.net(last, lambda: recap.train_policy(start(), D, replace(s, fine_tuning_rate=PPO_RATE), s.policy_steps,
                                                      recap.all_positive(D), loss=loss, columns=columns, dropout=1.0))
        recap.evaluate(run, "PPO", pi, indicator=None)
    pi, log = load_network(folder / f"{last}.npz", recap.KINDS)
    V = load_network(folder / "V_1.npz", recap.KINDS)[0]
    rollout = recap.collect(s, spec, recap.episode_seeds(s.seed, "pictures", 8), pi, **how)[0]
    demonstrations = recap.demonstrate(s, s.task, recap.MIXED, "held out")
    chosen = [next(e for e in demonstrations if e.success == success) for success in (True, False)]
    before = recap.label(load_network(folder / "V_pre.npz", recap.KINDS)[0], recap.load_dataset(folder / "D_demo.npz"), s, 0)
    counted = run.labels[0]
    steps = np.linspace(0, len(rollout) - 1, 6).astype(int)
    return {"stages": [{key: x[key] for key in ("name", "beta", "success", "success_se", "throughput", "throughput_se")}
                       for x in run.stages],
            "V": [x.tolist() for x in predict_values(V, chosen)],
            "labels": {"pre-\ntraining": float(np.concatenate(before.positive).mean()),
                       "rollouts": counted["positive_fraction_rollouts"],
                       "demonstra-\ntions": counted["positive_fraction_demonstrations"]},
            "eta": log["flow_loss_by_eta"],
            "frames": recap.frames(rollout, steps), "times": (steps / recap.CONTROL_HZ).tolist(),
            "success": bool(rollout.success)}


# ---------------------------------------------------------------- the pictures

# stage and β: what the x axis calls it; other stages are not drawn
STAGES = {("rl_pretrained", 1.0): "RL pre-\ntrained", ("offline_rl_sft", 1.0): "offline\nRL + SFT",
          ("recap_1", 1.0): "RECAP\nβ = 1", ("recap_1", 1.5): "RECAP\nβ = 1.5",
          ("supervised_sft", 1.0): "super-\nvised\n+ SFT", ("imitation", 1.0): "imita-\ntion", ("PPO", 1.0): "PPO"}


def draw(ours, clean, shows):
    """This tree in colour, the library without the bug in grey.  shows: "V", "labels" or "eta".  -> Figure, 1100 x 450 pixels"""
    fig = plt.figure(figsize=(11, 4.5), dpi=100, layout="constrained")
    grid = fig.add_gridspec(2, 6, height_ratios=(1.35, 1))
    pairs = ((clean, plots.GREY, -0.06, 3.0, "without the bug"), (ours, plots.BLUE, 0.06, 1.6, "this tree"))
    axes = [fig.add_subplot(grid[0, 2 * i:2 * i + 2]) for i in range(3)]
    for ax, key, scale, title in ((axes[0], "success", 100, "success rate (%)"),
                                  (axes[1], "throughput", 1, "successes per simulated hour")):
        for seen, colour, shift, width, label in pairs:
            rows = sorted([x for x in seen["stages"] if (x["name"], x["beta"]) in STAGES],
                          key=lambda x: list(STAGES).index((x["name"], x["beta"])))
            # a solid line along what descends from one another; baselines stand apart, dotted
            for part, line in ((slice(0, 4), "-"), (slice(4, None), ":")):
                y, error = np.array([(x[key], x[f"{key}_se"]) for x in rows[part]]).reshape(-1, 2).T * scale
                ax.errorbar(np.arange(len(rows))[part] + shift, y, error, color=colour, marker="o", markersize=5, capsize=3,
                            linewidth=width, linestyle=line, label=label if line == "-" else None)
        ax.set_xticks(range(len(rows)), [STAGES[x["name"], x["beta"]] for x in rows], fontsize=8)
        ax.set_title(title, fontsize=plots.FONT)
        ax.set_ylim(bottom=0)
    axes[0].legend(fontsize=8, frameon=False)

    ax = axes[2]
    if shows == "V":
        for seen, colour, _, width, _ in pairs:
            for V, line in zip(seen["V"], ("-", "--")):
                ax.plot(np.arange(len(V)) / 10, V, line, color=colour, linewidth=width)
        ax.plot([], [], "-", color="black", label="a success")
        ax.plot([], [], "--", color="black", label="a failure")
        ax.set(ylim=(-1, 0.02), xlabel="time (s)")
        ax.legend(fontsize=8, frameon=False)
        ax.set_title("V along two demonstrations it has not seen", fontsize=plots.FONT)
    else:
        for (seen, colour, _, _, _), side in zip(pairs, (-0.2, 0.2)):
            x = seen[shows]
            ax.bar(np.arange(len(x)) + side, [100 * y if shows == "labels" else y for y in x.values()], 0.38, color=colour)
        ax.set_xticks(range(len(x)), list(x), fontsize=8)
        ax.set_title("positive labels (%)" if shows == "labels" else "flow loss of the last policy, by η", fontsize=plots.FONT)
    for ax in axes:
        ax.tick_params(labelsize=8)
        ax.grid(axis="y", alpha=0.3)
        ax.spines[["top", "right"]].set_visible(False)
    for i, (frame, time) in enumerate(zip(ours["frames"], ours["times"])):
        ax = fig.add_subplot(grid[1, i])
        ax.imshow(frame)
        ax.set(xticks=[], yticks=[])
        ax.set_title(f"{time:.1f} s" + (f": {'success' if ours['success'] else 'failure'}" if i == 5 else ""), fontsize=8, pad=2)
    return fig


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


LOOK = re.compile(r"\n!\[[^\n]*\n\n[^#]*?One small run proves nothing\.\n")


def with_look(text, number, ours, clean):
    """The page with its picture, and a sentence of what the run was, below the title."""
    run = BUGS[number].run
    special = "".join(f", {name} = {value!r}" for name, value in run.items() if name not in ("ppo", "supervised"))
    besides = ("; as many of PPO, from where the others begin" if "ppo" in run else
               "; the supervised network with as many of both stages" if "supervised" in run else "")
    same = all(ours[key] == clean[key] for key in ("stages", "V", "labels", "eta"))
    look = (f"\n![One run of this tree beside one without the bug]({number:02}.png)\n\n"
            f"One run, seed 0, on FoldCollar{special}: {WARM:,} steps of plain imitation, then {SIZE['pretraining_steps']} of RL\n"
            f"pre-training, {SIZE['sft_steps']} of SFT, {SIZE['policy_steps']} of RECAP{besides}. {SIZE['episodes']} episodes per point, "
            "bars ±1 s.e. of these episodes.\nBelow, a rollout of the last policy. As a student would have looked at it; grey is the "
            "library without the bug, same seed.\n"
            f"{'Every number is equal: the bug is out of reach of this run. ' if same else ''}One small run proves nothing.\n")
    title, rest = LOOK.sub("", text).split("\n", 1)
    return f"{title}\n{look}{rest}"


def write_figures(numbers):
    """Run, draw symptoms/NN.png and write its sentence into NN.md, one bug after the other."""
    torch.set_num_threads(1)
    scratch = Path(tempfile.gettempdir()) / f"recap-hunts-{digest(SIZE, WARM, EPSILON, PPO_RATE)}"      # kept: what was interrupted goes on
    scratch.mkdir(exist_ok=True)
    with tempfile.TemporaryDirectory() as trees:
        clean_tree = Path(trees) / "clean"
        hunt.copy_modules(clean_tree)
        warm = warm_start(scratch, clean_tree)
        base, _ = observed(scratch, clean_tree, {}, FILES[0], warm)
        for number in numbers:
            bug, tree = BUGS[number], Path(trees) / str(number)
            hunt.copy_modules(tree)
            hunt.plant(bug, tree)
            clean = observed(scratch, clean_tree, bug.run, bug.since if bug.run else FILES[0], warm, base)[1]
            ours = observed(scratch, tree, bug.run, bug.since, warm, base)[1]
            write_png(draw(ours, clean, bug.shows), hunt.HERE / "symptoms" / f"{number:02}.png")
            page = hunt.HERE / "symptoms" / f"{number:02}.md"
            page.write_text(with_look(page.read_text(encoding="utf-8"), number, ours, clean), encoding="utf-8")
            stages = {(x["name"], x["beta"]): x["success"] for x in clean["stages"]}
            print(f"{number:3}  success, with and without the bug: " + ", ".join(
                f"{x['name']} β={x['beta']:g} {x['success']:.0%} {stages[x['name'], x['beta']]:.0%}"
                for x in ours["stages"] if (x["name"], x["beta"]) in STAGES), flush=True)
