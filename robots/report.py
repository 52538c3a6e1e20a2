"""The figures of one recording: rate, jitter, safety, latency, outcome."""
import numpy as np

def report(recording, robot, hz):
    """The figures of one `control.Recording`, as text.

    robot: the `SafeRobot`, which counts over all of its recordings.  hz: ticks per second.
    """
    lines = timing(np.array(recording.sent_at), recording.missed, hz)
    counts = f"{robot.clamped} of {robot.commands} commands clamped, {robot.rejected} rejected"
    lines.append(f"safety    {counts}")
    waits = np.array(recording.latencies or [0.0])  # s
    lines.append(
        f"policy    {len(recording.latencies)} chunks, median {ms(np.median(waits))}, "
        f"largest {ms(waits.max())}; the arm stood for want of one in {recording.stalls} steps"
    )
    for e in recording.episodes:
        lines.append(f"operator  in control for {e.intervention.sum()} of {len(e)} steps")
        words = {True: "success", False: "failure", None: "not labelled"}
        lines.append(f"outcome   {words[e.success]}")
    if recording.error is not None:
        lines.append(f"ended by  {type(recording.error).__name__}: {recording.error}")
    return "\n".join(lines)

def timing(sent_at, missed, hz):
    """Rate and jitter, two lines; none for fewer than two commands.

    sent_at: s, of every command.  missed: ticks skipped.
    """
    if len(sent_at) < 2:
        return []
    ticks = len(sent_at) + missed
    rate = (ticks - 1) / (sent_at[-1] - sent_at[0])
    # Jitter: how far the time between two commands is from whole periods.
    periods = np.diff(sent_at) * hz
    jitter = np.abs(periods - np.maximum(np.round(periods), 1)) / hz  # s
    return [
        f"rate      {rate:.3f} Hz, {len(sent_at)} ticks, {missed} missed",
        f"jitter    median {ms(np.median(jitter))}, "
        f"99.9th percentile {ms(np.quantile(jitter, 0.999))}, largest {ms(jitter.max())}",
    ]

def ms(seconds):
    """A duration as text."""
    return f"{1e3 * seconds:.2f} ms"
