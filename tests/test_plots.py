"""Pictures, by what can be read back from them: numbers from Axes, changes from pixels, frames from GIFs."""
import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt
import numpy as np
import pytest
from matplotlib.collections import LineCollection
from PIL import Image

from plots import BLUE, GREEN, GREY, VERMILLION, bars, guidance, learning_curve, ratios, stage_bars, trends, value_trace
from sim_tasks import TASKS
from sim_tasks.arms import World, inverse_kinematics
from sim_tasks.render import LEFT, TOP, VIEW, draw, write_gif


@pytest.fixture(autouse=True)
def no_figures_left():
    yield
    plt.close("all")


# ---------------------------------------------------------------- Fig. 4

def test_trends_marks_a_drop_and_a_rise_where_they_happen():
    values = np.full(120, -0.5)
    values[40:] -= 0.2                       # between steps 39 and 40
    values[80:] += 0.3                       # between steps 79 and 80
    expected = np.zeros(120, int)
    expected[38:42], expected[78:82] = -1, 1         # within a quarter of the window on either side
    np.testing.assert_array_equal(trends(values, window=8, notable=0.03), expected)
    np.testing.assert_array_equal(trends(values, window=8, notable=0.25), np.maximum(expected, 0))
    expected[36:44], expected[76:84] = -1, 1         # a window twice as long looks twice as far
    np.testing.assert_array_equal(trends(values, window=16), expected)


def test_trends_takes_the_nearing_end_for_no_rise_but_a_loss_always_for_a_drop():
    steady = np.linspace(-1, 0, 101)         # V rises by 0.01 a step by itself: 0.08 in a window
    np.testing.assert_array_equal(trends(steady), 0)
    np.testing.assert_array_equal(trends(steady[::-1]), -1)          # 0.08 lost in 8 steps, everywhere
    slip = steady.copy()
    slip[50:] -= 0.3
    marked = trends(slip)
    assert set(np.flatnonzero(marked)) == {48, 49, 50, 51} and (marked[48:52] == -1).all()
    jump = steady * 0.5
    jump[50:] += 0.1
    marked = trends(jump)                    # on top of the steady gain: within the window
    assert (marked[48:52] == 1).all() and (marked[:46] == 0).all() and (marked[54:] == 0).all()
    assert trends([-0.5]).tolist() == [0]


def test_value_trace_draws_v_over_time_in_the_colours_of_its_trends():
    values = np.full(60, -0.6)
    values[20:] -= 0.2
    values[40:] += 0.5
    frames = [np.full((4, 4, 3), shade, np.uint8) for shade in (10, 100, 200)]
    fig = plt.figure()
    ax = value_trace(values, frames, [0, 30, 59], "an episode", fig, seconds_per_step=0.1, success=True)
    pieces, = [c for c in ax.collections if isinstance(c, LineCollection)]
    points = np.stack([np.arange(60) / 10, values], -1)
    np.testing.assert_allclose(pieces.get_segments(), np.stack([points[:-1], points[1:]], 1))
    colours = [matplotlib.colors.to_hex(c) for c in pieces.get_colors()]
    assert colours == [{-1: VERMILLION, 0: GREY, 1: GREEN}[i] for i in trends(values)[:-1]]
    pictures = [a for a in fig.axes if a is not ax]
    assert [a.images[0].get_array()[0, 0, 0] for a in pictures] == [10, 100, 200]
    assert [a.get_title() for a in pictures] == ["0.0 s", "3.0 s", "5.9 s"]
    marks = {(line.get_marker(), *np.round((line.get_xdata()[0], line.get_ydata()[0]), 6)) for line in ax.lines}
    assert {("o", 0, -0.6), ("o", 3.0, -0.8), ("o", 5.9, -0.3), ("*", 5.9, -0.3)} <= marks
    assert sorted(marker for marker, *_ in marks) == ["*", "^", "o", "o", "o", "v"]
    assert "success" in fig.get_suptitle()


# ---------------------------------------------------------------- Figs. 7-10

STAGES = ("demonstrations", "supervised", "rl_pretrained", "offline_rl_sft", "recap_1", "recap_2")
APART = STAGES[:2]


