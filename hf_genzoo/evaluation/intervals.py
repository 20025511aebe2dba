"""What a measured number is worth: its standard error and 95 % interval, by leaving parts of the samples out.

Papers
- Quenouille 1956, "Notes on Bias in Estimation"; Miller 1974, "The Jackknife: A Review".

Why not the bootstrap: a resample repeats points, and a Frechet distance, a nearest neighbour or a covariance takes
repeated points for less variety, so every bootstrap replicate is shifted. Leaving a part out repeats nothing.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]

GROUPS = 20
T_QUANTILE = 2.093  # 97.5 % of Student's t with GROUPS - 1 degrees of freedom


@dataclass(frozen=True)
class Estimate:
    """A number and its standard error, both of the same unit; the error is None where it could not be estimated."""

    value: float
    standard_error: float | None = None

    @property
    def interval(self) -> tuple[float, float] | None:
        """The 95 % confidence interval."""
        if self.standard_error is None:
            return None
        reach = T_QUANTILE * self.standard_error
        return self.value - reach, self.value + reach


def group_of(count: int) -> np.ndarray:
    """Which of the GROUPS parts each of `count` samples is in, int64 (count,): sizes differ by at most 1.

    The parts are drawn at random, always the same: samples that come class by class, or class after class in turn,
    would otherwise fill a part with one class.
    """
    return np.random.default_rng(0).permutation(count) % GROUPS


def from_replicates(value: float, replicates: Sequence[float] | Array) -> Estimate:
    """The estimate from the statistic of all samples and those with one group left out (Miller 1974, eq. 2.6)."""
    found = np.asarray(replicates, dtype=np.float64)
    spread = np.square(found - found.mean()).sum() * (len(found) - 1) / len(found)
    return Estimate(float(value), float(np.sqrt(spread)))


def jackknife(statistic: Callable[..., float], *samples: Array) -> Estimate:
    """A statistic of one or more samples with its standard error.

    Each sample is split into GROUPS parts; the statistic is taken with the first part of every sample left out, then
    with the second, and so on. The samples are taken for independent of each other.

    Args:
        statistic: Takes as many arrays as there are samples, and must be smooth in them (no ranks, no maxima).
        samples: Arrays whose first axis counts the samples.

    Raises:
        ValueError: if a sample is too small to be split.
    """
    if min(len(sample) for sample in samples) < 2 * GROUPS:
        raise ValueError(f"an interval needs at least {2 * GROUPS} samples of each kind")
    groups = [group_of(len(sample)) for sample in samples]
    left_out = [
        statistic(*(sample[group != number] for sample, group in zip(samples, groups, strict=True)))
        for number in range(GROUPS)
    ]
    return from_replicates(statistic(*samples), left_out)
