"""RECAP: RL with Experience and Corrections via Advantage-conditioned Policies (Algorithm 1).

    Algorithm 1                                  recap
    Eq. 1     value training                     train_value      (the loss: value.value_loss)
    Eqs. 3, 4    objective, 30 % dropout of I_t  eq3_loss, train_policy
    Eq. 5, App. F    returns, advantages, I_t    labels.py
    Eqs. 2, 4, 6-10, 12, 13                      policy.py        (Eq. 11: baselines.py)
    Sec. V-D  rollouts and corrections           collection.py    (the training loop: training.py)

    python recap.py                a run of a few minutes, with tables and pictures
    python recap.py --help         every setting
    pi, V = recap(Settings())      the algorithm alone, in a notebook

Names: s are the settings (the paper's s is called metadata), e an episode, D a list of them,
I their indicators, g a generator of random numbers, k the iteration.
In shapes: M = Σ T steps of a dataset, B steps of a batch, n_draws draws of (ω, η) for each.
Deviations (docs/DEVIATIONS.md): 1, 6, 8, 14, 15, 16.
"""
import copy
import sys
from functools import partial

import numpy as np
import torch
import torch.nn.functional as F

from collection import collect_iteration, demonstrations, task_demonstrations
from data import UserError, balanced_draw, draw_prompts, generator, stack_steps, web_batches
from labels import all_positive, episode_returns, label
# Re-exported: recap.returns and others work, too.
from labels import advantages, indicators, returns, rewards, threshold  # noqa: F401
from policy import FLOW_WEIGHTS, VLA, PolicyConfig, draw_noise
from ranks import own_share
from settings import SIZES, Settings
from training import optimise
from value import ValueConfig, ValueFunction, predict_values, value_loss

# ---------------------------------------------------------------- Algorithm 1

def call(name, make, *arguments):
    """What `recap` does with each of its products where nothing is kept: make it."""
    return make(*arguments)

def recap(s: Settings, keep=call) -> tuple:
    """Algorithm 1.  s: the settings.  Returns (π, V), the last policy and value function.

    keep: keep(name, make, *arguments) returns make(*arguments), or what an earlier run kept.
    The numbers on the right are the lines of the paper's listing.
    """
    # Pre-training: demonstrations of many tasks, judged to the end of the episode (N = T).
    D_demo = keep("D_demo", demonstrations, s)
    V_pre = keep("V_pre", train_value, new_value(s), D_demo, s, s.value_pretraining_steps)  # 1
    I = label(predict_values(V_pre, D_demo), D_demo, s, iteration=0)
    pi_pre = keep("pi_pre", train_policy, new_policy(s), D_demo, I, s, s.pretraining_steps)  # 2

    # The target task, first from demonstrations alone: SFT, with I_t = True (Sec. V-D).
    D = keep("D_0", task_demonstrations, s)  # 3
    V = keep("V_0", train_value, copy.deepcopy(V_pre), D, s, s.value_steps)  # 4
    I = all_positive(D)
    pi = keep("pi_0", train_policy, copy.deepcopy(pi_pre), D, I, s, s.sft_steps)  # 5

    # Then from experience.  Data only grow; every round trains the pre-trained networks again.
    for k in range(1, s.iterations + 1):  # 6
        D = D + keep(f"D_{k}", collect_iteration, s, pi, k)  # 7
        start = V if s.restart == "all" else V_pre
        V = keep(f"V_{k}", train_value, copy.deepcopy(start), D, s, s.value_steps)  # 8
        I = label(predict_values(V, D), D, s, iteration=k)
        start = pi_pre if s.restart == "pretrained" else pi
        pi = keep(f"pi_{k}", train_policy, copy.deepcopy(start), D, I, s, s.policy_steps)  # 9
    return pi, V

