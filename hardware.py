"""A bimanual robot behind one driver interface, the safety around it, and the loop that runs it and records.

    two arms, position control, cameras (Fig. 5)           BimanualRobot      (robots and operators: adapters.py)
    limits, watchdog, emergency stop                       Safety, SafeRobot
    50 Hz control, chunks a_{t:t+H}                        Pacer, Chunks, drive
    episodes with sparse labels, corrections (Sec. V-D)    drive, record; Station and Fleet are what they run

One loop, `drive`, runs one robot in real time and a fleet of simulated ones as fast as they go (`recap.collect` collects
through it).  A policy is a callable (observation, live, frozen) -> chunk, see `Chunks`; nothing here learns.

    python hardware.py                       a simulated robot at 50 Hz, a hasty policy, an operator who takes over
    python hardware.py --keyboard            ... and you are the operator (keys: see adapters.Person)
    python hardware.py --robot lerobot:my_station:robot --leader my_station:leader --out mine.npz
A real robot: my_station.py has functions robot() and leader() that return a LeRobot bimanual follower and a teleoperator
with `get_teleop_events` (without --leader: the keyboard).  It stands still until the operator takes over, unless there is a
--policy module:function[:argument,...] that returns a policy.  Before anything else set the limits of your arms: `Safety`.
--policy recap:actor:runs/box-0/pi_2.npz,box,1.5 is a checkpoint of recap.py, its task and β, for the simulated robot (--robot
sim:Box) alone: its networks know neither other arms nor real cameras.

The paper gives the 50 Hz and the joint positions, and that corrections and labels are recorded; limits, pacing and real-time
chunking are ours.  The simulated world of 10 Hz is stepped at 50 Hz here, five times as fast as it is meant.

How an episode can end; in every case the robot is held before anybody is asked for a label:
    over, or out of time                                                         Run.episodes: the labelled episode
    policy or operator raised, command rejected, camera frozen, disconnected,
    emergency stop, Ctrl-C                                                       ... up to there; Run.error: the reason
    "discard and redo"                                                           none; Run.redo
It survives a late observation (the ticks that it cost are skipped, never made up for in a burst; after 400 ms the robot is
held and then eases in again) and a slow policy (the arm stands at its last target until the next chunk is there).
"""
import argparse
import importlib
import math
import os
import sys
import threading
import time
from abc import abstractmethod
from concurrent.futures import Future
from contextlib import ExitStack
from dataclasses import dataclass, field
from typing import Protocol

import numpy as np

from adapters import REDO, Connection, LeaderArm, LeRobotRobot, Person, ScriptedOperator, SimRobot, keyboard, to_dict, to_vector
from data import Episode, save_dataset
from sim_tasks.demonstrator import hasty


# ---------------------------------------------------------------- the protocol

class BimanualRobot(Protocol):
    """Two arms with parallel grippers.  The names are those of LeRobot's `Robot`, plus `hold` and `estop`.

    Keys are flat: `left_<joint>.pos` in radians and `left_gripper.pos` from 0 (closed) to 1 (open), the same for `right_`;
    any number of joints, equal on both sides.  Other units are converted inside, never above.  Errors of the connection
    are ConnectionErrors.  `with robot:` connects and disconnects.
    """
    observation_features: dict     # name -> float, or the shape of an array (height, width, 3); known while disconnected
    action_features: dict          # name -> float, in the order [left joints, left gripper, right joints, right gripper]
    is_connected: bool

    @abstractmethod
    def connect(self):
        """Open the connection; the robot does not move."""

    @abstractmethod
    def disconnect(self):
        """Close the connection; no error where there is none."""

    @abstractmethod
    def get_observation(self):
        """What the robot senses now: {name: float or array} with the keys of `observation_features`."""

    @abstractmethod
    def send_action(self, action):
        """Set off for the targets {name: float}, without waiting.  -> the action *actually sent*, same keys."""

    @abstractmethod
    def hold(self):
        """Stay until the next action.  Called at any time, from another thread, too."""

    @abstractmethod
    def estop(self):
        """Stop at once, at whatever cost to the work in hand.  Called from another thread, too."""


