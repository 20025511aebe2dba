"""Distances of two samples of features, (N, D) and (M, D). numpy in float64; what a picture is, is not known here.

Papers
- Heusel et al. 2017, "GANs Trained by a Two Time-Scale Update Rule": the Frechet distance of two Gaussians.
- Chong & Forsyth 2020, "Effectively Unbiased FID and Inception Score and Where to Find Them": extrapolation in 1/N.
- Bonneel et al. 2015, "Sliced and Radon Wasserstein Barycenters of Measures".
- Salimans et al. 2016, "Improved Techniques for Training GANs": the Inception score.
"""

from collections.abc import Sequence

import numpy as np
from numpy.typing import ArrayLike, NDArray

from hf_genzoo.evaluation.intervals import GROUPS, Estimate, from_replicates, group_of

Array = NDArray[np.float64]

LARGE_DIMENSION = 512  # of features: above it an eigenvalue problem takes a second, and there would be 300


def as_features(values: ArrayLike, name: str = "features", at_least: int = 2) -> Array:
    """Features as float64 (N, D).

    Raises:
        ValueError: if they are not a matrix, too few, or not finite; the message names them and the fix.
    """
    features = np.asarray(values, dtype=np.float64)
    if features.ndim != 2:
        raise ValueError(f"{name} have shape {features.shape}: they must be (samples, dimensions)")
    if len(features) < at_least:
        raise ValueError(f"{name} hold {len(features)} samples: at least {at_least} are needed")
    if bad := int((~np.isfinite(features)).any(axis=1).sum()):
        raise ValueError(f"{bad} of {len(features)} samples of the {name} are NaN or infinite: check the generator")
    return features


def as_pair(real: ArrayLike, fake: ArrayLike, at_least: int = 2) -> tuple[Array, Array]:
    a, b = as_features(real, "real features", at_least), as_features(fake, "generated features", at_least)
    if a.shape[1] != b.shape[1]:
        raise ValueError(f"real features have {a.shape[1]} dimensions, generated ones {b.shape[1]}: use one extractor")
    return a, b


def squared_distances(a: Array, b: Array) -> Array:
    """(N, M) squared Euclidean distances."""
    squared = (a * a).sum(1)[:, None] + (b * b).sum(1)[None] - 2 * a @ b.T
    return np.maximum(squared, 0, out=squared)  # rounding may leave -1e-12


def frechet_distance(real: ArrayLike, fake: ArrayLike) -> float:
    """|mu_r - mu_f|^2 + tr(C_r + C_f - 2 (C_r C_f)^(1/2)), Heusel et al. 2017, eq. 6.

    The trace of the root is taken from the eigenvalues of C_r^(1/2) C_f C_r^(1/2), a symmetric matrix, so nothing
    complex appears. It is biased upwards by about c/N: compare at equal N only.
    """
    a, b = as_pair(real, fake)
    covariance_a, covariance_b = np.atleast_2d(np.cov(a, rowvar=False)), np.atleast_2d(np.cov(b, rowvar=False))
    values, vectors = np.linalg.eigh(covariance_a)
    root = (vectors * np.sqrt(values.clip(min=0))) @ vectors.T
    product = np.linalg.eigvalsh(root @ covariance_b @ root).clip(min=0)
    shift = a.mean(0) - b.mean(0)
    return float(shift @ shift + np.trace(covariance_a) + np.trace(covariance_b) - 2 * np.sqrt(product).sum())


