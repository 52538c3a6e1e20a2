"""docs/PAPER_MAP.md and docs/DEVIATIONS.md: complete, and every name in them exists."""
import importlib.util
import re

import pytest
from pages import (
    DOCS, ROOT, TESTS, functions, is_dotted_name, places, read, resolve, rows, spans,
    without_fences,
)  # fmt: skip

specification = importlib.util.spec_from_file_location("link", ROOT / "docs" / "link.py")
link = importlib.util.module_from_spec(specification)
specification.loader.exec_module(link)

PAGE = read(ROOT / "docs" / "PAPER_MAP.md")
KEY = r"(Algorithm|Eq\.|Sec\.|App\.|Fig\.) [\dA-Z-]+"
MAP = {row[0]: row for row in rows(PAGE) if re.fullmatch(KEY, row[0])}
EMPTY = {"App. A"}  # nothing to implement

def test_places_are_read():
    assert places("Eq. (3) by way of Eq. 4: α = (1 - p) / p") == {"Eq. 3", "Eq. 4"}
    expected = {"Eq. 6", "Eq. 7", "Eq. 8", "Eq. 9", "Fig. 1", "Fig. 3"}
    assert places("Eqs. 6 to 9, Figs. 1 and 3") == expected
    assert places("Eq. (2) / (12): (B, H, A)") == {"Eq. 2", "Eq. 12"}
    expected = {"Sec. V-A", "Sec. V-C", "Algorithm 1", "App. F"}
    assert places("Secs. V-A, V-C of Algorithm 1, App. F: a") == expected

# ---------------------------------------------------------------- the map

def test_the_map_has_a_row_for_every_number_of_the_paper():
    expected = ["Algorithm 1"] + [f"Eq. {n}" for n in range(1, 14)]
    sections = "III IV IV-A IV-B IV-C V V-A V-B V-C V-D VI-A VI-B VI-C VII"
    expected += [f"Sec. {x}" for x in sections.split()]
    expected += [f"App. {x}" for x in "ABCDEF"] + [f"Fig. {n}" for n in range(1, 14)]
    assert list(MAP) == expected

@pytest.mark.parametrize("row", MAP.values(), ids=MAP.keys())
def test_what_a_row_names_exists(row):
    where, what, code, tests, notebook = row
    assert bool(code) == bool(tests) == (where not in EMPTY) and what
    for span in spans(code):
        if "/" in span:
            assert (ROOT / span).is_file(), span
        elif not span.startswith("python "):  # commands: test_documents.py
            resolve(span)
    assert set(spans(tests)) <= TESTS, set(spans(tests)) - TESTS

def test_a_function_whose_docstring_names_an_equation_stands_in_its_row():
    missing = []
    for path in sorted([*ROOT.glob("*.py"), *ROOT.glob("lab/*.py")]):
        module = ".".join(path.relative_to(ROOT).with_suffix("").parts)
        for name, text in functions(path).items():
            for place in places(text) & MAP.keys():
                named = spans(MAP[place][2])
                if place.startswith("Eq.") and f"{module}.{name}" not in named:
                    missing.append((place, f"{module}.{name}"))
    assert not missing, missing

def test_every_notebook_is_named_in_the_map_and_in_the_readme():
    names = set(re.findall(r"notebooks/(\w+)\.ipynb", PAGE))
    assert [name[:2] for name in sorted(names)] == [f"{n:02}" for n in range(9)]
    assert names == set(re.findall(r"notebooks/(\w+)\.ipynb", read(ROOT / "README.md")))

@pytest.mark.parametrize("row", MAP.values(), ids=MAP.keys())
def test_the_notebook_of_a_row_names_its_place(row):
    for name in re.findall(r"notebooks/(\w+)\.ipynb", row[4]):
        assert row[0] in places(read(ROOT / "notebooks" / f"{name}.py")), name

def test_every_symbol_stands_in_the_glossary():
    table = rows(PAGE.split("## Symbols")[1])[1:]
    words = " ".join(row[0] for row in table)
    known = re.split(r"[\s\[\]=]+|,(?!ω)", words)
    for symbol in (
        "o_t q_t ℓ s ℓ̂ a_{t:t+H} a^ℓ H T r_t C_fail R_t R_t^B B v(b) p_φ V A N ε_ℓ I_t "
        "π_θ π_ref π̂ π_pre V_pre β α η ω a^{η,ω} f_θ α_η w(η) D_demo D_ℓ K"
    ).split():
        assert symbol in known, symbol

