"""lab/workers.py: processes end with the one that started them, however it ends."""
import multiprocessing
import os
import signal
import subprocess
import sys
import time

import pytest

from helpers import ROOT
from lab.workers import workers
from sim_tasks.errors import UserError

# Two workers that take a minute, and two more that wait; the pids of all that began are noted.
PROGRAM = """
import os, signal, sys, time
signal.signal(signal.SIGINT, signal.default_int_handler)  # ignored where tests run behind a shell
sys.path.insert(0, sys.argv[1])
from lab.program import run_program
from lab.workers import workers

def minute(i):
    open(f"began-{os.getpid()}", "w", encoding="utf-8").close()
    time.sleep(60)

def work():
    with workers(2) as pool:
        list(pool.map(minute, range(4)))

if __name__ == "__main__":
    sys.exit(run_program("reproduce", work, lambda: "the same command goes on"))
"""

def pids(folder):
    return [int(path.name.removeprefix("began-")) for path in folder.glob("began-*")]

def wait_for(condition, seconds=20):
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.02)

def alive(pid):
    """Is it there, and more than a name that its parent has not read yet?"""
    try:
        with open(f"/proc/{pid}/stat", encoding="utf-8") as file:
            return file.read().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False

@pytest.fixture
def started(tmp_path):
    """The program while two workers are busy."""
    (tmp_path / "program.py").write_text(PROGRAM, encoding="utf-8")
    process = subprocess.Popen(
        [sys.executable, "program.py", ROOT], cwd=tmp_path, stderr=subprocess.PIPE,
        encoding="utf-8", start_new_session=True,
    )  # fmt: skip
    try:
        wait_for(lambda: len(pids(tmp_path)) == 2)
        yield process
    finally:
        process.kill()
        process.wait()
        for pid in pids(tmp_path):
            if alive(pid):
                os.kill(pid, signal.SIGKILL)

needs_proc = pytest.mark.skipif(not os.path.exists("/proc/self/stat"), reason="no /proc")

@needs_proc
@pytest.mark.parametrize("whom", ["all", "the parent"])
def test_ctrl_c_ends_the_workers_within_seconds(started, tmp_path, whom):
    """A terminal sends it to all processes.  Nothing new is begun, nobody is waited for."""
    send = os.killpg if whom == "all" else os.kill
    send(started.pid, signal.SIGINT)
    _, error = started.communicate(timeout=10)
    assert started.returncode == 130
    assert error == "\nreproduce: interrupted; the same command goes on\n"
    wait_for(lambda: not any(alive(pid) for pid in pids(tmp_path)), 5)
    assert len(pids(tmp_path)) == 2

@needs_proc
def test_workers_end_with_a_parent_that_is_killed(started, tmp_path):
    started.kill()
    started.wait()
    wait_for(lambda: not any(alive(pid) for pid in pids(tmp_path)), 5)

def test_an_error_of_a_worker_is_raised_and_the_others_are_ended():
    begun = time.monotonic()
    with pytest.raises(ZeroDivisionError):
        with workers(2) as pool:
            list(pool.map(divide_or_sleep, [0, 30, 30, 30]))
    assert time.monotonic() - begun < 15

@pytest.mark.parametrize("jobs", [1001, 10**9])
def test_a_billion_processes_are_not_begun(jobs):
    """A pool forks all of them at its first task."""
    with pytest.raises(UserError, match=f"--jobs: {jobs}, expected at most "):
        with workers(jobs):
            pytest.fail("began")

def test_other_children_of_the_process_live_on():
    other = multiprocessing.get_context("spawn").Process(target=time.sleep, args=(30,))
    other.start()
    try:
        with pytest.raises(ZeroDivisionError):
            with workers(1) as pool:
                pool.submit(divide_or_sleep, 0).result()
        other.join(0.5)
        assert other.is_alive()
    finally:
        other.kill()
        other.join()

def divide_or_sleep(n):
    time.sleep(n)
    return 1 / n