def frechet_distance_infinity(
    real: ArrayLike, fake: ArrayLike, points: int = 15, seed: int = 0, interval: bool = True
) -> Estimate:
    """The Frechet distance extrapolated to infinitely many samples of both kinds (Chong & Forsyth 2020, section 3).

    Distances of equally large random parts of both samples, of sizes evenly spaced in 1/N, are fitted by a line in
    1/N; its value at 0 is returned. It may be slightly negative where the two laws are the same.

    Args:
        real: (N, D) features.
        fake: (M, D) features.
        points: Sizes of parts.
        seed: Of the parts.
        interval: Whether to find the standard error, twenty times the work; never above 512 dimensions, where it would
            take minutes.

    Raises:
        ValueError: if there are fewer than 20 samples.
    """
    a, b = as_pair(real, fake, at_least=20)
    rng = np.random.default_rng(seed)
    lots_a, lots_b = rng.random((points, len(a))), rng.random((points, len(b)))

    def extrapolate(kept_a: NDArray[np.bool_], kept_b: NDArray[np.bool_]) -> float:
        largest = min(kept_a.sum(), kept_b.sum())
        sizes = np.round(1 / np.linspace(1 / largest, 10 / largest, points)).astype(int)
        found = [
            frechet_distance(_smallest(a, lot_a, kept_a, size), _smallest(b, lot_b, kept_b, size))
            for size, lot_a, lot_b in zip(sizes, lots_a, lots_b, strict=True)
        ]
        return float(np.polynomial.Polynomial.fit(1 / sizes, found, deg=1)(0.0))

    value = extrapolate(np.ones(len(a), bool), np.ones(len(b), bool))
    if not interval or a.shape[1] > LARGE_DIMENSION or min(len(a), len(b)) < 2 * GROUPS:
        return Estimate(value)
    # Each sample keeps its lots, so that leaving a group out exchanges no more samples than that.
    groups_a, groups_b = group_of(len(a)), group_of(len(b))
    return from_replicates(value, [extrapolate(groups_a != g, groups_b != g) for g in range(GROUPS)])


def _smallest(samples: Array, lots: Array, kept: NDArray[np.bool_], size: int) -> Array:
    """The `size` kept samples with the smallest lots."""
    return samples[np.argsort(np.where(kept, lots, np.inf))[:size]]


def sliced_wasserstein(real: ArrayLike, fake: ArrayLike, projections: int = 256, seed: int = 0) -> float:
    """The mean over random directions of the 1-Wasserstein distance of the projected samples.

    Samples of different size are compared by their quantile functions, exactly.
    """
    a, b = as_pair(real, fake)
    directions = np.random.default_rng(seed).standard_normal((a.shape[1], projections))
    directions /= np.linalg.norm(directions, axis=0)
    x, y = np.sort(a @ directions, axis=0), np.sort(b @ directions, axis=0)
    if len(x) == len(y):
        return float(np.abs(x - y).mean())
    # Between two neighbouring steps of either quantile function both are constant.
    steps = np.union1d(np.arange(1, len(x) + 1) / len(x), np.arange(1, len(y) + 1) / len(y))
    widths = np.diff(steps, prepend=0.0)
    middle = steps - widths / 2
    i = np.minimum((middle * len(x)).astype(int), len(x) - 1)
    j = np.minimum((middle * len(y)).astype(int), len(y) - 1)
    return float((np.abs(x[i] - y[j]) * widths[:, None]).sum(axis=0).mean())


def inception_score(probabilities: ArrayLike) -> float:
    """exp(E KL(p(y|x) || p(y))) of class probabilities (N, K): from 1 to K (Salimans et al. 2016, section 4).

    Raises:
        ValueError: if a row is no distribution.
    """
    p = as_features(probabilities, "class probabilities", at_least=1)
    if (p < 0).any() or not np.allclose(p.sum(axis=1), 1, atol=1e-4):
        raise ValueError("class probabilities must be positive and sum to 1: pass the softmax, not the logits")
    marginal = p.mean(axis=0)
    ratio = np.divide(p, marginal, out=np.ones_like(p), where=p > 0)
    return float(np.exp((p * np.log(ratio)).sum(axis=1).mean()))


def class_balance(labels: Sequence[int] | NDArray[np.int64], num_classes: int) -> tuple[float, float]:
    """KL of the histogram of labels to the uniform law, in nats, and its floor (K - 1) / (2 N).

    The floor is what N labels drawn uniformly score on average, to first order: a KL near it shows no imbalance.
    """
    counts = np.bincount(np.asarray(labels, dtype=np.int64), minlength=num_classes)
    share = counts / counts.sum()
    used = share > 0
    divergence = float((share[used] * np.log(share[used] * num_classes)).sum())
    return divergence, (num_classes - 1) / (2 * int(counts.sum()))
