"""settings.py: what is refused, and what follows from what."""
import math
from dataclasses import asdict, replace

import pytest

import sim_tasks
from helpers import TOYS, seen_by
from lab.cli import QUICK
from policy import FLOW_WEIGHTS
from settings import Settings

WORDS = "evaluation_metadata"

@pytest.mark.parametrize(
    "change, message",
    [
        (
            dict(vision=True, cameras="base top"),
            "cameras: 'base top', expected some of base, left_wrist, right_wrist",
        ),
        (dict(cameras=""), "cameras: ''"),
        (
            dict(pretraining_tasks="fold_shirt juggle"),
            "pretraining_tasks: 'fold_shirt juggle', expected some of fold_shirt",
        ),
        (dict(bodies=True, vision=True), "bodies: True, expected no other bodies with --vision"),
        (
            dict(evaluation_metadata="fast careful"),
            f"{WORDS}: 'fast careful', expected nothing without --metadata",
        ),
        (
            dict(evaluation_metadata="quick", metadata=True),
            f"{WORDS}: 'quick', expected some of fast, slow, careful, careless",
        ),
        (
            dict(evaluation_metadata="fast slow careful", metadata=True),
            f"{WORDS}: 'fast slow careful', expected two words at most",
        ),
        (dict(restart="first"), "restart: 'first', expected pretrained, last or all"),
        (dict(output="noise"), "output: 'noise', expected clean or velocity"),
        (dict(flow_weight="snr"), "flow_weight: 'snr', expected clean or constant or paper"),
        (dict(metadata_dropout=1.1), "metadata_dropout: 1.1"),
        (dict(metadata_dropout=math.nan), "metadata_dropout: nan"),
        (dict(web=-0.1), "web: -0.1"),
        (dict(web=math.nan), "web: nan"),
        (dict(web=5.0), "web: 5.0"),
        (dict(value_clock=True, web=0.5), "value_clock: True, expected no --web"),
        (dict(size="small", horizon=4), "horizon: 4, expected at least the 8 coefficients"),
        (dict(batch=10**7), "batch: 10000000, expected an integer <= 1,000,000"),
        (dict(demonstrations=10**9), "demonstrations: 1000000000, expected an integer <="),
        (dict(draws=1001), "draws: 1001, expected an integer <= 1,000"),
    ],
)
def test_settings_that_cannot_be(change, message):
    with pytest.raises(ValueError) as error:
        Settings(**change)
    assert str(error.value).startswith(message)

def test_settings_at_the_edges_of_what_can_be():
    for edge in (
        dict(metadata_dropout=0.0), dict(metadata_dropout=1.0), dict(web=4.0), dict(bodies=True),
        dict(metadata=True, evaluation_metadata="careful"),
        dict(metadata=True, evaluation_metadata="fast careful"),
        dict(vision=True, cameras="base"), dict(corrected=0), dict(iterations=0),
    ):  # fmt: skip
        s = Settings(**edge)
        assert all(getattr(s, name) == value for name, value in edge.items())
    # All those that settings.py lets through.
    assert set(FLOW_WEIGHTS) == {"clean", "constant", "paper"}
    assert all(Settings(flow_weight=name) for name in FLOW_WEIGHTS)

def test_positive_belongs_to_the_target_and_the_others_have_their_defaults(monkeypatch):
    """App. F: less for the fast laundry task.

    What --positive sets, it sets for the target alone.
    """
    tasks = ("fold_shirt", "fold_collar", "box")
    assert [Settings(task=task).positive for task in tasks] == [0.2, 0.2, 0.2]
    other = replace(sim_tasks.TASKS["fold_collar"], positive=0.4)
    monkeypatch.setitem(sim_tasks.TASKS, "fold_collar", other)
    assert [Settings(task=task).positive for task in tasks] == [0.2, 0.4, 0.2]
    assert Settings(task="box", positive=0.7).positive_for("fold_collar") == 0.4
    assert [Settings(task=task).beta for task in ("fold_shirt", "box")] == [2.0, 1.5]
    assert Settings(task="box", beta=1.0).beta == 1.0
    assert [Settings(task=task).corrected for task in ("fold_shirt", "box")] == [50, 100]
    assert Settings(task="box", corrected=0).corrected == 0
    s = Settings(task="fold_collar", positive=0.7)
    assert [s.positive_for(task) for task in tasks] == [0.2, 0.7, 0.2]
    assert Settings(task="fold_shirt", positive=0.7).positive_for("fold_shirt") == 0.7
    # As --resume reads them.
    again = Settings(**asdict(s))
    assert again == s and again.positive_for("box") == 0.2

def test_the_target_is_always_pre_trained_on():
    both = ["fold_shirt", "box"]
    assert Settings(task="box", pretraining_tasks="fold_shirt").pretraining == both
    assert Settings(task="box", pretraining_tasks="").pretraining == ["box"]
    assert Settings(task="fold_shirt", pretraining_tasks="box fold_shirt").pretraining == both
    assert set(Settings().pretraining) >= {"fold_shirt", "fold_collar", "box"}

def test_pictures_are_seen_with_vision_only():
    for blind in (Settings(), Settings(cameras="base")):
        assert blind.interface == TOYS and blind.interface.cameras == ()
    assert Settings(vision=True).interface == seen_by("base", "left_wrist", "right_wrist")
    two = Settings(vision=True, cameras="right_wrist base")
    assert two.interface.cameras == ("right_wrist", "base")

def test_images_get_more_steps_unless_told_otherwise():
    names = ("pretraining_steps", "sft_steps", "policy_steps")
    for vision, expected in ((False, [5000, 700, 3500]), (True, [10_000, 6000, 9000])):
        s = Settings(vision=vision)
        assert [getattr(s, name) for name in names] == expected
    assert Settings(vision=True, sft_steps=3).sft_steps == 3
    assert Settings(vision=True, **QUICK).policy_steps == QUICK["policy_steps"]
