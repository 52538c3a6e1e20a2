"""robots/view.py: what a person sees of a simulated robot, and the keys that a window takes."""
import io
from contextlib import contextmanager
from types import SimpleNamespace

import numpy as np
import pytest
from matplotlib.backend_bases import KeyEvent
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

import robots.__main__ as program
from robots.simulated import SimRobot
from robots.view import Text, View, Window, map_of, view_of
from sim_tasks import TASKS

SHIRT = TASKS["fold_shirt"]

def seen(task=SHIRT):
    return {name: x[0] for name, x in task.world([0]).observe().items()}

class Clock:
    now = 0.0

    def __call__(self):
        return self.now

def test_the_map_has_everything_where_it_lies():
    """A table of 1.46 m in 73 x 73 letters: two centimetres each."""
    observation = seen()
    keypoints = observation["keypoints"]
    keypoints[:, :2] = [(-0.73, 1.16), (0.01, 0.50), (-0.30, 0.70), (2.0, 0.7)]
    lines = map_of(observation, 73, 73)
    assert len(lines) == 73 and all(len(line) == 75 for line in lines)

    def letter(x, y):
        return lines[int((1.17 - y) / 0.02)][1 + int((x + 0.73) / 0.02)]

    assert letter(-0.73, 1.16) == "o" and letter(0.01, 0.50) == "o" and letter(-0.30, 0.70) == "+"
    # The hands begin near the front of the table; the goal beyond it is not drawn.
    text = "".join(lines)
    assert {mark: text.count(mark) for mark in "LRo+*#"} == {
        "L": 1, "R": 1, "o": 2, "+": 1, "*": 0, "#": 0,
    }  # fmt: skip
    keypoints[0, 8] = 1  # held well
    keypoints[1, 10] = 1  # placed
    lines = map_of(observation, 73, 73)
    assert letter(-0.73, 1.16) == "*" and letter(0.01, 0.50) == "#"

def test_text_is_drawn_over_the_last_one_but_not_over_what_was_said():
    stream = io.StringIO()
    clock = Clock()
    view = Text(SHIRT, clock, stream)
    for steps in (0, 1, 2):
        clock.now += 1
        view(seen(), {"subtask": "flatten shirt"}, steps)
    parts = stream.getvalue().split("\x1b[18A")
    assert len(parts) == 2  # the first two stand below one another
    assert "0.2 s   the policy drives, space takes over   flatten shirt" in parts[1]

def test_pictures_take_a_share_of_the_time_alone():
    clock = Clock()
    drawn = []

    class Slow(View):
        def draw(self, observation, words):
            drawn.append(words)
            clock.now += 0.3

    view = Slow(SHIRT, clock)
    view.person = SimpleNamespace(in_control=True, arm=1)
    for steps in range(101):
        view({}, {"subtask": ""}, steps)
        clock.now += 0.1
    assert 0.25 < len(drawn) * 0.3 / clock.now <= 0.31
    assert drawn[0].startswith(" 0.0 s   you drive the right arm")

def test_a_window_shows_the_scene_and_passes_its_keys_on():
    figure = Figure()
    FigureCanvasAgg(figure)
    figure.canvas.flush_events = lambda: None
    clock = Clock()
    window = Window(SHIRT, figure, clock)
    window(seen(), {"subtask": "flatten shirt"}, 0)
    assert np.array_equal(window.picture.get_array(), SHIRT.picture(seen()))
    for key in ("enter", "tab", " ", "q", "shift", None):
        figure.canvas.callbacks.process(
            "key_press_event", KeyEvent("key_press_event", figure.canvas, key)
        )
    assert window.keys() == "\r\t q" and window.keys() == ""

def test_without_a_display_it_is_text():
    assert isinstance(view_of(SHIRT), Text)  # the tests draw into files

def test_a_simulated_robot_is_watched_from_its_first_observation_on():
    robot = SimRobot("SimTasks/FoldCollar-v0", 3)
    told = []
    robot.watch = lambda observation, info, steps: told.append((steps, info["subtask"]))
    robot.connect()
    still = {name: x for name, x in robot.get_observation().items() if name in robot.names}
    for _ in range(3):
        robot.send_action(still)
    assert told == [(steps, "fold collar") for steps in range(4)]
    robot.begin(4)
    assert told[-1] == (0, "fold collar")

@pytest.mark.parametrize("given, hz", [([], 10), (["--hz", "25"], 25)])
def test_a_person_has_the_rate_of_the_task_and_begins_when_they_want(given, hz, monkeypatch):
    keys = ["", "q", "\n", "later"]
    asked = {}

    @contextmanager
    def keyboard():
        yield lambda: keys.pop(0)

    def record(station, begin, policy, n, **how):
        person = begin(0)
        asked.update(how, next=person.read_keys())
        return []

    monkeypatch.setattr(program, "keyboard", keyboard)
    monkeypatch.setattr(program, "record", record)
    monkeypatch.setattr(program.time, "sleep", lambda s: None)
    assert program.main(["--keyboard", "--robot", "sim:FoldCollar", *given]) == 0
    assert asked["hz"] == hz and asked["next"] == "later"
