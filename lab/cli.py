"""The command line `python recap.py`: settings in, a run's folder out."""
import argparse
import os
import shlex
import sys
import textwrap
import webbrowser
from dataclasses import asdict, fields
from functools import partial
from pathlib import Path

import torch

from data import UserError
from lab.aside import aside
from lab.compare import compare
from lab.files import BadFile, claim, read_json
from lab.given import datasets, read, settle, side_of
from lab.pictures import before_and_after, draw_pictures
from lab.program import run_program
from lab.progress import Progress, Quiet, stages_of, summary_writer
from lab.report import Report
from lab.run import WIDTH, Run
from lab.tables import summary, table
from ranks import agree, joined, leave, rank
from settings import Settings
from sim_tasks import TASKS, find_task
from sim_tasks.task import TaskError

# --quick: a first look, a small run whose table visibly improves within a minute
QUICK = dict(
    task="fold_collar", pretraining_tasks="", iterations=1, demonstrations=60,
    autonomous=80, corrected=20, evaluation_episodes=100, pretraining_steps=1000, sft_steps=100,
    policy_steps=1200, value_pretraining_steps=250, value_steps=100,
)  # fmt: skip

# for tests: every stage runs, but so few steps teach a policy next to nothing
TINY = dict(
    iterations=1, demonstrations=20, autonomous=20, corrected=5, evaluation_episodes=30,
    pretraining_steps=150, sft_steps=50, policy_steps=100, value_pretraining_steps=60,
    value_steps=40,
)  # fmt: skip

PICTURES = ("report.html", "learning_curve.png", "value_trace.png", "before.gif", "after.gif")

DOORS = """\
other doors:
  python -m reproduce --help     the paper's figures, claims and ablations
  python -m robots --help        drive a robot, simulated or real, and record
  python -m benchmarks --help    how fast all this is
  python -m lab.annotate --help  values and labels of your own data, for your own VLA
"""

def parser():
    """A setting that is not given is None, so that `Settings` fills in its default."""
    parser = argparse.ArgumentParser(
        prog="recap.py", usage="python recap.py [options]", epilog=DOORS,
        description="RECAP (Algorithm 1) on a toy bimanual task, from data to table.",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )  # fmt: skip
    groups = {}
    for f in fields(Settings):
        title = f.metadata["group"]
        if title not in groups:
            groups[title] = parser.add_argument_group(title)
        add_setting(groups[title], f)
    output = parser.add_argument_group("output")
    output.add_argument("--out", help="folder, new or empty (default: runs/TASK-seedN)")
    about = "a first look: a small run, of FoldCollar or of --task"
    output.add_argument("--quick", action="store_true", help=about)
    about = "losses and gradient norms for TensorBoard, too (in OUT/tensorboard)"
    output.add_argument("--tensorboard", action="store_true", help=about)
    output.add_argument("--resume", metavar="OUT", help="go on with an interrupted run")
    output.add_argument(
        "--summary", metavar="OUT", nargs="+", help="only print the mean over finished runs"
    )
    output.add_argument("--view", metavar="OUT", help="only open the report of a run in a browser")
    output.add_argument("--episode", metavar="K:I", help="--view opens with episode I of D_K")
    about = "only write compare.html, the curves of finished runs over one another"
    output.add_argument("--compare", metavar="OUT", nargs="+", help=about)
    about = "the one setting in which runs of --compare differ, like sft_steps, or folder"
    output.add_argument("--axis", metavar="SETTING", help=about)
    return parser

def add_setting(group, f):
    """One field of `Settings` as an option, with its default and the paper's value."""
    default = f.metadata["usual"]
    if default is None:
        default = "none" if f.default == "" else f.default
    if isinstance(f.default, bool):
        default = "yes" if f.default else "no"
    notes = [f"default: {default}"]
    if f.metadata["paper"] is not None:
        notes.append(f"paper: {f.metadata['paper']}")
    about = f"{f.metadata['help']} ({'; '.join(notes)})".replace("%", "%%")
    option = "--" + f.name.replace("_", "-")
    if isinstance(f.default, bool):  # --option or --no-option
        switch = argparse.BooleanOptionalAction
        group.add_argument(option, action=switch, default=None, help=about)
        return
    kind = type(f.default)
    if f.default is None:
        kind = {"int | None": int, "float | None": float, "str | None": str}[str(f.type)]
    group.add_argument(option, type=kind, default=None, metavar=kind.__name__.upper(), help=about)

