"""Distances between two sets of pictures in a feature space. numpy, float64.

Papers
- Heusel et al. 2017, "GANs Trained by a Two Time-Scale Update Rule": the Frechet distance of two Gaussians.
- Naeem et al. 2020, "Reliable Fidelity and Diversity Metrics for Generative Models": coverage, eq. 6.
"""

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]


def frechet_distance(real: Array, fake: Array) -> float:
    """|mu_r - mu_f|^2 + tr(C_r + C_f - 2 (C_r C_f)^(1/2)) of features (N, D) and (M, D).

    The trace of the root is taken from the eigenvalues of C_r^(1/2) C_f C_r^(1/2), a symmetric matrix, so nothing
    complex appears. It is biased upwards by about c/N: compare at equal N only.
    """
    covariance_real, covariance_fake = np.cov(real, rowvar=False), np.cov(fake, rowvar=False)
    values, vectors = np.linalg.eigh(covariance_real)
    root = (vectors * np.sqrt(values.clip(min=0))) @ vectors.T
    product = np.linalg.eigvalsh(root @ covariance_fake @ root).clip(min=0)
    shift = real.mean(0) - fake.mean(0)
    return float(shift @ shift + np.trace(covariance_real) + np.trace(covariance_fake) - 2 * np.sqrt(product).sum())


def coverage(real: Array, fake: Array, k: int = 5) -> float:
    """Share of real points with a generated point nearer than their k-th real neighbour: diversity, in [0, 1].

    It depends on both counts; two samples of one law of equal size score 1 - 2^-k or so.
    """
    among_real = _squared_distances(real, real)
    np.fill_diagonal(among_real, np.inf)
    radius = np.partition(among_real, k - 1, axis=1)[:, k - 1]
    return float((_squared_distances(real, fake).min(axis=1) < radius).mean())


def _squared_distances(a: Array, b: Array) -> Array:
    return (a * a).sum(1)[:, None] + (b * b).sum(1)[None] - 2 * a @ b.T


def pca_gaussian(
    images: NDArray[np.uint8], labels: NDArray[np.int64], count: int, components: int = 32, seed: int = 0
) -> NDArray[np.uint8]:
    """The generator to beat: for each class, a Gaussian on its first principal components in pixel space.

    Args:
        images: uint8 (N, H, W).
        labels: (N,) class numbers.
        count: Pictures to draw, spread evenly over the classes.
        components: Principal components kept; more of them add pixel noise, which no digit has.
        seed: Seed of the draws.

    Returns:
        uint8 (count, H, W).
    """
    generator = np.random.default_rng(seed)
    classes = np.unique(labels)
    drawn = []
    for index, label in enumerate(classes):
        pixels = images[labels == label].reshape(-1, images[0].size).astype(np.float64)
        values, vectors = np.linalg.eigh(np.cov(pixels, rowvar=False))
        scale = vectors[:, -components:] * np.sqrt(values[-components:].clip(min=0))
        share = count // len(classes) + (index < count % len(classes))
        drawn.append(pixels.mean(0) + generator.standard_normal((share, components)) @ scale.T)
    return np.concatenate(drawn).round().clip(0, 255).astype(np.uint8).reshape(-1, *images.shape[1:])
