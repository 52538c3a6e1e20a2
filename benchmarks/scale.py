"""What a training step costs at each --size, on this machine; and, as a model, at the paper's.

    FLOP per step      counted (torch.utils.flop_counter), beside the rule of thumb
    ms per step        measured, in float32 and bfloat16; under torchrun that of all ranks together
    GPU hours          a model: FLOP by the rule over a speed that is assumed
"""
import time

import torch
from torch.utils.flop_counter import FlopCounterMode

import recap
from benchmarks.speed import matmul_speed
from policy import draw_noise
from ranks import average, own_share, rank, size
from settings import SIZES, Settings

def scale(device, batch):
    """Two tables, printed by rank 0.  device: cpu, cuda or mps.  batch: of all ranks together."""
    torch.set_num_threads(1)
    speed = matmul_speed(768 if device == "cpu" else 4096, device) / 1e9
    say(f"{size()} rank(s), {device}, --vision, batch {batch}; matrix product {speed:,.0f} GFLOP/s")
    row = "{:<6} {:>12} {:>7} {:>10} {:>10} {:>11} {:>11}"
    say(row.format("size", "weights of π", "tokens", "GFLOP", "by rule", "fp32 ms", "bf16 ms"))
    for name in SIZES:
        step, policy = policy_step(name, device, batch)
        weights = sum(p.numel() for p in policy.parameters())
        tokens = len(policy.mask)
        with FlopCounterMode(display=False) as counter:
            step(False)
        rule = flop_of_sample(policy) * batch / size()
        flop = [f"{x / 1e9:.1f}" for x in (counter.get_total_flops(), rule)]
        ms = [f"{milliseconds(step, bf16, device):,.1f}" for bf16 in (False, True)]
        say(row.format(name, f"{weights:,}", tokens, *flop, *ms))
    say("\n" + model())

def say(text):
    if rank() == 0:
        print(text, flush=True)

def policy_step(name, device, B):
    """A step of Eq. 3 on B random samples at one --size: (callable (bf16), policy)."""
    s = Settings(size=name, vision=True, device=device)
    policy = recap.new_policy(s).to(device)
    interface = policy.config.interface
    side = interface.image
    images = torch.zeros(B, side, side, 3, dtype=torch.uint8)
    batch = dict.fromkeys(interface.cameras, images)
    batch["state"] = torch.randn(B, interface.state_dim)
    batch["prompt"] = torch.ones(B, interface.prompt_length, dtype=torch.long)
    batch["subtask"] = torch.ones(B, interface.subtask_length, dtype=torch.long)
    batch["positive"] = torch.ones(B, dtype=torch.bool)
    batch["omit"] = torch.rand(B) < s.dropout
    batch["chunk"] = torch.randn(B, s.horizon, interface.action_dim)
    batch["tokens"] = policy.tokenizer.encode(batch["chunk"].to(device))
    batch = own_share({name: x.to(device) for name, x in batch.items()})
    omega, eta = draw_noise(batch["chunk"][:, None].expand(-1, s.draws, -1, -1))
    optimizer = torch.optim.AdamW(policy.parameters(), 1e-4, fused=device != "mps")

    def step(bf16):
        optimizer.zero_grad(set_to_none=True)
        with torch.autocast(device, torch.bfloat16, enabled=bf16):
            loss = recap.eq3_loss(policy, batch, omega, eta)
        loss.backward()
        average([p.grad for p in policy.parameters() if p.grad is not None])
        torch.nn.utils.clip_grad_norm_(policy.parameters(), 1.0)
        optimizer.step()

    return step, policy

def milliseconds(step, bf16, device):
    """The mean of as many steps as there are in two seconds, at least three.

    All ranks must do the same number: it is taken from the first step, of rank 0.
    """
    step(bf16)
    begun = time.perf_counter()
    step(bf16)
    wait(device)
    n = torch.tensor([max(3.0, 2 / (time.perf_counter() - begun))])
    average([n])
    begun = time.perf_counter()
    for _ in range(int(n)):
        step(bf16)
    wait(device)
    return 1e3 * (time.perf_counter() - begun) / int(n)

def wait(device):
    """Until the device has done all that it was asked for."""
    if device != "cpu":
        getattr(torch, device).synchronize()

# ---------------------------------------------------------------- a model of the cost

def flop_of_sample(policy):
    """6 FLOP per weight and token: forward 2, backward 4.  Attention's products are left out."""
    backbone = sum(p.numel() for p in policy.backbone.blocks.parameters())
    expert = sum(p.numel() for p in policy.expert.layers.parameters())
    own = Settings().draws * policy.config.interface.n_arms
    return 6 * (backbone * len(policy.mask) + expert * own)

SPEED = 400e12  # FLOP/s: 40 % of what an H100 is sold for, in bfloat16; assumed
TOKENS = 1200  # of a sample: four images of 256, text, action tokens; assumed
# Stage, weights, samples.  One sample a second of data, once for pre-training (10,000 hours: the
# paper has "tens of thousands"), ten times for fine-tuning (1,000 episodes of two minutes).
STAGES = (
    ("V_pre, 0.67 B", 0.67e9, 36e6),
    ("π_pre, 4 B + 0.86 B", 4.86e9, 36e6),
    ("V^k, 0.67 B", 0.67e9, 1.2e6),
    ("π^k, 4 B + 0.86 B", 4.86e9, 1.2e6),
)

def model():
    """The second table: text."""
    lines = [
        f"A model, not a measurement: 6 FLOP per weight and token, {TOKENS} tokens a sample,",
        f"{SPEED / 1e12:.0f} TFLOP/s on a GPU, weights and AdamW at 16 bytes a weight:",
        f"{'stage':<22} {'samples':>8} {'FLOP':>9} {'GPU hours':>10} {'GB of state':>12}",
    ]
    for name, weights, samples in STAGES:
        flop = 6 * weights * TOKENS * samples
        hours = flop / SPEED / 3600
        state = 16 * weights / 1e9
        lines.append(f"{name:<22} {samples:8.1e} {flop:9.1e} {hours:10,.1f} {state:12.0f}")
    return "\n".join(lines)
