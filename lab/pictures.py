"""The pictures of a run: its learning curve, V along two episodes (Fig. 4), before and after."""
import matplotlib.pyplot as plt
import numpy as np

import sim_tasks
from collection import roll_out
from data import episode_seeds
from lab import plots
from lab.files import load_network, write_atomically
from sim_tasks.arms import CONTROL_HZ
from sim_tasks.render import draw, write_gif
from value import predict_values


def draw_pictures(run, metrics):
    """learning_curve.png, value_trace.png, before.gif and after.gif of a finished run."""
    s = run.settings
    spec = sim_tasks.TASKS[s.task]
    n_stages = len({row["name"] for row in metrics["stages"]})
    figure = plt.figure(figsize=(2 + 1.25 * n_stages, 4), layout="constrained")
    plots.learning_curve(metrics, figure)
    save_figure(figure, run.path("learning_curve.png"))

    first = load_network(run.path("pi_0.npz"))
    last = load_network(run.path(f"pi_{s.iterations}.npz"))
    value = load_network(run.path(f"V_{s.iterations}.npz"))
    seeds = episode_seeds(s.seed, "pictures", min(s.evaluation_episodes, 40))
    before = roll_out(s, spec, seeds, first)
    after = roll_out(s, spec, seeds, last, s.beta)
    for name, episode in (("before", before[0]), ("after", after[0])):
        write_gif(frames(episode, range(len(episode))), run.path(f"{name}.gif"), CONTROL_HZ)

    # The success and the failure of median length.
    chosen = []
    for success in (True, False):
        kind = sorted((e for e in before if e.success == success), key=len)
        if kind:
            chosen.append(kind[len(kind) // 2])
    save_figure(value_figure(value, chosen), run.path("value_trace.png"))


def save_figure(figure, path):
    """Write a figure as PNG, and close it."""
    write_atomically(path, lambda temporary: figure.savefig(temporary, dpi=110), ".png")
    plt.close(figure)


def frames(episode, steps):
    """Pictures of these steps, drawn anew from state and keypoints: a list of uint8 arrays."""
    seen = episode.observations
    return [draw(seen["state"][t], seen["keypoints"][t], episode.task) for t in steps]


def value_figure(value, episodes):
    """V along each of `episodes`, side by side, in the manner of Fig. 4.  Returns a Figure."""
    figure = plt.figure(figsize=(7.5 * len(episodes), 4.2), layout="constrained")
    parts = np.atleast_1d(figure.subfigures(1, len(episodes)))
    for part, e, V in zip(parts, episodes, predict_values(value, episodes)):
        steps = np.linspace(0, len(e) - 1, 6).astype(int)
        title = f"V of “{e.prompt}”"
        plots.value_trace(V, frames(e, steps), steps, title, part, 1 / CONTROL_HZ, e.success)
    return figure