# ---------------------------------------------------------------- safety

@dataclass(frozen=True)
class Safety:
    """The limits of `SafeRobot`; those of joints are one number, or an array (joints of one arm,)."""
    joint_low: object = -math.pi     # rad: no common arm turns further; set the limits of yours
    joint_high: object = math.pi     # rad
    joint_step: object = 0.04        # rad per command, 2 rad/s at 50 Hz: as fast as a careful person moves a leader arm
    gripper_step: float = 0.1        # opening per command: open to closed in 0.2 s, about what small grippers can do
    ramp_steps: int = 25             # commands until the first ones reach these steps: half a second to see what comes
    pose_tolerance: float = 0.05     # rad (or opening) beyond the limits from which we still start: play, calibration
    watchdog_s: float = 0.4          # without a command the robot holds: 20 ticks, longer than any hiccup of ours
    stale_steps: int = 25            # commands while a camera may repeat itself: half a second; 10 Hz repeat 5, noise differs


class CommandRejected(ValueError):
    """The command was not sent: not finite, wrong keys or wrong shape.  The robot holds."""


class EmergencyStop(RuntimeError):
    """The emergency stop is pressed; `SafeRobot.reset` releases it."""


class BadObservation(RuntimeError):
    """A frozen camera, a number that is not finite, a pose outside the limits.  The robot holds."""


