"""What a run reports: loss terms kept on the device, one log entry every few steps, metrics.jsonl and trackers."""

import json
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from accelerate import Accelerator
from PIL import Image


class MetricLog:
    """Means of loss terms between log entries.

    Terms are summed on the device; `write` reads them all with one transfer and averages them over processes. A value
    that is not finite belongs to a skipped step and is left out of its mean.
    """

    def __init__(self, accelerator: Accelerator, folder: Path) -> None:
        self._accelerator = accelerator
        self._path = folder / "metrics.jsonl"
        self._sums: dict[str, torch.Tensor] = {}
        self._counts: dict[str, torch.Tensor] = {}
        self._clock = time.perf_counter()
        self._images = 0
        self.latest_loss: dict[str, float] = {}

    def add(self, name: str, value: torch.Tensor, weight: float) -> None:
        """Add one micro-batch's value of a term; `weight` is its share of an optimiser step."""
        value = value.detach().float()
        finite = torch.isfinite(value)
        total, count = torch.where(finite, value, 0.0) * weight, finite * weight
        self._sums[name] = self._sums[name] + total if name in self._sums else total
        self._counts[name] = self._counts[name] + count if name in self._counts else count

    def count_images(self, number: int) -> None:
        """Count training samples seen by all processes, for images/s."""
        self._images += number

    def write(self, step: int, extra: Mapping[str, float]) -> dict[str, float]:
        """Close the interval: return its means with images/s and `extra`, and append them to the logs."""
        seconds = time.perf_counter() - self._clock
        names = sorted(self._sums)
        means = torch.stack([self._sums[n] / self._counts[n] for n in names])
        values = self._accelerator.reduce(means, reduction="mean").tolist()  # pyright: ignore[reportAttributeAccessIssue]
        entry = dict(zip(names, values, strict=True)) | dict(extra)
        entry["images_per_second"] = self._images / max(seconds, 1e-9)
        self.latest_loss = {n: v for n, v in entry.items() if n.split("/")[-1] == "loss"}
        self._sums, self._counts, self._images = {}, {}, 0
        self._clock = time.perf_counter()
        if self._accelerator.is_main_process:
            with self._path.open("a") as file:
                file.write(json.dumps({"step": step, **entry}) + "\n")
        self._accelerator.log(entry, step=step)
        return entry

    def write_evaluation(self, step: int, found: Mapping[str, float]) -> None:
        """Append what an evaluation found, on the main process; the open interval goes on."""
        entry = {f"eval/{name}": value for name, value in found.items()}
        with self._path.open("a") as file:
            file.write(json.dumps({"step": step, **entry}) + "\n")
        for tracker in self._accelerator.trackers:
            tracker.log(entry, step=step)

    def log_images(self, name: str, image: Image.Image, step: int) -> None:
        """Hand a picture to every tracker that shows pictures."""
        for tracker in self._accelerator.trackers:
            if hasattr(tracker, "log_images"):  # a tracker's optional ability, not a family's type
                batch = np.array(image.convert("RGB"))[None]
                tracker.log_images({name: batch}, step=step, **_LAYOUT.get(tracker.name, {}))

    def rewind(self, step: int) -> None:
        """Drop entries after `step`, left by a run that was killed later than its last checkpoint."""
        if not self._path.exists():
            return
        kept = []
        for line in self._path.read_text().splitlines():
            try:
                if json.loads(line)["step"] <= step:
                    kept.append(line)
            except (json.JSONDecodeError, KeyError):
                continue  # a line torn by the kill
        self._path.write_text("".join(line + "\n" for line in kept))

    def state_dict(self) -> dict[str, Any]:
        """The open interval."""
        return {"sums": dict(self._sums), "counts": dict(self._counts), "latest_loss": self.latest_loss}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Restore what `state_dict` gave."""
        device = self._accelerator.device
        self._sums = {name: value.to(device) for name, value in state["sums"].items()}
        self._counts = {name: value.to(device) for name, value in state["counts"].items()}
        self.latest_loss = state["latest_loss"]


_LAYOUT: dict[str, dict[str, str]] = {"tensorboard": {"dataformats": "NHWC"}}
