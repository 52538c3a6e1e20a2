"""Exercise 7: Algorithm 1.  Nothing is trained here: networks keep a diary of what they would have been trained on."""
import copy
from dataclasses import dataclass, field

import numpy as np
import pytest
import torch

import parameters as P
import recap
from checks import check, close


def test_eq3_sums_the_terms_of_the_bound():
    B, R = 5, 3
    rng = np.random.default_rng(P.SEED)
    terms = {"subtask": torch.as_tensor(rng.random(B)), "tokens": torch.as_tensor(rng.random(B)), "flow": torch.as_tensor(rng.random((B, R)))}
    given = []

    class Policy:
        def terms(self, batch, omega, eta, weight=None):
            given.append((batch, omega, eta, weight))
            return terms
    mean = {name: x.numpy().mean() for name, x in terms.items()}
    for tokens in (1.0, P.TOKENS, 0.0):
        close(recap.eq3_loss(Policy(), "batch", "omega", "eta", tokens, "weight"),
              mean["subtask"] + tokens * mean["tokens"] + 10 * mean["flow"], "the means of policy.terms, tokens weighed as asked, flow by 10")
    check(set(given) == {("batch", "omega", "eta", "weight")}, "batch, draws and weight are passed on to policy.terms")


# ---------------------------------------------------------------- line 7: collecting

@pytest.fixture
def collected(monkeypatch):
    calls = []

    def collect(s, spec, seeds, policy=None, beta=1.0, indicator=True, operator_skill=None, coach=False, iteration=0, **rest):
        calls.append((list(seeds), policy, coach, iteration))
        return [f"{'corrected' if coach else 'autonomous'} {iteration}"] * len(seeds)
    monkeypatch.setattr(recap, "collect", collect)
    return calls


def test_autonomous_and_corrected_episodes_are_collected(collected):
    autonomous, corrected = P.EPISODES
    episodes = recap.collect_iteration(recap.Settings(autonomous=autonomous, corrected=corrected), "pi", 2)
    check(episodes == ["autonomous 2"] * autonomous + ["corrected 2"] * corrected,
          f"s.autonomous episodes by the policy alone, s.corrected with coach=True, of iteration k; yours: {episodes}")
    check(all(policy == "pi" for _, policy, *_ in collected), "the policy that was given acts")
    collected.clear()
    recap.collect_iteration(recap.Settings(autonomous=autonomous, corrected=0), "pi", 2)
    check(len(collected) == 1, "with s.corrected = 0 no expert is called")


def test_no_seed_is_used_twice(collected):
    s = recap.Settings(autonomous=P.EPISODES[0], corrected=P.EPISODES[1])
    for k in (1, 2):
        recap.collect_iteration(s, "pi", k)
    seeds = [seed for call in collected for seed in call[0]] + recap.episode_seeds(s.seed, "evaluation", 50)
    check(len(set(seeds)) == len(seeds), "episode_seeds(s.seed, purpose, n): another purpose for every kind and every k, never \"evaluation\"")


# ---------------------------------------------------------------- the whole

@dataclass
class Net:
    """A network; training it adds to its diary, in place, as the optimiser changes weights in place."""
    diary: list = field(default_factory=list)


class Data(str):
    """Stands for an episode; its text says where it comes from."""
    task, source, iteration = recap.Settings().task, "autonomous", 0


class Run:
    """Stands for runs.Run: makes everything once, in memory, and gives out networks as if read from a file."""

    def __init__(self, settings):
        self.settings, self.made = settings, []

    def data(self, name, make):
        self.made.append(name)
        return make()

    def net(self, name, make):
        self.made.append(name)
        network, log = make()
        return copy.deepcopy(network)

    def say(self, *given):
        pass


@pytest.fixture
def run_it(monkeypatch):
    """-> function(**settings) -> dict of what Algorithm 1 did."""
    def go(**settings):
        did = {"value": [], "policy": [], "evaluated": [], "collected": [], "labelled": []}

        def train(kind):
            def training(network, episodes, s, n_steps, labels=None, **rest):
                did[kind].append({"start": list(network.diary), "data": list(episodes), "steps": n_steps, "labels": labels})
                network.diary.append((kind, len(did[kind]) - 1))
                return network, {}
            return training

        def label(value, episodes, s, iteration):
            did["labelled"].append((list(value.diary), list(episodes), iteration))
            return ("labels of", iteration)

        def collect(s, policy, k):
            did["collected"].append((list(policy.diary), k))
            return [Data(f"rollout {k}")]
        nothing = lambda *given, **more: None
        stubs = {
            "new_value": lambda s: Net(), "new_policy": lambda s, **size: Net(), "train_value": train("value"),
            "train_policy": train("policy"), "label": label, "all_positive": lambda episodes: "all positive", "collect_iteration": collect,
            "multi_task_demonstrations": lambda s: [Data("mixed demonstration")],
            "collect_items": lambda s, seeds, operator_skill=None, **rest: [Data("good demonstration" if operator_skill is recap.GOOD else "rollout")],
            "demonstrate": lambda s, task, skill, *rest: [Data("good demonstration" if skill is recap.GOOD else "mixed demonstration")],
            "evaluate": lambda run, name, policy, beta=1.0, **rest: did["evaluated"].append((name, list(policy.diary), beta)),
            "evaluate_demonstrations": nothing, "check_value": nothing, "count_labels": nothing, "heldout_rollouts": nothing}
        for name, stub in stubs.items():
            monkeypatch.setattr(recap, name, stub)
        did["run"] = Run(recap.Settings(iterations=P.ITERATIONS, beta=P.BETA, **settings))
        recap.recap(did["run"])
        check(len(did["value"]) == P.ITERATIONS + 2, f"{len(did['value'])} value functions were trained, expected V_pre, V_0, V_1 ... V_K")
        check(len(did["policy"]) == P.ITERATIONS + 2, f"{len(did['policy'])} policies were trained, expected pi_pre, pi_0, pi_1 ... pi_K")
        return did
    return go


