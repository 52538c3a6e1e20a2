"""Who acts: operators who demonstrate, a policy alone, a policy with an expert (Sec. V-D).

    D_demo, D_ℓ at the start      demonstrations, task_demonstrations
    D_k (Algorithm 1, line 7)     collect_iteration
    an operator's episodes        demonstrate
    autonomous episodes           roll_out
    human-gated corrections       coach
    π as it acts                  Actor

`demonstrate`, `roll_out` and `coach` play one loop, `control.play`: observe, act, step.
Ranks of torchrun, if any, share out its seeds (`ranks.dealt`).
Letters in shapes: n copies of a world side by side, n_live of them not over yet.
Deviations (docs/DEVIATIONS.md): 16, 18, 19, 20, 25.
"""
import numpy as np
import torch

from control import play
from data import episode_seeds, generator, perceive
from policy import predict_subtask, sample_actions
from ranks import dealt
from sim_tasks import find_task
from sim_tasks.arms import BODIES, STATIC

# ---------------------------------------------------------------- the datasets of Algorithm 1

def demonstrations(s):
    """D_demo: every task of pre-training, by operators of mixed quality.

    With s.bodies on other robots, too (Sec. IV).  Each pair has s.demonstrations episodes.
    """
    bodies = BODIES.values() if s.bodies else (STATIC,)
    episodes = []
    for task in map(find_task, s.pretraining):
        for body in bodies:
            purpose = "pretraining" if body is STATIC else f"pretraining on {body.name}"
            seeds = episode_seeds(s.seed, f"{purpose} {task.name}", s.demonstrations)
            episodes += demonstrate(task, seeds, "mixed", body)
    return episodes

def task_demonstrations(s):
    """D_ℓ at the start (line 3): demonstrations of the target task, "high-quality" (Sec. VI-B)."""
    episodes = []
    all_seeds = episode_seeds(s.seed, f"sft {s.target.name}", s.demonstrations)
    for item, seeds in by_item(s.target, all_seeds):
        episodes += demonstrate(s.target, seeds, "good", item=item)
    return episodes

def collect_iteration(s, policy, k):
    """D_k (line 7): autonomous episodes of π^{k-1}, and some that an expert corrects."""
    task = s.target
    episodes = []
    for item, seeds in by_item(task, episode_seeds(s.seed, f"autonomous {k}", s.autonomous)):
        episodes += roll_out(s, task, seeds, policy, iteration=k, item=item)
    for item, seeds in by_item(task, episode_seeds(s.seed, f"corrected {k}", s.corrected)):
        episodes += coach(s, task, seeds, policy, iteration=k, item=item)
    return episodes

def by_item(task, seeds):
    """Which seeds are about which item: [(item, seeds), ...]; item None: as each seed draws it.

    Where policies are measured on one item, every second episode is about that one.
    """
    shares = [(None, seeds)]
    if task.measured is not None:
        shares = [(task.measured, seeds[::2]), (None, seeds[1::2])]
    return [(item, share) for item, share in shares if share]

# ---------------------------------------------------------------- three ways to act

@dealt
def demonstrate(task, seeds, skill, body=None, item=None):
    """One episode per seed by a scripted operator.

    task: of sim_tasks.TASKS, or a `sim_tasks.task.Task`.  skill: "mixed", "good" or "best".
    body: the robot.  item: the name of the item that all are about; None: each draws its own.
    Returns a list of labelled episodes, like `roll_out` and `coach`.
    """
    world = task.world(seeds, body, item)
    operator = task.demonstrator(world, seeds, skill)

    def act(observation, live):
        return operator.act(world)[:, None]  # (n, 1, action_dim): chunks of one action

    return play(world, act, 1, source="demonstration", metadata=operator.metadata())

