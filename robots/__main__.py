"""Drive a bimanual robot at a fixed rate, and record its episodes.

  python -m robots               a simulated robot, a hasty policy, an operator who takes over
  python -m robots --keyboard    ... and you are the operator:
      space                          takes over, and hands back
      q w e r t y u, a s d f g h j   move the joints of one arm up, down; the gripper is its last
      tab, enter, x                  the other arm; the end of the episode; the emergency stop

Recordings go into a dataset for recap.py, or on to the end of one.  An evening for line 7 of
Algorithm 1 are some episodes of the policy alone, and some with a person who corrects it:
  python -m robots --policy ... --keyboard --iteration 1 --out mine.npz --episodes 10 --autonomous
  python -m robots --policy ... --keyboard --iteration 1 --out mine.npz --episodes 10

A policy is what a function returns: --policy module:function[:argument,...].  A checkpoint of
recap.py, its task and β, for the simulated robot alone:
  python -m robots --robot sim:Box --policy robots.checkpoint:actor:runs/box-seed0/pi_2.npz,box,1.5

A real robot: my_station.py has functions robot() and leader(), which return a LeRobot bimanual
follower and a teleoperator with get_teleop_events (without --leader: the keyboard).
  python -m robots --robot lerobot:my_station:robot --leader my_station:leader --out mine.npz
It stands still until the operator takes over, unless there is a --policy.
Before anything else set the limits of your arms: hardware.Safety.
"""
import argparse
import importlib
import os
import sys
from contextlib import ExitStack

import numpy as np

from control import record
from hardware import SafeRobot, Safety, Station, Task
from lab.files import BadFile, load_dataset, save_dataset
from robots.lerobot import LeaderArm, LeRobotRobot
from robots.operators import Onlooker, Person, Referees, keyboard
from robots.report import report
from robots.simulated import SimRobot
from sim_tasks.demonstrator import ScriptedOperator, hasty

def stand_still(observation, live, frozen=None):
    """A policy that stays where it is, for teleoperation.  Returns a chunk (n, 8, A)."""
    return np.repeat(observation["state"][:, None], 8, axis=1)

# ---------------------------------------------------------------- what the options name

def parser():
    parser = argparse.ArgumentParser(
        prog="python -m robots", description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )  # fmt: skip
    named = "module:function[:argument,...]"
    robot = "sim:TASK or lerobot:module:function (default: sim:FoldShirt)"
    policy = f"{named} (default: hasty in simulation, else it stands still)"
    leader = f"{named} of the teleoperator of a real robot (default: the keyboard)"
    person = "be the operator of the simulated robot yourself"
    task = "of a real robot, as name:prompt:ticks"
    iteration = "k of Algorithm 1, where the policy is that of k - 1 (default: 0)"
    alone = "nobody takes over; a person still ends and labels the episodes"
    add = parser.add_argument
    add("--robot", default="sim:FoldShirt", metavar="KIND:NAME", help=robot)
    add("--policy", metavar="NAME", help=policy)
    add("--leader", metavar="NAME", help=leader)
    add("--keyboard", action="store_true", help=person)
    add("--task", default="task:do the task:3000", metavar="TEXT", help=task)
    add("--hz", type=float, default=50.0, help="ticks per second (default: 50)")
    add("--episodes", type=int, default=1, help="how many (default: 1)")
    add("--seed", type=int, default=0, help="of the first simulated episode (default: 0)")
    add("--iteration", type=int, default=0, metavar="K", help=iteration)
    add("--autonomous", action="store_true", help=alone)
    add("--out", metavar="FILE", help="dataset (.npz), saved as every episode ends; it may exist")
    return parser

def check(args):
    """ValueError for what would fail only once the robot moves."""
    if not args.hz > 0:
        raise ValueError(f"--hz: {args.hz}, expected a number > 0")
    if args.episodes < 1:
        raise ValueError(f"--episodes: {args.episodes}, expected at least 1")
    if args.iteration < 0:
        raise ValueError(f"--iteration: {args.iteration}, expected 0 or more")
    if args.out is not None and not os.path.isdir(os.path.dirname(os.path.abspath(args.out))):
        raise ValueError(f"--out: {args.out}, expected a file in a folder that exists")

