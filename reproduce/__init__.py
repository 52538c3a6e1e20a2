"""Figures, claims and ablations of the paper, measured on the toy: `python -m reproduce --help`."""
