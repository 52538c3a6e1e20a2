"""Many copies of one scene of your own, operators of any quality out of its expert, and a coach.

A scene is one copy of a task:

    reset(seed)           a new episode; all chance comes from the seed
    observe()             {"state": (S,), "keypoints": (P, C), or images uint8 (h, w, 3)}
    step(action)          one control step; action: float (action_dim,)
    stage                 stages done so far: success when they are all
    lost                  cannot be recovered any more: the episode ends as a failure
    expert()              optional: the action that an expert takes now, by the state alone
    remaining()           optional: how far this stage is from done; the coach sees stalls by it

The state's first numbers are where the action's are wanted: an action is a target for them (but
for `Task.absolute` ones).  Numbers should be of the order of 1.
"""

from dataclasses import dataclass

import numpy as np

from .errors import UserError

STALL_S = 1.2  # without progress for so long, the coach takes over

class SceneError(UserError):
    """A scene that does not keep to its own interface: names the task, what and where."""

class Copies:
    """n copies of a scene that step together.  task: a `Task`; seeds: one per copy.

    Copies that are over (`done`) stay as they are.  Arrays have leading axis n.
    """

    def __init__(self, task, seeds):
        self.spec = task
        self.seeds = list(seeds)
        self.n = len(self.seeds)
        self.scenes = [task.scene() for _ in self.seeds]
        for scene, seed in zip(self.scenes, self.seeds):
            if not hasattr(scene, "reset"):
                raise self._error("scene: has no 'reset', expected one")
            scene.reset(seed)
            for name in ("stage", "lost", "observe", "step"):
                if not hasattr(scene, name):
                    raise self._error(f"scene: has no {name!r} after reset(seed), expected one")
        self.t = np.zeros(self.n, int)
        self.stage = np.zeros(self.n, int)  # stages done so far
        self.done = np.zeros(self.n, bool)
        self.success = np.zeros(self.n, bool)
        self.timeout = np.zeros(self.n, bool)
        self.shapes = None  # of an observation: they must not change

    def observe(self):
        """{name: array (n, ...)}, fresh; numbers as float32, images as uint8."""
        seen = [self._checked(scene.observe()) for scene in self.scenes]
        return {name: np.stack([one[name] for one in seen]) for name in seen[0]}

    def _checked(self, observation):
        found = {}
        for name, x in observation.items():
            x = np.array(x)
            found[name] = x if x.dtype == np.uint8 else x.astype(np.float32)
            if not np.isfinite(found[name]).all():
                when = f"after {self.t.max()} steps"
                raise self._error(f"observe: {name} is not finite {when}, expected numbers")
        if "state" not in found:
            raise self._error("observe: no 'state', expected where the robot is")
        shapes = {name: x.shape for name, x in found.items()}
        self.shapes = self.shapes or shapes
        if shapes != self.shapes:
            raise self._error(f"observe: shapes {shapes}, expected {self.shapes} as before")
        return found

    def _error(self, text):
        return SceneError(f"task {self.spec.name!r}, {text}")

    def step(self, actions):
        """Every copy that is not over takes one control step.  actions: (n, action_dim)."""
        actions = np.asarray(actions, float)
        expected = (self.n, self.spec.action_dim)
        if actions.shape != expected:
            raise self._error(f"actions: shape {actions.shape}, expected {expected}")
        if not np.isfinite(actions).all():
            raise self._error("actions: not finite, expected numbers")
        for i in np.flatnonzero(~self.done):
            scene = self.scenes[i]
            scene.step(actions[i])
            self.t[i] += 1
            self.stage[i] = scene.stage
            self.success[i] = scene.stage >= len(self.spec.subtasks)
            self.timeout[i] = self.t[i] >= self.spec.max_steps and not self.success[i]
            self.done[i] = self.success[i] or scene.lost or self.timeout[i]

    def prompts(self):
        """ℓ_t of every copy, (n,) texts."""
        return np.array([self.spec.prompt] * self.n)

    def subtasks(self):
        """What an annotator would write under the current frames, (n,) texts."""
        last = len(self.spec.subtasks) - 1
        return np.array(self.spec.subtasks)[np.minimum(self.stage, last)]

    def experts(self):
        """What the expert would do now in each copy, (n, action_dim); zeros where it is over."""
        actions = np.zeros((self.n, self.spec.action_dim))
        for i in np.flatnonzero(~self.done):
            action = np.asarray(self.scenes[i].expert(), float)
            if action.shape != actions[i].shape:
                expected = f"({self.spec.action_dim},), the task's action_dim"
                raise self._error(f"expert: shape {action.shape}, expected {expected}")
            if not np.isfinite(action).all():
                raise self._error(f"expert: not finite at step {self.t[i]}, expected numbers")
            actions[i] = action
        return actions

# ---------------------------------------------------------------- operators out of the expert

@dataclass(frozen=True)
class Skill:
    """How far an operator is from the expert; chance is drawn per episode or as named."""

    paces: tuple = (0.25, 0.5, 1.0)  # share of Task.speed, a cap; drawn per stage
    pace_p: tuple = (0.4, 0.4, 0.2)
    pause: float = 0.04  # P(a pause of 3 to 7 steps begins) per step
    careful: float = 0.5  # P(careful) for the next CARE_STEPS; else:
    error: float = 0.02  # ... how far beside the targets, standard deviation (rad)
    loose: float = 0.4  # ... how far a gripper stays from what is wanted, 1 is half open

