"""Arms, operators and policies for the tests of the driver.  Time is simulated throughout."""
import numpy as np

from benchmarks.driver import Later, SimulatedTime, WatchedArms
from control import drive
from hardware import Safety, SafeRobot, Station, Task

# nothing in the way but the limits
WIDE = Safety(joint_speed=500.0, gripper_speed=50.0, ramp_s=0)

class Still(WatchedArms):
    """Arms of one joint each that go exactly where they are sent; `log` names every call."""

    def __init__(self, safety=Safety(), clock=None, joints=1):
        super().__init__(safety, clock or SimulatedTime(), joints)
        self.rng = np.random.default_rng(0)
        self.log = []
        self.t = 0

    def get_observation(self):
        self.t += 1
        return super().get_observation()

    def send_action(self, action):
        super().send_action(action)
        self.pose = self.last.copy()
        self.log.append("send")
        return action

    def hold(self):
        super().hold()
        self.log.append("hold")

    def estop(self):
        super().hold()
        self.log.append("estop")

def safe(arms, safety=None):
    return SafeRobot(arms, safety or Safety(), arms.clock.now, thread=False)

def command(arms, value):
    return dict.fromkeys(arms.names, value)

def background(clock, delay):
    """The `start` of `Chunks`: a call in the background that takes `delay` s."""

    def start(call):
        return Later(clock, delay, call)

    return start

def rising(A, H=8):
    """A policy that raises every entry by 0.01 per step from where it sees it."""
    rise = 0.01 * np.arange(1, H + 1)[None, :, None] * np.ones(A)  # (1, H, A)

    def policy(observation, live, frozen):
        return observation["state"][:, None] + rise

    return policy

class Script:
    """Operator and referee: in control at the given steps, acts `value`; over after `length`.

    It says `success`, or `answers` one after the other.
    """

    def __init__(self, steps=(), value=-0.5, length=40, success=True, answers=()):
        self.steps = set(steps)
        self.value = value
        self.length = length
        self.answers = list(answers) or [success]
        self.t = -1  # asked once at the beginning of every step

    def over(self):
        self.t += 1
        return self.t >= self.length

    def wants_control(self, observation):
        return np.array([self.t in self.steps])

    def act(self, observation):
        return np.full(observation["state"].shape, self.value)

    def subtask(self):
        return "lift"

    def outcome(self):
        return self.answers.pop(0), [True]

def rig(
    script, policy=None, safety=WIDE, delay=0.01, arms=None, limit=100, operator=True, robot=None
):
    """Drive simulated arms of one joint at 50 Hz of simulated time.

    Returns (recording, arms, robot).
    """
    clock = SimulatedTime() if arms is None else arms.clock
    arms = arms or Still(safety, clock)
    robot = robot or safe(arms, safety)
    recording = drive(
        Station(robot, Task("lift", "lift it", limit), script), policy or rising(4), 4,
        script if operator else None, hz=50, lead=2, clock=clock, start=background(clock, delay),
    )  # fmt: skip
    return recording, arms, robot

class Fault(Exception):
    """Ours, not the robot's."""
