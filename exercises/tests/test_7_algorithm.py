"""Exercise 7: Algorithm 1.  Nothing is trained: networks keep a diary of what they would be."""
import copy
from dataclasses import dataclass, field

import numpy as np
import pytest
import torch

import parameters as P
from checks import check, close
import collection
import recap
from data import episode_seeds
from settings import Settings

def test_eq3_sums_the_terms_of_the_bound():
    B = 5
    rng = np.random.default_rng(P.SEED)
    terms = {
        "subtask": torch.as_tensor(rng.random(B)),
        "tokens": torch.as_tensor(rng.random(B)),
        "flow": torch.as_tensor(rng.random((B, 3))),
    }
    given = []

    class Policy:
        def terms(self, batch, omega, eta, weight=None):
            given.append((batch, omega, eta, weight))
            return terms

    mean = {name: x.numpy().mean() for name, x in terms.items()}
    for tokens in (1.0, P.TOKENS, 0.0):
        expected = mean["subtask"] + tokens * mean["tokens"] + 10 * mean["flow"]
        loss = recap.eq3_loss(Policy(), "batch", "omega", "eta", tokens, "weight")
        hint = "the means of policy.terms, tokens weighed as asked, flow by 10"
        close(loss, expected, hint)
    hint = "batch, draws and weight are passed on to policy.terms"
    check(set(given) == {("batch", "omega", "eta", "weight")}, hint)

# ---------------------------------------------------------------- line 7: collecting

@pytest.fixture
def collected(monkeypatch):
    """Calls of `roll_out` and `coach`: (kind, seeds, policy, iteration)."""
    calls = []

    def stub(kind):
        def act(s, spec, seeds, policy, *, iteration, **rest):
            calls.append((kind, list(seeds), policy, iteration))
            return [f"{kind} {iteration}"] * len(seeds)

        return act

    monkeypatch.setattr(collection, "roll_out", stub("autonomous"))
    monkeypatch.setattr(collection, "coach", stub("corrected"))
    return calls

def test_autonomous_and_corrected_episodes_are_collected(collected):
    autonomous, corrected = P.EPISODES
    s = Settings(autonomous=autonomous, corrected=corrected)
    episodes = collection.collect_iteration(s, "pi", 2)
    hint = "s.autonomous episodes of roll_out, s.corrected of coach, of iteration k; yours:"
    expected = ["autonomous 2"] * autonomous + ["corrected 2"] * corrected
    check(episodes == expected, f"{hint} {episodes}")
    acts = all(policy == "pi" for _, _, policy, _ in collected)
    check(acts, "the policy that was given acts")
    collected.clear()
    collection.collect_iteration(Settings(autonomous=autonomous, corrected=0), "pi", 2)
    check(len(collected) == 1, "with s.corrected = 0 no expert is called")

def test_no_seed_is_used_twice(collected):
    s = Settings(autonomous=P.EPISODES[0], corrected=P.EPISODES[1])
    for k in (1, 2):
        collection.collect_iteration(s, "pi", k)
    seeds = episode_seeds(s.seed, "evaluation", 50)
    for _, used, _, _ in collected:
        seeds += used
    hint = "episode_seeds(s.seed, purpose, n): another purpose for every kind and every k, never"
    check(len(set(seeds)) == len(seeds), f'{hint} "evaluation"')

# ---------------------------------------------------------------- the whole

@dataclass
class Net:
    """A network; training adds to its diary, in place, as an optimiser changes weights."""

    diary: list = field(default_factory=list)

class Recorder:
    """Stands for lab.run.Run: makes everything once, and gives networks out as if from a file."""

    def __init__(self):
        self.made = []

    def keep(self, name, make, *arguments):
        self.made.append(name)
        if name[0] in "Vp":  # a network: what it was trained on is the second argument
            own = len(arguments) > 1 and isinstance(arguments[1], list)
            hint = f"keep({name!r}, ...): not a function of yours, but train_value or train_policy"
            check(own, f"{hint}, and behind it their arguments: a run is measured by them")
        return copy.deepcopy(make(*arguments))

class Trained:
    """Stands for `train_value` or `train_policy`, and notes what it was called with."""

    def __init__(self, kind):
        self.kind = kind
        self.calls = []

    def __call__(self, network, D, *rest):
        *I, s, n_steps = rest
        call = {"start": list(network.diary), "data": list(D), "labels": I, "steps": n_steps}
        self.calls.append(call)
        network.diary.append((self.kind, len(self.calls) - 1))
        return network

@dataclass
class Done:
    """What a run of Algorithm 1 did."""

    settings: Settings
    value: list  # calls of train_value
    policy: list  # calls of train_policy
    collected: list
    labelled: list
    made: list  # names, in order
    result: tuple  # what `recap` returned

