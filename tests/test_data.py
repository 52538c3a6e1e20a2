"""data.py: what an episode may hold, what reaches a network of a step, where chance comes from."""
from dataclasses import replace

import numpy as np
import pytest
import torch

from data import UserError, draw_prompts, episode_seeds, generator, perceive, stack_steps, stream
from data import web_batches
from helpers import PROMPT_LENGTH, TOYS, described, episode, pictured, seen_by, wide_episode, words
from policy import PolicyConfig
from settings import Settings
from sim_tasks import questions
from sim_tasks.cameras import cameras as photograph

# ---------------------------------------------------------------- episodes

def spoiled(array, value, at):
    array = array.copy()
    array[at] = value
    return array

@pytest.mark.parametrize("bad", (np.nan, np.inf, -np.inf))
def test_numbers_that_are_not_finite_are_refused(bad):
    good = wide_episode()
    with pytest.raises(ValueError, match="actions: not finite at step 4"):
        replace(good, actions=spoiled(good.actions, bad, (4, 2)))
    for key, at in (("state", (6, 5)), ("keypoints", (6, 0, 16))):
        with pytest.raises(ValueError, match=f"{key}: not finite at step 6"):
            bad_array = spoiled(good.observations[key], bad, at)
            replace(good, observations=good.observations | {key: bad_array})

def test_unequal_lengths_are_refused():
    good = wide_episode()
    for name in ("subtask", "intervention"):
        with pytest.raises(ValueError, match=f"{name}: 6 steps, expected 7"):
            replace(good, **{name: getattr(good, name)[:6]})
    for key in good.observations:
        longer = np.concatenate([good.observations[key]] * 2)
        with pytest.raises(ValueError, match=f"{key}: 14 steps, expected 7"):
            replace(good, observations=good.observations | {key: longer})

def test_unknown_sources_and_episodes_without_steps_are_refused():
    with pytest.raises(ValueError, match="source: 'human', expected one of"):
        wide_episode(source="human")
    with pytest.raises(ValueError, match="actions: 0 steps"):
        wide_episode(T=1, actions=np.zeros((0, 6)))

# ---------------------------------------------------------------- chance

def test_seeds_of_different_purposes_do_not_meet():
    purposes = ["evaluation", "autonomous 1", "autonomous 2", "held out 1"]
    purposes += ["sft fold_shirt", "pretraining fold_shirt"]
    drawn = [set(episode_seeds(seed, purpose, 500)) for seed in (0, 1) for purpose in purposes]
    assert len(set.union(*drawn)) == 500 * len(drawn)
    assert episode_seeds(0, "evaluation", 5) == episode_seeds(0, "evaluation", 500)[:5]
    # A generator begins where the seeds do.
    first = torch.Generator().manual_seed(episode_seeds(3, "x", 1)[0])
    assert torch.equal(torch.rand(9, generator=first), torch.rand(9, generator=generator(3, "x")))

# ---------------------------------------------------------------- steps as tensors

def test_chunks_are_the_coming_actions_of_the_same_episode():
    data = [episode(11, seed=0), episode(3, seed=1)]
    H = PolicyConfig(TOYS).horizon
    steps = stack_steps(data, TOYS, horizon=H)
    row = 0
    for e in data:
        for t in range(len(e)):
            expected = [e.actions[min(t + h, len(e) - 1)] for h in range(H)]
            assert np.array_equal(steps["actions"][row].numpy(), expected)
            assert np.array_equal(steps["state"][row].numpy(), e.observations["state"][t])
            row += 1
    assert row == len(steps["actions"])
    without = stack_steps(data, TOYS)  # V needs no chunks
    assert set(without) == set(steps) - {"actions"}
    assert all(torch.equal(x, steps[name]) for name, x in without.items())

def test_empty_dataset_is_refused():
    with pytest.raises(ValueError, match="empty dataset"):
        stack_steps([], TOYS)

def test_perceive_gives_keypoints_or_pictures():
    pairs = questions.questions(5, 0)
    observation = {"state": pairs["state"], "keypoints": pairs["keypoints"], "more": 1}
    assert set(perceive(observation, TOYS)) == {"state", "keypoints"}
    seen = perceive(observation, seen_by("left_wrist", "base"))
    assert list(seen) == ["state", "left_wrist", "base"]
    pictures = photograph(pairs["state"], pairs["keypoints"])
    for name in ("left_wrist", "base"):
        assert seen[name].dtype == np.uint8 and np.array_equal(seen[name], pictures[name])

@pytest.mark.parametrize("kind", [np.float64, np.float16, np.int64, bool])
def test_numbers_of_every_kind_are_read_in_single_precision(kind):
    e = episode(5)
    chance = np.random.default_rng(0)
    numbers = {name: chance.integers(0, 2, x.shape) for name, x in e.observations.items()}
    given, single = ({name: x.astype(k) for name, x in numbers.items()} for k in (kind, np.float32))
    actions = e.actions.astype(np.float64)
    expected = stack_steps([replace(e, observations=single)], TOYS, horizon=4)
    found = stack_steps([replace(e, observations=given, actions=actions)], TOYS, horizon=4)
    for name, x in found.items():
        assert x.dtype == expected[name].dtype and torch.equal(x, expected[name]), name

