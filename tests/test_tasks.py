"""A task of one's own: copies of its scene, its operators and coach, and what is refused."""
import os
import re
from dataclasses import replace

import numpy as np
import pytest

import sim_tasks
from collection import demonstrate
from data import WORDS, UserError, interface_of
from helpers import ROOT, options, run_program
from settings import Settings
from sim_tasks import scene as scenes
from sim_tasks.demonstrator import METADATA
from sim_tasks.scene import CARE_STEPS, Coach, Copies, Operator, SceneError, Skill
from sim_tasks.task import Task, TaskError, load_task

OWN_TASK = os.path.join(ROOT, "examples", "own_task.py")
GOAL = 1.0
REACH = 0.3  # largest motion of a joint per step

class Slide:
    """Two arms of two joints and a gripper; each has to come to (1, 1), the left one first.

    A left arm that goes back loses its stage; one that goes far away is lost.
    """

    def reset(self, seed):
        rng = np.random.default_rng(seed)
        self.joints = rng.uniform(-0.5, 0.5, (2, 2))  # (arm, joint)
        self.grippers = np.ones(2)
        self.taken = 0  # steps
        self.stage = 0
        self.lost = False

    def observe(self):
        state = np.column_stack([self.joints, self.grippers]).ravel()  # (6,)
        picture = np.full((2, 3, 3), self.taken % 256, np.uint8)
        return {"state": state, "keypoints": self.joints - GOAL, "top": picture}

    def step(self, action):
        action = action.reshape(2, 3)
        self.taken += 1
        self.joints = self.joints + np.clip(action[:, :2] - self.joints, -REACH, REACH)
        self.grippers = action[:, 2]
        there = np.abs(self.joints - GOAL).max(1) < 0.01  # (arm,)
        self.stage = int(there[0]) + int(there.all())
        self.lost = bool(np.abs(self.joints).max() > 3)

    def expert(self):
        action = np.column_stack([self.joints, np.zeros(2)])
        arm = min(self.stage, 1)
        action[arm, :2] = GOAL
        action[arm, 2] = 1
        return action.ravel()

    def remaining(self):
        return float(np.abs(self.joints[min(self.stage, 1)] - GOAL).max())

SLIDE = Task(
    name="slide", prompt="push both", subtasks=("left arm", "right"), hz=10, max_steps=60,
    action_dim=6, scene=Slide, speed=0.2,
)  # fmt: skip

def of_scene(scene=Slide, **changes):
    return replace(SLIDE, scene=scene, **changes)

def scribble(world, t, seeds):
    """Actions that hang on (seed, t) alone; some reach a goal, some flee."""
    actions = []
    for scene, seed in zip(world.scenes, seeds):
        rng = np.random.default_rng([seed, t])
        wanted = scene.expert() if seed % 3 else np.full(6, 9.0)
        actions.append(wanted + rng.normal(0, 0.1, 6) * (rng.random() < 0.5))
    return np.array(actions)

# ---------------------------------------------------------------- copies

def test_many_copies_are_each_what_one_alone_is():
    seeds = [4, 3, 7, 11, 6]
    together = Copies(SLIDE, seeds)
    alone = [Copies(SLIDE, [seed]) for seed in seeds]
    names = ("t", "stage", "done", "success", "timeout")
    for t in range(SLIDE.max_steps + 2):
        seen = together.observe()
        for i, one in enumerate(alone):
            for name, x in one.observe().items():
                assert x[0].tobytes() == seen[name][i].tobytes()
            for name in names:
                assert getattr(one, name)[0] == getattr(together, name)[i], (name, t)
            assert one.subtasks()[0] == together.subtasks()[i]
            one.step(scribble(one, t, [seeds[i]]))
        together.step(scribble(together, t, seeds))
    assert together.done.all() and together.prompts().tolist() == ["push both"] * 5
    assert together.success.any() and not together.success.all()

