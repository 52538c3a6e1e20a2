"""Toy bimanual tasks.  `import sim_tasks` registers them: gymnasium.make("SimTasks/FoldShirt-v0").

arms.py the world (kinematics, grasping, stages) · laundry.py, espresso.py, box.py the tasks ·
env.py their Gymnasium face · demonstrator.py the scripted operator · render.py pictures.  Nothing
here knows of learning.
"""

import gymnasium

from .box import BOX
from .espresso import ESPRESSO
from .laundry import FOLD_COLLAR, FOLD_DIVERSE, FOLD_SHIRT

TASKS = {task.name: task for task in (FOLD_SHIRT, FOLD_DIVERSE, FOLD_COLLAR, ESPRESSO, BOX)}

for name, entry in (
    ("FoldShirt", "laundry:FoldShirtEnv"),
    ("FoldDiverse", "laundry:FoldDiverseEnv"),
    ("FoldCollar", "laundry:FoldCollarEnv"),
    ("Espresso", "espresso:EspressoEnv"),
    ("Box", "box:BoxEnv"),
):
    if f"SimTasks/{name}-v0" not in gymnasium.registry:  # a module may be reloaded in a notebook
        gymnasium.register(f"SimTasks/{name}-v0", entry_point=f"sim_tasks.{entry}")
