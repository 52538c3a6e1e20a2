"""Exercise 1: bins, Eq. (1), and V as an expectation."""
import math

import numpy as np
import pytest
import torch

import parameters as P
from checks import check, close, refused
import value

HALF_BIN = "two neighbouring bins are 1 / (n_bins - 1) apart: n_bins values enclose n_bins - 1 gaps"

def some_returns(*shape):
    R = np.random.default_rng(P.SEED).uniform(-1, 0, shape)
    return torch.as_tensor(R, dtype=torch.float32)

def grid(n_bins):
    return np.array([-1 + b / (n_bins - 1) for b in range(n_bins)])

def some_logits(*shape):
    logits = np.random.default_rng(P.SEED + 1).normal(size=shape)
    return torch.as_tensor(logits, dtype=torch.float32)

def softmax(logits):
    p = np.exp(logits.double().numpy())
    return p / p.sum(-1, keepdims=True)

@pytest.mark.parametrize("n_bins", P.N_BINS)
def test_bins_run_evenly_from_minus_one_to_zero(n_bins):
    close(value.support(n_bins), grid(n_bins), HALF_BIN)

@pytest.mark.parametrize("n_bins", P.N_BINS)
def test_a_return_goes_into_the_nearest_bin(n_bins):
    R = some_returns(4, 25)
    bins = value.discretize(R, n_bins)
    check(bins.dtype == torch.long, f"indices are of dtype long, yours are {bins.dtype}")
    close(bins.shape, R.shape, "one index for every return, in the shape of the returns")
    distance = np.abs(R.numpy()[..., None] - grid(n_bins))  # (4, 25, n_bins)
    chosen = np.take_along_axis(distance, bins.numpy()[..., None], -1)[..., 0]
    hint = "the nearest bin is a matter of |return - bin|, not of return - bin; and it is"
    close(chosen, distance.min(-1), f"{hint} rounding, not flooring")

@pytest.mark.parametrize("bad", [-1.01, 0.5, -40.0, math.nan, math.inf])
def test_returns_outside_the_support_are_refused(bad):
    ends = value.discretize(torch.tensor([-1.0, 0.0]))
    close(ends, torch.tensor([0, 200]), "both ends belong to the support")
    hint = f"a return of {bad} was put into a bin without a word; raise ValueError"
    hint += " (NaN compares False with anything)"
    refused(hint, value.discretize, torch.tensor([-0.5, bad]))

@pytest.mark.parametrize("n_bins", P.N_BINS)
def test_value_loss_is_the_cross_entropy(n_bins):
    logits = some_logits(2, 6, n_bins)
    R = some_returns(2, 6)
    bins = np.abs(R.numpy()[..., None] - grid(n_bins)).argmin(-1)
    p = np.take_along_axis(softmax(logits), bins[..., None], -1)
    hint = "-log p(the return's bin), averaged over all steps, whatever axes stand before the bins"
    close(value.value_loss(logits, R), -np.log(p).mean(), hint)

def test_value_loss_is_smallest_at_the_distribution_of_returns():
    n_bins = P.N_BINS[1]
    drawn = np.random.default_rng(P.SEED).integers(0, n_bins, 400)
    R = torch.as_tensor(grid(n_bins)[drawn], dtype=torch.float32)
    frequency = np.bincount(drawn, minlength=n_bins) / len(R)
    frequency = torch.as_tensor(frequency + 1e-9, dtype=torch.float32)
    logits = torch.log(frequency).requires_grad_()
    value.value_loss(logits.expand(len(R), n_bins), R).backward()
    hint = "cross-entropy has its minimum where p is how often each bin occurs; with a squared"
    hint += " error, or with softmax taken twice, it lies elsewhere"
    close(logits.grad, np.zeros(n_bins), hint, 1e-4)

@pytest.mark.parametrize("n_bins", P.N_BINS)
def test_expected_value_is_the_mean_over_bins(n_bins):
    logits = some_logits(3, 4, n_bins)
    expected = softmax(logits) @ grid(n_bins)
    close(value.expected_value(logits), expected, "Σ_b p(b) v(b): logits are not yet p")

@pytest.mark.parametrize("n_bins", P.N_BINS)
def test_bins_and_expectation_share_one_grid(n_bins):
    certain = 100 * torch.eye(n_bins)  # all mass on one bin
    hint = "bin b stands for the value v(b), the same one that targets are rounded to, else V is"
    close(value.expected_value(certain), grid(n_bins), f"{hint} off by half a bin everywhere")
