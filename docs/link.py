"""Code names on the pages of docs/ as links to file and line.

    python docs/link.py        `labels.rewards` becomes [`labels.rewards`](../labels.py#L17)

A name is module.name, module.Class.name, or Settings.field.  tests/test_paper_map.py asks for
this command when the lines have moved.
"""
import ast
import re
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
# A dotted name between backticks, with or without a link to Python code around it.
SPAN = re.compile(r"\[`(\w+(?:\.\w+)+)`\]\(\.\./[\w/]+\.py(?:#L\d+)?\)|`(\w+(?:\.\w+)+)`")

def line_of(body, names):
    """The line at which names[0] is defined in `body`, names[1] inside it, and so on; or None."""
    for node in body:
        defined = [getattr(node, "name", None)]
        targets = getattr(node, "targets", [getattr(node, "target", None)])
        defined += [target.id for target in targets if isinstance(target, ast.Name)]
        if names[0] in defined:
            return node.lineno if len(names) == 1 else line_of(node.body, names[1:])
    return None

def place(name):
    """Where a dotted name is defined: "labels.py#L17", or None."""
    parts = name.split(".")
    if parts[0] == "Settings":
        parts = ["settings", *parts]
    # The longest beginning that is a file is the module.
    for n in range(len(parts) - 1, 0, -1):
        folder = ROOT.joinpath(*parts[:n])
        for file in (folder.with_suffix(".py"), folder / "__init__.py"):
            if file.is_file():
                line = line_of(ast.parse(file.read_text(encoding="utf-8")).body, parts[n:])
                return None if line is None else f"{file.relative_to(ROOT).as_posix()}#L{line}"
    return None

def linked(text):
    """A page's text with all of its names linked."""

    def link(match):
        name = match[1] or match[2]
        where = place(name)
        return f"`{name}`" if where is None else f"[`{name}`](../{where})"

    # What stands in fenced blocks is left alone.
    parts = re.split(r"(^```.*?^```)", text, flags=re.M | re.S)
    return "".join(part if part.startswith("```") else SPAN.sub(link, part) for part in parts)

if __name__ == "__main__":
    for page in sorted(Path(__file__).resolve().parent.glob("*.md")):
        page.write_text(linked(page.read_text(encoding="utf-8")), encoding="utf-8")
