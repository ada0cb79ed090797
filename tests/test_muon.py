"""Muon against its equation, singular values and PyTorch's own."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn
from torch.optim import AdamW

from vaelab.training.muon import Muon, orthogonalized


def _scalar(value: Tensor) -> Tensor:
    """What the iterations make of one singular value."""
    for _ in range(5):
        value = 3.4445 * value - 4.7750 * value**3 + 2.0315 * value**5
    return value


@pytest.mark.parametrize("shape", [(5, 40), (40, 5), (7, 7), (1, 9)])
def test_singular_values_are_moved_to_about_one_and_vectors_stay(shape: tuple[int, int]) -> None:
    x = torch.randn(shape, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    u, s, v = torch.linalg.svd(x, full_matrices=False)
    expected = u @ torch.diag(_scalar(s / s.norm())) @ v
    torch.testing.assert_close(orthogonalized(x), expected, rtol=1e-6, atol=1e-6)
    torch.testing.assert_close(
        orthogonalized(1e-6 * x.float()), expected.float(), rtol=0.05, atol=0.05
    )


def test_a_hundredth_of_the_norm_is_enough() -> None:
    values = _scalar(torch.linspace(0.01, 1, 10_000, dtype=torch.float64))
    assert 0.67 < float(values.min())
    assert float(values.max()) < 1.21


def test_a_matrix_without_rank_keeps_finite_and_zero_stays_zero() -> None:
    torch.manual_seed(0)
    thin = torch.randn(30, 2) @ torch.randn(2, 50)
    values = torch.linalg.svdvals(orthogonalized(thin))
    assert float(values[:2].min()) > 0.6
    assert float(values[2:].max()) < 1e-3
    assert torch.equal(orthogonalized(torch.zeros(3, 4)), torch.zeros(3, 4))


def test_one_step_is_the_equation() -> None:
    torch.manual_seed(0)
    kernel, bias = nn.Parameter(torch.randn(6, 3, 2, 2)), nn.Parameter(torch.randn(6))
    start, other = kernel.detach().clone(), nn.Parameter(bias.detach().clone())
    muon = Muon([kernel, bias], lr=0.1, weight_decay=0.2, momentum=0.9)
    adamw = AdamW([other], lr=0.1, weight_decay=0.2)
    mean = torch.zeros(6, 12)
    for _ in range(2):
        kernel.grad, bias.grad = torch.randn_like(kernel), torch.randn_like(bias)
        other.grad = bias.grad.clone()
        gradient = kernel.grad.flatten(1)
        mean = 0.9 * mean + gradient
        update = orthogonalized(gradient + 0.9 * mean).view_as(start)
        start = start * (1 - 0.1 * 0.2) - 0.1 * 0.2 * 12**0.5 * update
        muon.step()
        adamw.step()
    torch.testing.assert_close(kernel.detach(), start)
    assert torch.equal(bias, other)


@pytest.mark.parametrize("shape", [(1, 1, 1), (1, 5), (5, 1, 1), (4,), ()])
def test_what_is_no_matrix_moves_as_by_adamw(shape: tuple[int, ...]) -> None:
    """Such as σ of an image, of shape (1, 1, 1), which a matrix's step would let crawl."""
    ours, theirs = nn.Parameter(torch.ones(shape)), nn.Parameter(torch.ones(shape))
    one, other = Muon([ours], lr=0.1), AdamW([theirs], lr=0.1, weight_decay=0.0)
    for _ in range(3):
        ours.grad = torch.randn(shape)
        theirs.grad = ours.grad.clone()
        one.step()
        other.step()
    assert torch.equal(ours, theirs)


def test_a_parameter_without_gradient_stays_and_gradients_are_kept() -> None:
    one, two = nn.Parameter(torch.ones(2, 2)), nn.Parameter(torch.ones(2, 2))
    one.grad = torch.ones(2, 2)
    Muon([one, two], lr=0.1).step()
    assert torch.equal(two, torch.ones(2, 2))
    assert not torch.equal(one, torch.ones(2, 2))
    assert torch.equal(one.grad, torch.ones(2, 2))


def test_it_agrees_with_pytorch_but_for_its_precision() -> None:
    """PyTorch's takes matrices alone and iterates in bfloat16."""
    torch.manual_seed(0)
    ours = nn.Parameter(torch.randn(8, 20))
    theirs = nn.Parameter(ours.detach().clone())
    gradient = torch.randn(8, 20)
    start = ours.detach().clone()
    one = Muon([ours], lr=1.0)
    other = torch.optim.Muon([theirs], lr=1.0, weight_decay=0.0, adjust_lr_fn="match_rms_adamw")
    ours.grad = theirs.grad = gradient
    one.step()
    other.step()
    moved, expected = (start - ours).detach(), (start - theirs).detach()
    cosine = torch.nn.functional.cosine_similarity(moved.flatten(), expected.flatten(), 0)
    assert float(cosine) > 0.999
    assert float(moved.norm() / expected.norm()) == pytest.approx(1, abs=0.02)
