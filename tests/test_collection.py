"""collection.py: who acts, what is recorded, with which seeds and prompts."""
from dataclasses import replace
from functools import partial

import numpy as np
import pytest
import torch

import collection
import sim_tasks
from collection import Actor, by_item, coach, collect_iteration, demonstrate, demonstrations
from collection import roll_out, task_demonstrations
from data import episode_seeds, generator
from helpers import PROMPT_LENGTH, encode, toy_policy, with_items
from settings import Settings
from sim_tasks.arms import BODIES, STATIC, World
from sim_tasks.demonstrator import COACH, MIXED, Operator

SPEC = sim_tasks.TASKS["fold_collar"]

def untrained(seed):
    torch.manual_seed(seed)
    return toy_policy().eval()

# ---------------------------------------------------------------- three ways to act

def test_recorded_episodes_replay_to_the_same_end():
    """Actions as sent, true lengths, no reset observation at the end.

    Replaying reproduces every observation.
    """
    s = Settings()
    policy = untrained(0)
    seeds = [3, 4, 5, 6]
    for episodes in (
        roll_out(s, SPEC, seeds, policy),
        coach(s, SPEC, seeds, policy, iteration=0),
        demonstrate(SPEC, seeds, "mixed"),
    ):
        for seed, e in zip(seeds, episodes, strict=True):
            world = World(SPEC, [seed])
            for t in range(len(e)):
                seen = world.observe()
                assert all(np.array_equal(seen[key][0], e.observations[key][t]) for key in seen)
                assert not world.done[0]
                world.step(e.actions[t][None])
            assert world.done[0] and bool(world.success[0]) == e.success

def test_corrected_steps_are_the_operators():
    """Where the flag says so the coach acted, elsewhere the policy.

    Untrained, the policy stalls and is helped.
    """
    s = Settings()
    # One that leaves the coach the time: others flee to the limits.
    policy = untrained(1)
    episodes = coach(s, SPEC, [1, 2, 3, 4, 5], policy, iteration=0)
    flags = np.concatenate([e.intervention for e in episodes])
    assert 0.2 < flags.mean() < 1 and all(e.source == "corrected" for e in episodes)
    assert sum(e.success for e in episodes) >= 4  # a coach saves nearly all
    e = episodes[0]
    world = World(SPEC, [1])
    operator = Operator(world, [1], COACH)
    for t in range(len(e)):
        sent = operator.act(world)[0].astype(np.float32)
        assert np.array_equal(sent, e.actions[t]) == bool(e.intervention[t])
        world.step(e.actions[t][None])
    assert not any(x.intervention.any() for x in roll_out(s, SPEC, [1, 2], policy))

def test_episodes_say_who_acted_in_which_iteration():
    s = Settings()
    policy = untrained(0)
    for episodes, source, iteration in (
        (roll_out(s, SPEC, [1, 2], policy, iteration=3), "autonomous", 3),
        (coach(s, SPEC, [1, 2], policy, iteration=2), "corrected", 2),
        (demonstrate(SPEC, [1, 2], "good"), "demonstration", 0),
    ):
        assert [(e.source, e.iteration) for e in episodes] == [(source, iteration)] * 2
        assert {(e.task, e.max_length) for e in episodes} == {(SPEC.name, SPEC.max_steps)}

def fixed_subtask(predictions):
    """In the place of `predict_subtask`: adds the prompts to a list, and answers nothing."""

    def predict(policy, seen, prompt):
        predictions.append(prompt)
        return torch.zeros(len(prompt), 2).long()

    return predict

