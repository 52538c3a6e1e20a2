"""Any Gymnasium environment as a task: its copies against single environments, and a tiny run."""
import json
from dataclasses import replace

import gymnasium
import numpy as np
import pytest

import sim_tasks
from collection import demonstrate
from data import interface_of
from helpers import options, run_program
from lab.files import load_dataset
from settings import Settings
from sim_tasks.gym_task import GymTask
from sim_tasks.task import TaskError

def swing(observation):
    """Pushes the way it turns, and holds it when it stands."""
    cos, sin, speed = observation
    return [-8 * np.arctan2(sin, cos) - 2 * speed if cos > 0.8 else 2 * np.sign(speed)]

def stands(info, terminated, reward):
    return reward > -0.1

PENDULUM = GymTask(
    name="pendulum", prompt="swing up", subtasks=("swing",), hz=20, max_steps=150, action_dim=1,
    n_arms=1, absolute=(0,), env="Pendulum-v1", succeeded=stands, policy=swing,
)  # fmt: skip

class Countdown(gymnasium.Env):
    """Over after as many steps as the seed says; the info of the last one says whether it won.

    Every action is noted in `taken`.
    """

    observation_space = gymnasium.spaces.Box(-9, 99, (2,), np.float64)
    action_space = gymnasium.spaces.Box(np.float32([-1, 0]), np.float32([1, 2]))

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        self.left = seed
        self.seed = seed
        self.taken = []
        return np.array([self.left, 0.5]), {}

    def step(self, action):
        self.taken.append(action)
        self.left -= 1
        info = {"won": self.seed % 2 == 0}
        return np.array([self.left, 0.5]), float(self.left), self.left == 0, False, info

gymnasium.register("Countdown-v0", Countdown)

def won(info, terminated, reward):
    return terminated and info["won"] and reward == 0

COUNTDOWN = replace(
    PENDULUM, name="countdown", env="Countdown-v0", action_dim=2, absolute=(0, 1), max_steps=8,
    succeeded=won, policy=lambda observation: observation,
)  # fmt: skip

# ---------------------------------------------------------------- copies

def test_copies_are_single_environments_side_by_side():
    seeds = [5, 2**40 + 6, 7]
    world = PENDULUM.world(seeds)
    alone = [gymnasium.make("Pendulum-v1") for _ in seeds]
    seen = [one.reset(seed=seed % 2**31)[0] for one, seed in zip(alone, seeds)]
    rng = np.random.default_rng(0)
    for t in range(PENDULUM.max_steps):
        state = world.observe()["state"]
        assert state.dtype == np.float32 and np.array_equal(state, np.array(seen, np.float32))
        actions = rng.uniform(-3, 3, (3, 1))  # Pendulum's limit is 2
        last = [one.step(np.clip(a, -2, 2).astype(np.float32)) for one, a in zip(alone, actions)]
        seen = [step[0] for step in last]
        world.step(actions)
        assert world.t.tolist() == [t + 1] * 3
        assert world.done.tolist() == [t + 1 == PENDULUM.max_steps] * 3
    assert world.success.tolist() == [step[1] > -0.1 for step in last]
    assert world.prompts().tolist() == ["swing up"] * 3
    assert world.subtasks().tolist() == ["swing"] * 3

def test_a_copy_that_is_over_waits_and_its_last_step_says_whether_it_succeeded():
    seeds = [3, 6, 20, 4]
    world = COUNTDOWN.world(seeds)
    for t in range(8):
        world.step(np.array([[t, t]] * 4, float))
        assert world.done.tolist() == [min(seed, 8) <= t + 1 for seed in seeds]
    assert world.t.tolist() == [3, 6, 8, 4]
    assert world.success.tolist() == [False, True, False, True]
    assert world.stage.tolist() == [0, 1, 0, 1]
    taken = [one.unwrapped.taken for one in world.envs.envs]
    assert [len(actions) for actions in taken] == [3, 6, 8, 4]
    # Clipped to what the environment takes.
    assert [a.tolist() for a in taken[1]] == [[0, 0], [1, 1], [1, 2], [1, 2], [1, 2], [1, 2]]
    assert all(a.dtype == np.float32 for a in taken[1])
    assert world.observe()["state"][:, 0].tolist() == [0, 0, 12, 0]

def test_a_copy_does_not_notice_the_others():
    one = demonstrate(PENDULUM, [8], "mixed")[0]
    many = demonstrate(PENDULUM, [3, 8, 5], "mixed")
    assert np.array_equal(one.actions, many[1].actions)
    assert np.array_equal(one.observations["state"], many[1].observations["state"])
    assert not np.array_equal(many[0].actions, many[1].actions)

# ---------------------------------------------------------------- operators