def load(name):
    """What module:function[:argument,...] returns; the module may lie in the current folder."""
    module, _, rest = name.partition(":")
    function, _, arguments = rest.partition(":")
    if not module or not function:
        raise ValueError(f"{name}: expected module:function[:argument,...]")
    call = getattr(importlib.import_module(module), function)
    return call(*arguments.split(",")) if arguments else call()

def task_of(text, hz):
    """The `Task` of name:prompt:ticks."""
    parts = text.split(":")
    if len(parts) != 3 or not parts[2].isdigit():
        raise ValueError(f"--task: {text}, expected name:prompt:ticks")
    return Task(parts[0], parts[1], int(parts[2]), hz)

def robot_of(args):
    """The robot, its task, its limits, and its policy where --policy names none."""
    kind, _, name = args.robot.partition(":")
    if kind == "sim":
        robot = SimRobot(f"SimTasks/{name}-v0", args.seed)
        return robot, robot.task, Safety(**robot.limits), hasty
    if kind == "lerobot":
        return LeRobotRobot(load(name)), task_of(args.task, args.hz), Safety(), stand_still
    raise ValueError(f"--robot: {args.robot}, expected sim:TASK or lerobot:module:function")

def person_of(args, robot, stack):
    """The person who takes over, connected; None: the operator is scripted.

    stack: an ExitStack, which disconnects them.
    """
    if args.leader is not None:
        return stack.enter_context(LeaderArm(load(args.leader), robot.names))
    if args.keyboard or not isinstance(robot.robot, SimRobot):
        return Person(robot, stack.enter_context(keyboard()))
    return None

def earlier_episodes(path):
    """Those of a dataset that is there, to which the new ones are added.  BadFile if it is none."""
    if path is None or not os.path.exists(path):
        return []
    try:
        return load_dataset(path)
    except BadFile as error:
        raise BadFile(f"--out: {error}: nothing is added to it, expected a new file") from error

def check_fits(episodes, station, path):
    """ValueError, before anything moves, where new episodes could not follow the earlier ones."""
    if not episodes:
        return
    last = episodes[-1]
    here = {name: x.shape[1:] for name, x in station.observe().items()}
    there = {name: x.shape[1:] for name, x in last.observations.items()}
    if here != there:
        raise ValueError(f"--out: {path} holds {there}, expected what is seen here, {here}")
    if last.hz != station.task.hz:
        raise ValueError(f"--out: {path} is of {last.hz} Hz, expected {station.task.hz} as here")

# ---------------------------------------------------------------- python -m robots

def run(args):
    """Drive, and save after every episode."""
    check(args)
    episodes = earlier_episodes(args.out)
    bare, task, safety, policy = robot_of(args)
    simulated = isinstance(bare, SimRobot)
    if args.policy is not None:
        policy = load(args.policy)
    with ExitStack() as stack:
        robot = stack.enter_context(SafeRobot(bare, safety))
        person = person_of(args, robot, stack)
        referees = [who for who in (bare if simulated else None, person) if who is not None]
        station = Station(robot, task, Referees(referees))
        check_fits(episodes, station, args.out)

        def begin(i):
            """Put the scene of episode i back.  Returns the operator."""
            if simulated:
                bare.begin(args.seed + i)
            else:
                input(f"episode {i + 1}: set the scene, then press enter ")
            if person is None:
                return None if args.autonomous else ScriptedOperator(bare.world, [args.seed + i])
            person.begin()
            return Onlooker(person) if args.autonomous else person

        how = {"execute": 4, "lead": 2, "hz": args.hz, "iteration": args.iteration}
        if args.autonomous:
            how["source"] = "autonomous"
        elif policy is stand_still:
            how["source"] = "demonstration"  # teleoperation: there is nobody to correct
        for recording in record(station, begin, policy, args.episodes, **how):
            episodes += recording.episodes
            if args.out is not None:
                save_dataset(episodes, args.out)
            print(report(recording, robot, args.hz))

def main(argv=None):
    args = parser().parse_args(argv)
    try:
        run(args)
    except KeyboardInterrupt:
        print("python -m robots: interrupted, the robot holds", file=sys.stderr)
        return 130
    except Exception as error:  # of a robot, a bus or a policy: it was held on the way here
        print(f"python -m robots: error: {type(error).__name__}: {error}", file=sys.stderr)
        return 2
    return 0

if __name__ == "__main__":
    sys.exit(main())
