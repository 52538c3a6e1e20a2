"""Make the .ipynb of every walkthrough from its .py: convert, run, keep the outputs.

    python notebooks/build.py              all of them
    python notebooks/build.py 03 04        those whose names begin so
    python notebooks/build.py --run 03     only run, write nothing: what the slow test does
    python notebooks/build.py --shown      run nothing: renew the code that notebooks show

Needs requirements-notebooks.txt.  Edit the .py, never the .ipynb.
"""
import argparse
import base64
import io
import pydoc
import sys
import time
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

import jupytext
import nbformat
from nbclient import NotebookClient
from PIL import Image

HERE = Path(__file__).resolve().parent
LIMIT_S = 3600  # of one cell: far above what any takes, so that a loop that never ends is found
METADATA = {
    "kernelspec": {"name": "python3", "display_name": "Python 3", "language": "python"},
    "language_info": {"name": "python"},
}

def sources():
    """The walkthroughs' .py files, in their order."""
    return sorted(HERE.glob("[0-9][0-9]_*.py"))

def chosen(names):
    """Those sources whose names begin with one of `names`, all for none.

    ValueError for a name that is the beginning of none of them.
    """
    for name in names:
        if not name or not any(source.name.startswith(name) for source in sources()):
            known = ", ".join(source.stem for source in sources())
            raise ValueError(f"{name!r}, expected the beginning of one of {known}")
    return [s for s in sources() if not names or s.name.startswith(tuple(names))]

def execute(source):
    """The notebook of `source` with its outputs, run in this folder as Jupyter would.

    An error in a cell is raised.
    """
    notebook = jupytext.read(source)
    notebook.metadata = nbformat.from_dict(METADATA)
    for i, cell in enumerate(notebook.cells):
        cell.id = f"cell-{i}"  # a random one would change the file at every build
    client = NotebookClient(
        notebook, timeout=LIMIT_S, kernel_name="python3", record_timing=False,
        resources={"metadata": {"path": str(HERE)}},
    )  # fmt: skip
    client.execute()
    for cell in notebook.cells:
        for output in cell.get("outputs", []):
            if "image/png" in output.get("data", {}):
                output["data"]["image/png"] = smaller(output["data"]["image/png"])
    return notebook

def smaller(png):
    """A picture in 256 colours, a third of the size.  png: base64, also what is returned."""
    picture = Image.open(io.BytesIO(base64.b64decode(png))).convert("RGB")
    file = io.BytesIO()
    picture.quantize(256, dither=Image.Dither.NONE).save(file, "png", optimize=True)
    return base64.b64encode(file.getvalue()).decode()

def renew(notebook):
    """Write anew what show.source has shown, as the modules are today.  In place."""
    sys.path[:0] = [str(HERE), str(HERE.parent)]
    import show

    for cell in notebook.cells:
        for output in cell.get("outputs", []):
            name = output.get("metadata", {}).get("source_of")
            if name is not None:
                output["data"]["text/markdown"] = show.source_of(pydoc.locate(name))

def main():
    how = argparse.RawDescriptionHelpFormatter
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=how)
    parser.add_argument("names", nargs="*")
    parser.add_argument("--run", action="store_true", help="write nothing")
    parser.add_argument("--shown", action="store_true", help="run nothing, renew the code shown")
    args = parser.parse_args()
    try:
        these = chosen(args.names)
    except ValueError as error:
        parser.error(str(error))
    if args.shown:
        for source in these:
            target = source.with_suffix(".ipynb")
            notebook = nbformat.read(target, as_version=4)
            renew(notebook)
            nbformat.write(notebook, target)
        return
    # Two side by side, the last first: those are the longest.
    with ProcessPoolExecutor(2) as pool:
        for line in pool.map(build, reversed(these), [not args.run] * len(these)):
            print(line, flush=True)

def build(source, kept):
    """Run a notebook, and write it if it is to be kept.  Returns a line about it."""
    begun = time.time()
    target = source.with_suffix(".ipynb")
    notebook = execute(source)
    if kept:
        nbformat.write(notebook, target)
    size = f", {target.stat().st_size / 1000:.0f} KB" if target.exists() else ""
    return f"{source.stem}: {time.time() - begun:.0f} s{size}"

if __name__ == "__main__":
    sys.exit(main())