def supervised(s: Settings, keep=call) -> VLA:
    """π_0.6 of Sec. VI-B: the same data, network and steps, never shown the indicator.

    Arguments as `recap`.  Three policies are kept: a small one, π_0.6, and π_0.6 after SFT, which
    is returned.
    """
    D_demo = keep("D_demo", demonstrations, s)
    # In the place of π_0.5, which is older and smaller: one layer of half the width.
    small = new_policy(s, width=32, layers=1, expert_width=32)
    keep("supervised_small", train_policy, small, D_demo, None, s, s.pretraining_steps)
    pi = keep("supervised_pre", train_policy, new_policy(s), D_demo, None, s, s.pretraining_steps)
    D = keep("D_0", task_demonstrations, s)
    return keep("supervised_sft", train_policy, copy.deepcopy(pi), D, None, s, s.sft_steps)

def new_value(s: Settings) -> ValueFunction:
    """V with random weights (paper: from a pre-trained VLM)."""
    torch.manual_seed(s.seed)
    return ValueFunction(ValueConfig(s.interface, clock=s.value_clock, **SIZES[s.size].value))

def new_policy(s: Settings, **size) -> VLA:
    """π with random weights (paper: from a pre-trained VLM).  size: fields of `PolicyConfig`."""
    torch.manual_seed(s.seed)
    size = SIZES[s.size].policy | size
    size |= {"horizon": s.horizon, "output": s.output, "insulation": s.insulation}
    return VLA(PolicyConfig(s.interface, **size))

# ---------------------------------------------------------------- training: Eqs. 1 and 3

def train_value(
    value: ValueFunction, D: list, s: Settings, n_steps: int, watch=None
) -> ValueFunction:
    """Minimise Eq. 1 over the steps of D, each drawn as often (as in its sum over t).

    The metadata s stay out of V's prompts: told of a slow operator, it would expect no more of
    them, and their steps would be as good as a fast one's.
    value: trained in place.  D: episodes.  n_steps: gradient steps.  watch: of `optimise`.
    """
    D = [e for e in D if s.value_on_corrections or e.source != "corrected"]
    interface = value.config.interface
    steps = stack_steps(D, interface, s.device)
    R = np.concatenate(episode_returns(D, s))  # (M,)
    R = torch.as_tensor(R, dtype=torch.float32, device=s.device)
    g = generator(s.seed, f"value {len(R)}")  # another stream of batches for every dataset
    draw_questions = web_batches(s, interface, s.value_batch, "web value")

    def draw_loss():
        index = own_share(torch.randint(len(R), (s.value_batch,), generator=g))  # (B,)
        index = index.to(s.device, non_blocking=True)  # a GPU need not be waited for
        batch = {name: x[index] for name, x in steps.items()}
        loss = value_loss(value(batch, batch["prompt"]), R[index])
        if draw_questions is not None:
            loss = loss + s.web * answer_loss(value, own_share(draw_questions()))
        return loss

    value.to(s.device)
    return optimise(value, draw_loss, n_steps, s.value_learning_rate, "value", watch, s.bf16)

def eq3_loss(policy: VLA, batch: dict, omega, eta, tokens=1.0, weight=None) -> torch.Tensor:
    """Eq. 3 by way of Eq. 4: subtask + tokens * action tokens + 10 * flow, means over the batch.

    The subtask's term is the third factor of Eq. 6; it never sees I_t.  With a dropout of p the
    batches hold (1 - p) [-log π(a | I, o)] + p [-log π(a | o)]: p times Eq. 3, α = (1 - p) / p.
    batch, omega, eta: as `VLA.terms`.  tokens: weight of the action tokens.
    weight: α_η of Eq. 4, a value of policy.FLOW_WEIGHTS.
    Returns a scalar.
    """
    terms = policy.terms(batch, omega, eta, weight)
    # Tokens and flow train disjoint weights (knowledge insulation), and Adam ignores a constant
    # factor: the 10 brings both gradients to one size for the clipping that they share.
    return terms["subtask"].mean() + tokens * terms["tokens"].mean() + 10 * terms["flow"].mean()

