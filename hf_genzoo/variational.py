"""Training by the variational bound: one term of it at a random noise level, and the levels that need it most.

The bound itself is in the part that pipelines share, `hf_genzoo.pipelines._variational`.

Paper: Nichol & Dhariwal 2021, "Improved Denoising Diffusion Probabilistic Models".
"""

from typing import Any

import torch
from torch import Tensor

from hf_genzoo.pipelines._variational import Chain, bound_term, log_variance, predicted_x_0


def interval_width(chain: Chain) -> Tensor:
    """ln beta - ln btilde, (T,) float64: how far the logarithm of the reverse variance moves for two units of v.

    It falls from about 1 at the weakest noise to 1e-6 at the strongest, and with its square the gradient of L_t: the
    bound hardly tells good from bad v at most levels. Chains over few levels, whose own intervals are wide, need it
    there. The mean's part of L_t is cut off in the hybrid loss, so that the best v of one level does not depend on how
    much the others weigh: `scale_gradient` by the inverse square teaches v alike at all of them.
    """
    return chain.beta.log() - chain.log_btilde


def scale_gradient(x: Tensor, factor: Tensor) -> Tensor:
    """x itself, (B, ...), whose gradient is multiplied by `factor`, which broadcasts against it."""
    return torch.lerp(x.detach(), x, factor)


def variational_term(
    output: Tensor,
    v: Tensor,
    x_0: Tensor,
    x_t: Tensor,
    t: Tensor,
    chain: Chain,
    prediction_type: str,
    clip: float | None = None,
) -> Tensor:
    """L_t of the bound with a learned variance (Nichol & Dhariwal 2021, eqs. 5 to 7), in bits per dimension.

    The bound is the sum over all T levels (plus a constant), so that T L_t estimates it at a uniform t. For the hybrid
    loss pass `output.detach()`: the bound then teaches the variance and leaves the mean alone (section 3.1).

    Args:
        output: (B, ...) what the network predicts of the mean.
        v: (B, ...) what it says about the variance.
        x_0: (B, ...) 8-bit data in [-1, 1].
        x_t: (B, ...) noised data.
        t: (B,) int64 noise levels.
        chain: All T noise levels.
        prediction_type: What `output` is.
        clip: Where the predicted x_0 is cut, as in sampling. A cut lets no gradient through: for the hybrid loss only.

    Returns:
        (B,) float64: at strong noise both variances are the same but for the last digits of single precision.
    """
    output, v, x_0, x_t = (tensor.double() for tensor in (output, v, x_0, x_t))
    x_0_hat = predicted_x_0(output, x_t, chain, t, prediction_type)
    x_0_hat = x_0_hat if clip is None else x_0_hat.clamp(-clip, clip)
    return bound_term(x_0, x_t, x_0_hat, log_variance("learned", v, chain, t, x_t), chain, t)


class ImportanceSampler:
    """Noise levels drawn in proportion to the root of their mean squared loss (Nichol & Dhariwal 2021, eq. 14).

    The ten last losses of each level are kept; until every level has ten, levels are drawn uniformly. All processes
    keep the losses of all. A small share is drawn uniformly for ever, so that no level is forgotten.

    Args:
        num_train_timesteps: T.
        history: Losses kept of each level.
        uniform_share: Share that is drawn uniformly.
    """

    def __init__(self, num_train_timesteps: int, history: int = 10, uniform_share: float = 1e-3) -> None:
        self.uniform_share = uniform_share
        self.losses = torch.zeros(num_train_timesteps, history, dtype=torch.float64)
        self.seen = torch.zeros(num_train_timesteps, dtype=torch.int64)

    @property
    def warm(self) -> bool:
        """Whether every level has its losses."""
        return bool((self.seen >= self.losses.shape[1]).all())

    def probabilities(self) -> Tensor:
        """p_t, (T,) float64."""
        uniform = torch.full_like(self.losses[:, 0], 1.0 / len(self.losses))
        root = self.losses.square().mean(1).sqrt()
        if not self.warm or root.sum() == 0:
            return uniform
        return (1.0 - self.uniform_share) * root / root.sum() + self.uniform_share * uniform

    def draw(self, count: int, device: torch.device | str = "cpu") -> tuple[Tensor, Tensor]:
        """Levels (B,) int64 and the weights 1 / (T p_t) (B,) that make a weighted mean of losses unbiased."""
        p = self.probabilities()
        t = torch.multinomial(p, count, replacement=True)
        return t.to(device), (1.0 / (len(p) * p[t])).float().to(device)

    def update(self, t: Tensor, losses: Tensor) -> None:
        """Remember the losses (B,) of levels t (B,), here and on every other process, which must call it too."""
        pairs = torch.stack([t.double(), losses.detach().double()])
        if torch.distributed.is_initialized():
            gathered = [torch.empty_like(pairs) for _ in range(torch.distributed.get_world_size())]
            torch.distributed.all_gather(gathered, pairs)
            pairs = torch.cat(gathered, dim=1)
        for level, loss in zip(pairs[0].long().tolist(), pairs[1].tolist(), strict=True):
            self.losses[level, self.seen[level] % self.losses.shape[1]] = loss  # the oldest makes room
            self.seen[level] += 1

    def state_dict(self) -> dict[str, Any]:
        """What it has seen."""
        return {"losses": self.losses, "seen": self.seen}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on from there."""
        self.losses, self.seen = state["losses"], state["seen"]
