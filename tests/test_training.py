"""training.py: what reaches a network of a step: prompts with and without metadata, pictures, web questions."""
from dataclasses import replace

import numpy as np
import pytest
import torch

import recap
import training
import web
from backbone import CAMERAS, PROMPT_LENGTH, SUBTASK_LENGTH, VOCABULARY, encode
from policy import VLA
from recap import Labels, Settings, train_policy, train_value
from sim_tasks.cameras import cameras as photograph
from test_policy import TINY
from test_recap import episode
from training import draw_prompts, perceive, stack_steps, web_batches
from value import ValueConfig, ValueFunction

SMALL = ValueConfig(width=16, layers=1)


def words(ids):
    """Ids -> text."""
    return " ".join(VOCABULARY[i] for i in ids if i)


def described(T, metadata, seed, prompt="fold collar up", **more):
    return replace(episode(T, seed=seed, **more), prompt=prompt, metadata=metadata)


def weights_of(network):
    return torch.cat([p.detach().flatten() for p in network.parameters()])


def fresh(kind, config):
    torch.manual_seed(0)
    return kind(config)


# ---------------------------------------------------------------- the metadata s in the prompt (Sec. V-A)

def test_steps_carry_their_prompt_with_and_without_metadata():
    data = [described(3, "fast careful", 0), described(2, "", 1), described(4, "slow", 2, prompt="build box")]
    steps = stack_steps(data)
    prompts = ["fold collar up"] * 5 + ["build box"] * 4
    s = ["fold collar up fast careful"] * 3 + ["fold collar up"] * 2 + ["build box slow"] * 4
    assert [words(ids) for ids in steps["prompt"].tolist()] == prompts
    assert [words(ids) for ids in steps["described"].tolist()] == s
    with pytest.raises(ValueError, match=r"unknown words \['hasty'\]"):
        stack_steps([described(3, "hasty", 0)])


@pytest.mark.parametrize("dropout", [0.0, 0.3, 1.0])
def test_metadata_are_dropped_as_often_as_asked_and_nothing_else_is_touched(dropout):
    n, g = 20_000, torch.Generator().manual_seed(0)
    plain, with_s = torch.randint(0, 9, (n, PROMPT_LENGTH)), torch.randint(10, 19, (n, PROMPT_LENGTH))
    rest = {"described": with_s, "state": torch.randn(n, 6), "positive": torch.rand(n) < 0.5}
    kept = {key: x.clone() for key, x in rest.items()}
    batch = {"prompt": plain} | rest
    draw_prompts(batch, dropout, g)
    dropped = (batch["prompt"] == plain).all(1)
    assert torch.equal(batch["prompt"], torch.where(dropped[:, None], plain, with_s))       # whole rows, one or the other
    assert abs(dropped.float().mean() - dropout) <= 4 * (dropout * (1 - dropout) / n) ** 0.5
    assert all(torch.equal(batch[key], x) for key, x in kept.items()) and set(batch) == {"prompt", *kept}
    if 0 < dropout < 1:                                        # whether it is dropped has nothing to do with the rest
        assert abs(np.corrcoef(dropped, rest["positive"])[0, 1]) < 4 / n ** 0.5


