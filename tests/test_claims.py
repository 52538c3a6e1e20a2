"""The core claims at reduced scale, with fixed seeds and generous margins: that the loop closes on every machine."""
import numpy as np
import pytest

import recap
from data import load_network
from settings import Settings

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """One iteration on FoldCollar from its own demonstrations, a third of the default steps, no corrections."""
    out = str(tmp_path_factory.mktemp("claims"))
    s = Settings(task="fold_collar", pretraining_tasks="fold_collar", iterations=1, corrected=0, episodes=300, seed=3,
                 pretraining_steps=1500, policy_steps=1500)
    run = recap.Run(s, out, recap.KINDS)
    recap.recap(run)
    return run


def stage(run, name, beta=1.0):
    return next(x for x in run.stages if x["name"] == name and x["beta"] == beta)


def test_one_iteration_helps(run):
    """C7 and C10 in small: far fewer failures, and faster, than offline RL + SFT, whose demonstrations go the wrong way half
    of the time."""
    before, after = stage(run, "offline_rl_sft"), stage(run, "recap_1")
    assert before["success"] < 0.65 and after["success"] > before["success"] + 0.2
    assert after["throughput"] > 1.5 * before["throughput"]


def test_guidance_helps_further(run):
    """C9 in small: moderate guidance is not slower."""
    assert stage(run, "recap_1", run.settings.beta)["throughput"] > 0.95 * stage(run, "recap_1")["throughput"]


def test_the_value_function_knows_the_outcome(run):
    """V on rollouts that it was not trained on."""
    report = run.value_report["V_1"]
    assert report["heldout_correlation"] > 0.5 and report["outcome_auc"] > 0.75 and report["prompt_effect"] is None


def test_labels_are_as_many_as_asked_for_and_separate_the_ways(run):
    labels = run.labels[0]
    assert labels["positive_fraction_rollouts"] == pytest.approx(0.4, abs=0.01)
    D = [e for e in recap.load_dataset(run.path("D_1.npz"))]
    V = load_network(run.path("V_1.npz"), recap.KINDS)[0]
    positive = recap.label(V, [*recap.load_dataset(run.path("D_0.npz")), *D], run.settings, 1).positive[-len(D):]
    up, down = (np.mean([p.mean() for p, e in zip(positive, D) if e.success == ok]) for ok in (True, False))
    assert up > 2 * down            # steps of episodes that go the right way
