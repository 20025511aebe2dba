"""Samples on disk: drawn in chunks, so that a kill loses no more than one, several processes share the work, and
asking again for the same samples draws nothing.

Each chunk records the time it took and the evaluations of each network, counted while it was drawn.
"""

import json
import platform
import time
import zipfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from tqdm.auto import tqdm

from hf_genzoo.atomic import replacing
from hf_genzoo.data.fingerprint import digest
from hf_genzoo.evaluation.counting import count_evaluations
from hf_genzoo.evaluation.sources import PipelineSource, SampleError, Source

CHUNK = 100


@dataclass(frozen=True)
class Speed:
    """What drawing samples cost.

    Attributes:
        ms_per_image: Milliseconds a sample takes in a batch: the median over chunks.
        interval: Its 95 % interval (that of the median, by ranks); None with fewer than 6 chunks.
        evaluations: Rows that went through each network, a sample.
        batch_size: Samples drawn at once.
        where: Device, processor and threads.
    """

    ms_per_image: float
    interval: tuple[float, float] | None
    evaluations: dict[str, float]
    batch_size: int
    where: str

    @property
    def network_evaluations(self) -> float:
        """NFE: evaluations a sample of the network that is evaluated most."""
        return max(self.evaluations.values(), default=0.0)


@dataclass(frozen=True)
class Samples:
    """Samples 0 to N - 1 of a source.

    Attributes:
        values: Pictures, uint8 (N, C, H, W), or points, float32 (N, 2).
        speed: What they cost; None for a folder of pictures.
        key: Names them in caches.
    """

    values: NDArray[Any]
    speed: Speed | None
    key: str