@pytest.mark.filterwarnings("ignore::RuntimeWarning")
@pytest.mark.parametrize("metadata, share", [(False, 0.0), (True, 0.7)])
def test_training_sees_metadata_when_asked_to_and_drops_them_at_its_own_rate(metadata, share, monkeypatch):
    """In the batches of π and of V: the prompt with s in 1 - metadata_dropout of the steps, independently of the indicator."""
    s, seen = Settings(metadata=metadata, metadata_dropout=0.3, batch=64, value_batch=64), []
    data = [described(20, "fast careful", 0), described(20, "slow careless", 1)]

    def loss(policy, batch, omega, eta):
        seen.append({key: x.clone() for key, x in batch.items()})
        return policy.text_head.weight.sum() * 0
    train_policy(fresh(VLA, TINY), data, s, 40, Labels([np.ones(20, bool)] * 2, {}), loss=loss)
    batch = {key: torch.cat([b[key] for b in seen[:40]]) for key in seen[0]}
    described_ids, M = batch["described"], 40 * 64
    has_s = (batch["prompt"] == described_ids).all(1)
    plain = torch.tensor(encode("fold collar up", PROMPT_LENGTH))
    assert torch.equal(batch["prompt"], torch.where(has_s[:, None], described_ids, plain))
    four_se = lambda p: 4 * (p * (1 - p) / M) ** 0.5
    assert abs(has_s.float().mean() - share) <= four_se(share)
    assert abs(batch["omit"].float().mean() - 0.3) < four_se(0.3)
    assert abs((has_s & batch["omit"]).float().mean() - 0.3 * share) <= four_se(0.3 * share or 1)
    asked = []
    value = fresh(ValueFunction, SMALL)
    forward = value.forward
    monkeypatch.setattr(value, "forward", lambda observation, prompt: asked.append(prompt.clone()) or forward(observation, prompt))
    train_value(value, data, s, 40)
    in_training = torch.cat(asked[:40])
    assert in_training.shape == (M, PROMPT_LENGTH)
    has_s = in_training[:, 3] != 0                             # a fourth word
    assert abs(has_s.float().mean() - share) <= four_se(share)
    assert not (torch.cat(asked[40:])[:, 3] != 0).any()        # V is asked without s: it judges, it does not act


# ---------------------------------------------------------------- pictures

def test_perceive_gives_keypoints_or_pictures():
    pairs = web.questions(5, 0)
    observation = {"state": pairs["state"], "keypoints": pairs["keypoints"], "more": 1}
    assert set(perceive(observation)) == {"state", "keypoints"}
    seen = perceive(observation, ("left_wrist", "base"))
    assert list(seen) == ["state", "left_wrist", "base"]
    pictures = photograph(pairs["state"], pairs["keypoints"])
    for name in ("left_wrist", "base"):
        assert seen[name].dtype == np.uint8 and np.array_equal(seen[name], pictures[name])


def pictured(T, seed):
    """An episode in made-up scenes that can be drawn."""
    pairs = web.questions(T, seed)
    return replace(episode(T, seed=seed), observations={key: pairs[key] for key in ("state", "keypoints")})


def test_steps_come_with_the_pictures_of_their_own_moment():
    data = [pictured(4, 0), pictured(3, 1)]
    steps = stack_steps(data, cameras=("right_wrist",))
    assert "keypoints" not in steps and "base" not in steps
    alone = [photograph(e.observations["state"][t:t + 1], e.observations["keypoints"][t:t + 1])["right_wrist"][0]
             for e in data for t in range(len(e))]
    assert np.array_equal(steps["right_wrist"].numpy(), alone)


def test_both_networks_train_on_pictures_and_keypoints_are_not_read(monkeypatch):
    """Data whose pictures are made beforehand: keypoints of another scene, or of none, change no weight."""
    data, s = [pictured(9, 0), pictured(7, 1)], Settings(batch=8, value_batch=8)
    labels = Labels([np.arange(9) % 2 == 0, np.arange(7) % 2 == 0], {})

    def train():
        V, _ = train_value(fresh(ValueFunction, replace(SMALL, cameras=("base",))), data, s, 3)
        pi, log = train_policy(fresh(VLA, replace(TINY, cameras=("base", "left_wrist"))), data, s, 3, labels)
        values = recap.predict_values(V, data)
        assert [len(v) for v in values] == [9, 7] and all(np.isfinite(v).all() for v in values)
        return weights_of(V), weights_of(pi)
    first = train()
    assert all(torch.equal(x, y) for x, y in zip(first, train()))
    pictures = photograph(*(np.concatenate([e.observations[key] for e in data]) for key in ("state", "keypoints")))
    monkeypatch.setattr(training, "render", lambda state, keypoints: pictures)
    data = [replace(e, observations=e.observations | {"keypoints": 0 * e.observations["keypoints"]}) for e in data]
    assert all(torch.equal(x, y) for x, y in zip(first, train()))


# ---------------------------------------------------------------- web questions among the batches

@pytest.fixture
def few_questions(monkeypatch):
    """A pool of 300: 20,000 take a second, with pictures several."""
    real = web.questions
    monkeypatch.setattr(web, "questions", lambda n, seed: real(300, seed))


