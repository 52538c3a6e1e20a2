"""The tables of results/README.md, number by number, and the sentences of FINDINGS.md.

What a page prints is computed anew from results/*.json.  After new results a test here says which
row or sentence is out of date, and what it should be.
"""
import json

import pytest

from pages import ROOT, in_a_line, read, rows
from reproduce.extraction import AT_OTHER_RATES, RATES, at_rate
from reproduce.headline import POSITIVES
from reproduce.statistics import (
    SFT,
    best_of,
    fewer_failures,
    gain,
    interval_above,
    last_row,
    ratio,
    ratio_text,
    together,
)

PAGE = read(ROOT / "results" / "README.md")
FINDINGS = read(ROOT / "docs" / "FINDINGS.md")
NAMES = {"FoldShirt": "fold_shirt", "FoldDiverse": "fold_diverse", "FoldCollar": "fold_collar",
         "Espresso": "espresso", "Box": "box"}  # fmt: skip

def result(name):
    """The rows of results/NAME.json."""
    return json.loads(read(ROOT / "results" / f"{name}.json"))["rows"]

def on_ten(name):
    """A result on seeds 31 to 35 and on 41 to 45."""
    return together(result(name), result(f"again/{name}"))

def section(title):
    """The tables of one section: all rows, without the heads."""
    text = PAGE.split(f" {title}\n", 1)[1].split("\n#", 1)[0]
    return rows(text)

def number(x, digits=0, scale=1):
    """A spread, mean ± s.e."""
    return f"{scale * x['mean']:.{digits}f} ± {scale * x['se']:.{digits}f}"

def ends(ratios):
    """The lowest and the highest of some `ratio`s."""
    in_order = sorted(ratios, key=lambda x: x["ratio"])
    return in_order[0], in_order[-1]

def bracket(x):
    """A ratio with its interval, without the sign."""
    return ratio_text(x).removeprefix("× ")

def span(numbers, digits=2, scale=1):
    """Lowest to highest."""
    low, high = (f"{scale * x:.{digits}f}" for x in (min(numbers), max(numbers)))
    return low if low == high else f"{low} to {high}"

def check(title, expected):
    """Every expected row is one of the section's, cell by cell."""
    found = section(title)
    for row in expected:
        assert row in found, f"{title}: expected | {' | '.join(row)} |"

# ---------------------------------------------------------------- results/README.md

def test_figs_7_and_8():
    expected = []
    for name, task in NAMES.items():
        stages = result("fig12" if task == "fold_collar" else "fig7")[task]
        guided = last_row(stages, guided=True)
        shown = {"RL pre-trained": "rl_pretrained β=1", "offline RL + SFT": SFT}
        shown |= {"RECAP, β = 1": last_row(stages)}
        shown |= {f"RECAP, β = {guided.split('=')[1]}": guided}
        for i, (title, key) in enumerate(shown.items()):
            row = stages[key]
            cells = ["" if i else name, title]
            cells += [number(row["success"], 1, 100), number(row["throughput"])]
            if key == SFT:
                cells += ["", ""]
            else:
                cells += [bracket(gain(stages, key)), bracket(fewer_failures(stages, key))]
            expected.append(cells)
    check("Figs. 7 and 8: every stage of the recipe", expected)

LONG = "long_sft β=1"
ALONE = f"{POSITIVES} β=1"

def test_again_on_seeds_41_to_45():
    kept = result("headline")
    expected = []
    for name, task in NAMES.items():
        stages = kept[task]
        guided = last_row(stages, guided=True)
        shown = {"SFT": SFT, "SFT, as many steps": LONG, "positives only": ALONE}
        shown |= {"RECAP, β = 1": last_row(stages), f"RECAP, β = {guided.split('=')[1]}": guided}
        for i, (title, key) in enumerate(shown.items()):
            row = stages[key]
            cells = ["" if i else name, title]
            cells += [number(row["success"], 1, 100), number(row["throughput"])]
            for base in (SFT, LONG):
                # SFT over more of it says what the next row says.
                shown = key not in (SFT, base)
                cells.append(bracket(gain(stages, key, base)) if shown else "")
            expected.append(cells)
        compared = [f(stages, guided, ALONE) for f in (gain, fewer_failures)]
        expected.append([name, *(bracket(x) for x in compared)])
    check("Again, on seeds 41 to 45", expected)
    found = []
    for x in (result("again/fig7"), kept):
        found.append(f"{100 * x['fold_diverse'][SFT]['success']['mean']:.1f} %")
    text = f"SFT on FoldDiverse succeeds in {found[0]} there, in {found[1]} here"
    assert text in in_a_line(PAGE)

def test_positives_in_half_of_the_draws_of_folddiverse():
    """Beside imitation of them, on the same seeds and, of the first row, the same runs."""
    kept = json.loads(read(ROOT / "results" / "ablation_balance_diverse.json"))
    other = json.loads(read(ROOT / "results" / "headline.json"))
    assert kept["seeds"] == other["seeds"]
    policy = kept["rows"]["policy"] | {"alone": other["rows"]["fold_diverse"][ALONE]}
    expected = []
    for beta, how in (("1", "β = 1"), ("1.5", "guided")):
        name = f"FoldDiverse, half of the draws | recap_2 β={beta}"
        row = policy[name]
        cells = [f"RECAP, {how}", number(row["success"], 1, 100), number(row["throughput"])]
        cells += [bracket(f(policy, name, "alone")) for f in (gain, fewer_failures)]
        expected.append(cells)
    check("Again, on seeds 41 to 45", expected)

