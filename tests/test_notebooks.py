"""notebooks/: the .ipynb is what its .py says, was run, is small; and (slow) each runs."""
import functools
import importlib.util
import json
import os
import re
import subprocess
import sys

import pytest
from helpers import run_program
from pages import ROOT, read, resolve, rows

SOURCES = sorted((ROOT / "notebooks").glob("[0-9][0-9]_*.py"))
BYTES = 300_000
WORDS = 90  # of a paragraph

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

def prose_of(source):
    """The Markdown cells, one after the other."""
    return "\n\n".join(text for kind, text in cells_of(read(source)) if kind == "markdown")

def cells_run(source):
    """The cells of the .ipynb."""
    return json.loads(read(source.with_suffix(".ipynb")))["cells"]

def outputs_of(source):
    """The outputs of all cells, in a row."""
    outputs = []
    for cell in cells_run(source):
        outputs += cell.get("outputs", [])
    return outputs

def defined(text):
    """Names of functions and classes at the top level of a module."""
    return set(re.findall(r"^(?:def|class) (\w+)", text, re.M))

def test_nine_walkthroughs_and_no_stray_notebook():
    assert [s.name[:2] for s in SOURCES] == [f"{n:02}" for n in range(9)]
    notebooks = {path.stem for path in (ROOT / "notebooks").glob("*.ipynb")}
    assert notebooks == {s.stem for s in SOURCES}

@each
@pytest.mark.parametrize("started", ["as a program", "in Jupyter"])
def test_a_source_finds_the_modules(source, started, tmp_path, monkeypatch):
    """As a program from any folder; Jupyter starts in the notebooks' own, and has no __file__."""
    monkeypatch.chdir(tmp_path if started == "as a program" else source.parent)
    monkeypatch.setattr(sys, "path", [])
    begin = re.search(r"^import sys\n.*?^sys\.path.*?$", read(source), re.M | re.S)[0]
    exec(begin, {"__file__": str(source)} if started == "as a program" else {})
    assert sys.path == [str(ROOT)]

# ---------------------------------------------------------------- the .ipynb

@each
def test_notebook_says_what_its_source_says(source):
    ours = []
    for cell in cells_run(source):
        ours.append((cell["cell_type"], "".join(cell["source"]).strip()))
    expected = cells_of(read(source))
    assert ours == expected, f"python notebooks/build.py {source.name[:2]} makes it anew"

@each
def test_notebook_was_run_in_order_without_error_and_is_small(source):
    code = [cell for cell in cells_run(source) if cell["cell_type"] == "code"]
    assert [cell["execution_count"] for cell in code] == list(range(1, len(code) + 1))
    outputs = outputs_of(source)
    assert "error" not in {output["output_type"] for output in outputs}
    streams = [output for output in outputs if output["output_type"] == "stream"]
    assert "stderr" not in {output["name"] for output in streams}
    assert any("image/png" in output.get("data", {}) for output in outputs), "no picture"
    assert source.with_suffix(".ipynb").stat().st_size <= BYTES

@each
def test_code_that_is_shown_is_the_modules_own(source):
    """What show.source wrote into the .ipynb is what the modules say today."""
    shown = [x for x in outputs_of(source) if "source_of" in x.get("metadata", {})]
    assert shown or source.name.startswith("00")
    for output in shown:
        name = output["metadata"]["source_of"]
        expected = show().source_of(resolve(name))
        again = "python notebooks/build.py --shown writes it anew"
        assert "".join(output["data"]["text/markdown"]) == expected, f"{name}: {again}"

def show():
    """notebooks/show.py as a module."""
    pytest.importorskip("IPython")
    path = ROOT / "notebooks" / "show.py"
    specification = importlib.util.spec_from_file_location("show", path)
    module = importlib.util.module_from_spec(specification)
    specification.loader.exec_module(module)
    return module

@each
def test_notebook_imports_the_modules_and_copies_nothing(source):
    names = set()
    for path in ROOT.glob("*.py"):
        names |= defined(read(path))
    copied = names & defined(read(source))
    assert not copied, f"defined in a module, not to be defined again: {copied}"

# ---------------------------------------------------------------- what a reader finds