def test_copies_that_are_over_stay_and_the_clock_fails():
    world = Copies(SLIDE, [1, 2, 3])
    stays = np.tile(np.array([0.0, 0, 1, 0, 0, 1]), (3, 1))
    for _ in range(30):
        actions = world.experts()
        actions[1] = stays[1]
        actions[2] = 9.0  # flees
        world.step(actions)
        if world.done[0]:
            break
    assert world.success.tolist() == [True, False, False]
    assert world.done.tolist() == [True, False, True] and not world.timeout.any()
    assert world.subtasks().tolist() == ["right", "left arm", "left arm"]
    before = {name: x.copy() for name, x in world.observe().items()}
    t = world.t.copy()
    assert not world.experts()[[0, 2]].any()
    while not world.done.all():
        world.step(stays)
    assert world.t.tolist() == [t[0], SLIDE.max_steps, t[2]]
    assert world.timeout.tolist() == [False, True, False]
    assert world.success.tolist() == [True, False, False]
    for name, x in world.observe().items():
        assert np.array_equal(x[[0, 2]], before[name][[0, 2]])

def test_a_success_at_the_last_step_is_no_time_out():
    n = 1
    world = Copies(SLIDE, [5])
    while not world.done[0]:
        world.step(world.experts())
    steps = int(world.t[0])
    for limit, success in ((steps, True), (steps - 1, False)):
        world = Copies(of_scene(max_steps=limit), [5] * n)
        while not world.done[0]:
            world.step(world.experts())
        assert (world.success[0], world.timeout[0]) == (success, not success)

def test_a_forgotten_comma_makes_no_stages_of_letters():
    with pytest.raises(TaskError) as error:
        of_scene(subtasks=("come here"))
    assert str(error.value) == "subtasks: 'come here', expected a tuple, like ('come here',)"

def test_observations_are_float32_or_uint8_and_fresh():
    world = Copies(SLIDE, [1, 2])
    seen = world.observe()
    assert {name: (x.dtype, x.shape) for name, x in seen.items()} == {
        "state": (np.float32, (2, 6)), "keypoints": (np.float32, (2, 2, 2)),
        "top": (np.uint8, (2, 2, 3, 3)),
    }  # fmt: skip
    kept = seen["state"].copy()
    seen["state"] += 1
    assert np.array_equal(world.observe()["state"], kept)

class Grows(Slide):
    """A list of things that gets longer."""

    def observe(self):
        return super().observe() | {"keypoints": np.zeros((2 + self.taken, 2))}

class Forgets(Slide):
    """No picture from the second step on."""

    def observe(self):
        seen = super().observe()
        return seen if self.taken < 1 else {"state": seen["state"]}

class Breaks(Slide):
    def observe(self):
        bad = np.array([[0.0, np.nan if self.taken else 1.0]])
        return super().observe() | {"keypoints": bad}

class Stateless(Slide):
    def observe(self):
        return {"keypoints": np.zeros((2, 2))}

class NeverBegins:
    """Its reset has another name."""

    def start(self, seed):
        pass

@pytest.mark.parametrize(
    "scene, words",
    [
        (NeverBegins, ["scene: has no 'reset'"]),
        (Grows, ["observe: shapes", "(3, 2)", "expected", "(2, 2)"]),
        (Forgets, ["observe: shapes", "'top'", "expected"]),
        (Breaks, ["observe: keypoints is not finite"]),
        (Stateless, ["observe: no 'state'"]),
    ],
)
def test_a_scene_that_does_not_keep_to_its_interface_is_named(scene, words):
    with pytest.raises(SceneError) as error:
        world = Copies(of_scene(scene), [1, 2])
        world.observe()
        world.step(world.experts())
        world.observe()
    message = str(error.value)
    assert message.startswith("task 'slide', ") and "\n" not in message
    assert all(word in message for word in words), message

