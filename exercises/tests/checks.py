"""How an exercise's test fails: it says what came, what was expected, and where to look."""
import numpy as np
import torch
from numpy import allclose, asarray

def check(ok, hint):
    __tracebackhide__ = True  # pytest then points at the line of the test
    assert ok, f"\n  Hint: {hint}"

def close(got, expected, hint, tolerance=1e-5):
    """Numbers, arrays or tensors are equal up to rounding, shapes exactly."""
    __tracebackhide__ = True
    assert got is not None, "\n  The function returns None: is there a return?"
    got = as_array(got)
    expected = as_array(expected)
    same_shape = got.shape == expected.shape
    assert same_shape, f"\n  Shape {got.shape}, expected {expected.shape}.\n  Hint: {hint}"
    if not allclose(got, expected, atol=tolerance, rtol=tolerance):
        distance = np.nan_to_num(np.abs(got - expected), nan=np.inf)
        worst = np.unravel_index(np.argmax(distance), got.shape)
        at = f" at index {tuple(int(i) for i in worst)}" if worst else ""
        came = f"{got[worst]:.6g}{at}, expected {expected[worst]:.6g}"
        raise AssertionError(f"\n  {came}.\n  Hint: {hint}")

def as_array(x):
    return asarray(x.detach() if isinstance(x, torch.Tensor) else x, float)

def refused(hint, function, *arguments):
    """The function raises ValueError for these arguments."""
    __tracebackhide__ = True
    try:
        function(*arguments)
    except ValueError:
        return
    check(False, hint)