@each
def test_notebook_begins_and_ends_alike(source):
    """A numbered title, the ways on, things to change, and what to remember."""
    cells = cells_of(read(source))
    n = int(source.name[:2])
    first, last = cells[0][1], cells[-1][1]
    assert re.match(rf"# {n:02} · \S", first)
    headings = re.findall(r"^## (\d*)", prose_of(source), re.M)
    assert headings == [*map(str, range(1, len(headings) - 1)), "", ""]
    for cell in (first, last):
        near = {x.stem for x in SOURCES if abs(int(x.name[:2]) - n) == 1}
        assert near <= set(re.findall(r"\((\w+)\.ipynb\)", cell)) and "contents]" in cell
    assert "## Change this line and see" in last
    recap = last.split("## In three sentences")[1]
    said = " ".join(re.findall(r"^> (.*)$", recap, re.M))
    assert len(re.findall(r"\.(?: [A-Z$]|$)", said)) == 3, said

@each
def test_notebook_asks_before_it_tells(source):
    """Questions with a folded answer, a blank line after the question so that it is Markdown."""
    prose = prose_of(source)
    folded = re.findall(r"<details><summary>(.*?)</summary>\n\n(.+?)\n</details>", prose, re.S)
    assert len(folded) == prose.count("<details>") == prose.count("</details>") >= 2
    for question, answer in folded:
        assert "Predict" in question and "?" in question and answer.strip()

def without_math(text):
    return re.sub(r"\$\$.*?\$\$", "", text, flags=re.S)

@each
def test_no_paragraph_is_long(source):
    ends = r"\n>?\s*\n|\n(?=- |(?:> )?\d+\. )"  # an entry of a list ends a paragraph, too
    for paragraph in re.split(ends, without_math(prose_of(source))):
        assert len(paragraph.split()) <= WORDS, paragraph

MARK = re.compile(r"\n *(?:[-+*] |>|#+ |=+\n|\d+[.)] )")  # of Markdown, at a line's beginning

@each
def test_no_line_within_a_formula_reads_as_markdown(source):
    """A line that begins with - or + is an entry of a list, with > a quotation."""
    prose = prose_of(source)
    for formula in re.findall(r"\$\$.*?\$\$", prose, re.S):
        assert not MARK.search(formula), formula
        assert "\n\n" not in formula, formula
    code_free = re.sub(r"`[^`]*`", "", without_math(prose))
    for formula in re.findall(r"\$[^$]*\$", code_free):
        assert not MARK.search(formula), formula

MAP = {row[0]: row for row in rows(read(ROOT / "docs" / "PAPER_MAP.md")) if len(row) == 5}

@pytest.mark.parametrize("n", range(1, 14))
def test_an_equation_stands_in_the_notebooks_that_the_map_names(n):
    """Typeset on lines of its own, under the paper's number."""
    named = re.findall(r"notebooks/(\w+)\.ipynb", MAP[f"Eq. {n}"][4])
    assert named
    for name in named:
        formulas = re.findall(r"\$\$.*?\$\$", prose_of(ROOT / "notebooks" / f"{name}.py"), re.S)
        tags = " ".join(re.findall(r"\\tag\{([\d, ]+)\}", " ".join(formulas)))
        assert str(n) in re.findall(r"\d+", tags), name

def test_algorithm_1_stands_in_the_notebooks_that_the_map_names():
    named = re.findall(r"notebooks/(\w+)\.ipynb", MAP["Algorithm 1"][4])
    assert len(named) >= 2
    for name in named:
        prose = prose_of(ROOT / "notebooks" / f"{name}.py")
        listing = re.findall(r"^> (\d+)\. ", prose, re.M)
        assert listing == [str(n) for n in range(1, 11)], name

# ---------------------------------------------------------------- change this line and see

def changes():
    """[(source, section, old, new)] of every entry under "Change this line and see"."""
    found = []
    for source in SOURCES:
        part = prose_of(source).split("## Change this line and see")[1].split("\n## ")[0]
        for entry in re.split(r"^- ", part, flags=re.M)[1:]:
            entry = " ".join(entry.split())
            told = re.match(r"Sec\. (\d+): `([^`]+)` to `([^`]+)`[,:]", entry)
            assert told, f"{source.stem}: {entry}"
            found.append((source, int(told[1]), told[2], told[3]))
    return found

def code_of(source, sections):
    """The code of the imports and of some sections: {section: code}."""
    code = {}
    section = 0
    for kind, text in cells_of(read(source)):
        for number in re.findall(r"^## (\d+)\.", text, re.M) if kind == "markdown" else ():
            section = int(number)
        if kind == "code" and section in (0, *sections):
            code[section] = code.get(section, "") + text + "\n\n"
    return code

