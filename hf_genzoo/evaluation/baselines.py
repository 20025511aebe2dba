"""Generators that learn almost nothing, to be beaten: what a number means is seen next to theirs.

All take uint8 pictures of any shape, (N, H, W) or (N, C, H, W), and return as many as asked for of the same shape.

Papers
- Ledoit & Wolf 2004, "A well-conditioned estimator for large-dimensional covariance matrices": the shrinkage.
- Richardson & Weiss 2018, "On GANs and GMMs": mixtures of Gaussians as generators of pictures.

What differs from the papers and why: Richardson & Weiss fit mixtures of factor analysers in pixel space by gradient
descent; here the pixels are first reduced to their principal components, which takes seconds and leaves out the pixel
noise that no digit has.
"""

from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

Pictures = NDArray[np.uint8]
Array = NDArray[np.float64]

# The mixture, chosen on 5,000 MNIST pictures by the Frechet distance to held-out ones in a classifier's features: one
# Gaussian scores 390, 30 components 115, 100 components 83 (`pca_gaussian`, which knows the labels, 129). More still
# lower it, to 67 with 200, but each then has so few pictures that the likelihood of held-out ones collapses: a copier
# in the making.
MIXTURE_COMPONENTS = 100
MIXTURE_SHARE = 50  # pictures that a component has on average
MIXTURE_PICTURES = 10_000  # to fit to: 20,000 score as these do
MIXTURE_DIMS = 50
MIXTURE_STEPS = 10  # of EM: k-means has found the components, 30 steps change the distance by 3
MIXTURE_FLOOR = (
    0.01  # added to variances, as a part of their mean: a component may have fewer pictures than dimensions
)

CHUNK = 1000  # pictures converted to floats at a time


def pca_gaussian(
    images: Pictures, labels: NDArray[np.int64], count: int, components: int = 32, seed: int = 0
) -> Pictures:
    """For each class, a Gaussian on its first principal components in pixel space.

    Args:
        images: uint8 (N, ...).
        labels: (N,) class numbers.
        count: Pictures to draw, spread evenly over the classes and ordered by them.
        components: Principal components kept; more of them add pixel noise, which no digit has. Never more than a
            class has pixels or pictures to tell them.
        seed: Seed of the draws.

    Returns:
        uint8 (count, ...).

    Raises:
        ValueError: pictures that are not uint8, labels of another number, or a class with a single picture.
    """
    pixels = _flat(images, count)
    if len(labels) != len(images):
        raise ValueError(f"{len(images)} pictures against {len(labels)} labels: pass one label for each picture")
    generator = np.random.default_rng(seed)
    classes = np.unique(labels)
    drawn = []
    for index, label in enumerate(classes):
        of_class = pixels[labels == label].astype(np.float64)
        if len(of_class) < 2:
            raise ValueError(f"class {label} has 1 picture: a Gaussian needs at least 2")
        scale = _principal_axes(of_class - of_class.mean(axis=0), components)
        share = count // len(classes) + (index < count % len(classes))
        drawn.append(of_class.mean(axis=0) + generator.standard_normal((share, scale.shape[1])) @ scale.T)
    return _rounded(np.concatenate(drawn), images)


def _principal_axes(centred: Array, components: int) -> Array:
    """The first principal axes times their standard deviations, (D, components or fewer), of centred pixels (n, D)."""
    n, dimensions = centred.shape
    if dimensions <= n:
        values, vectors = np.linalg.eigh(centred.T @ centred / (n - 1))
        return vectors[:, -components:] * np.sqrt(values[-components:].clip(min=0))
    # The n x n matrix of inner products has the same eigenvalues, and u of it stands for the axis X^T u.
    _, vectors = np.linalg.eigh(centred @ centred.T)
    return centred.T @ vectors[:, -min(components, n - 1) :] / np.sqrt(n - 1)


def pixel_gaussian(images: Pictures, count: int, seed: int = 0) -> Pictures:
    """One Gaussian of all pixels with the mean and the covariance of the pictures.

    A draw is mean + X^T w / sqrt(N - 1), with X the centred pictures and w standard normal: the covariance itself, of
    150 million numbers for 64x64 colour pictures, is never formed. With fewer pictures than pixels the covariance is
    shrunk towards a multiple of the identity (Ledoit & Wolf 2004), so that draws are not confined to sums of the
    pictures. Rounding to 0..255 changes the moments of pixels near either end.

    Args:
        images: uint8 (N, ...).
        count: Pictures to draw.
        seed: Seed of the draws.

    Returns:
        uint8 (count, ...).

    Raises:
        ValueError: pictures that are not uint8, or fewer than 2.
    """
    pixels = _flat(images, count, at_least=2)
    n, dimensions = pixels.shape
    mean = pixels.mean(axis=0)
    rng = np.random.default_rng(seed)
    shrinkage, variance = ledoit_wolf(pixels) if n < dimensions else (0.0, 0.0)
    scale = np.float32(np.sqrt((1 - shrinkage) / (n - 1)))
    drawn = mean + np.sqrt(shrinkage * variance) * rng.standard_normal((count, dimensions))
    for part in _chunks(pixels, mean):
        drawn += rng.standard_normal((count, len(part)), dtype=np.float32) @ (part * scale)
    return _rounded(drawn, images)