@pytest.mark.parametrize(
    "actions, message",
    [
        (np.zeros((2, 5)), r"actions: shape \(2, 5\), expected \(2, 6\)"),
        (np.zeros(6), r"actions: shape \(6,\), expected \(2, 6\)"),
        (np.full((2, 6), np.inf), "actions: not finite"),
    ],
)
def test_actions_that_do_not_fit_are_refused_before_anything_moves(actions, message):
    world = Copies(SLIDE, [1, 2])
    with pytest.raises(SceneError, match="task 'slide', " + message):
        world.step(actions)
    assert not world.t.any() and not any(scene.taken for scene in world.scenes)

# ---------------------------------------------------------------- operators

def play(world, operator, steps=30):
    """Yields what the world was in before a step, and the operator's actions."""
    for _ in range(steps):
        state = world.observe()["state"].astype(float)
        wanted = world.experts()
        live = ~world.done
        actions = operator.act(world)
        yield state[live], wanted[live], actions[live], live
        world.step(actions)

def hire(skill, seeds, scene=Slide, **changes):
    """A world, and an operator of that `Skill` in it."""
    task = of_scene(scene, skills={"hired": skill}, **changes)
    world = task.world(seeds)
    return world, task.demonstrator(world, seeds, "hired")

RELATIVE = [0, 1, 3, 4]
GRIPPERS = [2, 5]

def test_the_best_operator_is_the_expert():
    task = of_scene(speed=2.0)  # nothing to cap
    world = task.world([1, 2, 3])
    for _, wanted, actions, _ in play(world, task.demonstrator(world, [1, 2, 3], "best")):
        np.testing.assert_allclose(actions, wanted, atol=1e-6)
    assert world.success.all()
    many = SLIDE.demonstrator(SLIDE.world(range(200)), range(200), "best")
    assert (many.pace == 1).all() and not many.careless.any() and not many.pausing.any()

def test_a_task_may_have_skills_of_its_own_and_more_actions_than_the_state_has_numbers():
    class Horn(Slide):
        """An action of its own besides: a horn."""

        def step(self, action):
            super().step(action[:6])

        def expert(self):
            return np.append(super().expert(), [0.0, 1.0])

    own = Skill(paces=(0.1,), pace_p=(1.0,), pause=0.0, careful=1.0)
    changes = dict(action_dim=8, n_arms=1, absolute=(2, 5, 6, 7))
    task = of_scene(Horn, skills={"mixed": own}, **changes)
    world = task.world([1])
    for skill, cap in (("mixed", 0.1), ("best", 1.0)):
        action = task.demonstrator(world, [1], skill).act(world)[0]
        state = world.observe()["state"][0]
        motion = np.abs(action[:6] - state)[RELATIVE]
        assert motion.max() == pytest.approx(cap * task.speed, abs=1e-6)
        assert action[6:].tolist() == [0.0, 1.0]

def test_a_pace_caps_the_largest_motion_of_each_arm():
    """By a factor: the direction stays, and so does an arm that is slow enough."""

    class Both(Slide):
        def expert(self):
            wanted = self.joints + [[0.4, -0.2], [0.01, 0.03]]
            return np.column_stack([wanted, np.zeros(2)]).ravel()

    skill = Skill(paces=(0.5,), pace_p=(1.0,), pause=0.0, careful=1.0)
    world, operator = hire(skill, [1, 2], Both)
    for state, wanted, actions, _ in play(world, operator, 5):
        motion = (actions - state)[:, RELATIVE]
        np.testing.assert_allclose(motion, np.tile([0.1, -0.05, 0.01, 0.03], (2, 1)), atol=1e-6)
        assert np.array_equal(actions[:, GRIPPERS], wanted[:, GRIPPERS])

def test_paces_are_drawn_for_every_stage():
    seeds = range(400)
    pace = hire(Skill(paces=(0.25, 1.0), pace_p=(0.25, 0.75)), seeds)[1].pace
    assert pace.shape == (400, 2) and abs((pace == 0.25).mean() - 0.25) < 0.06
    assert 0.1 < (pace[:, 0] != pace[:, 1]).mean() < 0.6
    world, operator = hire(Skill(pause=0, careful=1), seeds)
    operator.pace[:] = [[0.0, 0.1]]
    world.stage[:] = 1  # the pace of the stage that it is in
    state = world.observe()["state"]
    motion = np.abs(operator.act(world) - state)[:, RELATIVE].max(1)
    assert motion.max() <= 0.1 * SLIDE.speed + 1e-6 and motion.max() > 0