def changed_code(source, sections, section, old, new):
    """The code of those sections, with the change."""
    code = code_of(source, sections)
    # A line that the page breaks is one line there, and may be indented deeper here.
    pattern = r"\s+".join(map(re.escape, old.split()))
    changed, n = re.subn(pattern, lambda _: new, code[section])
    assert n == 1, f"{old!r} stands {n} times in section {section}"
    code[section] = changed
    return "\n".join(code[n] for n in sorted(code))

# Runs texts of code one after the other, each as if it were alone.
RUNNER = """
import contextlib, io, json, sys
import matplotlib.pyplot as plt
import torch
found = []
for code in json.load(sys.stdin):
    out = io.StringIO()
    error = ""
    torch.set_default_dtype(torch.float32)
    plt.close("all")
    with contextlib.redirect_stdout(out):
        try:
            exec(compile(code, "notebook", "exec"), {"__name__": "__main__"})
        except Exception as e:
            error = f"{type(e).__name__}: {e}"
    found.append([out.getvalue(), error])
print(json.dumps(found))
"""

@functools.cache
def outcomes(name, slow):
    """{key: (what the changed code prints, its error)} of the changes of one notebook."""
    keys = [key for key in OUTCOMES if key[0] == name and OUTCOMES[key][2] == slow]
    codes = []
    for key in keys:
        source, *change = keyed()[key]
        codes.append(changed_code(source, OUTCOMES[key][0], *change))
    environment = os.environ | {"MPLBACKEND": "Agg", "OMP_NUM_THREADS": "1"}
    done = subprocess.run(
        [sys.executable, "-c", RUNNER], input=json.dumps(codes), capture_output=True,
        cwd=ROOT / "notebooks", env=environment, encoding="utf-8",
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-3000:]
    return dict(zip(keys, json.loads(done.stdout.splitlines()[-1])))

def number(pattern, text):
    return float(re.search(pattern, text)[1])

def fails(out, error):
    return error.startswith("AssertionError")

# What is announced: (notebook, section, number of its entry) -> sections to run, check, slow?
OUTCOMES = {
    ("00", 8, 1): ([2, 3, 4, 5, 6, 7, 8], fails, True),
    ("00", 3, 2): ([2, 3], fails, False),
    ("01", 2, 1): ([2], lambda out, error: "cross at C_fail = 278 steps" in out, False),
    ("01", 4, 2): (
        [3, 4], lambda out, error: fails(out, error) or largest_gap(out) > 0.02, False,
    ),
    ("01", 4, 3): ([3, 4], fails, False),
    ("02", 8, 1): ([8], fails, False),
    ("02", 8, 2): (
        [8], lambda out, error: number(r"40% .*5: [\d.]+, ([\d.]+)", out) < 0.4
        and number(r"40% .*5: .*, ([\d.]+)\n", out) < 0.4, False,
    ),
    ("02", 8, 3): ([8], lambda out, error: not error and gains_of_the_gamble(out) > 0, False),
    ("02", 8, 4): ([8], lambda out, error: not error and gains_of_the_gamble(out) > 0, False),
    ("03", 2, 1): (
        [1, 2, 3], lambda out, error: number(r"\n +1 +([\d.]+) %", out) == 100
        and abs(number(r"\n +1 .* %\s+([\d.]+)", out) - 1.41) < 0.02, False,
    ),
    ("03", 5, 2): (
        [2, 5], lambda out, error: 0.2 < number(r"paper +middle .* by +([\d.]+)", out) < 0.5, False,
    ),
    ("03", 7, 3): (
        [6, 7], lambda out, error: out.count("100.0 % of the steps with") == 2, True,
    ),
    ("04", 1, 1): (
        [1, 2, 3], lambda out, error: abs(w1_at(1.5, out) - 0.15) < 0.01, False,
    ),
    ("04", 1, 2): (
        [1, 2, 3], lambda out, error: abs(number(r"\n +1 +[\d.-]+ +([\d.]+)", out) - 1.88) < 0.03,
        False,
    ),
    ("04", 3, 3): ([1, 2, 3], lambda out, error: fails(out, error) and w1_at(0, out) > 0.15, False),
    ("05", 6, 1): ([1, 2, 3, 4, 5, 6], fails, False),
    ("05", 5, 2): (
        [1, 2, 3, 4, 5],
        lambda out, error: not error and number(r"prompt: .*?([\d.]+) +[\d.]+ +[\d.]+\n", out) == 0,
        False,
    ),
    ("05", 3, 3): (
        [1, 2, 3], lambda out, error: abs(error_at(4, out) - error_at(6, out)) < 0.1, False,
    ),
    ("06", 9, 1): (  # on the page it is 70 and more
        list(range(1, 10)),
        lambda out, error: number(r"recap_1, beta = 1 .*? (\d+)% succeed", out) <= 45, True,
    ),
    ("06", 5, 2): (
        [1, 2, 3, 4, 5],
        lambda out, error: number(r"rl_pretrained.*? (\d+)% succeed", out) <= 5, True,
    ),
    ("07", 1, 1): ([1], lambda out, error: J_at(5, out) > J_at(1, out), False),
    ("07", 1, 2): ([1], lambda out, error: J_at(2, out) < J_at(1, out) < 1.45, False),
    ("07", 3, 3): ([1, 2, 3], lambda out, error: largest_end(out) < 0, False),
    ("08", 2, 1): ([1, 2], fails, False),
    ("08", 2, 2): ([1, 2], lambda out, error: "held 0.4" in out and not error, False),
    ("08", 3, 3): ([1, 2, 3], lambda out, error: "sleeping 47.8 Hz" in out, False),
}  # fmt: skip

