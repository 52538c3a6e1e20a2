"""Figs. 4 and 13: V along episodes, and how well its drops find the simulator's own mistakes."""
import numpy as np

from collection import by_item, roll_out
from data import episode_seeds
from labels import episode_returns
from lab.files import read_json
from lab.pictures import value_figure
from reproduce.cache import folder_of, make_runs, network_of
from reproduce.options import ALL_TASKS
from reproduce.stages import settings_for
from reproduce.statistics import plus_minus, spread
from sim_tasks.arms import EDGE, NOTHING, World
from value import predict_values

# edge grasp: the mistake itself.  slip: what follows when the half is carried on, at worst lost
# for good.  edge let go: such a half released elsewhere than at the goal, before it slips.
# let go: a well held one released there, or spilled.  wrong turn: where there are two ways, a half
# that is held comes nearer to the goal that does not count, by TURN at first.
KINDS_OF_MISTAKES = ("edge grasp", "slip", "edge let go", "let go", "wrong turn")
TURN = 0.05  # m
OVER_SEEDS = ("auc", "value", "return")  # of each kind: numbers of a seed

def mistakes(spec, seeds, episodes, item=None):
    """The simulator's record: {kind: bool (T,) per episode}, True where that went wrong then.

    It is not stored with the episodes, for no robot would know it.  So they are replayed: the same
    seeds, the same actions.  spec: the task.  episodes: one per seed.  item: what all are about.
    """
    world = World(spec, seeds, item=item)
    T = max(len(e) for e in episodes)
    before = turned(world)
    record = {kind: np.zeros((len(episodes), T), bool) for kind in KINDS_OF_MISTAKES}
    for t in range(T):
        hold = world.hold.copy()
        slips = world.slips.copy()
        # Who is over already repeats the last action; it is cut off below.
        world.step(np.stack([e.actions[min(t, len(e) - 1)] for e in episodes]))
        grasped = ((hold == NOTHING) & (world.hold == EDGE)).any(1)  # (n,), by the edge
        edge_grasp = world.mistakes & grasped
        slip = world.mistakes & (world.slips > slips)
        released = world.mistakes & ~edge_grasp & ~slip
        by_edge = ((hold == EDGE) & (world.hold == NOTHING)).any(1)
        record["edge grasp"][:, t] = edge_grasp
        record["slip"][:, t] = slip
        record["edge let go"][:, t] = released & by_edge
        record["let go"][:, t] = released & ~by_edge
        after = turned(world)
        record["wrong turn"][:, t] = (after & ~before).any(1)
        before = after
    cut = {}
    for kind, steps in record.items():
        cut[kind] = [row[: len(e)] for row, e in zip(steps, episodes)]
    return cut

def turned(world):
    """Which halves are held and nearer to the goal that does not count: bool (n, arm)."""
    if world.wrong_goals is None:
        return np.zeros(world.hold.shape, bool)
    stage = np.minimum(world.stage, len(world.spec.stages) - 1)
    wrong = world.wrong_goals[np.arange(world.n), stage]  # (n, arm, xy)
    right_m = np.linalg.norm(world.handles - world.goal, axis=-1)  # (n, arm)
    wrong_m = np.linalg.norm(world.handles - wrong, axis=-1)
    return (world.hold != NOTHING) & (wrong_m < right_m - TURN)

def falls_from_grasp_to_slip(values, record):
    """P(V before an edge grasp > V after a slip), over all pairs; None without either.

    values: V, a list of (T,); or the returns, which say how far V ought to fall.
    """
    before = [v[:-1][m[:-1]] for v, m in zip(values, record["edge grasp"])]
    after = [v[1:][m[:-1]] for v, m in zip(values, record["slip"])]
    before = np.concatenate(before)[:, None]  # (grasps, 1)
    after = np.concatenate(after)[None]  # (1, slips)
    if before.size == 0 or after.size == 0:
        return None
    return float(((before > after) + 0.5 * (before == after)).mean())

def drops_find_mistakes(values, mistakes):
    """AUC of the drop V(o_t) - V(o_{t+1}) for "something went wrong in step t".

    values: V, a list of (T,).  mistakes: a list of bool (T,).  The last step of each episode has no
    drop and is left out.  None where there is only one kind of step.
    """
    drop = np.concatenate([v[:-1] - v[1:] for v in values])  # (M,)
    wrong = np.concatenate([m[:-1] for m in mistakes])  # (M,)
    n = wrong.sum()
    if n == 0 or n == len(wrong):
        return None
    # Mann and Whitney: the ranks of the wrong steps' drops; equal drops share their mean rank.
    _, index, counts = np.unique(drop, return_inverse=True, return_counts=True)
    rank = (np.cumsum(counts) - (counts - 1) / 2)[index]  # (M,)
    return float((rank[wrong].sum() - n * (n + 1) / 2) / (n * (len(wrong) - n)))

def mean_after(values, mistakes):
    """The mean of V, or of the returns, one step after the mistakes; None without any."""
    after = np.concatenate([v[1:][m[:-1]] for v, m in zip(values, mistakes)])  # (mistakes,)
    return float(after.mean()) if len(after) else None

GROUPS = 10  # of steps, by V

def calibration_error(values, R):
    """How far V is from the mean return: the mean of |V - R| over ten groups of about one V.

    values, R: lists of (T,).
    """
    V = np.concatenate(values)  # (M,)
    R = np.concatenate(R)  # (M,)
    by_value = np.array_split(np.argsort(V, kind="stable"), GROUPS)
    return float(np.mean([abs(V[group].mean() - R[group].mean()) for group in by_value]))

