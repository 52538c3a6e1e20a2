def draw(world): return None
