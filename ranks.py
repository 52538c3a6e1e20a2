"""Several processes, one run: `torchrun --nproc-per-node 2 recap.py` (docs/SCALE.md).

    training      every rank draws the same batch, takes its share, and gradients are averaged
    collection    every rank plays its share of the seeds, and all get all episodes
    files         rank 0 alone reads and writes

Without torchrun there is one rank, and nothing here does anything.  What is under it is
torch.distributed: gloo between CPUs, nccl between GPUs.
"""
import contextlib
import functools
import inspect
import os
import signal
from datetime import timedelta

import torch
from torch import distributed

from sim_tasks.errors import UserError

class LostRank(UserError):
    """Another rank has ended, so this one cannot go on."""

@contextlib.contextmanager
def joined():
    """Under torchrun: one of its ranks, until the end of the block."""
    if not (distributed.is_available() and distributed.is_torchelastic_launched()):
        yield
        return
    backend = "gloo"
    if torch.cuda.is_available() and distributed.is_nccl_available():
        backend = "cpu:gloo,cuda:nccl"
        torch.cuda.set_device(int(os.environ["LOCAL_RANK"]))  # what "cuda" is from here on
    # A day: ranks wait for one another's runs.  One that is killed is noticed at once.
    distributed.init_process_group(backend, timeout=timedelta(days=1))
    before = signal.getsignal(signal.SIGTERM)
    if size() > 1:
        signal.signal(signal.SIGTERM, told_to_end)
    try:
        yield
    finally:
        leave()
        signal.signal(signal.SIGTERM, before)

def told_to_end(number, frame):
    """torchrun may notice a rank that has ended before the others do, and ends them."""
    signal.signal(number, signal.SIG_IGN)  # once is enough; what will not end is killed
    raise LostRank(f"rank {rank()} of {size()} lost another one (torchrun sent SIGTERM)")

def many():
    """Is this one of several ranks?  Not every torch is built for it."""
    return distributed.is_available() and distributed.is_initialized()

def leave():
    """From here on each rank is alone."""
    if many():
        distributed.destroy_process_group()

def size():
    """How many ranks there are."""
    return distributed.get_world_size() if many() else 1

def rank():
    """Which one this is, from 0."""
    return distributed.get_rank() if many() else 0

@contextlib.contextmanager
def together():
    """Around what all ranks do together: gloo has a RuntimeError where another one has ended."""
    try:
        yield
    except RuntimeError as error:
        first = str(error).partition("\n")[0]
        raise LostRank(f"rank {rank()} of {size()} lost another one ({first})") from error

# ---------------------------------------------------------------- what is shared out

def own_rows():
    """Which rows are this rank's, a slice: every size()-th."""
    return slice(rank(), None, size())

def own_share(batch):
    """This rank's part of a batch: of a tensor (B, ...), or of all in a tuple or a dict.

    The mean of the ranks' means is the mean of the batch, for their shares are equal.
    """
    if size() == 1:
        return batch
    if isinstance(batch, tuple):
        return tuple(own_share(part) for part in batch)
    if isinstance(batch, dict):
        return {name: own_share(part) for name, part in batch.items()}
    if len(batch) % size():
        raise UserError(f"batch: {len(batch)} rows, expected a multiple of the {size()} ranks")
    return batch[own_rows()]  # (B / size, ...)

def average(tensors):
    """Put in the place of each tensor its mean over the ranks, in one message."""
    if size() == 1:
        return
    flat = torch.cat([x.flatten() for x in tensors])  # (n numbers in all,)
    with together():
        distributed.all_reduce(flat)
    flat /= size()
    for x, mean in zip(tensors, flat.split([x.numel() for x in tensors])):
        x.copy_(mean.view_as(x))

def dealt(play):
    """A function that makes an episode per seed, as one of which each rank plays its share.

    play: callable with an argument `seeds`; returns a list.  All ranks get the whole, in the order
    of the seeds.  A UserError of one is that of all.
    """
    signature = inspect.signature(play)

    @functools.wraps(play)
    def shared(*given, **named):
        if size() == 1:
            return play(*given, **named)
        call = signature.bind(*given, **named)
        n = len(call.arguments["seeds"])
        call.arguments["seeds"] = call.arguments["seeds"][own_rows()]
        own = []
        if call.arguments["seeds"]:
            own = caught(play, *call.args, **call.kwargs)
        parts = [None] * size()
        with together():
            distributed.all_gather_object(parts, own)
        parts = [checked(part) for part in parts]
        return [parts[i % size()][i // size()] for i in range(n)]

    return shared

def agree(make):
    """What make() returns on rank 0, on all ranks; or its UserError."""
    if size() == 1:
        return make()
    made = [caught(make) if rank() == 0 else None]
    with together():
        distributed.broadcast_object_list(made)
    return checked(made[0])

def caught(make, *given, **named):
    """What it returns, or its UserError."""
    try:
        return make(*given, **named)
    except UserError as error:
        return error

def checked(made):
    """What `caught` caught, raised here."""
    if isinstance(made, UserError):
        raise made
    return made