def check_device(device):
    """UserError where this machine lacks the device."""
    available = {
        "cpu": True,
        "cuda": torch.cuda.is_available(),
        "mps": torch.backends.mps.is_available(),
    }
    if not available.get(device, False):
        names = ", ".join(name for name, ok in available.items() if ok)
        message = f"{device} is not available on this machine, expected one of {names}"
        raise UserError(f"--device: {message}")

def open_run(args, read_lerobot):
    """(settings, folder, data) of the run that the command line asks for, as `Run` takes them.

    UserError if its folder holds something else.
    """
    asked = {f.name: getattr(args, f.name) for f in fields(Settings)}
    asked = {name: x for name, x in asked.items() if x is not None}
    if args.resume is not None:
        if asked or args.out is not None or args.quick:
            message = "goes with no other option, a run keeps its settings"
            raise UserError(f"--resume {args.resume}: {message}")
        return resumed(args.resume, read_lerobot)
    if ".py:" in asked.get("task", ""):
        asked["task"] = os.path.abspath(asked["task"])  # --resume may come from another folder
    usual = Settings.iterations
    if args.quick:
        usual = QUICK["iterations"]
        theirs = ()
        if args.data:
            theirs = ("task", "iterations", "corrected")  # `with_data` settles them
        elif args.task is not None and not find_task(asked["task"]).has_coach:
            theirs = ("corrected",)
        asked = {name: x for name, x in QUICK.items() if name not in theirs} | asked
    settings, given = with_data(asked, read_lerobot, usual)
    check_device(settings.device)  # before the folder is made
    if given and settings.task not in TASKS and ".py:" not in settings.task:
        print(layout_of(settings.interface))  # of a task that is known from the data alone
    out = args.out
    if out is None:
        name = f"runs/{settings.target.name}-seed{settings.seed}"
        out = claim_free(name + "-quick" if args.quick else name, asdict(settings))
    else:
        claim(out, asdict(settings))
    return settings, out, given

def with_data(asked, read_lerobot, usual=Settings.iterations):
    """The `Settings` asked for, and the datasets of --data by the names of `recap.recap`'s keep.

    asked: {name: setting}; those that the data settle are filled in.
    usual: K where nobody asks for one, and the task has a world in which to collect more.
    """
    if not asked.get("data"):
        return Settings(**asked), {}
    asked["data"] = os.path.abspath(asked["data"])  # --resume may come from another folder
    episodes = episodes_given(asked, read_lerobot)
    asked["task"], episodes = settle(episodes, asked.get("task"))
    task = find_task(asked["task"])
    images = [name for name, x in episodes[0].observations.items() if x.ndim == 4]
    if images and task.name not in TASKS:
        asked.setdefault("cameras", " ".join(images))
    n_iterations = max(e.iteration for e in episodes if e.task == task.name)
    asked.setdefault("iterations", max(n_iterations, usual) if task.has_world else n_iterations)
    if not task.has_world and asked["iterations"] > n_iterations:
        message = f"expected at most the {n_iterations} of the data: nothing can be collected"
        raise UserError(f"--iterations: {asked['iterations']}, {message}")
    settings = Settings(**asked)
    return settings, datasets(episodes, settings)

def layout_of(interface):
    """What data do not say and a task of one's own may: how an action is read, in a line."""
    numbers = interface.action_dim // interface.n_arms
    absolute = ", ".join(str(i) for i in interface.absolute)
    return (
        f"actions: taken as arms: {interface.n_arms}, numbers of each: {numbers}, no targets for "
        f"the state: {absolute or 'none'} (docs/OWN_TASK.md: how to change it)"
    )

def episodes_given(asked, read_lerobot):
    """Those of --data, with images where --vision reads them.  asked: as of `with_data`."""
    side = side_of(asked.get("task"), asked.get("size")) if asked.get("vision") else None
    return read(asked["data"], read_lerobot, side)

def claim_free(name, settings):
    """Claim NAME, or NAME-2, NAME-3, ...: the first that is free.  Returns which."""
    out = name
    n = 1
    while True:
        try:
            claim(out, settings)
            return out
        except UserError:  # there before, or taken by a run that began together with this one
            n += 1
            out = f"{name}-{n}"

def resumed(folder, read_lerobot):
    """(settings, folder, data) of a run that is there already."""
    settings, given = settings_of("--resume", folder, read_lerobot)
    check_device(settings.device)
    return settings, folder, given

