"""A score without training error: a Gaussian mixture's own, in the place of a network."""

import math
from typing import Any

import torch
from diffusers.configuration_utils import ConfigMixin, register_to_config
from diffusers.models.modeling_utils import ModelMixin
from diffusers.models.unets.unet_2d import UNet2DOutput
from torch import Tensor, nn

from hf_genzoo.pipelines.score_sde import ScoreSdePipeline
from hf_genzoo.schedulers.score_sde import ScoreSdeScheduler


class OfMixture(ModelMixin, ConfigMixin):
    """What a perfect network knows of x_t: a `tests/oracle.py` mixture and a scheduler are set after it is made."""

    mixture: Any
    scheduler: Any

    def noisy(self, sample: Tensor, timestep: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """x_t (B, D), a and s (B, 1), from what networks are given."""
        config = self.scheduler.config
        t = timestep / 999.0
        if config["sde"] == "ve":
            t = (timestep - math.log(config["sigma_min"])) / math.log(config["sigma_max"] / config["sigma_min"])
        a, s = (values[:, None] for values in self.scheduler.marginal(t))
        return sample.flatten(1) * (a**2 + s**2).sqrt(), a, s


class ExactNoise(OfMixture):
    """E[eps | x_t], or the velocity that goes with it; of points where there is a `dim`, else of square pictures."""

    @register_to_config
    def __init__(self, dim: int | None = None, in_channels: int | None = None, sample_size: int | None = None):
        super().__init__()
        self.unit = nn.Parameter(torch.zeros(1, dtype=torch.float64))  # says which type it computes in

    def forward(self, sample: Tensor, timestep: Tensor) -> UNet2DOutput:
        x, a, s = self.noisy(sample, timestep)
        found = self.mixture.epsilon(x, a, s)
        if self.scheduler.config["prediction_type"] == "v_prediction":
            size = (a**2 + s**2).sqrt()
            found = (found - s / size * sample.flatten(1)) / (a / size)
        return UNet2DOutput(sample=found.view_as(sample))


class ExactClassifier(OfMixture):
    """ln p(component | x_t)."""

    @register_to_config
    def __init__(self, num_classes: int):
        super().__init__()
        self.unit = nn.Parameter(torch.zeros(1, dtype=torch.float64))

    def forward(self, sample: Tensor, timestep: Tensor) -> Tensor:
        return self.mixture._log_joint(*self.noisy(sample, timestep))[0]


def exact_pipeline(
    mixture: Any, shape: tuple[int, int] | None = None, classes: bool = False, **config: Any
) -> ScoreSdePipeline:
    """A pipeline whose score is the mixture's.

    Args:
        mixture: A `GaussianMixture`.
        shape: Channels and side of pictures; None for points.
        classes: Whether the mixture's components can be asked for.
        config: Of the scheduler.
    """
    scheduler = ScoreSdeScheduler(**config)
    net = ExactNoise(dim=mixture.dim) if shape is None else ExactNoise(in_channels=shape[0], sample_size=shape[1])
    classifier = ExactClassifier(len(mixture.means)) if classes else None
    for part in (net, classifier):
        if part is not None:
            part.mixture, part.scheduler = mixture, scheduler
    pipeline = ScoreSdePipeline(score_net=net, scheduler=scheduler, classifier=classifier)
    pipeline.set_progress_bar_config(disable=True)
    return pipeline
