"""Pictures, by what can be read back: numbers from Axes, changes from pixels, frames from GIFs."""
from dataclasses import replace

import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt
import numpy as np
import pytest
from matplotlib.collections import LineCollection
from PIL import Image

from collection import demonstrate
from lab.pictures import LAST_S, film, written
from lab.plots import BLUE, GREEN, GREY, VERMILLION, learning_curve, trends, value_trace
from sim_tasks import TASKS
from sim_tasks.arms import World, inverse_kinematics
from sim_tasks.render import LEFT, TOP, VIEW, draw, write_gif

SHIRT = TASKS["fold_shirt"]

@pytest.fixture(autouse=True)
def no_figures_left():
    yield
    plt.close("all")

# ---------------------------------------------------------------- Fig. 4

def test_trends_marks_a_drop_and_a_rise_where_they_happen():
    values = np.full(120, -0.5)
    values[40:] -= 0.2  # between steps 39 and 40
    values[80:] += 0.3  # between steps 79 and 80
    expected = np.zeros(120, int)
    expected[38:42], expected[78:82] = -1, 1  # within a quarter of the window on either side
    np.testing.assert_array_equal(trends(values, window=8, notable=0.03), expected)
    np.testing.assert_array_equal(trends(values, window=8, notable=0.25), np.maximum(expected, 0))
    expected[36:44], expected[76:84] = -1, 1  # a window twice as long looks twice as far
    np.testing.assert_array_equal(trends(values, window=16), expected)

def test_trends_takes_the_nearing_end_for_no_rise_but_a_loss_always_for_a_drop():
    steady = np.linspace(-1, 0, 101)  # V rises by 0.01 a step by itself: 0.08 in a window
    np.testing.assert_array_equal(trends(steady), 0)
    # 0.08 lost in 8 steps, everywhere
    np.testing.assert_array_equal(trends(steady[::-1]), -1)
    slip = steady.copy()
    slip[50:] -= 0.3
    marked = trends(slip)
    assert set(np.flatnonzero(marked)) == {48, 49, 50, 51} and (marked[48:52] == -1).all()
    jump = steady * 0.5
    jump[50:] += 0.1
    marked = trends(jump)  # on top of the steady gain: within the window
    assert (marked[48:52] == 1).all() and (marked[:46] == 0).all() and (marked[54:] == 0).all()
    assert trends([-0.5]).tolist() == [0]

def test_value_trace_draws_v_over_time_in_the_colours_of_its_trends():
    values = np.full(60, -0.6)
    values[20:] -= 0.2
    values[40:] += 0.5
    frames = [np.full((4, 4, 3), shade, np.uint8) for shade in (10, 100, 200)]
    fig = plt.figure()
    ax = value_trace(
        values, frames, [0, 30, 59], "an episode", fig, seconds_per_step=0.1, success=True
    )
    (pieces,) = [c for c in ax.collections if isinstance(c, LineCollection)]
    points = np.stack([np.arange(60) / 10, values], -1)
    np.testing.assert_allclose(pieces.get_segments(), np.stack([points[:-1], points[1:]], 1))
    colours = [matplotlib.colors.to_hex(c) for c in pieces.get_colors()]
    assert colours == [{-1: VERMILLION, 0: GREY, 1: GREEN}[i] for i in trends(values)[:-1]]
    pictures = [a for a in fig.axes if a is not ax]
    assert [a.images[0].get_array()[0, 0, 0] for a in pictures] == [10, 100, 200]
    assert [a.get_title() for a in pictures] == ["0.0 s", "3.0 s", "5.9 s"]
    legend = [text.get_text() for text in ax.get_legend().get_texts()]
    assert legend == ["a frame", "success", "V rises notably", "V drops notably"]
    (left, right), (bottom, top) = ax.get_xlim(), ax.get_ylim()
    assert left < 0 and right > 5.9 and bottom < -1 and top > 0  # no marker on the frame
    marks = {
        (line.get_marker(), *np.round((line.get_xdata()[0], line.get_ydata()[0]), 6))
        for line in ax.lines
    }
    assert {("o", 0, -0.6), ("o", 3.0, -0.8), ("o", 5.9, -0.3), ("*", 5.9, -0.3)} <= marks
    assert sorted(marker for marker, *_ in marks) == ["*", "^", "o", "o", "o", "v"]
    assert "success" in fig.get_suptitle()

# ---------------------------------------------------------------- Figs. 7-10

STAGES = ("demonstrations", "supervised", "rl_pretrained", "offline_rl_sft", "recap_1", "recap_2")
APART = STAGES[:2]

