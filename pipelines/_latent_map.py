"""A map of latents in the plane, how far it can be trusted, and the way back from a place on it to a latent. A part of
pipelines' files (see `hf_genzoo.hub.inline`).

Papers
- van der Maaten & Hinton 2008, "Visualizing Data using t-SNE".
- Kobak & Berens 2019, "The art of using t-SNE for single-cell transcriptomics": start from PCA, at a small scale.
- Venna & Kaski 2001, "Neighborhood preservation in nonlinear projection methods": trustworthiness.

Distances between far groups, and the sizes of groups, mean nothing on a t-SNE map; so two numbers stand beside it.
"""

import importlib
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import PIL.Image
from numpy.typing import NDArray

from hf_genzoo.pipelines._map_figure import draw_map

MAP_METHODS = ("pca", "tsne")
NEIGHBOURS = 12
"""Neighbours whose preservation is counted; fewer where there are few points."""
_TSNE_DIMS = 50  # PCA to so many dimensions first: the rest is mostly noise, and neighbours are found faster
_BLENDED = 4  # nearest points that a place on a t-SNE map is decoded from

Array = NDArray[np.floating]


@dataclass(frozen=True)
class LatentMap:
    """Points in the plane for latents.

    Args:
        latents: (N, d), what was laid out.
        points: (N, 2).
        method: "pca" or "tsne".
        trustworthiness: 1 when neighbours on the map are neighbours among the latents, about 0.5 by chance.
        knn_accuracy: Share of points whose nearest neighbours on the map vote for their class; None without classes.
        explained: PCA: share of the latents' variance that the plane keeps; None for t-SNE.
        mean: PCA: (d,) where the plane has its origin.
        axes: PCA: (2, d) orthonormal directions of the plane.
        labels: (N,) classes, if given.
    """

    latents: Array
    points: Array
    method: str
    trustworthiness: float
    knn_accuracy: float | None
    explained: float | None = None
    mean: Array | None = None
    axes: Array | None = None
    labels: NDArray[np.integer] | None = None

    @property
    def figure(self) -> PIL.Image.Image:
        """The map as a picture, coloured by class. More of it can be drawn with `draw_map`."""
        return draw_map(self.points, self.labels)

    def latent_at(self, x: float, y: float) -> Array:
        """The latent (d,) of a place on the map.

        Exact for PCA: the point of the plane. t-SNE has no way back; there it is the mean of the nearest points'
        latents, weighted by inverse distance, and at a point that point's own.
        """
        place = np.array([x, y])
        if self.mean is not None and self.axes is not None:
            return self.mean + place @ self.axes
        distances = np.linalg.norm(self.points - place, axis=1)
        near = np.argsort(distances)[:_BLENDED]
        if distances[near[0]] == 0.0:
            return self.latents[near[0]]
        weights = 1.0 / distances[near]
        return weights @ self.latents[near] / weights.sum()

    def nearest(self, x: float, y: float) -> int:
        """Index of the point next to a place."""
        return int(np.argmin(np.linalg.norm(self.points - np.array([x, y]), axis=1)))