def test_chunks_are_executed_for_the_first_steps_and_then_replaced(monkeypatch):
    """Of each chunk of 8, s.execute are sent.

    The subtask is predicted every s.subtask_every chunks.
    """
    calls = []
    predictions = []

    def sample(policy, observation, prompt, subtask, *rest):
        chunk = torch.full((len(prompt), 8, 6), float(len(calls))) + torch.arange(8.0)[:, None] / 10
        calls.append(len(prompt))
        return chunk

    monkeypatch.setattr(collection, "sample_actions", sample)
    monkeypatch.setattr(collection, "predict_subtask", fixed_subtask(predictions))
    e = roll_out(Settings(execute=3, subtask_every=2), SPEC, [0], toy_policy())[0]
    t = np.arange(len(e))
    assert np.allclose(e.actions[:, 0], t // 3 + (t % 3) / 10)
    assert len(predictions) == -(-len(calls) // 2)

def test_collect_acts_with_the_indicator_and_guidance_it_was_asked_for(monkeypatch):
    """Rollouts as asked, coached episodes as Algorithm 1 collects them; noise from their seed."""
    asked = []
    noise = []

    def sample(policy, observation, prompt, subtask, indicator, beta, steps, omega, frozen):
        asked.append((indicator, beta, steps))
        noise.append(omega)
        assert frozen is None
        return torch.zeros(len(prompt), 8, 6)

    monkeypatch.setattr(collection, "sample_actions", sample)
    s = Settings(euler=3, seed=5)

    def check(expected, seed):
        assert set(asked) == {expected}
        g = generator(seed, "noise")
        for omega in noise:
            assert torch.equal(omega, torch.randn(1, 8, 6, generator=g))
        asked.clear()
        noise.clear()

    roll_out(s, SPEC, [0], toy_policy(), beta=2.5, indicator=False)
    check((False, 2.5, 3), 0)
    coach(s, SPEC, [8], toy_policy(), iteration=4)
    check((True, 1.0, 3), 8)

def test_an_episode_is_the_same_whatever_is_played_beside_it():
    policy = untrained(0)
    for play in (roll_out, partial(coach, iteration=1)):
        together = play(Settings(), SPEC, [3, 4, 5], policy)
        for seed, e in zip([3, 4, 5], together, strict=True):
            (alone,) = play(Settings(), SPEC, [seed], policy)
            # Products of other sizes are rounded otherwise.
            np.testing.assert_allclose(alone.actions, e.actions, atol=1e-4)
            assert (alone.success, len(alone)) == (e.success, len(e))

def test_a_copys_noise_does_not_depend_on_which_others_are_over(monkeypatch):
    """Each has its own stream of ω, and the rows of those who are over are zero."""
    given = []

    def sample(policy, seen, prompt, subtask, indicator, beta, steps, omega, frozen):
        given.append(omega)
        return omega + 1

    monkeypatch.setattr(collection, "sample_actions", sample)
    monkeypatch.setattr(collection, "predict_subtask", fixed_subtask([]))
    observation = World(SPEC, range(3)).observe()
    omega = torch.stack([torch.randn(8, 6, generator=g) for g in collection.noise_of([7, 8, 9])])
    for live in ([True, True, True], [True, False, True], [False, True, False]):
        live = np.array(live)
        actor = Actor(
            Settings(), ["fold collar up"] * 3, toy_policy(), noise=collection.noise_of([7, 8, 9])
        )
        chunk = actor(observation, live)
        assert torch.equal(given[-1], omega[torch.tensor(live)])
        np.testing.assert_array_equal(chunk[live], omega[torch.tensor(live)] + 1)
        assert (chunk[~live] == 0).all()

def test_each_item_is_collected_with_its_own_prompt():
    episodes = demonstrate(with_items(), range(12), "coach")
    world = World(with_items(), range(12))
    assert [e.prompt for e in episodes] == world.prompts().tolist()
    assert len({e.prompt for e in episodes}) == 2
    for e, handles in zip(episodes, world.observe()["keypoints"][:, :2, :2]):
        assert np.array_equal(e.observations["keypoints"][0, :2, :2], handles)
    sheets = demonstrate(with_items(), range(3), "coach", item="sheet")
    assert {e.prompt for e in sheets} == {"fold sheet"}

def test_demonstrations_carry_metadata_and_rollouts_are_asked_for_them(monkeypatch):
    """`metadata` goes into the policy's prompt when acting.

    It is kept beside the prompt of the episode, not in it.
    """
    demos = demonstrate(SPEC, [0, 1, 2, 3, 4, 5], "mixed")
    world = World(SPEC, range(6))
    assert [e.metadata for e in demos] == Operator(world, range(6), MIXED).metadata()
    assert {e.prompt for e in demos} == {"fold collar up"} and len({e.metadata for e in demos}) > 1
    prompts = []

    def sample(policy, seen, prompt, *rest):
        prompts.append(prompt)
        return torch.zeros(len(prompt), 8, 6)

    monkeypatch.setattr(collection, "predict_subtask", fixed_subtask(prompts))
    monkeypatch.setattr(collection, "sample_actions", sample)
    for said, expected in (("", "fold collar up"), ("fast careful", "fold collar up fast careful")):
        prompts.clear()
        rollouts = roll_out(Settings(), SPEC, [0, 1], toy_policy(), metadata=said)
        ids = torch.tensor(encode(expected, PROMPT_LENGTH))
        assert prompts and all((p == ids).all() for p in prompts)
        assert [(e.prompt, e.metadata) for e in rollouts] == [("fold collar up", said)] * 2

# ---------------------------------------------------------------- the datasets of Algorithm 1

@pytest.fixture
def asked(monkeypatch):
    """Every call of the three ways to act, as a dict; nobody acts."""
    calls = []

    def spy(kind):
        def act(*given, **more):
            names = {
                "demonstrate": ("task", "seeds", "skill", "body"),
                "roll_out": ("s", "task", "seeds", "policy"),
                "coach": ("s", "task", "seeds", "policy"),
            }[kind]
            calls.append({"kind": kind} | dict(zip(names, given)) | more)
            return [len(calls)]

        return act

    for kind in ("demonstrate", "roll_out", "coach"):
        monkeypatch.setattr(collection, kind, spy(kind))
    return calls

def test_d_demo_holds_every_task_of_pre_training_and_every_body_if_asked(asked):
    def where(calls):
        return {(x["task"].name, x.get("body", STATIC).name): tuple(x["seeds"]) for x in calls}

    s = Settings(task="box", pretraining_tasks="fold_collar", demonstrations=3)
    assert demonstrations(s) == [1, 2]
    static = where(asked)
    assert list(static) == [("fold_collar", "static"), ("box", "static")]
    assert static["box", "static"] == tuple(episode_seeds(0, "pretraining box", 3))
    asked.clear()
    demonstrations(replace(s, bodies=True))
    found = where(asked)
    assert len(BODIES) == 4
    assert set(found) == {(task, body) for task in ("fold_collar", "box") for body in BODIES}
    # The robot's own stay the same.
    assert all(found[key] == seeds for key, seeds in static.items())
    # No episode twice.
    assert len({seed for seeds in found.values() for seed in seeds}) == 3 * len(asked)
    assert all(x["skill"] == "mixed" for x in asked)
    asked.clear()
    task_demonstrations(replace(s, bodies=True))
    # SFT: the target's robot, and operators of high quality.
    assert {body for _, body in where(asked)} == {"static"}
    assert [(x["task"].name, x["skill"]) for x in asked] == [("box", "good")]
    assert asked[0]["seeds"] == episode_seeds(0, "sft box", 3)

def test_every_other_episode_is_about_the_measured_item():
    seeds = list(range(10, 17))
    assert SPEC.measured is None and by_item(SPEC, seeds) == [(None, seeds)]
    shares = [("sheet", [10, 12, 14, 16]), (None, [11, 13, 15])]
    assert by_item(with_items(), seeds) == shares
    assert by_item(with_items(), [7]) == [("sheet", [7])]  # no empty share
    assert by_item(with_items(), []) == [] == by_item(SPEC, [])

@pytest.mark.parametrize("items", [False, True])
def test_an_iteration_collects_alone_and_with_a_coach_on_seeds_of_its_own(
    asked, monkeypatch, items
):
    s = Settings(task="fold_collar", autonomous=5, corrected=3, seed=2)
    if items:
        monkeypatch.setitem(sim_tasks.TASKS, "fold_collar", with_items())
    assert collect_iteration(s, "π", 4) == list(range(1, len(asked) + 1))
    alone = episode_seeds(2, "autonomous 4", 5)
    coached = episode_seeds(2, "corrected 4", 3)
    expected = [("roll_out", alone, None), ("coach", coached, None)]
    if items:
        expected = [
            ("roll_out", alone[::2], "sheet"), ("roll_out", alone[1::2], None),
            ("coach", coached[::2], "sheet"), ("coach", coached[1::2], None),
        ]  # fmt: skip
    assert [(x["kind"], x["seeds"], x["item"]) for x in asked] == expected
    assert all((x["s"], x["policy"], x["iteration"]) == (s, "π", 4) for x in asked)
    asked.clear()
    collect_iteration(replace(s, corrected=0), "π", 1)
    assert {x["kind"] for x in asked} == {"roll_out"}
