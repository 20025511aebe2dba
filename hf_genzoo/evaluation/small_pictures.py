"""What super-resolution is asked to enlarge: held-out pictures, made small as in the training."""

from dataclasses import dataclass
from functools import cached_property

import numpy as np
import torch
from numpy.typing import NDArray

from hf_genzoo.corruptions import low_resolution
from hf_genzoo.data.fingerprint import digest
from hf_genzoo.evaluation.reference import RealSplit
from hf_genzoo.pipelines._pictures import resized


@dataclass(frozen=True)
class SmallPictures:
    """Sample i is made of the i-th held-out picture in a random order; a yardstick of N takes the same N.

    Args:
        held_out: The pictures as they should be.
        scale: How many times smaller the model is given them.
    """

    held_out: RealSplit
    scale: int

    @cached_property
    def _rows(self) -> NDArray[np.int64]:
        return self.held_out.shuffled_rows()

    @property
    def key(self) -> str:
        """Hash of what is given."""
        return digest("small", self.held_out.key, self.scale)

    def __len__(self) -> int:
        return len(self.held_out.values)

    def truth(self, numbers: NDArray[np.int64]) -> NDArray[np.uint8]:
        """The pictures as they should be, (n, C, H, W)."""
        return np.asarray(self.held_out.values[self._rows[numbers]])

    def small(self, numbers: NDArray[np.int64]) -> torch.Tensor:
        """What is given, (n, C, H / scale, W / scale) in [0, 1].

        Raises:
            ValueError: if the scale does not divide the pictures' sides.
        """
        return low_resolution(torch.from_numpy(self.truth(numbers)).float() / 255, self.scale)

    def bicubic(self, numbers: NDArray[np.int64]) -> NDArray[np.uint8]:
        """The trivial answer, (n, C, H, W)."""
        size = self.held_out.values.shape[2:]
        return (255 * resized(self.small(numbers), (size[0], size[1]))).round().byte().numpy()
