"""notebooks/: the .ipynb is what its .py says, was run, is small; and (slow) each runs."""
import json
import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
SOURCES = sorted((ROOT / "notebooks").glob("[0-9][0-9]_*.py"))
BYTES = 300_000

def stem(source):
    return source.stem

each = pytest.mark.parametrize("source", SOURCES, ids=stem)

def cells_of(text):
    """[("markdown" or "code", text)] of a percent-format script.

    Parsed here by hand, not by the library that made the .ipynb.
    """
    cells = []
    for part in re.split(r"^# %%", text, flags=re.M)[1:]:
        head, _, body = part.partition("\n")
        if head.strip() == "[markdown]":
            lines = [re.sub(r"^# ?", "", line) for line in body.strip().splitlines()]
            cells.append(("markdown", "\n".join(lines)))
        else:
            cells.append(("code", body.strip()))
    return cells

def cells_run(source):
    """The cells of the .ipynb."""
    return json.loads(source.with_suffix(".ipynb").read_text(encoding="utf-8"))["cells"]

def defined(text):
    """Names of functions and classes at the top level of a module."""
    return set(re.findall(r"^(?:def|class) (\w+)", text, re.M))

def test_eight_walkthroughs_and_no_stray_notebook():
    assert [s.name[:2] for s in SOURCES] == [f"{n:02}" for n in range(1, 9)]
    notebooks = {path.stem for path in (ROOT / "notebooks").glob("*.ipynb")}
    assert notebooks == {s.stem for s in SOURCES}

@each
def test_notebook_says_what_its_source_says(source):
    ours = []
    for cell in cells_run(source):
        ours.append((cell["cell_type"], "".join(cell["source"]).strip()))
    expected = cells_of(source.read_text(encoding="utf-8"))
    assert ours == expected, f"python notebooks/build.py {source.name[:2]} makes it anew"

@each
def test_notebook_was_run_in_order_without_error_and_is_small(source):
    code = [cell for cell in cells_run(source) if cell["cell_type"] == "code"]
    assert [cell["execution_count"] for cell in code] == list(range(1, len(code) + 1))
    outputs = []
    for cell in code:
        outputs += cell["outputs"]
    assert "error" not in {output["output_type"] for output in outputs}
    streams = [output for output in outputs if output["output_type"] == "stream"]
    assert "stderr" not in {output["name"] for output in streams}
    assert any("image/png" in output.get("data", {}) for output in outputs), "no picture"
    assert source.with_suffix(".ipynb").stat().st_size <= BYTES

@each
def test_notebook_imports_the_modules_and_ends_with_things_to_change(source):
    names = set()
    for path in [*ROOT.glob("*.py"), *(ROOT / "lab").glob("*.py")]:
        names |= defined(path.read_text(encoding="utf-8"))
    text = source.read_text(encoding="utf-8")
    copied = names & defined(text)
    assert not copied, f"defined in a module, not to be defined again: {copied}"
    kind, last = cells_of(text)[-1]
    assert kind == "markdown" and "Change this line and see" in last

@pytest.mark.parametrize("names, unknown", [(["3", "9"], "3"), (["03", "09"], "09"), ([""], "")])
def test_a_name_that_fits_no_notebook_is_an_error(names, unknown):
    pytest.importorskip("jupytext")
    pytest.importorskip("nbclient")
    command = [sys.executable, ROOT / "notebooks" / "build.py", "--run", *names]
    done = subprocess.run(command, capture_output=True, encoding="utf-8")
    assert done.returncode == 2 and done.stdout == ""
    assert f"error: {unknown!r}, expected the beginning of one of 01_value, " in done.stderr

@pytest.mark.slow
@each
def test_notebook_runs_from_top_to_bottom(source):
    build = ROOT / "notebooks" / "build.py"
    command = [sys.executable, build, "--run", source.name[:2]]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-3000:]
