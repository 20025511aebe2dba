"""The recipe of diffusers' examples/unconditional_image_generation, written anew, trained for a given wall time.

Uniform t, noise prediction, linear schedule, AdamW 1e-4 with betas (0.95, 0.999) and weight decay 1e-6, 500 warm-up
steps then a cosine, gradient norm clipped at 1, EMA with power 0.75, batches of 16, every picture decoded by PIL and
transformed when the loader asks for it: that script's defaults. What differs: the network fits the budget (its default
has 114 M parameters), the picture is not resized, and the length of the cosine is estimated from the first steps,
since here the clock ends the training and not a number of epochs.
"""

import math
import time
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from diffusers import DDPMScheduler, UNet2DModel
from diffusers.optimization import get_cosine_schedule_with_warmup
from diffusers.training_utils import EMAModel
from torch.utils.data import DataLoader

BATCH_SIZE = 16
WARMUP_STEPS = 500
PROBE_STEPS = 20


def network() -> UNet2DModel:
    """3.9 M parameters in that script's style: two residual blocks a level, attention at the coarsest."""
    return UNet2DModel(
        sample_size=28,
        in_channels=1,
        out_channels=1,
        layers_per_block=2,
        block_out_channels=(32, 64, 128),
        down_block_types=("DownBlock2D", "DownBlock2D", "AttnDownBlock2D"),
        up_block_types=("AttnUpBlock2D", "UpBlock2D", "UpBlock2D"),
    )


def _transform(rows: dict[str, list[Any]]) -> dict[str, list[torch.Tensor]]:
    """Grey, to a tensor, normalised to [-1, 1]: one picture after the other."""
    arrays = [np.array(image.convert("L"), dtype=np.float32) for image in rows["image"]]
    return {"pixels": [torch.from_numpy(array)[None] / 127.5 - 1 for array in arrays]}


def train_theirs(net: UNet2DModel, dataset: Any, seconds: float, seed: int = 0) -> dict[str, Any]:
    """Train `net` for `seconds` of wall time and leave its EMA weights in it.

    Args:
        net: The network; trained in place.
        dataset: `datasets.Dataset` with an `image` column.
        seconds: Wall time of the training loop.
        seed: Seed of order and noise.

    Returns:
        "steps", "images_seen", "seconds", "images_per_second" and "loss" (mean of the last 100 steps).
    """
    torch.manual_seed(seed)
    loader = DataLoader(dataset.with_transform(_transform), batch_size=BATCH_SIZE, shuffle=True, drop_last=True)
    scheduler = DDPMScheduler(num_train_timesteps=1000, beta_schedule="linear", prediction_type="epsilon")
    optimizer = torch.optim.AdamW(net.parameters(), lr=1e-4, betas=(0.95, 0.999), weight_decay=1e-6, eps=1e-8)
    ema = EMAModel(net.parameters(), decay=0.9999, use_ema_warmup=True, inv_gamma=1.0, power=0.75)
    schedule, losses, step, printed = None, [], 0, 0.0
    net.train()
    started = time.perf_counter()
    while (elapsed := time.perf_counter() - started) < seconds:
        for batch in loader:
            loss = _loss(net, scheduler, batch["pixels"])
            loss.backward()
            torch.nn.utils.clip_grad_norm_(net.parameters(), 1.0)
            if schedule is None:
                for group in optimizer.param_groups:  # the warm-up, until the probe knows how long the cosine is
                    group["lr"] = 1e-4 * step / WARMUP_STEPS
            optimizer.step()
            optimizer.zero_grad()
            ema.step(net.parameters())
            step += 1
            losses = [*losses[-99:], loss.item()]
            elapsed = time.perf_counter() - started
            if schedule is not None:
                schedule.step()
            elif step == PROBE_STEPS:
                schedule = _cosine(optimizer, step, total=math.ceil(step * seconds / elapsed))
            if elapsed - printed > 30:
                printed = elapsed
                print(f"  {elapsed:.0f}/{seconds:.0f} s, step {step}, loss {np.mean(losses):.4f}", flush=True)
            if elapsed >= seconds:
                break
    ema.copy_to(net.parameters())
    net.eval()
    return {
        "steps": step,
        "images_seen": step * BATCH_SIZE,
        "seconds": round(elapsed, 1),
        "images_per_second": round(step * BATCH_SIZE / elapsed, 1),
        "loss": float(np.mean(losses)),
    }


def _loss(net: UNet2DModel, scheduler: DDPMScheduler, clean: torch.Tensor) -> torch.Tensor:
    noise = torch.randn_like(clean)
    t = torch.randint(0, scheduler.config["num_train_timesteps"], (len(clean),))
    return F.mse_loss(net(scheduler.add_noise(clean, noise, t), t).sample, noise)  # type: ignore[arg-type]


def _cosine(optimizer: torch.optim.Optimizer, step: int, total: int) -> torch.optim.lr_scheduler.LambdaLR:
    """Their schedule over `total` steps, as if it had run since step 0."""
    for group in optimizer.param_groups:
        group["lr"] = group["initial_lr"] = 1e-4
    return get_cosine_schedule_with_warmup(optimizer, WARMUP_STEPS, max(total, WARMUP_STEPS + 1), last_epoch=step - 1)


@torch.inference_mode()
def sample_theirs(net: UNet2DModel, count: int, steps: int = 100, seed: int = 0, batch_size: int = 100) -> np.ndarray:
    """Pictures, uint8 (count, 28, 28), by their ancestral sampler, at a tenth of its 1,000 steps.

    All steps would take an hour on a CPU. A tenth looks the same; DDIM does not: it leaves the noise of an
    undertrained network in the picture.
    """
    scheduler = DDPMScheduler(num_train_timesteps=1000, beta_schedule="linear", prediction_type="epsilon")
    scheduler.set_timesteps(steps)
    generator = torch.Generator().manual_seed(seed)
    noise = torch.randn(count, 1, 28, 28, generator=generator)
    drawn = []
    for x_t in noise.split(batch_size):
        for t in scheduler.timesteps:
            x_t = scheduler.step(net(x_t, t).sample, int(t), x_t, generator=generator).prev_sample  # type: ignore[union-attr]
        drawn.append(x_t)
        print(f"  {sum(map(len, drawn))}/{count} samples", flush=True)
    pixels = (torch.cat(drawn) / 2 + 0.5).clamp(0, 1) * 255
    return pixels.round().to(torch.uint8).squeeze(1).numpy()
