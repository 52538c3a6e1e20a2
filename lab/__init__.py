"""What surrounds the algorithm: files, evaluation, checks, tables, pictures, the command line.

Nothing here is needed to run `recap.recap`, and nothing here imports recap.py.
"""
