"""The loop that runs a robot and records: observe, act, step.

    the plain loop, for simulated worlds           play
    the same on a clock, for one robot             drive, record
    a fixed rate (the paper: 50 Hz)                Clock, Pacer
    chunks a_{t:t+H}, ahead of their time          Chunks

Read `play` first.  `drive` adds what a real robot needs: a clock, chunks that are made in the
background while the last one is carried out, and an end that holds the robot whatever happens.
Nothing here learns: a policy is a callable, see `play` and `Chunks`.

How an episode of `drive` can end; the robot is held before anybody is asked for a label:
    over, or out of time                           Recording.episodes: the labelled episode
    policy or operator raised, command rejected,
    camera frozen, disconnected, emergency stop,
    Ctrl-C, sys.exit                               ... up to there; Recording.error: the reason
    "discard and redo"                             none; Recording.redo

Letters in shapes: n copies of a world side by side (of `drive` always one).
"""
import math
import threading
import time
from concurrent.futures import Future
from dataclasses import dataclass, field

import numpy as np
from tqdm import tqdm

from data import Episode

REDO = "redo"  # an outcome: discard the episode and do it again
PATIENCE_S = 10.0  # s that the end of an episode waits for a policy that is still computing
STOPS = (Exception, KeyboardInterrupt, SystemExit)  # what ends an episode, which is kept

class Log:
    """What happened, step by step: {name: list of arrays (n, ...)}."""

    def __init__(self, n):
        self.lengths = np.zeros(n, int)  # steps of each copy
        self.steps = {}

    def add(self, live, step):
        """One step of all.  live: bool (n,), who was not over yet.  step: {name: (n, ...)}."""
        self.lengths += live
        for name, x in step.items():
            self.steps.setdefault(name, []).append(np.array(x))

    def cut(self):
        """One {name: array (T, ...)} for each copy, up to its own end."""
        whole = {name: np.stack(x, axis=1) for name, x in self.steps.items()}  # (n, longest, ...)
        return [{name: x[i, :T] for name, x in whole.items()} for i, T in enumerate(self.lengths)]

def episode_of(steps, **rest):
    """The `Episode` of one copy.  steps: of `Log.cut`.  rest: the fields that are no arrays."""
    observations = dict(steps)
    known = {name: observations.pop(name) for name in ("actions", "subtask", "intervention")}
    return Episode(observations=observations, **known, **rest)

def play(world, act, execute, operator=None, source="autonomous", iteration=0, metadata=None):
    """One episode in each of the n copies of a world, side by side.

    world: as sim_tasks.arms.World.
    act: (observation {name: (n, ...)}, live bool (n,)) -> chunks (n, H, action_dim).
    execute: how many actions of a chunk are carried out, at most H.
    operator: may take over; wants_control(observation) -> bool (n,), act(observation) -> actions.
    source, iteration, metadata (n texts): as in `Episode`.
    Returns a list of n labelled episodes.
    """
    task = world.spec
    log = Log(world.n)
    taken = np.zeros(world.n, bool)  # who is in the operator's hands
    progress = tqdm(range(task.max_steps), "episodes", leave=False, disable=None, mininterval=0.5)
    for t in progress:
        live = ~world.done
        if not live.any():
            break
        # Observe.
        observation = world.observe()
        step = observation | {"subtask": world.subtasks()}
        # Act: a new chunk every `execute` steps.
        if t % execute == 0:
            chunk = act(observation, live)
            taken[:] = False  # the operator keeps a chunk to its end; now they decide anew
        actions = chunk[:, t % execute].copy()  # (n, action_dim)
        if operator is not None:
            taken |= operator.wants_control(observation)
            if taken.any():
                actions[taken] = operator.act(observation)[taken]
        # Step, and record what was sent and who decided it (Sec. IV-B makes I_t True there).
        actions = actions.astype(np.float32)
        world.step(actions)
        log.add(live, step | {"actions": actions, "intervention": taken})
    progress.close()
    last = world.observe()  # o_T: who is over stays as they are
    episodes = []
    for i, steps in enumerate(log.cut()):
        episode = episode_of(
            steps, task=task.name, prompt=str(world.prompts()[i]), max_length=task.max_steps,
            success=bool(world.success[i]), stages=np.arange(len(task.subtasks)) < world.stage[i],
            source=source, iteration=iteration, metadata=metadata[i] if metadata else "",
            hz=task.hz, last={name: x[i] for name, x in last.items()},
        )  # fmt: skip
        episodes.append(episode)
    return episodes

# ---------------------------------------------------------------- time

class Clock:
    """The wall clock, monotonic.  Simulated time is another object with these two methods."""

    def now(self):
        """Seconds."""
        return time.monotonic()

    def sleep_until(self, deadline):
        time.sleep(max(0.0, deadline - self.now()))