def test_positives_shown_more_often():
    kept = result("ablation_balance")["policy"]
    default, *_ = variants = dict.fromkeys(name.split(" | ")[0] for name in kept)
    expected = []
    for variant in variants:
        cells = [variant.replace(" x ", " × ")]
        for beta in (1, 2):
            name, base = (f"{x} | recap_1 β={beta}" for x in (variant, default))
            cells.append(both(kept[name]))
            cells.append("" if name == base else bracket(gain(kept, name, base)))
        expected.append(cells)
    check("Positives shown more often", expected)
    rivals = result("ablation_rate")["policy"]
    rivals["guided"] = kept["half of the draws | recap_1 β=2"]
    faster = ratio_text(gain(rivals, "guided", "positives only"))
    assert f"{faster} of the throughput of the positives alone" in in_a_line(PAGE)
    faster = ratio_text(gain(rivals, "guided", "AWR T=0.2 mean"))
    worse = ratio_text(fewer_failures(rivals, "guided", "positives only"))
    text = f"{faster} of AWR's (`ablation rate`), with {worse} of the positives' failures"
    assert text in in_a_line(PAGE)
    names = ["half of the draws | recap_1 β=1", "as in the data | recap_1 β=1"]
    assert f"is left, {ratio_text(fewer_failures(kept, *names))}" in in_a_line(PAGE)

def test_steps_on_espresso():
    policy = result("ablation_espresso")["policy"]
    short = f"3500 steps | {SFT}"
    long = f"SFT 10500 steps | {SFT}"
    plain, guided = (f"10500 steps | recap_2 β={beta}" for beta in ("1", "1.5"))
    text = f"SFT in 10,500 is {ratio_text(gain(policy, long, short))} of SFT in 700, with "
    text += f"{number(policy[long]['throughput'])} per hour. RECAP in as many is "
    text += f"{ratio_text(gain(policy, plain, long))} of that, guided "
    text += f"{ratio_text(gain(policy, guided, long))}, not two"
    assert text in in_a_line(PAGE)

def test_figs_9_and_10():
    found = result("fig9")
    for task, name in (("fold_shirt", "FoldShirt"), ("box", "Box")):
        both = gain(found[task], last_row(found[task]))["ratio"]
        assert f"{name} gains × {both:.2f}" in in_a_line(PAGE)
    shirt = found["fold_shirt"]
    plain = ratio_text(gain(shirt, "recap_2 β=1", "recap_1 β=1"))
    guided = ratio_text(gain(shirt, "recap_2 β=2", "recap_1 β=2"))
    ten = on_ten("fig9")["fold_shirt"]
    ten = ratio_text(gain(ten, "recap_2 β=1", "recap_1 β=1"))
    text = f"that five seeds can show, {plain} (ten: {ten}), and guided it takes some, {guided}"
    assert text in in_a_line(PAGE)
    second = ratio_text(gain(found["box"], "recap_2 β=1", "recap_1 β=1"))
    assert f"more in the second iteration, by {second}" in in_a_line(PAGE)

def test_fig_11():
    stages = result("fig11")
    with_penalty = {name: row for name, row in stages.items() if "ε=inf" not in name}
    others = [best_of(stages, "AWR"), best_of(with_penalty, "PPO"), best_of(stages, "PPO")]
    others += [best_of(stages, "positives only"), best_of(stages, "filtered imitation")]
    found = section("Fig. 11: other ways to extract a policy")[1:]
    for (title, *cells), name in zip(found, others, strict=True):
        expected = [gain(stages, last_row(stages, guided), name) for guided in (False, True)]
        assert cells == [bracket(x) for x in expected], (title, name)
    again = result("again/fig11")
    compared = [ratio_text(gain(again, last_row(again), name)) for name in (others[0], others[2])]
    compared.append(ratio_text(gain(again, last_row(again), others[3])))
    text = "RECAP at β = 1 is at {} of that AWR, at {} of PPO without a penalty, and at {} of"
    assert text.format(*compared) in in_a_line(PAGE)

# The two points of the map where the order differs most have a row of their own.
APART = {
    "none corrected, 10 % positive": "none corrected, 10 % positive",
    "20 steps of SFT, none of 600 corrected": "51 % failed, none corrected",
}

WORDS = dict(enumerate("two three four five six seven eight nine ten".split(), 2))

def over_awr(rows):
    """Guided RECAP, RECAP at β = 1 and the positives alone over the best AWR of one point."""
    awr = best_of(rows, "AWR")
    return [gain(rows, x, awr) for x in ("recap_1 β=2", "recap_1 β=1", "positives only")]

def faster_and_failing(points):
    """Guided RECAP over the positives alone: {point: throughput}, {point: failures}.

    Where the interval is above 1.
    """
    faster = {}
    failing = {}
    for point, x in points.items():
        pair = (x["rows"], "recap_1 β=2", "positives only")
        for found, measure in ((faster, gain), (failing, fewer_failures)):
            if interval_above(measure(*pair), 1):
                found[point] = measure(*pair)["ratio"]
    return faster, failing