# ---------------------------------------------------------------- links to lines

@pytest.mark.parametrize("page", DOCS, ids=lambda page: page.stem)
def test_every_name_is_a_link_to_its_line(page):
    text = read(page)
    assert text == link.linked(text), "the lines have moved: run `python docs/link.py`"
    for span in spans(without_fences(text)):
        if is_dotted_name(span):
            assert f"[`{span}`](../" in text, span

def test_link_finds_the_line_of_a_definition():
    for name, words in (
        ("labels.rewards", "def rewards("),
        ("policy.VLA.field", "def field("),
        ("policy.FLOW_WEIGHTS", "FLOW_WEIGHTS ="),
        ("sim_tasks.TASKS", "TASKS ="),
        ("sim_tasks.demonstrator.Gate", "class Gate"),
        ("Settings.beta", "beta:"),
    ):
        file, line = link.place(name).split("#L")
        assert read(ROOT / file).splitlines()[int(line) - 1].strip().startswith(words), name
    assert link.place("labels.no_such_name") is None
    assert link.place("no_such_module.rewards") is None
    here = f"[`labels.rewards`](../{link.place('labels.rewards')})"
    fenced = "`np.mean`\n```\n`labels.rewards`\n```\n"
    before = f"`labels.rewards`, [`labels.rewards`](../labels.py#L1), {fenced}"
    assert link.linked(before) == f"{here}, {here}, {fenced}"

# ---------------------------------------------------------------- deviations

def numbered():
    """{number: its text} of docs/DEVIATIONS.md."""
    listed = read(ROOT / "docs" / "DEVIATIONS.md").split("\n## ")[0]
    found = re.findall(r"^(\d+)\. (.*?)(?=^\d+\. |\Z)", listed, re.M | re.S)
    assert [int(n) for n, _ in found] == list(range(1, len(found) + 1))
    return dict((int(n), text) for n, text in found)

def test_the_deviations_are_numbered_in_order():
    assert len(numbered()) >= 26

def test_modules_refer_to_deviations_that_exist():
    known = set(numbered())
    referred = {}
    for path in sorted([*ROOT.glob("*.py"), *ROOT.glob("*/*.py")]):
        text = read(path)
        numbers = deviations_of(text)
        for found in re.findall(r"docs/DEVIATIONS\.md, ([\d, ]+)", text):
            numbers |= {int(n) for n in re.findall(r"\d+", found)}
        assert numbers <= known, (path, numbers - known)
        if numbers:
            referred[path.stem] = numbers
    method = {"recap", "labels", "collection", "value", "policy", "backbone", "baselines"}
    assert method <= set(referred)

def deviations_of(text):
    """The numbers in a module's head: "Deviations (docs/DEVIATIONS.md): 1 sizes, 7 no VLM."."""
    named = re.search(r"^Deviations \(docs/DEVIATIONS\.md\): (.*?)\.$", text, re.M | re.S)
    return {int(n) for n in re.findall(r"\b\d+\b", named[1])} if named else set()

def test_a_deviation_is_named_where_its_code_stands():
    """The number, a module that deviates so, and the subject in the list."""
    listed = numbered()
    for number, module, subject in (
        (3, "labels", "bootstrap"), (4, "labels", "C_fail"), (5, "labels", "ε_ℓ follows App. F"),
        (6, "labels", "share is positive"), (7, "backbone", "No pre-trained model"),
        (9, "policy", "action expert"), (12, "policy", "(1 − η)²"), (14, "recap", "dropout"),
        (15, "recap", "V_0"), (16, "collection", "Demonstrations fail"),
        (17, "data", "takeover"), (19, "collection", "scripted"), (22, "baselines", "squared"),
        (26, "value", "clock"),
    ):  # fmt: skip
        head = read(ROOT / f"{module}.py").split('"""')[1]
        assert number in deviations_of(head), (number, module)
        assert subject in " ".join(listed[number].split()), number
