"""Speed and latency, all measured in one run: compare ratios, not milliseconds of two machines.

  python -m benchmarks               speeds: about a minute
  python -m benchmarks --scale       a step at each --size, and a model of the paper's: two minutes
  python -m benchmarks --loop 600    the control loop at 50 Hz on the wall clock, policy at β = 2
  python -m benchmarks --fuzz        a million commands to the safe robot: about a minute
  python -m benchmarks --soak        13 hours at 50 Hz in simulated time: several minutes
"""
import argparse
import math
import sys
import time

from benchmarks.driver import control_loop, fuzz, soak
from benchmarks.scale import scale
from benchmarks.speed import measure
from lab.cli import check_device
from lab.program import run_program
from ranks import joined
from settings import Settings
from sim_tasks.errors import UserError

def parser():
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks", description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )  # fmt: skip
    loop = "only the control loop at 50 Hz on the wall clock"
    commands = "only N commands to the safe robot, random and malicious (default: 1,000,000)"
    ticks = "only so many ticks of simulated time, faults at random (default: 2,340,000)"
    add = parser.add_argument
    add("--scale", action="store_true", help="only a step at each --size (also under torchrun)")
    add("--device", choices=["cpu", "cuda", "mps"], help="of --scale (default: cpu)")
    add("--batch", type=count, metavar="N", help="of --scale (default: 32)")
    add("--loop", type=seconds, metavar="SECONDS", help=loop)
    add("--fuzz", type=count, nargs="?", const=1_000_000, metavar="N", help=commands)
    add("--soak", type=count, nargs="?", const=2_340_000, metavar="TICKS", help=ticks)
    return parser

def seconds(text):
    """For argparse: reads a time of the wall clock, at most a week."""
    x = float(text)
    if not (math.isfinite(x) and 0.1 <= x <= 604_800):
        raise argparse.ArgumentTypeError(f"{text}, expected 0.1 to 604800 seconds")
    return x

def count(text):
    """For argparse: reads an integer above 0."""
    n = int(text)
    if n < 1:
        raise argparse.ArgumentTypeError(f"{text}, expected an integer >= 1")
    return n

def main(argv=None):
    def work():
        args = parser().parse_args(argv)
        begun = time.perf_counter()
        for name in ("device", "batch"):
            given = getattr(args, name)
            if given is not None and not args.scale:
                raise UserError(f"--{name}: {given}, expected with --scale alone")
        if args.scale:
            device = args.device or "cpu"
            check_device(device)
            scale(device, args.batch or Settings().batch)
            return 0
        if args.loop is not None:
            control_loop(args.loop)
            return 0
        if args.fuzz is None and args.soak is None:
            measure()
            return 0
        counts = soak(args.soak) if args.fuzz is None else fuzz(args.fuzz)
        print(counts, f"{time.perf_counter() - begun:.0f} s")
        return 1 if counts["violations"] else 0

    with joined():
        return run_program("benchmarks", work)

if __name__ == "__main__":
    sys.exit(main())
