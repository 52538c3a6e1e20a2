"""Two planar arms with grippers, and the one implementation of the toy world's dynamics.

Stands for the paper's static bimanual station (Fig. 5): two 6-DoF arms with parallel grippers,
joint positions at 50 Hz.  Scaled down: 2 joints + gripper per arm, 10 Hz, a table seen from above.

A task is a chain of `Stage`s.  In each stage every active arm has a *handle* to grasp (its half of
the item) and a *goal* to release it at; the stage ends when both halves lie at their goals.  All
that a robot can do well or badly here it does through its actions:

  careless grasp   the gripper closes within GRASP_RADIUS of the handle, but not within
                   `good_radius`: an *edge* grasp.  It looks different (see `observe`), and slips
                   after SLIP_DISTANCE of carrying; the half springs back.  Slipping faster than the
                   stage's `safe_speed` throws the item off the table; carrying it faster than its
                   `spill_speed` spills it.  Either ends the episode.
  hesitation, pace every step costs time, and the time limit is tight
  wrong mode       with `wrong_goals`, there are two ways to do it; only one of them counts
  partial states   the arms' halves are separate: one may be done, dropped or wrong
                   while the other is not

Nothing is decided by dice: randomness lies in the initial state and in a small joint noise.

`World` steps n copies at once (arrays with leading axis n); the Gymnasium environments in `env.py`
are a World with n = 1.  Every copy has its own seed and does not notice the others: episode 17 is
the same episode alone or among a thousand.

A `Body` is a robot: lengths of links, mounts, speeds.  Its tasks are the same, its joint angles are
others.

Conventions: metres, radians, seconds = steps / CONTROL_HZ; gripper opening 0 (closed) to 1 (open).
The right arm is the mirror image of the left one, joint angles included: equal numbers are mirrored
poses.
"""

import difflib
from dataclasses import dataclass

import numpy as np

CONTROL_HZ = 10  # paper: 50 Hz
N_ARMS, N_JOINTS = 2, 2  # paper: 2 arms x 6 joints
ACTION_DIM = N_ARMS * (N_JOINTS + 1)
MIRROR = np.array([1.0, -1.0])  # local x axis of each arm: left +x, right -x
JOINT_NOISE = 0.003  # rad, standard deviation of the actuation noise
JOINT_LOW = np.array([-0.6, -2.9])  # shoulder, elbow; the elbows point outwards
JOINT_HIGH = np.array([3.2, -0.15])

GRASP_RADIUS = 0.075  # m: the gripper takes hold of the half
GOOD_RADIUS = 0.035  # m: ... and well, unless the stage has its own
SLIP_DISTANCE = 0.07  # m from where it was grasped: there an edge grasp slips
# m per step: slipping faster than this loses the item, unless the stage has its own
SAFE_SPEED = 0.026
RELEASE_RADIUS = 0.08  # m from the goal

NOTHING, EDGE, GOOD = 0, 1, 2  # World.hold
MAX_STAGES = 6
N_KEYPOINTS, KEYPOINT_DIM = 4, 11 + MAX_STAGES + 3

@dataclass(frozen=True)
class Body:
    """A bimanual robot (the paper pre-trains on many).  Order of pairs: left, right."""

    name: str
    links: tuple = ((0.45, 0.45), (0.45, 0.45))  # upper arm and forearm of each arm, m
    bases: tuple = ((-0.30, 0.0), (0.30, 0.0))  # where the arms are mounted, m
    joint_speed: float = 0.08  # rad per step (0.8 rad/s)
    gripper_speed: float = 0.5  # opening per step: closing takes two steps

STATIC = Body("static")
MOBILE = Body(
    "mobile",
    links=((0.42, 0.46), (0.42, 0.46)),
    bases=((-0.28, -0.07), (0.28, -0.07)),
    joint_speed=0.07,
)
LONG = Body(
    "long",
    links=((0.55, 0.48), (0.55, 0.48)),
    bases=((-0.38, -0.04), (0.38, -0.04)),
    gripper_speed=1.0,
)
LOPSIDED = Body(
    "lopsided",
    links=((0.45, 0.45), (0.52, 0.44)),
    bases=((-0.30, 0.0), (0.34, 0.04)),
    gripper_speed=0.25,
)
BODIES = {body.name: body for body in (STATIC, MOBILE, LONG, LOPSIDED)}