def ledoit_wolf(pixels: NDArray[np.uint8]) -> tuple[float, float]:
    """How far the covariance of (N, D) is to be shrunk, in [0, 1], and the mean variance of a pixel.

    The shrunk covariance is (1 - shrinkage) S + shrinkage variance I (Ledoit & Wolf 2004, section 3.3), here without
    forming S: the norm of S is that of the N x N matrix of inner products.
    """
    n, dimensions = pixels.shape
    mean = pixels.mean(axis=0)
    lengths = np.concatenate([np.square(part).sum(axis=1, dtype=np.float64) for part in _chunks(pixels, mean)])
    inner = 0.0
    for i, one in enumerate(_chunks(pixels, mean)):
        for j, other in enumerate(_chunks(pixels[: (i + 1) * CHUNK], mean)):
            inner += (1 if i == j else 2) * np.square(one @ other.T).sum(dtype=np.float64)
    norm, variance = inner / n**2, lengths.sum() / (n * dimensions)
    distance = norm - dimensions * variance**2
    if distance <= 0:
        return 0.0, float(variance)  # equal pictures, or a covariance that is the target already
    error = (np.square(lengths).sum() / n - norm) / n
    return float(min(error, distance) / distance), float(variance)


def pca_mixture(
    images: Pictures, count: int, components: int | None = None, dims: int | None = None, seed: int = 0
) -> Pictures:
    """A mixture of Gaussians with full covariances on the first principal components of the pixels.

    A strong baseline that fits in seconds: it knows the modes of the data and the directions in which each varies.

    Args:
        images: uint8 (N, ...); a random 10,000 of them are fitted to if there are more.
        count: Pictures to draw, in random order.
        components: Gaussians; one for 50 pictures by default, at most 100.
        dims: Principal components; 50 by default, or as many as there are pixels or pictures less one.
        seed: Seed of the fit and of the draws.

    Returns:
        uint8 (count, ...).

    Raises:
        ValueError: pictures that are not uint8, fewer than 2, or not enough for so many components or dimensions.
    """
    import warnings

    from sklearn.decomposition import PCA
    from sklearn.exceptions import ConvergenceWarning
    from sklearn.mixture import GaussianMixture

    pixels = _flat(images, count, at_least=2)
    rng = np.random.default_rng(seed)
    pixels = pixels[rng.permutation(len(pixels))[:MIXTURE_PICTURES]]
    n, dimensions = len(pixels), pixels[0].size
    most = min(dimensions, n - 1)
    if components is None:
        components = min(max(n // MIXTURE_SHARE, 1), MIXTURE_COMPONENTS)
    if dims is None:
        dims = min(MIXTURE_DIMS, most)
    if not 1 <= components <= n:
        raise ValueError(f"{components} components for {n} pictures: from 1 to {n} are possible")
    if not 1 <= dims <= most:
        raise ValueError(f"{dims} dimensions for {n} pictures of {dimensions} pixels: from 1 to {most} are possible")
    pca = PCA(dims, random_state=seed)
    reduced = pca.fit_transform(pixels.astype(np.float32)).astype(np.float64)
    floor = max(MIXTURE_FLOOR * float(reduced.var(axis=0).mean()), 1e-6)
    mixture = GaussianMixture(components, max_iter=MIXTURE_STEPS, reg_covar=floor, random_state=seed)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)  # stopped on purpose
        mixture.fit(reduced)
    drawn, _ = mixture.sample(count)
    return _rounded(pca.inverse_transform(rng.permutation(drawn)), images)


def copies(images: Pictures, count: int, seed: int = 0) -> Pictures:
    """Pictures of the set itself, drawn with replacement: perfect by every distance, and what a copying test is for.

    Raises:
        ValueError: pictures that are not uint8.
    """
    _flat(images, count)
    return images[np.random.default_rng(seed).integers(len(images), size=count)]


def _flat(images: Pictures, count: int, at_least: int = 1) -> NDArray[np.uint8]:
    """Pictures as uint8 (N, D)."""
    if images.dtype != np.uint8:
        raise ValueError(f"pictures are {images.dtype}: pass uint8 in 0..255, as real ones are stored")
    if images.ndim < 2 or len(images) < at_least:
        raise ValueError(f"pictures have shape {images.shape}: they must be (N, ...) with N at least {at_least}")
    if count < 1:
        raise ValueError(f"{count} pictures to draw: ask for at least 1")
    return images.reshape(len(images), -1)


def _chunks(pixels: NDArray[np.uint8], mean: Array) -> Iterator[NDArray[np.float32]]:
    """The pictures less their mean, float32 (CHUNK, D) at a time: 60,000 of them as floats would fill the memory."""
    for start in range(0, len(pixels), CHUNK):
        yield pixels[start : start + CHUNK].astype(np.float32) - mean.astype(np.float32)


def _rounded(pixels: Array, images: Pictures) -> Pictures:
    """Pixels (count, D) as uint8 pictures of the shape of `images`."""
    return pixels.round().clip(0, 255).astype(np.uint8).reshape(-1, *images.shape[1:])
