"""Speed and latency, all measured in one run: compare the ratios, not the milliseconds of two machines.

    python benchmark.py              about a minute

Prints: milliseconds per training step of policy and value function against batch size and sequence length, with the
share of this machine's matrix-product speed that they reach; milliseconds per sampled chunk; world steps per second;
and what the action tokens lose against how many there are.  Medians of repeated calls after a warm-up.
"""
import argparse
import statistics
import time

import torch
from torch.utils.flop_counter import FlopCounterMode

import recap
import sim_tasks
from policy import PolicyConfig, VLA, predict_subtask, sample_actions
from recap import Settings, demonstrate, stack_steps
from sim_tasks.arms import World
from sim_tasks.demonstrator import BEST, MIXED, Operator
from value import ValueFunction, value_loss


def milliseconds(call, seconds=1.0):
    """Median duration of `call()` over about `seconds`, after three warm-up calls."""
    for _ in range(3):
        call()
    durations, end = [], time.perf_counter() + seconds
    while time.perf_counter() < end or len(durations) < 5:
        begun = time.perf_counter()
        call()
        durations.append(1e3 * (time.perf_counter() - begun))
    return statistics.median(durations)


def matmul_speed(n=768):
    """Floating-point operations per second of one large matrix product: this machine's yardstick."""
    a = torch.randn(n, n)
    return 2 * n ** 3 / (milliseconds(lambda: a @ a) / 1e3)


def step_of(network, loss):
    """One training step as a callable: forward, backward, clipped AdamW."""
    optimizer = torch.optim.AdamW(network.parameters(), 1e-4, fused=True)

    def step():
        optimizer.zero_grad(set_to_none=True)
        loss().backward()
        torch.nn.utils.clip_grad_norm_(network.parameters(), 1.0)
        optimizer.step()
    return step


def report(name, step, yardstick):
    with FlopCounterMode(display=False) as counter:
        step()
    ms = milliseconds(step)
    print(f"{name:<48} {ms:7.1f} ms {counter.get_total_flops() / (ms / 1e3) / yardstick:7.0%} of the matrix product")


def training_steps(episodes, yardstick):
    print("\ntraining step (forward, backward, AdamW)")
    for n_coefficients in (1, 2, 4):
        config = PolicyConfig(n_coefficients=n_coefficients)
        for B in (16, 32, 64, 128):
            if n_coefficients != 2 and B != 32:
                continue          # sequence length at the default batch, batch size at the default length
            policy, s = VLA(config), Settings()
            steps = stack_steps(episodes)
            policy.fit_normalizer(steps["actions"], steps["state"])
            batch = {key: x[:B] for key, x in steps.items()}
            batch["chunk"] = policy.normalize(batch.pop("actions"), batch["state"])
            batch |= {"tokens": policy.tokenizer.encode(batch["chunk"]), "positive": torch.ones(B).bool(),
                      "omit": torch.rand(B) < 0.3}
            omega, eta = torch.randn(B, s.draws, *batch["chunk"].shape[1:]), torch.rand(B, s.draws) * 0.9
            report(f"policy, batch {B} x {s.draws} draws, {len(policy.mask)} tokens",
                   step_of(policy, lambda: recap.eq3_loss(policy, batch, omega, eta)), yardstick)
    for B in (64, 256, 1024):
        value, steps = ValueFunction(), stack_steps(episodes)
        batch, R = {key: x[:B] for key, x in steps.items()}, -torch.rand(B)
        report(f"value, batch {B}", step_of(value, lambda: value_loss(value(batch, batch["prompt"]), R)), yardstick)


def latencies(episodes):
    print("\nsampling a chunk (backbone, 5 Euler steps), and the subtask before it")
    policy, steps = VLA().eval(), stack_steps(episodes)
    for B in (1, 32):
        batch = {key: x[:B] for key, x in steps.items()}
        for beta in (1.0, 2.0):
            ms = milliseconds(lambda: sample_actions(policy, batch, batch["prompt"], batch["subtask"], True, beta))
            print(f"chunk, batch {B}, β = {beta:<37} {ms:7.1f} ms")
        print(f"subtask, batch {B:<38} {milliseconds(lambda: predict_subtask(policy, batch, batch['prompt'])):7.1f} ms")


def world_speed():
    print("\nworld steps per second")
    for task in sim_tasks.TASKS.values():
        for n in (1, 100, 1000):
            world = World(task, list(range(n)))
            hold = Operator(world, list(range(n)), BEST).act(world)

            def step():
                world.t[:] = 0             # never out of time while we measure
                world.observe()
                world.step(hold)
            ms = milliseconds(step, 0.3)
            print(f"{task.name + f', {n} copies':<48} {n / ms * 1e3:9.0f} per second")


def token_loss(episodes):
    """Fixed truncation of the DCT: what is lost by keeping the lowest coefficients, in 32 bins each."""
    print("\naction tokens: root mean square error of the decoded chunk (unit variance)")
    steps = stack_steps(episodes)
    for n_coefficients in (1, 2, 3, 4, 8):
        policy = VLA(PolicyConfig(n_coefficients=n_coefficients))
        policy.fit_normalizer(steps["actions"], steps["state"])
        chunk = policy.normalize(steps["actions"], steps["state"])
        error = (policy.tokenizer.decode(policy.tokenizer.encode(chunk)) - chunk).pow(2).mean().sqrt()
        print(f"{n_coefficients} coefficients, {policy.n_action_tokens:2} tokens {'':<25} {error.item():7.3f}")


def main():
    argparse.ArgumentParser(description=__doc__.splitlines()[0]).parse_args()
    yardstick = matmul_speed()
    print(f"{torch.get_num_threads()} threads, matrix product {yardstick / 1e9:.0f} GFLOP/s")
    episodes = demonstrate(Settings(demonstrations=20), "fold_shirt", MIXED, "benchmark")
    training_steps(episodes, yardstick)
    latencies(episodes)
    world_speed()
    token_loss(episodes)


if __name__ == "__main__":
    main()
