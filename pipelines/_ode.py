"""Ordinary differential equations of whole batches. A part of pipelines' files (see `hf_genzoo.hub.inline`).

Papers
- Dormand & Prince 1980, "A family of embedded Runge-Kutta formulae": the pair of orders 5 and 4 (RK45 of scipy).
- Hairer, Norsett & Wanner, "Solving Ordinary Differential Equations I", section II.4: control of the step size.

What differs and why: every sample has its own time and step size, so that its solution does not depend on what else is
in the batch, as it would if one step size served all.
"""

from collections.abc import Callable

import torch
from torch import Tensor

Velocity = Callable[[Tensor, Tensor], Tensor]
"""dx/dt, (B, ...), at states x (B, ...) and times t (B,)."""

_NODES = (0.0, 1 / 5, 3 / 10, 4 / 5, 8 / 9, 1.0, 1.0)
_STAGES = (
    (),
    (1 / 5,),
    (3 / 40, 9 / 40),
    (44 / 45, -56 / 15, 32 / 9),
    (19372 / 6561, -25360 / 2187, 64448 / 6561, -212 / 729),
    (9017 / 3168, -355 / 33, 46732 / 5247, 49 / 176, -5103 / 18656),
    (35 / 384, 0.0, 500 / 1113, 125 / 192, -2187 / 6784, 11 / 84),  # also the solution of order 5
)
_ERROR = (71 / 57600, 0.0, -71 / 16695, 71 / 1920, -17253 / 339200, 22 / 525, -1 / 40)  # order 5 minus order 4
_LEAST_STEP = 1e-10  # of the whole interval


def solve_adaptive(
    velocity: Velocity,
    x: Tensor,
    start: float,
    end: float,
    rtol: float = 1e-5,
    atol: float = 1e-5,
    progress: Callable[[float], None] = lambda share: None,
) -> tuple[Tensor, int]:
    """x at `end` of dx/dt = velocity(x, t) from x at `start`, by steps whose error is estimated and bounded.

    Args:
        velocity: See `Velocity`.
        x: (B, ...) state at `start`, best in float64.
        start: First time.
        end: Last time, before or behind the first.
        rtol: Error allowed in a step, relative to the state; the root mean square over a sample's numbers counts.
        atol: Absolute error allowed in addition.
        progress: Told after every step what share of the interval the last sample has behind it.

    Returns:
        The state at `end`, and how many times `velocity` was evaluated.

    Raises:
        FloatingPointError: If no step is small enough, as where the velocity is not finite.
    """
    if not (rtol > 0 and atol > 0):
        raise ValueError(f"rtol {rtol} and atol {atol} must be above 0")
    span = end - start
    t = torch.full((len(x),), start, dtype=x.dtype, device=x.device)
    first = velocity(x, t)
    scale = atol + rtol * x.abs()
    step = (0.01 * _rms(x / scale) / _rms(first / scale).clamp(min=1e-10)).clamp(1e-6, 1.0)  # share of the interval
    done = torch.zeros_like(t)  # share of the interval behind us
    evaluations = 1
    while (left := 1.0 - done).max() > 0:
        h = torch.minimum(step, left)  # 0 for samples that have arrived: they stay where they are
        slopes = [first]
        for node, weights in zip(_NODES[1:], _STAGES[1:], strict=True):
            moved = x + _wide(span * h, x) * _combined(weights, slopes)
            slopes.append(velocity(moved, start + span * (done + node * h)))
        evaluations += len(_STAGES) - 1
        error = _wide(span * h, x) * _combined(_ERROR, slopes)
        error = _rms(error / (atol + rtol * torch.maximum(x.abs(), moved.abs())))
        accepted = error <= 1.0  # not so where it is not a number
        x = torch.where(_wide(accepted, x), moved, x)
        first = torch.where(_wide(accepted, x), slopes[-1], first)
        done = torch.where(accepted, torch.where(h >= left, 1.0, done + h), done)
        progress(done.min().item())
        factor = torch.nan_to_num(0.9 * error.clamp(min=1e-10) ** -0.2, nan=0.2).clamp(0.2, 10.0)
        step = torch.where(left > 0, h * torch.where(accepted, factor, factor.clamp(max=0.9)), step)
        if step.min() < _LEAST_STEP:
            where = start + span * done[step.argmin()].item()
            raise FloatingPointError(f"no step is small enough at time {where:.6g}: is the network's output finite?")
    return x, evaluations


def heun_step(velocity: Velocity, x: Tensor, t: Tensor, u: Tensor) -> Tensor:
    """x (B, ...) at time u from x at time t by Heun's method, of order 2: two evaluations of the velocity."""
    slope = velocity(x, t.expand(len(x)))
    ahead = velocity(x + (u - t) * slope, u.expand(len(x)))
    return x + 0.5 * (u - t) * (slope + ahead)


def _combined(weights: tuple[float, ...], slopes: list[Tensor]) -> Tensor:
    return torch.stack([w * slope for w, slope in zip(weights, slopes, strict=True) if w != 0.0]).sum(0)


def _wide(values: Tensor, x: Tensor) -> Tensor:
    """(B,) as (B, 1, ..., 1)."""
    return values.reshape(-1, *(1,) * (x.ndim - 1))


def _rms(x: Tensor) -> Tensor:
    """Root mean square of each sample, (B,)."""
    return x.flatten(1).square().mean(dim=1).sqrt()