def test_a_pause_keeps_place_and_grip():
    class Winks(Slide):
        """Its expert opens and closes by the step."""

        def expert(self):
            action = super().expert().reshape(2, 3)
            action[:, 2] = self.taken % 2
            return action.ravel()

    seeds = list(range(20))
    world, operator = hire(Skill(pause=0.1, careful=1.0), seeds, Winks)
    last = None
    paused = 0
    for state, wanted, actions, live in play(world, operator, 25):
        pausing = operator.pausing[live, world.t[live]]
        np.testing.assert_allclose(actions[pausing][:, RELATIVE], state[pausing][:, RELATIVE])
        grips = wanted if last is None else last[live]
        assert np.array_equal(actions[pausing][:, GRIPPERS], grips[pausing][:, GRIPPERS])
        others = actions[~pausing][:, GRIPPERS]
        assert np.array_equal(others, wanted[~pausing][:, GRIPPERS])
        last = operator.last.copy()
        paused += pausing.sum()
    assert 50 < paused < 450
    # Each lasts for 3 steps at least.
    for row in operator.pausing[:, :-8].astype(int):
        begins = np.flatnonzero(np.diff(row, prepend=0) == 1)
        assert all(row[t : t + 3].all() for t in begins)

def test_a_careless_operator_is_beside_the_target_and_holds_loosely():
    seeds = [3, 4]
    skill = Skill(paces=(1.0,), pace_p=(1.0,), pause=0.0, careful=0.0, error=0.05, loose=0.4)
    world, operator = hire(skill, seeds, speed=2.0)
    assert operator.error.shape == (2, -(-60 // CARE_STEPS), 6)
    beside = []
    for _, wanted, actions, _ in play(world, operator, 4):
        loose = 0.4 * (0.5 - wanted[:, GRIPPERS])
        np.testing.assert_allclose(actions[:, GRIPPERS], wanted[:, GRIPPERS] + loose)
        beside.append((actions - wanted)[:, RELATIVE])
    # One error for all of those steps, and another one for another copy.
    np.testing.assert_allclose(beside, np.tile(beside[0], (4, 1, 1)), atol=1e-6)
    np.testing.assert_allclose(beside[0], operator.error[:, 0][:, RELATIVE], atol=1e-6)
    assert np.abs(beside[0][0] - beside[0][1]).min() > 1e-3
    errors = hire(skill, range(200))[1].error
    assert errors.std() == pytest.approx(0.05, rel=0.05) and abs(errors.mean()) < 0.003
    world, careful = hire(replace(skill, careful=1.0), seeds, speed=2.0)
    np.testing.assert_allclose(careful.act(world), world.experts(), atol=1e-6)

def test_the_same_seed_acts_the_same_whatever_the_other_copies_do():
    for skill in ("mixed", "good", "coach"):
        alone = SLIDE.world([8])
        world = SLIDE.world([5, 8, 2])
        one = Operator(alone, [8], skill)
        many = Operator(world, [5, 8, 2], skill)
        for _ in range(SLIDE.max_steps):
            expected = one.act(alone)
            actions = many.act(world)
            if not alone.done[0]:
                assert np.array_equal(actions[1], expected[0])
            actions[0] = 9.0
            alone.step(expected)
            world.step(actions)
        assert alone.done.all() and many.metadata()[1] == one.metadata()[0]
    first, again, other = (demonstrate(SLIDE, [seed], "mixed")[0] for seed in (8, 8, 9))
    assert np.array_equal(first.actions, again.actions)
    assert not np.array_equal(first.actions[:5], other.actions[:5])

def test_metadata_say_pace_and_care():
    for skill, word in (
        (Skill(careful=0.0), "careless"), (Skill(careful=1.0), "careful"),
        (Skill(paces=(0.2, 1.0), pace_p=(1.0, 0.0)), "slow"),
        (Skill(paces=(0.2, 1.0), pace_p=(0.0, 1.0)), "fast"),
    ):  # fmt: skip
        texts = [text.split() for text in hire(skill, range(50))[1].metadata()]
        assert all(word in text for text in texts), word
        assert all(set(text) <= set(METADATA) for text in texts)

# ---------------------------------------------------------------- the coach

def watch(task, seeds, policy, steps):
    """The flags of the coach, bool (steps, n), and the stages (steps, n) at those moments."""
    world = task.world(seeds)
    coach = task.coach(world, seeds)
    flags = []
    stages = []
    for t in range(steps):
        seen = world.observe()
        wants = coach.wants_control(seen)
        flags.append(wants)
        stages.append(world.stage.copy())
        actions = np.where(wants[:, None], coach.act(seen), policy(world, t))
        world.step(actions)
    return np.array(flags), np.array(stages), world

def stand(world, t):
    return world.observe()["state"].astype(float)

@pytest.mark.parametrize("hz, steps", [(10, 12), (50, 60), (20, 24)])
def test_the_coach_takes_over_after_1_2_s_without_progress_until_the_stage_is_done(hz, steps):
    task = of_scene(hz=hz, max_steps=400)
    flags, stages, world = watch(task, [1, 2], stand, 3 * steps + 60)
    for i in range(2):
        assert not flags[:steps, i].any() and flags[steps, i]
        done = int(np.argmax(stages[:, i] == 1))
        assert flags[steps:done, i].all() and done > steps + 2
        # Handed back, and again patient for as long.
        assert not flags[done : done + steps, i].any() and flags[done + steps, i]
    assert world.success.all()

def test_slow_progress_is_progress():
    def creep(by):
        def policy(world, t):
            return stand(world, t) + np.array([by, by, 0, 0, 0, 0])

        return policy

    # remaining is 0.5 to 1.5: a fiftieth of it counts, less does not
    flags, _, _ = watch(SLIDE, [1], creep(0.032), 25)
    assert not flags.any()
    flags, _, _ = watch(SLIDE, [1], creep(0.0005), 13)
    assert flags[:, 0].tolist() == [False] * 12 + [True]

def test_the_coach_takes_over_when_a_stage_falls():
    def drops(world, t):
        actions = world.experts()
        if t == 9:
            actions[0, 0] = 0.6  # the first copy's left arm leaves its goal
        return actions

    class Slow(Slide):
        """The right arm takes long, so that there is something to lose."""

        def expert(self):
            action = super().expert()
            if self.stage == 1:
                action[3:5] = self.joints[1] + np.clip(GOAL - self.joints[1], -0.05, 0.05)
            return action

    flags, stages, world = watch(of_scene(Slow), [1, 2], drops, 45)
    assert stages[9].tolist() == [1, 1] and stages[10].tolist() == [0, 1]
    back = int(np.argmax(stages[10:, 0] == 1)) + 10
    assert flags[10:back, 0].all() and back > 11
    assert not flags[:10, 0].any() and not flags[back:, 0].any() and not flags[:, 1].any()
    assert world.success.all()

def test_the_coach_leaves_alone_what_is_over_and_sees_no_stall_without_remaining():
    class Mute:
        """A scene that does not say how far it is."""

        def __init__(self):
            self.inner = Slide()

        def __getattr__(self, name):
            if name == "remaining":
                raise AttributeError(name)
            return getattr(self.inner, name)

        def expert(self):
            return self.inner.expert()

    flags, _, _ = watch(of_scene(Mute), [1], stand, 40)
    assert not flags.any()

    def flee(world, t):
        return np.full((world.n, 6), 9.0)

    flags, _, world = watch(SLIDE, [1, 2], flee, 40)
    assert world.done.all() and not flags.any()

def test_the_coach_is_careful_but_not_fast():
    world = SLIDE.world([1, 2])
    coach = Coach(world, [1, 2])
    state = world.observe()["state"]
    motion = np.abs(coach.act(None) - state)[:, RELATIVE].max(1)
    np.testing.assert_allclose(motion, 0.5 * SLIDE.speed, atol=1e-6)
    assert not coach.hands.pausing.any() and not coach.hands.careless.any()
    assert scenes.STALL_S == 1.2

# ---------------------------------------------------------------- the task

def test_a_task_says_its_words_sizes_and_who_there_is():
    task = of_scene(prompt="push both fast", subtasks=("left arm", "both"))
    assert task.words == ("push", "both", "fast", "left", "arm")
    assert (task.prompt_length, task.subtask_length) == (5, 2)
    assert task.has_world and task.has_demonstrator and task.has_coach

    class NoExpert:
        reset = observe = step = None

    without = of_scene(NoExpert)
    assert without.has_world and not without.has_demonstrator and not without.has_coach
    nothing = of_scene(None)
    assert not (nothing.has_world or nothing.has_demonstrator or nothing.has_coach)
    with pytest.raises(TaskError, match="scene: task 'slide' has none, expected a class"):
        nothing.world([0])
    assert task.picture({}) is None and task.visible_quality({}) is None

def test_the_networks_take_their_sizes_from_the_task():
    found = interface_of(of_scene(prompt="push both fast", near=(0, 2)))
    assert found.vocabulary == (*WORDS, "push", "both", "left", "arm", "right")
    assert (found.state_dim, found.action_dim, found.hz) == (6, 6, 10)
    assert (found.keypoints, found.near, found.absolute) == ((2, 2), (0, 2), (2, 5))
    assert found.n_arms == 2 and found.relative == RELATIVE and found.cameras == ()
    one = interface_of(of_scene(n_arms=1))
    assert one.absolute == (5,) and one.relative == [0, 1, 2, 3, 4]
    assert interface_of(of_scene(absolute=())).relative == list(range(6))
    # More actions than the state has numbers: they are no targets for it.
    with pytest.raises(ValueError, match=r"absolute: \(3, 7\) lacks 6, .* the state has 6 numbers"):
        interface_of(of_scene(action_dim=8))
    assert interface_of(of_scene(action_dim=8, absolute=(2, 6, 7))).action_dim == 8

WRONG = [
    (dict(name=""), "name: '', expected words"),
    (dict(prompt=""), "prompt: '', expected words"),
    (dict(subtasks=()), "subtasks: none in task 'slide'"),
    (dict(hz=0), "hz: 0, expected control steps per second"),
    (dict(hz=-1.0), "hz: -1.0"),
    (dict(hz=float("nan")), "hz: nan"),
    (dict(hz=float("inf")), "hz: inf"),
    (dict(max_steps=0), "max_steps: 0, expected an integer >= 1"),
    (dict(max_steps=7.5), "max_steps: 7.5"),
    (dict(action_dim=0), "action_dim: 0"),
    (dict(n_arms=0), "n_arms: 0"),
    (dict(n_arms=4), "action_dim: 6, expected a multiple of n_arms = 4"),
]

@pytest.mark.parametrize("change, message", WRONG)
def test_a_task_that_cannot_be_names_the_field(change, message):
    with pytest.raises(TaskError) as error:
        replace(SLIDE, **change)
    assert str(error.value).startswith(message) and "\n" not in str(error.value)

HEAD = "from sim_tasks.task import Task\n"

@pytest.mark.parametrize(
    "text, attribute, words",
    [
        (HEAD + "X = Task(name='x')\n", "X", ["my_file.py:2", "prompt", "max_steps"]),
        (HEAD + "X = Task(name='x', prompt='x', subtasks=('x',), hz=0, max_steps=3, "
         "action_dim=2)\n", "X", ["my_file.py:2", "hz: 0"]),
        ("import no_such_module\n", "X", ["my_file.py:1", "no_such_module"]),
        ("X = (\n", "X", ["my_file.py", "line 1"]),
        ("X = 3\n", "X", ["my_file.py has no Task of the name 'X'"]),
        ("X = 3\n", "Y", ["my_file.py has no Task of the name 'Y'"]),
        (None, "X", ["there is no file", "my_file.py"]),
    ],
)  # fmt: skip
def test_a_file_without_a_task_says_where_and_what(tmp_path, text, attribute, words):
    path = tmp_path / "my_file.py"
    if text is not None:
        path.write_text(text)
    with pytest.raises(TaskError) as error:
        load_task(f"{path}:{attribute}")
    message = str(error.value)
    assert message.startswith("task: ") and "\n" not in message
    assert all(word in message for word in words), message

@pytest.mark.parametrize("name", ["juggle", "my_file.txt:X", "my_file.py", "my_file.py:"])
def test_what_is_no_name_of_a_task_is_refused(name):
    with pytest.raises(TaskError) as error:
        sim_tasks.find_task(name)
    assert str(error.value).startswith(f"task: {name!r}, expected ")
    assert "my_file.py:MY_TASK" in str(error.value)

def test_tasks_are_found_by_name(monkeypatch):
    monkeypatch.setattr(sim_tasks, "ADDED", {})
    with pytest.raises(TaskError, match="task: 'slide', expected one of fold_shirt"):
        sim_tasks.find_task("slide")
    sim_tasks.add_task(SLIDE)
    assert sim_tasks.find_task("slide") is SLIDE
    assert sim_tasks.find_task("box") is sim_tasks.TASKS["box"]
    own = sim_tasks.find_task(f"{OWN_TASK}:LID_AND_BALL")
    assert own.name == "lid_and_ball" and sim_tasks.find_task(f"{OWN_TASK}:LID_AND_BALL") is own

# ---------------------------------------------------------------- settings of a task

def test_settings_come_from_the_task(monkeypatch):
    """N and H in seconds, the rest as numbers; what is asked for goes before."""
    monkeypatch.setattr(sim_tasks, "ADDED", {})
    task = of_scene(hz=50, positive=0.35, beta=1.25, corrected=17, sft_steps=123)
    sim_tasks.add_task(task)
    s = Settings(task="slide")
    assert (s.lookahead, s.horizon, s.execute) == (50, 40, 20)
    assert (s.positive, s.beta, s.corrected, s.sft_steps) == (0.35, 1.25, 17, 123)
    assert s.target is task and s.pretraining == ["slide"] and s.interface == interface_of(task)
    assert s.positive_for("slide") == 0.35 and s.positive_for("box") == 0.2
    asked = dict(lookahead=7, horizon=6, positive=0.5, beta=1.0, corrected=0, sft_steps=3)
    other = Settings(task="slide", **asked)
    assert {name: getattr(other, name) for name in asked} == asked and other.execute == 3
    sim_tasks.add_task(replace(task, lookahead_s=0.5))
    assert Settings(task="slide").lookahead == 25
    toy = Settings()
    assert (toy.lookahead, toy.horizon, toy.execute) == (10, 8, 4)
    with pytest.raises(ValueError, match="web: 0.5, expected 0: the questions are about the toys"):
        Settings(task="slide", web=0.5)
    with pytest.raises(ValueError, match="execute: 41, expected 1 to H = 40"):
        Settings(task="slide", execute=41)

def test_without_a_coach_nothing_is_corrected(monkeypatch):
    monkeypatch.setattr(sim_tasks, "ADDED", {})
    for task in (of_scene(None, example={"state": np.zeros((1, 6))}), of_scene()):
        sim_tasks.add_task(task)
        assert Settings(task="slide").corrected == (50 if task.scene else 0)

# ---------------------------------------------------------------- the example

def test_the_example_is_short():
    with open(OWN_TASK, encoding="utf-8") as file:
        assert len(file.read().splitlines()) <= 80

TINY_OWN = dict(
    iterations=1, demonstrations=4, autonomous=4, corrected=3, evaluation_episodes=5,
    pretraining_steps=3, sft_steps=2, policy_steps=3, value_pretraining_steps=3, value_steps=2,
    batch=8, value_batch=8, euler=1,
)  # fmt: skip

@pytest.mark.slow
def test_algorithm_1_runs_on_the_example_from_another_folder(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    arguments = ["--task", f"{OWN_TASK}:LID_AND_BALL", *options(TINY_OWN)]
    assert run_program(monkeypatch, "recap.py", *arguments) == 0
    out = tmp_path / "runs" / "lid_and_ball-seed0"
    assert {"metrics.json", "pi_1.npz", "V_1.npz", "D_1.npz", "learning_curve.png"} <= {
        path.name for path in out.iterdir()
    }
    printed = capsys.readouterr().out
    assert "recap_1" in printed and "corrected episodes" in printed

@pytest.mark.slow
def test_an_expert_that_never_succeeds_is_said_before_any_training(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "hopeless.py").write_text(
        "from dataclasses import replace\n"
        "from test_tasks import SLIDE, Slide\n"
        "class Hopeless(Slide):\n"
        "    def expert(self):\n"
        "        return self.observe()['state']\n"
        "TASK = replace(SLIDE, scene=Hopeless)\n"
    )
    sizes = options(TINY_OWN | dict(demonstrations=20))
    assert run_program(monkeypatch, "recap.py", "--task", "hopeless.py:TASK", *sizes) == 2
    assert not (tmp_path / "runs" / "slide-seed0" / "V_pre.npz").exists()
    last = capsys.readouterr().err.splitlines()[-1]
    begin, end = last.split(" (")
    assert begin == "recap.py: error: 0 of 20 demonstrations of 'slide' succeed, expected some"
    assert end == "20 ran out of time, max_steps = 60; at most 0 stages were done)"

# ---------------------------------------------------------------- what a hunter of bugs found

def test_absolute_entries_are_indices_of_an_action():
    for wrong in ((-1,), (6,)):
        with pytest.raises(TaskError, match="absolute"):
            replace(sim_tasks.find_task(f"{OWN_TASK}:LID_AND_BALL"), absolute=wrong)

def test_a_task_file_may_hold_dataclasses_and_late_annotations(tmp_path):
    path = tmp_path / "late.py"
    path.write_text(
        "from __future__ import annotations\n"
        "from dataclasses import dataclass\n"
        "from sim_tasks.task import Task\n"
        "@dataclass(frozen=True, kw_only=True)\n"
        "class Mine(Task):\n"
        "    more: int = 3\n"
        "T = Mine(name='late', prompt='go', subtasks=('go',), hz=5, max_steps=9, action_dim=2)\n",
        encoding="utf-8",
    )
    assert sim_tasks.find_task(f"{path}:T").more == 3

def test_a_task_of_ones_own_is_not_called_like_a_toy(tmp_path):
    path = tmp_path / "toy.py"
    path.write_text(
        "from sim_tasks.task import Task\n"
        "T = Task(name='box', prompt='go', subtasks=('go',), hz=5, max_steps=9, action_dim=2)\n",
        encoding="utf-8",
    )
    with pytest.raises(TaskError, match="no toy"):
        sim_tasks.find_task(f"{path}:T")

def test_no_toy_is_in_the_pre_training_of_a_task_of_ones_own():
    with pytest.raises(ValueError, match="pretraining_tasks"):
        Settings(task=f"{OWN_TASK}:LID_AND_BALL", pretraining_tasks="fold_shirt")

@pytest.mark.parametrize(
    "change, message",
    [
        (dict(vision=True), "cameras: no 'base' in an observation of 'lid_and_ball'"),
        (dict(bodies=True), "bodies: True, expected none of another task than the toys"),
    ],
)
def test_what_only_toys_have_is_not_promised_to_a_task_of_ones_own(change, message):
    """Nobody renders its pictures, and it has one body."""
    with pytest.raises(UserError, match=re.escape(message)):
        Settings(task=f"{OWN_TASK}:LID_AND_BALL", **change)
