"""What all programs have in common where they begin and end: `run_program`.

    begins     on any terminal, also one without Greek letters; pictures go to files, not to windows
    ends       with a status, and one line for what is the user's to mend
"""
import os
import sys

import matplotlib
import torch

from ranks import LostRank, rank
from sim_tasks.errors import UserError

def run_program(name, work, hint=str):
    """Call work().  Returns its status, for sys.exit: None is 0.

    name: of the program, in its messages.  hint: callable, how to go on; "" where nothing is lost.
    2 and one line: a `UserError`, an OSError, like a full disk or a closed pipe, or too little
    memory.  130: Ctrl-C.
    All other exceptions are faults of ours, and keep their traceback.
    """
    degrade_text()
    # Jupyter hands its own backend down to what is started in it, and a terminal may have none.
    matplotlib.use("Agg")
    try:
        status = work()
    except KeyboardInterrupt:
        status = complain(130, f"\n{name}: interrupted", hint())
    except LostRank as error:
        status = complain(2, f"{name}: error: {error}", hint())
    except UserError as error:
        status = complain(2, f"{name}: error: {error}")
    except OSError as error:
        status = complain(2, f"{name}: error: {error}", hint())
    except (MemoryError, RuntimeError) as error:
        if not out_of_memory(error):
            raise
        first = str(error).partition("\n")[0]
        status = complain(2, f"{name}: error: out of memory, {first} (a smaller batch?)", hint())
    finally:
        lost = flush()
    if lost is not None:
        status = complain(2, f"{name}: error: {lost}")
    return status or 0

def out_of_memory(error):
    """Is there too little memory?  Torch says so by a RuntimeError."""
    if isinstance(error, (MemoryError, torch.cuda.OutOfMemoryError)):
        return True
    return "allocate memory" in str(error)

def complain(status, message, hint=""):
    """One line on stderr.  Returns the status."""
    if rank() > 0:
        return status  # it is all ranks' error, and the first one speaks
    try:
        print(f"{message}; {hint}" if hint else message, file=sys.stderr)
    except OSError:  # nobody is left to read it
        pass
    return status

def degrade_text():
    """A letter that a terminal cannot show is a "?" there; where there is none, text is lost."""
    for name in ("stdout", "stderr"):
        stream = getattr(sys, name)
        if stream is None:  # closed by who called
            setattr(sys, name, open(os.devnull, "w", encoding="utf-8"))
        elif hasattr(stream, "reconfigure"):
            stream.reconfigure(errors="replace")

def flush():
    """Write what is left of stdout.  Returns the OSError, as of a full disk, or None.

    Who closed the pipe (`| head -1`) wants no more: that is no error.
    """
    try:
        sys.stdout.flush()
    except OSError as error:
        # Else the interpreter would try once more as it ends, and fail again.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return None if isinstance(error, BrokenPipeError) else error
    return None
