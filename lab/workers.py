"""Processes that work side by side, and end with the one that started them."""
import contextlib
import multiprocessing
import os
import signal
import sys
import threading
from concurrent.futures import ProcessPoolExecutor

from ranks import size
from sim_tasks.errors import UserError

MOST = 61 if sys.platform == "win32" else 1000  # a pool forks all at once; Windows has this limit

@contextlib.contextmanager
def workers(jobs):
    """A pool of `jobs` processes, for its `map`.

    After an error, or Ctrl-C, nothing more is begun, and what runs is ended, not waited for.
    UserError for more than MOST.
    """
    if jobs > MOST:
        raise UserError(f"--jobs: {jobs}, expected at most {MOST}")
    others = multiprocessing.active_children()  # of this process, too, and none of our business
    # A process that is forked off a rank would take itself for that rank.
    context = multiprocessing.get_context("spawn") if size() > 1 else None
    pool = ProcessPoolExecutor(jobs, context, initializer=begin)
    try:
        yield pool
    except BaseException:
        mine = [child for child in multiprocessing.active_children() if child not in others]
        pool.shutdown(wait=False, cancel_futures=True)
        for process in mine:
            process.terminate()
        raise
    pool.shutdown()

def inherits():
    """Does a worker know what this process has learned, not only what it imports?"""
    return multiprocessing.get_start_method() == "fork"

def begin():
    """In a new worker: Ctrl-C is for its parent to handle, and a killed parent takes it along."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    threading.Thread(target=end_with_parent, daemon=True).start()

def end_with_parent():
    """Wait for the end of the parent, then leave at once: files are written all or nothing."""
    multiprocessing.parent_process().join()
    os._exit(1)
