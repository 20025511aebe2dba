"""Real pictures that a demo offers: a few of the held-out split, kept in one small file beside the app."""

from dataclasses import dataclass
from pathlib import Path
from typing import IO

import numpy as np
from numpy.typing import NDArray
from PIL import Image


@dataclass(frozen=True)
class Examples:
    """Pictures the model has not been trained on.

    Args:
        images: uint8 (N, H, W, C) with C 1 or 3.
        labels: Class of each picture, integers (N,), or None.
        names: Name of each class, in the order of their numbers; empty without classes.

    Raises:
        ValueError: If the shapes do not fit one another.
    """

    images: NDArray[np.uint8]
    labels: NDArray[np.int64] | None = None
    names: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        shape = self.images.shape
        if self.images.dtype != np.uint8 or self.images.ndim != 4 or shape[-1] not in (1, 3):
            raise ValueError(f"images must be uint8 (N, H, W, 1 or 3), not {self.images.dtype} {shape}")
        if self.labels is not None and self.labels.shape != shape[:1]:
            raise ValueError(f"labels must have shape {shape[:1]}, not {self.labels.shape}")

    def __len__(self) -> int:
        return len(self.images)

    def picture(self, index: int) -> Image.Image:
        """One of the pictures."""
        pixels = self.images[index]
        return Image.fromarray(pixels[..., 0] if pixels.shape[-1] == 1 else pixels)

    def label_name(self, index: int) -> str | None:
        """Name of a picture's class, its number where it has no name, None without classes."""
        if self.labels is None:
            return None
        label = int(self.labels[index])
        return self.names[label] if 0 <= label < len(self.names) else str(label)

    def save(self, path: str | Path | IO[bytes]) -> None:
        """Write one compressed .npz file that needs no pickle."""
        labels = {} if self.labels is None else {"labels": self.labels}
        # An empty tuple would become an array of floats.
        names = np.array(self.names, dtype=np.str_) if self.names else np.empty(0, dtype="<U1")
        np.savez_compressed(path, images=self.images, names=names, **labels)  # pyright: ignore[reportArgumentType]


def load_examples(path: str | Path) -> Examples:
    """Read what `Examples.save` has written.

    Raises:
        OSError: If there is no such file.
        ValueError: If it holds something else.
    """
    with np.load(path, allow_pickle=False) as stored:
        if "images" not in stored:
            raise ValueError(f"{Path(path).name} holds no examples: there are no images in it")
        return Examples(stored["images"], stored.get("labels"), tuple(str(name) for name in stored["names"]))
