"""Experiments beyond the paper, and its conditions: the critic, and (slow) that all of them run."""
import numpy as np
import pytest

from helpers import SMALL_VALUE, episode, fresh
from reproduce import beyond, conditions
from reproduce.beyond import ROUNDS, train_critic
from reproduce.options import Options
from settings import Settings
from value import ValueFunction, predict_values

@pytest.mark.parametrize("tau", [0.5, 0.9])
def test_the_critic_is_an_expectile_of_what_followed(tau):
    """From one observation half of the episodes succeed at once, half fail: G is 0 or -1/2.

    The τ-expectile e is where τ (0 - e) = (1 - τ) (e + 1/2).
    """
    D = []
    for i in range(40):
        e = episode(1, seed=0, success=i % 2 == 0)
        e.max_length = 10
        D.append(e)
    s = Settings(value_steps=80, value_batch=64)
    value = train_critic(fresh(ValueFunction, SMALL_VALUE), D, s, tau)
    found = np.concatenate(predict_values(value, D))
    assert found == pytest.approx(np.full(40, -(1 - tau) / 2), abs=0.03)

def test_the_critic_joins_what_no_episode_has_seen_together(monkeypatch):
    """Its target is Σ r + V(o_{t+N}) of the round before, not the return."""
    s = Settings(lookahead=3, value_steps=1, value_batch=4)
    D = [episode(8, seed=1, success=False)]
    targets = []
    real = beyond.discretize
    monkeypatch.setattr(beyond, "discretize", lambda G: targets.append(G.numpy()) or real(G))
    value = fresh(ValueFunction, SMALL_VALUE)
    (V,) = predict_values(value, D)
    train_critic(value, D, s, 0.7)
    size = 2 * D[0].max_length  # the limit, and C_fail
    end = np.array([-(D[0].max_length + 7 - t) / size for t in range(8)])  # R of a failure
    expected = np.where(np.arange(8) < 5, -3 / size + np.append(V[3:], [0, 0, 0]), end)
    np.testing.assert_allclose(targets[0], expected, atol=1e-6)

def test_all_rounds_collect_and_train_as_much():
    for change in ROUNDS.values():
        s = Settings(**change)
        assert s.iterations * (s.autonomous + s.corrected) == 400
        assert s.iterations * s.policy_steps == pytest.approx(7000, rel=0.002)
        assert s.iterations * s.value_steps == 1200

@pytest.mark.slow
def test_the_experiments_run(tmp_path, monkeypatch):
    """At the smallest size; of the rounds two kinds only."""
    monkeypatch.chdir(tmp_path)
    short = {"batches": dict(iterations=1), "rounds": dict(iterations=2, restart="all")}
    monkeypatch.setattr(beyond, "ROUNDS", short)
    monkeypatch.setattr(beyond, "CRITICS", {"mc": None, "td_0.7": 0.7})
    o = Options((0,), 1, quick=True)
    beyond.online(o)
    rows = o.read("ablation_online")["rows"]
    assert {name: x["episodes"] for name, x in rows.items()} == {
        "batches": [0, 25], "rounds": [0, 25, 50],
    }  # fmt: skip
    assert all(len(x["β=1"]) == len(x["guided"]) == len(x["episodes"]) for x in rows.values())
    assert (tmp_path / "runs/quick/docs/images/online.png").exists()
    monkeypatch.setattr(conditions, "CLIMBS", {"FoldShirt, 25 a round": dict(iterations=1)})
    conditions.climb(o)
    assert list(o.read("ablation_climb")["rows"]) == ["FoldShirt, 25 a round"]
    monkeypatch.setattr(conditions, "HANDOVERS", [(2, 2), (1, 1)])
    conditions.handover(o)
    rows = o.read("ablation_handover")["rows"]
    assert len(rows["policy"]) == 4 + 2 * 2 and len(rows["compared"]) == 3
    conditions.clock(o)
    rows = o.read("ablation_clock")["rows"]
    assert len(rows["policy"]) == 2 * 3 and list(rows["labels"]) == ["no clock", "a clock"]
    assert rows["value"]["a clock"]["calibration error"]["mean"] > 0
    beyond.critic(o)
    rows = o.read("ablation_critic")["rows"]
    assert len(rows["policy"]) == 3 + 2 * 2
    assert list(rows["labels"])[1:] == ["critic_mc", "critic_td_0.7"]
