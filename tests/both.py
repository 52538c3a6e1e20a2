"""The fast tests in two processes: `python tests/both.py`, with any options of pytest.

One takes the files from the first on, the other from the last, until they meet.  Any failure is
that of both.  `python -m pytest` runs the same tests in one process.
"""
import os
import subprocess
import sys
import tempfile

import pytest

class Half:
    """A plugin of pytest: runs the tests of a file if this process is the first to claim it.

    folder: an empty one, where both leave their claims.  last: begin with the last file.
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

def main(arguments):
    """Returns the status of the worse half.  What the second one prints comes at the end."""
    if arguments[:1] == ["--second-half"]:
        return pytest.main(arguments[2:], plugins=[Half(arguments[1], last=True)])
    with tempfile.TemporaryDirectory() as folder, tempfile.TemporaryFile() as printed:
        command = [sys.executable, __file__, "--second-half", folder, *arguments]
        second = subprocess.Popen(command, stdout=printed, stderr=subprocess.STDOUT)
        try:
            status = pytest.main(arguments, plugins=[Half(folder, last=False)])
            second.wait()
        finally:
            second.kill()
            second.wait()
        printed.seek(0)
        sys.stdout.flush()
        sys.stdout.buffer.write(printed.read())
    return max(status, second.returncode)

if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
