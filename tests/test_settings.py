"""settings.py: what is refused, what follows from what, the command line; and of each knob what it turns, and nothing else."""
import copy
import math
from dataclasses import asdict, fields, replace

import numpy as np
import pytest
import torch

import recap
import sim_tasks
from backbone import PROMPT_LENGTH, VOCABULARY, encode
from policy import FLOW_WEIGHTS, VLA
from recap import Labels, Settings, advantages, indicators, label, returns, threshold, train_policy, train_value
from settings import QUICK, parse
from sim_tasks.arms import BODIES
from test_policy import TINY
from test_recap import episode
from test_training import SMALL, fresh, weights_of
from value import ValueFunction


# ---------------------------------------------------------------- what is refused, what follows from what

@pytest.mark.parametrize("change, message", [
    (dict(vision=True, cameras="base top"), "cameras: 'base top', expected some of base, left_wrist, right_wrist"),
    (dict(cameras=""), "cameras: ''"),
    (dict(pretraining_tasks="fold_shirt juggle"), "pretraining_tasks: 'fold_shirt juggle', expected some of fold_shirt"),
    (dict(bodies=True, vision=True), "bodies: True, expected no other bodies with --vision"),
    (dict(ask="fast careful"), "ask: 'fast careful', expected nothing without --metadata"),
    (dict(ask="quick", metadata=True), "ask: 'quick', expected up to two of fast, slow, careful, careless"),
    (dict(ask="fast slow careful", metadata=True), "ask: 'fast slow careful', expected up to two"),
    (dict(restart="first"), "restart: 'first', expected pretrained or last"),
    (dict(output="noise"), "output: 'noise', expected clean or velocity"),
    (dict(flow_weight="snr"), "flow_weight: 'snr', expected clean or constant or paper"),
    (dict(metadata_dropout=1.1), "metadata_dropout: 1.1"), (dict(metadata_dropout=math.nan), "metadata_dropout: nan"),
    (dict(web=-0.1), "web: -0.1"), (dict(web=math.nan), "web: nan"), (dict(web=5.0), "web: 5.0"),
])
def test_settings_that_cannot_be(change, message):
    with pytest.raises(ValueError) as error:
        Settings(**change)
    assert str(error.value).startswith(message)


def test_settings_at_the_edges_of_what_can_be():
    Settings(metadata_dropout=0.0), Settings(metadata_dropout=1.0), Settings(web=4.0), Settings(bodies=True)
    Settings(metadata=True, ask="careful"), Settings(metadata=True, ask="fast careful"), Settings(vision=True, cameras="base")
    assert set(FLOW_WEIGHTS) == {"clean", "constant", "paper"}                       # all those that settings.py lets through
    assert all(Settings(flow_weight=name) for name in FLOW_WEIGHTS)


def test_positive_belongs_to_the_target_and_the_others_have_their_defaults():
    """App. F: less for the fast laundry task; what --positive sets, it sets for the target alone."""
    assert [Settings(task=task).positive for task in ("fold_shirt", "fold_collar", "box")] == [0.2, 0.4, 0.2]
    assert [Settings(task=task).beta for task in ("fold_shirt", "box")] == [2.0, 1.5] and Settings(task="box", beta=1.0).beta == 1.0
    assert [Settings(task=task).corrected for task in ("fold_shirt", "box")] == [50, 100] and Settings(task="box", corrected=0).corrected == 0
    s = Settings(task="fold_collar", positive=0.7)
    assert [s.positive_for(task) for task in ("fold_collar", "fold_shirt", "box")] == [0.7, 0.2, 0.2]
    assert Settings(task="fold_shirt", positive=0.7).positive_for("fold_shirt") == 0.7
    again = Settings(**asdict(s))                                                   # as --resume reads them
    assert again == s and again.positive_for("box") == 0.2


def test_the_target_is_always_pre_trained_on():
    assert Settings(task="box", pretraining_tasks="fold_shirt").pretraining == ["fold_shirt", "box"]
    assert Settings(task="box", pretraining_tasks="").pretraining == ["box"]
    assert Settings(task="fold_shirt", pretraining_tasks="box fold_shirt").pretraining == ["fold_shirt", "box"]
    assert set(Settings().pretraining) >= {"fold_shirt", "fold_collar", "box"}


def test_pictures_are_seen_with_vision_only():
    assert Settings().seen_cameras == () == Settings(cameras="base").seen_cameras
    assert Settings(vision=True).seen_cameras == ("base", "left_wrist", "right_wrist")
    assert Settings(vision=True, cameras="right_wrist base").seen_cameras == ("right_wrist", "base")


