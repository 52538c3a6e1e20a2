"""App. F: how many episodes, the paper's numbers and ours."""
from lab.files import write_text
from reproduce.options import RESULTS
from reproduce.stages import FIG9_SHIRT, settings_for

# Of App. F and Secs. VI-C2 and VI-C4: where it stands, iterations, demonstrations, autonomous and
# corrected episodes per iteration.  "–": not said.
PAPER_COUNTS = {
    "fold_shirt": (
        ("Sec. VI-C2", "2", "–", "300", "0"),
        ("App. F", "–", "–", "300 (in total?)", "0"),
    ),
    "fold_diverse": (("App. F", "–", "–", "450 (in total?)", "287 (in total?)"),),
    "fold_collar": (
        ("Sec. VI-C4", "2", "–", "600", "0"),
        ("App. F", "–", "–", "~1000 in total", "280 + 378 in total"),
    ),
    "espresso": (("App. F", "1", "–", "414", "429"),),
    "box": (
        ("Sec. VI-C2", "2", "–", "600", "360"),
        ("App. F", "–", "600 per iteration", "–", "360"),
    ),
}
TITLES = ("task", "", "iterations", "demonstrations")
PER_ITERATION = ("autonomous per iteration", "corrected per iteration")
CONTRADICTIONS = """\
The paper contradicts itself twice.  fold_collar: Sec. VI-C4 has two iterations of 600 trajectories
"without any intervention data or additional demonstrations", App. F about 1000 autonomous episodes
in total and 280 + 378 with corrections.  box: the 600 are "autonomous trials" in Sec. VI-C2 and
"demonstrations" in App. F.  App. F's 300 for fold_shirt are "for reporting eval performance"; we
take them for those that Sec. VI-C2 collects in each iteration.  But for those 600 the paper does
not count the demonstrations of its tasks; pre-training has "tens of thousands of hours" of many
tasks (Sec. IV)."""

def counts(o):
    """The table of both, ours read from the settings of the figures: results/counts.md."""
    lines = [line(TITLES + PER_ITERATION), "|" + "---|" * 6]
    for task, paper in PAPER_COUNTS.items():
        ours = {"here": settings_for(task, 0, False)}
        if task == "fold_shirt":
            ours["here, fig9"] = settings_for(task, 0, False, **FIG9_SHIRT)
        for where, *numbers in paper:
            lines.append(line((task, f"paper, {where}", *numbers)))
        for name, s in ours.items():
            shown = f"{s.demonstrations} for pre-training, {s.demonstrations} for SFT"
            lines.append(line((task, name, s.iterations, shown, s.autonomous, s.corrected)))
    text = "\n".join(lines) + f"\n\n{CONTRADICTIONS}\n"
    write_text(o.new_path(RESULTS, "counts.md"), text)
    print(text)

def line(cells):
    """One line of a table in Markdown."""
    return f"| {' | '.join(str(cell) for cell in cells)} |"