IN_PLACE = "training changes a network in place: give it copy.deepcopy(...) of what you want to start from again"


def test_pretraining_and_sft(run_it):
    did = run_it()
    (V_pre, V_0), (pi_pre, pi_0), s = did["value"][:2], did["policy"][:2], did["run"].settings
    check(V_pre["start"] == [] and pi_pre["start"] == [], "V_pre and pi_pre are new networks")
    check(V_pre["data"] == pi_pre["data"] == ["mixed demonstration"], "lines 1 and 2: both on multi_task_demonstrations")
    check(pi_pre["labels"] == ("labels of", 0) and did["labelled"][0][0] == [("value", 0)], "line 2: labels by V_pre, iteration 0")
    check(V_0["data"] == pi_0["data"] == ["good demonstration"], "lines 3 to 5: D = GOOD demonstrations of the task")
    check(V_0["start"] == [("value", 0)] and pi_0["start"] == [("policy", 0)], f"lines 4 and 5 start from V_pre and pi_pre; {IN_PLACE}")
    check(pi_0["labels"] == "all positive", "line 5: I_t = True in SFT (Sec. V-D)")
    close([x["steps"] for x in (V_pre, V_0, pi_pre, pi_0)],
          [s.value_pretraining_steps, s.value_steps, s.pretraining_steps, s.sft_steps], "each stage has its own number of steps in the settings")


def test_every_iteration_starts_from_the_pretrained_networks(run_it):
    did = run_it()
    for k in range(1, P.ITERATIONS + 1):
        check(did["value"][k + 1]["start"] == [("value", 0)], f"V_{k} starts from V_pre, not from V_{k - 1}; {IN_PLACE}")
        check(did["policy"][k + 1]["start"] == [("policy", 0)], f"pi_{k} starts from pi_pre, not from pi_{k - 1}; {IN_PLACE}")
    check(len(set(did["run"].made)) == len(did["run"].made), f"names {did['run'].made}: each once, or --resume loads the wrong file")


def test_data_only_grow(run_it):
    did = run_it()
    for k in range(1, P.ITERATIONS + 1):
        expected = ["good demonstration"] + [f"rollout {i}" for i in range(1, k + 1)]
        for kind in ("value", "policy"):
            check(did[kind][k + 1]["data"] == expected, f"iteration {k}, {kind}: {did[kind][k + 1]['data']}, expected {expected}")
        check(did["collected"][k - 1] == ([("policy", 0), ("policy", k)], k), f"line 7: the newest policy, pi_{k - 1}, collects with k = {k}")


def test_every_iteration_is_labelled_by_its_own_value_function(run_it):
    did = run_it()
    for k in range(1, P.ITERATIONS + 1):
        value, episodes, iteration = did["labelled"][k]
        check(value == [("value", 0), ("value", k + 1)], f"the labels of iteration {k} come from V_{k}")
        check(iteration == k and episodes == did["policy"][k + 1]["data"], f"all of D is labelled anew, iteration={k}")
        check(did["policy"][k + 1]["labels"] == ("labels of", k), f"pi_{k} is trained on the labels of iteration {k}")


def test_the_other_restart(run_it):
    did = run_it(restart="last")
    check(did["policy"][3]["start"] == [("policy", i) for i in (0, 1, 2)], 's.restart = "last": pi_2 starts from pi_1, for comparison')
    check(did["value"][3]["start"] == [("value", 0)], "... but V_2 from V_pre all the same")


def test_every_policy_is_evaluated(run_it):
    did = run_it()
    expected = [("rl_pretrained", 1.0), ("offline_rl_sft", 1.0)] + [
        (f"recap_{k}", beta) for k in range(1, P.ITERATIONS + 1) for beta in (1.0, P.BETA)]
    check([(name, beta) for name, _, beta in did["evaluated"]] == expected, f"evaluate: expected {expected}, in this order")
    last = [diary[-1][1] for _, diary, _ in did["evaluated"]]
    check(last == [0, 1] + [k + 1 for k in range(1, P.ITERATIONS + 1) for _ in range(2)], "each stage by the policy that it names")
