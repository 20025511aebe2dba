"""All distribution metrics of one set of samples: features in, numbers with 95 % intervals out."""

from collections.abc import Callable, Sequence

import numpy as np
from numpy.typing import NDArray

from hf_genzoo.evaluation.distances import (
    Array,
    class_balance,
    frechet_distance,
    frechet_distance_infinity,
    inception_score,
    sliced_wasserstein,
)
from hf_genzoo.evaluation.extractors import Features
from hf_genzoo.evaluation.intervals import GROUPS, Estimate, jackknife
from hf_genzoo.evaluation.kernels import cmmd, kernel_distance
from hf_genzoo.evaluation.measurement import Measurement
from hf_genzoo.evaluation.neighbours import overlap_estimates
from hf_genzoo.evaluation.two_sample import Verdict, classifier_test, kernel_test

VERSION = 2  # of the numbers: cached ones of another version are measured again


def distribution_metrics(fake: Features, real: Features, train: Sequence[Features]) -> list[Measurement]:
    """Every metric that compares two sets of features, at equal numbers.

    Args:
        fake: N generated samples.
        real: N held-out samples.
        train: One or several draws of N training samples, whose mean Frechet distance to the held-out ones is the
            yardstick of the ratio.

    Raises:
        ValueError: if numbers differ, or features are not finite.
    """
    counts = [len(part.values) for part in (fake, real, *train)]
    if len(set(counts)) > 1:
        raise ValueError(f"{counts} samples: generated, held-out and training samples must be equally many")
    f, r, *t = (np.asarray(part.values, dtype=np.float64) for part in (fake, real, *train))
    found: dict[str, Estimate] = {}
    if enough_for_covariances(r):
        found["frechet_ratio"] = _estimate(frechet_ratio, f, r, *t)
        found["frechet_distance"] = _estimate(frechet_distance, r, f)
        found["frechet_distance_infinity"] = frechet_distance_infinity(r, f)
    found["kernel_distance"] = kernel_distance(r, f)
    found["cmmd"] = cmmd(unit_length(r), unit_length(f))
    found["sliced_wasserstein"] = _estimate(sliced_wasserstein, r, f)
    found |= overlap_estimates(r, f)
    if fake.probabilities is not None:
        found |= _class_metrics(np.asarray(fake.probabilities, dtype=np.float64))
    return [Measurement.of(name, estimate) for name, estimate in found.items()]


def two_sample_tests(fake: Features, real: Features) -> list[Verdict]:
    """Whether generated and held-out samples can be told apart, by two tests."""
    return [test(real.values, fake.values) for test in (kernel_test, classifier_test)]


def enough_for_covariances(features: Array) -> bool:
    """Whether there are more samples than dimensions; else a covariance is singular, and its distance noise."""
    return len(features) > features.shape[1]


def frechet_ratio(fake: Array, real: Array, *train: Array) -> float:
    """FD(generated, held-out) / mean FD(training, held-out) at equal numbers: the bias of few samples is in both."""
    return frechet_distance(real, fake) / float(np.mean([frechet_distance(real, draw) for draw in train]))


def _estimate(statistic: Callable[..., float], *samples: Array) -> Estimate:
    """With an interval where there are samples enough for one."""
    if min(len(sample) for sample in samples) < 2 * GROUPS:
        return Estimate(statistic(*samples))
    return jackknife(statistic, *samples)


def _class_metrics(probabilities: Array) -> dict[str, Estimate]:
    num_classes = probabilities.shape[1]

    def imbalance(p: Array) -> float:
        return class_balance(p.argmax(axis=1), num_classes)[0]

    return {
        "inception_score": _estimate(inception_score, probabilities),
        "class_balance_kl": _estimate(imbalance, probabilities),
    }


def unit_length(features: Array) -> NDArray[np.float64]:
    """Features of length 1, which CMMD's bandwidth is made for."""
    length = np.linalg.norm(features, axis=1, keepdims=True)
    return features / np.maximum(length, np.finfo(np.float64).tiny)
