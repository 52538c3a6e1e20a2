"""Two planar arms with grippers, and the one implementation of the toy world's dynamics.

Stands for the paper's static bimanual station (Fig. 5): two 6-DoF arms with parallel grippers, joint
positions at 50 Hz.  Scaled down: 2 joints + gripper per arm, 10 Hz, a table seen from above.

A task is a chain of `Stage`s.  In each stage every active arm has a *handle* to grasp (its half of the
item) and a *goal* to release it at; the stage ends when both halves lie at their goals.  All that a robot
can do well or badly here it does through its actions:

  careless grasp   the gripper closes within GRASP_RADIUS of the handle, but not within GOOD_RADIUS: an *edge*
                   grasp.  It looks different (see `observe`), and slips after SLIP_DISTANCE of carrying;
                   the half springs back.  Slipping faster than SAFE_SPEED throws the item off the table.
  hesitation, pace every step costs time, and the time limit is tight
  wrong mode       with `wrong_goals`, there are two ways to do it; only one of them counts
  partial states   the arms' halves are separate: one may be done, dropped or wrong while the other is not

Nothing is decided by dice: randomness lies in the initial state and in a small joint noise.

`World` steps n copies at once (arrays with leading axis n); the Gymnasium environments in `env.py` are a
World with n = 1.  Every copy has its own seed and does not notice the others: episode 17 is the same episode
alone or among a thousand.

Conventions: metres, radians, seconds = steps / CONTROL_HZ; gripper opening 0 (closed) to 1 (open).  The right
arm is the mirror image of the left one, joint angles included: equal numbers are mirrored poses.
"""
from dataclasses import dataclass

import numpy as np

CONTROL_HZ = 10            # paper: 50 Hz
N_ARMS, N_JOINTS = 2, 2    # paper: 2 arms x 6 joints
ACTION_DIM = N_ARMS * (N_JOINTS + 1)
LINK = 0.45                # both links of both arms, m
BASES = np.array([[-0.30, 0.0], [0.30, 0.0]])    # left, right, m
MIRROR = np.array([1.0, -1.0])                   # local x axis of each arm: left +x, right -x
JOINT_SPEED = 0.08         # rad per step (0.8 rad/s)
GRIPPER_SPEED = 0.5        # opening per step: closing takes two steps
JOINT_NOISE = 0.003        # rad, standard deviation of the actuation noise
JOINT_LOW = np.array([-0.6, -2.9])    # shoulder, elbow; the elbows point outwards
JOINT_HIGH = np.array([3.2, -0.15])

GRASP_RADIUS = 0.075       # m: the gripper takes hold of the half
GOOD_RADIUS = 0.035        # m: ... and well
SLIP_DISTANCE = 0.07       # m from where it was grasped: there an edge grasp slips
SAFE_SPEED = 0.026         # m per step: slipping faster than this loses the item
RELEASE_RADIUS = 0.06      # m from the goal

NOTHING, EDGE, GOOD = 0, 1, 2      # World.hold
MAX_STAGES = 6
N_KEYPOINTS, KEYPOINT_DIM = 4, 11 + MAX_STAGES


@dataclass(frozen=True)
class Stage:
    """One scored stage: where the halves are, where they go (left, right; metres), who takes part."""
    subtask: str                           # the text ℓ̂ that the policy learns to predict (Sec. V-A)
    handles: tuple
    goals: tuple
    arms: tuple = (True, True)
    wrong_goals: tuple | None = None       # the other way to do it, which does not count


@dataclass(frozen=True)
class TaskSpec:
    name: str            # the id to which ε_ℓ and the time limit belong
    prompt: str          # ℓ_t in words
    stages: tuple
    max_steps: int       # time limit in control steps; running out of time is a failure
    spread: float        # half-width of the uniform jitter of the handles, m
    goal_spread: float = 0.01


