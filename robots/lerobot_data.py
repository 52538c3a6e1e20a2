def read_lerobot(path):
    raise ValueError("placeholder")
