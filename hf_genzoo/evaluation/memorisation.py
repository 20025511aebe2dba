"""Does a generator copy its training data? Distances to the nearest training sample against those of held-out data.

Papers
- Meehan, Chaudhuri & Dasgupta 2020, "A Non-Parametric Test to Detect Data-Copying in Generative Models": held-out data
  as the yardstick.

What differs from the paper and why: the test looks at the nearest samples only, not at the ranks of all. A generator
that copies one sample in ten moves the ranks little; one whose samples are smoother than data, and so nearer to
everything, moves them all and copies nothing.
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
        num_copies: Generated samples nearer to a training sample than any held-out sample is.
        num_samples: Generated samples.
        p_value: Probability of as many copies, if generated samples were drawn as held-out ones are.
    """

    nearest_ratio: float
    num_copies: int
    num_samples: int
    p_value: float

    @property
    def copies(self) -> bool:
        """Whether copying is shown at the 1 % level."""
        return self.p_value < 0.01

    def __str__(self) -> str:
        answer = "yes" if self.copies else "not shown"
        nearer = f"{self.num_copies} of {self.num_samples} samples are nearer to it than any held-out sample"
        return f"copies its training data: {answer}, {nearer}, p = {self.p_value:.2g}"


def copy_report(train: ArrayLike, held_out: ArrayLike, fake: ArrayLike) -> CopyReport:
    """Compare generated features (M, D) with the training features (N, D) they may have been copied from.

    Were the M generated and the n held-out samples of one law, every order of their distances would be as likely as
    every other, and the k least would all be generated ones with probability
    M (M - 1) ... (M - k + 1) / ((M + n) (M + n - 1) ... (M + n - k + 1)).

    Args:
        train: What the generator was trained on.
        held_out: Real samples it never saw.
        fake: What it generated.
    """
    real = as_features(train, "training features")
    fresh = _nearest(as_features(held_out, "held-out features"), real)
    drawn = _nearest(as_features(fake, "generated features"), real)
    count = int((drawn < fresh.min()).sum())
    steps = np.arange(count)
    log_p = np.log(len(drawn) - steps).sum() - np.log(len(drawn) + len(fresh) - steps).sum()
    return CopyReport(float(np.median(drawn) / np.median(fresh)), count, len(drawn), float(np.exp(log_p)))


def _nearest(points: Array, among: Array) -> Array:
    chunk = max(1, 20_000_000 // len(among))  # 160 MB of distances at once
    parts = [squared_distances(points[i : i + chunk], among).min(axis=1) for i in range(0, len(points), chunk)]
    return np.sqrt(np.concatenate(parts))
