"""Peak memory: of a ddpm SMALL training, and of a streamed training, which must not grow with the rows seen."""

import io
import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import datasets
import numpy as np
from PIL import Image

_CHILD = """
import json, sys
from hf_genzoo.api import train
train(sys.argv[1], **json.loads(sys.argv[2]))
"""


def peak_megabytes(family: str, settings: dict[str, Any]) -> float:
    """Train in a process of its own and return its largest resident size in MB.

    Raises:
        RuntimeError: if the training fails, with what it printed.
    """
    with tempfile.TemporaryFile("w+") as log:
        words = [sys.executable, "-c", _CHILD, family, json.dumps(settings)]
        child = subprocess.Popen(words, stdout=log, stderr=subprocess.STDOUT)
        _, status, usage = os.wait4(child.pid, 0)
        if status:
            log.seek(0)
            raise RuntimeError(f"training {family} failed: {log.read()[-2000:]}")
    return usage.ru_maxrss / 1024


def write_rows(folder: Path, rows: int, rows_per_file: int = 50_000) -> None:
    """A Parquet set of `rows` small random pictures, in files of `rows_per_file`."""
    folder.mkdir(parents=True)
    rng = np.random.default_rng(0)
    pictures = []
    for _ in range(256):
        buffer = io.BytesIO()
        Image.fromarray(rng.integers(0, 255, (8, 8), dtype=np.uint8)).save(buffer, format="PNG")
        pictures.append({"bytes": buffer.getvalue(), "path": None})
    features = datasets.Features({"image": datasets.Image()})
    for number, start in enumerate(range(0, rows, rows_per_file)):
        table = {"image": [pictures[i % 256] for i in range(start, min(start + rows_per_file, rows))]}
        datasets.Dataset.from_dict(table, features=features).to_parquet(folder / f"part-{number:03d}.parquet")


def small_training(steps: int = 60) -> dict[str, float]:
    """Peak of `make demo`'s training, cut short: memory stops growing after the first steps and the first grid."""
    with tempfile.TemporaryDirectory() as name:
        settings = {"preset": "small", "output_dir": f"{name}/run", "max_train_steps": steps}
        return {"ddpm_small_peak_mb": peak_megabytes("ddpm", settings)}


def streaming(rows: int = 1_000_000, batch_size: int = 500) -> dict[str, float]:
    """Peaks after a tenth of a streamed set, and after all of it: the tiny network sees every row once."""
    peaks = {}
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name) / "set"
        write_rows(folder, rows)
        for seen in (rows // 10, rows):
            settings = {
                "preset": "tiny",
                "dataset_name": None,
                "train_data_dir": str(folder),
                "streaming": True,
                "train_batch_size": batch_size,
                "output_dir": f"{name}/run-{seen}",
                "max_train_steps": seen // batch_size,
            }
            peaks[f"streamed_{seen}_rows_peak_mb"] = peak_megabytes("ddpm", settings)
    return peaks
