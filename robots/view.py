"""Something to look at while a person drives a simulated robot: a window, or text.

    with a display       Window, of matplotlib; keys that are pressed in it count, too
    without one          Text, a map of the table in the terminal
"""
import sys
import time

import numpy as np

from robots.operators import OncePerPress
from sim_tasks.arms import forward_kinematics
from sim_tasks.render import LEFT, TOP, VIEW

PERIOD_S = 1 / 15  # at most so often a new picture
SHARE = 0.3  # of the loop's time, at most, is spent on pictures
KEYS = {"enter": "\r", "tab": "\t", "space": " "}  # as matplotlib calls them; others as they are

def view_of(task):
    """A `Window` where matplotlib can open one, else `Text`.  task: of sim_tasks."""
    from matplotlib import pyplot  # here: it chooses a backend

    with pyplot.rc_context({"toolbar": "None"}):
        figure = pyplot.figure(task.name, figsize=(4.8, 5.2), dpi=100)
    if figure.canvas.required_interactive_framework is None:  # of pictures in files
        pyplot.close(figure)
        return Text(task)
    figure.canvas.mpl_disconnect(figure.canvas.manager.key_press_handler_id)  # q would quit
    pyplot.show(block=False)
    return Window(task, figure)

class View:
    """What both have in common.  task: of sim_tasks.  now: the clock, s."""

    def __init__(self, task, now=time.monotonic):
        self.task = task
        self.now = now
        self.due = -float("inf")  # when the next picture is
        self.person = None  # the `Person`, once there is one
        self.steps = 0  # of this episode

    def __call__(self, observation, info, steps):
        """Show one step, where it is time to.  As `SimRobot.watch` is called."""
        self.steps = steps
        begun = self.now()
        if steps > 0 and begun < self.due:
            return
        self.draw(observation, f"{self.words()}   {info['subtask']}")
        # A slow display must not slow the robot down.
        self.due = begun + max(PERIOD_S, (self.now() - begun) / SHARE)

    def words(self):
        """The time, and in whose hands the robot is."""
        who = "the policy drives, space takes over"
        if self.person is not None and self.person.in_control:
            who = f"you drive the {('left', 'right')[self.person.arm]} arm"
        return f"{self.steps / self.task.hz:4.1f} s   {who}"

    def keys(self):
        """The keys that were pressed in it since the last call, a text."""
        return ""

    def draw(self, observation, words):
        """observation: {name: array} of one step."""

class Window(View):
    """figure: of matplotlib, whose canvas takes events."""

    def __init__(self, task, figure, now=time.monotonic):
        super().__init__(task, now)
        self.figure = figure
        self.pressed = ""
        self.once = OncePerPress(now)
        self.picture = None
        self.axes = figure.add_axes((0, 0, 1, 4.8 / 5.2))
        self.axes.set_axis_off()
        self.title = figure.text(0.02, 0.955, "")
        figure.canvas.mpl_connect("key_press_event", self._press)

    def _press(self, event):
        key = KEYS.get(event.key, event.key or "")
        self.pressed += key if len(key) == 1 else ""

    def keys(self):
        self.figure.canvas.flush_events()
        pressed = self.pressed
        self.pressed = ""
        return self.once(pressed)

    def draw(self, observation, words):
        picture = self.task.picture(observation)
        if self.picture is None:
            self.picture = self.axes.imshow(picture, interpolation="nearest")
        self.picture.set_data(picture)
        self.title.set_text(words)
        self.figure.canvas.draw_idle()
        self.figure.canvas.flush_events()

class Text(View):
    """A map of the table: hands L and R, handles o, goals +, what is held *, what is placed #."""

    ROWS = 17
    COLUMNS = 46

    def __init__(self, task, now=time.monotonic, stream=None):
        super().__init__(task, now)
        self.stream = sys.stdout if stream is None else stream
        self.last = 0  # step of the last map

    def draw(self, observation, words):
        lines = [*map_of(observation, self.ROWS, self.COLUMNS), words]
        # Over the last one; but what is said as an episode begins stays.
        up = f"\x1b[{len(lines)}A" if self.steps > self.last > 0 else ""
        self.stream.write(up + "".join(f"{line}\x1b[K\n" for line in lines))
        self.stream.flush()
        self.last = self.steps

def map_of(observation, rows, columns):
    """The table from above in letters, a list of texts."""
    letters = np.full((rows, columns), " ")
    keypoints = observation["keypoints"]
    hands = forward_kinematics(observation["state"].reshape(2, 3)[:, :2])
    marks = [(point, "+") for point in keypoints[2:, :2]]
    for half in keypoints[:2]:
        letter = "*" if half[7] or half[8] else "o"
        marks.append((half[:2], "#" if half[10] else letter))
    marks += zip(hands, "LR")
    for (x, y), letter in marks:
        row = int((TOP - y) / VIEW * rows)
        column = int((x - LEFT) / VIEW * columns)
        if 0 <= row < rows and 0 <= column < columns:
            letters[row, column] = letter
    return ["|" + "".join(line) + "|" for line in letters]