def test_networks_are_built_as_set():
    plain = recap.new_policy(Settings()).config, recap.new_value(Settings()).config
    assert (plain[0].cameras, plain[0].output, plain[0].insulation, plain[1].cameras) == ((), "clean", True, ())
    for change, of_policy, of_value in ((dict(output="velocity"), dict(output="velocity"), {}),
                                        (dict(insulation=False), dict(insulation=False), {}),
                                        (dict(vision=True, cameras="base"), *2 * [dict(cameras=("base",))]), (dict(cameras="base"), {}, {})):
        s = Settings(**change)
        assert recap.new_policy(s).config == replace(plain[0], **of_policy)
        assert recap.new_value(s).config == replace(plain[1], **of_value)


# ---------------------------------------------------------------- the command line

def test_every_setting_is_an_option():
    """Every field, once with a value of its own; booleans as --name and --no-name; what is not given stays None."""
    for f in fields(Settings):
        option = "--" + f.name.replace("_", "-")
        assert getattr(parse([]), f.name) is None
        if isinstance(f.default, bool):
            assert getattr(parse([option]), f.name) is True and getattr(parse(["--no-" + option[2:]]), f.name) is False
        else:
            given = f.default if f.default is not None else 0.5 if f.name in ("positive", "beta") else 7      # else: numbers of steps
            value = getattr(parse([option, str(given)]), f.name)
            assert value == given and type(value) is type(given)
    assert {f.name for f in fields(Settings) if isinstance(f.default, bool)} == {
        "supervised", "vision", "metadata", "bodies", "clip_returns", "force_corrections", "value_on_corrections", "token_loss", "insulation"}


def test_images_get_more_steps_unless_told_otherwise():
    assert [getattr(Settings(vision=v), name) for v in (False, True) for name in ("pretraining_steps", "sft_steps", "policy_steps")] \
        == [5000, 700, 3500, 10_000, 6000, 9000]
    assert Settings(vision=True, sft_steps=3).sft_steps == 3 and Settings(vision=True, **QUICK).policy_steps == QUICK["policy_steps"]


def test_no_insulation_on_the_command_line_reaches_the_run(tmp_path):
    for given, expected in (([], True), (["--insulation"], True), (["--no-insulation"], False)):
        run = recap.open_run(parse([*given, "--out", str(tmp_path / str(expected) / str(len(given)))]))
        assert run.settings == Settings(insulation=expected) and recap.new_policy(run.settings).config.insulation == expected
        assert recap.open_run(parse(["--resume", run.out])).settings == run.settings
    quick = recap.open_run(parse(["--quick", "--no-token-loss", "--ask", "fast", "--metadata", "--out", str(tmp_path / "quick")]))
    assert quick.settings == Settings(**QUICK, token_loss=False, ask="fast", metadata=True)


# ---------------------------------------------------------------- labels

def corrected_data(monkeypatch):
    """Autonomous and corrected episodes of iteration 1, and made-up values, the same at each call."""
    forced = np.arange(30) % 3 == 0
    data = [episode(30, success=i % 2 == 0, seed=i) for i in range(6)]
    data += [episode(30, source="corrected", intervention=np.roll(forced, i), success=i % 2 == 0, seed=10 + i) for i in range(6)]
    values = [np.random.default_rng(i).uniform(-1, 0, 30) for i in range(len(data))]
    monkeypatch.setattr(recap, "predict_values", lambda value, episodes: values[:len(episodes)])
    return data, values


def test_force_corrections_changes_the_labels_of_corrections_and_nothing_else(monkeypatch):
    data, values = corrected_data(monkeypatch)
    s = Settings(positive=0.4)
    forced, free = (label(None, data, replace(s, force_corrections=x), 1) for x in (True, False))
    assert forced.epsilon == free.epsilon
    R = recap.episode_returns(data, s)
    changed = 0
    for one, other, e, r, V in zip(forced.positive, free.positive, data, R, values):
        judged = advantages(r, V, s.lookahead) > forced.epsilon["fold_shirt"]
        assert np.array_equal(other, judged) and np.array_equal(one, judged | e.intervention)
        changed += (one != other).sum()
    assert 0 < changed == sum((~p & e.intervention).sum() for p, e in zip(free.positive, data))


