"""Speed and latency, all measured in one run: compare ratios, not milliseconds of two machines.

  python -m benchmarks               speeds: about a minute
  python -m benchmarks --loop 600    the control loop at 50 Hz on the wall clock, policy at β = 2
  python -m benchmarks --fuzz        a million commands to the safe robot: about a minute
  python -m benchmarks --soak        13 hours at 50 Hz in simulated time: several minutes
"""
import argparse
import sys
import time

from benchmarks.driver import control_loop, fuzz, soak
from benchmarks.speed import measure

def parser():
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks", description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )  # fmt: skip
    loop = "only the control loop at 50 Hz on the wall clock"
    commands = "only N commands to the safe robot, random and malicious (default: 1,000,000)"
    ticks = "only so many ticks of simulated time, faults at random (default: 2,340,000)"
    add = parser.add_argument
    add("--loop", type=float, metavar="SECONDS", help=loop)
    add("--fuzz", type=int, nargs="?", const=1_000_000, metavar="N", help=commands)
    add("--soak", type=int, nargs="?", const=2_340_000, metavar="TICKS", help=ticks)
    return parser

def main(argv=None):
    args = parser().parse_args(argv)
    begun = time.perf_counter()
    if args.loop is not None:
        control_loop(args.loop)
    elif args.fuzz is not None:
        print(fuzz(args.fuzz), f"{time.perf_counter() - begun:.0f} s")
    elif args.soak is not None:
        print(soak(args.soak), f"{time.perf_counter() - begun:.0f} s")
    else:
        measure()

if __name__ == "__main__":
    sys.exit(main())
