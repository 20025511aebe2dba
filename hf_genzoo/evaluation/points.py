"""Measures of points in the plane whose law is known: these need no feature network and outrank those that do.

Papers
- Lin et al. 2018, "PacGAN: The power of two samples in generative adversarial networks", section 4.1: modes covered,
  high-quality share, reverse KL.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike

from hf_genzoo.data.points import Gaussians2D
from hf_genzoo.evaluation.distances import as_features, class_balance


@dataclass(frozen=True)
class ModeReport:
    """How samples spread over the modes of a mixture.

    Attributes:
        modes: Modes with at least one high-quality sample.
        high_quality: Share of samples within three standard deviations of a mode.
        reverse_kl: KL of the high-quality samples' mode histogram to the uniform law, in nats.
        reverse_kl_floor: What as many samples of the true law score on average, (K - 1) / (2 N).
    """

    modes: int
    high_quality: float
    reverse_kl: float
    reverse_kl_floor: float


def mode_report(points: ArrayLike, law: Gaussians2D) -> ModeReport:
    """Count the modes that points (N, 2) cover (Lin et al. 2018, section 4.1; the paper draws 2,500).

    Raises:
        ValueError: if the law has no modes, or points are not finite.
    """
    sampled = as_features(points, "points", at_least=1)
    if law.modes is None:
        raise ValueError(f"{law.config!r} has no modes; ring and grid have")
    nearest, good = law.nearest_mode(sampled)
    if not good.any():
        return ModeReport(0, 0.0, float(np.log(len(law.modes))), 0.0)
    reverse_kl, floor = class_balance(nearest[good], len(law.modes))
    return ModeReport(len(np.unique(nearest[good])), float(good.mean()), reverse_kl, floor)


def wasserstein(a: ArrayLike, b: ArrayLike, order: int = 1) -> float:
    """The exact Wasserstein distance W_1 or W_2 between two equally large sets of points (N, D).

    It is the cost of the best assignment, to the power 1/order: cubic in N, some seconds at 2,000 points.

    Raises:
        ValueError: if the sets differ in size, or the order is not 1 or 2.
    """
    from scipy.optimize import linear_sum_assignment
    from scipy.spatial.distance import cdist

    x, y = as_features(a, "first points", 1), as_features(b, "second points", 1)
    if len(x) != len(y):
        raise ValueError(f"{len(x)} points against {len(y)}: an assignment needs equally many")
    if order not in (1, 2):
        raise ValueError(f"order {order} is not 1 or 2")
    cost = cdist(x, y, "euclidean" if order == 1 else "sqeuclidean")
    return float(cost[linear_sum_assignment(cost)].mean() ** (1 / order))


def negative_log_likelihood(points: ArrayLike, law: Gaussians2D) -> float:
    """Mean of -log p(x) in nats of points (N, 2) under the true density: low for points where data is dense.

    The true law's own points score its entropy; less means that samples huddle at the modes.

    Raises:
        ValueError: if the density has no closed form.
    """
    return float(-law.log_density(as_features(points, "points", at_least=1)).mean())