class SafeRobot(Connection):
    """Any robot, with limits that cannot be forgotten: every command is checked and bounded before it is sent.

    * wrong keys, wrong shapes, NaN and inf: not sent, the robot holds, the caller gets `CommandRejected`
    * targets are clipped to the limits, and to one step of motion from the last target
    * after connecting or a hold, motion starts from the measured pose, and the step grows from 1/ramp_steps of itself
    * no command for watchdog_s: hold (seen by a thread of its own, and once more at the next command)
    * `estop` latches: every command raises `EmergencyStop` until `reset`
    now: the clock, s; thread=False leaves calling `check` to you.  Counts commands, clamped, rejected, holds.
    """

    def __init__(self, robot, safety=Safety(), now=time.monotonic, thread=True):
        self.robot, self.safety, self.now, self.thread, self.names = robot, safety, now, thread, list(robot.action_features)
        arm = len(self.names) // 2
        grippers = [i for i, name in enumerate(self.names) if name.endswith("gripper.pos")]
        if len(self.names) != 2 * arm or grippers != [arm - 1, 2 * arm - 1]:
            raise ValueError(f"action_features: {self.names}, expected [left joints, left gripper, right joints, right gripper]")
        both = lambda joints, gripper: np.tile(np.append(np.full(arm - 1, joints, float), gripper), 2)        # (A,)
        self.low, self.high = both(safety.joint_low, 0.0), both(safety.joint_high, 1.0)
        self.step = both(safety.joint_step, safety.gripper_step)
        self.observation_features, self.action_features = robot.observation_features, robot.action_features
        self.commands = self.clamped = self.rejected = self.holds = 0
        self._last, self._ramp = None, 0         # last target (A,), None: start from the measured pose; commands since
        self._fed = None                         # when the last command was sent, s; None: the watchdog sleeps
        self._stopped = False
        self._seen, self._moved = {}, False      # camera -> (last image, its repeats); commanded since the last look
        self._lock = threading.RLock()           # commands and holds; estop and get_observation never wait for it
        self._closing = threading.Event()        # ends the watchdog's thread

    @property
    def is_connected(self):
        return self.robot.is_connected

    def connect(self):
        self.robot.connect()
        self._last = self._fed = None
        self._closing = threading.Event()          # one per connection: an old thread stays ended
        if self.thread:
            threading.Thread(target=self._watch, args=(self._closing,), daemon=True).start()

    def disconnect(self):
        self._closing.set()
        if self.robot.is_connected:
            self._try_to_hold()
            self.robot.disconnect()

    def send_action(self, action):
        """As `BimanualRobot`, bounded.  CommandRejected, EmergencyStop, or what the robot raises; then the robot holds."""
        with self._lock:
            if self._stopped:
                raise EmergencyStop("emergency stop is pressed, expected reset() before the next command")
            self.check()
            try:
                command = self._checked(action)
                if self._last is None:
                    self._last, self._ramp = self._measured(), 0
                self._ramp += 1
                step = self.step * min(1.0, self._ramp / self.safety.ramp_steps)
                target = np.minimum(np.maximum(command, self._last - step), self._last + step)
                target = np.minimum(np.maximum(target, self.low), self.high)      # the last word: within the limits
                sent = to_vector(self.robot.send_action(to_dict(target, self.names)), self.names)
                if not np.isfinite(sent).all():
                    raise BadObservation("send_action: the robot reports a number that is not finite")
            except BaseException:
                self._try_to_hold()
                raise
            self.commands, self.clamped = self.commands + 1, self.clamped + bool((target != command).any())
            self._last, self._fed, self._moved = sent, self.now(), True
            if self._stopped:               # an estop that came in between has the last word
                self.robot.estop()
            return to_dict(sent, self.names)

    def _checked(self, action):
        """The command as float (A,), or CommandRejected."""
        try:
            if set(action) != set(self.names):
                raise ValueError(f"keys {sorted(map(str, set(action) ^ set(self.names)))} are missing or too many")
            values = np.array([action[name] for name in self.names])
            if values.shape != self.low.shape or values.dtype.kind not in "fiu":         # strings, None, arrays
                raise ValueError(f"shape {values.shape} of {values.dtype}, expected one number per key")
            if not np.isfinite(values).all():
                raise ValueError(f"{values[~np.isfinite(values)][0]} for {self.names[int(np.argmin(np.isfinite(values)))]}")
        except (TypeError, ValueError) as error:
            self.rejected += 1
            raise CommandRejected(f"action: {error}") from error
        return values.astype(float)

    def _measured(self):
        """The pose to start from (A,): the measured one, within the limits.  BadObservation if it is far outside."""
        pose = to_vector(self.robot.get_observation(), self.names)
        inside = np.clip(pose, self.low, self.high)
        near = np.abs(pose - inside) <= self.safety.pose_tolerance                       # NaN is not near
        if not near.all():
            i = int(np.argmin(near))
            raise BadObservation(f"{self.names[i]}: measured {pose[i]:.3f}, expected {self.low[i]:.3f} to {self.high[i]:.3f}")
        return inside

    def get_observation(self):
        """As `BimanualRobot`.  BadObservation (and a hold) for numbers that are not finite and for a frozen camera."""
        seen = self.robot.get_observation()
        arrays = {name: np.array(seen[name]) for name, kind in self.observation_features.items() if isinstance(kind, tuple)}
        problem = None if np.isfinite(to_vector(seen, self.names)).all() else "joint positions: not finite, expected numbers"
        for name, x in arrays.items():
            before, repeats = self._seen.get(name, (None, 0))
            if self._moved:                        # while nothing is commanded, nothing need change
                repeats = repeats + 1 if np.array_equal(x, before) else 0
                self._seen[name] = x, repeats
            if x.dtype.kind == "f" and not np.isfinite(x).all():
                problem = f"{name}: not finite, expected numbers"
            if repeats >= self.safety.stale_steps:
                problem = f"{name}: the same for {repeats} commands, expected a live camera"
                del self._seen[name]
        self._moved = False
        if problem is not None:
            self._try_to_hold()
            raise BadObservation(problem)
        return seen

    def hold(self):
        """Stay; the next command starts from the measured pose, slowly."""
        with self._lock:
            self._last = self._fed = None
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
            self._stopped, self._last, self._fed = False, None, None

    def check(self):
        """The watchdog: hold if the last command is older than watchdog_s."""
        with self._lock:
            if self._fed is not None and self.now() - self._fed > self.safety.watchdog_s:
                self.hold()

    def _watch(self, closing):
        while not closing.wait(self.safety.watchdog_s / 8):
            try:
                self.check()
            except Exception:           # the caller meets it at the next command; the watchdog stays awake
                pass


# ---------------------------------------------------------------- the loop

