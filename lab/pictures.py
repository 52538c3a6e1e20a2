"""The pictures of a run: its learning curve, V along two episodes (Fig. 4), before and after."""
import os

import matplotlib.pyplot as plt
import numpy as np
from matplotlib.font_manager import findfont
from PIL import Image, ImageDraw, ImageFont

from collection import roll_out
from data import episode_seeds
from lab import plots
from lab.files import load_dataset, load_network, save_dataset, write_atomically
from lab.report import choose_pairs
from sim_tasks.render import write_gif
from value import predict_values

LAST_S = 1.5  # how long the last frame of a GIF stands

def draw_pictures(run, metrics):
    """learning_curve.png, value_trace.png, before.gif and after.gif of a finished run.

    Returns, in words, which episodes the GIFs show; None for a task without pictures.
    """
    s = run.settings
    task = s.target
    n_stages = len({row["name"] for row in metrics["stages"]})
    figure = plt.figure(figsize=(2 + 1.25 * n_stages, 4), layout="constrained")
    plots.learning_curve(metrics, figure)
    save_figure(figure, run.path("learning_curve.png"))

    before, after = before_and_after(s, run.out)
    chosen = choose_pairs(before, after)[0]
    for name, episodes, beta in (("before", before, 1.0), ("after", after, s.beta)):
        episode = episodes[chosen]
        pictures = film(task, episode, beta)
        if pictures:
            write_gif(pictures, run.path(f"{name}.gif"), episode.hz)

    # The success and the failure of median length.
    traced = []
    for success in (True, False):
        kind = sorted((e for e in before if e.success == success), key=len)
        if kind:
            traced.append(kind[len(kind) // 2])
    value = load_network(run.path(f"V_{s.iterations}.npz"))
    whose = f"V_{s.iterations} on rollouts of π_0"
    save_figure(value_figure(value, task, traced, whose), run.path("value_trace.png"))
    return which_pair(before, after, chosen) if pictures else None

def before_and_after(s, folder):
    """Rollouts of π⁰ and of the last policy on the same seeds, kept in before.npz and after.npz."""
    seeds = episode_seeds(s.seed, "pictures", min(s.evaluation_episodes, 40))
    found = []
    for name, network, beta in (("before", "pi_0", 1.0), ("after", f"pi_{s.iterations}", s.beta)):
        path = os.path.join(folder, f"{name}.npz")
        if not os.path.exists(path):
            policy = load_network(os.path.join(folder, f"{network}.npz"))
            save_dataset(roll_out(s, s.target, seeds, policy, beta), path)
        found.append(load_dataset(path))
    return found

def which_pair(before, after, chosen):
    """The rule by which `lab.report.choose_pairs` chose first, in words."""
    pair = before[chosen].success, after[chosen].success
    alike = sum((b.success, a.success) == pair for b, a in zip(before, after))
    ends = [("fail", "succeed")[success] for success in pair]
    return (
        f"before.gif, after.gif: number {chosen} of {len(before)} seeds, of median length among "
        f"the {alike} that {ends[0]} before and {ends[1]} after"
    )

def save_figure(figure, path):
    """Write a figure as PNG, and close it."""
    write_atomically(path, lambda temporary: figure.savefig(temporary, dpi=110), ".png")
    plt.close(figure)

def frames(task, episode, steps):
    """Pictures of these steps, a list of uint8 arrays; an empty one where the task has none.

    Step T is o_T, where it was kept.
    """
    pictures = []
    for t in steps:
        seen = episode.last
        if t < len(episode):
            seen = {name: x[t] for name, x in episode.observations.items()}
        pictures.append(task.picture(seen))
    return [picture for picture in pictures if picture is not None]

def film(task, episode, beta):
    """All frames of an episode, with β, the time and in the end the outcome written on."""
    n = len(episode) + (episode.last is not None)
    shown = captioned(frames(task, episode, range(n)), episode, beta)
    return shown + shown[-1:] * round(LAST_S * episode.hz)

def captioned(pictures, episode, beta):
    """All pictures of an episode, with β, the time and in the end the outcome written on."""
    shown = []
    for t, picture in enumerate(pictures):
        words = f"β = {beta:g}   {t / episode.hz:.1f} s"
        if t == len(pictures) - 1:
            words += "   success" if episode.success else "   failure"
        shown.append(written(picture, words))
    return shown

def written(picture, words):
    """A picture with words in its lower left corner."""
    image = Image.fromarray(picture)
    size = max(10, len(picture) // 18)
    font = ImageFont.truetype(findfont("DejaVu Sans"), size)  # Pillow's own lacks β
    place = (size / 2, len(picture) - size / 2)
    ink = "#343a46" if picture[-2 * size :].mean() > 128 else "#f2f2f2"
    ImageDraw.Draw(image).text(place, words, ink, font, anchor="ls")
    return np.array(image)

def value_figure(value, task, episodes, whose="V"):
    """V along each of `episodes`, side by side, in the manner of Fig. 4.  Returns a Figure.

    whose: V on whose rollouts, in words.
    """
    figure = plt.figure(figsize=(7.5 * len(episodes), 4.2), layout="constrained")
    parts = np.atleast_1d(figure.subfigures(1, len(episodes)))
    for part, e, V in zip(parts, episodes, predict_values(value, episodes)):
        steps = np.linspace(0, len(e) - 1, 6).astype(int)
        title = f"{whose}, “{e.prompt}”"
        pictures = frames(task, e, steps)
        plots.value_trace(V, pictures, steps, title, part, 1 / e.hz, e.success)
    return figure
