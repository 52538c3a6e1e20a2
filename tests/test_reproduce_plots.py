"""Pictures of rows over seeds: the numbers that can be read back from their Axes."""
import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt
import numpy as np
import pytest

from lab.plots import BLUE, GREY, VERMILLION
from reproduce.plots import COLOURS as COLOUR_NAMES
from reproduce.plots import (
    bars,
    guidance,
    in_columns,
    over_steps,
    ratios,
    row_label,
    stage_bars,
)


@pytest.fixture(autouse=True)
def no_figures_left():
    yield
    plt.close("all")


def row(throughput, success, stages):
    return {
        "throughput": {"mean": throughput, "se": 3.0, "n": 2},
        "success": {"mean": success, "se": None, "n": 2},
        "per_stage_success": stages,
    }


ROWS = {
    "demonstrations": row(30, 0.2, [[0.5, 0.2], [0.7, 0.4]]),
    "supervised_small β=1": row(10, 0.1, [[0.2, 0.1], [0.2, 0.1]]),
    "recap_2 β=1": row(90, 0.9, [[1.0, 0.9], [0.8, 0.7]]),
    "recap_2 β=1.5": row(120, 0.95, [[1.0, 1.0], [1.0, 0.8]]),
}
SMALLER = r"supervised, small (as $\pi_{0.5}$)"
NAMES = ["demonstrations", SMALLER, "RECAP k=2, β = 1", "RECAP k=2, guided"]
COLOURS = [GREY, GREY, BLUE, VERMILLION]


def test_bars_are_the_rows_in_their_order():
    fig = bars({"fold_shirt": ROWS})
    axes = fig.axes
    assert [text.get_text() for text in axes[0].get_yticklabels()] == NAMES
    for ax, expected in zip(axes, ([30, 10, 90, 120], [20, 10, 90, 95])):
        np.testing.assert_allclose([bar.get_width() for bar in ax.patches], expected)
        assert [bar.get_facecolor()[:3] for bar in ax.patches] == [
            matplotlib.colors.to_rgb(c) for c in COLOURS
        ]
    assert fig.subfigs[0].get_suptitle() == "FoldShirt (guided: β = 1.5)"
    legend = fig.legends[0]
    assert [text.get_text() for text in legend.get_texts()] == list(COLOUR_NAMES)
    assert "n = 2 seeds" in legend.get_title().get_text()

def test_every_group_has_its_own_pair_of_panels_and_all_fit_the_page():
    other = {name.replace("1.5", "2"): x for name, x in ROWS.items()}
    fig = bars({"box": ROWS, "fold_shirt, more": other, "x": {"AWR": ROWS["demonstrations"]}})
    titles = [part.get_suptitle() for part in fig.subfigs]
    assert titles[:3] == ["Box (guided: β = 1.5)", "FoldShirt, more (guided: β = 2)", "x"]
    assert len(fig.axes) == 6 and len(fig.axes[4].patches) == 1
    # Four groups of ten rows, as in Fig. 7, at the 890 pixels of a page's width.
    rows = {f"method {i}": ROWS["demonstrations"] for i in range(10)}
    width, height = bars({str(i): rows for i in range(4)}).get_size_inches()
    assert height / width * 890 < 700


def test_stage_bars_are_means_over_seeds_with_their_standard_error():
    axes = stage_bars(ROWS, ["pick", "place"]).axes
    assert [ax.get_title() for ax in axes] == ["pick", "place"]
    for ax, mean, half in zip(
        axes, ([60, 20, 90, 100], [30, 10, 80, 90]), ([20, 0, 20, 0], [20, 0, 20, 20])
    ):
        np.testing.assert_allclose([bar.get_width() for bar in ax.patches], mean, atol=1e-9)
        (segments,) = [c.get_segments() for c in ax.collections]
        # two values a, b: s.e. = |a - b| / 2, and the bar goes from one to the other
        np.testing.assert_allclose(
            [segment[1, 0] - segment[0, 0] for segment in segments], half, atol=1e-9
        )
    named = [*NAMES[:3], "RECAP k=2, guided (β = 1.5)"]
    assert [text.get_text() for text in axes[0].get_yticklabels()] == named
    assert axes[0].yaxis_inverted()


@pytest.mark.parametrize(
    "name, label",
    [
        ("AWR T=0.2 mean", "AWR (T = 0.2, from the mean)"),
        ("AWR T=1 q95", "AWR (T = 1, from the 95 % quantile)"),
        ("PPO ε=100000 rate×0.03", "PPO (ε = 100,000, rate × 0.03)"),
        ("PPO ε=inf rate×0.1", "PPO (no penalty, rate × 0.1)"),
        ("PPO, the best there", "PPO, the best there"),
    ],
)
def test_a_swept_method_is_named_in_words(name, label):
    assert row_label(name) == label