def metrics():
    """Every number differs from every other."""
    rng = np.random.default_rng(0)
    return {"task": "fold_shirt", "seed": 3, "stages": [
        {"name": name, "beta": beta, "success": rng.random(), "success_se": 0.1 * rng.random(),
         "throughput": 700 * rng.random(), "throughput_se": 30 * rng.random(), "episodes": 100 if name == "recap_2" else 300}
        for name in STAGES for beta in ((None,) if name in APART else (1, 1.5, 2.0) if name.startswith("recap") else (1,))]}


def test_learning_curve_draws_the_numbers_that_it_was_given():
    given = metrics()
    fig = plt.figure()
    axes = learning_curve(given, fig)
    for ax, key, scale in zip(axes, ("throughput", "success"), (1, 100)):
        drawn = {}
        for container in ax.containers:
            line, _, (bars,) = container.lines
            for x, y, bar in zip(line.get_xdata(), line.get_ydata(), bars.get_segments()):
                assert bar[0][0] == bar[1][0] == x and (bar[0][1] + bar[1][1]) / 2 == pytest.approx(y)
                assert abs(x - round(x)) < 0.3               # beside its stage, not beside the next one
                drawn[container.get_label(), round(x)] = (y, (bar[1][1] - bar[0][1]) / 2)
        expected = {}
        for s in given["stages"]:
            label = ("demonstrations" if s["name"] == "demonstrations" else "imitation only (a second network)"
                     if s["name"] == "supervised" else "β = 1 (no guidance)" if s["beta"] == 1
                     else f"β = {s['beta']:g} (guided, Eq. 13)")
            expected[label, STAGES.index(s["name"])] = (scale * s[key], scale * s[key + "_se"])
        assert drawn.keys() == expected.keys() and len(drawn) == len(given["stages"]) == 10
        for where, numbers in expected.items():
            assert drawn[where] == pytest.approx(numbers), where
        assert list(ax.get_xticks()) == list(range(6))
        assert [t.get_text() for t in ax.get_xticklabels()][-2:] == ["RECAP\nk=1", "RECAP\nk=2"]
        low, high = ax.get_ylim()
        assert low == 0 and high >= max(y for y, _ in drawn.values())         # nothing cut off, no cut axis
    legend = [text.get_text() for text in axes[0].get_legend().get_texts()]
    assert set(legend) == {label for label, _ in expected}
    assert "fold_shirt, seed 3" in fig.get_suptitle() and "100-300 episodes" in fig.get_suptitle()


def test_learning_curve_joins_the_chain_of_algorithm_1_and_nothing_else():
    axes = learning_curve(metrics())
    joined = {c.get_label(): c.lines[0] for c in axes[0].containers}
    assert joined["demonstrations"].get_linestyle() == "None"
    chain = joined["β = 1 (no guidance)"]
    assert list(chain.get_xdata()) == [2, 3, 4, 5] and chain.get_linestyle() == "-" and chain.get_color() == BLUE


# ---------------------------------------------------------------- pictures of the table

def observation(spec=TASKS["fold_shirt"], seed=0):
    seen = World(spec, [seed]).observe()
    return seen["state"][0], seen["keypoints"][0]


def changed_pixels(one, other, near, size=240):
    """Which pixels differ; asserts that they lie within 0.12 m of a point on the table.  Their number."""
    rows, columns = np.nonzero((one != other).any(-1))
    x, y = LEFT + (columns + 0.5) * VIEW / size, TOP - (rows + 0.5) * VIEW / size
    assert (np.hypot(x - near[0], y - near[1]) < 0.12).all()
    return len(rows)


@pytest.mark.parametrize("arm", (0, 1))
def test_every_state_of_a_half_looks_different_and_only_there(arm):
    state, keypoints = observation()
    looks = {}
    for name, flags in {"free": (0, 0, 0, 0), "edge": (1, 0, 0, 0), "about to slip": (1, 0, 0.9, 0), "good": (0, 1, 0, 0),
                        "placed": (0, 0, 0, 1)}.items():
        keypoints[arm, 7:11] = flags
        looks[name] = draw(state, keypoints, "fold_shirt")
    names = list(looks)
    for i, one in enumerate(names):
        for other in names[:i]:
            assert changed_pixels(looks[one], looks[other], keypoints[arm, :2]) > 15, (one, other)


