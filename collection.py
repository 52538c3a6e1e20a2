"""Who acts: operators who demonstrate, a policy alone, a policy with an expert (Sec. V-D).

    D_demo, D_ℓ at the start      demonstrations, task_demonstrations
    D_k (Algorithm 1, line 7)     collect_iteration
    an operator's episodes        demonstrate
    autonomous episodes           roll_out
    human-gated corrections       coach
    π as it acts                  Actor

The last three play one loop, `control.play`: observe, act, step.
Letters in shapes: n copies of a world side by side, n_live of them not over yet.
Deviations (docs/DEVIATIONS.md): 16, 18, 19, 20, 25.
"""
import numpy as np
import torch

import sim_tasks
from backbone import PROMPT_LENGTH, SUBTASK_LENGTH, encode
from control import play
from data import episode_seeds, generator, perceive
from policy import predict_subtask, sample_actions
from sim_tasks.arms import BODIES, STATIC, World
from sim_tasks.demonstrator import GOOD, MIXED, Operator, ScriptedOperator

# ---------------------------------------------------------------- the datasets of Algorithm 1

def demonstrations(s):
    """D_demo: every task of pre-training, by operators of mixed quality.

    With s.bodies on other robots, too (Sec. IV).  Each pair has s.demonstrations episodes.
    """
    bodies = BODIES.values() if s.bodies else (STATIC,)
    episodes = []
    for task in s.pretraining:
        for body in bodies:
            purpose = "pretraining" if body is STATIC else f"pretraining on {body.name}"
            seeds = episode_seeds(s.seed, f"{purpose} {task}", s.demonstrations)
            episodes += demonstrate(sim_tasks.TASKS[task], seeds, MIXED, body)
    return episodes

def task_demonstrations(s):
    """D_ℓ at the start (line 3): demonstrations of the target task, "high-quality" (Sec. VI-B)."""
    spec = sim_tasks.TASKS[s.task]
    episodes = []
    for item, seeds in by_item(spec, episode_seeds(s.seed, f"sft {s.task}", s.demonstrations)):
        episodes += demonstrate(spec, seeds, GOOD, item=item)
    return episodes

def collect_iteration(s, policy, k):
    """D_k (line 7): autonomous episodes of π^{k-1}, and some that an expert corrects."""
    spec = sim_tasks.TASKS[s.task]
    episodes = []
    for item, seeds in by_item(spec, episode_seeds(s.seed, f"autonomous {k}", s.autonomous)):
        purpose = item or "rollout"
        episodes += roll_out(s, spec, seeds, policy, iteration=k, item=item, purpose=purpose)
    for item, seeds in by_item(spec, episode_seeds(s.seed, f"corrected {k}", s.corrected)):
        purpose = item or "rollout"
        episodes += coach(s, spec, seeds, policy, iteration=k, item=item, purpose=purpose)
    return episodes

def by_item(spec, seeds):
    """Who is about what: [(item, seeds), ...], without empty shares; item None: as it is drawn.

    Where policies are measured on one item, every other episode is about that one.
    """
    shares = [(None, seeds)]
    if spec.measured is not None:
        shares = [(spec.measured, seeds[::2]), (None, seeds[1::2])]
    return [(item, share) for item, share in shares if share]

# ---------------------------------------------------------------- three ways to act

def demonstrate(spec, seeds, skill, body=STATIC, item=None):
    """One episode per seed by a scripted operator.

    spec: the task, of sim_tasks.TASKS.  skill: a `sim_tasks.demonstrator.Skill`.
    body: the robot.  item: the name of the item that all are about; None: each draws its own.
    Returns a list of labelled episodes, like `roll_out` and `coach`.
    """
    world = World(spec, seeds, body, item)
    operator = Operator(world, seeds, skill)

    def act(observation, live):
        return operator.act(world)[:, None]  # (n, 1, action_dim): chunks of one action

    return play(world, act, 1, source="demonstration", metadata=operator.metadata())

