"""Generators that learn almost nothing, to be beaten: what a number means is seen next to theirs."""

import numpy as np
from numpy.typing import NDArray


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