def lay_out(
    latents: Array, labels: Sequence[int] | NDArray[np.integer] | None = None, method: str = "pca", seed: int = 0
) -> LatentMap:
    """Lay latents out in the plane.

    Args:
        latents: (N, d), N at least 8.
        labels: (N,) classes, for the accuracy of neighbours.
        method: "pca", or "tsne" (needs scikit-learn; perplexity 30, fewer for fewer than 91 points).
        seed: Of t-SNE; the same seed gives the same map.

    Raises:
        ValueError: Unknown method, wrong shapes, too few latents, or numbers that are not finite.
        ImportError: t-SNE without scikit-learn; the message says how to get it.
    """
    latents = np.asarray(latents, dtype=np.float64)
    if method not in MAP_METHODS:
        raise ValueError(f"unknown method {method!r}; choose one of {', '.join(MAP_METHODS)}")
    if latents.ndim != 2 or len(latents) < 8:
        raise ValueError(f"latents must have shape (N, d) with N at least 8, not {latents.shape}")
    if not np.isfinite(latents).all():
        raise ValueError("latents must be finite numbers; these hold NaN or infinity, as a diverged encoder gives")
    if labels is not None and len(labels) != len(latents):
        raise ValueError(f"got {len(labels)} labels for {len(latents)} latents")
    mean, axes, variances = principal_axes(latents)
    plane = {}
    if method == "pca":
        points = (latents - mean) @ axes[:2].T
        if points.shape[1] == 1:  # latents of one dimension lie on a line
            points, axes = np.pad(points, ((0, 0), (0, 1))), np.pad(axes, ((0, 1), (0, 0)))
        total = variances.sum()
        plane = {"mean": mean, "axes": axes[:2], "explained": float(variances[:2].sum() / total) if total else 1.0}
    else:
        points = _tsne((latents - mean) @ axes[:_TSNE_DIMS].T, seed)
    k = min(NEIGHBOURS, (len(latents) - 1) // 2)
    classes = None if labels is None else np.asarray(labels)
    accuracy = None if classes is None else knn_accuracy(points, classes, k)
    return LatentMap(latents, points, method, trustworthiness(latents, points, k), accuracy, **plane, labels=classes)


def principal_axes(latents: Array) -> tuple[Array, Array, Array]:
    """Mean (d,), principal directions (min(N, d), d) and variances along them, largest first.

    The sign of a direction is free; the largest entry of each is made positive, so that a map does not flip.
    """
    mean = latents.mean(0)
    _, singular, axes = np.linalg.svd(latents - mean, full_matrices=False)
    signs = np.sign(axes[np.arange(len(axes)), np.abs(axes).argmax(1)])
    return mean, axes * np.where(signs == 0, 1.0, signs)[:, None], singular**2 / max(1, len(latents) - 1)


def _tsne(reduced: Array, seed: int) -> Array:
    try:  # by name: diffusers refuses a published file that names a missing package in an import, however late
        manifold = importlib.import_module("sklearn.manifold")
    except ImportError as error:
        raise ImportError("a t-SNE map needs scikit-learn: pip install scikit-learn, or take 'pca'") from error
    perplexity = min(30.0, (len(reduced) - 1) / 3)
    start = np.pad(reduced[:, :2], ((0, 0), (0, max(0, 2 - reduced.shape[1]))))
    start = start / max(start[:, 0].std(), 1e-12) * 1e-4
    layout = manifold.TSNE(perplexity=perplexity, init=start, learning_rate="auto", random_state=seed)
    return layout.fit_transform(reduced).astype(np.float64)


def trustworthiness(latents: Array, points: Array, k: int = NEIGHBOURS) -> float:
    """Whether neighbours on the map are neighbours among the latents (Venna & Kaski 2001, eq. 1), in [0, 1].

    Args:
        latents: (N, d).
        points: (N, 2).
        k: Neighbours counted, less than N / 2.

    Raises:
        ValueError: k does not fit.
    """
    count = len(latents)
    if not 0 < k < count / 2:
        raise ValueError(f"k must lie between 1 and {(count - 1) // 2} for {count} points, not {k}")
    order = np.argsort(_distances(latents), axis=1)  # the point itself comes first: its distance is -1
    rank = np.empty_like(order)
    rank[np.arange(count)[:, None], order] = np.arange(count)
    shown = np.argsort(_distances(points), axis=1)[:, 1 : k + 1]
    excess = np.maximum(rank[np.arange(count)[:, None], shown] - k, 0).sum()
    return float(1.0 - 2.0 * excess / (count * k * (2 * count - 3 * k - 1)))


def knn_accuracy(points: Array, labels: NDArray[np.integer], k: int = NEIGHBOURS) -> float:
    """Share of the points whose k nearest others vote for their class; a tie goes to the lowest class."""
    classes, numbers = np.unique(labels, return_inverse=True)
    near = np.argsort(_distances(points), axis=1)[:, 1 : k + 1]
    votes = (numbers[near][:, :, None] == np.arange(len(classes))).sum(1)
    return float((votes.argmax(1) == numbers).mean())


def _distances(points: Array) -> Array:
    """(N, N) squared distances, -1 on the diagonal."""
    squares = (points**2).sum(1)
    distances = np.maximum(squares[:, None] + squares - 2.0 * points @ points.T, 0.0)
    np.fill_diagonal(distances, -1.0)
    return distances
