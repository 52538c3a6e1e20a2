"""From episodes to batches, and the one loop of AdamW that V, π and the baselines share.

Nothing here is specific to RECAP: how steps become tensors (o_t = [X_t, q_t], ℓ, a_{t:t+H}), where chance comes from,
how a network is optimised, V over whole episodes.  The losses, Eqs. (1) and (3), are in recap.py; names and sizes as there.

    a_{t:t+H}, o_t, ℓ of every step          stack_steps, perceive
    metadata s in the prompt (Sec. V-A)      draw_prompts
    co-training on web data (Sec. V-C)       web_batches
    V(o_t, ℓ) of every step                  predict_values

Deviations: past the end of an episode a chunk repeats the last action; V is trained with and without s, like π, but
labels are made without it.
"""
import math
import zlib

import numpy as np
import torch
from tqdm import tqdm

import web
from backbone import PROMPT_LENGTH, SUBTASK_LENGTH, encode
from policy import PolicyConfig
from sim_tasks.cameras import cameras as render
from value import expected_value


# ---------------------------------------------------------------- chance: everything is drawn from (seed, purpose)

def stream(seed, purpose):
    """A SeedSequence of its own for every purpose of a run."""
    return np.random.SeedSequence([seed, zlib.crc32(purpose.encode())])


def episode_seeds(seed, purpose, n):
    """n episode seeds, each an int of 63 bits; those of "evaluation" are not those of collected data."""
    return [int(x) for x in stream(seed, purpose).generate_state(n, np.uint64) >> np.uint64(1)]


def generator(seed, purpose):
    """A torch generator at the beginning of that stream."""
    return torch.Generator().manual_seed(int(stream(seed, purpose).generate_state(1, np.uint64)[0] >> np.uint64(1)))


# ---------------------------------------------------------------- from episodes to tensors

def perceive(observation, cameras=()):
    """What a network reads of {"state": (n, 6), "keypoints": (n, 4, 20)}: these, or state and the images of `cameras`.

    The simulator's pictures are a function of state and keypoints, so episodes need not carry them.
    """
    if not cameras:
        return {key: observation[key] for key in ("state", "keypoints")}
    images = render(observation["state"], observation["keypoints"])
    return {"state": observation["state"]} | {name: images[name] for name in cameras}      # uint8 (n, 24, 24, 3) each


def stack_steps(episodes, device="cpu", horizon=PolicyConfig().horizon, cameras=()):
    """All steps of all episodes in a row: dict of tensors with leading axis M = Σ T.

    state (M, 6), keypoints (M, 4, 20) or images of `cameras` (M, 24, 24, 3); ids of prompt (M, 5), of `described`, the
    prompt with the metadata s (M, 5), and of subtask (M, 2); actions (M, H, A): the chunk a_{t:t+H} as sent, its last
    action repeated past the end of the episode.  A chunk is what was done, whoever did it: near a takeover it holds actions
    of the policy and of the operator, and I_t is that of its first step.
    """
    if not episodes:
        raise ValueError("episodes: an empty dataset, expected at least one episode")
    prompts, described, subtasks, chunks = [], [], [], []
    for e in episodes:
        window = np.minimum(np.arange(len(e))[:, None] + np.arange(horizon), len(e) - 1)      # (T, H)
        chunks.append(e.actions[window])                                                      # (T, H, A)
        prompts += [encode(e.prompt, PROMPT_LENGTH)] * len(e)
        described += [encode(f"{e.prompt} {e.metadata}", PROMPT_LENGTH)] * len(e)
        names, index = np.unique(e.subtask, return_inverse=True)       # encode each text once: (few,), (T,)
        subtasks.append(np.array([encode(str(name), SUBTASK_LENGTH) for name in names])[index])   # (T, 2)
    steps = perceive({key: np.concatenate([e.observations[key] for e in episodes]) for key in ("state", "keypoints")}, cameras)
    steps |= {"actions": np.concatenate(chunks), "prompt": np.array(prompts), "described": np.array(described),
              "subtask": np.concatenate(subtasks)}
    return {key: torch.as_tensor(value, device=device) for key, value in steps.items()}


def draw_prompts(batch, metadata_dropout, g):
    """Replace prompts (B, 5) by those with s, except where it is dropped: s is a hint that may be missing (Sec. V-A)."""
    keep = torch.rand(len(batch["prompt"]), generator=g) >= metadata_dropout                   # (B,)
    batch["prompt"] = torch.where(keep[:, None].to(batch["prompt"].device), batch["described"], batch["prompt"])


