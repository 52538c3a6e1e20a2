"""What the tests of the documents read: pages, tables, names."""
import ast
import functools
import importlib
import inspect
import re
from pathlib import Path

from settings import Settings

ROOT = Path(__file__).resolve().parent.parent
DOCS = sorted((ROOT / "docs").glob("*.md"))
PAGES = [
    ROOT / "README.md", ROOT / "CONTRIBUTING.md", *DOCS,
    *sorted((ROOT / "results").glob("*.md")), *sorted((ROOT / "exercises").rglob("*.md")),
]  # fmt: skip
PACKAGES = {"sim_tasks", "lab", "robots", "reproduce", "benchmarks"}
MODULES = {path.stem for path in ROOT.glob("*.py")}

def read(path):
    return Path(path).read_text(encoding="utf-8")

def in_a_line(text):
    return " ".join(text.split())

def without_fences(text):
    """A page without its fenced blocks."""
    return re.sub(r"^```.*?^```", "", text, flags=re.M | re.S)

def rows(text):
    """Cells of every row of every table in Markdown, rules left out."""
    found = []
    for line in text.splitlines():
        if line.startswith("|") and not re.fullmatch(r"[|\- :]+", line):
            cells = re.split(r"(?<!\\)\|", line)[1:-1]
            found.append([cell.strip() for cell in cells])
    return found

def spans(text):
    """`What stands between backticks`, in a row."""
    return re.findall(r"`([^`\n]+)`", text)

def links(page):
    """Targets of the links and pictures of a page that lie in this repository."""
    text = without_fences(read(page))
    targets = re.findall(r"\]\(([^)\s]+)\)", text) + re.findall(r'<img[^>]*src="([^"]+)"', text)
    return [target for target in targets if not target.startswith(("http", "#"))]

def is_dotted_name(span):
    """Does it look like module.name, and is the module ours?"""
    ours = span.split(".")[0] in MODULES | PACKAGES | {"Settings"}
    return ours and re.fullmatch(r"\w+(\.\w+)+", span) and not span.endswith((".py", ".json"))

def resolve(name):
    """What `package.module.Class.name` or `Settings.field` stands for; else an error."""
    first, *rest = name.split(".")
    if first == "Settings":
        return Settings.__dataclass_fields__[".".join(rest)]
    thing = importlib.import_module(first)
    done = first
    for part in rest:
        done = f"{done}.{part}"
        if inspect.ismodule(thing) and not hasattr(thing, part):
            importlib.import_module(done)  # a module of a package that nobody imported yet
        if inspect.isclass(thing) and part in getattr(thing, "__dataclass_fields__", {}):
            thing = thing.__dataclass_fields__[part]
        else:
            thing = getattr(thing, part)
    return thing

@functools.cache
def functions(path):
    """{qualified name: docstring} of all functions and methods of a module."""
    found = {}

    def walk(node, prefix):
        for child in node.body:
            if isinstance(child, ast.FunctionDef):
                found[prefix + child.name] = ast.get_docstring(child) or ""
            elif isinstance(child, ast.ClassDef):
                walk(child, f"{prefix}{child.name}.")

    walk(ast.parse(read(path)), "")
    return found

# What a row of the map is named after.
PART = r"\(?(?:\d+|[IV]+(?:-[A-D])?|[A-F])\b\)?"
MANY = rf"\b(Eq|Sec|App|Fig)s?\.\s*({PART}(?:\s*(?:,|/|and|or|to|–|-)\s*{PART})*)"

def places(text):
    """What of the paper a text names: "Eqs. 6 to 9", "Secs. V-A, V-B", "App. F", a set."""
    found = {"Algorithm 1"} if "Algorithm 1" in text else set()
    for kind, run in re.findall(MANY, text):
        for low, high in re.findall(rf"({PART})(?:\s*(?:to|–|-)\s*({PART}))?", run):
            low = low.strip("()")
            high = high.strip("()")
            numbers = {low, high} - {""}
            if low.isdigit() and high.isdigit():
                numbers |= {str(n) for n in range(int(low), int(high) + 1)}
            found |= {f"{kind}. {n}" for n in numbers}
    return found

TEST_FILES = sorted((ROOT / "tests").glob("test_*.py"))
TESTS = set()
for file in TEST_FILES:
    TESTS |= set(re.findall(r"^def (test_\w+)", read(file), re.M))