class Clock:
    """The wall clock, monotonic.  Simulated time is another object with these two methods."""
    now = staticmethod(time.monotonic)                   # s

    def sleep_until(self, deadline):
        time.sleep(max(0.0, deadline - self.now()))


class Pacer:
    """A fixed rate without drift: tick k begins at start + k·period, however late the ticks before it were.

    A tick that is late by a whole period or more is skipped, like all up to the next deadline, and counted in `missed`: no
    burst of commands makes up for them.
    """

    def __init__(self, hz, clock):
        self.period, self.clock, self.k, self.missed, self.start = 1 / hz, clock, 0, 0, clock.now()

    def wait(self):
        self.k += 1
        late = (self.clock.now() - self.start) / self.period - self.k                # periods
        if late >= 1:
            self.k, self.missed = self.k + math.ceil(late), self.missed + math.ceil(late)
        self.clock.sleep_until(self.start + self.k * self.period)


def at_once(call):
    """Call now.  -> a finished Future"""
    future = Future()
    future.set_result(call())
    return future


def in_background(call):
    """Call in a daemon thread, which does not keep the program alive if the call never returns.  -> Future"""
    future = Future()

    def work():
        try:
            future.set_result(call())
        except BaseException as error:              # raised again where the result is asked for
            future.set_exception(error)
    threading.Thread(target=work, daemon=True).start()
    return future


class Chunks:
    """The actions of a policy that predicts chunks a_{t:t+H}, a new one in force every `execute` steps.

    policy(observation {name: (n, ...)}, live (n,) bool, frozen (n, d, A) or None) -> (n, H, A), H >= execute + lead.
    lead = 0: a chunk is asked for when it is needed, and all wait.  lead = d > 0, real-time chunking with a frozen prefix:
    it is asked for d steps ahead, is told the d actions that will be executed meanwhile, and comes into force with its
    entry d, so the arm never waits; H >= execute + d.  If it is late, the old chunk is executed to its end (H -
    execute - d more steps; the very first one H - execute); then the arm stands (`next` -> None) until a chunk comes that
    is not over yet, or that was asked for while standing.
    """

    def __init__(self, policy, execute, lead=0, start=at_once, now=time.monotonic):
        if not 0 <= lead < execute:
            raise ValueError(f"lead: {lead}, expected 0 to execute - 1 = {execute - 1}")
        self.policy, self.execute, self.lead, self.start, self.now = policy, execute, lead, start, now
        self.chunk = np.empty((0, 0, 0))      # (n, H, A); none yet
        self.begin = self.since = 0           # the step of its entry 0, and at which it came into force
        self.asked = None                     # Future of the next one, asked for at step asked_at, standing or not
        self.fresh = False                    # a chunk came into force in this step
        self.latencies = []                   # s per chunk

    def next(self, t, observation, live, taken):
        """The action of step t: (n, A), or None where there is none.  taken (n,): whom the operator moves instead."""
        i, H = t - self.begin, self.chunk.shape[1]                                 # i: the entry of step t
        if self.asked is None and (i >= H or t >= self.since + self.execute - self.lead):
            self.asked_at, self.standing = t, i >= H
            # what will be executed meanwhile; what an operator will do, nobody knows
            frozen = None if self.lead == 0 or self.standing or taken.any() else self.chunk[:, i:i + self.lead].copy()
            self.asked = self.start(lambda: self._timed(observation, live, frozen))
        self.fresh, due = False, self.standing or t >= self.asked_at + self.lead
        if H == 0 or (self.asked is not None and due and self.asked.done()):       # the very first chunk is waited for
            chunk, self.asked = np.asarray(self.asked.result()), None
            if chunk.ndim != 3 or len(chunk) != len(live) or chunk.shape[1] < self.execute + self.lead:
                raise ValueError(f"policy: chunk of shape {chunk.shape}, expected ({len(live)}, {self.execute + self.lead} or more, A)")
            begin = t if self.standing else self.asked_at      # while it stood, the time of the chunk stood still
            if t - begin < chunk.shape[1]:                     # else too late: the next step asks again
                self.chunk, self.begin, self.since, self.fresh = chunk, begin, t, True
        i = t - self.begin
        return self.chunk[:, i].copy() if i < self.chunk.shape[1] else None

    def _timed(self, *arguments):
        begun = self.now()
        chunk = self.policy(*arguments)
        self.latencies.append(self.now() - begun)
        return chunk


