"""What the driver survives: the loop on the wall clock, malicious commands, faults at random.

    control_loop        the rate, with a policy that takes its time
    fuzz                commands of every kind to a `SafeRobot`
    soak                hours of episodes in simulated time, in which things go wrong
    SimulatedTime, Later, WatchedArms      time and arms for both, and for tests
"""
from dataclasses import replace

import numpy as np
import torch

from collection import Actor
from control import drive
from hardware import (
    BadObservation,
    CommandRejected,
    EmergencyStop,
    Safety,
    SafeRobot,
    Station,
    Task,
    to_vector,
)
from policy import VLA, PolicyConfig
from robots.report import report
from robots.simulated import SimRobot
from settings import Settings

# ---------------------------------------------------------------- the loop on the wall clock

def control_loop(seconds, hz=50.0):
    """The untrained VLA: as fast as a trained one, and it never succeeds early.

    It asks for noise, jumps of about a radian: so `SafeRobot` bounds every command ("clamped").
    """
    torch.set_num_threads(1)  # products this small wait for a second core more than it helps
    s = Settings()
    bare = SimRobot("SimTasks/FoldShirt-v0")
    task = replace(bare.task, max_steps=round(seconds * hz))
    bare.env.unwrapped.task = task
    network = VLA(PolicyConfig(s.interface)).eval()
    policy = Actor(s, [task.prompt], network, beta=2.0)
    with SafeRobot(bare, Safety(**bare.limits)) as robot:
        recording = drive(Station(robot, task, bare), policy, s.execute, hz=hz, lead=2)
        print(report(recording, robot, hz))
    sent_at = recording.sent_at
    elapsed = sent_at[-1] - sent_at[0]
    drift = elapsed - (len(sent_at) + recording.missed - 1) / hz
    print(f"drift     {1e3 * drift:.2f} ms after {elapsed:.1f} s")

# ---------------------------------------------------------------- time and arms that are watched

class SimulatedTime:
    """A clock for `drive` that moves only when somebody sleeps, or when `t` is set."""

    def __init__(self):
        self.t = 0.0  # s

    def now(self):
        return self.t

    def sleep_until(self, deadline):
        self.t = max(self.t, deadline)

class Later:
    """A Future of simulated time: `call` is done `delay` s after it was asked for."""

    def __init__(self, clock, delay, call):
        self.clock = clock
        self.at = clock.t + delay
        self.call = call

    def done(self):
        return self.clock.t >= self.at

    def result(self):
        self.clock.t = max(self.clock.t, self.at)
        return self.call()

class WatchedArms:
    """Arms that go where they are sent, give or take 0.005, and judge all that they are sent.

    safety: what they are to be sent.  joints: of one arm.
    `violations` counts actions that were not finite, outside the limits, or further than a step
    from the last one (after a hold: from the pose, brought within the limits).
    fault: what goes wrong at the next call: "disconnect", "late", "freeze", "nan" or None.
    """

    def __init__(self, safety, clock, joints=6, seed=0):
        arm = [*map(str, range(joints)), "gripper"]
        self.names = [f"left_{part}.pos" for part in arm] + [f"right_{part}.pos" for part in arm]
        self.action_features = dict.fromkeys(self.names, float)
        self.observation_features = self.action_features | {"base": (2, 2, 3)}
        self.low = both_arms(joints, safety.joint_low, 0.0)
        self.high = both_arms(joints, safety.joint_high, 1.0)
        self.step = both_arms(joints, safety.joint_speed, safety.gripper_speed) / safety.hz
        self.rng = np.random.default_rng(seed)
        self.clock = clock
        self.pose = both_arms(joints, 0.0, 0.5)
        self.last = None  # the last action since a hold, (A,)
        self.is_connected = True
        self.held = True
        self.fault = None
        self.violations = 0
        self.received = []  # every action, (A,)

    def connect(self):
        self.is_connected = True

    def disconnect(self):
        self.is_connected = False

    def get_observation(self):
        self._check()
        if self.fault == "late":
            self.clock.t += self.rng.uniform(0, 1)
        pose = self.pose * np.nan if self.fault == "nan" else self.pose
        frozen = self.fault == "freeze"
        image = np.full((2, 2, 3), 7 if frozen else self.rng.integers(256), np.uint8)
        image[0, 0, 0] = 0 if frozen else len(self.received) % 251
        return dict(zip(self.names, pose)) | {"base": image}

    def send_action(self, action):
        self._check()
        a = to_vector(action, self.names)
        begin = np.clip(self.pose, self.low, self.high) if self.last is None else self.last
        inside = (a >= self.low).all() and (a <= self.high).all()  # NaN is not inside
        near = (np.abs(a - begin) <= self.step + 1e-9).all()
        self.violations += not (inside and near)
        self.last = a
        self.held = False
        self.pose = a + self.rng.uniform(-0.005, 0.005, a.shape)
        self.received.append(a)
        return action

    def _check(self):
        if self.fault == "disconnect" or not self.is_connected:
            raise ConnectionError("the cable is out")

    def hold(self):
        """No exception even when the cable is out: servos hold by themselves."""
        self.last = None
        self.held = True

    def estop(self):
        self.hold()

