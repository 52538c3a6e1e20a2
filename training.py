"""How a network is trained: one loop for V, π and the baselines.

    optimise       AdamW, a short warm-up, a cosine to zero

What is drawn and which loss is minimised is the caller's: recap.train_value, recap.train_policy.
"""
import math

import torch
from tqdm import tqdm

from data import UserError
from ranks import average, rank

def optimise(network, draw_loss, n_steps, learning_rate, name, watch=None, bf16=False):
    """Minimise a loss in n_steps gradient steps.

    network: trained in place.  draw_loss: draws a batch and returns its loss, a scalar.
    learning_rate: the peak.  name: for messages.
    bf16: matrix products in bfloat16 (weights, AdamW and what is summed up stay in float32).
    watch: callable (steps done, loss, gradient norm), means since its last call; None: a bar.
    Returns the network, in eval mode.  UserError where a gradient is not finite.
    """
    device = next(network.parameters()).device.type
    fused = device != "mps"  # not in every release on mps
    optimizer = torch.optim.AdamW(
        network.parameters(), learning_rate, betas=(0.9, 0.98), weight_decay=0.01, fused=fused
    )
    schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, rate_of(n_steps))
    network.train()
    hidden = True if watch is not None or rank() > 0 else None  # None: where there is no terminal
    progress = tqdm(range(n_steps), desc=name, leave=False, disable=hidden, mininterval=0.5)
    # Numbers are read now and then only: a GPU would have to wait for each.
    often = max(1, min(50, n_steps // 40))
    seen = []
    for i in progress:
        with torch.autocast(device, torch.bfloat16, enabled=bf16):
            loss = draw_loss()
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        loss = loss.detach()
        # Several ranks: each has seen its share of the batch.
        average([x.grad for x in network.parameters() if x.grad is not None] + [loss])
        norm = torch.nn.utils.clip_grad_norm_(network.parameters(), 1.0)
        optimizer.step()
        schedule.step()
        seen.append(torch.stack([loss, norm]))
        if (i + 1) % often == 0 or i + 1 == n_steps:
            mean_loss, mean_norm = torch.stack(seen).mean(0).tolist()
            seen.clear()
            if not math.isfinite(mean_norm):
                message = f"{name}: gradient norm {mean_norm} by step {i}, expected a finite one"
                raise UserError(f"{message} (a smaller learning rate?)")
            progress.set_postfix(loss=f"{mean_loss:.3f}")
            if watch is not None:
                watch(i + 1, mean_loss, mean_norm)
    return network.eval()

def rate_of(n_steps):
    """The learning rate of step i as a share of its peak: a callable."""
    warmup = min(50, n_steps // 10 + 1)

    def rate(i):
        return min((i + 1) / warmup, 1.0) * 0.5 * (1 + math.cos(math.pi * i / n_steps))

    return rate
