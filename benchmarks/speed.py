"""How fast the networks and the worlds are.

    milliseconds per training step      against batch size and sequence length, with the share of
                                        this machine's matrix-product speed that it reaches; beside
                                        torch's own encoder of that size, and in two processes
    milliseconds per sampled chunk      latencies
    seconds per episode, per task       collection_speed: linear in both
    world steps per second              world_speed, and beside Gymnasium's own vectorisation
    what the action tokens lose         token_loss

Durations are medians of repeated calls after a warm-up.
"""
import statistics
import time

import gymnasium
import torch
from torch.utils.flop_counter import FlopCounterMode

import recap
import sim_tasks
from collection import demonstrate, roll_out
from data import episode_seeds, interface_of, stack_steps
from lab.workers import workers
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
    torch.set_num_threads(1)  # as runs do
    yardstick = matmul_speed()
    print(f"1 thread, matrix product {yardstick / 1e9:.0f} GFLOP/s")
    seeds = episode_seeds(0, "benchmark fold_shirt", 20)
    episodes = demonstrate(TASK, seeds, "mixed")
    steps = stack_steps(episodes, INTERFACE, horizon=HORIZON)
    print("\ntraining step (forward, backward, AdamW)")
    for n_coefficients in (1, 2, 4):  # sequence length at the default batch
        policy_step(steps, 32, n_coefficients, yardstick)
    for B in (16, 64, 128):  # batch size at the default length
        policy_step(steps, B, 2, yardstick)
    encoder_step(32, yardstick)
    two_processes(steps, seeds)
    for B in (64, 256, 1024):
        value_step(steps, B, yardstick)
    print("\nsampling a chunk (backbone, 5 Euler steps), and the subtask before it")
    for B in (1, 32):
        latencies(steps, B)
    print("\ncollection")
    collection_speed()
    print("\nworld steps per second")
    for task in sim_tasks.TASKS.values():
        for n in (1, 100, 1000):
            world_speed(task, n)
    gymnasium_speed(100)
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

def matmul_speed(n=768, device="cpu"):
    """Floating-point operations per second of one large matrix product: the yardstick."""
    a = torch.randn(n, n, device=device)
    return 2 * n**3 / (milliseconds(lambda: (a @ a)[0, 0].item()) / 1e3)

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
    step, n_tokens = policy_training(steps, B, n_coefficients)
    name = f"policy, batch {B} x {Settings().draws} draws, {n_tokens} tokens"
    print_step(name, step, yardstick)

def policy_training(steps, B, n_coefficients=2):
    """Returns a training step of the policy, as `step_of`, and the length of its sequence."""
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
    return step, len(policy.mask)

def encoder_step(B, yardstick):
    """torch's own encoder, as wide, deep and long as the backbone: no expert, no heads, no loss."""
    config = PolicyConfig(INTERFACE)
    layer = torch.nn.TransformerEncoderLayer(
        config.width, config.heads, 2 * config.width, dropout=0, activation="gelu",
        batch_first=True, norm_first=True,
    )  # fmt: skip
    encoder = torch.nn.TransformerEncoder(layer, config.layers, enable_nested_tensor=False)
    tokens = torch.randn(B, len(VLA(config).mask), config.width)
    step = step_of(encoder, lambda: encoder(tokens).square().mean())
    print_step(f"nn.TransformerEncoder of the backbone's size, batch {B}", step, yardstick)

def two_processes(steps, seeds):
    """How much more two trainings side by side get done than one alone."""
    step, _ = policy_training(steps, 32)
    alone = milliseconds(step, 2.0)
    with workers(2) as pool:
        begun = [pool.submit(train_alone, seeds) for _ in range(2)]
        together = [future.result() for future in begun]
    gain = sum(alone / ms for ms in together)
    print(f"{'two trainings side by side':<48} {gain:7.2f} times the steps of one")

def train_alone(seeds):
    """In a worker: the milliseconds of a step, on one thread."""
    torch.set_num_threads(1)
    steps = stack_steps(demonstrate(TASK, seeds, "mixed"), INTERFACE, horizon=HORIZON)
    return milliseconds(policy_training(steps, 32)[0], 2.0)

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

def collection_speed():
    """Rollouts of an untrained policy, which all run to the limit, and demonstrations."""
    s = Settings()
    policy = recap.new_policy(s).eval()
    steps = stack_steps(demonstrate(TASK, [0, 1], "mixed"), INTERFACE, horizon=HORIZON)
    policy.fit_normalizer(steps["actions"], steps["state"])
    for n in (50, 100, 200, 400):
        ms = once(lambda: roll_out(s, TASK, list(range(n)), policy))
        print(f"{f'{n} rollouts of {TASK.max_steps} steps':<48} {ms / n:7.2f} ms per episode")
    tasks = list(sim_tasks.TASKS.values())
    for n in (1, 3, 5):
        ms = once(lambda: [demonstrate(task, list(range(100)), "mixed") for task in tasks[:n]])
        print(f"{f'100 demonstrations of {n} tasks':<48} {ms / n:7.0f} ms per task")

def once(call):
    """Milliseconds of one call, after a first one that does not count."""
    call()
    begun = time.perf_counter()
    call()
    return 1e3 * (time.perf_counter() - begun)

def gymnasium_speed(n):
    """Steps of n copies, batched by the world itself and as Gymnasium's SyncVectorEnv does it."""
    speeds = []
    for mode in ("vector_entry_point", "sync"):
        envs = gymnasium.make_vec("SimTasks/FoldShirt-v0", n, vectorization_mode=mode)
        envs.reset(seed=0)
        actions = envs.action_space.sample()
        speeds.append(n / milliseconds(lambda: envs.step(actions), 1.0) * 1e3)
        print(f"{f'FoldShirt, {n} copies, {mode}':<48} {speeds[-1]:9.0f} per second")
    print(f"{'the one over the other':<48} {speeds[0] / speeds[1]:9.0f} times")

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
