"""The pictures of a run: its learning curve, V along two episodes (Fig. 4), before and after."""
import matplotlib.pyplot as plt
import numpy as np

from collection import roll_out
from data import episode_seeds
from lab import plots
from lab.files import load_network, write_atomically
from sim_tasks.render import write_gif
from value import predict_values

def draw_pictures(run, metrics):
    """learning_curve.png, value_trace.png, before.gif and after.gif of a finished run."""
    s = run.settings
    task = s.target
    n_stages = len({row["name"] for row in metrics["stages"]})
    figure = plt.figure(figsize=(2 + 1.25 * n_stages, 4), layout="constrained")
    plots.learning_curve(metrics, figure)
    save_figure(figure, run.path("learning_curve.png"))

    first = load_network(run.path("pi_0.npz"))
    last = load_network(run.path(f"pi_{s.iterations}.npz"))
    value = load_network(run.path(f"V_{s.iterations}.npz"))
    seeds = episode_seeds(s.seed, "pictures", min(s.evaluation_episodes, 40))
    before = roll_out(s, task, seeds, first)
    after = roll_out(s, task, seeds, last, s.beta)
    for name, episode in (("before", before[0]), ("after", after[0])):
        pictures = frames(task, episode, range(len(episode)))
        if pictures:
            write_gif(pictures, run.path(f"{name}.gif"), episode.hz)

    # The success and the failure of median length.
    chosen = []
    for success in (True, False):
        kind = sorted((e for e in before if e.success == success), key=len)
        if kind:
            chosen.append(kind[len(kind) // 2])
    save_figure(value_figure(value, task, chosen), run.path("value_trace.png"))

def save_figure(figure, path):
    """Write a figure as PNG, and close it."""
    write_atomically(path, lambda temporary: figure.savefig(temporary, dpi=110), ".png")
    plt.close(figure)

def frames(task, episode, steps):
    """Pictures of these steps, a list of uint8 arrays; an empty one where the task has none."""
    pictures = []
    for t in steps:
        seen = {name: x[t] for name, x in episode.observations.items()}
        pictures.append(task.picture(seen))
    return [picture for picture in pictures if picture is not None]

def value_figure(value, task, episodes):
    """V along each of `episodes`, side by side, in the manner of Fig. 4.  Returns a Figure."""
    figure = plt.figure(figsize=(7.5 * len(episodes), 4.2), layout="constrained")
    parts = np.atleast_1d(figure.subfigures(1, len(episodes)))
    for part, e, V in zip(parts, episodes, predict_values(value, episodes)):
        steps = np.linspace(0, len(e) - 1, 6).astype(int)
        title = f"V of “{e.prompt}”"
        pictures = frames(task, e, steps)
        plots.value_trace(V, pictures, steps, title, part, 1 / e.hz, e.success)
    return figure