def rollouts_for_drops(s, folder):
    """Fresh rollouts of π⁰ of the run in `folder`, about the items of V's data.

    Returns (episodes, their `mistakes`).
    """
    all_seeds = episode_seeds(s.seed, "drops", min(s.evaluation_episodes, 150))
    policy = network_of(folder, "pi_0")
    episodes = []
    record = {kind: [] for kind in KINDS_OF_MISTAKES}
    for item, seeds in by_item(s.target, all_seeds):
        share = roll_out(s, s.target, seeds, policy, iteration=1, item=item)
        for kind, steps in mistakes(s.target, seeds, share, item).items():
            record[kind] += steps
        episodes += share
    return episodes, record

def value_checks(run):
    """V¹ on fresh rollouts of π⁰: leaves drops_of_v.json in the run's folder."""
    run.json("drops_of_v", lambda: drops_of_v(run.settings, run.out))

def drops_of_v(s, folder):
    """AUC of the drops of V¹ by kind of mistake, how many there are, and whom to draw."""
    episodes, record = rollouts_for_drops(s, folder)
    values = predict_values(network_of(folder, "V_1"), episodes)
    R = episode_returns(episodes, s)
    found = {"steps": sum(len(v) - 1 for v in values)}
    found["calibration error"] = calibration_error(values, R)
    found |= {"auc": {}, "mistakes": {}, "last": {}, "value": {}, "return": {}}
    for kind, by_episode in record.items():
        found["auc"][kind] = drops_find_mistakes(values, by_episode)
        # Those that the AUC sees, and those of the last steps.
        found["mistakes"][kind] = int(sum(m[:-1].sum() for m in by_episode))
        found["last"][kind] = int(sum(m[-1] for m in by_episode))
        # Is V calibrated, when the mistake has been made?
        found["value"][kind] = mean_after(values, by_episode)
        found["return"][kind] = mean_after(R, by_episode)
    found["grasp to slip"] = falls_from_grasp_to_slip(values, record)
    found["grasp to slip, return"] = falls_from_grasp_to_slip(R, record)
    found["shown"] = shown(episodes, record["edge grasp"])
    return found

def shown(episodes, edge_grasps):
    """Whom to draw: indices of the success and the failure with the most edge grasps.

    The success is about the same item.  Either may be missing.
    """
    order = sorted(range(len(episodes)), key=lambda i: -edge_grasps[i].sum())
    failed = [i for i in order if not episodes[i].success][:1]
    done = [i for i in order if episodes[i].success]
    if failed:
        prompt = episodes[failed[0]].prompt
        done = [i for i in done if episodes[i].prompt == prompt]
    return done[:1] + failed

def fig4(o):
    """Figs. 4 and 13: V along episodes of five tasks, and the AUC of its drops by mistake."""
    groups = {}
    everything = []
    for task in o.parts(ALL_TASKS, "fig4"):
        groups[task] = [settings_for(task, seed, o.quick) for seed in o.seeds]
        everything += groups[task]
    make_runs(everything, o.jobs, value_checks)

    result = {}
    for task, group in groups.items():
        found = [read_json(folder_of(s), "drops_of_v.json") for s in group]
        result[task] = over_seeds(found)
        print(f"{task}: {result[task]['steps']} steps, n = {len(o.seeds)} seeds")
        print_mistakes(result[task])
        for name, what in (("grasp to slip", "V"), ("grasp to slip, return", "the return")):
            if result[task][name]:
                falls = plus_minus(result[task][name], 3)
                print(f"  {what} before an edge grasp above that after a slip: {falls}")
        draw_traces(o, group[0], found[0]["shown"])
    o.keep("fig4", result)

def over_seeds(found):
    """{"steps", "calibration error", ..., kind: {"auc", "value", ..., "mistakes", "last"}}.

    found: `drops_of_v` of each seed of a task.
    """
    row = {"steps": sum(x["steps"] for x in found)}
    row["calibration error"] = spread([x["calibration error"] for x in found])
    for name in ("grasp to slip", "grasp to slip, return"):
        falls = [x[name] for x in found if x[name] is not None]
        row[name] = spread(falls) if falls else None
    for kind in KINDS_OF_MISTAKES:
        seen = [x for x in found if x["auc"][kind] is not None]
        if seen:
            row[kind] = {key: spread([x[key][kind] for x in seen]) for key in OVER_SEEDS}
            for key in ("mistakes", "last"):
                row[kind][key] = sum(x[key][kind] for x in found)
    return row

def print_mistakes(row):
    """V at every kind of mistake.  row: of `over_seeds`."""
    for kind in KINDS_OF_MISTAKES:
        if kind in row:
            x = row[kind]
            auc, V, R = (plus_minus(x[key], 3) for key in OVER_SEEDS)
            print(f"  {kind:<12} AUC of drops of V {auc}; V after it {V}, return {R}")
            print(f"  {'':<12} {x['mistakes']} of them; {x['last']} more ended an episode")

def draw_traces(o, s, indices):
    """The picture of one task.  s: settings of the first seed.  indices: which of its rollouts."""
    folder = folder_of(s)
    episodes, _ = rollouts_for_drops(s, folder)
    title = (
        f"V¹ of seed {s.seed} along rollouts of π⁰: the success and the failure with the most bad "
        f"grasps of {len(episodes)} episodes.  Green, ▲: notable rise; red and hatched, ▼: notable "
        "drop"
    )
    chosen = [episodes[i] for i in indices]
    value = network_of(folder, "V_1")
    o.draw(f"fig4_{s.task}", titled_figure, value, s.target, chosen, title)

def titled_figure(value, task, episodes, title):
    """`lab.pictures.value_figure` with a title over both episodes.  Returns a Figure."""
    figure = value_figure(value, task, episodes)
    figure.suptitle(title, fontsize=10)
    return figure
