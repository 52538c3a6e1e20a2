"""both.py: each file of tests is run by one half, whichever comes first."""
from pathlib import Path
from types import SimpleNamespace

from both import Half

def items():
    """As pytest's: two tests in each of three files; those of c read the run."""
    found = []
    for name in "aabbcc":
        fixtures = ["tiny"] if name == "c" else ["tmp_path"]
        found.append(SimpleNamespace(path=Path(f"test_{name}.py"), fixturenames=fixtures))
    return found

def test_the_halves_come_from_both_ends_and_whoever_has_claimed_a_file_runs_it(tmp_path):
    orders = []
    for last in (False, True):
        order = items()
        Half(tmp_path, last).pytest_collection_modifyitems(order)
        orders.append([item.path.stem[-1] for item in order])
    assert orders == [["c", "c", "a", "a", "b", "b"], ["b", "b", "a", "a", "c", "c"]]
    halves = (Half(tmp_path, False), Half(tmp_path, True))
    a, b, c = (item for item in items()[::2])
    # None: pytest runs it; True: it is done with.
    for item, who in ((c, 0), (b, 1), (a, 1), (b, 0), (a, 0), (c, 1), (c, 0), (b, 1)):
        mine = {"a": 1, "b": 1, "c": 0}[item.path.stem[-1]] == who
        assert halves[who].pytest_runtest_protocol(item) is (None if mine else True)