def test_the_best_operator_is_the_policy_and_the_others_have_an_error_of_their_own_size():
    seeds = list(range(40))
    world = PENDULUM.world(seeds)
    wanted = np.array([swing(seen) for seen in world.observation])
    best = PENDULUM.demonstrator(world, seeds, "best")
    assert np.array_equal(best.act(world), wanted)
    errors = {}
    for skill, largest in (("mixed", 1.0), ("good", 0.5)):
        operator = PENDULUM.demonstrator(world, seeds, skill)
        size = operator.size[:, 0]
        assert 0.7 * largest < size.max() < largest and size.min() < 0.2 * largest
        errors[skill] = (operator.act(world) - wanted) / operator.size
        assert errors[skill].std() == pytest.approx(PENDULUM.noise, rel=0.35)
        careless = [text == "fast careless" for text in operator.metadata()]
        assert careless == (size > 0.5).tolist()
    again = PENDULUM.demonstrator(world, seeds, "mixed")
    assert np.array_equal((again.act(world) - wanted) / again.size, errors["mixed"])

def test_who_there_is():
    assert PENDULUM.has_world and PENDULUM.has_demonstrator and not PENDULUM.has_coach
    alone = replace(PENDULUM, policy=None)
    assert not alone.has_demonstrator
    with pytest.raises(TaskError, match="expert: task 'pendulum' has none, expected one"):
        demonstrate(alone, [0], "mixed")
    with pytest.raises(TaskError, match="task 'pendulum' has no coach, expected --corrected 0"):
        PENDULUM.coach(PENDULUM.world([0]), [0])

def test_sizes_and_settings_come_from_the_environment(monkeypatch):
    monkeypatch.setattr(sim_tasks, "ADDED", {})
    sim_tasks.add_task(PENDULUM)
    found = interface_of(PENDULUM)
    assert (found.state_dim, found.action_dim, found.n_arms, found.hz) == (3, 1, 1, 20)
    assert found.keypoints == () and found.relative == []
    s = Settings(task="pendulum")
    assert (s.corrected, s.lookahead, s.horizon) == (0, 20, 16)
    with pytest.raises(ValueError, match="corrected: 5, expected 0: the task has no coach"):
        Settings(task="pendulum", corrected=5)

# ---------------------------------------------------------------- what does not fit

@pytest.mark.parametrize(
    "change, words",
    [
        (dict(action_dim=2, absolute=(0, 1)), ["action_dim: 2", "Pendulum-v1", "Box"]),
        (dict(env="CartPole-v1"), ["action_dim: 1", "CartPole-v1", "Discrete(2)"]),
        (dict(env="SimTasks/Box-v0", action_dim=6), ["env", "SimTasks/Box-v0", "Dict", "Box (S,)"]),
        (dict(env="Nowhere-v0"), ["env: 'Nowhere-v0'"]),
        (dict(subtasks=("swing", "hold")), ["subtasks: ('swing', 'hold')", "expected one"]),
    ],
)
def test_an_environment_that_does_not_fit_is_named_in_one_line(change, words):
    with pytest.raises(TaskError) as error:
        replace(PENDULUM, **change).world([0, 1])
    assert "\n" not in str(error.value)
    assert all(word in str(error.value) for word in words), str(error.value)

# ---------------------------------------------------------------- Algorithm 1

FILE = """\
from sim_tasks.gym_task import GymTask

def gentle(observation):
    return [0.0]

def always(info, terminated, reward):
    return reward > -5

TASK = GymTask(
    name="pendulum", prompt="swing up", subtasks=("swing",), hz=20, max_steps=25, action_dim=1,
    n_arms=1, absolute=(0,), env="Pendulum-v1", succeeded=always, policy=gentle,
)
"""
SIZES = dict(
    iterations=1, demonstrations=4, autonomous=5, evaluation_episodes=6, pretraining_steps=3,
    sft_steps=2, policy_steps=3, value_pretraining_steps=3, value_steps=2, batch=8, value_batch=8,
    euler=1,
)  # fmt: skip

@pytest.mark.slow
def test_algorithm_1_runs_without_corrections(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "pendulum.py").write_text(FILE)
    arguments = ["--task", "pendulum.py:TASK", *options(SIZES), "--out", "out"]
    assert run_program(monkeypatch, "recap.py", *arguments) == 0
    metrics = json.loads((tmp_path / "out" / "metrics.json").read_text(encoding="utf-8"))
    assert metrics["settings"]["corrected"] == 0 and metrics["task"] == "pendulum"
    assert [row["name"] for row in metrics["stages"]][-1] == "recap_1"
    D = load_dataset(tmp_path / "out" / "D_1.npz")
    assert {e.source for e in D} == {"autonomous"} and len(D) == 5
    assert {(e.task, e.hz, e.max_length, len(e)) for e in D} == {("pendulum", 20, 25, 25)}
    assert metrics["labels"][0]["corrected_fraction"] is None
