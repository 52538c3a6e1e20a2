"""The fast tests in two processes: `python tests/both.py`, with any options of pytest.

One takes the files from the first on, the other from the last, until they meet.  Any failure is
that of both.  `python -m pytest` runs the same tests in one process.
"""
import multiprocessing
import os
import sys
import tempfile

import pytest

class Half:
    """A plugin of pytest: runs the tests of a file if this process is the first to claim it.

    folder: where both leave their claims, new.  last: begin with the last file.
    """

    def __init__(self, folder, last):
        self.folder = folder
        self.last = last
        self.mine = {}  # file -> is it this one's?

    def pytest_collection_modifyitems(self, items):
        # The run that several files read is made by the first half alone.
        with_run = {item.path for item in items if "tiny" in item.fixturenames}
        files = sorted({item.path for item in items}, key=lambda path: (path not in with_run, path))
        if self.last:
            files.reverse()
        items.sort(key=lambda item: files.index(item.path))

    @pytest.hookimpl(tryfirst=True)
    def pytest_runtest_protocol(self, item):
        if item.path not in self.mine:
            self.mine[item.path] = self.claim(item.path.stem)
        return None if self.mine[item.path] else True

    def claim(self, name):
        try:
            os.mkdir(os.path.join(self.folder, name))
        except FileExistsError:
            return False
        return True

def half(arguments, folder, printed=None):
    """The first half, or the second one, whose output goes to a file.  Returns its status."""
    if printed is not None:
        output = os.open(printed, os.O_WRONLY | os.O_CREAT)
        os.dup2(output, 1)
        os.dup2(output, 2)
    return int(pytest.main(arguments, plugins=[Half(folder, last=printed is not None)]))

def second_half(*given):
    sys.exit(half(*given))

def main(arguments):
    """Returns a status, 0 if both halves pass.  What the second one prints comes at the end."""
    # Where a process can be forked, what takes seconds to import is there already.
    forked = multiprocessing.get_context("fork" if sys.platform == "linux" else "spawn")
    if sys.platform == "linux":
        import torch._dynamo  # noqa: F401
    with tempfile.TemporaryDirectory() as folder:
        printed = os.path.join(folder, "printed")
        second = forked.Process(target=second_half, args=(arguments, folder, printed))
        second.start()
        try:
            status = half(arguments, folder)
            second.join()
        finally:
            second.kill()
        with open(printed, encoding="utf-8") as file:
            print(file.read())
    return status or second.exitcode

if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