def forward_kinematics(joints):
    """Hand positions of both arms.  joints: (..., 2, 2) [arm, joint] in rad -> (..., 2, 2) [arm, xy] in m."""
    shoulder, forearm = joints[..., 0], joints[..., 0] + joints[..., 1]
    x = LINK * (np.cos(shoulder) + np.cos(forearm))
    y = LINK * (np.sin(shoulder) + np.sin(forearm))
    return np.stack([MIRROR * x, y], axis=-1) + BASES    # (..., arm, xy)


def inverse_kinematics(hands):
    """Closed-form inverse of `forward_kinematics` with the elbows outwards.

    hands: (..., 2, 2) [arm, xy] in m -> (..., 2, 2) [arm, joint] in rad.  Points out of reach are projected
    onto the reachable ring along the ray from the arm's base.
    """
    local = hands - BASES
    x, y = MIRROR * local[..., 0], local[..., 1]
    reach = np.clip(np.hypot(x, y), 2 * LINK * np.cos(1.45), 2 * LINK * np.cos(0.075))   # elbow in [-2.9, -0.15]
    elbow = -2 * np.arccos(reach / (2 * LINK))    # equal links: r = 2 L cos(elbow / 2)
    shoulder = np.arctan2(y, x) - elbow / 2       # ... and the hand lies on the bisector
    return np.stack([shoulder, elbow], axis=-1)


def joint_offsets(joints, points):
    """How far both arms' joints are from reaching points, rad: (n, P, 4), [left 2, right 2].

    joints: (n, 2, 2) [arm, joint] in rad; points: (n, P, 2) in m.
    """
    reach = inverse_kinematics(np.repeat(points[:, :, None], 2, axis=2))    # (n, P, arm, joint)
    return (reach - joints[:, None]).reshape(*points.shape[:2], 4)          # (n, P, arm*joint)


