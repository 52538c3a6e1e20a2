"""Speed and endurance: how fast all this is, and what the driver survives.

    speed.py        training steps, latencies, world steps, what the action tokens lose
    driver.py       the control loop on the wall clock; commands and faults at random
    __main__.py     python -m benchmarks
"""
