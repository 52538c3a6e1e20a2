"""A policy of recap.py, from its file.

    python -m robots --robot sim:Box \\
        --policy robots.checkpoint:actor:runs/box-seed0/pi_2.npz,box,1.5

For the simulated robot alone: the networks know neither other arms nor real cameras.
"""
import torch

import sim_tasks
from collection import Actor
from lab.files import load_network
from policy import VLA
from settings import Settings

def actor(path, task="fold_shirt", beta=1.5):
    """π of a checkpoint, as the control loop calls it.

    path: of the file.  task: its name in sim_tasks.TASKS.  beta: β, a number or its text.
    ValueError for a file that is no policy, or a task that there is not.
    """
    if task not in sim_tasks.TASKS:
        known = ", ".join(sim_tasks.TASKS)
        raise ValueError(f"task: {task!r}, expected one of {known}")
    torch.set_num_threads(1)  # products this small wait for a second core more than it helps
    policy = load_network(path)
    if not isinstance(policy, VLA):
        raise ValueError(f"{path}: a {type(policy).__name__}, expected a policy (pi_*.npz)")
    return Actor(Settings(), [sim_tasks.TASKS[task].prompt], policy, beta=float(beta))