def test_equal_observations_give_equal_pictures_and_are_left_alone():
    state, keypoints = observation()
    kept = state.copy(), keypoints.copy()
    picture = draw(state, keypoints, "fold_shirt")
    np.testing.assert_array_equal(draw(*kept, TASKS["fold_shirt"]), picture)       # by its name or the spec itself
    np.testing.assert_array_equal(np.concatenate([state, keypoints.ravel()]), np.concatenate([kept[0], kept[1].ravel()]))
    keypoints[:, 2:6] += 1                                                 # what the wrist cameras see is not drawn
    np.testing.assert_array_equal(draw(state, keypoints, "fold_shirt"), picture)
    assert draw(state, keypoints, "fold_shirt", size=96).shape == (96, 96, 3)


def test_what_moves_is_seen_to_move():
    state, keypoints = observation()
    picture = draw(state, keypoints, "fold_shirt")
    for i in range(6):                                                     # joints and grippers
        moved = state.copy()
        moved[i] += -0.5 if i % 3 == 2 else 0.1
        assert (draw(moved, keypoints, "fold_shirt") != picture).any(-1).sum() > 30
    for row in range(4):                                                   # handles and goals
        moved = keypoints.copy()
        moved[row, 1] += 0.05
        assert (draw(state, moved, "fold_shirt") != picture).any(-1).sum() > 30
    for k in (1, 2):                                                       # the stage: another item, another caption
        moved = keypoints.copy()
        moved[:, 11:17] = np.arange(6) == k
        assert (draw(state, moved, "fold_shirt") != picture).any(-1).sum() > 300


def test_the_hand_is_drawn_where_kinematics_puts_it():
    point = np.array([-0.1, 0.8])                                          # far from everything else on the table
    state, keypoints = observation()
    joints = inverse_kinematics(np.array([point, (0.3, 0.3)]))
    state[:2] = joints[0]
    here = draw(state, keypoints, "fold_shirt")
    state[2] = 0.3                                                         # the gripper alone
    assert changed_pixels(here, draw(state, keypoints, "fold_shirt"), point) > 15


# ---------------------------------------------------------------- bars and the map

def row(throughput, success, stages):
    return {"throughput": {"mean": throughput, "se": 3.0, "n": 2}, "success": {"mean": success, "se": None, "n": 2},
            "per_stage_success": stages}


ROWS = {"demonstrations": row(30, 0.2, [[0.5, 0.2], [0.7, 0.4]]), "supervised_small β=1": row(10, 0.1, [[0.2, 0.1], [0.2, 0.1]]),
        "recap_2 β=1": row(90, 0.9, [[1.0, 0.9], [0.8, 0.7]]), "recap_2 β=1.5": row(120, 0.95, [[1.0, 1.0], [1.0, 0.8]])}
NAMES = ["demonstrations", r"supervised, smaller (as $\pi_{0.5}$)", "RECAP k=2, β=1", "RECAP k=2, β=1.5"]
COLOURS = [GREY, GREY, BLUE, VERMILLION]


def test_bars_are_the_rows_in_their_order():
    axes = bars({"box": ROWS}).axes
    assert [text.get_text() for text in axes[0].get_yticklabels()] == ["", *NAMES]
    for ax, expected in zip(axes, ([30, 10, 90, 120], [20, 10, 90, 95])):
        np.testing.assert_allclose([bar.get_width() for bar in ax.patches], expected)
        assert [bar.get_facecolor()[:3] for bar in ax.patches] == [matplotlib.colors.to_rgb(c) for c in COLOURS]
        assert ax.texts[0].get_text() == " box"