def roll_out(
    s, spec, seeds, policy, beta=1.0, indicator=True, iteration=0, item=None, metadata="",
    purpose="rollout",
):  # fmt: skip
    """One autonomous episode per seed.

    s: the settings.  policy: a `policy.VLA`.  beta, indicator: as `policy.sample_actions`.
    iteration: k of the data, which π^{k-1} collects.  spec, item: as `demonstrate`.
    metadata: s in words, to put into the policy's prompt.
    purpose: names the stream of the noise ω.
    """
    world = World(spec, seeds, item=item)
    prompts = [f"{prompt} {metadata}" for prompt in world.prompts()]
    g = generator(s.seed, f"{purpose} {iteration} {False} {len(seeds)} {beta}")
    actor = Actor(s, prompts, policy, beta, indicator, g)
    said = [metadata] * len(seeds)
    return play(world, actor, s.execute, source="autonomous", iteration=iteration, metadata=said)

def coach(s, spec, seeds, policy, iteration, item=None, purpose="rollout"):
    """One episode per seed in which an expert takes over, and hands back (Sec. V-D).

    When is the business of `sim_tasks.demonstrator.Gate`.  Both the expert's steps and the
    policy's are kept; `Episode.intervention` tells them apart.  Arguments as `roll_out`.
    """
    world = World(spec, seeds, item=item)
    g = generator(s.seed, f"{purpose} {iteration} {True} {len(seeds)} {1.0}")
    actor = Actor(s, list(world.prompts()), policy, g=g)
    expert = ScriptedOperator(world, seeds)
    return play(world, actor, s.execute, expert, source="corrected", iteration=iteration)

# ---------------------------------------------------------------- π as it acts

class Actor:
    """π as a loop calls it: (observation, live) -> chunks (n, H, action_dim).

    It keeps ℓ̂ of each copy and predicts it anew every s.subtask_every chunks only (Sec. V-A).
    s: the settings.  prompts: n texts, ℓ_t and metadata.  beta, indicator: as `sample_actions`.
    g: the generator of the noise ω; None: the global one.
    """

    def __init__(self, s, prompts, policy, beta=1.0, indicator=True, g=None):
        self.s = s
        self.policy = policy
        self.beta = beta
        self.indicator = indicator
        self.g = g
        self.device = next(policy.parameters()).device
        ids = [encode(text, PROMPT_LENGTH) for text in prompts]
        self.prompt = torch.tensor(ids, device=self.device)  # (n, 5)
        self.begin()

    def begin(self):
        """A new episode: ℓ̂ of the last one is forgotten."""
        self.calls = 0
        n = len(self.prompt)
        self.subtask = torch.zeros(n, SUBTASK_LENGTH, dtype=torch.long, device=self.device)

    def __call__(self, observation, live, frozen=None):
        """observation: {"state": (n, 6), "keypoints": (n, 4, 20)}.

        live: bool (n,), who is not over yet; the others' rows of the answer are zero.
        frozen: (n, known, action_dim) or None, as `policy.sample_actions`.
        """
        policy = self.policy
        rows = self._tensor(np.flatnonzero(live))  # (n_live,)
        # Observe, with the eyes of this network.
        observation = {name: x[live] for name, x in observation.items()}
        seen = perceive(observation, policy.config.cameras)
        seen = {name: self._tensor(x) for name, x in seen.items()}
        # Decide what to do next, less often than how.
        if self.calls % self.s.subtask_every == 0:
            self.subtask[rows] = predict_subtask(policy, seen, self.prompt[rows])
        self.calls += 1
        # ω is drawn for all, so that a copy's noise does not depend on which others are over.
        n = len(live)
        omega = torch.randn(n, policy.config.horizon, policy.action_dim, generator=self.g)
        if frozen is not None:
            frozen = self._tensor(frozen).float()[rows]
        actions = sample_actions(
            policy, seen, self.prompt[rows], self.subtask[rows], self.indicator, self.beta,
            self.s.euler, omega.to(self.device)[rows], frozen,
        )  # fmt: skip
        chunk = np.zeros(omega.shape)
        chunk[live] = actions.cpu().numpy()
        return chunk

    def _tensor(self, x):
        return torch.as_tensor(x, device=self.device)