def test_pictures_are_bytes():
    """A renderer's numbers from 0 to 1 would all be black."""
    e = pictured(4, 0)
    top = np.zeros((4, 24, 24, 3), np.uint8)
    good, bad = (replace(e, observations=e.observations | {"top": x}) for x in (top, top / 255))
    assert stack_steps([good], seen_by("top"))["top"].dtype == torch.uint8
    with pytest.raises(UserError, match="top: float64, expected images as uint8, 0 to 255"):
        stack_steps([bad], seen_by("top"))

def test_steps_come_with_the_pictures_of_their_own_moment():
    data = [pictured(4, 0), pictured(3, 1)]
    steps = stack_steps(data, seen_by("right_wrist"))
    assert "keypoints" not in steps and "base" not in steps
    alone = []
    for e in data:
        for t in range(len(e)):
            scene = {name: x[t : t + 1] for name, x in e.observations.items()}
            alone.append(photograph(**scene)["right_wrist"][0])
    assert np.array_equal(steps["right_wrist"].numpy(), alone)

# ---------------------------------------------------------------- metadata in the prompt (Sec. V-A)

def test_steps_carry_their_prompt_with_and_without_metadata():
    data = [described(3, "fast careful", 0), described(2, "", 1)]
    data.append(described(4, "slow", 2, prompt="build box"))
    steps = stack_steps(data, TOYS)
    prompts = ["fold collar up"] * 5 + ["build box"] * 4
    s = ["fold collar up fast careful"] * 3 + ["fold collar up"] * 2 + ["build box slow"] * 4
    assert [words(ids) for ids in steps["prompt"].tolist()] == prompts
    assert [words(ids) for ids in steps["described"].tolist()] == s
    with pytest.raises(ValueError, match=r"unknown words \['hasty'\]"):
        stack_steps([described(3, "hasty", 0)], TOYS)

@pytest.mark.parametrize("dropout", [0.0, 0.3, 1.0])
def test_metadata_are_dropped_as_often_as_asked_and_nothing_else_is_touched(dropout):
    n, g = 20_000, torch.Generator().manual_seed(0)
    plain = torch.randint(0, 9, (n, PROMPT_LENGTH))
    with_s = torch.randint(10, 19, (n, PROMPT_LENGTH))
    rest = {"described": with_s, "state": torch.randn(n, 6), "positive": torch.rand(n) < 0.5}
    kept = {key: x.clone() for key, x in rest.items()}
    batch = {"prompt": plain} | rest
    draw_prompts(batch, dropout, g)
    dropped = (batch["prompt"] == plain).all(1)
    # whole rows, one or the other
    assert torch.equal(batch["prompt"], torch.where(dropped[:, None], plain, with_s))
    assert abs(dropped.float().mean() - dropout) <= 4 * (dropout * (1 - dropout) / n) ** 0.5
    assert all(torch.equal(batch[key], x) for key, x in kept.items())
    assert set(batch) == {"prompt", *kept}
    # whether it is dropped has nothing to do with the rest
    if 0 < dropout < 1:
        assert abs(np.corrcoef(dropped, rest["positive"])[0, 1]) < 4 / n**0.5

# ---------------------------------------------------------------- web questions among the batches

@pytest.mark.parametrize(
    "share, size, n", [(0.25, 32, 8), (1.0, 8, 8), (2.0, 5, 10), (0.0, 32, None), (0.01, 8, None)]
)
def test_web_batches_have_their_share(few_questions, share, size, n):
    draw = web_batches(Settings(web=share), TOYS, size, "x")
    assert draw is None if n is None else all(len(x) == n for x in draw().values())

@pytest.mark.parametrize("cameras", [(), ("base",)])
def test_web_batches_hold_true_answers_to_their_questions(few_questions, cameras):
    s = Settings(seed=3, web=1.0)
    interface = seen_by(*cameras)
    draw = web_batches(s, interface, 64, "x")
    batches = [draw() for _ in range(3)]
    assert set(batches[0]) == {"state", "question", "answer", *(cameras or ("keypoints",))}
    # every question about every scene of the pool, from which draw() took some
    pool = questions.questions(300, int(stream(3, "x").generate_state(1)[0]))
    truth = questions.answers(pool["state"], pool["keypoints"])
    where = {tuple(row): i for i, row in enumerate(pool["state"].tolist())}
    pictures = photograph(pool["state"], pool["keypoints"])
    used = set()
    for batch in batches:
        for j in range(64):
            i = where[tuple(batch["state"][j].tolist())]
            question = words(batch["question"][j].tolist())
            assert truth[question][i] == words(batch["answer"][j].tolist())
            seen = pictures["base"] if cameras else pool["keypoints"]
            assert np.array_equal(batch[cameras[0] if cameras else "keypoints"][j].numpy(), seen[i])
            used.add(i)
    assert len(used) > 110  # of 192 draws from 300: 142 expected
    again = web_batches(s, interface, 64, "x")
    # (seed, purpose) say all
    assert all(torch.equal(again()["state"], b["state"]) for b in batches)
    another = replace(s, seed=4)
    for other in (web_batches(s, interface, 64, "y"), web_batches(another, interface, 64, "x")):
        assert not torch.equal(other()["state"], batches[0]["state"])
