"""A policy of recap.py, from its file.

    python -m robots --robot sim:Box \\
        --policy robots.checkpoint:actor:runs/box-seed0/pi_2.npz,box,1.5

For the simulated robot alone: the networks know neither other arms nor real cameras.
"""
import math

import torch

from collection import Actor
from data import UserError
from lab.files import load_network
from policy import VLA
from settings import Settings
from sim_tasks import find_task

def actor(path, task="fold_shirt", beta=1.5):
    """π of a checkpoint, as the control loop calls it.

    path: of the file.  task: its name, as of recap.py's --task.  beta: β, a number or its text.
    UserError for a file that is no policy, a task that there is not, or a β that is no number.
    """
    torch.set_num_threads(1)  # products this small wait for a second core more than it helps
    policy = load_network(path)
    if not isinstance(policy, VLA):
        raise UserError(f"{path}: a {type(policy).__name__}, expected a policy (pi_*.npz)")
    try:
        number = float(beta)
    except ValueError:
        number = math.nan
    if not 0 <= number < math.inf:
        raise UserError(f"beta: {beta}, expected a finite number, 0 or more")
    return Actor(Settings(task=task), [find_task(task).prompt], policy, beta=number)
