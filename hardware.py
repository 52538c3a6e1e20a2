"""A bimanual robot behind one driver interface, and the safety around it.

    two arms, position control, cameras (Fig. 5)      BimanualRobot
    limits, watchdog, emergency stop                  Safety, SafeRobot
    one robot as the loop of control.py sees it       Station

Robots and operators (simulated, LeRobot, keyboard, leader arm) are in robots/:

    python -m robots                    a simulated robot at 50 Hz, with an operator who takes over
    python -m robots --help             real ones, recording, policies

The paper gives the 50 Hz and the joint positions; the limits are ours (docs/DEVIATIONS.md, 21).
Before anything else set those of your arms: `Safety`.
"""
import math
import threading
import time
from abc import abstractmethod
from dataclasses import dataclass
from typing import Protocol

import numpy as np

# ---------------------------------------------------------------- the protocol

class BimanualRobot(Protocol):
    """Two arms with parallel grippers.  The names are LeRobot's, plus `hold` and `estop`.

    Keys are flat: `left_<joint>.pos` in radians and `left_gripper.pos` from 0 (closed) to 1 (open),
    the same for `right_`; any number of joints, equal on both sides.  Other units are converted
    inside.  Errors of the connection are ConnectionErrors.  `with robot:` connects and disconnects.
    """

    observation_features: dict  # name -> float, or the shape of an array; known while disconnected
    action_features: dict  # name -> float: [left joints, left gripper, right joints, right gripper]
    is_connected: bool
    simulated = False  # True: its time stands still between commands, so any rate will do

    @abstractmethod
    def connect(self):
        """Open the connection; the robot does not move."""

    @abstractmethod
    def disconnect(self):
        """Close the connection; no error where there is none."""

    @abstractmethod
    def get_observation(self):
        """What the robot senses now: {name: float or array}, keys of `observation_features`."""

    @abstractmethod
    def send_action(self, action):
        """Set off for {name: float} without waiting.  Returns the action *actually sent*."""

    @abstractmethod
    def hold(self):
        """Stay until the next action.  Called at any time, from another thread, too."""

    @abstractmethod
    def estop(self):
        """Stop at once, at whatever cost to the work in hand.  From another thread, too."""

def connect_or_undo(device):
    """Connect; what came up of a connection that fails is closed again."""
    try:
        device.connect()
    except BaseException as error:
        try:
            device.disconnect()
        except Exception as more:
            raise ConnectionError(f"connect: {error}; then disconnect: {more}") from error
        raise

class Connection:
    """`with robot:` connects, and disconnects whatever happens."""

    def __enter__(self):
        connect_or_undo(self)
        return self

    def __exit__(self, *error):
        self.disconnect()

def to_vector(action: dict, names: list) -> np.ndarray:
    """{name: number} → float (A,), in the order of `names`."""
    return np.array([action[name] for name in names], float)

def to_dict(vector: np.ndarray, names: list) -> dict:
    """float (A,) → {name: float}."""
    return dict(zip(names, map(float, vector)))

# ---------------------------------------------------------------- safety

@dataclass(frozen=True)
class Safety:
    """The limits of `SafeRobot`; of joints one number, or an array (joints of one arm,).

    ValueError for numbers that are no limits.
    """

    joint_low: object = -math.pi  # rad: no common arm turns further; set the limits of yours
    joint_high: object = math.pi  # rad
    joint_speed: object = 2.0  # rad/s: a careful person's leader arm
    gripper_speed: float = 5.0  # opening per second: open to closed in 0.2 s
    ramp_s: float = 0.5  # s until the first commands reach these speeds
    pose_tolerance: float = 0.05  # rad (or opening) beyond the limits from which we still start
    watchdog_s: float = 0.4  # without a command the robot holds: longer than any hiccup of ours
    stale_s: float = 0.5  # s of commands while a camera may repeat itself
    hz: float = 50.0  # commands per second: a command may move one such share of the speeds

    def __post_init__(self):
        positive = ("joint_speed", "gripper_speed", "watchdog_s", "stale_s")
        for name, x in vars(self).items():
            if not np.isfinite(x).all() or (name in positive and not np.all(np.array(x) > 0)):
                raise ValueError(f"Safety.{name}: {x}, expected finite, speeds and times above 0")
        if not np.all(np.array(self.joint_low) <= self.joint_high):
            raise ValueError(f"Safety.joint_low: {self.joint_low}, expected at most joint_high")
        if self.ramp_s < 0 or self.pose_tolerance < 0:
            raise ValueError("Safety: ramp_s and pose_tolerance, expected 0 or more")
        if not 1 <= self.hz <= 1000:
            raise ValueError(f"Safety.hz: {self.hz}, expected 1 to 1000")

