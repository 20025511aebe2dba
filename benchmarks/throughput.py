"""Images/s of the SMALL presets, and of the same diffusion network fed the way diffusers' example feeds it.

diffusers' `train_unconditional.py` decodes, resizes and normalises every picture anew in every epoch, one by one, in a
`DataLoader` without workers; here that is done with PIL and torch, since torchvision is not needed for it.
"""

import io
import statistics
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image

from benchmarks.timing import interleaved, median_ratio
from benchmarks.training_loop import learn, run_loop, small_args
from hf_genzoo.data import image_dataset
from hf_genzoo.training.optimizers import adam
from hf_genzoo.training_scripts import train_ddpm


class PicturesOneByOne(torch.utils.data.Dataset[torch.Tensor]):
    """PNG files in memory; each access decodes, resizes and normalises."""

    def __init__(self, pixels: np.ndarray, resolution: int) -> None:
        self.files, self.resolution = [], resolution
        for picture in pixels:
            buffer = io.BytesIO()
            Image.fromarray(picture[0]).save(buffer, format="PNG")
            self.files.append(buffer.getvalue())

    def __len__(self) -> int:
        return len(self.files)

    def __getitem__(self, index: int) -> torch.Tensor:
        image = Image.open(io.BytesIO(self.files[index])).convert("L")
        image = image.resize((self.resolution, self.resolution), Image.Resampling.BILINEAR)
        return torch.from_numpy(np.asarray(image, dtype=np.float32) / 127.5 - 1)[None]


def one_by_one_loop(args: train_ddpm.Args) -> Any:
    """A generator: each `next` is one step of the same network fed picture by picture."""
    torch.manual_seed(args.seed)
    unet, scheduler = train_ddpm.build(args)["unet"], train_ddpm.noise_schedule(args)
    optimizer = adam(unet, args)
    pictures = PicturesOneByOne(image_dataset(args).pixels, args.resolution)  # type: ignore[attr-defined]
    loader = torch.utils.data.DataLoader(pictures, batch_size=args.train_batch_size, shuffle=True, drop_last=True)
    while True:
        for x_0 in loader:
            learn(args, unet, scheduler, x_0).backward()
            torch.nn.utils.clip_grad_norm_(unet.parameters(), args.max_grad_norm)
            optimizer.step()
            optimizer.zero_grad()
            yield


def feeding(rounds: int = 30) -> dict[str, float]:
    """ddpm SMALL: images/s through `Run` and fed one by one, and their ratio."""
    with tempfile.TemporaryDirectory() as name:
        args = small_args(Path(name) / "run", max_train_steps=10**6, lr_scheduler="constant")
        _, ours = run_loop(args)
        theirs = one_by_one_loop(args)
        seconds = interleaved([lambda: next(ours), lambda: next(theirs)], rounds)
    size = args.train_batch_size
    return {
        "ours_images_per_second": size / statistics.median(seconds[0]),
        "one_by_one_images_per_second": size / statistics.median(seconds[1]),
        "speed_ratio": median_ratio(seconds[1], seconds[0]),
    }


def presets(steps: int = 30) -> dict[str, float]:
    """Images/s (training samples drawn a second) of each family's SMALL preset, from its own log."""
    import json

    from hf_genzoo.api import script_of
    from hf_genzoo.families import FAMILIES

    found = {}
    for family in FAMILIES:
        with tempfile.TemporaryDirectory() as name:
            script = script_of(family)
            cut_short = {"max_train_steps": steps, "logging_steps": steps // 3, "num_validation_images": 4}
            script.main(script.Args(**{**script.SMALL, **cut_short, "output_dir": name}))
            entries = [json.loads(line) for line in (Path(name) / "logs/metrics.jsonl").read_text().splitlines()]
            found[f"{family}_images_per_second"] = statistics.median(e["images_per_second"] for e in entries[1:])
    return found