def largest_gap(out):
    """Of mean return and dynamic programming, in the table of 01."""
    table = re.findall(r"^ +\d +(-[\d.]+) +-[\d.]+ +(-[\d.]+) ", out, re.M)
    return max(abs(float(a) - float(b)) for a, b in table)

def gains_of_the_gamble(out):
    """The smallest gain in the last table of 02's Sec. 8."""
    return min(float(x) for x in re.findall(r"([+-][\d.]+) at β", out))

def w1_at(beta, out):
    return number(rf"\n *{beta} .* ([\d.]+) [\d.]+ +[\d.]+(?: or more)?\n", out)

def error_at(C, out):
    """The error with 32 bins and C coefficients, in 05's Sec. 3."""
    return number(rf"\n +{C} +\d+ +([\d.]+)", out)

def J_at(beta, out):
    """Of RECAP on the problem of 07's Sec. 1."""
    return number(rf"RECAP, beta = {beta} +J = +([\d.-]+)", out)

def largest_end(out):
    """Of J at the end of PPO's steps, over all ε."""
    return max(float(x) for x in re.findall(r"J = +([\d.-]+) ± [\d.]+ at the end", out))

def keyed():
    """{(notebook, section, number of the entry): the change}."""
    found = {}
    for source, section, old, new in changes():
        n = 1 + sum(key[0] == source.name[:2] for key in found)
        found[source.name[:2], section, n] = (source, section, old, new)
    return found

def test_every_change_has_an_outcome_that_is_checked():
    assert list(keyed()) == list(OUTCOMES)

FAST = [key for key in OUTCOMES if not OUTCOMES[key][2]]
SLOW = [key for key in OUTCOMES if OUTCOMES[key][2]]

def try_change(key):
    pytest.importorskip("IPython")
    _, check, slow = OUTCOMES[key]
    out, error = outcomes(key[0], slow)[key]
    assert check(out, error), out[-3000:] + error

@pytest.mark.parametrize("key", FAST, ids=str)
def test_a_change_does_what_is_announced(key):
    try_change(key)

@pytest.mark.slow
@pytest.mark.parametrize("key", SLOW, ids=str)
def test_a_change_that_takes_a_minute_does_what_is_announced(key):
    try_change(key)

# ---------------------------------------------------------------- the tool

@pytest.mark.parametrize("names, unknown", [(["3", "9"], "3"), (["03", "09"], "09"), ([""], "")])
def test_a_name_that_fits_no_notebook_is_an_error(names, unknown, monkeypatch, capsys):
    pytest.importorskip("jupytext")
    pytest.importorskip("nbclient")
    monkeypatch.syspath_prepend(ROOT / "notebooks")
    assert run_program(monkeypatch, "notebooks/build.py", "--run", *names) == 2
    shown = capsys.readouterr()
    assert shown.out == ""
    assert f"error: {unknown!r}, expected the beginning of one of 00_recap" in shown.err

@pytest.mark.slow
@each
def test_notebook_runs_from_top_to_bottom(source):
    build = ROOT / "notebooks" / "build.py"
    command = [sys.executable, build, "--run", source.name[:2]]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-3000:]