@dataclass(frozen=True)
class Stage:
    """One scored stage: where the halves are, where they go (left, right; m), who takes part."""

    subtask: str  # the text ℓ̂ that the policy learns to predict (Sec. V-A)
    handles: tuple
    goals: tuple
    arms: tuple = (True, True)
    wrong_goals: tuple | None = None  # the other way to do it, which does not count
    good_radius: float = GOOD_RADIUS  # m: closer than this to the handle is a good grasp
    safe_speed: float = SAFE_SPEED  # m per step: slipping faster than this loses the item
    spill_speed: float = np.inf  # m per step: carrying it faster than this spills it

@dataclass(frozen=True)
class Item:
    """A thing that a task can be about: it lies, is grasped and goes elsewhere than the others."""

    name: str
    stages: tuple  # subtasks, and who takes part, as in the others

@dataclass(frozen=True)
class TaskSpec:
    name: str  # the id to which ε_ℓ and the time limit belong
    # ℓ_t in words; the name of the item, if there are items, follows it (`World.prompts`)
    prompt: str
    # with items: those of the first, which differ from the others' only in where and how
    stages: tuple
    max_steps: int  # time limit in control steps; running out of time is a failure
    spread: float  # half-width of the uniform jitter of the handles, m
    goal_spread: float = 0.01
    items: tuple = ()  # one of them per episode
    # the item that policies are measured on; None: as the episodes draw them
    measured: str | None = None

def forward_kinematics(joints, body=STATIC):
    """Hand positions (..., 2, 2) [arm, xy] in m of joints (..., 2, 2) [arm, joint] in rad."""
    upper, fore = np.transpose(body.links)  # (arm,) each
    shoulder, forearm = joints[..., 0], joints[..., 0] + joints[..., 1]
    x = upper * (np.cos(shoulder) + fore / upper * np.cos(forearm))
    y = upper * (np.sin(shoulder) + fore / upper * np.sin(forearm))
    return np.stack([MIRROR * x, y], axis=-1) + body.bases  # (..., arm, xy)

def inverse_kinematics(hands, body=STATIC):
    """Closed-form inverse of `forward_kinematics` with the elbows outwards.

    hands: (..., 2, 2) [arm, xy] in m -> (..., 2, 2) [arm, joint] in rad.  Points out of reach are
    projected onto the reachable ring along the ray from the arm's base.

    e is the elbow's angle, a and b the lengths of the links.  Seen along the bisector of their two
    directions, the hand lies at ((a + b) cos e/2, (b - a) sin e/2); so r² = (a - b)² + 4ab cos²
    e/2.
    """
    upper, fore = np.transpose(body.links)  # (arm,) each
    mean = np.sqrt(upper * fore)
    local = hands - np.array(body.bases)
    x, y = MIRROR * local[..., 0], local[..., 1]
    r = np.hypot(x, y)
    span = np.sqrt(np.maximum(r * r - (upper - fore) ** 2, 0))  # 2 mean cos(elbow / 2)
    # elbow in [-2.9, -0.15]
    span = np.clip(span, 2 * mean * np.cos(1.45), 2 * mean * np.cos(0.075))
    elbow = -2 * np.arccos(span / (2 * mean))
    shoulder = np.arctan2(y, x) - elbow / 2  # equal links: the hand lies on the bisector
    if (upper != fore).any():
        shoulder = shoulder - np.arctan2(
            (fore - upper) * np.sin(elbow / 2), (upper + fore) * np.cos(elbow / 2)
        )
    return np.stack([shoulder, elbow], axis=-1)

def joint_offsets(joints, points, body=STATIC):
    """How far both arms' joints are from reaching points, rad: (n, P, 4), [left 2, right 2].

    joints: (n, 2, 2) [arm, joint] in rad; points: (n, P, 2) in m.
    """
    reach = inverse_kinematics(np.repeat(points[:, :, None], 2, axis=2), body)  # (n, P, arm, joint)
    return (reach - joints[:, None]).reshape(*points.shape[:2], 4)  # (n, P, arm*joint)

