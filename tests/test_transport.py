"""The conditional flow that makes a latent independent of labels: inverse, density, probes."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from vaelab.evaluation.probes import probe, right
from vaelab.models.conditioning import Conditioning, Told
from vaelab.models.posteriors import DiagonalNormal
from vaelab.models.subspaces import SubspacePrior
from vaelab.models.transport import Transport


def transport(dim: int = 3, classes: int = 0, seed: int = 0) -> Transport:
    """Return one for an attribute, moved at random from where it starts."""
    names = tuple(str(k) for k in range(classes))
    known = Told(names, ("big",), torch.zeros(0, dtype=torch.int64), torch.zeros(0, 1))
    told = Conditioning(known, known.names, cut=True)
    prior = SubspacePrior(("big",), dim, 2, (0.0, 3.0), (1.0, 1.0))
    torch.manual_seed(seed)
    made = Transport(prior, told)
    for parameter in made.parameters():
        torch.nn.init.normal_(parameter, std=0.1)
    return made


def test_all_dimensions_of_a_latent_mix() -> None:
    """Every dimension of z depends on every one of h; rotations keep volume and length."""
    made = transport(6)
    h = torch.randn(6, requires_grad=True)
    jacobian = torch.autograd.functional.jacobian(
        lambda point: made(point[None], torch.ones(1, 1))[0][0], h
    )
    assert bool((torch.as_tensor(jacobian).abs() > 1e-4).all())
    square = made.turns @ made.turns.mT
    torch.testing.assert_close(square, torch.eye(6).expand_as(square), atol=1e-5, rtol=0)


@pytest.mark.parametrize("dim", [1, 2, 5])
def test_the_way_back_is_the_inverse(dim: int) -> None:
    made = transport(dim)
    h, u = torch.randn(50, dim), torch.rand(50, 1) * 2 - 1
    with torch.no_grad():
        z, _ = made(h, u)
        torch.testing.assert_close(made.inverse(z, u), h, atol=1e-4, rtol=1e-4)
        assert (z - made(h, -u)[0]).abs().mean() > 0.01  # another label, another map


def test_the_determinant_is_that_of_the_jacobian() -> None:
    made = transport(3)
    h, u = torch.randn(4, 3), torch.tensor([[1.0], [-1.0], [0.3], [1.0]])
    _, log_det = made(h, u)
    for row in range(4):
        matrix = torch.autograd.functional.jacobian(
            lambda point, row=row: made(point[None], u[row : row + 1])[0][0], h[row]
        )
        expected = torch.linalg.slogdet(torch.as_tensor(matrix)).logabsdet
        torch.testing.assert_close(log_det[row], expected)


def test_the_density_that_it_gives_integrates_to_one() -> None:
    made = transport(1)
    at = torch.linspace(-60, 60, 40_001)[:, None]
    codes = torch.cat([at, torch.zeros(len(at), 2)], 1)
    context = torch.tensor([[1.0, 1.0]]).expand(len(at), -1)
    with torch.no_grad():
        z, log_det = made.do(codes, context[:, :1])
        density = (log_det - 0.5 * z[:, 0] ** 2).exp() / math.sqrt(2 * math.pi)
    assert torch.trapezoid(density, at[:, 0]).item() == pytest.approx(1, abs=1e-3)


def test_a_code_comes_back_by_the_side_that_w_speaks_for() -> None:
    made = transport(2, classes=3)
    assert made.prior.sides(torch.tensor([[0.0, 0.0], [3.0, 3.0]]))[:, 0].tolist() == pytest.approx(
        [-1, 1]  # log p(w|1)/p(w|0) = ± (3² + 3²) / 2 at the means
    )
    between = made.prior.sides(torch.tensor([[1.6, 1.5]]))  # 3 (w₀ − 1.5) + 3 (w₁ − 1.5)
    assert between.item() == pytest.approx(math.tanh(0.3))
    h = torch.randn(6, 2)
    w = torch.tensor([[0.0, 0.0], [3.0, 3.0]]).repeat(3, 1)
    label = torch.eye(3).repeat_interleave(2, 0)
    side = made.prior.sides(w)
    context = torch.cat([label, side, torch.ones(6, 1)], 1)
    with torch.no_grad():
        apart = torch.cat([h, 0 * w], 1)  # w is at the mean of its prior
        codes = made.carry(DiagonalNormal(apart, torch.ones(6, 4)), context).mean
        torch.testing.assert_close(codes[:, 2:], w)
        back = made.bring_back(codes, context)
        torch.testing.assert_close(back, torch.cat([h, w], 1), atol=1e-4, rtol=1e-4)
        many = made.bring_back(codes.expand(4, 6, 4), context)
        torch.testing.assert_close(many[3], back)
        other = made.bring_back(codes, context.roll(2, 0))[:, :2]  # of another class
    assert (other - h).abs().max() > 0.05


def test_what_it_carries_tells_no_probe_of_the_label() -> None:
    """Codes of two labels: a bent band, and two clouds; a probe reads 100 % of one in the other."""

    def codes(n: int, seed: int) -> tuple[Tensor, Tensor]:
        generator = torch.Generator().manual_seed(seed)
        on = torch.arange(n) % 2 == 1
        noise = torch.randn(n, 2, generator=generator)
        bent = torch.stack([noise[:, 0], noise[:, 0] ** 2 + 0.3 * noise[:, 1] - 1], 1)
        cloud = 0.5 * noise + torch.tensor([2.0, -2.0])
        return torch.where(on[:, None], bent, cloud), on

    made = transport(2)
    for parameter in made.parameters():
        torch.nn.init.normal_(parameter, std=0.05)
    (h, on), (there, truth) = codes(8_000, 0), codes(4_000, 1)

    def labels(sides: Tensor) -> Tensor:
        return 2.0 * sides[:, None].float() - 1

    optimizer = torch.optim.Adam(made.parameters(), 3e-3)
    for step in range(1_000):
        optimizer.param_groups[0]["lr"] = 3e-3 * (1 - step / 1_000)
        rows = torch.randint(len(h), (256,))
        carried, log_det = made(h[rows], labels(on[rows]))
        optimizer.zero_grad()
        (0.5 * carried.square().sum(1) - log_det).mean().backward()
        optimizer.step()
    with torch.no_grad():
        z = made(h, labels(on))[0]
        here = made(there, labels(truth))[0]
    before = right(probe(h, on, "mlp"), there, truth).mean()
    after = right(probe(z, on, "mlp"), here, truth).mean()
    assert before > 0.95
    assert after < 0.54
    assert here.std(0).tolist() == pytest.approx([1, 1], abs=0.1)


def test_the_posterior_it_carries_is_a_density_with_its_own_draws() -> None:
    made = transport(2)
    base = DiagonalNormal(torch.tensor([[0.3, -0.5, 0.0, 0.2]]), torch.tensor([[0.5, 0.3, 1, 0.1]]))
    posterior = made.carry(base, torch.tensor([[1.0, 1.0]]))
    with torch.no_grad():
        drawn = posterior.sample((20_000,))
        own = posterior.log_prob(drawn)
        torch.testing.assert_close(posterior.log_prob(drawn.clone()), own, atol=1e-3, rtol=1e-3)
        deviation = drawn.std(0)
        torch.testing.assert_close(posterior.stddev, deviation, atol=0.05, rtol=0.1)
        # E_q[r(z)/q(z)] = ∫ r = 1 for any density r: here a normal within the posterior's reach
        other = DiagonalNormal(drawn.mean(0), 0.7 * deviation)
        assert (other.log_prob(drawn) - own).exp().mean().item() == pytest.approx(1, abs=0.05)  # type: ignore[no-untyped-call]
