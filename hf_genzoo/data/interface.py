"""What a training script sees of any dataset: `Data`, and the endless `Batches` it gives."""

from abc import ABC, abstractmethod
from collections.abc import Iterator
from typing import Any

import torch


class Batches(ABC, Iterator[dict[str, Any]]):
    """Endless iterator of batches whose place can be saved and restored exactly.

    `next()` gives a dict with `pixel_values`, float32 (B, C, H, W) in [-1, 1], or `points`, float32 (B, 2), on the
    device; `class_labels`, int64 (B,), if the data has classes; `captions`, list[str], if it has captions.
    """

    @abstractmethod
    def state_dict(self) -> dict[str, Any]:
        """The place in the data, as JSON-serialisable values."""

    @abstractmethod
    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go to a saved place: the next batch is the one that would have come there.

        Raises:
            ValueError: the state is of other data or of another order (seed, ranks).
        """


class Data(ABC):
    """A dataset that gives batches.

    Attributes:
        name: What the user called it.
        fingerprint: Hash of its content: equal for equal data on every machine.
        key: Name of the sample in a batch: "pixel_values" or "points".
        num_samples: Number of samples; None when streamed.
        class_names: Name of each class, in the order of their ids 0, 1, ...; None without classes.
    """

    name: str
    fingerprint: str
    key: str
    num_samples: int | None
    class_names: list[str] | None

    @property
    def num_classes(self) -> int | None:
        """Number of classes; None without classes."""
        return None if self.class_names is None else len(self.class_names)

    @abstractmethod
    def batches(
        self,
        *,
        batch_size: int,
        seed: int,
        rank: int = 0,
        world_size: int = 1,
        device: torch.device | str = "cpu",
    ) -> Batches:
        """An endless seeded order of batches.

        Args:
            batch_size: Samples a batch, on each rank.
            seed: Seed of order, flips and choice of captions; the same on every rank.
            rank: This process, 0 <= rank < world_size.
            world_size: Number of processes that share the data.
            device: Where the tensors are made.
        """


def check_batches(batch_size: int, seed: int, rank: int, world_size: int) -> None:
    """Refuse a batch layout that cannot be served.

    Raises:
        ValueError: names the argument and its value.
    """
    if batch_size < 1:
        raise ValueError(f"batch_size must be at least 1, not {batch_size!r}")
    if seed < 0:
        raise ValueError(f"seed must not be negative, got {seed!r}")
    if not 0 <= rank < world_size:
        raise ValueError(f"rank must be in 0..world_size-1, got rank {rank!r} of world_size {world_size!r}")
