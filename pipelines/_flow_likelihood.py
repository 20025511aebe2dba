"""The density that a flow gives its samples. A part of pipelines' files (see `hf_genzoo.hub.inline`).

Papers
- Chen et al. 2018, "Neural Ordinary Differential Equations": the instantaneous change of variables.
- Grathwohl et al. 2019, "FFJORD": the trace by a random probe, one for the whole trajectory.
- Hutchinson 1990 and Skilling 1989: the probe.
"""

import math
from collections.abc import Callable

import torch
from torch import Tensor

from hf_genzoo.pipelines._ode import Velocity, solve_adaptive

TRACES = ("exact", "rademacher", "gaussian")


def flow_log_density(
    velocity: Velocity,
    x: Tensor,
    start: float,
    end: float,
    prior_std: float,
    trace: str,
    generator: torch.Generator | None = None,
    rtol: float = 1e-5,
    atol: float = 1e-5,
    progress: Callable[[float], None] = lambda share: None,
) -> tuple[Tensor, Tensor, int]:
    """ln p(x) = ln N(x(end); 0, prior_std^2 I) + the integral of div velocity from start to end.

    Song et al. 2021, eq. 39. With a random probe v the divergence is v' J v, whose mean is the trace of J; a
    trajectory keeps its probe, so that the integral is of one smooth function.

    Args:
        velocity: dx/dt of the flow; differentiable in x.
        x: (B, ...) float64 states at `start`.
        start: Time of the data.
        end: Time of the prior.
        prior_std: Standard deviation of the prior.
        trace: "exact" (as many derivatives as dimensions), "rademacher" or "gaussian" (one derivative; unbiased).
        generator: Source of the probes.
        rtol: See `solve_adaptive`.
        atol: Likewise.
        progress: Likewise.

    Returns:
        (B,) nats, the states at `end`, and how many times `velocity` was evaluated.

    Raises:
        ValueError: If the trace is unknown.
    """
    if trace not in TRACES:
        raise ValueError(f"unknown trace {trace!r}; choose one of {', '.join(TRACES)}")
    probes = _probes(x, trace, generator)

    def joint(state: Tensor, t: Tensor) -> Tensor:
        with torch.enable_grad():
            at = state[:, :-1].view_as(x).detach().requires_grad_()
            slope = velocity(at, t)
            parts = [
                torch.autograd.grad(slope, at, probe, retain_graph=True)[0].mul(probe).flatten(1).sum(1)
                for probe in probes
            ]
        return torch.cat([slope.detach().flatten(1), sum(parts, torch.zeros_like(t))[:, None]], dim=1)

    begin = torch.cat([x.flatten(1), x.new_zeros(len(x), 1)], dim=1)
    state, evaluations = solve_adaptive(joint, begin, start, end, rtol, atol, progress)
    z = state[:, :-1]
    log_prior = -0.5 * (z / prior_std).square().sum(1) - z.shape[1] * (
        0.5 * math.log(2.0 * math.pi) + math.log(prior_std)
    )
    return log_prior + state[:, -1], z.view_as(x), evaluations


def _probes(x: Tensor, trace: str, generator: torch.Generator | None) -> list[Tensor]:
    """One random probe, or every unit vector, each (B, ...)."""
    if trace == "exact":
        units = torch.eye(x[0].numel(), dtype=x.dtype, device=x.device)
        return [unit.view_as(x[0]).expand_as(x) for unit in units]
    device = x.device if generator is None else generator.device
    if trace == "gaussian":
        return [torch.randn(x.shape, generator=generator, device=device, dtype=x.dtype).to(x.device)]
    bits = torch.randint(2, x.shape, generator=generator, device=device)
    return [(2 * bits - 1).to(x)]


def continuous_bound(
    noise: Callable[[Tensor, Tensor], Tensor],
    marginal: Callable[[Tensor], tuple[Tensor, Tensor]],
    times: Tensor,
    x_0: Tensor,
    prior_std: float,
    generator: torch.Generator | None = None,
) -> Tensor:
    """A lower bound on ln p(x_0) of the diffusion that ends in the prior, as an unbiased estimate.

    Kingma et al. 2021 ("Variational Diffusion Models"), eq. 11 to 17: with x_t = a x_0 + s eps and the log-SNR falling
    from l_0 at the first time to l_1 at the last, the bound is

        E ln N(x_0; x_t / a, (s / a)^2) at the first time - KL(q(x_t | x_0) || prior) at the last
        - (l_0 - l_1) / 2 E |eps - noise(x_t, t)|^2, with t such that the log-SNR is uniform.

    It bounds the likelihood of the random process, which for a score without error is that of the flow, too.

    Args:
        noise: The network's eps (B, ...) at x_t and times (B,).
        marginal: a and s at times.
        times: (K, B) times between the first and the last whose log-SNR is uniform, the first and last rows being the
            ends themselves.
        x_0: (B, ...) float64.
        prior_std: Standard deviation of the prior.
        generator: Source of eps.

    Returns:
        (B,) nats.
    """
    (a_0, s_0), (a_1, s_1) = marginal(times[0]), marginal(times[-1])
    dim = x_0[0].numel()
    device = x_0.device if generator is None else generator.device
    squares = torch.zeros_like(times[0])
    for t in times[1:-1]:
        eps = torch.randn(x_0.shape, generator=generator, device=device, dtype=x_0.dtype).to(x_0.device)
        a, s = (values.reshape(-1, *(1,) * (x_0.ndim - 1)) for values in marginal(t))
        squares += (noise(a * x_0 + s * eps, t) - eps).square().flatten(1).sum(1)
    weight = torch.log(a_0 / s_0) - torch.log(a_1 / s_1)  # half of l_0 - l_1
    reconstruction = -0.5 * dim * (math.log(2.0 * math.pi) + 1.0 + 2.0 * torch.log(s_0 / a_0))
    variance = (s_1 / prior_std) ** 2
    distance = (a_1 / prior_std) ** 2 * x_0.flatten(1).square().sum(1)
    divergence = 0.5 * (distance + dim * (variance - 1.0 - variance.log()))
    return reconstruction - divergence - weight * squares / (len(times) - 2)
