"""examples/aloha.py: the physics, the expert, a tiny run.  Needs MuJoCo and gym-aloha's meshes."""
import os

import numpy as np
import pytest
from PIL import Image

pytest.importorskip("mujoco", reason="no MuJoCo here: pip install -r requirements-aloha.txt")
pytest.importorskip("gym_aloha", reason='no gym-aloha: pip install --no-deps "gym-aloha==0.1.*"')

import recap
from collection import demonstrate
from examples import aloha
from helpers import ROOT, options
from lab import cli
from lab.files import load_dataset
from sim_tasks import find_task

pytestmark = pytest.mark.slow
FILE = os.path.join(ROOT, "examples", "aloha.py")
TINY = dict(
    iterations=1, demonstrations=3, autonomous=2, corrected=1, evaluation_episodes=2,
    pretraining_steps=2, sft_steps=2, policy_steps=2, value_pretraining_steps=2, value_steps=2,
    batch=8, value_batch=8,
)  # fmt: skip

@pytest.fixture(scope="module")
def task():
    return find_task(f"{FILE}:TRANSFER_CUBE")

def test_the_expert_hands_the_cube_over_and_a_seed_is_an_episode(task):
    episodes = demonstrate(task, [1, 2, 3, 4, 5], "best")
    assert all(e.success for e in episodes)
    assert max(len(e) for e in episodes) < 0.5 * task.max_steps
    (alone,) = demonstrate(task, [3], "best")
    for name, x in alone.observations.items():
        np.testing.assert_array_equal(x, episodes[2].observations[name])

def test_success_is_the_left_arm_alone_for_three_steps(task):
    """The cube in the air, both left fingers on it and none of the right, at the last steps."""
    (episode,) = demonstrate(task, [1], "best")
    hands = episode.observations["keypoints"][:, :2, -2:]  # touches of the fingers
    height = episode.observations["keypoints"][:, 2, -1]
    # The last observation is the one before the step of success.
    assert (hands[-2:, 0] == 1).all() and (hands[-2:, 1] == 0).all() and (height[-2:] > 0).all()
    assert list(dict.fromkeys(episode.subtask)) == list(task.subtasks)

def test_mixed_operators_fail_sometimes_and_are_slower(task):
    episodes = demonstrate(task, range(100, 124), "mixed")
    success = np.mean([e.success for e in episodes])
    assert 0.4 <= success <= 0.95
    assert np.mean([len(e) for e in episodes if e.success]) > 50

@pytest.mark.parametrize("words", [[], ["no such run"], ["a", "b"]])
def test_a_folder_that_is_no_run_is_one_line(words, capsys):
    assert aloha.main(words) == 2
    line = capsys.readouterr().err.splitlines()[-1]
    assert "aloha.py: error: " in line and (len(words) != 1 or "no such run" in line)

def test_algorithm_1_runs_on_it(tmp_path):
    out = str(tmp_path / "run")
    argv = ["--task", f"{FILE}:TRANSFER_CUBE", "--out", out, *options(TINY)]
    assert cli.main(recap.recap, recap.supervised, None, argv) == 0
    D = load_dataset(os.path.join(out, "D_1.npz"))
    assert {e.source for e in D} == {"autonomous", "corrected"} and D[0].actions.shape[1] == 14

def test_the_camera_above_sees_the_cube_move():
    scene = find_task(f"{FILE}:FROM_ABOVE").scene()
    scene.reset(0)
    try:
        first = scene.observe()["top"]
    except RuntimeError as error:
        pytest.skip(str(error))
    for _ in range(8):
        scene.step(scene.expert())
    assert first.shape == (48, 48, 3) and first.dtype == np.uint8
    assert (scene.observe()["top"] != first).any()

def test_a_film_ends_with_the_outcome_written_on(task, tmp_path, monkeypatch):
    monkeypatch.setattr(aloha, "frame", lambda scene: np.zeros((170, 320, 3), np.uint8))
    (e,) = demonstrate(task, [1], "best")
    aloha.film(aloha.AlohaScene(), 1, e, tmp_path / "a.gif")
    with Image.open(tmp_path / "a.gif") as gif:
        lit = []  # how far to the right something is written
        for i in range(gif.n_frames):
            gif.seek(i)
            lit.append(np.nonzero(np.array(gif.convert("L")) > 100)[1].max())
        assert gif.n_frames == len(e) + 1 and gif.info["duration"] == 800
    assert lit[-1] > max(lit[:-1]) + 30