@dataclass
class Run:
    """What `drive` brings back."""
    episodes: list = field(default_factory=list)      # labelled; empty: discarded, or not one command was sent
    error: BaseException | None = None                # what ended it early; the robot has been held
    redo: bool = False                                # "discard and redo"
    sent_at: list = field(default_factory=list)       # s on the clock, of every command
    latencies: list = field(default_factory=list)     # s, of every chunk of the policy
    missed: int = 0                                   # ticks skipped
    stalls: int = 0                                   # steps at which there was no action and the arm stood


def drive(stations, policy, execute, operator=None, hz=None, lead=0, clock=Clock(), start=None, ticks=None,
          source=None, iteration=0):
    """One episode at every station, side by side.  -> `Run`; what goes wrong is in Run.error, not raised

    stations: a `Station` or a `Fleet`; policy, execute, lead: see `Chunks`.  operator: moves a station from the step at
    which he wants control until he no longer does and a new chunk begins.  hz: ticks per second on `clock`; None is as
    fast as they go.  start: `at_once` or `in_background`, by default the latter in real time.  ticks: an iterable 0, 1, ...
    (a progress bar); source: as in `Episode`, by default "autonomous", or "corrected" with an operator.
    """
    if start is None:
        start = at_once if hz is None else in_background
    chunks, run, pacer = Chunks(policy, execute, lead, start, clock.now), Run(), None
    taken, lengths, log = np.zeros(stations.n, bool), np.zeros(stations.n, int), {}
    try:
        for t in range(stations.task.max_steps) if ticks is None else ticks:
            over = stations.over()                                                   # (n,)
            if over.all():
                break
            observation = stations.observe()                                         # {name: (n, ...)}
            actions = chunks.next(t, observation, ~over, taken)                      # (n, A)
            if actions is None:
                actions, run.stalls = sent.copy(), run.stalls + 1
            if operator is not None:
                wants = operator.wants_control(observation)
                taken = wants if chunks.fresh else wants | taken
                if taken.any():
                    actions[taken] = operator.act(observation)[taken]
            if hz is not None and pacer is None:
                pacer = Pacer(hz, clock)
            # intervention: Sec. IV-B makes I_t True where the operator moved
            step = observation | {"subtask": stations.subtasks(), "intervention": taken}
            sent = stations.send(actions.astype(np.float32))
            run.sent_at.append(clock.now())
            for name, x in (step | {"actions": sent}).items():         # recorded once sent, and as it was sent
                log.setdefault(name, []).append(np.array(x))
            lengths += ~over
            if pacer is not None:
                pacer.wait()
    except (Exception, KeyboardInterrupt) as error:
        run.error = error
    finally:
        try:
            stations.hold()
        except Exception as error:                  # disconnected: nothing left to hold
            run.error = run.error or error
    run.latencies, run.missed = chunks.latencies, 0 if pacer is None else pacer.missed
    _label(run, stations, log, lengths, source or ("autonomous" if operator is None else "corrected"), iteration)
    return run


def _label(run, stations, log, lengths, source, iteration):
    """Cut the episodes out of the log, {name: longest T x (n, ...)}, and ask how each went.  Fills `run`."""
    log = {name: np.stack(x, axis=1) for name, x in log.items()}                     # (n, longest T, ...)
    for i, T in enumerate(lengths):
        if T == 0:
            continue
        try:
            success, stages = stations.outcome(i)
        except (Exception, KeyboardInterrupt) as error:         # nobody there to ask: it stays, not labelled
            run.error, success, stages = run.error or error, None, []
        if success is REDO:
            run.redo = True
            continue
        steps = {name: x[i, :T] for name, x in log.items()}
        run.episodes.append(Episode(
            task=stations.task.name, prompt=stations.task.prompt, max_length=stations.task.max_steps,
            actions=steps.pop("actions"), subtask=steps.pop("subtask"), intervention=steps.pop("intervention"),
            observations=steps, success=success, stages=np.array(stages, bool), source=source, iteration=iteration))