def test_stage_bars_are_means_over_seeds_with_their_standard_error():
    axes = stage_bars(ROWS, ["pick", "place"]).axes
    assert [ax.get_title() for ax in axes] == ["pick", "place"]
    for ax, mean, half in zip(axes, ([60, 20, 90, 100], [30, 10, 80, 90]), ([20, 0, 20, 0], [20, 0, 20, 20])):
        np.testing.assert_allclose([bar.get_width() for bar in ax.patches], mean, atol=1e-9)
        (segments,) = [c.get_segments() for c in ax.collections]
        # two values a, b: s.e. = |a - b| / 2, and the bar goes from one to the other
        np.testing.assert_allclose([segment[1, 0] - segment[0, 0] for segment in segments], half, atol=1e-9)
    assert [text.get_text() for text in axes[0].get_yticklabels()] == NAMES and axes[0].yaxis_inverted()


def test_the_map_shows_ratios_and_fills_those_whose_interval_excludes_1():
    x = lambda ratio, low=None, high=None: {"ratio": ratio, "low": low, "high": high, "n": 3}
    fig = ratios({"base": {"recap_1 β=2": x(1.3, 1.1, 1.5), "recap_1 β=1": x(1.0, 0.9, 1.1), "AWR T=0.2": x(1.0, 1.0, 1.0)},
                  "other": {"recap_1 β=2": x(0.8, 0.7, 0.9), "recap_1 β=1": x(0.0), "AWR T=0.2": x(float("nan"))}}, "x")
    ax = fig.axes[0]
    points = [line for line in ax.lines if len(line.get_xdata()) == 1]
    np.testing.assert_allclose([line.get_xdata()[0] for line in points], [1.3, 1.0, 0.8, ax.get_xlim()[0], np.nan])     # AWR is what 1 means
    assert [line.get_markerfacecolor() != "white" for line in points] == [True, False, True, False, False]
    intervals = [tuple(line.get_xdata()) for line in ax.lines if len(line.get_xdata()) == 2 and line is not ax.lines[-1]]
    assert intervals == [(1.1, 1.5), (0.9, 1.1), (0.7, 0.9)]
    rows = [line.get_ydata()[0] for line in points]
    assert all(-0.5 < y < 0.5 for y in rows[:2]) and all(0.5 < y < 1.5 for y in rows[2:]) and len(set(rows)) == 5
    assert [text.get_text() for text in fig.legends[0].get_texts()] == ["RECAP k=1, β=2", "RECAP k=1, β=1", "AWR T=0.2"]


def test_guidance_is_drawn_relative_to_each_seeds_own_throughput_at_beta_1():
    """Seeds of 100 and 200 per hour at β = 1, 150 and 200 at β = 2: ratios 1.5 and 1, mean 1.25, s.e. 0.25; a seed without any has none."""
    rows = {f"recap_2 β={beta}": {"throughput": {"values": values}, "success": {"values": [0.5, 0.7, 0.9]}, "outside": {"values": [0.0, 0.0, 0.3]}}
            for beta, values in (("1", [100, 200, 0]), ("2", [150, 200, 9]))}
    relative, success, outside = guidance({"fold_shirt": rows, "none": {"recap_2 β=1": {key: {"values": [0.0]} for key in ("throughput", "success", "outside")}}}).axes
    np.testing.assert_allclose(relative.lines[0].get_xydata(), [[1, 1], [2, 1.25]])
    (segments,) = [c.get_segments() for c in relative.collections]
    np.testing.assert_allclose([segment[1, 1] - segment[0, 1] for segment in segments], [0, 0.5])
    np.testing.assert_allclose(success.lines[0].get_ydata(), [70, 70])
    np.testing.assert_allclose(outside.lines[0].get_ydata(), [10, 10])
    assert [text.get_text() for text in outside.get_legend().get_texts()] == ["fold_shirt (n = 3)", "none (n = 1)"]


# ---------------------------------------------------------------- GIFs

def colourful(n):
    """n different frames of few colours, which a palette keeps exactly."""
    frames = np.zeros((n, 20, 24, 3), np.uint8)
    for i in range(n):
        frames[i, :, :i + 1] = 255, 0, 8 * (i % 3)
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
    write_gif([*frames[:4], frames[3], frames[3]], str(tmp_path / "b.gif"), fps=20)       # standing still takes time, too
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
