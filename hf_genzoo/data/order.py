"""The endless seeded order of a map-style set, and random numbers addressed by position.

Every random choice of the data layer is a function of (seed, position), never of how many numbers were drawn before:
that is what makes a resumed run, another number of ranks and another split into micro-batches see the same samples.
"""

from abc import abstractmethod
from typing import Any

import numpy as np
import torch

from hf_genzoo.data.interface import Batches, Data, check_batches

FLIP, CAPTION, SHUFFLE = 1, 2, 3
"""Streams of random numbers: one a purpose, so that a flip tells nothing about a caption."""

_GOLDEN = 0x9E3779B97F4A7C15


def _mix(x: np.ndarray) -> np.ndarray:
    """The finaliser of SplitMix64 (Steele et al. 2014, fig. 19) on uint64 values of any shape."""
    x = (x ^ (x >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    x = (x ^ (x >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return x ^ (x >> np.uint64(31))


def random_bits(seed: int, stream: int, positions: np.ndarray) -> np.ndarray:
    """64 random bits for each position: a pure function of (seed, stream, position).

    Args:
        seed: Any non-negative integer.
        stream: What the bits are for.
        positions: Integers (N,), at least 0.

    Returns:
        uint64 (N,).
    """
    key = _mix(np.array([(seed * _GOLDEN + stream) % 2**64], dtype=np.uint64))
    steps = (positions.astype(np.uint64) + np.uint64(1)) * np.uint64(_GOLDEN)
    return _mix(_mix(key) + steps)


class EndlessOrder:
    """One endless order of `num_samples` samples: each epoch is its own permutation, of (seed, epoch)."""

    def __init__(self, num_samples: int, seed: int) -> None:
        self.num_samples = num_samples
        self.seed = seed
        self._epochs: dict[int, np.ndarray] = {}

    def _permutation(self, epoch: int) -> np.ndarray:
        if epoch not in self._epochs:
            # A batch touches the running epoch and perhaps the next one: older permutations are dropped.
            self._epochs = {k: v for k, v in self._epochs.items() if k >= epoch - 1}
            self._epochs[epoch] = np.random.default_rng([self.seed, epoch]).permutation(self.num_samples)
        return self._epochs[epoch]

    def take(self, start: int, count: int) -> np.ndarray:
        """Samples at places start, ..., start + count - 1 of the order: int64 (count,), each below num_samples."""
        parts = []
        while count > 0:
            epoch, offset = divmod(start, self.num_samples)
            part = self._permutation(epoch)[offset : offset + count]
            parts.append(part)
            start, count = start + len(part), count - len(part)
        return np.concatenate(parts)


class MapData(Data):
    """A dataset with random access: `gather` is all that a kind of data has to say."""

    num_samples: int

    @abstractmethod
    def gather(
        self, indices: np.ndarray, positions: np.ndarray, seed: int, device: torch.device | str
    ) -> dict[str, Any]:
        """The samples `indices` (B,) as one batch; random choices depend on `seed` and `positions` (B,) only."""

    def batches(
        self,
        *,
        batch_size: int,
        seed: int,
        rank: int = 0,
        world_size: int = 1,
        device: torch.device | str = "cpu",
    ) -> "MapBatches":
        """See `Data.batches`. All ranks share one order: global batch k of B samples on each of W ranks holds its
        places [k B W, (k + 1) B W), rank r those from k B W + r B on. So two ranks of B see together exactly what one
        process of 2 B sees, and batches run across the ends of epochs.
        """
        return MapBatches(self, batch_size=batch_size, seed=seed, rank=rank, world_size=world_size, device=device)


class MapBatches(Batches):
    """Batches of a `MapData`; its state is one number, the place in the order shared by all ranks."""

    def __init__(
        self,
        data: MapData,
        *,
        batch_size: int,
        seed: int,
        rank: int,
        world_size: int,
        device: torch.device | str,
    ) -> None:
        check_batches(batch_size, seed, rank, world_size)
        self.data, self.batch_size, self.seed = data, batch_size, seed
        self.rank, self.world_size, self.device = rank, world_size, device
        self.position = 0
        self._order = EndlessOrder(data.num_samples, seed)

    def __next__(self) -> dict[str, Any]:
        start = self.position + self.rank * self.batch_size
        positions = np.arange(start, start + self.batch_size)
        batch = self.data.gather(self._order.take(start, self.batch_size), positions, self.seed, self.device)
        self.position += self.batch_size * self.world_size
        return batch

    def state_dict(self) -> dict[str, Any]:
        """See `Batches.state_dict`."""
        return {"position": self.position, "seed": self.seed, "fingerprint": self.data.fingerprint}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """See `Batches.load_state_dict`. Batch size and number of ranks may have changed since."""
        check_state(state, {"seed": self.seed, "fingerprint": self.data.fingerprint})
        self.position = int(state["position"])


def check_state(state: dict[str, Any], expected: dict[str, Any]) -> None:
    """Refuse the state of another order or of other data.

    Raises:
        ValueError: lists what differs.
    """
    wrong = [f"{k}: saved {state.get(k)!r}, now {v!r}" for k, v in expected.items() if state.get(k) != v]
    if wrong:
        raise ValueError("the saved place belongs to other data or another order: " + "; ".join(wrong))