def record(station, begin, policy, n, **how):
    """n episodes in a row.  begin(i): puts the scene of episode i back -> the operator, or None; how: arguments of `drive`.

    A policy that keeps something from chunk to chunk has begin(), called before every episode.  Yields every `Run` with an
    episode, to be saved before the next begins.  An error is raised after its run was yielded; "discard and redo" begins the
    same episode again.
    """
    for i in range(n):
        run = Run(redo=True)
        while run.redo:
            if hasattr(policy, "begin"):
                policy.begin()
            run = drive(station, policy, operator=begin(i), **how)
            if run.episodes:
                yield run
            if run.error is not None:
                raise run.error


class Station:
    """One robot as `drive` sees it: arrays with a leading axis of one.

    robot: a `SafeRobot`, connected; task: anything with name, prompt and max_steps; referee: who knows when it is over and
    how it went (adapters.py): a `SimRobot`, a `Person`, a `LeaderArm`.
    """
    n = 1

    def __init__(self, robot, task, referee):
        if not isinstance(robot, SafeRobot):
            raise ValueError(f"robot: {type(robot).__name__}, expected a SafeRobot around it")
        self.robot, self.task, self.referee, self.hold = robot, task, referee, robot.hold

    def observe(self):
        """{"state": float32 (1, A), every array of the robot by its name: (1, ...)}."""
        seen = self.robot.get_observation()
        arrays = {name: np.asarray(seen[name])[None] for name, kind in self.robot.observation_features.items()
                  if isinstance(kind, tuple)}
        return {"state": to_vector(seen, self.robot.names)[None].astype(np.float32)} | arrays

    def send(self, actions):
        """Send actions (1, A).  -> what was sent, float32 (1, A)"""
        if actions.shape != (1, len(self.robot.names)):
            raise CommandRejected(f"actions: shape {actions.shape}, expected (1, {len(self.robot.names)})")
        sent = self.robot.send_action(to_dict(actions[0], self.robot.names))
        return to_vector(sent, self.robot.names)[None].astype(np.float32)

    def over(self):
        return np.array([self.referee.over()])

    def subtasks(self):
        return np.array([self.referee.subtask()])

    def outcome(self, i):
        return self.referee.outcome()


class Fleet:
    """The n copies of a simulated world as `drive` sees them (the paper collects on 4 stations)."""

    def __init__(self, world):
        self.world, self.n, self.task = world, world.n, world.spec
        self.observe, self.subtasks = world.observe, world.subtasks

    def send(self, actions):
        """Send actions (n, A); the simulator bounds what its arms make of them."""
        self.world.step(actions)
        return actions

    def over(self):
        return self.world.done.copy()

    def outcome(self, i):
        """Success of copy i, or None where it was interrupted; successes of its stages."""
        w = self.world
        return (bool(w.success[i]) if w.done[i] else None), np.arange(len(w.spec.stages)) < w.stage[i]

    def hold(self):
        """Nothing to do: the time of a simulated world stands still between two steps."""


# ---------------------------------------------------------------- python hardware.py

def stand_still(observation, live, frozen=None):
    """A policy that stays where it is, for teleoperation.  -> chunk (n, 8, A)"""
    return np.repeat(observation["state"][:, None], 8, axis=1)


def report(run, robot, hz):
    """The figures of one run, as text.  Jitter: how far the time between two commands is from whole periods."""
    sent, waits, ms = np.array(run.sent_at), np.array(run.latencies or [0.0]), lambda seconds: f"{1e3 * seconds:.2f} ms"
    lines = [f"safety    {robot.clamped} of {robot.commands} commands clamped, {robot.rejected} rejected",
             f"policy    {len(run.latencies)} chunks, median {ms(np.median(waits))}, largest {ms(waits.max())}; "
             f"the arm stood for want of one in {run.stalls} steps"]
    if len(sent) > 1:
        periods = np.diff(sent) * hz
        jitter = np.abs(periods - np.maximum(np.round(periods), 1)) / hz
        lines = [f"rate      {(len(sent) + run.missed - 1) / (sent[-1] - sent[0]):.3f} Hz, {len(sent)} ticks, "
                 f"{run.missed} missed",
                 f"jitter    median {ms(np.median(jitter))}, 99.9th percentile {ms(np.quantile(jitter, 0.999))}, "
                 f"largest {ms(jitter.max())}", *lines]
    for e in run.episodes:
        lines += [f"operator  in control for {e.intervention.sum()} of {len(e)} steps",
                  f"outcome   {'not labelled' if e.success is None else 'success' if e.success else 'failure'}"]
    return "\n".join(lines + ([] if run.error is None else [f"ended by  {type(run.error).__name__}: {run.error}"]))