def test_clip_returns_is_the_other_range():
    data = [replace(episode(T, success=ok), max_length=limit) for T, ok, limit in ((9, True, 10), (9, False, 10), (20, False, 40))]
    for c_fail in (0.5, 1.0, 2.0):
        clipped, filled = (recap.episode_returns(data, Settings(clip_returns=x, c_fail=c_fail)) for x in (True, False))
        for e, one, other in zip(data, clipped, filled):
            to_go = np.arange(len(e))[::-1] + (0 if e.success else c_fail * e.max_length)      # steps and C_fail still to pay
            np.testing.assert_allclose(one, -np.minimum(to_go / e.max_length, 1))
            np.testing.assert_allclose(other, -to_go / (e.max_length * (1 + c_fail)))


def test_generalist_labels_judge_every_task_by_its_own_newest_rollouts(monkeypatch):
    """iteration=None.  Task a's newest is 2, task b's is 1; older rollouts, corrections and demonstrations set no ε_ℓ."""
    rng = np.random.default_rng(5)
    of = lambda task, iteration, source="autonomous", n=8: [
        episode(30, success=bool(rng.random() < 0.5), task=task, iteration=iteration, source=source, seed=i) for i in range(n)]
    data = (of("fold_collar", 0, "demonstration") + of("fold_collar", 1) + of("fold_collar", 2) + of("fold_collar", 2, "corrected")
            + of("fold_shirt", 0, "demonstration") + of("fold_shirt", 1))
    values = [rng.uniform(-1, 0, 30) - 0.1 * e.iteration for e in data]
    monkeypatch.setattr(recap, "predict_values", lambda value, episodes: values)
    s = Settings(task="fold_shirt", positive=0.3)
    labels = label(None, data, s, None)
    A = [advantages(R, V, s.lookahead) for R, V in zip(recap.episode_returns(data, s), values)]
    for task, newest, fraction in (("fold_collar", 2, 0.4), ("fold_shirt", 1, 0.3)):         # default, and as set for the target
        pool = np.concatenate([a for a, e in zip(A, data) if (e.task, e.iteration, e.source) == (task, newest, "autonomous")])
        assert labels.epsilon[task] == threshold(pool, fraction)
        mine = np.concatenate([p for p, e in zip(labels.positive, data) if (e.task, e.iteration, e.source) == (task, newest, "autonomous")])
        assert mine.mean() == pytest.approx(fraction, abs=0.5 / len(mine) + 1e-9)
    for p, a, e in zip(labels.positive, A, data):
        assert np.array_equal(p, indicators(a, labels.epsilon[e.task]))
    with pytest.raises(ValueError, match="no autonomous one of task 'fold_shirt' in iteration"):
        label(None, of("fold_shirt", 0, "demonstration") + of("fold_shirt", 1, "corrected"), s, None)


# ---------------------------------------------------------------- training

def test_value_on_corrections_changes_the_data_of_v_and_nothing_else():
    """Off, V is the one trained as if the corrected episodes were not there; the policy is the same, to the bit."""
    kept = [episode(20, seed=i, success=i % 2 == 0) for i in range(3)] + [episode(20, source="demonstration", iteration=0, seed=7)]
    data = kept[:2] + [episode(20, source="corrected", seed=8)] + kept[2:]
    on, off = Settings(value_batch=8, batch=8), Settings(value_batch=8, batch=8, value_on_corrections=False)
    train = lambda data, s: train_value(fresh(ValueFunction, SMALL), data, s, 4)
    (without, log), (alone, log_alone), (with_them, _) = train(data, off), train(kept, on), train(data, on)
    assert torch.equal(weights_of(without), weights_of(alone)) and log == log_alone
    assert not torch.equal(weights_of(without), weights_of(with_them))
    policies = [train_policy(fresh(VLA, TINY), data, s, 3, Labels([np.ones(20, bool)] * 5, {}))[0] for s in (on, off)]
    assert torch.equal(*map(weights_of, policies))


def test_token_loss_off_leaves_the_action_tokens_untrained():
    """Their embeddings then only decay, all by one factor; the subtask's words and the expert learn as ever."""
    data, labels = [episode(20, seed=i) for i in range(2)], Labels([np.ones(20, bool)] * 2, {})
    ends = {}
    for on in (True, False):
        before = fresh(VLA, TINY)
        after = train_policy(copy.deepcopy(before), data, Settings(batch=16, token_loss=on), 5, labels)[0]
        ratio = lambda net: (net(after) / net(before)).flatten()
        ends[on] = after
        bins = ratio(lambda p: p.backbone.token.weight.detach()[len(VOCABULARY):])
        assert (bins.std() < 1e-5) == (not on)
        assert ratio(lambda p: p.text_head.weight.detach()).std() > 1e-3 and ratio(lambda p: p.expert.arm.detach()).std() > 1e-3
    assert not torch.equal(ends[True].text_head.weight, ends[False].text_head.weight)


