"""Does a generator copy its training data? Distances to the nearest training sample against those of held-out data.

Papers
- Meehan, Chaudhuri & Dasgupta 2020, "A Non-Parametric Test to Detect Data-Copying in Generative Models": held-out data
  as the yardstick.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike

from hf_genzoo.evaluation.distances import Array, as_features, squared_distances


@dataclass(frozen=True)
class CopyReport:
    """How near generated samples are to training data.

    Attributes:
        nearest_ratio: Median distance of a generated sample to its nearest training sample, over that of held-out
            samples: 1 for fresh samples of the data's law, 0 for copies, above 1 for samples off the data.
        p_value: Probability that generated samples are as near to the training data as this, if they were no nearer
            than held-out samples are (Mann-Whitney's rank test).
        num_copies: Generated samples nearer to a training sample than any held-out sample is.
    """

    nearest_ratio: float
    p_value: float
    num_copies: int

    @property
    def copies(self) -> bool:
        """Whether copying is shown at the 1 % level."""
        return self.p_value < 0.01

    def __str__(self) -> str:
        answer = "yes" if self.copies else "not shown"
        ratio = f"nearest-training ratio {self.nearest_ratio:.2f}"
        return f"copies its training data: {answer}, {ratio}, p = {self.p_value:.2g}"


def copy_report(train: ArrayLike, held_out: ArrayLike, fake: ArrayLike) -> CopyReport:
    """Compare generated features (M, D) with the training features (N, D) they may have been copied from.

    Args:
        train: What the generator was trained on.
        held_out: Real samples it never saw.
        fake: What it generated.
    """
    from scipy.stats import mannwhitneyu

    real = as_features(train, "training features")
    fresh = _nearest(as_features(held_out, "held-out features"), real)
    drawn = _nearest(as_features(fake, "generated features"), real)
    p_value = float(mannwhitneyu(drawn, fresh, alternative="less").pvalue)
    return CopyReport(float(np.median(drawn) / np.median(fresh)), p_value, int((drawn < fresh.min()).sum()))


def _nearest(points: Array, among: Array) -> Array:
    chunk = max(1, 20_000_000 // len(among))  # 160 MB of distances at once
    parts = [squared_distances(points[i : i + chunk], among).min(axis=1) for i in range(0, len(points), chunk)]
    return np.sqrt(np.concatenate(parts))