class World:
    """n independent copies of a task that step together.

    spec: the task; seeds: one int per copy (their number is n).  Arrays have leading axis n; the arm axis is
    [left, right].  Copies that are over (`done`) stay frozen until `reset`.
    """

    def __init__(self, spec, seeds):
        self.spec, self.n = spec, len(seeds)
        self.active = np.array([s.arms for s in spec.stages])               # (stages, arm)
        self.reset(seeds)

    def reset(self, seeds):
        """Draw new initial states, one per seed.  Each copy's noise is drawn here, from its own seed."""
        if len(seeds) != self.n:
            raise ValueError(f"seeds: {len(seeds)}, expected one per copy, {self.n}")
        n, stages = self.n, self.spec.stages
        jitter = np.empty((n, len(stages), 2, 2))
        goal_jitter, home = np.empty((n, 1, 1, 2)), np.empty((n, 2, 2))
        self.noise = np.empty((n, self.spec.max_steps, 2, 2))
        for i, seed in enumerate(seeds):
            rng = np.random.default_rng([20, seed])
            jitter[i] = rng.uniform(-1, 1, jitter.shape[1:]) * self.spec.spread
            goal_jitter[i] = rng.uniform(-1, 1, goal_jitter.shape[1:]) * self.spec.goal_spread
            home[i] = rng.uniform(-1, 1, (2, 2)) * 0.03
            self.noise[i] = rng.normal(0, JOINT_NOISE, self.noise.shape[1:])
        self.handles0 = np.array([s.handles for s in stages]) + jitter      # (n, stages, arm, xy)
        self.goals = np.array([s.goals for s in stages]) + goal_jitter      # (n, stages, arm, xy)
        self.wrong_goals = None
        if stages[0].wrong_goals is not None:
            self.wrong_goals = np.array([s.wrong_goals for s in stages]) + goal_jitter
        self.joints = inverse_kinematics(np.array([[-0.25, 0.32], [0.25, 0.32]]) + home)   # (n, arm, joint)
        self.grippers = np.ones((n, 2))
        self.t = np.zeros(n, int)
        self.stage = np.zeros(n, int)              # stages done so far
        self.done = np.zeros(n, bool)
        self.success = np.zeros(n, bool)
        self.timeout = np.zeros(n, bool)
        self.lost = np.zeros(n, bool)              # thrown off the table: cannot be recovered
        self.wrong_mode = np.zeros(n, bool)        # ended in the way that does not count
        self.slips = np.zeros(n, int)
        # the halves (n, arm), put out anew at the beginning of each stage
        self.handles, self.grasped_at, self.carried = np.zeros((n, 2, 2)), np.zeros((n, 2, 2)), np.zeros((n, 2))
        self.hold, self.attempts = np.zeros((n, 2), int), np.zeros((n, 2), int)
        self.placed, self.wrong = np.zeros((n, 2), bool), np.zeros((n, 2), bool)
        self._begin_stage(np.ones(n, bool))

    def _begin_stage(self, who):
        """Put out the handles of the current stage for the copies in `who` (n,) bool."""
        rows, k = np.arange(self.n), self._current
        self.goal = self.goals[rows, k]                                     # (n, arm, xy)
        self.hold[who], self.carried[who] = NOTHING, 0.0
        self.attempts[who] = 0                      # times that the gripper closed in this stage
        self.wrong[who] = False
        self.handles[who] = self.handles0[rows, k][who]
        self.placed[who] = ~self.active[k][who]     # an arm without a part in the stage is done from the start

    @property
    def _current(self):
        """Index of the current stage (n,); of the last one when all are done."""
        return np.minimum(self.stage, len(self.spec.stages) - 1)

    @property
    def hands(self):
        """Hand positions (n, arm, xy) in m."""
        return forward_kinematics(self.joints)

    def subtasks(self):
        """The subtask texts (n,) that an annotator would write under the current frames."""
        names = np.array([s.subtask for s in self.spec.stages])
        return names[self._current]

    def observe(self):
        """{"state": (n, 6), "keypoints": (n, 4, 17)}, float32, fresh arrays.

        state      [left joints, left gripper, right joints, right gripper]
        keypoints  what a perfect detector would see; rows [left handle, right handle, left goal, right goal], columns
                   0:2    position on the table (base camera), m
                   2:4    how far the left arm's joints are from reaching it (wrist camera, calibrated), rad
                   4:6    ... the right arm's
                   6      in play: the arm has a part in this stage
                   7, 8   held by the edge, held well
                   9      distance from where it was grasped / SLIP_DISTANCE (edge grasps only)
                   10     released at its goal or at the wrong one, or not in play
                   11:17  what the item looks like: one-hot of the stages done so far
        No velocities and no clock: the observation is the state of the world, as footnote 1 of the paper asks (but for
        the time limit, which V cannot see coming).
        """
        n, k = self.n, self._current
        state = np.concatenate([self.joints, self.grippers[..., None]], -1).reshape(n, ACTION_DIM)   # (n, 2*(2+1))
        points = np.concatenate([self.handles, self.goal], axis=1)                                   # (n, 4, xy)
        reach = joint_offsets(self.joints, points)                                                   # (n, 4, arm*joint)
        in_play = np.tile(self.active[k], 2)[..., None]                                              # (n, 4, 1)
        edge = self.hold == EDGE
        status = np.stack([edge, self.hold == GOOD, edge * self.carried / SLIP_DISTANCE, self.placed], -1)
        status = np.concatenate([status, np.zeros((n, 2, 4))], axis=1)                               # (n, 4, 4)
        look = np.repeat(np.eye(MAX_STAGES)[k][:, None], 4, axis=1)                                  # (n, 4, 6)
        keypoints = np.concatenate([points, reach, in_play, status, look], axis=-1)                   # (n, 4, 17)
        return {"state": state.astype(np.float32), "keypoints": keypoints.astype(np.float32)}

    def step(self, actions):
        """Move every copy that is not done by one control step.

        actions (n, 6): joint targets (rad, absolute) and gripper openings, [left 2 + 1, right 2 + 1].  Targets
        beyond the limits are clipped, the motion towards them is bounded by JOINT_SPEED.
        Raises ValueError on a wrong shape or a value that is not finite.
        """
        actions = np.asarray(actions, dtype=float)
        if actions.shape != (self.n, ACTION_DIM):
            raise ValueError(f"actions: shape {actions.shape}, expected ({self.n}, {ACTION_DIM})")
        if not np.isfinite(actions).all():
            raise ValueError(f"actions: {actions[~np.isfinite(actions)][0]} in copy "
                             f"{int(np.argwhere(~np.isfinite(actions))[0, 0])}, expected finite numbers")
        live = ~self.done                                           # (n,)
        command = actions.reshape(self.n, 2, N_JOINTS + 1)          # (n, arm, joints + gripper)

        # 1. the arms move
        before = self.hands
        target = np.clip(command[..., :N_JOINTS], JOINT_LOW, JOINT_HIGH)
        motion = np.clip(target - self.joints, -JOINT_SPEED, JOINT_SPEED)
        motion += self.noise[np.arange(self.n), np.minimum(self.t, self.spec.max_steps - 1)]
        self.joints = np.where(live[:, None, None], np.clip(self.joints + motion, JOINT_LOW, JOINT_HIGH), self.joints)
        was_open = self.grippers >= 0.5
        opening = np.clip(command[..., N_JOINTS], 0, 1) - self.grippers
        opening = np.clip(opening, -GRIPPER_SPEED, GRIPPER_SPEED)
        self.grippers = np.where(live[:, None], self.grippers + opening, self.grippers)
        is_open = self.grippers >= 0.5
        hands = self.hands
        speed = np.linalg.norm(hands - before, axis=-1)             # (n, arm), m per step

        # 2. what is held moves along; an edge grasp slips
        held = (self.hold != NOTHING) & live[:, None]
        self.handles += np.where(held[..., None], hands - before, 0)
        self.carried = np.where(held, np.linalg.norm(self.handles - self.grasped_at, axis=-1), self.carried)
        slip = held & (self.hold == EDGE) & (self.carried > SLIP_DISTANCE)
        self.lost |= (slip & (speed > SAFE_SPEED)).any(1)
        self.slips += slip.sum(1)
        rows, k = np.arange(self.n), self._current

        # 3. opening releases: at the goal (or at the wrong one); anywhere else the half springs back, too
        released = held & ~slip & is_open
        at_goal = np.linalg.norm(self.handles - self.goal, axis=-1) < RELEASE_RADIUS
        if self.wrong_goals is not None:
            at_wrong = np.linalg.norm(self.handles - self.wrong_goals[rows, k], axis=-1) < RELEASE_RADIUS
            self.wrong |= released & at_wrong
        self.placed |= released & (at_goal | self.wrong)
        back = slip | (released & ~self.placed)
        self.handles[back] = self.handles0[rows, k][back]
        self.hold[slip | released] = NOTHING

        # 4. closing grasps: well, by the edge, or nothing at all
        closes = was_open & ~is_open & live[:, None] & self.active[k]
        graspable = closes & (self.hold == NOTHING) & (~self.placed | self.wrong)
        distance = np.linalg.norm(hands - self.handles, axis=-1)
        taken = graspable & (distance < GRASP_RADIUS)
        self.hold[taken] = np.where(distance[taken] < GOOD_RADIUS, GOOD, EDGE)
        self.placed[taken], self.wrong[taken] = False, False        # a half at the wrong place may be taken back
        self.carried[taken], self.grasped_at[taken] = 0.0, self.handles[taken]
        self.attempts += closes

        # 5. stages, and the end of the episode
        self.t += live
        stage_over = live & self.placed.all(1) & ~self.lost
        self.wrong_mode |= stage_over & self.wrong.any(1)
        advance = stage_over & ~self.wrong.any(1)
        self.stage += advance
        self.success |= advance & (self.stage == len(self.spec.stages))
        over = self.success | self.lost | self.wrong_mode
        self.timeout |= live & ~over & (self.t >= self.spec.max_steps)
        self.done |= over | self.timeout
        begin = advance & ~self.done
        if begin.any():
            self._begin_stage(begin)
