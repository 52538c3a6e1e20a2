"""App. E: guidance from β = 0 (unconditional) to 5."""
from functools import partial

import torch

from data import generator, stack_steps
from lab.files import read_json
from policy import sample_actions
from reproduce import plots
from reproduce.cache import data_of, make_runs, network_of
from reproduce.options import ALL_TASKS
from reproduce.stages import settings_for
from reproduce.statistics import rows_of, spread, table

BETAS = (0.0, 0.5, 1.0, 1.5, 2.0, 2.5, 3.0, 5.0)
OF_C9 = (1.0, 1.5, 5.0)  # what C9 is judged by, for --again

def sweep_beta(run, betas):
    """Evaluate the last policy at these β, and how often its chunks leave the data's support."""
    s = run.settings
    K = s.iterations
    policy = network_of(run.out, f"pi_{K}")
    for beta in betas:
        run.evaluate(f"recap_{K}", policy, beta)
    run.json("edges", lambda: edges(s, policy, data_of(run.out, K)))

@torch.no_grad()
def edges(s, policy, episodes, n=2000):
    """{β: share of a chunk's numbers outside the central 99 % of the data's}.

    The 99 % are per step of the chunk and dimension.  n: how many observations are drawn.
    """
    interface = policy.config.interface
    steps = stack_steps(episodes, interface, horizon=policy.config.horizon)
    chunks = policy.normalize(steps["actions"], steps["state"])  # (M, H, action_dim)
    # A quantile of at most some 20,000 of them: torch takes no more.
    some = chunks[:: max(1, len(chunks) // 20_000)]
    low, high = torch.quantile(some, torch.tensor([0.005, 0.995]), dim=0)  # (H, action_dim) each
    g = generator(s.seed, "edges")
    index = torch.randint(len(chunks), (n,), generator=g)
    names = [name for name in steps if name in ("state", "keypoints", *interface.cameras)]
    seen = {name: steps[name][index] for name in names}
    prompt = steps["prompt"][index]
    subtask = steps["subtask"][index]
    omega = torch.randn(n, *chunks.shape[1:], generator=g)
    found = {}
    for beta in BETAS:
        actions = sample_actions(policy, seen, prompt, subtask, True, beta, s.euler, omega)
        x = policy.normalize(actions, seen["state"])  # (n, H, action_dim)
        found[f"{beta:g}"] = ((x < low) | (x > high)).float().mean().item()
    return found

def cfg(o):
    """Success, throughput, and how near the actions come to the edge of the data, against β."""
    betas = OF_C9 if o.again else BETAS
    result = {}
    for task in o.parts(ALL_TASKS, "cfg"):
        group = [settings_for(task, seed, o.quick) for seed in o.seeds]
        folders = make_runs(group, o.jobs, partial(sweep_beta, betas=betas))
        name = f"recap_{group[0].iterations}"
        rows = rows_of(folders, [(name, beta) for beta in betas])
        outside = [read_json(folder, "edges.json") for folder in folders]
        shares = []
        for beta in betas:
            found = [x[f"{beta:g}"] for x in outside]
            share = spread(found) | {"values": found}
            rows[f"{name} β={beta:g}"]["outside"] = share
            shares.append(f"β={beta:g} {100 * share['mean']:.1f} %")
        print(f"\n{task}: n = {len(o.seeds)} seeds\n{table(rows)}")
        print("outside the central 99 % of the data: " + ", ".join(shares))
        result[task] = rows
    o.draw("cfg", plots.guidance, o.keep("cfg", result))
