"""Worlds: five toy bimanual tasks, and the interface of a task of your own.

task.py what a task is · scene.py copies and operators of one's own · toys.py the toys as tasks ·
arms.py their world (kinematics, grasping, stages) · laundry.py, espresso.py, box.py the toys ·
env.py their Gymnasium face · demonstrator.py the scripted operator · render.py, cameras.py
pictures · questions.py questions about them.  Nothing here knows of learning.

`import sim_tasks` registers the toys: gymnasium.make("SimTasks/FoldShirt-v0").
"""

from functools import partial

import gymnasium

from .box import BOX
from .env import BimanualVectorEnv
from .espresso import ESPRESSO
from .laundry import FOLD_COLLAR, FOLD_DIVERSE, FOLD_SHIRT
from .task import TaskError, load_task

TASKS = {task.name: task for task in (FOLD_SHIRT, FOLD_DIVERSE, FOLD_COLLAR, ESPRESSO, BOX)}
ADDED = {}  # tasks that were made in a program

def add_task(task, name=None):
    """Let a task that was made in a program be found by a name; None: its own."""
    ADDED[name or task.name] = task

def find_task(name):
    """A toy, an added task, or that of "my_file.py:MY_TASK".  TaskError where there is none."""
    known = TASKS | ADDED
    if name in known:
        return known[name]
    if ":" not in name:
        expected = f"one of {', '.join(known)}, or my_file.py:MY_TASK"
        raise TaskError(f"task: {name!r}, expected {expected}")
    task = load_task(name)
    if task.name in TASKS:
        raise TaskError(f"task: {name} is called {task.name!r}, expected a name that no toy has")
    return task

for name, task in (
    ("FoldShirt", FOLD_SHIRT),
    ("FoldDiverse", FOLD_DIVERSE),
    ("FoldCollar", FOLD_COLLAR),
    ("Espresso", ESPRESSO),
    ("Box", BOX),
):
    module = {"Espresso": "espresso", "Box": "box"}.get(name, "laundry")
    if f"SimTasks/{name}-v0" not in gymnasium.registry:  # a module may be reloaded in a notebook
        gymnasium.register(
            f"SimTasks/{name}-v0",
            entry_point=f"sim_tasks.{module}:{name}Env",
            vector_entry_point=partial(BimanualVectorEnv, task=task),
            max_episode_steps=task.max_steps,
        )
