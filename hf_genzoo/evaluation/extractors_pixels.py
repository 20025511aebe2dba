"""Extractors that need no trained network: untrained convolutions, and principal components of the pixels."""

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray

from hf_genzoo.data.fingerprint import digest
from hf_genzoo.evaluation.extractors import Extractor, Images, arrays_hash
from hf_genzoo.evaluation.resize import RESIZER, check_square, resize, with_channels

VERSION = 1
"""Part of the hashes: raised when the same weights or pictures would give other features."""

SMALLEST = 32  # smaller pictures are enlarged: three halvings must leave a 4 x 4 layout
WIDTHS = (32, 32, 48)
LAYOUT, LAYOUT_CHANNELS = 4, 5
TEXTURE_WEIGHT = 4.0  # a mean over the picture varies less than one over a cell; without it colours outweigh textures

LARGEST_PCA = 32
MOST_FITTED = 10_000


class RandomConvolutions(Extractor):
    """Untrained convolutions with fixed weights: no generator was tuned to them, and no training set favours them.

    Three layers of 3 x 3 filters, at full, half and quarter resolution, whose weights are uniform with the mean of
    each filter taken off: they answer to edges and textures, not to brightness. Features are, of every layer, the mean
    of each filter's answer over the picture (what textures there are); of the last one, in addition, five mixtures on
    a 4 x 4 grid (where things are); and the colours on a 4 x 4 grid. Pictures below 32 pixels are enlarged first.

    Args:
        seed: Seeds the weights: another seed is another extractor.
        device: Where to compute.
    """

    name = "random"

    def __init__(self, seed: int = 0, device: torch.device | str = "cpu") -> None:
        rng = np.random.default_rng(seed)
        shapes = [(WIDTHS[0], 3), (WIDTHS[1], WIDTHS[0]), (WIDTHS[2], WIDTHS[1])]
        weights = [_filters(rng, out, inputs, 3) for out, inputs in shapes]
        weights.append(_filters(rng, LAYOUT_CHANNELS, WIDTHS[2], 1))
        self.dim = sum(WIDTHS) + (LAYOUT_CHANNELS + 3) * LAYOUT**2
        self.hash = digest("random convolutions", VERSION, RESIZER, arrays_hash(*weights))
        self._weights = [torch.from_numpy(w).to(device) for w in weights]

    def _extract(self, batch: Images) -> tuple[NDArray[np.float32], None]:
        batch = resize(with_channels(batch, 3), max(SMALLEST, batch.shape[2]))
        x = torch.from_numpy(batch).to(self._weights[0].device).float() / 127.5 - 1
        found = [F.adaptive_avg_pool2d(x, LAYOUT).flatten(1)]
        *layers, mixtures = self._weights
        for layer, weight in enumerate(layers):
            if layer > 0:
                x = F.avg_pool2d(x, 2)
            x = F.conv2d(F.pad(x, (1, 1, 1, 1), mode="replicate"), weight).relu()
            found.append(TEXTURE_WEIGHT * x.mean(dim=(2, 3)))
        found.append(F.adaptive_avg_pool2d(F.conv2d(x, mixtures), LAYOUT).flatten(1))
        return torch.cat(found, dim=1).cpu().numpy(), None


def _filters(rng: np.random.Generator, outputs: int, inputs: int, size: int) -> NDArray[np.float32]:
    """Filters (outputs, inputs, size, size) of mean 0 that keep the scale of what they see through a ReLU.

    Uniform numbers are integers times a power of two, so no mathematical library has a say in their last bit.
    """
    drawn = rng.random((outputs, inputs * size * size), dtype=np.float32).astype(np.float64) - 0.5
    drawn -= drawn.mean(axis=1, keepdims=True)
    drawn *= np.sqrt(2 * 12 / drawn.shape[1])  # He et al. 2015; the variance of the uniform numbers is 1/12
    return drawn.astype(np.float32).reshape(outputs, inputs, size, size)


class PixelPCA(Extractor):
    """The first principal components of the pixels of the training pictures.

    The hash is taken over the training pictures and the settings, not over the basis: its last bits depend on the
    linear algebra library, the pictures do not.

    Attributes:
        components: float64 (dim, C * size * size), orthonormal rows by falling variance; in each row the entry of
            largest magnitude is positive.
        mean: float64 (C * size * size,).
    """

    name = "pca"

    def __init__(
        self, mean: NDArray[np.float64], components: NDArray[np.float64], size: int, channels: int, hash: str
    ):
        self.mean, self.components, self.size, self.channels = mean, components, size, channels
        self.dim, self.hash = len(components), hash

    @classmethod
    def fit(cls, images: Images, components: int = 64) -> "PixelPCA":
        """The basis of training pictures (N, C, H, W), reduced to 32 pixels if they are larger.

        Args:
            images: Of more than 10,000 pictures, 10,000 of a fixed random choice are used.
            components: Components kept; fewer if there are fewer pixels or pictures.

        Raises:
            ValueError: if there are fewer than two pictures, or no components are wanted.
        """
        check_square(images)
        if len(images) < 2 or components < 1:
            raise ValueError(f"{components} components of {len(images)} pictures: at least 1 of at least 2 are needed")
        if len(images) > MOST_FITTED:
            images = images[np.sort(np.random.default_rng(0).permutation(len(images))[:MOST_FITTED])]
        size, channels = min(LARGEST_PCA, images.shape[2]), images.shape[1]
        images = resize(np.ascontiguousarray(images), size)
        pixels = _flat(images)
        mean = pixels.mean(axis=0)
        pixels -= mean
        count = min(components, pixels.shape[1], len(pixels) - 1)
        # The smaller of the two Gram matrices has the same eigenvalues.
        if len(pixels) < pixels.shape[1]:
            _, vectors = np.linalg.eigh(pixels @ pixels.T)
            basis = vectors[:, ::-1][:, :count].T @ pixels
            basis /= np.linalg.norm(basis, axis=1, keepdims=True)
        else:
            _, vectors = np.linalg.eigh(pixels.T @ pixels)
            basis = vectors[:, ::-1][:, :count].T
        largest = np.abs(basis).argmax(axis=1)
        basis = basis * np.sign(basis[np.arange(count), largest])[:, None]
        key = digest("pixel pca", VERSION, RESIZER, count, arrays_hash(images))
        return cls(mean, basis, size, channels, key)

    def _extract(self, batch: Images) -> tuple[NDArray[np.float32], None]:
        pixels = _flat(resize(with_channels(batch, self.channels), self.size))
        return ((pixels - self.mean) @ self.components.T).astype(np.float32), None


def _flat(images: Images) -> NDArray[np.float64]:
    """(N, C * H * W) in [0, 1]."""
    return images.reshape(len(images), -1) / 255.0