class Pacer:
    """A fixed rate without drift: tick k begins at start + k * period, however late others were.

    A tick that is late by a whole period or more is skipped, like all up to the next deadline,
    and counted in `missed`: no burst of commands makes up for them.
    """

    def __init__(self, hz, clock):
        if not 0 < hz < math.inf:
            raise ValueError(f"hz: {hz}, expected a finite number > 0")
        self.period = 1 / hz
        self.clock = clock
        self.k = 0
        self.missed = 0
        self.start = clock.now()

    def wait(self):
        """Sleep until the next tick."""
        self.k += 1
        late = (self.clock.now() - self.start) / self.period - self.k  # periods
        if late >= 1:
            self.k += math.ceil(late)
            self.missed += math.ceil(late)
        self.clock.sleep_until(self.start + self.k * self.period)

def at_once(call):
    """Call now.  Returns a finished Future."""
    future = Future()
    future.set_result(call())
    return future

def in_background(call):
    """Call in a daemon thread, which keeps no program alive.  Returns a Future."""
    future = Future()

    def work():
        try:
            future.set_result(call())
        except BaseException as error:  # raised again where the result is asked for
            future.set_exception(error)

    threading.Thread(target=work, daemon=True).start()
    return future

class Chunks:
    """The actions of a policy that predicts chunks, a new one in force every `execute` steps.

    policy: (observation {name: (1, ...)}, live bool (1,), frozen (1, lead, action_dim) or None)
    -> (1, H, action_dim), H >= execute + lead.

    lead = 0: a chunk is requested when it is needed.  With `at_once` the arm waits for it; else the
    old chunk goes on until it is there, and it is entered as late as it came.
    lead > 0, real-time chunking: it is requested `lead` steps ahead, is told the actions that will
    be carried out meanwhile (frozen), and comes into force with its entry `lead`.  If it is late,
    the old chunk is carried out to its end; then the arm stands (`next` returns None) until a
    chunk comes that is not over yet, or that was requested while standing.
    """

    def __init__(self, policy, execute, lead=0, start=at_once, now=time.monotonic):
        if not 0 <= lead < execute:
            raise ValueError(f"lead: {lead}, expected 0 to execute - 1 = {execute - 1}")
        self.policy = policy
        self.execute = execute
        self.lead = lead
        self.start = start
        self.now = now
        self.chunk = np.empty((0, 0, 0))  # (1, H, action_dim); none yet
        self.begin = 0  # the step of its entry 0
        self.since = 0  # the step at which it came into force
        self.request = None  # a Future of the next one ...
        self.requested_at = 0  # ... requested at this step ...
        self.standing = False  # ... while the arm stood
        self.fresh = False  # a chunk came into force in this step
        self.latencies = []  # s per chunk

    def next(self, t, observation, live, taken):
        """The action of step t, (1, action_dim); None where there is none.

        taken: bool (1,), the operator moves the robot instead.
        """
        entry = t - self.begin
        H = self.chunk.shape[1]
        if self.request is None and (entry >= H or t >= self.since + self.execute - self.lead):
            self.requested_at = t
            self.standing = entry >= H
            frozen = None
            # What will be done meanwhile; what an operator will do, nobody knows.
            if self.lead > 0 and not self.standing and not taken.any():
                frozen = self.chunk[:, entry : entry + self.lead].copy()
            self.request = self.start(lambda: self._timed(observation, live, frozen))
        self.fresh = False
        due = self.standing or t >= self.requested_at + self.lead
        first = H == 0  # the very first chunk is waited for
        if first or (self.request is not None and due and self.request.done()):
            self._come_into_force(t, len(live))
        entry = t - self.begin
        return self.chunk[:, entry].copy() if entry < self.chunk.shape[1] else None

    def _come_into_force(self, t, n):
        chunk = np.asarray(self.request.result())
        self.request = None
        least = self.execute + self.lead
        if chunk.ndim != 3 or len(chunk) != n or chunk.shape[1] < least:
            message = f"policy: chunk of shape {chunk.shape}, expected ({n}, {least} or more, A)"
            raise ValueError(message)
        # While the arm stood, the time of the chunk stood still.
        begin = t if self.standing else self.requested_at
        if t - begin < chunk.shape[1]:  # else too late: the next step requests another
            self.chunk = chunk
            self.begin = begin
            self.since = t
            self.fresh = True

    def settle(self, clock):
        """Wait for the call in flight.  TimeoutError after PATIENCE_S.

        Whatever it writes is then written, before the policy begins another episode, and no
        thread of ours is left computing when the program ends.
        """
        end = clock.now() + PATIENCE_S
        while self.request is not None and not self.request.done():
            if clock.now() >= end:
                raise TimeoutError(f"policy: still computing {PATIENCE_S:g} s after the episode")
            clock.sleep_until(clock.now() + 0.005)

    def _timed(self, *arguments):
        begun = self.now()
        chunk = self.policy(*arguments)
        self.latencies.append(self.now() - begun)
        return chunk

# ---------------------------------------------------------------- one robot in real time

