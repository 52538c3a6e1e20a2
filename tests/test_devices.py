"""Devices: no training step waits for a GPU; (where there is one) a run on it, and in bfloat16."""
import warnings

import numpy as np
import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode

import recap
from helpers import TINY_POLICY, TINY_RUN, episode, fresh, toy_policy, toy_value
from policy import VLA
from recap import Settings, train_policy, train_value

class Copies(TorchDispatchMode):
    """Counts the copies to another device that are waited for."""

    def __init__(self):
        super().__init__()
        self.waited = []

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        kwargs = kwargs or {}
        if function is torch.ops.aten._to_copy.default:
            device = kwargs.get("device")
            moved = device is not None and device != args[0].device
            if moved and not kwargs.get("non_blocking"):
                self.waited.append((tuple(args[0].shape), device))
        return function(*args, **kwargs)

def watched(monkeypatch, steps):
    """Lets training take so many steps, with nothing but the loss and its gradient."""
    copies = Copies()

    def optimise(network, draw_loss, *rest):
        for _ in range(steps):
            with copies:
                draw_loss().backward()
        return network

    monkeypatch.setattr(recap, "optimise", optimise)
    return copies

@pytest.mark.parametrize("more", [{}, {"metadata": True}, {"web": 0.5}, {"balance": 0.5}])
def test_no_step_looks_at_a_number_that_is_on_the_device(monkeypatch, more):
    """On torch's "meta" device there are no numbers: to look at one is an error.

    That is what a step must not do on a GPU either: it would wait for all work before it.
    """
    s = Settings(**(TINY_RUN | more))
    s.device = "meta"
    D = [episode(20, seed=i) for i in range(3)]
    I = [np.arange(20) % 3 == 0] * 3
    copies = watched(monkeypatch, 2)
    policy = toy_policy()
    policy.fitted.fill_(True)
    train_policy(policy, D, I, s, 2)
    train_value(toy_value(), D, s, 2)
    assert copies.waited == []

def test_looking_at_a_number_there_is_an_error():
    """What the test above relies on."""
    x = torch.ones(3, device="meta")
    with pytest.raises((RuntimeError, NotImplementedError)):
        bool((x > 0).any())
    with pytest.raises((RuntimeError, NotImplementedError)):
        x.sum().item()
    with pytest.raises((RuntimeError, NotImplementedError)):
        x[x > 0]
    with Copies() as copies:
        torch.ones(3).to("meta")
        torch.ones(3).to("meta", non_blocking=True)
    assert len(copies.waited) == 1

def losses(s, D, I):
    """Of π, step by step."""
    seen = []
    torch.manual_seed(0)
    policy = fresh(VLA, TINY_POLICY)
    train_policy(policy, D, I, s, 60, watch=lambda step, loss, norm: seen.append(loss))
    return np.array(seen), policy

def test_bfloat16_learns_what_float32_does():
    D = [episode(30, seed=i) for i in range(4)]
    I = [np.arange(30) % 3 == 0] * 4
    exact, _ = losses(Settings(batch=16), D, I)
    rough, policy = losses(Settings(batch=16, bf16=True), D, I)
    assert not np.array_equal(exact, rough)
    np.testing.assert_allclose(rough, exact, rtol=0.02)
    assert rough[-1] < 0.9 * rough[0]
    assert all(p.dtype == torch.float32 for p in policy.parameters())

# ---------------------------------------------------------------- where there is one

def has(device):
    return torch.cuda.is_available() if device == "cuda" else torch.backends.mps.is_available()

@pytest.mark.parametrize("bf16", [False, True])
@pytest.mark.parametrize("device", ["cuda", "mps"])
def test_training_on_a_gpu_is_that_on_a_cpu(device, bf16):
    if not has(device):
        pytest.skip(f"no {device} on this machine")
    D = [episode(30, seed=i) for i in range(4)]
    I = [np.arange(30) % 3 == 0] * 4
    exact, _ = losses(Settings(batch=16), D, I)
    theirs, policy = losses(Settings(batch=16, bf16=bf16, device=device), D, I)
    np.testing.assert_allclose(theirs, exact, rtol=0.02 if bf16 else 1e-3)
    assert next(policy.parameters()).device.type == device

@pytest.mark.parametrize("device", ["cuda", "mps"])
def test_a_run_on_a_gpu_to_the_end(device):
    if not has(device):
        pytest.skip(f"no {device} on this machine")
    pi, V = recap.recap(Settings(**TINY_RUN, device=device))
    for network in (pi, V):
        assert next(network.parameters()).device.type == device
        assert all(p.isfinite().all() for p in network.parameters())

def waits(n_steps):
    """How often the card is waited for in so many steps of π, its data's copies included."""
    D = [episode(30, seed=i) for i in range(4)]
    I = [np.arange(30) % 3 == 0] * 4
    policy = fresh(VLA, TINY_POLICY)
    torch.cuda.set_sync_debug_mode("warn")
    try:
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            train_policy(policy, D, I, Settings(batch=16, device="cuda"), n_steps)
    finally:
        torch.cuda.set_sync_debug_mode("default")
    return sum("synchronizing" in str(warning.message) for warning in caught)

def test_a_card_is_waited_for_as_often_in_twice_the_steps():
    """Only where the loss is read, 40 times a training; torch itself counts."""
    if not has("cuda"):
        pytest.skip("no cuda on this machine")
    waits(40)  # what is made once: handles, caches
    once = waits(400)
    assert once >= 40
    assert waits(800) == once