def both_arms(joints, joint, gripper):
    """One number for every joint and one for the grippers, (A,).  joints: of one arm."""
    return np.tile([joint] * joints + [gripper], 2)

def judge(ok, what):
    """AssertionError where not ok: an `assert` would say nothing under `python -O`."""
    if not ok:
        raise AssertionError(what)

# ---------------------------------------------------------------- malicious commands

NOT_FINITE = (np.nan, np.inf, -np.inf)
EXTREME = (1.7e308, -1.7e308, 5e-324)

def fuzz(n, joints=6, seed=0):
    """n commands to the safe robot: tame, wild and malicious ones, with holds, stops and pauses.

    joints: of one arm.  In every other thousand nearly all are well-formed, so that the ramp is
    run through to its end.
    Returns counts.
    """
    rng = np.random.default_rng(seed)
    clock = SimulatedTime()
    safety = Safety(joint_low=-2.0, joint_high=1.5)
    arms = WatchedArms(safety, clock, joints, seed)
    robot = SafeRobot(arms, safety, clock.now, thread=False)
    stops = 0
    for begin in range(0, n, 1000):
        n_kinds = 12 if begin % 2000 else 1200
        commands = draw_commands(rng, len(arms.names), n_kinds)[: n - begin]
        for kind, i, vector in commands:
            # What happens between two commands: a hold, an emergency stop, a pause.
            if kind == 6 and i == 0:
                robot.hold()
            elif kind == 7 and i == 0:
                robot.estop()
            clock.t += 0.5 if kind == 8 and i == 1 else 0.02
            stops += send(robot, fuzzed_action(kind, i, vector, robot))
            arms.received.clear()
    return {
        "commands": n, "sent": robot.commands, "clamped": robot.clamped,
        "rejected": robot.rejected, "holds": robot.holds, "stopped": stops,
        "violations": arms.violations,
    }  # fmt: skip

def draw_commands(rng, A, n_kinds):
    """A thousand of (kind, index of a number of the action, wild vector (A,))."""
    kinds = rng.integers(0, n_kinds, 1000)
    places = rng.integers(0, A, 1000)
    scales = 10.0 ** rng.uniform(-3, 8, (1000, 1))
    vectors = rng.normal(size=(1000, A))
    vectors = vectors * np.where(rng.random((1000, 1)) < 0.5, 1.0, scales)
    return list(zip(kinds.tolist(), places.tolist(), vectors))

def fuzzed_action(kind, i, vector, robot):
    """The command of that kind: {name: anything}.  kind, i, vector: of `draw_commands`."""
    names = robot.names
    if kind == 3:
        vector[i] = NOT_FINITE[i % 3]
    elif kind == 4:
        vector[i] = EXTREME[i % 3]
    elif kind == 5:
        vector = np.where(vector > 0, robot.high, robot.low)
    elif kind % 3 == 0:
        vector = robot.robot.pose + 0.01 * np.tanh(vector)  # tame
    action = dict(zip(names, vector.tolist()))
    if kind == 0:
        del action[names[i]]
    elif kind == 1:
        action["left_elbow"] = 0.0
    elif kind == 2:
        no_numbers = (None, "0.1", vector, [0.1], 1j, 10**400, True, {})
        action[names[i]] = no_numbers[i % 8]
    return action

def send(robot, action):
    """Send it; what is refused must leave the arms held.  Was the emergency stop pressed?"""
    try:
        robot.send_action(action)
    except CommandRejected:
        judge(robot.robot.held, "not held after a command was rejected")
    except EmergencyStop:
        judge(robot.robot.held, "not held after an emergency stop")
        robot.reset()
        return True
    return False

# ---------------------------------------------------------------- faults at random