def test_the_map():
    points = result("map")
    together = []
    expected = []
    for point, x in points.items():
        found = over_awr(x["rows"])
        if point not in APART:
            together.append([each["ratio"] for each in found])
        elif point == "none corrected, 10 % positive":
            expected.append([APART[point]] + [f"{each['ratio']:.2f}" for each in found])
        else:
            last = f"{found[2]['ratio']:.2f}"
            expected.append([APART[point], bracket(found[0]), bracket(found[1]), last])
    expected.append(["the other points"] + [span(column) for column in zip(*together)])
    check("Map: when does which order hold?", expected)
    faster, failing = faster_and_failing(points)
    page = in_a_line(PAGE)
    said = f"At {WORDS[len(faster)]} points guided RECAP is faster than positives only"
    assert f"{said}, by × {span(faster.values())}" in page
    said = f"At {WORDS[len(failing)]} of the {WORDS[len(points)]} points guided RECAP fails"
    assert said in page
    rows_of_most = points["14000 gradient steps"]["rows"]
    guided, plain, _ = over_awr(rows_of_most)
    alone = gain(rows_of_most, "recap_1 β=2", "positives only")
    said = f"it is at {ratio_text(plain)} of the best AWR, guided at {ratio_text(guided)}"
    assert f"{said}, and at {ratio_text(alone)} of positives only" in page
    free = "PPO ε=inf rate×0.03"
    above = {"AWR": [], "recap_1 β=1": []}
    for x in points.values():
        for kind, found in above.items():
            found.append(interval_above(gain(x["rows"], free, best_of(x["rows"], kind)), 1))
    success = {}
    for name in (free, "positives only"):
        means = [x["rows"][name]["success"]["mean"] for x in points.values()]
        success[name] = span(means, 0, 100)
    said = f"significantly at {WORDS[sum(above['AWR'])]}. It succeeds in {success[free]} % at the"
    assert f"{said} ten points, positives only in {success['positives only']}." in page
    assert f"RECAP's at β = 1, too, at {WORDS[sum(above['recap_1 β=1'])]} points" in page

def test_other_learning_rates():
    kept = result("ablation_rate")["policy"]
    expected = []
    for name in AT_OTHER_RATES:
        cells = [name, both(kept[name])]
        for share in RATES:
            x = kept[at_rate(name, share)]
            cells += [both(x), bracket(gain(kept, at_rate(name, share), name))]
        expected.append(cells)
    check("Other learning rates", expected)

def test_positives_of_fold_collar():
    policy = result("ablation_positive_collar")["policy"]
    expected = []
    for k in (1, 2):
        for how, beta in (("β = 1", "1"), ("guided", "1.5")):
            cells = [f"RECAP k = {k}, {how}"]
            for share in ("20%", "40%"):
                row = policy[f"FoldCollar, {share} positive | recap_{k} β={beta}"]
                cells.append(both(row))
            expected.append(cells)
    check("Fig. 12: removal of one failure mode", expected)

def test_fig_4():
    tasks = result("fig4")
    aucs = {}
    for kind in ("edge grasp", "wrong turn", "slip", "edge let go", "let go"):
        aucs[kind] = {name: x[kind]["auc"]["mean"] for name, x in tasks.items() if kind in x}
    table = {row[0]: row[1] for row in section("Figs. 4 and 13: V along episodes")}
    for kind in ("edge grasp", "slip", "edge let go"):
        assert table[kind] == span(aucs[kind].values())
    turn = aucs["wrong turn"]["fold_collar"]
    assert list(aucs["wrong turn"]) == ["fold_collar"]
    assert table["wrong turn"].startswith(f"{turn:.2f} (FoldCollar;")

    kinds = {"an edge grasp": "edge grasp", "a wrong turn": "wrong turn", "a slip": "slip",
             "letting go before the slip": "edge let go",
             "letting go at the wrong place": "let go"}  # fmt: skip
    head, *after = [row for row in section("Figs. 4 and 13: V along episodes") if len(row) > 2]
    for title, *cells in after:
        for task, cell in zip(head[1:], cells, strict=True):
            x = tasks[NAMES[task]].get(kinds[title])
            rare = x is None or x["mistakes"] < 50
            pair = "" if rare else f"{x['value']['mean']:.2f}, {x['return']['mean']:.2f}"
            assert cell == pair.replace("-", "−"), (title, task)

def test_a_clock_for_v():
    kept = result("ablation_clock")
    variants = ("no clock", "a clock")

    def cells(title, of):
        return [title, *(of(variant) for variant in variants)]

    expected = []
    title = "V¹ from the mean return, ten groups of steps"
    expected.append(cells(title, lambda x: number(kept["value"][x]["calibration error"], 3)))
    kinds = {"edge grasp": "an edge grasp", "wrong turn": "a wrong turn", "slip": "a slip"}
    for kind, title in kinds.items():
        title = f"V¹ and the mean return after {title}"
        expected.append(cells(title, lambda x: after(kept["value"][x][kind])))
    for kind in ("edge grasp", "wrong turn"):
        title = f"AUC of its drops, {kinds[kind]}"
        expected.append(cells(title, lambda x: number(kept["value"][x][kind]["auc"], 2)))
    title = "bad steps called positive, %"
    expected.append(cells(title, lambda x: number(kept["labels"][x]["positive_given_bad"], 0, 100)))
    for how, beta in (("β = 1", "1"), ("guided", "1.5")):
        name = f"{{}} | recap_2 β={beta}"
        title = f"RECAP k = 2, {how}"
        expected.append(cells(title, lambda x: both(kept["policy"][name.format(x)])))
    check("A clock for V", expected)
    names = [f"{x} | recap_2 β=1" for x in ("a clock", "no clock")]
    assert f"RECAP is no faster, {ratio_text(gain(kept['policy'], *names))}" in in_a_line(PAGE)

CRITICS = {
    "V¹, of returns": "recap_1", "the same, as many steps": "critic_mc",
    "a critic, τ = 0.5": "critic_td_0.5", "a critic, τ = 0.7": "critic_td_0.7",
    "a critic, τ = 0.9": "critic_td_0.9",
}  # fmt: skip
BOOTSTRAPPED = [name for name in CRITICS.values() if "td" in name]