@dealt
def roll_out(
    s, task, seeds, policy, beta=1.0, indicator=True, iteration=0, item=None, metadata=""
):  # fmt: skip
    """One autonomous episode per seed.

    s: the settings.  policy: a `policy.VLA`.  beta, indicator: as `policy.sample_actions`.
    iteration: k of the data, which π^{k-1} collects.  task, item: as `demonstrate`.
    metadata: s in words, to put into the policy's prompt.
    """
    world = task.world(seeds, item=item)
    prompts = [f"{prompt} {metadata}" for prompt in world.prompts()]
    actor = Actor(s, prompts, policy, beta, indicator, noise_of(seeds))
    said = [metadata] * len(seeds)
    return play(world, actor, s.execute, source="autonomous", iteration=iteration, metadata=said)

@dealt
def coach(s, task, seeds, policy, iteration, item=None):
    """One episode per seed in which an expert takes over, and hands back (Sec. V-D).

    When is the business of the task's coach.  Both the expert's steps and the policy's are kept;
    `Episode.intervention` tells them apart.  Arguments as `roll_out`.
    """
    world = task.world(seeds, item=item)
    actor = Actor(s, list(world.prompts()), policy, noise=noise_of(seeds))
    expert = task.coach(world, seeds)
    return play(world, actor, s.execute, expert, source="corrected", iteration=iteration)

def noise_of(seeds):
    """Generators of the noise ω, one an episode: it does not depend on what is played beside."""
    return [generator(seed, "noise") for seed in seeds]

# ---------------------------------------------------------------- π as it acts

class Actor:
    """π as a loop calls it: (observation, live) -> chunks (n, H, action_dim).

    It keeps ℓ̂ of each copy and predicts it anew every s.subtask_every chunks only (Sec. V-A).
    s: the settings.  prompts: n texts, ℓ_t and metadata.  beta, indicator: as `sample_actions`.
    noise: generators of ω, one a copy; None: the global one for all.
    """

    def __init__(self, s, prompts, policy, beta=1.0, indicator=True, noise=None):
        self.s = s
        self.policy = policy
        self.beta = beta
        self.indicator = indicator
        self.noise = noise or [None] * len(prompts)
        self.device = next(policy.parameters()).device
        self.interface = policy.config.interface
        self.begin(*prompts)

    def begin(self, *prompts):
        """A new episode: ℓ̂ of the last one is forgotten.  prompts: n texts; none: the same."""
        if prompts:
            ids = [self.interface.encode(text, self.interface.prompt_length) for text in prompts]
            self.prompt = torch.tensor(ids, device=self.device)  # (n, prompt_length)
        self.calls = 0
        shape = len(self.prompt), self.interface.subtask_length
        self.subtask = torch.zeros(shape, dtype=torch.long, device=self.device)

    def __call__(self, observation, live, frozen=None):
        """observation: {name: (n, ...)}, as the task's world gives it.

        live: bool (n,), who is not over yet; the others' rows of the answer are zero.
        frozen: (n, known, action_dim) or None, as `policy.sample_actions`.
        """
        policy = self.policy
        rows = self._tensor(np.flatnonzero(live))  # (n_live,)
        # Observe, with the eyes of this network.
        observation = {name: x[live] for name, x in observation.items()}
        seen = perceive(observation, self.interface)
        seen = {name: self._tensor(x) for name, x in seen.items()}
        # Decide what to do next, less often than how.
        if self.calls % self.s.subtask_every == 0:
            self.subtask[rows] = predict_subtask(policy, seen, self.prompt[rows])
        self.calls += 1
        own = [self.noise[i] for i in np.flatnonzero(live)]
        omega = torch.stack([torch.randn(policy.mean.shape, generator=g) for g in own])
        if frozen is not None:
            frozen = self._tensor(frozen).float()[rows]
        actions = sample_actions(
            policy, seen, self.prompt[rows], self.subtask[rows], self.indicator, self.beta,
            self.s.euler, omega.to(self.device), frozen,
        )  # fmt: skip
        chunk = np.zeros((len(live), *policy.mean.shape))  # (n, H, action_dim)
        chunk[live] = actions.cpu().numpy()
        return chunk

    def _tensor(self, x):
        return torch.as_tensor(x, device=self.device)
