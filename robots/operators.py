"""A person as the operator who takes over, and as the referee who labels."""
import os
import select
import sys
import time
from contextlib import contextmanager

import numpy as np

from control import REDO
from sim_tasks.errors import UserError

def ask_outcome(read_line=input):
    """The label, from a person: True, False or REDO; asks until it understands.

    read_line: read_line(question) -> what they answer, like `input`.
    """
    outcomes = {"y": True, "n": False, "r": REDO}
    while True:
        answer = read_line("success? [y]es, [n]o, [r]edo (discard): ").strip().lower()[:1]
        if answer in outcomes:
            return outcomes[answer]

class Person:
    """An operator at a keyboard, and the referee.

    space               takes over, and hands back
    q w e r t y u i o   move the numbers of one arm up: its joints, then its gripper
    a s d f g h j k l   ... down
    tab                 goes to the other arm
    enter               ends the episode
    x                   the emergency stop

    robot: a `SafeRobot`.  read_keys: read_keys() -> the keys pressed since the last call, a text
    (see `keyboard`).  read_line: as in `ask_outcome`.  subtask: the annotation of every step.
    """

    UP = "qwertyuio"
    DOWN = "asdfghjkl"
    NUDGE = 0.04  # rad, or opening, per key

    def __init__(self, robot, read_keys, read_line=input, subtask=""):
        self.robot = robot
        self.read_keys = read_keys
        self.read_line = read_line
        self.annotation = subtask
        self.begin()

    def begin(self):
        """A new episode."""
        self.in_control = False
        self.ended = False
        self.arm = 0  # the one that keys move: 0 left, 1 right
        self.target = None  # (1, A)

    def wants_control(self, observation):
        for key in self.read_keys():
            self._press(key, observation["state"])
        return np.array([self.in_control])

    def _press(self, key, state):
        """state: (1, A)."""
        if key == "x":
            self.robot.estop()  # the next command raises EmergencyStop
        elif key == " ":
            self.in_control = not self.in_control
            self.target = state.copy()
        elif key == "\t":
            self.arm = 1 - self.arm
        elif key in "\r\n":  # enter, as terminals have it
            self.ended = True
        elif self.in_control:
            self._nudge(key, state.shape[1] // 2)

    def _nudge(self, key, arm_dim):
        """Move one number of the arm that is chosen; other keys do nothing.

        arm_dim: how many numbers an arm has.
        """
        for keys, way in ((self.UP, 1), (self.DOWN, -1)):
            if key in keys[:arm_dim]:
                self.target[0, self.arm * arm_dim + keys.index(key)] += way * self.NUDGE

    def act(self, observation):
        # Within the limits, so that the way back begins with the first key.
        self.target = np.clip(self.target, self.robot.low, self.robot.high)
        return self.target

    def over(self):
        return self.ended

    def subtask(self):
        return self.annotation

    def outcome(self):
        return ask_outcome(self.read_line), []

class Onlooker:
    """An operator who never takes over, but still ends the episode or stops the robot.

    operator: who looks on.
    """

    def __init__(self, operator):
        self.operator = operator

    def wants_control(self, observation):
        return np.zeros_like(self.operator.wants_control(observation))

class Referees:
    """Several referees: any of them ends the episode, and who did gives the label.

    The annotation is that of the first one, who also speaks where nobody ended it.
    """

    def __init__(self, referees):
        self.referees = list(referees)
        self.subtask = self.referees[0].subtask

    def over(self):
        return any(referee.over() for referee in self.referees)

    def outcome(self):
        for referee in self.referees:
            if referee.over():
                return referee.outcome()
        return self.referees[0].outcome()

class OncePerPress:
    """Takes out the spaces that a terminal repeats while the bar is held down.

    The first comes up to FIRST_S after the press, the next ones within NEXT_S of each other.  So a
    second press is heard at the latest as the third: nobody is locked out of a takeover.
    """

    FIRST_S = 0.7
    NEXT_S = 0.15

    def __init__(self, now):
        self.now = now
        self.pressed = -float("inf")  # when the last space came, s
        self.patience = 0.0  # how soon after it another is a repeat, s

    def __call__(self, keys):
        """keys: what came since the last call, a text.  Returns it without repeats."""
        heard = []
        for key in keys:
            repeated = False
            if key == " ":
                repeated = self.now() - self.pressed < self.patience
                self.pressed = self.now()
                self.patience = self.NEXT_S if repeated else self.FIRST_S
            if not repeated:
                heard.append(key)
        return "".join(heard)

@contextmanager
def keyboard(now=time.monotonic):
    """A POSIX terminal that is read key by key: yields the `read_keys` of `Person`.

    A space bar that is held down is one space.  now: the clock, s.
    """
    try:
        import termios  # here: Windows has neither
        import tty
    except ImportError:
        expected = "expected a POSIX terminal to read keys from (or --leader)"
        raise UserError(f"--keyboard: no termios on this machine, {expected}") from None

    if not sys.stdin.isatty():
        raise UserError("stdin: not a terminal, expected one to read keys from")
    fd = sys.stdin.fileno()
    before = termios.tcgetattr(fd)
    once = OncePerPress(now)

    def read_keys():
        keys = b""
        while select.select([fd], [], [], 0)[0]:
            more = os.read(fd, 64)
            if not more:  # the terminal was closed
                break
            keys += more
        return once(keys.decode(errors="ignore"))

    try:
        tty.setcbreak(fd)
        yield read_keys
    finally:
        termios.tcsetattr(fd, termios.TCSADRAIN, before)