def test_the_map_shows_ratios_and_fills_those_whose_interval_excludes_1():
    def x(ratio, low=None, high=None):
        return {"ratio": ratio, "low": low, "high": high, "n": 3}

    fig = ratios(
        {
            "base": {
                "recap_1 β=2": x(1.3, 1.1, 1.5),
                "recap_1 β=1": x(1.0, 0.9, 1.1),
                "AWR T=0.2": x(1.0, 1.0, 1.0),
            },
            "other": {
                "recap_1 β=2": x(0.8, 0.7, 0.9),
                "recap_1 β=1": x(0.0),
                "AWR T=0.2": x(float("nan")),
            },
        },
        "x",
    )
    ax = fig.axes[0]
    points = [line for line in ax.lines if len(line.get_xdata()) == 1]
    # AWR is what 1 means
    np.testing.assert_allclose(
        [line.get_xdata()[0] for line in points], [1.3, 1.0, 0.8, ax.get_xlim()[0] * 1.02, np.nan]
    )
    assert [line.get_marker() for line in points[:4]] == ["o", "o", "o", "<"]
    filled = [line.get_markerfacecolor() != "white" for line in points]
    assert filled == [True, False, True, False, False]
    intervals = [
        tuple(line.get_xdata())
        for line in ax.lines
        if len(line.get_xdata()) == 2 and line is not ax.lines[-1]
    ]
    assert intervals == [(1.1, 1.5), (0.9, 1.1), (0.7, 0.9)]
    rows = [line.get_ydata()[0] for line in points]
    assert all(-0.5 < y < 0.5 for y in rows[:2])
    assert all(0.5 < y < 1.5 for y in rows[2:])
    assert len(set(rows)) == 5
    legend = [text.get_text() for text in fig.legends[0].get_texts()]
    assert legend == [
        "RECAP k=1, guided (β = 2)", "RECAP k=1, β = 1", "AWR (T = 0.2)", "interval excludes 1",
        "interval holds 1",
    ]  # fmt: skip

def test_a_line_over_gradient_steps_is_of_means_with_their_standard_error():
    def of(per_hour, success):
        return {"throughput": {"values": per_hour}, "success": {"values": success}}

    groups = {
        "recap_1 β=2": {1000: of([300, 340], [0.9, 0.8]), 7000: of([400, 420], [1.0, 0.9])},
        "positives only": {1000: of([350, 350], [1.0, 1.0]), 7000: of([360, 380], [1.0, 1.0])},
    }
    throughput, success = over_steps(groups).axes
    for ax, means, halves in (
        (throughput, ([320, 410], [350, 370]), ([20, 10], [0, 10])),
        (success, ([85, 95], [100, 100]), ([5, 5], [0, 0])),
    ):
        for line, mean, half in zip(ax.containers, means, halves, strict=True):
            np.testing.assert_allclose(line.lines[0].get_xydata(), list(zip([1000, 7000], mean)))
            (bars_of_line,) = line.lines[2]
            low_high = [segment[:, 1] for segment in bars_of_line.get_segments()]
            np.testing.assert_allclose(np.ptp(low_high, axis=1) / 2, half, atol=1e-9)
    assert throughput.get_xscale() == "log"
    assert success.get_legend_handles_labels()[1] == ["RECAP k=1, guided (β = 2)", "positives only"]

def test_ratios_in_two_columns_are_cut_where_a_knob_begins():
    def x(ratio, low, high):
        return {"ratio": ratio, "low": low, "high": high, "n": 3}

    groups = {}
    for knob, n in (("a", 2), ("b", 1), ("c", 4)):
        groups[knob] = {"recap_K β=1": x(1.0, 1.0, 1.0)}
        for i in range(n):
            groups[f"{knob}{i}"] = {"recap_K β=1": x(1.1, 0.9, 1.2)}
    axes = ratios(groups, "x", columns=2).axes
    labels = [[text.get_text() for text in ax.get_yticklabels()] for ax in axes]
    assert labels == [["a", "a0", "a1", "b", "b0"], ["c", "c0", "c1", "c2", "c3"]]
    assert [axis.get_ylim() for axis in axes] == [(4.5, -0.5)] * 2


def test_guidance_is_drawn_relative_to_each_seeds_own_throughput_at_beta_1():
    """Two seeds: 100 and 200 per hour at β = 1, 150 and 200 at β = 2.

    That are ratios of 1.5 and 1: mean 1.25, s.e. 0.25.  A third seed has none at β = 1, so no
    ratio.
    """
    rows = {
        f"recap_2 β={beta}": {
            "throughput": {"values": values},
            "success": {"values": [0.5, 0.7, 0.9]},
            "outside": {"values": [0.0, 0.0, 0.3]},
        }
        for beta, values in (("1", [100, 200, 0]), ("2", [150, 200, 9]))
    }
    nothing = {key: {"values": [0.0]} for key in ("throughput", "success", "outside")}
    groups = {"fold_shirt": rows, "none": {"recap_2 β=1": nothing}}
    relative, success, outside = guidance(groups).axes
    np.testing.assert_allclose(relative.lines[0].get_xydata(), [[1, 1], [2, 1.25]])
    (segments,) = [c.get_segments() for c in relative.collections]
    np.testing.assert_allclose([segment[1, 1] - segment[0, 1] for segment in segments], [0, 0.5])
    np.testing.assert_allclose(success.lines[0].get_ydata(), [70, 70])
    np.testing.assert_allclose(outside.lines[0].get_ydata(), [10, 10])
    legend = [text.get_text() for text in outside.get_legend().get_texts()]
    assert legend == ["FoldShirt (n = 3)", "none (n = 1)"]


def test_columns_of_one_seed_are_cut_where_there_is_no_default_row():
    """One seed has no interval, so no row tells that the others are compared with it."""
    one = {"ratio": 1.0, "low": None, "high": None, "n": 1}
    groups = {str(i): {"recap_K β=1": one} for i in range(5)}
    first, second = in_columns(groups, 2)
    assert first | second == groups and len(first) in (2, 3)