def metrics():
    """Every number differs from every other."""
    rng = np.random.default_rng(0)
    return {
        "task": "fold_shirt",
        "seed": 3,
        "stages": [
            {
                "name": name,
                "beta": beta,
                "success": rng.random(),
                "success_se": 0.1 * rng.random(),
                "throughput": 700 * rng.random(),
                "throughput_se": 30 * rng.random(),
                "episodes": 100 if name == "recap_2" else 300,
            }
            for name in STAGES
            for beta in (
                (None,) if name in APART else (1, 1.5, 2.0) if name.startswith("recap") else (1,)
            )
        ],
    }

def test_learning_curve_draws_the_numbers_that_it_was_given():
    given = metrics()
    fig = plt.figure()
    axes = learning_curve(given, fig)
    for ax, key, scale in zip(axes, ("throughput", "success"), (1, 100)):
        drawn = {}
        for container in ax.containers:
            line, _, (bars,) = container.lines
            for x, y, bar in zip(line.get_xdata(), line.get_ydata(), bars.get_segments()):
                assert bar[0][0] == bar[1][0] == x and (bar[0][1] + bar[1][1]) / 2 == pytest.approx(
                    y
                )
                # beside its stage, not beside the next one
                assert abs(x - round(x)) < 0.3
                drawn[container.get_label(), round(x)] = (y, (bar[1][1] - bar[0][1]) / 2)
        expected = {}
        for s in given["stages"]:
            label = (
                "demonstrations"
                if s["name"] == "demonstrations"
                else "imitation only (a second network)"
                if s["name"] == "supervised"
                else "β = 1 (no guidance)"
                if s["beta"] == 1
                else f"β = {s['beta']:g} (guided, Eq. 13)"
            )
            expected[label, STAGES.index(s["name"])] = (scale * s[key], scale * s[key + "_se"])
        assert drawn.keys() == expected.keys() and len(drawn) == len(given["stages"]) == 10
        for where, numbers in expected.items():
            assert drawn[where] == pytest.approx(numbers), where
        assert list(ax.get_xticks()) == list(range(6))
        assert [t.get_text() for t in ax.get_xticklabels()][-2:] == ["RECAP\nk=1", "RECAP\nk=2"]
        low, high = ax.get_ylim()
        # nothing cut off, no cut axis
        assert low == 0 and high >= max(y for y, _ in drawn.values())
    legend = [text.get_text() for text in axes[0].get_legend().get_texts()]
    assert set(legend) == {label for label, _ in expected}
    assert "fold_shirt, seed 3" in fig.get_suptitle() and "100-300 episodes" in fig.get_suptitle()

def test_learning_curve_joins_the_chain_of_algorithm_1_and_nothing_else():
    axes = learning_curve(metrics())
    joined = {c.get_label(): c.lines[0] for c in axes[0].containers}
    assert joined["demonstrations"].get_linestyle() == "None"
    chain = joined["β = 1 (no guidance)"]
    assert (
        list(chain.get_xdata()) == [2, 3, 4, 5]
        and chain.get_linestyle() == "-"
        and chain.get_color() == BLUE
    )

# ---------------------------------------------------------------- pictures of the table

def observation(spec=TASKS["fold_shirt"], seed=0):
    seen = World(spec, [seed]).observe()
    return seen["state"][0], seen["keypoints"][0]

def changed_pixels(one, other, near, size=240):
    """How many pixels differ; asserts that they lie within 0.12 m of a point on the table."""
    rows, columns = np.nonzero((one != other).any(-1))
    x, y = LEFT + (columns + 0.5) * VIEW / size, TOP - (rows + 0.5) * VIEW / size
    assert (np.hypot(x - near[0], y - near[1]) < 0.12).all()
    return len(rows)

@pytest.mark.parametrize("arm", (0, 1))
def test_every_state_of_a_half_looks_different_and_only_there(arm):
    state, keypoints = observation()
    looks = {}
    for name, flags in {
        "free": (0, 0, 0, 0),
        "edge": (1, 0, 0, 0),
        "about to slip": (1, 0, 0.9, 0),
        "good": (0, 1, 0, 0),
        "placed": (0, 0, 0, 1),
    }.items():
        keypoints[arm, 7:11] = flags
        looks[name] = draw(state, keypoints, SHIRT)
    names = list(looks)
    for i, one in enumerate(names):
        for other in names[:i]:
            assert changed_pixels(looks[one], looks[other], keypoints[arm, :2]) > 15, (one, other)