@pytest.mark.parametrize("share, size, n", [(0.25, 32, 8), (1.0, 8, 8), (2.0, 5, 10), (0.0, 32, None), (0.01, 8, None)])
def test_web_batches_have_their_share(few_questions, share, size, n):
    draw = web_batches(Settings(), (), share, size, "x")
    assert draw is None if n is None else all(len(x) == n for x in draw().values())


@pytest.mark.parametrize("cameras", [(), ("base",)])
def test_web_batches_hold_true_answers_to_their_questions(few_questions, cameras):
    s = Settings(seed=3)
    draw = web_batches(s, cameras, 1.0, 64, "x")
    batches = [draw() for _ in range(3)]
    assert set(batches[0]) == {"state", "question", "answer", *(cameras or ("keypoints",))}
    # every question about every scene of the pool, from which draw() took some
    pool = web.questions(300, int(training.stream(3, "x").generate_state(1)[0]))
    truth = web.answers(pool["state"], pool["keypoints"])
    where = {tuple(row): i for i, row in enumerate(pool["state"].tolist())}
    pictures = photograph(pool["state"], pool["keypoints"])
    used = set()
    for batch in batches:
        for j in range(64):
            i = where[tuple(batch["state"][j].tolist())]
            assert truth[words(batch["question"][j].tolist())][i] == words(batch["answer"][j].tolist())
            seen = pictures["base"] if cameras else pool["keypoints"]
            assert np.array_equal(batch[cameras[0] if cameras else "keypoints"][j].numpy(), seen[i])
            used.add(i)
    assert len(used) > 110                                     # of 192 draws from 300: 142 expected
    again = web_batches(s, cameras, 1.0, 64, "x")
    assert all(torch.equal(again()["state"], b["state"]) for b in batches)       # (seed, purpose) say all
    for other in (web_batches(s, cameras, 1.0, 64, "y"), web_batches(Settings(seed=4), cameras, 1.0, 64, "x")):
        assert not torch.equal(other()["state"], batches[0]["state"])


@pytest.mark.parametrize("kind", ["value", "policy"])
def test_web_questions_are_learned_beside_the_data_and_only_when_asked(few_questions, kind, monkeypatch):
    """The loss of one step is that of the data plus that of the answers; web = 0 is training without them, bit for bit."""
    data, labels = [episode(20, seed=i) for i in range(2)], Labels([np.ones(20, bool)] * 2, {})

    n_steps = 25 if kind == "value" else 60

    def train(s):
        if kind == "value":
            return train_value(fresh(ValueFunction, SMALL), data, s, n_steps)[0]
        return train_policy(fresh(VLA, TINY), data, s, n_steps, labels)[0]
    s = Settings(batch=16, value_batch=16, draws=1, web=1.0, learning_rate=1e-2, value_learning_rate=1e-2)
    losses, real = [], recap.answer_loss
    monkeypatch.setattr(recap, "answer_loss", lambda network, batch: losses.append(real(network, batch)) or losses[-1])
    network = train(s)
    assert len(losses) == n_steps and np.mean([x.item() for x in losses[-5:]]) < 0.75 * losses[0].item()
    # what counts is on new questions
    held_out = web_batches(Settings(seed=9), (), 1.0, 200, "held out")()
    untrained = fresh(ValueFunction, SMALL) if kind == "value" else fresh(VLA, TINY)
    assert real(network, held_out) < 0.8 * real(untrained, held_out)
    losses.clear()
    without = train(replace(s, web=0.0))
    assert not losses
    assert (weights_of(without) - weights_of(network)).abs().max() > 1e-4
    assert real(without, held_out) > 0.95 * real(untrained, held_out)                # a head that nobody trained
    # one term beside the other, with equal weights
    total = []
    monkeypatch.setattr(recap, "value_loss", lambda logits, R: logits.sum() * 0 + 2.0)
    monkeypatch.setattr(recap, "eq3_loss", lambda policy, *rest, **more: policy.text_head.weight.sum() * 0 + 2.0)
    monkeypatch.setattr(recap, "answer_loss", lambda network, batch: real(network, batch) * 0 + 0.5)
    monkeypatch.setattr(recap, "optimise", lambda network, draw_loss, *rest: total.append(draw_loss().item()) or network.eval())
    train(s)
    train(replace(s, web=0.0))
    assert total == [2.5, 2.0]
