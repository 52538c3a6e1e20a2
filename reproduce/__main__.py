"""Every figure and claim of the paper, measured on the toy: seeds in, results/ out.

    python -m reproduce fig7           Figs. 7 and 8: every stage of the recipe on every task
    python -m reproduce fig9           Figs. 9 and 10: over the iterations
    python -m reproduce fig11          RECAP against AWR, PPO and imitation, from the same data
    python -m reproduce fig12          removal of one failure mode
    python -m reproduce fig4           Figs. 4 and 13: V along episodes, its drops and mistakes
    python -m reproduce cfg            App. E: β from 0 to 5
    python -m reproduce generalist     Sec. IV-C: one policy on the data of all specialists
    python -m reproduce map            when the order of Fig. 11 holds: one thing changed at a time
    python -m reproduce counts         App. F: numbers of episodes, the paper's and ours
    python -m reproduce checks         what tells that the runs are in order
    python -m reproduce headline       README's table again, on seeds 41 to 45
    python -m reproduce claims         the table of claims, from the results that are there
    python -m reproduce all            all of the above
    python -m reproduce aloha          RECAP and imitation in MuJoCo (requirements-aloha.txt)
    python -m reproduce ablation NAME  one knob (python -m reproduce ablation: their names)
    python -m reproduce ablations      all of them
    python -m reproduce WHAT --again   once more on seeds 41 to 45, of what the claims are judged by
    python -m reproduce generalist --runs RUN ...    of finished runs, one per task

Numbers go to results/*.json, pictures to docs/images/*.png.  --quick: smaller, into runs/quick.
--again: numbers into results/again, no pictures; of Fig. 11 the rivals that the sweeps chose.

Every run is kept under runs/cache by its settings, so what was interrupted goes on where it was.
Stages that two runs have in common (pre-training, SFT, the first collection) are made once.
Delete runs/cache after changing the code: what is there is used as it is.  A warning tells if the
sources of a run changed, but not those of what this package adds to runs.

On two cores, with nothing cached, each seed takes about 14 minutes for fig7 (3 with one task),
23 for fig11 (its 34 policies beside RECAP's), 45 for map (5 with one point), and 1 to 4 for each
of the others, beside the runs that fig7 and fig12 make.

Tuning used seeds 0, 1, 2 and 21; the default seeds have never been tuned on.
± is the standard error over seeds unless it says otherwise.
"""
import argparse
import sys
from functools import partial

import torch

from lab.program import run_program
from ranks import joined, rank
from reproduce.ablations import ABLATIONS, ablation, web
from reproduce.aloha import aloha
from reproduce.beyond import critic, online
from reproduce.cache import dismiss, serve
from reproduce.claims import CLAIMS, write_claims
from reproduce.conditions import climb, clock, handover
from reproduce.counts import counts
from reproduce.extraction import METHODS, POINTS, fig11, map_of_methods, rate, start
from reproduce.generalist import generalist
from reproduce.guidance import cfg
from reproduce.headline import headline
from reproduce.options import ALL_TASKS, NEW_SEEDS, SEEDS, Options, UsageError
from reproduce.stages import FIG7_TASKS, FIG9_TASKS, checks, fig7, fig9, fig12
from reproduce.value_traces import fig4

FIGURES = {
    "fig7": fig7, "fig9": fig9, "fig11": fig11, "fig12": fig12, "fig4": fig4, "cfg": cfg,
    "generalist": generalist, "map": map_of_methods, "counts": counts, "checks": checks,
    "headline": headline, "claims": write_claims,
}  # fmt: skip
ALIASES = {"fig8": "fig7", "fig10": "fig9", "fig13": "fig4"}
KNOBS = {name: partial(ablation, name) for name in ABLATIONS}
KNOBS |= {"web": web, "start": start, "rate": rate}
KNOBS |= {"online": online, "critic": critic}
KNOBS |= {"climb": climb, "handover": handover, "clock": clock}
# What needs more than requirements.txt is no part of "all".
MORE = {"aloha": aloha}
# What --only can choose from: tasks; of fig11 methods, of the map points.
PARTS_OF = {
    "fig7": FIG7_TASKS, "fig9": FIG9_TASKS, "fig4": ALL_TASKS, "cfg": ALL_TASKS,
    "checks": ALL_TASKS, "headline": ALL_TASKS, "fig11": METHODS, "map": tuple(POINTS),
}  # fmt: skip

def integer(least):
    """For argparse: reads an integer of at least `least`."""

    def read(text):
        if not (text.isascii() and text.isdecimal() and least <= int(text) < 2**63):
            raise argparse.ArgumentTypeError(f"{text!r}, expected an integer >= {least}")
        return int(text)

    return read