def train_policy(policy, D, I, s, n_steps, loss=None, columns=None, drawn=None, watch=None) -> VLA:
    """Minimise Eq. 3 over the steps of D, with I_t left out at random.

    policy: trained in place.  D: a list of episodes.  n_steps: gradient steps.
    I: a list of bool (T,), one array per episode; None: the indicator is never shown.
    loss: callable (policy, batch, omega, eta, tokens, weight) -> scalar; None is `eq3_loss`.
    columns: {name: (M,)}, what a baseline's loss needs besides in its batch.
    drawn: bool (M,), the steps to draw from; None: all.  watch: of `optimise`.
    """
    # One place for the weights: --no-token-loss and --flow-weight are the rivals', too.
    weight = FLOW_WEIGHTS[s.flow_weight]
    loss = partial(loss or eq3_loss, tokens=float(s.token_loss), weight=weight)
    pretraining = not policy.fitted
    policy.to(s.device)
    interface = policy.config.interface
    steps = stack_steps(D, interface, s.device, policy.config.horizon)
    rate = s.learning_rate if pretraining else s.fine_tuning_rate
    if pretraining:
        if len(steps["actions"]) < 2:
            raise UserError("actions: 1 step in all, expected two or more (they have no spread)")
        # Pre-training measures the normaliser of the actions, once and for all.
        policy.fit_normalizer(steps["actions"], steps["state"])
    steps["chunk"] = policy.normalize(steps.pop("actions"), steps["state"])  # (M, H, action_dim)
    steps["tokens"] = policy.tokenizer.encode(steps["chunk"])  # (M, n_action_tokens)
    M = len(steps["chunk"])
    positive = np.ones(M, bool) if I is None else np.concatenate(I)
    for name, column in ({"positive": positive} | (columns or {})).items():
        steps[name] = torch.as_tensor(column, device=s.device)  # (M,)
    kept = torch.arange(M) if drawn is None else torch.as_tensor(drawn).nonzero()[:, 0]
    if len(kept) == 0:
        raise ValueError(f"drawn: none of {M} steps, expected at least one to train on")
    dropout = 1.0 if I is None else s.dropout
    g = generator(s.seed, f"policy {M}")
    balanced = None  # s.balance: an α of Eq. 3 for either side of I_t
    if s.balance and not pretraining:
        balanced = balanced_draw(positive[kept], s.balance, s.batch, g)
    draw_questions = web_batches(s, interface, s.batch, "web policy")

    def draw_loss():
        index = kept[torch.randint(len(kept), (s.batch,), generator=g)]  # (B,)
        # The indicator is left out on positives and negatives alike: what remains is π_ref.
        omit = torch.rand(s.batch, generator=g) < dropout  # (B,)
        if balanced is not None:
            index = torch.where(omit, index, kept[balanced()])
        index = index.to(s.device, non_blocking=True)
        batch = {name: x[index] for name, x in steps.items()}
        batch["omit"] = omit.to(s.device, non_blocking=True)
        if s.metadata:
            draw_prompts(batch, s.metadata_dropout, g)
        # Several draws of (ω, η) share one pass of the backbone.
        chunks = batch["chunk"][:, None].expand(-1, s.draws, -1, -1)
        omega, eta = draw_noise(chunks, g)  # (B, n_draws, H, action_dim), (B, n_draws)
        batch, omega, eta = own_share((batch, omega, eta))  # among the ranks of torchrun, if any
        total = loss(policy, batch, omega, eta)
        if draw_questions is not None:
            total = total + s.web * answer_loss(policy, own_share(draw_questions()))
        return total

    return optimise(policy, draw_loss, n_steps, rate, "policy", watch, s.bf16)

def answer_loss(network, web):
    """Co-training (Secs. V-A, V-C): cross-entropy of the answers to web questions.  A scalar."""
    logits = network.answer_logits(web, web["question"], web["answer"])  # (n, 2, n_words)
    return F.cross_entropy(logits.flatten(0, 1), web["answer"].flatten())  # (n*2, n_words), (n*2,)

if __name__ == "__main__":
    # The command line lies in lab/, with all that surrounds the algorithm: files, tables, plots.
    from lab.cli import main

    try:
        from robots.lerobot_data import read_lerobot
    except ImportError:  # pyarrow, of requirements-lerobot.txt: then --data takes .npz alone
        read_lerobot = None

    sys.exit(main(recap, supervised, read_lerobot))
