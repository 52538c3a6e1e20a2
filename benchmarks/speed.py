"""How fast the networks and the worlds are.

    milliseconds per training step      against batch size and sequence length, with the share of
                                        this machine's matrix-product speed that it reaches
    milliseconds per sampled chunk      latencies
    world steps per second              world_speed
    what the action tokens lose         token_loss

Durations are medians of repeated calls after a warm-up.
"""
import statistics
import time

import torch
from torch.utils.flop_counter import FlopCounterMode

import recap
import sim_tasks
from collection import demonstrate
from data import episode_seeds, interface_of, stack_steps
from policy import VLA, PolicyConfig, predict_subtask, sample_actions
from settings import Settings
from sim_tasks.arms import World
from sim_tasks.demonstrator import BEST, Operator
from value import ValueConfig, ValueFunction, value_loss

TASK = sim_tasks.TASKS["fold_shirt"]
INTERFACE = interface_of(TASK)  # all five toys share it
HORIZON = PolicyConfig(INTERFACE).horizon

def measure():
    """All of it, printed: about a minute."""
    yardstick = matmul_speed()
    print(f"{torch.get_num_threads()} threads, matrix product {yardstick / 1e9:.0f} GFLOP/s")
    seeds = episode_seeds(0, "benchmark fold_shirt", 20)
    episodes = demonstrate(TASK, seeds, "mixed")
    steps = stack_steps(episodes, INTERFACE, horizon=HORIZON)
    print("\ntraining step (forward, backward, AdamW)")
    for n_coefficients in (1, 2, 4):  # sequence length at the default batch
        policy_step(steps, 32, n_coefficients, yardstick)
    for B in (16, 64, 128):  # batch size at the default length
        policy_step(steps, B, 2, yardstick)
    for B in (64, 256, 1024):
        value_step(steps, B, yardstick)
    print("\nsampling a chunk (backbone, 5 Euler steps), and the subtask before it")
    for B in (1, 32):
        latencies(steps, B)
    print("\nworld steps per second")
    for task in sim_tasks.TASKS.values():
        for n in (1, 100, 1000):
            world_speed(task, n)
    # Fixed truncation of the DCT: the lowest coefficients are kept, in 32 bins each.
    print("\naction tokens: root mean square error of the decoded chunk (unit variance)")
    for n_coefficients in (1, 2, 3, 4, 8):
        token_loss(steps, n_coefficients)

# ---------------------------------------------------------------- a stopwatch and a yardstick

def milliseconds(call, seconds=1.0):
    """Median duration of `call()` over about `seconds`, after three warm-up calls."""
    for _ in range(3):
        call()
    durations = []
    end = time.perf_counter() + seconds
    while time.perf_counter() < end or len(durations) < 5:
        begun = time.perf_counter()
        call()
        durations.append(1e3 * (time.perf_counter() - begun))
    return statistics.median(durations)

def matmul_speed(n=768):
    """Floating-point operations per second of one large matrix product: the yardstick."""
    a = torch.randn(n, n)
    return 2 * n**3 / (milliseconds(lambda: a @ a) / 1e3)

def first(steps, B):
    """The first B rows of every tensor."""
    return {name: x[:B] for name, x in steps.items()}

# ---------------------------------------------------------------- training steps

def step_of(network, loss):
    """One training step as a callable: forward, backward, clipped AdamW."""
    optimizer = torch.optim.AdamW(network.parameters(), 1e-4, fused=True)

    def step():
        optimizer.zero_grad(set_to_none=True)
        loss().backward()
        torch.nn.utils.clip_grad_norm_(network.parameters(), 1.0)
        optimizer.step()

    return step

def print_step(name, step, yardstick):
    """yardstick: floating-point operations per second, of `matmul_speed`."""
    with FlopCounterMode(display=False) as counter:
        step()
    ms = milliseconds(step)
    share = counter.get_total_flops() / (ms / 1e3) / yardstick
    print(f"{name:<48} {ms:7.1f} ms {share:7.0%} of the matrix product")

def policy_step(steps, B, n_coefficients, yardstick):
    """Eq. 3 on a batch of B steps."""
    policy = VLA(PolicyConfig(INTERFACE, n_coefficients=n_coefficients))
    policy.fit_normalizer(steps["actions"], steps["state"])
    n_draws = Settings().draws
    batch = first(steps, B)
    batch["chunk"] = policy.normalize(batch.pop("actions"), batch["state"])
    batch["tokens"] = policy.tokenizer.encode(batch["chunk"])
    batch["positive"] = torch.ones(B).bool()
    batch["omit"] = torch.rand(B) < 0.3
    omega = torch.randn(B, n_draws, *batch["chunk"].shape[1:])
    eta = torch.rand(B, n_draws) * 0.9
    step = step_of(policy, lambda: recap.eq3_loss(policy, batch, omega, eta))
    print_step(f"policy, batch {B} x {n_draws} draws, {len(policy.mask)} tokens", step, yardstick)

def value_step(steps, B, yardstick):
    """Eq. 1 on a batch of B steps."""
    value = ValueFunction(ValueConfig(INTERFACE))
    batch = first(steps, B)
    R = -torch.rand(B)
    step = step_of(value, lambda: value_loss(value(batch, batch["prompt"]), R))
    print_step(f"value, batch {B}", step, yardstick)

# ---------------------------------------------------------------- acting

def latencies(steps, B):
    """One chunk, without and with guidance, and one subtask, for B copies."""
    policy = VLA(PolicyConfig(INTERFACE)).eval()
    batch = first(steps, B)
    inputs = (policy, batch, batch["prompt"], batch["subtask"], True)
    for beta in (1.0, 2.0):
        ms = milliseconds(lambda: sample_actions(*inputs, beta))
        print(f"chunk, batch {B}, β = {beta:<37} {ms:7.1f} ms")
    ms = milliseconds(lambda: predict_subtask(policy, batch, batch["prompt"]))
    print(f"subtask, batch {B:<38} {ms:7.1f} ms")

def world_speed(task, n):
    """Steps of n copies of a task."""
    seeds = list(range(n))
    world = World(task, seeds)
    actions = Operator(world, seeds, BEST).act(world)

    def step():
        world.t[:] = 0  # never out of time while we measure
        world.observe()
        world.step(actions)

    ms = milliseconds(step, 0.3)
    print(f"{task.name + f', {n} copies':<48} {n / ms * 1e3:9.0f} per second")

def token_loss(steps, n_coefficients):
    """What is lost by keeping so few coefficients of each number of an action."""
    policy = VLA(PolicyConfig(INTERFACE, n_coefficients=n_coefficients))
    policy.fit_normalizer(steps["actions"], steps["state"])
    chunk = policy.normalize(steps["actions"], steps["state"])
    decoded = policy.tokenizer.decode(policy.tokenizer.encode(chunk))
    error = (decoded - chunk).pow(2).mean().sqrt().item()
    name = f"{n_coefficients} coefficients, {policy.n_action_tokens:2} tokens "
    print(f"{name:<48} {error:7.3f}")