def parser():
    """The command line."""
    parser = argparse.ArgumentParser(
        prog="python -m reproduce", description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )  # fmt: skip
    what = [*FIGURES, *MORE, *ALIASES, "ablation", "ablations", "all"]
    parser.add_argument("what", choices=what, metavar="WHAT", help="a word from the list above")
    parser.add_argument("name", nargs="?", metavar="NAME", help="of the ablation")
    seeds = " ".join(str(seed) for seed in SEEDS)
    parser.add_argument("--seeds", type=integer(0), nargs="+", help=f"default: {seeds}")
    parser.add_argument(
        "--replace", action="store_true", help="overwrite results of other seeds"
    )
    parser.add_argument("--jobs", type=integer(1), default=2, help="processes (default: 2)")
    parser.add_argument("--quick", action="store_true", help="to see that all runs; no results")
    new = " ".join(str(seed) for seed in NEW_SEEDS)
    parser.add_argument("--again", action="store_true", help=f"on seeds {new}, into results/again")
    with_tasks = [name for name in PARTS_OF if name not in ("fig11", "map")]
    parser.add_argument(
        "--only", nargs="+", choices=[*ALL_TASKS, *POINTS, *METHODS], metavar="PART",
        help=f"tasks of {', '.join(with_tasks)}; methods of fig11, besides RECAP; points of map",
    )  # fmt: skip
    parser.add_argument("--runs", nargs="+", metavar="RUN", help="of generalist: finished runs")
    return parser

def chosen(args):
    """What to run: ({name: function}, names).  UsageError where that cannot be."""
    known = FIGURES
    asked = ALIASES.get(args.what, args.what)
    if args.what == "ablations":
        known = KNOBS
        asked = args.name or "all"
    elif args.what == "ablation":
        known = KNOBS
        asked = args.name
    elif args.name:
        unexpected = "expected nothing (--only chooses tasks)"
        raise UsageError(f"{args.what}: {args.name}, {unexpected}")
    if asked in MORE and known is FIGURES:
        known = MORE
    if asked not in (*known, "all"):
        raise UsageError(f"ablation: {asked}, expected all or one of {', '.join(known)}")
    if args.seeds and len(set(args.seeds)) < len(args.seeds):
        seeds = " ".join(str(seed) for seed in args.seeds)
        raise UsageError(f"--seeds: {seeds}, expected each once")
    if args.runs and (asked != "generalist" or args.seeds or args.quick or args.only):
        runs = " ".join(args.runs)
        raise UsageError(f"--runs: {runs}, expected with generalist alone, without other options")
    names = list(known) if asked == "all" else [asked]
    if args.again:
        names = again(names)
    if args.only:
        names = [name for name in names if set(args.only) & set(PARTS_OF.get(name, ()))]
    if not names:
        parts = [f"{name}: {', '.join(all_of)}" for name, all_of in PARTS_OF.items()]
        expected = f"expected some that {asked} has; {'; '.join(parts)}"
        raise UsageError(f"--only: {' '.join(args.only)}, {expected}")
    return known, names

def again(names):
    """Those of `names` that a claim is judged by.  UsageError without any."""
    judging = {claim.command.split()[-1] for claim in CLAIMS.values()}
    found = [name for name in names if name in judging]
    if not found:
        expected = f"expected one of {', '.join(sorted(judging))}"
        raise UsageError(f"--again: {' '.join(names)}, {expected}")
    return found

def options_of(args, name):
    """The command line for one figure."""
    new = args.again or name == "headline"
    seeds = tuple(args.seeds or (NEW_SEEDS if new else SEEDS))
    more = {"only": args.only, "runs": args.runs, "replace": args.replace, "again": args.again}
    return Options(seeds, args.jobs, args.quick, **more)

def main(argv=None):
    def work():
        args = parser().parse_args(argv)
        torch.set_num_threads(1)  # as in the runs: another number rounds differently
        if rank() > 0:
            serve()
            return
        known, names = chosen(args)
        options = {name: options_of(args, name) for name in names}
        # Complain before the first run, not after it.
        for name, o in options.items():
            if name in PARTS_OF:
                o.parts(PARTS_OF[name], name)
            o.check_seeds(f"ablation_{name}" if known is KNOBS else name)
        for name, o in options.items():
            known[name](o)
        dismiss()

    with joined():
        return run_program("reproduce", work, lambda: "the same command goes on")

if __name__ == "__main__":
    sys.exit(main())
