"""Drive a bimanual robot at a fixed rate, and record its episodes.

  python -m robots               a simulated robot, a hasty policy, an operator who takes over
  python -m robots --keyboard    ... and you are the operator, with a window to look at:
      space               takes over, and hands back
      q w e r t y u i o   move the numbers of one arm up: its joints, then its gripper
      a s d f g h j k l   ... down
      tab, enter, x       the other arm; the end of the episode; the emergency stop

Recordings go into a dataset for recap.py, or on to the end of one; until the session ends they
lie in FILE.episodes.  Ctrl-C and SIGTERM hold the robot, and the running episode is kept.
An evening for line 7 of Algorithm 1 are some episodes of the policy alone, and some with a person
who corrects it:
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
import inspect
import os
import signal
import sys
import time
from contextlib import ExitStack, contextmanager

import numpy as np

from control import record
from data import UserError
from hardware import BadObservation, CommandRejected, EmergencyStop
from hardware import SafeRobot, Safety, Station, Task
from lab.program import complain, run_program
from robots.lerobot import LeaderArm, LeRobotRobot
from robots.operators import Onlooker, Person, Referees, keyboard
from robots.recorder import Recorder
from robots.report import report
from robots.simulated import SimRobot
from robots.view import view_of
from sim_tasks.demonstrator import ScriptedOperator, hasty

def stand_still(observation, live, frozen=None):
    """A policy that stays where it is, for teleoperation.  Returns a chunk (n, 8, A).

    That is where it was last told to be, if it was: a loaded arm rests a little below its target.
    """
    target = observation["state"] if frozen is None else frozen[:, -1]  # (n, A)
    return np.repeat(target[:, None], 8, axis=1)

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
    rate = "ticks per second (default: 50; a simulated robot that you drive has its task's own)"
    add("--hz", type=float, help=rate)
    add("--episodes", type=int, default=1, help="how many (default: 1)")
    add("--seed", type=int, default=0, help="of the first simulated episode (default: 0)")
    add("--iteration", type=int, default=0, metavar="K", help=iteration)
    add("--autonomous", action="store_true", help=alone)
    add("--out", metavar="FILE", help="dataset (.npz), saved as every episode ends; it may exist")
    return parser

MANY = 10**9  # of episodes, seeds, ticks

def check(args):
    """UserError for what would fail only once the robot moves."""
    bounds = (
        ("hz", 1, 1000), ("episodes", 1, MANY), ("seed", 0, MANY), ("iteration", 0, MANY)
    )  # fmt: skip
    for name, low, high in bounds:
        x = getattr(args, name)
        if x is not None and not low <= x <= high:  # nor is NaN
            raise UserError(f"--{name}: {x}, expected {low} or more, and at most {high}")
    if args.out is not None:
        if not args.out.endswith(".npz"):
            raise UserError(f"--out: {args.out}, expected a name that ends in .npz")
        folder = os.path.dirname(os.path.abspath(args.out))
        if not os.path.isdir(folder) or not os.access(folder, os.W_OK):
            raise UserError(f"--out: {args.out}, expected a file in a folder that we may write to")

def load(name):
    """What module:function[:argument,...] returns; the module may lie in the current folder."""
    module, _, rest = name.partition(":")
    function, _, arguments = rest.partition(":")
    if not module or not function:
        raise UserError(f"{name}: expected module:function[:argument,...]")
    try:
        found = importlib.import_module(module)
    except ModuleNotFoundError as error:
        if error.name is None or not f"{module}.".startswith(f"{error.name}."):
            raise  # the module is there, and lacks another
        raise UserError(f"{name}: there is no module {error.name}") from None
    if not callable(getattr(found, function, None)):
        raise UserError(f"{name}: {module} has no function {function}")
    call = getattr(found, function)
    given = arguments.split(",") if arguments else []
    try:
        inspect.signature(call).bind(*given)
    except TypeError as error:
        raise UserError(f"{name}: {error} of {function}") from None
    return call(*given)

def task_of(text, hz):
    """The `Task` of name:prompt:ticks."""
    parts = text.split(":")
    number = len(parts) == 3 and parts[2].isdecimal() and len(parts[2]) < len(str(MANY))
    if not number or int(parts[2]) < 1:
        raise UserError(f"--task: {text}, expected name:prompt:ticks")
    return Task(parts[0], parts[1], int(parts[2]), hz)

def robot_of(args):
    """The robot, its task, its limits, and its policy where --policy names none."""
    kind, _, name = args.robot.partition(":")
    if kind == "sim":
        robot = SimRobot(f"SimTasks/{name}-v0", args.seed)
        return robot, robot.task, Safety(**robot.limits), hasty
    if kind == "lerobot":
        task = task_of(args.task, args.hz)
        found = load(name)
        if not hasattr(found, "action_features"):
            kind = type(found).__name__
            raise UserError(f"--robot: {name} returned a {kind} without action_features")
        return LeRobotRobot(found), task, Safety(hz=args.hz), stand_still
    raise UserError(f"--robot: {args.robot}, expected sim:TASK or lerobot:module:function")

def person_of(args, robot, stack, view=None):
    """The person who takes over, connected; None: the operator is scripted.

    stack: an ExitStack, which disconnects them.  view: of `robots.view`, or None.
    """
    if args.leader is not None:
        return stack.enter_context(LeaderArm(load(args.leader), robot.names))
    if args.keyboard or not isinstance(robot.robot, SimRobot):
        arm_dim = robot.low.size // 2
        if arm_dim > len(Person.UP):
            expected = f"expected at most {len(Person.UP)} (or --leader)"
            raise UserError(f"--keyboard: arms of {arm_dim} numbers, {expected}")
        read_keys = stack.enter_context(keyboard())
        if view is None:
            return Person(robot, read_keys)
        view.person = Person(robot, lambda: read_keys() + view.keys())
        return view.person
    return None

def wait_for(person, pause=time.sleep):
    """Until the person presses enter.  Other keys are for later, and not read twice."""
    print("press enter to begin (space takes over and hands back, x stops)", flush=True)
    while not set(person.read_keys()) & set("\r\n"):
        pause(0.02)

# ---------------------------------------------------------------- python -m robots

def run(args):
    """Drive, and save after every episode."""
    check(args)
    own_rate = args.hz is None
    if own_rate:
        args.hz = 50.0
    recorder = None if args.out is None else Recorder(args.out)
    bare, task, safety, policy = robot_of(args)
    simulated = isinstance(bare, SimRobot)
    view = None
    if simulated and args.keyboard:
        view = view_of(task)
        bare.watch = view
        if own_rate:
            args.hz = task.hz
    if args.policy is not None:
        policy = load(args.policy)
    with ExitStack() as stack:
        if recorder is not None:
            stack.enter_context(recorder)  # before the robot, which is released first
        robot = stack.enter_context(SafeRobot(bare, safety))
        person = person_of(args, robot, stack, view)
        referees = [who for who in (bare if simulated else None, person) if who is not None]
        station = Station(robot, task, Referees(referees))
        if recorder is not None:
            recorder.check_fits(station)

        def begin(i):
            """Put the scene of episode i back.  Returns the operator."""
            if simulated:
                bare.begin(args.seed + i)
            else:
                input(f"episode {i + 1}: set the scene, then press enter ")
            if person is None:
                return None if args.autonomous else ScriptedOperator(bare.world, [args.seed + i])
            person.begin()
            if view is not None:
                wait_for(person)
            return Onlooker(person) if args.autonomous else person

        how = {"execute": 4, "lead": 2, "hz": args.hz, "iteration": args.iteration}
        if args.autonomous:
            how["source"] = "autonomous"
        elif policy is stand_still:
            how["source"] = "demonstration"  # teleoperation: there is nobody to correct
        for recording in record(station, begin, policy, args.episodes, **how):
            if recorder is not None:
                recorder.add(*recording.episodes)
            print(report(recording, robot, args.hz))

class Terminated(SystemExit):
    """A signal ends the program: the way out is that of an error."""

def terminate(number, frame):
    raise Terminated(128 + number)

@contextmanager
def orderly_end():
    """Within, SIGTERM and a terminal that is closed call `terminate`, unless they are ignored."""
    before = {}
    for name in ("SIGTERM", "SIGHUP"):  # Windows has the first alone
        number = getattr(signal, name, None)
        if number is not None and signal.getsignal(number) != signal.SIG_IGN:
            before[number] = signal.signal(number, terminate)
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)

def main(argv=None):
    def work():
        args = parser().parse_args(argv)
        try:
            with orderly_end():
                run(args)
        except Terminated:
            print("python -m robots: terminated; the robot holds", file=sys.stderr)
            raise
        except (BadObservation, CommandRejected, EmergencyStop) as error:  # it was held already
            return complain(2, f"python -m robots: error: {type(error).__name__}: {error}")

    return run_program("python -m robots", work, lambda: "the robot holds")

if __name__ == "__main__":
    sys.exit(main())