FAULTS = [
    "disconnect", "late", "freeze", "nan", "raise", "shape", "garbage", "slow", "leader", "estop",
]  # fmt: skip
SURVIVED = ("late", "slow")  # an episode goes on after them

class Random:
    """A policy, an operator and a referee that do anything at all, and bring the faults.

    robot: a `SafeRobot` around `WatchedArms`.  fault: what is wrong now; None: nothing.
    last_fault: the last one that began in this episode.
    """

    def __init__(self, rng, robot):
        self.rng = rng
        self.robot = robot
        self.A = len(robot.names)
        self.counts = dict.fromkeys(FAULTS, 0)

    def begin(self):
        """A new episode."""
        self.last_fault = None
        self._set(None)
        self.in_control = False
        self.ticks_left = self.rng.integers(1, 2000)

    def _set(self, fault):
        self.fault = fault
        self.robot.robot.fault = fault

    def _draw_fault(self):
        """One begins about every 500 ticks; those that are survived end after about 5."""
        if self.rng.random() < 1 / 500:
            fault = FAULTS[self.rng.integers(len(FAULTS))]
            self.counts[fault] += 1
            self.last_fault = fault
            self._set(fault)
            if fault == "estop":
                self.robot.estop()
        elif self.fault in SURVIVED and self.rng.random() < 0.2:
            self._set(None)

    # ---- the policy

    def policy(self, observation, live, frozen):
        if self.fault == "raise":
            raise RuntimeError("out of memory")
        if self.fault == "shape":
            return np.zeros((1, 8, self.A - 1))
        walk = np.cumsum(self.rng.normal(0, 0.05, (1, 8, self.A)), axis=1)
        chunk = observation["state"][:, None] + walk
        return chunk * (np.nan if self.fault == "garbage" else 1)

    # ---- the operator

    def wants_control(self, observation):
        if self.rng.random() < 0.01:
            self.in_control = not self.in_control
        if self.fault == "leader":
            raise ConnectionError("the leader's cable is out")
        return np.array([self.in_control])

    def act(self, observation):
        return observation["state"] + self.rng.normal(0, 0.1, (1, self.A))

    # ---- the referee

    def over(self):
        """Asked once as every tick begins: the place for a fault to begin."""
        self._draw_fault()
        self.ticks_left -= 1
        return self.ticks_left <= 0

    def subtask(self):
        return "anything"

    def outcome(self):
        return bool(self.rng.random() < 0.5), []

def soak(n, hz=50.0, seed=0):
    """Episodes of up to 1,000 ticks until n commands were sent, with faults at random.

    AssertionError if the robot is not held at the end of an episode, or an episode is not what
    the robot received.
    Returns counts.
    """
    rng = np.random.default_rng(seed)
    clock = SimulatedTime()
    safety = Safety(joint_low=-2.0, joint_high=1.5, hz=hz)
    arms = WatchedArms(safety, clock, seed=seed)
    robot = SafeRobot(arms, safety, clock.now, thread=False)
    actor = Random(rng, robot)
    station = Station(robot, Task("soak", "do anything", 1000, hz), actor)

    def start(call):
        return Later(clock, rng.uniform(0, 1.0 if arms.fault == "slow" else 0.03), call)

    ticks = 0
    episodes = 0
    while ticks < n:
        arms.connect()
        robot.reset()
        actor.begin()
        arms.received.clear()
        how = {"hz": hz, "lead": 2, "clock": clock, "start": start}
        recording = drive(station, actor.policy, 4, actor, **how)
        check_end(recording, arms, actor.last_fault)
        ticks += len(arms.received)
        episodes += len(recording.episodes)
    counts = {"ticks": ticks, "episodes": episodes} | actor.counts
    seen = {"holds": robot.holds, "clamped": robot.clamped, "violations": arms.violations}
    return counts | seen

def check_end(recording, arms, fault):
    """Held, for a reason, and recorded as it was received.  fault: the last one that began."""
    judge(arms.held, "not held at the end of an episode")
    error = recording.error
    expected = fault not in (None, "late", "slow", "freeze")
    judge(expected or error is None or isinstance(error, BadObservation), error)
    received = np.array(arms.received, np.float32).reshape(-1, len(arms.names))
    if not recording.episodes:
        judge(len(received) == 0, "commands of an episode that was not kept")
        return
    (kept,) = recording.episodes
    same = np.array_equal(kept.actions, received)
    judge(same and kept.success is not None, "an episode is not what the robot received")
