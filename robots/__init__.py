"""What stands behind and beside the interface of hardware.py: robots and operators.

    simulated.py     SimRobot                   any Gymnasium task of sim_tasks; its own referee
    lerobot.py       LeRobotRobot, LeaderArm    LeRobot's bimanual followers and teleoperators
    lerobot_data.py  read_lerobot, write_...    LeRobot's datasets in and out, by way of pyarrow
    operators.py     Person, keyboard           an operator at a keyboard, who is the referee, too
    view.py          Window, Text               what that person sees of a simulated robot
    recorder.py      Recorder                   episodes on their way into one dataset
    checkpoint.py    actor                      a policy of recap.py, for the simulated robot
    report.py        report                     the figures of one recording
    __main__.py      python -m robots           the command line

A robot has the methods of `hardware.BimanualRobot`.

An operator has two methods, asked in every step:
    wants_control(observation) -> bool (n,)
    act(observation) -> targets (n, A)

A referee has three:
    over() -> bool
    subtask() -> str
    outcome() -> (True, False, None for not labelled, or control.REDO; successes of the stages)
"""