class Store:
    """The chunks of one source.

    Args:
        root: Folder of all caches.
        source: Where samples come from.
        batch_size: Samples drawn at once.
        rank: This process.
        world_size: Processes that share the work; all see the same folder.
    """

    def __init__(
        self, root: Path, source: Source, batch_size: int = CHUNK, rank: int = 0, world_size: int = 1
    ) -> None:
        if batch_size < 1:
            raise ValueError(f"--batch_size must be at least 1, not {batch_size}")
        self.source, self.batch_size, self.rank, self.world_size = source, batch_size, rank, world_size
        self._folder = root / "samples" / source.key
        self._folder.mkdir(parents=True, exist_ok=True)

    def draw(self, count: int, wait: Callable[[], None] = lambda: None) -> Samples:
        """Samples 0 to count - 1; what is not there is drawn, by all processes together.

        Args:
            count: How many.
            wait: Returns when every process has called it.

        Raises:
            SampleError: if the source holds fewer, or gives something that cannot be measured.
        """
        if self.source.limit is not None and count > self.source.limit:
            raise SampleError(f"{self.source.name} holds {self.source.limit} pictures, {count} are asked for")
        chunks = range(-(-count // CHUNK))
        missing = [number for number in chunks if self._read(number, count) is None]
        mine = [number for number in missing if number % self.world_size == self.rank]
        if mine:
            total = sum(len(self._numbers(number, count)) for number in mine)
            title = f"sampling {self.source.name}"
            with tqdm(total=total, desc=title, unit="img", disable=self.rank > 0) as bar:
                for number in mine:
                    self._draw_chunk(number, count)
                    bar.update(len(self._numbers(number, count)))
        wait()
        parts = [self._read(number, count) for number in chunks]
        if any(part is None for part in parts):
            raise SampleError(f"a process that shared the drawing left chunks of {self._folder} out; run it again")
        whole = np.concatenate([values for values, _ in parts])[:count]  # pyright: ignore[reportGeneralTypeIssues]
        speed = self._speed([facts for _, facts in parts])  # pyright: ignore[reportGeneralTypeIssues]
        return Samples(whole, speed, digest("samples", self.source.key, count))

    def _numbers(self, chunk: int, count: int) -> NDArray[np.int64]:
        return np.arange(chunk * CHUNK, min((chunk + 1) * CHUNK, count))

    def _path(self, chunk: int) -> Path:
        return self._folder / f"{chunk:05d}.npz"

    def _read(self, chunk: int, count: int) -> tuple[NDArray[Any], dict[str, Any]] | None:
        """A chunk, or None if it is not there, damaged, or too short."""
        try:
            with np.load(self._path(chunk)) as file:
                values, facts = file["values"], json.loads(str(file["facts"]))
        except (OSError, ValueError, KeyError, zipfile.BadZipFile):
            return None
        needed = len(self._numbers(chunk, count))
        return (values[:needed], facts) if len(values) >= needed else None

    def _draw_chunk(self, chunk: int, count: int) -> None:
        numbers = self._numbers(chunk, count)
        networks = self.source.pipeline.components if isinstance(self.source, PipelineSource) else {}
        started = time.perf_counter()
        with count_evaluations(networks) as counted:
            parts = [
                self.source.draw(numbers[start : start + self.batch_size])
                for start in range(0, len(numbers), self.batch_size)
            ]
        seconds = time.perf_counter() - started
        if len(shapes := {part.shape[1:] for part in parts}) > 1:
            raise SampleError(f"{self.source.name}: samples differ in size: {', '.join(map(str, sorted(shapes)))}")
        facts = {
            "seconds": seconds,
            "samples": len(numbers),
            "rows": counted.rows,
            "batch_size": min(self.batch_size, len(numbers)),
            "where": machine(self._device, self.world_size),
        }
        with replacing(self._path(chunk)) as aside, aside.open("wb") as file:
            np.savez(file, values=np.concatenate(parts), facts=json.dumps(facts))

    @property
    def _device(self) -> torch.device:
        return self.source.pipeline.device if isinstance(self.source, PipelineSource) else torch.device("cpu")

    def _speed(self, facts: list[dict[str, Any]]) -> Speed | None:
        """Of the chunks that were drawn here in the present batches, or of all if none was.

        The first chunk holds what a first call costs, so it counts only where it is alone.
        """
        if not isinstance(self.source, PipelineSource):
            return None
        here = [fact for fact in facts if fact["where"] == machine(self._device, self.world_size)]
        used = here or facts
        used = [fact for fact in used if fact["batch_size"] == used[-1]["batch_size"]] or used
        used = used[1:] if len(used) > 1 else used
        times = np.sort([1000 * fact["seconds"] / fact["samples"] for fact in used])
        drawn = sum(fact["samples"] for fact in facts)
        names = {name for fact in facts for name in fact["rows"]}
        evaluations = {name: sum(fact["rows"].get(name, 0) for fact in facts) / drawn for name in sorted(names)}
        return Speed(
            float(np.median(times)), _median_interval(times), evaluations, used[0]["batch_size"], used[0]["where"]
        )


def time_in_turn(
    sources: Mapping[str, PipelineSource], batch_size: int, rounds: int = 5
) -> dict[str, tuple[list[float], float]]:
    """Time pipelines against each other: in every round each draws one batch, after one round that is not counted.

    Args:
        sources: The pipelines by name.
        batch_size: Samples of a batch.
        rounds: How many are counted.

    Returns:
        For each name the milliseconds a sample in each round, and the network evaluations a sample.
    """
    times: dict[str, list[float]] = {name: [] for name in sources}
    evaluations: dict[str, float] = {}
    with tqdm(total=(rounds + 1) * len(sources), desc="timing", unit="batch", disable=None, leave=False) as bar:
        for number in range(rounds + 1):
            for name, source in sources.items():
                with count_evaluations(source.pipeline.components) as counted:
                    started = time.perf_counter()
                    source.draw(np.arange(batch_size))
                    seconds = time.perf_counter() - started
                if number > 0:
                    times[name].append(1000 * seconds / batch_size)
                evaluations[name] = max(counted.rows.values(), default=0) / batch_size
                bar.update()
    return {name: (times[name], evaluations[name]) for name in sources}


def _median_interval(values: NDArray[np.float64]) -> tuple[float, float] | None:
    """The 95 % interval of a median by order statistics, from sorted values; None below 6, where there is none."""
    from scipy.stats import binom

    if len(values) < 6:
        return None
    rank = int(binom.ppf(0.025, len(values), 0.5))  # counted from 1, from either end
    return float(values[rank - 1]), float(values[-rank])


def machine(device: torch.device, num_processes: int = 1) -> str:
    """Where samples are drawn, in words that tell machines of different speed apart."""
    if device.type == "cuda":
        return f"{torch.cuda.get_device_name(device)}, {_several(num_processes, 'process')}"
    return f"{processor()}, {_several(torch.get_num_threads(), 'thread')}, {_several(num_processes, 'process')}"


def _several(count: int, noun: str) -> str:
    plural = noun + ("es" if noun.endswith("s") else "s")
    return f"{count} {noun if count == 1 else plural}"


def processor() -> str:
    """The processor's name, where the system tells it."""
    cpuinfo = Path("/proc/cpuinfo")
    if cpuinfo.is_file():
        for line in cpuinfo.read_text().splitlines():
            if line.startswith("model name"):
                return line.split(":", 1)[1].strip()
    return platform.processor() or platform.machine()