def test_a_critic_that_bootstraps():
    kept = result("ablation_critic")
    expected = []
    for title, name in CRITICS.items():
        x = kept["labels"][name]
        shares = (x[key] for key in ("positive_given_bad", "positive_fraction_failures"))
        cells = [title, *(number(share, 0, 100) for share in shares)]
        cells.append(number(x["pace of positive steps"], 2))
        for beta in (1, 2):
            row, base = (f"{which} β={beta}" for which in (name, "recap_1"))
            cells.append(both(kept["policy"][row]))
            cells.append("" if row == base else bracket(gain(kept["policy"], row, base)))
        expected.append(cells)
    check("A critic that bootstraps", expected)
    guided = [f"{name} β=2" for name in BOOTSTRAPPED]
    policy = kept["policy"]
    assert not any(interval_above(fewer_failures(policy, x, "recap_1 β=2"), 1) for x in guided)
    least, most = ends(fewer_failures(policy, x, "critic_mc β=2") for x in guided)
    text = f"returns in as many steps {ratio_text(least)} to {ratio_text(most)}"
    assert text in in_a_line(PAGE)

def of_critics(key):
    """Lowest to highest of the three critics: a ratio of RECAP's throughput, or the pace."""
    kept = result("ablation_critic")
    names = BOOTSTRAPPED
    if key == "pace":
        paces = [kept["labels"][name]["pace of positive steps"]["mean"] - 1 for name in names]
        return span(paces, 0, 100)
    found = [gain(kept["policy"], f"{x} {key}", f"recap_1 {key}")["ratio"] for x in names]
    return f"× {min(found):.2f} to × {max(found):.2f}"

def after(x):
    """V, and the mean return, one step after a mistake of one kind."""
    return f"{x['value']['mean']:.2f}, {x['return']['mean']:.2f}".replace("-", "−")

def both(row):
    """Success and throughput."""
    return f"{number(row['success'], 1, 100)} %, {number(row['throughput'])}"

def test_cheaper_failures():
    kept = result("ablation_c_fail")["policy"]
    default, *_ = variants = list(dict.fromkeys(name.split(" | ")[0] for name in kept))
    expected = []
    stages = [f"recap_{k} β={beta}" for k in (1, 2) for beta in (1, 2)]
    for variant in variants:
        expected.append([variant, *(both(kept[f"{variant} | {stage}"]) for stage in stages)])
    check("Cheaper failures", expected)
    for cheaper, after in ((variants[1], " after two rounds"), (variants[2], "")):
        found = []
        for measure in (gain, fewer_failures):
            for stage in stages[2:]:
                names = [f"{x} | {stage}" for x in (cheaper, default)]
                found.append(ratio_text(measure(kept, *names)))
        text = f"RECAP is {{}} as fast{after}, guided {{}}. Failures are at {{}} and {{}}"
        assert text.format(*found) in in_a_line(PAGE)
    # "One seed of the five fails in 10 % of the episodes in both, and in 4 % by default."
    last = [kept[f"{x} | recap_2 β=2"]["success"]["values"][-1] for x in variants[:3]]
    assert [round(100 * (1 - x)) for x in last] == [4, 10, 10]
    clipped = [f"{x} | recap_2 β=1" for x in ("clipped at -1", default)]
    assert f"can show, {ratio_text(gain(kept, *clipped))} at β = 1" in in_a_line(PAGE)

def test_the_generalist():
    found = result("generalist")
    expected = []
    faster = set()
    for name, task in NAMES.items():
        rows = [f"{task}: {kind}" for kind in ("specialist", "generalist")]
        over = gain(found, rows[1], rows[0])
        per_hour = [number(found[row]["throughput"]) for row in rows]
        expected.append([name, *per_hour, bracket(over)])
        assert over["high"] > 1, f"{name}: the page says that none is slower"
        if interval_above(over, 1):
            faster.add(name)
    check("The generalist", expected)
    assert faster == {"FoldDiverse", "Box"}

def test_what_sft_starts_from():
    kept = result("ablation_handover")
    before = (kept["policy"][f"{name} β=1"] for name in ("rl_pretrained", "supervised"))
    first, second = (number(row["throughput"]) for row in before)
    for text in (f"after offline RL is at {of_few(kept)} of", f"apart, {first} and {second} per"):
        assert text in in_a_line(PAGE)

def of_few(kept):
    """SFT of few demonstrations after offline RL over that after supervised pre-training."""
    found = [x for name, x in kept["compared"].items() if name != SFT]
    assert not any(interval_above(x, 1) for x in found)
    ratios = [x["ratio"] for x in found]
    return f"× {min(ratios):.2f} to × {max(ratios):.2f}"

def rounds():
    """Every kind of rounds: {"KIND, EPISODES, β=1" or "..., guided": a row} of `online`."""
    found = {}
    for kind, x in result("ablation_online").items():
        for how in ("β=1", "guided"):
            for n, row in zip(x["episodes"], x[how], strict=True):
                found[f"{kind}, {n}, {how}"] = row
    return found

def small_rounds_over(kind):
    """Eight rounds over another kind, when all have been collected, at β = 1."""
    names = ("8 rounds of 50, going on, 400, β=1", f"{kind}, 400, β=1")
    return ratio_text(gain(rounds(), *names))

def test_online_in_small_rounds():
    kept = rounds()
    kinds = list(result("ablation_online"))
    expected = []
    for kind in kinds:
        cells = [kind]
        for how in ("β=1", "guided"):
            name, base = (f"{x}, 400, {how}" for x in (kind, kinds[0]))
            cells.append(both(kept[name]))
            cells.append("" if name == base else bracket(gain(kept, name, base)))
        expected.append(cells)
    check("Online, in small rounds", expected)
    early = "16 rounds of 25, going on, 50, guided"
    late = "2 rounds of 200, as in Algorithm 1, 400, guided"
    more = ratio_text(fewer_failures(kept, early, late))
    text = f"rounds of 25 fail more often: after 50 episodes {more} as often"
    assert text in in_a_line(PAGE)
    assert f"two rounds that go on, {small_rounds_over(kinds[1])}" in in_a_line(PAGE)
    names = [f"{kind}, 400, β=1" for kind in (kinds[3], kinds[1])]
    text = f"At the end rounds of 25 have {ratio_text(fewer_failures(kept, *names))}"
    assert text in in_a_line(PAGE)

