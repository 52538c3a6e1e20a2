"""Two drawings for the notebooks: the loop of RECAP, and the sequence that the policy reads."""
import matplotlib.pyplot as plt
from matplotlib.patches import FancyArrowPatch, FancyBboxPatch

BLUE = "#0072b2"
VERMILLION = "#d55e00"
GREEN = "#009e73"
GREY = "#6b6b6b"

def box(ax, x, y, width, height, text, colour):
    """A box with text, its centre at x, y."""
    corner = (x - width / 2, y - height / 2)
    style = "round,pad=0.02,rounding_size=0.08"
    ax.add_patch(FancyBboxPatch(corner, width, height, style, fc="white", ec=colour, lw=2))
    ax.text(x, y, text, ha="center", va="center", fontsize=10)

def arrow(ax, start, end, bend=0.0, colour=GREY, line="-"):
    curve = f"arc3,rad={bend}"
    ax.add_patch(FancyArrowPatch(
        start, end, connectionstyle=curve, arrowstyle="-|>", mutation_scale=16, lw=1.8,
        color=colour, linestyle=line,
    ))  # fmt: skip

def loop():
    """The loop: π acts, D grows, V judges, labels, π imitates.  Returns the figure."""
    fig, ax = plt.subplots(figsize=(10, 3.5), layout="constrained")
    box(ax, 1.1, 2.3, 2.0, 0.9, "policy $\\pi^{k-1}$ acts,\ntold “positive”", BLUE)
    box(ax, 4.4, 2.3, 2.0, 0.9, "all data $\\mathcal{D}_\\ell$\n(nothing is dropped)", GREY)
    box(ax, 7.7, 2.3, 2.0, 0.9, "value function $V^k$\nsteps left, or failure?", GREEN)
    box(ax, 7.7, 0.6, 2.0, 0.9, "$I_t$ = 1$(A_t > \\epsilon_\\ell)$\ncorrections: yes", VERMILLION)
    box(ax, 4.4, 0.6, 2.0, 0.9, "imitate everything,\nunder its word", BLUE)
    box(ax, 1.1, 0.6, 2.0, 0.9, "$\\pi_\\mathrm{pre}$, $V_\\mathrm{pre}$:\nmany tasks", GREY)
    arrow(ax, (2.15, 2.3), (3.35, 2.3))
    ax.text(2.75, 2.42, "line 7: episodes,\nsuccess or not", ha="center", va="bottom", fontsize=9)
    arrow(ax, (5.45, 2.3), (6.65, 2.3))
    ax.text(6.05, 2.42, "line 8: Eq. 1", ha="center", va="bottom", fontsize=9)
    arrow(ax, (7.7, 1.8), (7.7, 1.1))
    ax.text(7.8, 1.45, "$N$ steps ahead", va="center", fontsize=9)
    arrow(ax, (6.65, 0.6), (5.45, 0.6))
    ax.text(6.05, 0.68, "line 9: Eq. 3", ha="center", va="bottom", fontsize=9)
    arrow(ax, (3.6, 1.1), (1.9, 1.8))
    ax.text(2.45, 1.42, "$\\pi^k$", ha="right", va="center", fontsize=11)
    arrow(ax, (2.15, 0.6), (3.35, 0.6), line="--")
    ax.text(2.75, 0.68, "start", ha="center", va="bottom", fontsize=9)
    arrow(ax, (4.4, 1.8), (4.4, 1.1))
    ax.set(xlim=(-0.05, 9.3), ylim=(0, 3.2))
    ax.axis("off")
    return fig

# What stands in the sequence: (text, width, colour, who may see it)
PARTS = (
    ("what is seen\n$\\mathbf{o}_t$", 1.5, GREY),
    ("prompt\n$\\ell$", 1.1, GREY),
    ("subtask\n$\\hat\\ell$", 1.2, GREEN),
    ("Advantage:\npositive", 1.5, VERMILLION),
    ("action tokens\n$a^\\ell$", 1.6, GREEN),
)

def sequence():
    """The sequence of one step, and what the action expert reads of it.  Returns the figure."""
    fig, ax = plt.subplots(figsize=(10, 2.9), layout="constrained")
    x = 0.0
    for text, width, colour in PARTS:
        box(ax, x + width / 2, 1.9, width, 0.8, text, colour)
        x += width + 0.22
    seen_end = 1.5 + 1.1 + 0.22
    ax.plot([0, seen_end], [2.5, 2.5], color=GREY, lw=2)
    ax.text(seen_end / 2, 2.57, "all see one another", ha="center", va="bottom", fontsize=9)
    ax.plot([seen_end + 0.22, x - 0.22], [2.5, 2.5], color=GREY, lw=2)
    middle = (seen_end + x) / 2
    label = "text: sees what stands to its left"
    ax.text(middle, 2.57, label, ha="center", va="bottom", fontsize=9)
    expert = 1.5 + 1.1 + 1.2 + 1.5 + 3 * 0.22
    ax.plot([0, expert], [1.3, 1.3], color=BLUE, lw=2)
    box(ax, 3.0, 0.45, 3.6, 0.7, "action expert: flow matching, $f_\\theta$", BLUE)
    arrow(ax, (3.0, 1.28), (3.0, 0.85), colour=BLUE)
    ax.text(3.1, 1.06, "reads; no gradient flows back", va="center", fontsize=9, color=BLUE)
    arrow(ax, (4.85, 0.45), (5.85, 0.45), colour=BLUE)
    label = "the actions $\\mathbf{a}_{t:t+H}$ that the arms get"
    ax.text(5.95, 0.45, label, va="center", fontsize=10)
    ax.set(xlim=(-0.1, 8.6), ylim=(0, 2.95))
    ax.axis("off")
    return fig
