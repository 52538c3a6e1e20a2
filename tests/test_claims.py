"""The core claims at reduced scale, with fixed seeds and generous margins: the loop closes."""
import numpy as np
import pytest

import recap
from lab.files import load_dataset, load_network
from lab.run import Run
from labels import label
from settings import Settings
from value import predict_values

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """One iteration on FoldCollar from its own demonstrations, no corrections.

    A third of the default steps.
    """
    out = str(tmp_path_factory.mktemp("claims"))
    s = Settings(
        task="fold_collar", pretraining_tasks="fold_collar", iterations=1, corrected=0, seed=3,
        evaluation_episodes=300, pretraining_steps=1500, policy_steps=1500,
    )  # fmt: skip
    run = Run(s, out)
    recap.recap(s, run.keep)
    return run


def stage(run, name, beta=1.0):
    return next(row for row in run.stages if row["name"] == name and row["beta"] == beta)


def test_one_iteration_helps(run):
    """C7 and C10 in small: far fewer failures, and faster, than offline RL + SFT.

    Half of SFT's demonstrations go the wrong way.
    """
    before = stage(run, "offline_rl_sft")
    after = stage(run, "recap_1")
    assert before["success"] < 0.65 and after["success"] > before["success"] + 0.2
    assert after["throughput"] > 1.5 * before["throughput"]


def test_guidance_helps_further(run):
    """C9 in small: moderate guidance is not slower."""
    plain = stage(run, "recap_1")
    guided = stage(run, "recap_1", run.settings.beta)
    assert guided["throughput"] > 0.95 * plain["throughput"]


def test_the_value_function_knows_the_outcome(run):
    """V on rollouts that it was not trained on."""
    report = run.value_report["V_1"]
    assert report["heldout_correlation"] > 0.5 and report["outcome_auc"] > 0.75
    assert report["prompt_effect"] is None


def test_labels_are_as_many_as_asked_for_and_separate_the_ways(run):
    labels = run.labels[0]
    assert labels["positive_fraction_rollouts"] == pytest.approx(0.2, abs=0.01)
    newest = load_dataset(run.path("D_1.npz"))
    D = load_dataset(run.path("D_0.npz")) + newest
    V = load_network(run.path("V_1.npz"))
    I = label(predict_values(V, D), D, run.settings, iteration=1)[-len(newest) :]
    share = {}
    for success in (True, False):
        share[success] = np.mean([i.mean() for i, e in zip(I, newest) if e.success == success])
    assert share[True] > 2 * share[False]  # steps of episodes that go the right way