NONE_CORRECTED = "FoldShirt, 200 a round, none corrected, 10 % positive"

def climbs(how):
    """{kind: [a row per round, from π⁰ on]} of `climb`."""
    return {kind: x[how] for kind, x in result("ablation_climb").items()}

def over(above, below):
    """Throughput of one row over another's."""
    return ratio(above["throughput"]["values"], below["throughput"]["values"])

def test_do_more_rounds_help():
    expected = []
    for kind, found in climbs("β=1").items():
        cells = [kind]
        for k, row in enumerate(found):
            text = number(row["throughput"])
            if k > 0 and interval_above(over(row, found[k - 1]), 1):
                text = f"**{text}**"
            cells.append(text)
        expected.append([*cells, bracket(over(found[-1], found[1]))])
    check("Four rounds", expected)
    many = "FoldShirt, 200 a round"
    first, *later = climbs("β=1")[many][1:]
    steps = []
    for row, before in zip(later, [first, *later]):
        steps.append(ratio_text(over(row, before)))
    text = f"FoldShirt ever more slowly: by {steps[0]}, {steps[1]} and {steps[2]} after the first"
    assert text in in_a_line(PAGE)
    text = f"after the first {over_the_first(many, 'guided')} on FoldShirt with 200, "
    text += f"{over_the_first('FoldDiverse, 50 a round', 'guided')} on FoldDiverse with 50"
    assert text in in_a_line(PAGE)
    own = climbs("guided")[NONE_CORRECTED]
    assert f"the second loses some, {ratio_text(over(own[2], own[1]))}" in in_a_line(PAGE)
    few = over(climbs("β=1")["FoldShirt, 25 a round"][1], first)
    assert f"25 in the first round bring {ratio_text(few)} of what 200 do" in in_a_line(PAGE)

def over_the_first(kind, how):
    """The last round over the first."""
    found = climbs(how)[kind]
    return ratio_text(over(found[-1], found[1]))

def test_metadata():
    policy = result("ablation_metadata")["policy"]
    variants = {
        "without metadata": "no metadata", 'asked for "fast careful"': "asked: fast careful",
        'asked for "slow careless"': "asked: slow careless",
        "trained with, not asked": "metadata, not asked",
    }  # fmt: skip
    expected = []
    for title, variant in variants.items():
        cells = []
        for stage in ("rl_pretrained", "offline_rl_sft", "recap_1"):
            cells.append(number(policy[f"{variant} | {stage} β=1"]["throughput"]))
        expected.append([title, *cells])
    check("Metadata", expected)
    # "Asking brings half of what one iteration of RECAP brings."
    names = (f"no metadata | {SFT}", f"asked: fast careful | {SFT}", "no metadata | recap_1 β=1")
    start, asked, trained = (policy[name]["throughput"]["mean"] for name in names)
    assert (asked - start) / (trained - start) == pytest.approx(0.5, abs=0.05)
    fast = "asked: fast careful | recap_1 β=1"
    level = ratio_text(gain(policy, fast, "no metadata | recap_1 β=2"))
    assert f"guided at β = 2, {level}" in in_a_line(PAGE)
    more = ratio_text(fewer_failures(policy, fast, "no metadata | recap_1 β=1"))
    assert f"asked for it fails {more} as often" in in_a_line(PAGE)

def test_web_questions():
    value = result("ablation_web")["value"]
    expected = []
    correlations = []
    for title, n in (("without questions", 0), ("one question per step", 1)):
        row = value[f"10 demonstrations, {n} questions per step"]
        losses = [number(row[key], 2) for key in ("train_loss", "heldout_loss")]
        expected.append([title, *losses])
        correlations.append(f"{row['heldout_correlation']['mean']:.2f}")
    check("Web questions", expected)
    assert "rises from {} to {}".format(*correlations) in in_a_line(PAGE)
    # "With ten times the demonstrations they do nothing."
    none, some = (value[f"100 demonstrations, {n} questions per step"] for n in (0, 1))
    for key in ("heldout_correlation", "heldout_loss"):
        assert abs(some[key]["mean"] - none[key]["mean"]) < none[key]["se"] + some[key]["se"]

def test_corrections():
    policy = result("ablation_corrections")["policy"]
    variants = {"none": "200 autonomous, none corrected", "50 (default)": "150 + 50 corrected",
                "190": "10 + 190 corrected"}  # fmt: skip
    expected = []
    for title, variant in variants.items():
        row = policy[f"{variant} | recap_1 β=1"]
        failed = {"mean": 1 - row["success"]["mean"], "se": row["success"]["se"]}
        expected.append([title, number(failed, 1, 100), number(row["throughput"])])
    check("Corrections", expected)
    names = [f"{n} corrected | recap_1 β=1" for n in ("150 + 50", "10 + 190")]
    compared = {"at a medium pace": [policy[name] for name in names]}
    policy = result("ablation_operator")["policy"]
    few, many = (f"{n} corrected slowly | recap_1 β=1" for n in (50, 190))
    compared["slowly"] = [policy[few], policy[many]]
    expected = []
    for how, both in compared.items():
        rates = [number(row["throughput"]) for row in both]
        found = ratio(*(row["throughput"]["values"] for row in both))
        expected.append([how, *rates, bracket(found)])
    check("Corrections", expected)
    assert interval_above(gain(policy, few, many), 1)