class CommandRejected(ValueError):
    """The command was not sent: not finite, wrong keys or wrong shape.  The robot holds."""

class EmergencyStop(RuntimeError):
    """The emergency stop is pressed; `SafeRobot.reset` releases it."""

class BadObservation(RuntimeError):
    """A frozen camera, a number that is not finite, a pose outside the limits.  The robot holds."""

class SafeRobot(Connection):
    """Any robot, with limits that cannot be forgotten: every command is checked and bounded.

    * wrong keys, wrong shapes, NaN and inf: not sent, the robot holds, `CommandRejected`
    * targets are clipped to the limits, and to one step of motion from the last target
    * after connecting or a hold, motion starts from the measured pose and eases in
    * where somebody else takes over (`ease`), it eases in from the last target
    * no command for watchdog_s: hold (seen by a thread of its own, and at the next command)
    * `estop` latches: every command raises `EmergencyStop` until `reset`

    robot: a `BimanualRobot`.  now: the clock, s.  thread: False leaves calling `check` to you.
    It counts commands, clamped, rejected and holds.
    """

    def __init__(self, robot, safety=Safety(), now=time.monotonic, thread=True):
        self.robot = robot
        self.safety = safety
        self.now = now
        self.thread = thread
        self.names = list(robot.action_features)
        self.observation_features = robot.observation_features
        self.action_features = robot.action_features
        arm = len(self.names) // 2
        grippers = [i for i, name in enumerate(self.names) if name.endswith("gripper.pos")]
        if len(self.names) != 2 * arm or grippers != [arm - 1, 2 * arm - 1]:
            raise ValueError(
                f"action_features: {self.names}, expected "
                "[left joints, left gripper, right joints, right gripper]"
            )
        self.low = self._both_arms(safety.joint_low, 0.0)
        self.high = self._both_arms(safety.joint_high, 1.0)
        self.step = self._both_arms(safety.joint_speed, safety.gripper_speed) / safety.hz
        self.ramp = max(1.0, safety.ramp_s * safety.hz)  # commands
        self.simulated = getattr(robot, "simulated", False)
        self.commands = 0
        self.clamped = 0
        self.rejected = 0
        self.holds = 0
        self._last = None  # the last target (A,); None: start from the measured pose
        self._ramp = 0  # commands since then
        self._fed = None  # when the last command was sent, s; None: the watchdog sleeps
        self._stopped = False
        self._seen = {}  # camera -> (last image, its repeats)
        self._moved = False  # commanded since the last look
        self._lock = threading.RLock()  # of commands and holds; estop never waits for it
        self._closing = threading.Event()  # ends the watchdog's thread

    def _both_arms(self, joints, gripper):
        """A limit of every number of an action, (A,)."""
        arm = np.append(np.full(len(self.names) // 2 - 1, joints, float), gripper)
        return np.tile(arm, 2)

    # ---- the connection

    @property
    def is_connected(self):
        return self.robot.is_connected

    def connect(self):
        connect_or_undo(self.robot)
        self._last = None
        self._fed = None
        self._closing = threading.Event()  # one per connection: an old thread stays ended
        if self.thread:
            threading.Thread(target=self._watch, args=(self._closing,), daemon=True).start()

    def disconnect(self):
        """As `BimanualRobot`.  Always: of a robot that is not connected, a part may well be."""
        self._closing.set()
        try:
            self._try_to_hold()
        finally:
            self.robot.disconnect()

    # ---- commands

    def send_action(self, action: dict) -> dict:
        """As `BimanualRobot`, bounded.

        CommandRejected, EmergencyStop, or what the robot raises; then the robot holds.
        """
        with self._lock:
            if self._stopped:
                raise EmergencyStop("emergency stop is pressed, expected reset() before a command")
            self.check()
            try:
                command = self._checked(action)
                target = self._bounded(command)
                sent = self.robot.send_action(to_dict(target, self.names))
                sent = to_vector(sent, self.names)
                if not np.isfinite(sent).all():
                    raise BadObservation("send_action: the robot reports a number not finite")
            except BaseException:
                self._try_to_hold()
                raise
            self.commands += 1
            self.clamped += bool((target != command).any())
            self._last = sent
            self._fed = self.now()
            self._moved = True
            if self._stopped:  # an estop that came in between has the last word
                self.robot.estop()
            return to_dict(sent, self.names)

    def _checked(self, action):
        """The command as float (A,), or CommandRejected."""
        try:
            if set(action) != set(self.names):
                odd = sorted(map(str, set(action) ^ set(self.names)))
                raise ValueError(f"keys {odd} are missing or too many")
            values = np.array([action[name] for name in self.names])
            if values.shape != self.low.shape or values.dtype.kind not in "fiu":
                kind = f"shape {values.shape} of {values.dtype}"
                raise ValueError(f"{kind}, expected one number per key")
            if not np.isfinite(values).all():
                first = int(np.argmin(np.isfinite(values)))
                raise ValueError(f"{values[first]} for {self.names[first]}")
        except (TypeError, ValueError) as error:
            self.rejected += 1
            raise CommandRejected(f"action: {error}") from error
        return values.astype(float)

    def _bounded(self, command):
        """The nearest target that is allowed, (A,)."""
        if self._last is None:
            self._last = self._measured()
            self._ramp = 0
        self._ramp += 1
        step = self.step * min(1.0, self._ramp / self.ramp)
        target = np.minimum(np.maximum(command, self._last - step), self._last + step)
        # The last word: within the limits.
        return np.minimum(np.maximum(target, self.low), self.high)

    def _measured(self):
        """The pose to start from (A,), within the limits.  BadObservation if it is far outside."""
        pose = to_vector(self.robot.get_observation(), self.names)
        inside = np.clip(pose, self.low, self.high)
        near = np.abs(pose - inside) <= self.safety.pose_tolerance  # NaN is not near
        if not near.all():
            i = int(np.argmin(near))
            expected = f"expected {self.low[i]:.3f} to {self.high[i]:.3f}"
            raise BadObservation(f"{self.names[i]}: measured {pose[i]:.3f}, {expected}")
        return inside

    # ---- observations

    def get_observation(self) -> dict:
        """As `BimanualRobot`.  BadObservation (and a hold): not finite, or a frozen camera."""
        seen = self.robot.get_observation()
        problem = None
        if not np.isfinite(to_vector(seen, self.names)).all():
            problem = "joint positions: not finite, expected numbers"
        for name, kind in self.observation_features.items():
            if isinstance(kind, tuple):
                problem = self._camera_problem(name, np.array(seen[name])) or problem
        self._moved = False
        if problem is not None:
            self._try_to_hold()
            raise BadObservation(problem)
        return seen

    def _camera_problem(self, name, image):
        """What is wrong with an array, a text; None: nothing."""
        before, repeats = self._seen.get(name, (None, 0))
        if self._moved:  # while nothing is commanded, nothing need change
            repeats = repeats + 1 if np.array_equal(image, before) else 0
            self._seen[name] = (image, repeats)
        if repeats >= self.safety.stale_s * self.safety.hz:
            del self._seen[name]
            return f"{name}: the same for {repeats} commands, expected a live camera"
        if image.dtype.kind == "f" and not np.isfinite(image).all():
            return f"{name}: not finite, expected numbers"
        return None

    # ---- easing in, standing still

    def ease(self):
        """Somebody else takes over: the next commands start from the last target, slowly.

        A simulated robot goes on as before: nobody stands beside it.
        """
        with self._lock:
            if not self.simulated:
                self._ramp = 0

    def hold(self):
        """Stay; the next command starts from the measured pose, slowly."""
        with self._lock:
            self._last = None
            self._fed = None
            self.holds += 1
            if not self._stopped:
                self.robot.hold()

    def _try_to_hold(self):
        """Hold, but let the error that is being handled be the one that is seen."""
        try:
            self.hold()
        except Exception:
            pass

    def estop(self):
        """Stop and latch.  Waits for no lock: a garbled bus is better than a late stop."""
        self._stopped = True
        self.robot.estop()

    def reset(self):
        """Release the emergency stop; the next command starts from the measured pose, slowly."""
        with self._lock:
            self._stopped = False
            self._last = None
            self._fed = None

    def check(self):
        """The watchdog: hold if the last command is older than watchdog_s."""
        with self._lock:
            if self._fed is not None and self.now() - self._fed > self.safety.watchdog_s:
                self.hold()

    def _watch(self, closing):
        while not closing.wait(self.safety.watchdog_s / 8):
            try:
                self.check()
            except Exception:  # the caller meets it at the next command; the watchdog stays awake
                pass

# ---------------------------------------------------------------- one robot, as the loop sees it

@dataclass
class Task:
    """What a real robot is to do."""

    name: str  # its id, as in `data.Episode`
    prompt: str  # ℓ_t in words
    max_steps: int  # the time limit, in ticks
    hz: float = 50.0  # ticks per second

class Station:
    """One robot as `control.drive` sees it: arrays with a leading axis of one.

    robot: a `SafeRobot`, connected.  task: anything with name, prompt, max_steps and hz.
    referee: who knows when it is over and how it went: over() -> bool, subtask() -> str,
    outcome() -> (True, False, None for not labelled, or REDO; successes of the stages).
    ValueError where the limits are of another rate than the task.
    """

    def __init__(self, robot, task, referee):
        if not isinstance(robot, SafeRobot):
            raise ValueError(f"robot: {type(robot).__name__}, expected a SafeRobot around it")
        if robot.safety.hz != task.hz:
            raise ValueError(f"Safety.hz: {robot.safety.hz}, expected {task.hz} as the task's")
        self.robot = robot
        self.task = task
        self.simulated = robot.simulated
        self.hold = robot.hold
        self.ease = robot.ease
        self.over = referee.over
        self.subtask = referee.subtask
        self.outcome = referee.outcome

    @property
    def prompt(self):
        """ℓ_t in words: the task's, or that of a simulated scene, which names its item."""
        return getattr(self.robot.robot, "prompt", self.task.prompt)

    def observe(self) -> dict:
        """{"state": float32 (1, A), every array of the robot by its name: (1, ...)}."""
        seen = self.robot.get_observation()
        state = to_vector(seen, self.robot.names)[None].astype(np.float32)
        observation = {"state": state}
        for name, kind in self.robot.observation_features.items():
            if isinstance(kind, tuple):
                observation[name] = np.asarray(seen[name])[None]
        return observation

    def send(self, actions: np.ndarray) -> np.ndarray:
        """Send actions (1, A).  Returns what was sent, float32 (1, A)."""
        expected = (1, len(self.robot.names))
        if actions.shape != expected:
            raise CommandRejected(f"actions: shape {actions.shape}, expected {expected}")
        sent = self.robot.send_action(to_dict(actions[0], self.robot.names))
        return to_vector(sent, self.robot.names)[None].astype(np.float32)
