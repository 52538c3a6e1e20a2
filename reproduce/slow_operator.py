"""FoldShirt with an operator who corrects slowly: for `reproduce ablation operator`."""
from dataclasses import dataclass, fields, replace

from sim_tasks.demonstrator import COACH, ScriptedOperator
from sim_tasks.laundry import FOLD_SHIRT
from sim_tasks.toys import Toy

# The slowest pace of the demonstrations, in m per step; elsewhere corrections have 0.017.
SLOW = replace(COACH, paces=(0.010,))

@dataclass(frozen=True)
class SlowlyCorrected(Toy):
    def coach(self, world, seeds):
        return ScriptedOperator(world, seeds, SLOW)

SHIRT = {field.name: getattr(FOLD_SHIRT, field.name) for field in fields(Toy)}
FOLD_SHIRT_SLOW = SlowlyCorrected(**(SHIRT | {"name": "fold_shirt_slow"}))