@pytest.mark.filterwarnings("ignore::RuntimeWarning")
def test_the_default_loss_is_eq_3_with_the_weights_that_were_set(monkeypatch):
    """train_policy without `loss`: what it minimises, against the terms, for all token_loss and flow_weight."""
    data, labels, seen = [episode(20, seed=0)], Labels([np.ones(20, bool)], {}), []
    monkeypatch.setattr(recap, "optimise", lambda network, draw_loss, *rest: seen.append(draw_loss().item()) or network.eval())
    monkeypatch.setattr(recap, "flow_loss_by_eta", lambda policy, draw_batch: {})
    for token_loss in (True, False):
        for name, alpha in FLOW_WEIGHTS.items():
            policy, draws = fresh(VLA, TINY), []
            real = policy.terms
            monkeypatch.setattr(policy, "terms", lambda *given: draws.append(given) or real(*given))
            train_policy(policy, data, Settings(batch=8, token_loss=token_loss, flow_weight=name), 1, labels)
            terms = real(*draws[0][:3], alpha)
            expected = terms["subtask"].mean() + token_loss * terms["tokens"].mean() + 10 * terms["flow"].mean()
            assert seen[-1] == pytest.approx(expected.item(), rel=1e-5)
    assert len(set(seen)) == 6


# ---------------------------------------------------------------- data and acting

def test_d_demo_holds_every_task_of_pre_training_and_every_body_if_asked(monkeypatch):
    asked = []

    def spy(s, spec, seeds, operator_skill, body):
        asked.append((spec.name, body.name, tuple(seeds)))
        return []
    monkeypatch.setattr(recap, "collect", spy)
    s = Settings(task="box", pretraining_tasks="fold_collar", demonstrations=3)
    recap.multi_task_demonstrations(s)
    assert [x[:2] for x in asked] == [("fold_collar", "static"), ("box", "static")]
    static = {x[:2]: x[2] for x in asked}
    asked.clear()
    recap.multi_task_demonstrations(replace(s, bodies=True))
    assert {x[:2] for x in asked} == {(task, body) for task in ("fold_collar", "box") for body in BODIES} and len(BODIES) == 4
    assert all(dict((x[:2], x[2]) for x in asked)[key] == seeds for key, seeds in static.items())   # the robot's own stay the same
    assert len({seed for x in asked for seed in x[2]}) == 3 * len(asked)                              # no episode twice
    asked.clear()
    recap.demonstrate(s, "box", recap.GOOD, "sft")
    assert [x[1] for x in asked] == ["static"]                                                        # SFT: the target's robot


def test_demonstrations_carry_metadata_and_rollouts_are_asked_for_them(monkeypatch):
    """`ask` goes into the policy's prompt when acting and is kept beside the prompt of the episode, not in it."""
    spec, prompts = sim_tasks.TASKS["fold_collar"], []
    demos = recap.collect(Settings(), spec, [0, 1, 2, 3, 4, 5], operator_skill=recap.MIXED)
    world = recap.World(spec, range(6))
    assert [e.metadata for e in demos] == recap.Operator(world, range(6), recap.MIXED).metadata()
    assert {e.prompt for e in demos} == {"fold collar up"} and len({e.metadata for e in demos}) > 1
    subtasks = lambda policy, seen, prompt: prompts.append(prompt) or torch.zeros(len(prompt), 2).long()
    monkeypatch.setattr(recap, "predict_subtask", subtasks)
    monkeypatch.setattr(recap, "sample_actions", lambda policy, seen, prompt, *rest: prompts.append(prompt) or torch.zeros(len(prompt), 8, 6))
    for ask, expected in (("", "fold collar up"), ("fast careful", "fold collar up fast careful")):
        prompts.clear()
        rollouts = recap.collect(Settings(), spec, [0, 1], VLA(), ask=ask)
        assert prompts and all((p == torch.tensor(encode(expected, PROMPT_LENGTH))).all() for p in prompts)
        assert [(e.prompt, e.metadata) for e in rollouts] == [("fold collar up", ask)] * 2