def settings_of(option, folder, read_lerobot, **changes):
    """The `Settings` of a run in a folder, and its data.  option: which asks for them."""
    path = os.path.join(folder, "settings.json")
    try:
        asked = read_json(path) | changes
        return with_data(asked, read_lerobot)
    except FileNotFoundError as error:
        if error.filename is None:  # a message of our own
            raise UserError(f"{option}: {error}") from None
        message = f"there is no {error.filename}, expected the folder of a run, and its data"
        raise UserError(f"{option}: {message}") from None
    except (BadFile, TaskError):  # they name the file, of the data or of the task
        raise
    except (AttributeError, TypeError, UserError) as error:  # other names, other types
        raise UserError(f"{path}: not the settings of a run ({error})") from None

def view(folder, episode, read_lerobot):
    """Open the report of a run; made anew where there is none, or for one of its episodes.

    episode: "k:i" or None.
    """
    path = os.path.join(folder, "report.html")
    if episode is not None or not os.path.exists(path):
        # It was made on another machine, perhaps.
        settings, _ = settings_of("--view", folder, read_lerobot, device="cpu")
        if settings.target.has_world and os.path.exists(os.path.join(folder, "metrics.json")):
            before_and_after(settings, folder)
        Report(settings, folder, wanted_of(episode, settings)).write()
    print(path)
    # Without a display a browser would be one for terminals, and take this one.
    if sys.platform in ("darwin", "win32") or "DISPLAY" in os.environ:
        webbrowser.open(Path(path).resolve().as_uri())

def wanted_of(text, settings):
    """(k, i) of "k:i"; None of None."""
    if text is None:
        return None
    k, _, i = text.partition(":")
    if not (k.isdecimal() and i.isdecimal() and int(k) <= settings.iterations):
        raise UserError(f"--episode: {text!r}, expected k:i, k from 0 to {settings.iterations}")
    return int(k), int(i)

def main(recap, supervised, read_lerobot, argv=None):
    """recap, supervised: the algorithms, of recap.py.  argv: None is the command line's."""
    opened = []  # the run, once there is one to go on with

    def work():
        args = parser().parse_args(argv)
        for option, of in (("episode", "view"), ("axis", "compare")):
            if getattr(args, option) is not None and getattr(args, of) is None:
                raise UserError(f"--{option}: without --{of}, expected both")
        if rank() > 0 and (args.summary or args.compare or args.view):
            return
        if args.summary is not None:
            print(summary(args.summary))
            return
        if args.compare is not None:
            print(compare(args.compare, args.axis))
            return
        if args.view is not None:
            view(args.view, args.episode, read_lerobot)
            return
        make_writer = summary_writer() if args.tensorboard else None
        settings, out, given = agree(lambda: open_run(args, read_lerobot))
        if rank() > 0 and settings.data:  # a task that the data name is known to who reads them
            settle(episodes_given(asdict(settings), read_lerobot), settings.task)
        run = Run(settings, out, given)
        opened.append(run)
        torch.set_num_threads(1)  # products this small gain nothing from a second core
        progress = Quiet()
        report = None
        if rank() == 0:
            writer = make_writer and make_writer(run.path("tensorboard"))
            stages = stages_of(run.settings)
            progress = Progress(stages, run.path("history.jsonl"), run.seconds, writer)
            report = Report(run.settings, run.out)
        try:
            with aside(run) as run:  # but measuring beside the training does
                run.progress = progress
                if report is not None:
                    run.after_each = partial(attempt, "the report is", report.write)
                if run.settings.supervised:
                    supervised(run.settings, run.keep)
                recap(run.settings, run.keep)
        finally:
            progress.close()
        # The others are done: what is left is for one.
        leave()
        if report is not None:
            finish(run, report)

    def hint():
        return "".join(f"python recap.py --resume {shlex.quote(x.out)} goes on" for x in opened)

    with joined():
        return run_program("recap.py", work, hint)

def attempt(what, make, *arguments):
    """make(*arguments), or a warning: the numbers are there, a picture is not worth a failure."""
    try:
        return make(*arguments)
    except Exception as error:
        message = f"warning: {what} missing ({type(error).__name__}: {error})"
        print(message, file=sys.stderr)

def finish(run, report):
    """metrics.json, the table, the pictures, the report."""
    metrics = run.write_recap_metrics()
    if not run.settings.target.has_world:
        attempt("the report is", report.write)
        print(f"\n{run.out}: metrics.json with the checks of V and the labels, checkpoints (.npz);")
        print("there is no world in which to evaluate the policy")
        return
    print(f"\n{table(metrics)}\n", flush=True)
    shown = attempt("pictures are", draw_pictures, run, metrics)
    if shown:
        print(textwrap.fill(shown, WIDTH))
    attempt("the report is", report.write)
    pictures = [name for name in PICTURES if os.path.exists(run.path(name))]
    print(f"{run.out}: metrics.json, datasets and checkpoints (.npz),")
    print(", ".join(pictures))
