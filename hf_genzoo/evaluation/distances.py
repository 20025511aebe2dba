"""Distances and overlaps of two samples of features, (N, D) and (M, D). numpy in float64; what a picture is, is not
known here.

Papers
- Heusel et al. 2017, "GANs Trained by a Two Time-Scale Update Rule": the Frechet distance of two Gaussians.
- Chong & Forsyth 2020, "Effectively Unbiased FID and Inception Score and Where to Find Them": extrapolation in 1/N.
- Binkowski et al. 2018, "Demystifying MMD GANs": the kernel distance KID.
- Kynkaanniemi et al. 2019, "Improved Precision and Recall Metric for Assessing Generative Models".
- Naeem et al. 2020, "Reliable Fidelity and Diversity Metrics for Generative Models": density and coverage.
- Jayasumana et al. 2024, "Rethinking FID: Towards a Better Evaluation Metric for Image Generation": CMMD.
- Bonneel et al. 2015, "Sliced and Radon Wasserstein Barycenters of Measures".
- Salimans et al. 2016, "Improved Techniques for Training GANs": the Inception score.

What differs from the papers and why: KID and CMMD are U-statistics (the diagonal left out), so their mean is exactly
zero for two samples of one law; the published code of CMMD keeps the diagonal, an offset of about 1/N.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

Array = NDArray[np.float64]


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


def _pair(real: ArrayLike, fake: ArrayLike, at_least: int = 2) -> tuple[Array, Array]:
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
    a, b = _pair(real, fake)
    covariance_a, covariance_b = np.atleast_2d(np.cov(a, rowvar=False)), np.atleast_2d(np.cov(b, rowvar=False))
    values, vectors = np.linalg.eigh(covariance_a)
    root = (vectors * np.sqrt(values.clip(min=0))) @ vectors.T
    product = np.linalg.eigvalsh(root @ covariance_b @ root).clip(min=0)
    shift = a.mean(0) - b.mean(0)
    return float(shift @ shift + np.trace(covariance_a) + np.trace(covariance_b) - 2 * np.sqrt(product).sum())


def frechet_distance_infinity(real: ArrayLike, fake: ArrayLike, points: int = 15, seed: int = 0) -> float:
    """The Frechet distance extrapolated to infinitely many samples of both kinds (Chong & Forsyth 2020, section 3).

    Distances of equally large random parts of both samples, of sizes evenly spaced in 1/N, are fitted by a line in
    1/N; its value at 0 is returned. It may be slightly negative where the two laws are the same.

    Raises:
        ValueError: if there are fewer than 20 samples.
    """
    a, b = _pair(real, fake, at_least=20)
    rng = np.random.default_rng(seed)
    largest = min(len(a), len(b))
    inverse = np.linspace(1 / largest, 10 / largest, points)
    sizes = np.round(1 / inverse).astype(int)
    found = [frechet_distance(rng.permutation(a)[:size], rng.permutation(b)[:size]) for size in sizes]
    return float(np.polynomial.Polynomial.fit(1 / sizes, found, deg=1)(0.0))


def mmd_squared(k_xx: Array, k_yy: Array, k_xy: Array) -> float:
    """The unbiased estimate of MMD^2 from kernel matrices (Gretton et al. 2012, eq. 3)."""
    n, m = len(k_xx), len(k_yy)
    within = (k_xx.sum() - np.trace(k_xx)) / (n * (n - 1)) + (k_yy.sum() - np.trace(k_yy)) / (m * (m - 1))
    return float(within - 2 * k_xy.mean())


@dataclass(frozen=True)
class Estimate:
    """A mean and its standard error."""

    value: float
    standard_error: float


def kernel_distance(
    real: ArrayLike, fake: ArrayLike, subset_size: int = 1000, subsets: int = 100, seed: int = 0
) -> Estimate:
    """KID: MMD^2 of the kernel (x.y / D + 1)^3 over random parts of both samples (Binkowski et al. 2018, section 4).

    Parts are drawn without replacement within a part and overlap between parts, so the standard error is that of the
    published protocol; it measures the noise of the parts, not that of another set of samples.
    """
    a, b = _pair(real, fake)
    size = min(subset_size, len(a), len(b))
    rng = np.random.default_rng(seed)

    def kernel(x: Array, y: Array) -> Array:
        return (x @ y.T / x.shape[1] + 1) ** 3

    found = []
    for _ in range(subsets):
        x, y = a[rng.choice(len(a), size, replace=False)], b[rng.choice(len(b), size, replace=False)]
        found.append(mmd_squared(kernel(x, x), kernel(y, y), kernel(x, y)))
    return Estimate(float(np.mean(found)), float(np.std(found, ddof=1) / np.sqrt(subsets)))


def cmmd(real: ArrayLike, fake: ArrayLike, bandwidth: float = 10.0) -> float:
    """1000 MMD^2 of the kernel exp(-|x - y|^2 / (2 bandwidth^2)) (Jayasumana et al. 2024, section 4), unbiased.

    With unit-length embeddings and the paper's bandwidth of 10 the kernel is almost linear, and CMMD almost
    10 |mean_r - mean_f|^2: it cannot see a wrong spread. Read it beside one that can (Frechet distance, coverage).
    """
    a, b = _pair(real, fake)

    def kernel(x: Array, y: Array) -> Array:
        return np.exp(squared_distances(x, y) / (-2 * bandwidth**2))

    return 1000 * mmd_squared(kernel(a, a), kernel(b, b), kernel(a, b))


@dataclass(frozen=True)
class Overlap:
    """Precision, recall, density and coverage."""

    precision: float
    recall: float
    density: float
    coverage: float


def overlap(real: ArrayLike, fake: ArrayLike, k: int = 5) -> Overlap:
    """How much of each sample lies within balls around the other's points, which reach to their k-th neighbour.

    Precision and recall: Kynkaanniemi et al. 2019, eq. 1 and 2; density and coverage: Naeem et al. 2020, eq. 5 and 6.
    All depend on both counts and on k: compare at equal numbers only. Two samples of one law and equal size score a
    coverage of about 1 - 2^-k and a density of 1.

    Raises:
        ValueError: if there are no more than k samples of a kind.
    """
    a, b = _pair(real, fake, at_least=k + 1)
    reach_a, reach_b = _reach(a, k), _reach(b, k)
    between = squared_distances(a, b)
    in_real, in_fake = between < reach_a[:, None], between < reach_b[None]
    return Overlap(
        precision=float(in_real.any(axis=0).mean()),
        recall=float(in_fake.any(axis=1).mean()),
        density=float(in_real.sum(axis=0).mean() / k),
        coverage=float(in_real.any(axis=1).mean()),
    )


def _reach(points: Array, k: int) -> Array:
    """Squared distance of each point to its k-th neighbour, itself not counted."""
    among = squared_distances(points, points)
    np.fill_diagonal(among, np.inf)
    return np.partition(among, k - 1, axis=1)[:, k - 1]


def sliced_wasserstein(real: ArrayLike, fake: ArrayLike, projections: int = 256, seed: int = 0) -> float:
    """The mean over random directions of the 1-Wasserstein distance of the projected samples.

    Samples of different size are compared by their quantile functions, exactly.
    """
    a, b = _pair(real, fake)
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