def test_checks():
    tasks = result("checks")
    table = {row[0]: row[1] for row in section("Checks: are the runs in order?") if len(row) == 2}
    for name, task in NAMES.items():
        assert table[name] == number(tasks[task]["V_2: heldout_correlation"], 2), name

    def means(key, of=NAMES.values()):
        return [tasks[task][key]["mean"] for task in of if key in tasks[task]]

    expected = {
        "V¹ with the return, on rollouts of the SFT policy: correlation":
            span(means("V_1: heldout_correlation")),
        "good grasps labelled positive, %":
            span([x for k in (1, 2) for x in means(f"iteration {k}: positive_given_good")], 0, 100),
        "bad grasps and pauses labelled positive, %":
            span([x for k in (1, 2) for x in means(f"iteration {k}: positive_given_bad")], 0, 100),
        "corrected steps of corrected episodes, first iteration, %":
            span(means("iteration 1: corrected_fraction"), 0, 100),
        "corrected steps, second iteration, %":
            span(means("iteration 2: corrected_fraction"), 0, 100),
        "joints move in a positive step, × any step":
            span(means("iteration 1: pace of positive steps")),
        "the same, second iteration": span(means("iteration 2: pace of positive steps")),
    }  # fmt: skip
    for title, text in expected.items():
        assert table[title] == text, title

ALOHA = {
    "operators of pre-training": "demonstrations", "SFT, 700 steps": "offline_rl_sft β=1",
    "SFT": "SFT, as many steps", "RECAP, β = 1": "recap_1 β=1", "RECAP, β = 1.5": "recap_1 β=1.5",
}  # fmt: skip

def test_aloha():
    stages = result("aloha")
    _, *short = section("ALOHA in MuJoCo")
    head = next(row for row in short if row[0] == "in 10,000 steps")
    base = "all data, all positive"
    longer = ", 4 x the steps"
    end = ""  # of the names in the second table
    for row in short:
        if row is head:
            end = longer
            continue
        title, success, rate, compared = row
        name = ALOHA.get(title, title)
        if "RECAP" in title and ("balanced" in title or end):
            name = f"recap β={title.split('= ')[1]}"
            name += ", half of the draws positive" if "balanced" in title else ""
        kept = stages[name + end]
        assert success == number(kept["success"], 1, 100) + " %", title
        assert rate == number(kept["throughput"]), title
        expected = bracket(gain(stages, name + end, base + end))
        expected = {base: "1", "demonstrations": ""}.get(name, expected)
        assert compared == expected, title
    half = "recap β=1, half of the draws positive"
    over = [ratio_text(gain(stages, half, x)) for x in ("SFT, as many steps", "recap_1 β=1")]
    text = "at {} of SFT in as many steps; over RECAP by default that is {}"
    assert text.format(*over) in in_a_line(PAGE)
    # "In 2,500 it is not shown to be above imitation of all its data, in 10,000 it is."
    assert not interval_above(gain(stages, "recap_1 β=1", base), 1)
    assert interval_above(gain(stages, f"recap β=1{longer}", base + longer), 1)
    # "Imitation of the positive steps alone is significantly above every other row."
    for end in ("", longer):
        alone = "positives only" + end
        for name in stages:
            if name != alone and name.endswith(longer) == bool(end):
                assert interval_above(gain(stages, alone, name), 1), name
    best = gain(stages, "positives only" + longer, half.replace("β=1", "β=1.5") + longer)
    assert f"in the second by {ratio_text(best)} over the best RECAP" in in_a_line(PAGE)

# ---------------------------------------------------------------- docs/FINDINGS.md

def outside_at(beta):
    """Share of numbers outside the data's 99 %, in % of every task."""
    found = []
    for stages in on_ten("cfg").values():
        name = next(name for name in stages if name.endswith(f"β={beta}"))
        found.append(100 * stages[name]["outside"]["mean"])
    return found

def errors_of_v():
    """V - mean return, one step after the mistakes of every kind and task."""
    found = []
    for kinds in on_ten("fig4").values():
        for x in kinds.values():
            if isinstance(x, dict) and "value" in x and x["mistakes"] >= 50:
                found.append(x["value"]["mean"] - x["return"]["mean"])
    assert min(found) > 0  # hope, everywhere
    return found