def test_equal_observations_give_equal_pictures_and_are_left_alone():
    state, keypoints = observation()
    kept = state.copy(), keypoints.copy()
    picture = draw(state, keypoints, SHIRT)
    np.testing.assert_array_equal(draw(*kept, SHIRT), picture)
    np.testing.assert_array_equal(
        np.concatenate([state, keypoints.ravel()]), np.concatenate([kept[0], kept[1].ravel()])
    )
    # what the wrist cameras see is not drawn
    keypoints[:, 2:6] += 1
    np.testing.assert_array_equal(draw(state, keypoints, SHIRT), picture)
    assert draw(state, keypoints, SHIRT, size=96).shape == (96, 96, 3)

def test_what_moves_is_seen_to_move():
    state, keypoints = observation()
    picture = draw(state, keypoints, SHIRT)
    for i in range(6):  # joints and grippers
        moved = state.copy()
        moved[i] += -0.5 if i % 3 == 2 else 0.1
        assert (draw(moved, keypoints, SHIRT) != picture).any(-1).sum() > 30
    for row in range(4):  # handles and goals
        moved = keypoints.copy()
        moved[row, 1] += 0.05
        assert (draw(state, moved, SHIRT) != picture).any(-1).sum() > 30
    # the stage: another item, another caption
    for k in (1, 2):
        moved = keypoints.copy()
        moved[:, 11:17] = np.arange(6) == k
        assert (draw(state, moved, SHIRT) != picture).any(-1).sum() > 300

def test_the_hand_is_drawn_where_kinematics_puts_it():
    # far from everything else on the table
    point = np.array([-0.1, 0.8])
    state, keypoints = observation()
    joints = inverse_kinematics(np.array([point, (0.3, 0.3)]))
    state[:2] = joints[0]
    here = draw(state, keypoints, SHIRT)
    state[2] = 0.3  # the gripper alone
    assert changed_pixels(here, draw(state, keypoints, SHIRT), point) > 15

# ---------------------------------------------------------------- GIFs

def test_a_film_ends_with_the_success_and_stands_still_there():
    (e,) = demonstrate(SHIRT, [0], "best")
    shown = film(SHIRT, e, 2.0)
    T = len(e)
    pause = round(LAST_S * SHIRT.hz)
    assert len(shown) == T + 1 + pause
    assert all(np.array_equal(frame, shown[T]) for frame in shown[T:])
    # What is written stands in the lower left corner alone; the rest is the picture.
    for t, frame in enumerate(shown[: T + 1]):
        seen = e.last if t == T else {name: x[t] for name, x in e.observations.items()}
        rows, columns = np.nonzero((frame != SHIRT.picture(seen)).any(-1))
        assert len(rows) > 50 and rows.min() > 220
    # Without o_T the last step is the end.
    assert len(film(SHIRT, replace(e, last=None), 2.0)) == T + pause

def test_words_can_be_read_on_dark_and_on_light_pictures():
    for shade in (0, 255):
        picture = np.full((170, 320, 3), shade, np.uint8)
        shown = written(picture, "β = 1   2.0 s   success").astype(int)
        assert np.abs(shown - shade).max() > 150

def colourful(n):
    """n different frames of few colours, which a palette keeps exactly."""
    frames = np.zeros((n, 20, 24, 3), np.uint8)
    for i in range(n):
        frames[i, :, : i + 1] = 255, 0, 8 * (i % 3)
    return list(frames)

def read(path):
    with Image.open(path) as gif:
        shown = []
        for i in range(gif.n_frames):
            gif.seek(i)
            shown.append((np.array(gif.convert("RGB")), gif.info["duration"]))
    return [frame for frame, _ in shown], [duration for _, duration in shown]

def test_write_gif_writes_every_frame_in_order(tmp_path):
    frames = colourful(17)
    write_gif(frames, tmp_path / "a.gif", fps=10)
    shown, durations = read(tmp_path / "a.gif")
    assert len(shown) == 17 and durations == [100] * 17
    np.testing.assert_array_equal(shown, frames)
    # standing still takes time, too
    write_gif([*frames[:4], frames[3], frames[3]], str(tmp_path / "b.gif"), fps=20)
    assert sum(read(tmp_path / "b.gif")[1]) == 6 * 50
    assert sorted(p.name for p in tmp_path.iterdir()) == ["a.gif", "b.gif"]

def test_an_interrupted_gif_leaves_the_old_one_whole(tmp_path, monkeypatch):
    path = tmp_path / "a.gif"
    write_gif(colourful(3), path)
    before = path.read_bytes()

    def fail_midway(self, file, *args, **kwargs):
        with open(file, "wb") as out:
            out.write(before[:50])
        raise OSError("disk full")

    monkeypatch.setattr(Image.Image, "save", fail_midway)
    with pytest.raises(OSError, match="disk full"):
        write_gif(colourful(5), path)
    assert path.read_bytes() == before
