"""Trees with a bug in them: made, handed out, and imported from."""
import contextlib
import shutil
import sys
from pathlib import Path

HERE = Path(__file__).resolve().parent
sys.path.insert(0, str(HERE.parent))

from bugs import BUGS  # noqa: E402  (beside this file, and in the folder above it)
from make_student_tree import copy_modules  # noqa: E402

def patched(bug, source):
    """The module's source with the bug in it.

    ValueError where a text to replace is not there exactly once.
    """
    for old, new in bug.change:
        n = source.count(old)
        if n != 1:
            raise ValueError(f"{bug.module}.py, {bug.name}: {n} times, expected once:\n{old}")
        source = source.replace(old, new)
    return source

def plant(bug, tree):
    """Put the bug into the tree in a folder."""
    path = Path(tree) / f"{bug.module}.py"
    path.write_text(patched(bug, path.read_text(encoding="utf-8")), encoding="utf-8")

def give(number, out):
    """What a student gets: the library with the bug, and what is to be seen of it."""
    bug = BUGS[number]  # before anything is written: else a tree without a bug may be left
    copy_modules(out)
    plant(bug, out)
    symptoms = HERE / "symptoms"
    text = ""
    for page in (symptoms / f"{number:02}.md", symptoms / "task.md"):
        text += page.read_text(encoding="utf-8")
    # Without its number, which is that of a row in table.md.
    text = text.replace(f"# Hunt {number}: ", "# Hunt: ")
    text = text.replace(f"({number:02}.png)", "(look.png)")
    (out / "README.md").write_text(text, encoding="utf-8")
    shutil.copy(symptoms / f"{number:02}.png", out / "look.png")

@contextlib.contextmanager
def modules_from(tree):
    """Imports are those of `tree` here: in this process, modules of the same names put aside."""
    tree = Path(tree)
    names = {path.stem for path in tree.glob("*.py")}
    names |= {path.name for path in tree.iterdir() if path.is_dir()}
    kept = put_aside(names)
    sys.path.insert(0, str(tree))
    try:
        yield
    finally:
        sys.path.remove(str(tree))
        put_aside(names)
        sys.modules.update(kept)

def put_aside(names):
    """Take modules and packages of these names out of sys.modules.  Returns them."""
    loaded = [name for name in sys.modules if name.split(".")[0] in names]
    return {name: sys.modules.pop(name) for name in loaded}