def sentences():
    """What FINDINGS.md has to say, computed anew."""
    fig7 = result("fig7")
    ten = on_ten("fig7") | on_ten("fig12")
    four = [ten[task] for task in fig7]
    fig11 = result("fig11")
    collar = result("fig12")["fold_collar"]
    checks = result("checks")
    corrections = on_ten("ablation_corrections")["policy"]
    positive = result("ablation_positive")["policy"]
    first = [gain(x, "recap_1 β=1")["ratio"] for x in four]
    yield f"brings × {min(first):.2f} to × {max(first):.2f} over offline RL + SFT"
    left = [fewer_failures(x, last_row(x))["ratio"] for x in four]
    yield f"After two, {span(left, 0, 100)} % of the failures"
    once = result("ablation_start")["policy"]
    data = [ratio_text(gain(x, "imitation")) for x in (once, fig11)]
    yield f"imitation of all that was collected is at {data[0]} after one round and {data[1]} after"
    ours = [gain(once, "recap_1 β=1")["ratio"], gain(fig11, "recap_2 β=1")["ratio"]]
    yield "RECAP at × {:.2f} and × {:.2f} (ablation start, fig11)".format(*ours)
    after = ten["fold_collar"][last_row(collar)]
    yield f"{100 * after['failed_early']['mean']:.1f} % of the episodes do"
    yield f"and {number(after['success'], 1, 100)} % succeed (fig12, ten)"
    shares = result("ablation_positive_collar")["policy"]
    many = shares["FoldCollar, 40% positive | recap_2 β=1"]["success"]
    few = shares["FoldCollar, 20% positive | recap_2 β=1"]["success"]
    many, few = (number(x, 1, 100) for x in (many, few))
    yield f"40 % positive it is {many} %, with our 20 {few} (ablation positive_collar)"
    one = result("generalist")
    tasks = ("box", "fold_diverse", "espresso")
    compared = [gain(one, f"{task}: generalist", f"{task}: specialist") for task in tasks]
    box, diverse, espresso = (ratio_text(x) for x in compared)
    yield f"it is at {box} on Box, {diverse} on FoldDiverse, and on Espresso at {espresso} (gen"
    ratios = []
    swept = on_ten("cfg")
    for task, x in swept.items():
        faster = gain(x, "recap_2 β=1.5", "recap_2 β=1")
        assert interval_above(faster, 1) == (task != "espresso")
        if task != "espresso":
            ratios.append(faster["ratio"])
    assert len(ratios) == 4
    yield f"β = 1.5 brings × {min(ratios):.2f} to × {max(ratios):.2f} on four tasks"
    more = fewer_failures(swept["fold_shirt"], "recap_2 β=1.5", "recap_2 β=1")
    most = ratio_text(fewer_failures(ten["fold_shirt"], "recap_2 β=2", "recap_2 β=1"))
    yield f"on FoldShirt with {ratio_text(more)} of the failures, at β = 2 {most}"
    espresso = [ten["espresso"], "recap_2 β=1.5", "recap_2 β=1"]
    yield f"{ratio_text(gain(*espresso))} in throughput, with"
    yield f"with {ratio_text(fewer_failures(*espresso))} of the failures (fig7, ten)"
    yield f"At β = 5, {span(outside_at(5), 0)} % of an action's numbers"
    for task, place in (("fold_diverse", "on FoldDiverse"), ("espresso", "on Espresso")):
        yield f"{ratio_text(gain(ten[task], last_row(ten[task])))} {place}"
    again = result("headline")
    hard = [again[task] for task in ("fold_diverse", "espresso")]
    multiples = [ratio_text(gain(x, last_row(x), LONG)) for x in hard]
    short = [f"× {gain(x, last_row(x))['ratio']:.2f}" for x in hard]
    yield f"on seeds 41 to 45 it is {short[0]} and {short[1]}, but {multiples[0]} and"
    yield f"and {multiples[1]} over SFT in as many (headline)"
    diverse = again["fold_diverse"]
    guided = last_row(diverse, guided=True)
    yield f"guided RECAP has {ratio_text(gain(diverse, guided, ALONE))} of its throughput"
    yield f"with {ratio_text(fewer_failures(diverse, guided, ALONE))} of its failures"
    half = result("ablation_balance_diverse")["policy"]
    half["alone"] = diverse[ALONE]
    level = gain(half, "FoldDiverse, half of the draws | recap_2 β=1.5", "alone")
    yield f"level there, {ratio_text(level)}; this was tried when that had been seen"
    names = [f"FoldDiverse, {x} | recap_2 β=1" for x in ("half of the draws", "as in the data")]
    assert fewer_failures(half, *names)["ratio"] == pytest.approx(0.5, abs=0.03)
    yield "it halves FoldDiverse's failures"
    shirt = on_ten("fig9")["fold_shirt"]
    second = ratio_text(gain(shirt, "recap_2 β=1", "recap_1 β=1"))
    guided = ratio_text(gain(shirt, "recap_2 β=2", "recap_1 β=2"))
    yield f"adds {second} on FoldShirt with the paper's data"
    yield f"Guided it costs, {guided} (fig9, ten)"
    second = [gain(x, "recap_2 β=1", "recap_1 β=1") for x in ten.values()]
    assert len(second) == 5 and all(interval_above(x, 1) for x in second)
    numbers = [x["ratio"] for x in second]
    yield f"adds × {min(numbers):.2f} to × {max(numbers):.2f} at β = 1 on five tasks, always"
    guided = [last_row(x, guided=True).removeprefix("recap_2") for x in ten.values()]
    second = [gain(x, f"recap_2{b}", f"recap_1{b}") for x, b in zip(ten.values(), guided)]
    above = sum(interval_above(x, 1) for x in second)
    yield f"guided it does on {WORDS[above]} (fig7, fig12, ten)"
    many = "FoldShirt, 200 a round"
    yield f"four rounds climb at β = 1, to {over_the_first(many, 'β=1')} of the first"
    yield f"guided they do not, {over_the_first(many, 'guided')} (ablation climb; FoldShirt)"
    yield f"makes them say it: {of_critics('pace')} % farther"
    yield f"RECAP is {of_critics('β=1')} as fast, guided {of_critics('β=2')}."
    critics = result("ablation_critic")["policy"]
    successes = [critics[f"{name} β=2"]["success"] for name in BOOTSTRAPPED]
    best = max(successes, key=lambda x: x["mean"])
    ours = 100 * critics["recap_1 β=2"]["success"]["mean"]
    yield f"success falls from {ours:.1f} to at best {number(best, 1, 100)} % (ablation critic"
    cheap = result("ablation_c_fail")["policy"]
    faster = []
    for x in ("limit / 4", "limit / 2, N = 5"):
        names = [f"C_fail = {x} | recap_2 β=1", "C_fail = limit | recap_2 β=1"]
        faster.append(ratio_text(gain(cheap, *names)))
    text = "makes RECAP {} as fast after two rounds, half of it with half of N {} (ablation c_fail)"
    yield text.format(*faster)
    for k, words in ((1, "In the first round a positive step moves the joints {} % farther"),
                     (2, "in the second {} (checks")):  # fmt: skip
        pace = []
        for x in checks.values():
            key = f"iteration {k}: pace of positive steps"
            pace += [x[key]["mean"] - 1] if key in x else []
        yield words.format(span(pace, 0, 100))
    kept = rounds()
    batches = "2 rounds of 200, as in Algorithm 1, 400, β=1"
    few = climbs("β=1")["FoldShirt, 25 a round"]
    yield f"what two rounds of 200 do, {ratio_text(over(few[1], kept[batches]))}"
    level = over(kept["8 rounds of 50, going on, 400, β=1"], few[4])
    assert level["low"] < 1 < level["high"]
    yield "save steps, not episodes (ablation climb, ablation online)"
    mistakes = on_ten("fig4")
    auc = [x["edge grasp"]["auc"]["mean"] for x in mistakes.values()]
    yield f"with an AUC of {span(auc)}"
    turn = mistakes["fold_collar"]["wrong turn"]["auc"]["mean"]
    yield f"one step's drop has {turn:.2f}"
    *errors, rare = sorted(errors_of_v())
    yield f"it hopes too much, by {span(errors)}, on Box after a rare one by {rare:.2f}"
    assert max(x["slip"]["auc"]["mean"] for x in mistakes.values()) < 0.5
    yield "When the item then slips, V rises"
    clock = result("ablation_clock")["policy"]
    seen = gain(clock, "a clock | recap_2 β=1", "no clock | recap_2 β=1")
    assert not interval_above(seen, 1)
    yield "A clock as an input does not help"
    some = "150 + 50 corrected | recap_1 β=1"
    none = "200 autonomous, none corrected | recap_1 β=1"
    yield f"{ratio_text(fewer_failures(corrections, some, none))} with 50 of 200"
    many = "10 + 190 corrected | recap_1 β=1"
    speed = [ratio_text(gain(corrections, some, x)) for x in (none, many)]
    yield f"{speed[0]}, and 50 have {speed[1]} of the speed of 190 (ablation corrections, ten)"
    operator = result("ablation_operator")["policy"]
    names = [f"{n} corrected slowly | recap_1 β=1" for n in (50, 190)]
    yield f"Of a slow one 50 have {ratio_text(gain(operator, *names))} of it (ablation operator)"
    aloha = result("aloha")
    base = "all data, all positive"
    longer = ", 4 x the steps"
    yield f"by default it is at {ratio_text(gain(aloha, 'recap_1 β=1', base))} of imitation"
    four_times = gain(aloha, f"recap β=1{longer}", base + longer)
    yield f"in four times the steps at {ratio_text(four_times)}. With"
    half, sft = "recap β=1, half of the draws positive", "SFT, as many steps"
    balanced = [ratio_text(gain(aloha, half, x)) for x in (base, sft)]
    yield "it is at {}, and at {} of SFT in as many steps".format(*balanced)
    yield f"alone are at {ratio_text(gain(aloha, 'positives only', sft))} of that SFT (aloha)"
    yield f"and is {ratio_text(gain(aloha, half, 'recap_1 β=1'))} on ALOHA (aloha)"
    both = on_ten("fig11")
    plain, guided = (last_row(both, x) for x in (False, True))
    awr = best_of(both, "AWR")
    assert awr == best_of(fig11, "AWR")
    yield f"At β = 1 it is at {ratio_text(gain(both, plain, awr))} of the best AWR"
    yield f"Guided it is at {ratio_text(gain(both, guided, awr))}"
    assert all(interval_above(fewer_failures(both, x, awr), 1) for x in (plain, guided))
    yield "Both fail more often (fig11, ten)"
    points = result("map")
    guided, plain, _ = zip(*(over_awr(x["rows"]) for x in points.values()))
    least, most = ends(plain)
    text = f"ten points {ratio_text(least)} is the lowest, where half of the data failed, guided"
    lowest, highest = ends(guided)
    yield f"{text} {ratio_text(lowest)}. The highest are {ratio_text(most)} and"
    yield f"and {ratio_text(highest)}, in four times the steps (map)"
    for each in (most, highest):
        assert each in over_awr(points["14000 gradient steps"]["rows"])
    for each in (least, lowest):
        assert each in over_awr(points["20 steps of SFT, none of 600 corrected"]["rows"])
    paper = points["none corrected, 10 % positive"]["rows"]
    ppo = gain(paper, best_of(paper, "PPO"), "recap_1 β=1")
    yield f"as in the paper, it is at {ratio_text(ppo)} of RECAP at β = 1 (map)"
    near = gain(once, "PPO ε=inf rate×0.03, from imitation", "recap_1 β=1")
    yield f"From imitation of the data, in twice the steps, it is at {ratio_text(near)}"
    alone = [both, "recap_2 β=1", "positives only"]
    yield f"RECAP has {ratio_text(gain(*alone))} of its throughput, with"
    yield f"with {ratio_text(fewer_failures(*alone))} of its failures (fig11, ten)"
    failing = WORDS[len(faster_and_failing(points)[1])]
    yield f"but fails more often at {failing} of FoldShirt's {WORDS[len(points)]} points"
    sft = [gain(x, SFT, "supervised_sft β=1") for x in four]
    assert not any(interval_above(x, 1) for x in sft)
    sft = [x["ratio"] for x in sft]
    yield f"is at × {min(sft):.2f} to × {max(sft):.2f} of supervised pre-training"
    yield f"show an effect, {of_few(result('ablation_handover'))} (ablation handover)"
    strict = gain(positive, "40% positive | recap_1 β=1", "20% positive | recap_1 β=1")
    yield f"40 % positive is {ratio_text(strict)} of 20. If you guide, do not"
    names = [f"{share} positive | recap_1 β=2" for share in ("40%", "20%")]
    yield f"40 % leave {ratio_text(fewer_failures(positive, *names))} of the failures"

@pytest.mark.parametrize("expected", list(sentences()))
def test_findings_say(expected):
    assert in_a_line(expected) in in_a_line(FINDINGS)
