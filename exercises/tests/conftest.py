"""Which tree is tested, who judges it, and an end for what never ends."""
import json
import os
import signal
import sys

import pytest
import torch

# What judges is bound here, before any of the student's code can put something in its place.
import checks
import parameters

JUDGES = {module: dict(vars(module)) for module in (checks, parameters)}
# The tree that these tests stand in, or the one that grade.py names.
OURS = os.path.join(os.path.dirname(__file__), "..", "..")
sys.path.insert(0, os.environ.get("EXERCISES_TREE", OURS))
LIMIT_S = 20  # of the processor's time, for a test and for what it imports

# ---------------------------------------------------------------- an end

def alarm(seconds):
    """An error after so many seconds of the processor, 0: none.  Windows has no alarm."""

    def stop(_, frame):
        where = f"{os.path.basename(frame.f_code.co_filename)}:{frame.f_lineno}"
        raise AssertionError(f"{where}: still running after {LIMIT_S} s, an endless loop?")

    if hasattr(signal, "SIGPROF"):
        signal.signal(signal.SIGPROF, stop)
        signal.setitimer(signal.ITIMER_PROF, seconds)

@pytest.fixture(autouse=True)
def limits():
    torch.set_num_threads(1)
    alarm(LIMIT_S)
    yield
    alarm(0)

@pytest.hookimpl(hookwrapper=True)
def pytest_make_collect_report(collector):
    """While a module of tests is read, and with it the student's."""
    for module, names in JUDGES.items():
        sys.modules[module.__name__] = module
        vars(module).update(names)
    alarm(LIMIT_S)
    yield
    alarm(0)

# ---------------------------------------------------------------- what grade.py is told

# Line by line, at once: what was running as the process ended is the last one.
DIARY = os.environ.pop("EXERCISES_DIARY", None)
if DIARY is not None:
    DIARY = open(DIARY, "a", encoding="utf-8")

def note(**entry):
    if DIARY is not None:
        print(json.dumps(entry), file=DIARY, flush=True)

def error_of(report):
    """What a failed test says."""
    crash = getattr(report.longrepr, "reprcrash", None)
    return str(report.longrepr) if crash is None else crash.message

def pytest_collectstart(collector):
    if isinstance(collector, pytest.Module):
        note(began=collector.nodeid)

def pytest_collectreport(report):
    if report.failed:
        note(ended=report.nodeid, error=str(report.longrepr))

def pytest_runtest_logstart(nodeid):
    note(began=nodeid)

def pytest_runtest_logreport(report):
    if report.failed:
        note(ended=report.nodeid, error=error_of(report))
    elif report.when == "call":  # a test that the student's code skips has not passed
        note(ended=report.nodeid, error=None if report.passed else report.outcome)

def pytest_sessionfinish(exitstatus):
    if exitstatus in (0, 1, 5):  # passed, failed, nothing left to run; not where it was broken off
        note(done=True)

# ---------------------------------------------------------------- what you are told

WHAT_TO_DO = """
README.md says how.  One exercise, to the first that fails; all of them, with points and hints:
    python -m pytest -x exercises/tests/test_1_value.py
    python exercises/grade.py"""

def pytest_report_teststatus(report):
    """What is not written yet has no traceback to read."""
    if report.failed and error_of(report).startswith("NotImplementedError: Exercise"):
        return "to write", "w", "TO WRITE"

def pytest_terminal_summary(terminalreporter):
    missing = {}  # where and which -> how many tests wait for it
    for report in terminalreporter.getreports("to write"):
        crash = report.longrepr.reprcrash
        where = f"{os.path.basename(crash.path)}:{crash.lineno}"
        what = f"{where:<20} {crash.message.partition(': ')[2]}"
        missing[what] = missing.get(what, 0) + 1
    if missing:
        terminalreporter.section("still to be written")
        for what, n in missing.items():
            terminalreporter.write_line(f"{what:<50} {n} tests")
        terminalreporter.write_line(WHAT_TO_DO)