class World:
    """n independent copies of a task that step together.

    spec: the task; seeds: one int per copy (their number is n); body: the robot; item: the name of
    the item that all copies are about, None: each draws its own (ValueError if the task has no such
    item).  Arrays have leading axis n; the arm axis is [left, right].  Copies that are over
    (`done`) stay frozen until `reset`.
    """

    def __init__(self, spec, seeds, body=STATIC, item=None):
        self.spec, self.n, self.body = spec, len(seeds), body
        self.active = np.array([s.arms for s in spec.stages])  # (stages, arm)
        names = [one.name for one in spec.items]
        if item is not None and item not in names:
            near = difflib.get_close_matches(str(item), names, 1, cutoff=0) if names else []
            hint = (
                f", did you mean {near[0]!r}?  One of {', '.join(names)}"
                if near
                else f": {spec.name} has no items"
            )
            raise ValueError(f"item: {item!r}{hint}")
        self.only_item = None if item is None else names.index(item)
        self.reset(seeds)

    def reset(self, seeds):
        """Draw new initial states, one per seed, and each copy's noise."""
        if len(seeds) != self.n:
            raise ValueError(f"seeds: {len(seeds)}, expected one per copy, {self.n}")
        n, stages, items = self.n, self.spec.stages, self.spec.items
        jitter = np.empty((n, len(stages), 2, 2))
        goal_jitter, home = np.empty((n, 1, 1, 2)), np.empty((n, 2, 2))
        self.noise = np.empty((n, self.spec.max_steps, 2, 2))
        for i, seed in enumerate(seeds):
            rng = np.random.default_rng([20, seed])
            jitter[i] = rng.uniform(-1, 1, jitter.shape[1:]) * self.spec.spread
            goal_jitter[i] = rng.uniform(-1, 1, goal_jitter.shape[1:]) * self.spec.goal_spread
            home[i] = rng.uniform(-1, 1, (2, 2)) * 0.03
            self.noise[i] = rng.normal(0, JOINT_NOISE, self.noise.shape[1:])
        self.item = np.zeros(n, int)  # index into spec.items; 0, too, where there are none
        # from a stream of its own: the draws above know of no items
        if items and self.only_item is None:
            self.item[:] = [
                np.random.default_rng([22, seed]).integers(len(items)) for seed in seeds
            ]
        elif items:
            self.item[:] = self.only_item
        variants = [one.stages for one in items] or [stages]
        # (n, stages, ...)

        def of(field):
            """A field of every stage of every copy's item: (n, stages, ...)."""
            table = [[getattr(stage, field) for stage in stages] for stages in variants]
            return np.array(table)[self.item]

        self.handles0 = of("handles") + jitter  # (n, stages, arm, xy)
        self.goals = of("goals") + goal_jitter  # (n, stages, arm, xy)
        self.wrong_goals = None
        if stages[0].wrong_goals is not None:
            self.wrong_goals = of("wrong_goals") + goal_jitter
        self.good_radius, self.safe_speed, self.spill_speed = (
            of("good_radius"),
            of("safe_speed"),
            of("spill_speed"),
        )
        self.care = np.stack(
            [
                self.good_radius / GRASP_RADIUS,
                self.safe_speed / SAFE_SPEED,
                # (n, stages, 3), as it is observed
                SAFE_SPEED / self.spill_speed,
            ],
            -1,
        )
        home = np.array([[-0.25, 0.32], [0.25, 0.32]]) + home
        self.joints = inverse_kinematics(home, self.body)  # (n, arm, joint)
        self.grippers = np.ones((n, 2))
        self.t = np.zeros(n, int)
        self.stage = np.zeros(n, int)  # stages done so far
        self.done = np.zeros(n, bool)
        self.success = np.zeros(n, bool)
        self.timeout = np.zeros(n, bool)
        self.lost = np.zeros(n, bool)  # dropped off the table: cannot be recovered
        self.spilled = np.zeros(n, bool)  # carried too fast: cannot be recovered either
        self.wrong_mode = np.zeros(n, bool)  # ended in the way that does not count
        self.slips = np.zeros(n, int)
        self.mistakes = np.zeros(n, bool)  # something went wrong in the last step, see `step`
        # the halves (n, arm), put out anew at the beginning of each stage
        self.handles, self.grasped_at, self.carried = (
            np.zeros((n, 2, 2)),
            np.zeros((n, 2, 2)),
            np.zeros((n, 2)),
        )
        self.hold, self.attempts = np.zeros((n, 2), int), np.zeros((n, 2), int)
        self.placed, self.wrong = np.zeros((n, 2), bool), np.zeros((n, 2), bool)
        self._begin_stage(np.ones(n, bool))

    def begin_again(self, who, seeds):
        """New episodes for the copies in `who`, bool (n,); seeds: one for each of them."""
        fresh = World(self.spec, seeds, self.body)
        for name, x in vars(fresh).items():
            if isinstance(x, np.ndarray) and name != "active":  # all others have a leading axis n
                getattr(self, name)[who] = x

    def _begin_stage(self, who):
        """Put out the handles of the current stage for the copies in `who` (n,) bool."""
        rows, k = np.arange(self.n), self._current
        self.goal = self.goals[rows, k]  # (n, arm, xy)
        self.hold[who], self.carried[who] = NOTHING, 0.0
        self.attempts[who] = 0  # times that the gripper closed in this stage
        self.wrong[who] = False
        self.handles[who] = self.handles0[rows, k][who]
        # an arm without a part in the stage is done from the start
        self.placed[who] = ~self.active[k][who]

    @property
    def _current(self):
        """Index of the current stage (n,); of the last one when all are done."""
        return np.minimum(self.stage, len(self.spec.stages) - 1)

    @property
    def hands(self):
        """Hand positions (n, arm, xy) in m."""
        return forward_kinematics(self.joints, self.body)

    @property
    def failure(self):
        """Why an episode failed, (n,) texts: "dropped", "spilled", "wrong way", "time"; else ""."""
        return np.select(
            [self.lost, self.spilled, self.wrong_mode, self.timeout],
            ["dropped", "spilled", "wrong way", "time"],
            "",
        )

    def prompts(self):
        """ℓ_t of every copy, (n,) texts: the task's, and the name of its item if it has items."""
        texts = [f"{self.spec.prompt} {item.name}" for item in self.spec.items] or [
            self.spec.prompt
        ]
        return np.array(texts)[self.item]

    def subtasks(self):
        """The subtask texts (n,) that an annotator would write under the current frames."""
        names = np.array([s.subtask for s in self.spec.stages])
        return names[self._current]

    def observe(self):
        """{"state": (n, 6), "keypoints": (n, 4, 20)}, float32, fresh arrays.

        state      [left joints, left gripper, right joints, right gripper]
        keypoints what a perfect detector would see; rows [left handle, right handle, left goal,
        right goal], columns
                   0:2    position on the table (base camera), m
                   2:4    how far the left arm's joints are from reaching it (wrist camera), rad
                   4:6    ... the right arm's
                   6      in play: the arm has a part in this stage
                   7, 8   held by the edge, held well
                   9      distance from where it was grasped / SLIP_DISTANCE (edge grasps only)
                   10     released at its goal or at the wrong one, or not in play
                   11:17  what the item looks like: one-hot of the stages done so far
                   17     how exactly it wants to be grasped: good_radius / GRASP_RADIUS
                   18     how slowly it may slip: safe_speed / SAFE_SPEED
                   19     how full it is: SAFE_SPEED / spill_speed, 0: nothing to spill
        No velocities and no clock: the observation is the state of the world, as footnote 1 of the
        paper asks (but for the time limit, which V cannot see coming).
        """
        n, k = self.n, self._current
        # (n, 2*(2+1))
        state = np.concatenate([self.joints, self.grippers[..., None]], -1).reshape(n, ACTION_DIM)
        points = np.concatenate([self.handles, self.goal], axis=1)  # (n, 4, xy)
        reach = joint_offsets(self.joints, points, self.body)  # (n, 4, arm*joint)
        in_play = np.tile(self.active[k], 2)[..., None]  # (n, 4, 1)
        edge = self.hold == EDGE
        status = np.stack(
            [edge, self.hold == GOOD, edge * self.carried / SLIP_DISTANCE, self.placed], -1
        )
        status = np.concatenate([status, np.zeros((n, 2, 4))], axis=1)  # (n, 4, 4)
        # (n, 6 + 3)
        look = np.concatenate([np.eye(MAX_STAGES)[k], self.care[np.arange(n), k]], axis=-1)
        look = np.repeat(look[:, None], 4, axis=1)  # (n, 4, 9)
        keypoints = np.concatenate([points, reach, in_play, status, look], axis=-1)  # (n, 4, 20)
        return {"state": state.astype(np.float32), "keypoints": keypoints.astype(np.float32)}

    def step(self, actions):
        """Move every copy that is not done by one control step.

        actions (n, 6): joint targets (rad, absolute) and gripper openings, [left 2 + 1, right 2 +
        1].  Targets beyond the limits are clipped, the motion towards them is bounded by the body's
        joint_speed. Afterwards `mistakes` (n,) marks the copies in which something went wrong in
        this very step: an edge grasp was taken, a half slipped, was released elsewhere than at its
        goal, or dropped or spilled for good. Raises ValueError on a wrong shape or a value that is
        not finite.
        """
        actions = np.asarray(actions, dtype=float)
        if actions.shape != (self.n, ACTION_DIM):
            raise ValueError(f"actions: shape {actions.shape}, expected ({self.n}, {ACTION_DIM})")
        if not np.isfinite(actions).all():
            raise ValueError(
                f"actions: {actions[~np.isfinite(actions)][0]} in copy "
                f"{int(np.argwhere(~np.isfinite(actions))[0, 0])}, expected finite numbers"
            )
        live = ~self.done  # (n,)
        command = actions.reshape(self.n, 2, N_JOINTS + 1)  # (n, arm, joints + gripper)

        # 1. the arms move
        before = self.hands
        target = np.clip(command[..., :N_JOINTS], JOINT_LOW, JOINT_HIGH)
        motion = np.clip(target - self.joints, -self.body.joint_speed, self.body.joint_speed)
        motion += self.noise[np.arange(self.n), np.minimum(self.t, self.spec.max_steps - 1)]
        self.joints = np.where(
            live[:, None, None], np.clip(self.joints + motion, JOINT_LOW, JOINT_HIGH), self.joints
        )
        was_open = self.grippers >= 0.5
        opening = np.clip(command[..., N_JOINTS], 0, 1) - self.grippers
        opening = np.clip(opening, -self.body.gripper_speed, self.body.gripper_speed)
        self.grippers = np.where(live[:, None], self.grippers + opening, self.grippers)
        is_open = self.grippers >= 0.5
        hands = self.hands
        speed = np.linalg.norm(hands - before, axis=-1)  # (n, arm), m per step

        # 2. what is held moves along; an edge grasp slips, what is full spills
        rows, k = np.arange(self.n), self._current
        held = (self.hold != NOTHING) & live[:, None]
        self.handles += np.where(held[..., None], hands - before, 0)
        self.carried = np.where(
            held, np.linalg.norm(self.handles - self.grasped_at, axis=-1), self.carried
        )
        slip = held & (self.hold == EDGE) & (self.carried > SLIP_DISTANCE)
        self.lost |= (slip & (speed > self.safe_speed[rows, k, None])).any(1)
        self.spilled |= (held & (speed > self.spill_speed[rows, k, None])).any(1) & ~self.lost
        self.slips += slip.sum(1)

        # 3. opening releases: at the goal (or at the wrong one); anywhere else the half springs
        # back, too
        released = held & ~slip & is_open
        at_goal = np.linalg.norm(self.handles - self.goal, axis=-1) < RELEASE_RADIUS
        if self.wrong_goals is not None:
            at_wrong = (
                np.linalg.norm(self.handles - self.wrong_goals[rows, k], axis=-1) < RELEASE_RADIUS
            )
            self.wrong |= released & at_wrong
        self.placed |= released & (at_goal | self.wrong)
        astray = released & (~self.placed | self.wrong)
        back = slip | (released & ~self.placed)
        self.handles[back] = self.handles0[rows, k][back]
        self.hold[slip | released] = NOTHING

        # 4. closing grasps: well, by the edge, or nothing at all
        closes = was_open & ~is_open & live[:, None] & self.active[k]
        graspable = closes & (self.hold == NOTHING) & (~self.placed | self.wrong)
        distance = np.linalg.norm(hands - self.handles, axis=-1)
        taken = graspable & (distance < GRASP_RADIUS)
        self.hold[taken] = np.where((distance < self.good_radius[rows, k, None])[taken], GOOD, EDGE)
        # a half at the wrong place may be taken back
        self.placed[taken], self.wrong[taken] = False, False
        self.carried[taken], self.grasped_at[taken] = 0.0, self.handles[taken]
        self.attempts += closes
        edge = taken & (self.hold == EDGE)
        self.mistakes = (slip | astray | edge).any(1) | (live & (self.lost | self.spilled))

        # 5. stages, and the end of the episode
        self.t += live
        stage_over = live & self.placed.all(1) & ~self.lost & ~self.spilled
        self.wrong_mode |= stage_over & self.wrong.any(1)
        advance = stage_over & ~self.wrong.any(1)
        self.stage += advance
        self.success |= advance & (self.stage == len(self.spec.stages))
        over = self.success | self.lost | self.spilled | self.wrong_mode
        self.timeout |= live & ~over & (self.t >= self.spec.max_steps)
        self.done |= over | self.timeout
        begin = advance & ~self.done
        if begin.any():
            self._begin_stage(begin)