def web_batches(s, cameras, share, size, purpose):
    """An endless draw of `share` x size questions and answers about random scenes (web.py), as tensors; None for 0.

    -> callable giving {observations ..., "question": ids (n, 5), "answer": ids (n, 2)}
    """
    n = round(share * size)
    if n == 0:
        return None
    pool = web.questions(20_000, int(stream(s.seed, purpose).generate_state(1)[0]))
    questions = {text: encode(text, PROMPT_LENGTH) for text in np.unique(pool["question"]).tolist()}
    answers = {text: encode(text, SUBTASK_LENGTH) for text in np.unique(pool["answer"]).tolist()}
    data = perceive(pool, cameras) | {"question": np.array([questions[text] for text in pool["question"].tolist()]),
                                      "answer": np.array([answers[text] for text in pool["answer"].tolist()])}
    data = {key: torch.as_tensor(x, device=s.device) for key, x in data.items()}
    g = generator(s.seed, purpose)

    def draw():
        index = torch.randint(len(pool["question"]), (n,), generator=g)
        return {key: x[index] for key, x in data.items()}
    return draw


# ---------------------------------------------------------------- optimising, predicting

def optimise(network, draw_loss, n_steps, learning_rate, name):
    """AdamW, a short warm-up, a cosine to zero: one loop for V, π and the baselines.

    draw_loss(): draws a batch -> its loss, a scalar; name: for messages.  Trains in place.  -> network, in eval mode
    """
    fused = next(network.parameters()).device.type != "mps"        # one call per step; not in every release on mps
    optimizer = torch.optim.AdamW(network.parameters(), learning_rate, betas=(0.9, 0.98), weight_decay=0.01, fused=fused)
    warmup = min(50, n_steps // 10 + 1)
    schedule = torch.optim.lr_scheduler.LambdaLR(
        optimizer, lambda i: min((i + 1) / warmup, 1.0) * 0.5 * (1 + math.cos(math.pi * i / n_steps)))
    network.train()
    progress = tqdm(range(n_steps), desc=name, leave=False, disable=None, mininterval=0.5)
    for i in progress:
        loss = draw_loss()
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        norm = torch.nn.utils.clip_grad_norm_(network.parameters(), 1.0)
        if not torch.isfinite(norm):       # before it reaches the weights, and a file
            raise ValueError(f"{name}: gradient norm {norm.item()} at step {i}, expected a finite one (a smaller learning rate?)")
        optimizer.step()
        schedule.step()
        if i % 50 == 0:
            progress.set_postfix(loss=f"{loss.item():.3f}")
    return network.eval()


@torch.no_grad()
def value_logits(value, episodes):
    """Logits of p_φ(V | o_t, ℓ) of all steps in a row, ℓ without metadata: list of tensors (m, bins), m <= 4096."""
    steps = stack_steps(episodes, next(value.parameters()).device, cameras=value.config.cameras)
    batches = ({key: x[i:i + 4096] for key, x in steps.items()} for i in range(0, len(steps["prompt"]), 4096))
    return [value(batch, batch["prompt"]) for batch in batches]


def predict_values(value, episodes):
    """V(o_t, ℓ) = Σ_b p_φ(V = b | o_t, ℓ) v(b) of every step: list of float (T,), one per episode."""
    V = np.concatenate([expected_value(logits).cpu().numpy() for logits in value_logits(value, episodes)])    # (M,)
    return np.split(V.astype(float), np.cumsum([len(e) for e in episodes])[:-1])


@torch.no_grad()
def flow_loss_by_eta(policy, draw_batch, n_batches=8, edges=(0, 0.1, 0.2, 0.4, 0.6, 1)):
    """Where in η the error sits: {"0-0.1": mean ‖a - â‖² / (H·A), ...} on freshly drawn batches."""
    losses, etas = [], []
    for _ in range(n_batches):
        batch, omega, eta = draw_batch()
        losses.append(policy.terms(batch, omega, eta)["flow"].flatten())
        etas.append(eta.flatten())
    losses, etas = torch.cat(losses), torch.cat(etas)                                          # (batches * B * R,) each
    return {f"{low}-{high}": round(losses[(etas >= low) & (etas < high)].mean().item(), 4)
            for low, high in zip(edges[:-1], edges[1:])}