@pytest.fixture
def run_it(monkeypatch):
    """A function (**settings) -> Done."""

    def run(**settings):
        train_value = Trained("value")
        train_policy = Trained("policy")
        labelled = []
        collected = []

        def values_of(value, D):
            return ("values of", list(value.diary), list(D))

        def label(values, D, s, iteration):
            check(values[2] == list(D), "label: the values are those of the same episodes")
            labelled.append((values[1], list(D), iteration))
            return ("labels of", iteration)

        def collect_iteration(s, policy, k):
            collected.append((list(policy.diary), k))
            return [f"rollout {k}"]

        stubs = {
            "new_value": lambda s: Net(),
            "new_policy": lambda s, **size: Net(),
            "train_value": train_value,
            "train_policy": train_policy,
            "predict_values": values_of,
            "label": label,
            "all_positive": lambda D: "all positive",
            "demonstrations": lambda s: ["mixed demonstration"],
            "task_demonstrations": lambda s: ["good demonstration"],
            "collect_iteration": collect_iteration,
        }
        for name, stub in stubs.items():
            monkeypatch.setattr(recap, name, stub)
        s = Settings(iterations=P.ITERATIONS, **settings)
        recorder = Recorder()
        result = recap.recap(s, recorder.keep)
        n = P.ITERATIONS + 2
        hint = f"{len(train_value.calls)} value functions were trained, expected V_pre, V_0 ... V_K"
        check(len(train_value.calls) == n, hint)
        hint = f"{len(train_policy.calls)} policies were trained, expected pi_pre, pi_0 ... pi_K"
        check(len(train_policy.calls) == n, hint)
        return Done(
            s, train_value.calls, train_policy.calls, collected, labelled, recorder.made, result
        )

    return run

IN_PLACE = "training changes a network in place: give it copy.deepcopy(...) of what is used again"

def test_pretraining_and_sft(run_it):
    done = run_it()
    V_pre, V_0 = done.value[:2]
    pi_pre, pi_0 = done.policy[:2]
    s = done.settings
    new = V_pre["start"] == [] and pi_pre["start"] == []
    check(new, "V_pre and pi_pre are new networks")
    mixed = V_pre["data"] == pi_pre["data"] == ["mixed demonstration"]
    check(mixed, "lines 1 and 2: both on `demonstrations`")
    by_V_pre = pi_pre["labels"] == [("labels of", 0)] and done.labelled[0][0] == [("value", 0)]
    check(by_V_pre, "line 2: labels by V_pre, iteration 0")
    good = V_0["data"] == pi_0["data"] == ["good demonstration"]
    check(good, "lines 3 to 5: D = `task_demonstrations`")
    starts = V_0["start"] == [("value", 0)] and pi_0["start"] == [("policy", 0)]
    check(starts, f"lines 4 and 5 start from V_pre and pi_pre; {IN_PLACE}")
    check(pi_0["labels"] == ["all positive"], "line 5: I_t = True in SFT (Sec. V-D)")
    steps = [x["steps"] for x in (V_pre, V_0, pi_pre, pi_0)]
    expected = [s.value_pretraining_steps, s.value_steps, s.pretraining_steps, s.sft_steps]
    close(steps, expected, "each stage has its own number of steps in the settings")

def test_every_iteration_starts_from_the_pretrained_networks(run_it):
    done = run_it()
    s = done.settings
    for k in range(1, P.ITERATIONS + 1):
        V = done.value[k + 1]
        pi = done.policy[k + 1]
        hint = f"V_{k} starts from V_pre, not from V_{k - 1}; {IN_PLACE}"
        check(V["start"] == [("value", 0)], hint)
        hint = f"pi_{k} starts from pi_pre, not from pi_{k - 1}; {IN_PLACE}"
        check(pi["start"] == [("policy", 0)], hint)
        hint = "s.value_steps and s.policy_steps in every iteration"
        close([V["steps"], pi["steps"]], [s.value_steps, s.policy_steps], hint)

def test_data_only_grow(run_it):
    done = run_it()
    for k in range(1, P.ITERATIONS + 1):
        expected = ["good demonstration"] + [f"rollout {i}" for i in range(1, k + 1)]
        for call in (done.value[k + 1], done.policy[k + 1]):
            check(call["data"] == expected, f"iteration {k}: {call['data']}, expected {expected}")
        newest = done.collected[k - 1] == ([("policy", 0), ("policy", k)], k)
        check(newest, f"line 7: the newest policy, pi_{k - 1}, collects with k = {k}")

def test_every_iteration_is_labelled_by_its_own_value_function(run_it):
    done = run_it()
    for k in range(1, P.ITERATIONS + 1):
        value, episodes, iteration = done.labelled[k]
        own = value == [("value", 0), ("value", k + 1)]
        check(own, f"the labels of iteration {k} come from V_{k}")
        anew = iteration == k and episodes == done.policy[k + 1]["data"]
        check(anew, f"all of D is labelled anew, iteration={k}")
        given = done.policy[k + 1]["labels"] == [("labels of", k)]
        check(given, f"pi_{k} is trained on the labels of iteration {k}")

def test_the_other_restart(run_it):
    done = run_it(restart="last")
    last = done.policy[3]["start"] == [("policy", i) for i in (0, 1, 2)]
    check(last, 's.restart = "last": pi_2 starts from pi_1, for comparison')
    check(done.value[3]["start"] == [("value", 0)], "... but V_2 from V_pre all the same")

def test_every_product_is_kept_under_its_name(run_it):
    done = run_it()
    expected = ["D_demo", "V_pre", "pi_pre", "D_0", "V_0", "pi_0"]
    for k in range(1, P.ITERATIONS + 1):
        expected += [f"D_{k}", f"V_{k}", f"pi_{k}"]
    hint = f"keep(name, ...): {done.made}, expected {expected}; a run goes on, and is measured, by"
    check(done.made == expected, f"{hint} these names")
    pi, V = done.result
    last = (pi.diary[-1], V.diary[-1])
    n = P.ITERATIONS + 1
    check(last == (("policy", n), ("value", n)), "returns (pi_K, V_K)")
