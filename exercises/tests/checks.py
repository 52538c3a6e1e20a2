"""The two ways in which an exercise's test fails: both say what came, what was expected, and where to look."""
import numpy as np
import torch


def check(ok, hint):
    __tracebackhide__ = True      # pytest then points at the line of the test
    assert ok, f"\n  Hint: {hint}"


def close(got, expected, hint, tolerance=1e-5):
    """Numbers, arrays or tensors are equal up to rounding, shapes exactly."""
    __tracebackhide__ = True
    assert got is not None, "\n  The function returns None: is there a return?"
    got, expected = (np.asarray(x.detach() if isinstance(x, torch.Tensor) else x, float) for x in (got, expected))
    assert got.shape == expected.shape, f"\n  Shape {got.shape}, expected {expected.shape}.\n  Hint: {hint}"
    if not np.allclose(got, expected, atol=tolerance, rtol=tolerance):
        worst = np.unravel_index(np.argmax(np.nan_to_num(np.abs(got - expected), nan=np.inf)), got.shape)
        at = f" at index {tuple(int(i) for i in worst)}" if worst else ""
        raise AssertionError(f"\n  {got[worst]:.6g}{at}, expected {expected[worst]:.6g}.\n  Hint: {hint}")
