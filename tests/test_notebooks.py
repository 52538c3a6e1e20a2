"""notebooks/: the committed .ipynb is what its .py says, was run, is small; and (slow) each runs."""
import json
import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
SOURCES = sorted((ROOT / "notebooks").glob("[0-9][0-9]_*.py"))
BYTES = 300_000


def cells_of(source):
    """[("markdown" or "code", text)] of a percent-format script: parsed here by hand, not by the library that made the .ipynb."""
    cells = []
    for part in re.split(r"^# %%", source, flags=re.M)[1:]:
        head, _, body = part.partition("\n")
        if head.strip() == "[markdown]":
            cells.append(("markdown", "\n".join(re.sub(r"^# ?", "", line) for line in body.strip().splitlines())))
        else:
            cells.append(("code", body.strip()))
    return cells


def read(source):
    return json.loads(source.with_suffix(".ipynb").read_text(encoding="utf-8"))


def test_eight_walkthroughs_and_no_stray_notebook():
    assert [s.name[:2] for s in SOURCES] == [f"{n:02}" for n in range(1, 9)]
    assert {p.stem for p in (ROOT / "notebooks").glob("*.ipynb")} == {s.stem for s in SOURCES}


@pytest.mark.parametrize("source", SOURCES, ids=lambda s: s.stem)
def test_notebook_says_what_its_source_says(source):
    ours = [(cell["cell_type"], "".join(cell["source"]).strip()) for cell in read(source)["cells"]]
    assert ours == cells_of(source.read_text(encoding="utf-8")), f"python notebooks/build.py {source.name[:2]} makes it anew"


@pytest.mark.parametrize("source", SOURCES, ids=lambda s: s.stem)
def test_notebook_was_run_in_order_without_error_and_is_small(source):
    code = [cell for cell in read(source)["cells"] if cell["cell_type"] == "code"]
    assert [cell["execution_count"] for cell in code] == list(range(1, len(code) + 1))
    kinds = {output["output_type"] for cell in code for output in cell["outputs"]}
    streams = {output["name"] for cell in code for output in cell["outputs"] if output["output_type"] == "stream"}
    assert "error" not in kinds and "stderr" not in streams
    assert any("image/png" in output.get("data", {}) for cell in code for output in cell["outputs"]), "no picture"
    assert source.with_suffix(".ipynb").stat().st_size <= BYTES


@pytest.mark.parametrize("source", SOURCES, ids=lambda s: s.stem)
def test_notebook_imports_the_modules_and_ends_with_things_to_change(source):
    text = source.read_text(encoding="utf-8")
    names = {name for path in ROOT.glob("*.py") for name in re.findall(r"^(?:def|class) (\w+)", path.read_text(encoding="utf-8"), re.M)}
    copied = names & set(re.findall(r"^(?:def|class) (\w+)", text, re.M))
    assert not copied, f"defined in a module, not to be defined again: {copied}"
    kind, last = cells_of(text)[-1]
    assert kind == "markdown" and "Change this line and see" in last


@pytest.mark.slow
@pytest.mark.parametrize("source", SOURCES, ids=lambda s: s.stem)
def test_notebook_runs_from_top_to_bottom(source):
    done = subprocess.run([sys.executable, ROOT / "notebooks" / "build.py", "--run", source.name[:2]], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-3000:]
