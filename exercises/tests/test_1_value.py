"""Exercise 1: bins, Eq. (1), and V as an expectation."""
import math

import numpy as np
import pytest
import torch

import parameters as P
import value
from checks import check, close

HALF_BIN = "two neighbouring bins are 1 / (B - 1) apart: B values enclose B - 1 gaps"


def some_returns(*shape):
    return torch.as_tensor(np.random.default_rng(P.SEED).uniform(-1, 0, shape), dtype=torch.float32)


def grid(B):
    return np.array([-1 + b / (B - 1) for b in range(B)])


def some_logits(*shape):
    return torch.as_tensor(np.random.default_rng(P.SEED + 1).normal(size=shape), dtype=torch.float32)


@pytest.mark.parametrize("B", P.N_BINS)
def test_bins_run_evenly_from_minus_one_to_zero(B):
    close(value.support(B), grid(B), HALF_BIN)


@pytest.mark.parametrize("B", P.N_BINS)
def test_a_return_goes_into_the_nearest_bin(B):
    R = some_returns(4, 25)
    bins = value.discretize(R, B)
    check(bins.dtype == torch.long, f"indices are of dtype long, yours are {bins.dtype}")
    close(bins.shape, R.shape, "one index for every return, in the shape of the returns")
    distance = np.abs(R.numpy()[..., None] - grid(B))                                # (4, 25, B)
    close(np.take_along_axis(distance, bins.numpy()[..., None], -1)[..., 0], distance.min(-1),
          "the nearest bin is a matter of |return - bin|, not of return - bin; and it is rounding, not flooring")


@pytest.mark.parametrize("bad", [-1.01, 0.5, -40.0, math.nan, math.inf])
def test_returns_outside_the_support_are_refused(bad):
    close(value.discretize(torch.tensor([-1.0, 0.0])), torch.tensor([0, 200]), "both ends belong to the support")
    try:
        value.discretize(torch.tensor([-0.5, bad]))
    except ValueError:
        return
    check(False, f"a return of {bad} was put into a bin without a word; raise ValueError (NaN compares False with anything)")


@pytest.mark.parametrize("B", P.N_BINS)
def test_value_loss_is_the_cross_entropy(B):
    logits, R = some_logits(2, 6, B), some_returns(2, 6)
    bins = np.abs(R.numpy()[..., None] - grid(B)).argmin(-1)
    p = np.exp(logits.double().numpy())
    p /= p.sum(-1, keepdims=True)
    close(value.value_loss(logits, R), -np.log(np.take_along_axis(p, bins[..., None], -1)).mean(),
          "-log p(the return's bin), averaged over all steps, whatever axes stand before the bins")


def test_value_loss_is_smallest_at_the_distribution_of_returns():
    B = P.N_BINS[1]
    R = torch.as_tensor(grid(B)[np.random.default_rng(P.SEED).integers(0, B, 400)], dtype=torch.float32)
    frequency = np.bincount(np.rint((R.numpy() + 1) * (B - 1)).astype(int), minlength=B) / len(R)
    logits = torch.log(torch.as_tensor(frequency + 1e-9, dtype=torch.float32)).requires_grad_()
    value.value_loss(logits.expand(len(R), B), R).backward()
    close(logits.grad, np.zeros(B), "cross-entropy has its minimum where p is how often each bin occurs; with a squared "
          "error, or with softmax taken twice, it lies elsewhere", 1e-4)


@pytest.mark.parametrize("B", P.N_BINS)
def test_expected_value_is_the_mean_over_bins(B):
    logits = some_logits(3, 4, B)
    p = np.exp(logits.double().numpy())
    close(value.expected_value(logits), (p / p.sum(-1, keepdims=True)) @ grid(B), "Σ_b p(b) v(b): logits are not yet p")


@pytest.mark.parametrize("B", P.N_BINS)
def test_bins_and_expectation_share_one_grid(B):
    certain = 100 * torch.eye(B)                                                     # all mass on one bin
    close(value.expected_value(certain), grid(B), "bin b stands for the value v(b), the same one that targets are "
          "rounded to, else V is off by half a bin everywhere")