@dataclass
class Recording:
    """What `drive` brings back."""

    episodes: list = field(default_factory=list)  # one, labelled; none: discarded, or no command
    error: BaseException | None = None  # what ended it early; the robot has been held
    redo: bool = False  # "discard and redo"
    sent_at: list = field(default_factory=list)  # s on the clock, of every command
    latencies: list = field(default_factory=list)  # s, of every chunk of the policy
    missed: int = 0  # ticks skipped
    stalls: int = 0  # steps at which there was no action and the arm stood

def drive(
    station, policy, execute, operator=None, hz=None, lead=0, clock=Clock(), start=None,
    source=None, iteration=0,
):  # fmt: skip
    """One episode of one robot.  What goes wrong is in Recording.error, not raised.

    station: a `hardware.Station`.  policy, execute, lead: as `Chunks`.  operator: as `play`.
    hz: ticks per second on `clock`; None is as fast as it goes.
    start: `at_once` or `in_background`; None is the latter in real time.
    source: as in `Episode`; None is "autonomous", or "corrected" with an operator.
    ValueError for a rate at which the limits of a real robot would mean other speeds.
    """
    if hz != station.task.hz and not station.simulated:
        raise ValueError(f"hz: {hz}, expected {station.task.hz} as the task and the Safety")
    if start is None:
        start = at_once if hz is None else in_background
    if source is None:
        source = "autonomous" if operator is None else "corrected"
    chunks = Chunks(policy, execute, lead, start, clock.now)
    recording = Recording()
    pacer = None
    log = Log(1)
    taken = np.zeros(1, bool)
    live = np.ones(1, bool)
    sent = None  # the last command, (1, action_dim)
    try:
        for t in range(station.task.max_steps):
            if station.over():
                break
            # Observe.
            observation = station.observe()  # {name: (1, ...)}
            step = observation | {"subtask": [station.subtask()]}
            # Act.
            actions = chunks.next(t, observation, live, taken)  # (1, action_dim)
            if actions is None:
                actions = sent.copy()  # stands where the last command left it
                recording.stalls += 1
            if operator is not None:
                wants = operator.wants_control(observation)
                before = taken
                taken = wants if chunks.fresh else wants | taken
                if (taken & ~before).any():
                    station.ease()
                if taken.any():
                    actions[taken] = operator.act(observation)[taken]
            # Step at the next tick; the first one begins now.
            if hz is not None and pacer is None:
                pacer = Pacer(hz, clock)
            sent = station.send(actions.astype(np.float32))
            recording.sent_at.append(clock.now())
            # Recorded once it was sent, and as it was sent.
            log.add(live, step | {"actions": sent, "intervention": taken})
            if pacer is not None:
                pacer.wait()
    except STOPS as error:
        recording.error = error
    finally:
        come_to_rest(recording, station, chunks, clock)
    recording.latencies = chunks.latencies
    recording.missed = 0 if pacer is None else pacer.missed
    if log.lengths[0] > 0:
        ask_for_label(recording, station, log, source=source, iteration=iteration)
    return recording

def come_to_rest(recording, station, chunks, clock):
    """Hold, and wait for the policy.  What goes wrong is in `recording`, if it is the first."""
    try:
        station.hold()
    except STOPS as error:  # disconnected: nothing left to hold
        recording.error = recording.error or error
    try:
        chunks.settle(clock)
    except STOPS as error:
        recording.error = recording.error or error

def ask_for_label(recording, station, log, **rest):
    """How did it go?  The answer fills `recording`.  rest: more fields of the `Episode`."""
    success = None  # not labelled
    stages = []
    try:
        # Who ends the program does not wait for an answer.
        if not isinstance(recording.error, SystemExit):
            success, stages = station.outcome()
    except STOPS as error:  # nobody there to say
        recording.error = recording.error or error
    if success is REDO:
        recording.redo = True
        return
    task = station.task
    (steps,) = log.cut()
    episode = episode_of(
        steps, task=task.name, prompt=station.prompt, max_length=task.max_steps,
        success=success, stages=np.array(stages, bool), hz=task.hz, **rest,
    )  # fmt: skip
    recording.episodes.append(episode)

def record(station, begin, policy, n, **how):
    """n episodes in a row: yields every `Recording` with an episode, to be saved at once.

    begin: begin(i) puts the scene of episode i back and returns the operator, or None.
    policy: one that keeps something from chunk to chunk, or reads ℓ_t, has begin(ℓ_t in words),
    called before each.
    how: arguments of `drive`.
    An error is raised after its recording was yielded; "redo" begins the same episode again.
    """
    for i in range(n):
        recording = Recording(redo=True)
        while recording.redo:
            operator = begin(i)
            if hasattr(policy, "begin"):
                policy.begin(station.prompt)
            recording = drive(station, policy, operator=operator, **how)
            if recording.episodes:
                yield recording
            if recording.error is not None:
                raise recording.error