def load(name):
    """What module:function[:argument,...] returns; the module may lie in the current folder."""
    sys.path.insert(0, os.getcwd())
    module, function, *arguments = name.split(":", 2)
    return getattr(importlib.import_module(module), function)(*(arguments[0].split(",") if arguments else ()))


@dataclass
class Task:
    """What a real robot is to do."""
    name: str            # its id, as in `Episode`
    prompt: str          # ℓ_t in words
    max_steps: int       # the time limit, in ticks


def main(argv=None):
    parser = argparse.ArgumentParser(prog="hardware.py", description="Drive a bimanual robot and record its episodes.",
                                     epilog="How to connect a real robot: see the head of hardware.py.")
    parser.add_argument("--robot", default="sim:FoldShirt", help="sim:TASK or lerobot:module:function (default sim:FoldShirt)")
    parser.add_argument("--policy", help="module:function[:argument,...] (default: hasty in simulation, else it stands still)")
    parser.add_argument("--leader", help="module:function of the teleoperator of a real robot (default: the keyboard)")
    parser.add_argument("--keyboard", action="store_true", help="be the operator of the simulated robot yourself")
    parser.add_argument("--task", default="task:do the task:3000", help="of a real robot, as name:prompt:ticks")
    parser.add_argument("--hz", type=float, default=50.0, help="ticks per second (default 50)")
    parser.add_argument("--episodes", type=int, default=1, help="how many (default 1)")
    parser.add_argument("--seed", type=int, default=0, help="of the first simulated episode (default 0)")
    parser.add_argument("--out", help="dataset (.npz) to which every episode is saved as it ends")
    args = parser.parse_args(argv)
    kind, _, name = args.robot.partition(":")
    episodes = []
    try:
        if kind not in ("sim", "lerobot"):
            raise ValueError(f"--robot: {args.robot}, expected sim:TASK or lerobot:module:function")
        with ExitStack() as stack:
            if kind == "sim":
                bare = SimRobot(f"SimTasks/{name}-v0", args.seed)
                task, safety, policy = bare.task, Safety(**bare.limits), hasty
            else:
                bare, words = LeRobotRobot(load(name)), args.task.split(":")
                task, safety, policy = Task(words[0], words[1], int(words[2])), Safety(), stand_still
            policy = policy if args.policy is None else load(args.policy)
            robot = stack.enter_context(SafeRobot(bare, safety))
            person = None
            if args.leader is not None:
                person = stack.enter_context(LeaderArm(load(args.leader), robot.names))
            elif args.keyboard or kind == "lerobot":
                person = Person(robot, stack.enter_context(keyboard()))

            def begin(i):
                if kind == "sim":
                    bare.begin(args.seed + i)
                else:
                    input(f"episode {i + 1}: set the scene, then press enter ")
                if person is None:
                    return ScriptedOperator(bare.world, [args.seed + i])
                person.begin()
                return person
            station = Station(robot, task, bare if kind == "sim" else person)
            for run in record(station, begin, policy, args.episodes, execute=4, lead=2, hz=args.hz):
                episodes += run.episodes
                if args.out is not None:
                    save_dataset(episodes, args.out)
                print(report(run, robot, args.hz))
    except KeyboardInterrupt:
        print("hardware.py: interrupted, the robot holds", file=sys.stderr)
        return 130
    except Exception as error:             # whatever a robot, a bus or a policy raises: it was held on the way here
        print(f"hardware.py: error: {type(error).__name__}: {error}", file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
