"""The noise axis: marginals, conversions, and the mixture that other tests measure samplers against."""

from collections.abc import Callable

import pytest
import torch
from oracle import GaussianMixture
from torch import Tensor

from hf_genzoo.diffusion import (
    QUANTITIES,
    convert,
    flow_marginal,
    log_snr,
    sub_vp_marginal,
    ve_marginal,
    vp_marginal,
)

PATHS: dict[str, Callable[[Tensor], tuple[Tensor, Tensor]]] = {
    "vp": vp_marginal,
    "sub-vp": sub_vp_marginal,
    "ve": ve_marginal,
    "flow": flow_marginal,
}


@pytest.fixture
def g() -> torch.Generator:
    return torch.Generator().manual_seed(0)


@pytest.mark.parametrize("path", PATHS)
def test_noise_grows_along_every_path(path: str) -> None:
    t = torch.linspace(1e-5, 1 - 1e-5, 500, dtype=torch.float64)
    assert (log_snr(*PATHS[path](t)).diff() < 0).all()


def test_marginals_solve_the_equations_of_their_sdes() -> None:
    """d ln a / dt = f and d s^2 / dt = 2 f s^2 + g^2, with f and g of Song et al. 2021, eqs. 11, 28 and 9."""
    t = torch.linspace(0.05, 0.95, 19, dtype=torch.float64, requires_grad=True)
    beta = 0.1 + 19.9 * t
    integral = 0.1 * t + 0.5 * 19.9 * t**2
    cases = {
        "vp": (-beta / 2, beta),
        "sub-vp": (-beta / 2, beta * (1 - torch.exp(-2 * integral))),
        "ve": (torch.zeros_like(t), None),
    }
    for path, (f, g2) in cases.items():
        a, s = PATHS[path](t)
        if path == "ve":
            assert (a == 1).all()
        else:
            torch.testing.assert_close(torch.autograd.grad(a.log().sum(), t, retain_graph=True)[0], f)
        (slope,) = torch.autograd.grad((s**2).sum(), t, retain_graph=True)
        if g2 is None:  # eq. 30: g = sigma sqrt(2 ln(sigma_max / sigma_min))
            g2 = 2 * s**2 * torch.log(torch.tensor(5000.0, dtype=torch.float64))
        torch.testing.assert_close(slope, 2 * f * s**2 + g2)


@pytest.mark.parametrize("path", PATHS)
@pytest.mark.parametrize("source", QUANTITIES)
def test_quantities_turn_into_one_another(path: str, source: str, g: torch.Generator) -> None:
    x_0, eps = (torch.randn(6, 3, dtype=torch.float64, generator=g) for _ in range(2))
    a, s = (v[:, None] for v in PATHS[path](torch.linspace(0.1, 0.9, 6, dtype=torch.float64)))
    x_t = a * x_0 + s * eps
    truth = {"epsilon": eps, "sample": x_0, "v_prediction": a * eps - s * x_0, "score": -eps / s, "flow": eps - x_0}
    for target in QUANTITIES:
        torch.testing.assert_close(convert(truth[source], x_t, a, s, source, target), truth[target])
    with pytest.raises(ValueError, match="unknown quantity 'noise'"):
        convert(eps, x_t, a, s, "noise", source)


@pytest.mark.parametrize("path", PATHS)
def test_mixture_is_exact(path: str, g: torch.Generator) -> None:
    """Score against the gradient of the density; denoiser and variance against importance-weighted data."""
    mixture = GaussianMixture.ring()
    a, s = (v.item() for v in PATHS[path](torch.tensor(0.3, dtype=torch.float64)))
    x_0 = mixture.sample(200_000, g)
    x_t = a * x_0[:8] + s * torch.randn(8, 2, dtype=torch.float64, generator=g)
    x_t.requires_grad_()
    (gradient,) = torch.autograd.grad(mixture.log_density(x_t, a, s).sum(), x_t)
    x_t = x_t.detach()
    torch.testing.assert_close(mixture.score(x_t, a, s), gradient)
    share = (-0.5 * (x_t[:, None] - a * x_0).square().sum(-1) / s**2).softmax(1)
    mean = share @ x_0
    variance = share @ x_0**2 - mean**2
    enough = 1.0 / share.square().sum(1) > 100  # effective number of samples
    assert enough.any()
    close = {"atol": 0.05, "rtol": 0.0}
    torch.testing.assert_close(mixture.denoised(x_t, a, s)[enough], mean[enough], **close)
    torch.testing.assert_close(mixture.posterior_variance(x_t, a, s)[enough], variance[enough], **close)


def test_straight_paths_in_noise_coordinates_are_one_update(g: torch.Generator) -> None:
    """DDIM without noise, Euler on the flow, and Euler on d(x/a) = eps d(s/a) are the same step."""
    mixture = GaussianMixture.ring()
    x_0, noise = mixture.sample(16, g), torch.randn(16, 2, dtype=torch.float64, generator=g)
    t, r = torch.tensor([0.6, 0.35], dtype=torch.float64)
    (a, s), (a_r, s_r) = flow_marginal(t), flow_marginal(r)
    x_t = a * x_0 + s * noise
    eps = mixture.epsilon(x_t, a, s)
    ddim = a_r * convert(eps, x_t, a, s, "epsilon", "sample") + s_r * eps
    euler = x_t + (r - t) * convert(eps, x_t, a, s, "epsilon", "flow")
    scaled = a_r * (x_t / a + (s_r / a_r - s / a) * eps)
    torch.testing.assert_close(ddim, euler)
    torch.testing.assert_close(ddim, scaled)