CARE_STEPS = 25
SKILLS = {
    "mixed": Skill(),
    "good": Skill(pace_p=(0.3, 0.5, 0.2), pause=0.03, careful=0.75),
    "best": Skill(paces=(1.0,), pace_p=(1.0,), pause=0.0, careful=1.0),
    # corrections are careful, but not fast
    "coach": Skill(paces=(0.5,), pace_p=(1.0,), pause=0.0, careful=1.0),
}

class Operator:
    """An operator of any quality, one per copy.  skill: a name of SKILLS, or of Task.skills."""

    def __init__(self, world, seeds, skill):
        task = world.spec
        skill = (SKILLS | (task.skills or {}))[skill]
        n_stages = len(task.subtasks)
        n_cares = -(-task.max_steps // CARE_STEPS)
        self.skill = skill
        self.relative = ~np.isin(range(task.action_dim), absolute_entries(task))
        self.pace = np.empty((world.n, n_stages))
        self.careless = np.empty((world.n, n_cares), bool)
        self.error = np.empty((world.n, n_cares, task.action_dim))
        self.pausing = np.zeros((world.n, task.max_steps), bool)
        for i, seed in enumerate(seeds):  # all chance comes from the copy's own seed
            rng = np.random.default_rng([31, seed])
            self.pace[i] = rng.choice(skill.paces, n_stages, p=skill.pace_p)
            self.careless[i] = rng.random(n_cares) >= skill.careful
            self.error[i] = rng.normal(0, skill.error, self.error.shape[1:])
            for t in np.flatnonzero(rng.random(task.max_steps) < skill.pause):
                self.pausing[i, t : t + rng.integers(3, 8)] = True
        self.fast = self.pace.mean(1) >= np.mean(skill.paces)
        self.last = None  # the last actions, (n, action_dim): a pause keeps their grippers

    def metadata(self):
        """s in words (Sec. V-A), one text per copy."""
        texts = []
        for fast, careless in zip(self.fast, self.careless.mean(1) > 0.4):
            pace = "fast" if fast else "slow"
            texts.append(f"{pace} {'careless' if careless else 'careful'}")
        return texts

    def act(self, world):
        """Actions (n, action_dim) for the state that the world is in."""
        rows = np.arange(world.n)
        wanted = world.experts()
        t = np.minimum(world.t, world.spec.max_steps - 1)
        stage = np.minimum(world.stage, len(world.spec.subtasks) - 1)
        state = world.observe()["state"].astype(float)
        relative = self.relative
        here = np.zeros_like(wanted)
        here[:, relative] = state[:, np.flatnonzero(relative)]
        # Careless: beside the target, with a loose grip.
        careless = self.careless[rows, t // CARE_STEPS][:, None]  # (n, 1)
        motion = wanted - here + careless * self.error[rows, t // CARE_STEPS]
        grip = wanted + careless * self.skill.loose * (0.5 - wanted)
        # Slow: each arm's largest motion has a cap.
        motion = np.where(relative, motion, 0).reshape(world.n, world.spec.n_arms, -1)
        largest = np.abs(motion).max(2, keepdims=True)  # (n, arm, 1)
        cap = world.spec.speed * self.pace[rows, stage][:, None, None]
        motion = motion * np.minimum(1, cap / np.maximum(largest, 1e-9))
        actions = np.where(relative, here + motion.reshape(wanted.shape), grip)
        # A pause stays where it is, and keeps what it holds.
        pausing = self.pausing[rows, t]
        stay = np.where(relative, here, wanted if self.last is None else self.last)
        actions[pausing] = stay[pausing]
        self.last = actions
        return actions

def absolute_entries(task):
    """Which entries of an action are no targets for the state's numbers, a tuple of indices."""
    if task.absolute is not None:
        return tuple(task.absolute)
    arm = task.action_dim // task.n_arms
    return tuple(range(arm - 1, task.action_dim, arm))  # the last of each arm

class Coach:
    """An expert who watches a policy: takes over when a stage falls or stalls (Sec. V-D).

    It hands back when the stage is done in which it took over.
    """

    def __init__(self, world, seeds):
        self.world = world
        self.hands = Operator(world, seeds, "coach")
        self.patience = round(STALL_S * world.spec.hz)  # steps
        self.in_control = np.zeros(world.n, bool)
        self.stage = np.zeros(world.n, int)
        self.best = np.full(world.n, np.inf)  # the least that remained in this stage
        self.since = np.zeros(world.n, int)  # steps since it last shrank

    def wants_control(self, observation):
        """Whom the coach moves in the coming step, bool (n,)."""
        world = self.world
        done = world.stage > self.stage
        fell = world.stage < self.stage
        self.in_control &= ~done
        self.best[done | fell] = np.inf
        self.since[done | fell] = 0
        self.stage = world.stage.copy()
        self.in_control |= fell & ~world.done
        if hasattr(world.spec.scene, "remaining"):
            remaining = np.zeros(world.n)  # of those that are over
            for i in np.flatnonzero(~world.done):
                remaining[i] = world.scenes[i].remaining()
            progress = remaining < 0.98 * self.best
            self.since = np.where(progress, 0, self.since + 1)
            self.best = np.where(progress, remaining, self.best)
            self.in_control |= (self.since >= self.patience) & ~world.done
        return self.in_control.copy()

    def act(self, observation):
        """What the expert does, (n, action_dim)."""
        return self.hands.act(self.world)
