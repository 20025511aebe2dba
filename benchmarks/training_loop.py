"""What `Run` costs on a SMALL step, and how long a step waits for data and for checkpoints.

`Run` is set against a bare loop that does the same learning with the same network and nothing else: draw a batch,
forward, backward, clip, AdamW, learning rate, EMA.
"""

import itertools
import statistics
import tempfile
import time
from pathlib import Path
from typing import Any

import torch
from diffusers.optimization import get_scheduler
from diffusers.training_utils import EMAModel

from benchmarks.timing import interleaved, median_ratio
from hf_genzoo.data import image_dataset
from hf_genzoo.training.optimizers import adam
from hf_genzoo.training.run import Run
from hf_genzoo.training_scripts import train_ddpm


def small_args(folder: Path, **changes: Any) -> train_ddpm.Args:
    """The SMALL preset of ddpm, without labels and without anything that happens between steps unless asked for."""
    quiet = {"output_dir": str(folder), "class_column": None, "checkpointing_steps": 10**9, "logging_steps": 10}
    return train_ddpm.Args(**{**train_ddpm.SMALL, **quiet, **changes})


def learn(args: train_ddpm.Args, unet: torch.nn.Module, scheduler: Any, x_0: torch.Tensor) -> torch.Tensor:
    """The algorithm box of `train_ddpm`, shared by both loops."""
    noise = torch.randn_like(x_0)
    t = train_ddpm.draw_timesteps(len(x_0), scheduler.alphas_cumprod, args, progress=0.0)
    x_t = scheduler.add_noise(x_0, noise, t)
    target = train_ddpm.training_target(scheduler, x_0, noise, t, args.prediction_type)
    return (unet(x_t, t).sample - target).square().mean()


def bare_loop(args: train_ddpm.Args) -> Any:
    """A generator: each `next` is one step of the bare loop."""
    torch.manual_seed(args.seed)
    unet = train_ddpm.build(args)["unet"]
    if args.channels_last:
        unet.to(memory_format=torch.channels_last)
    scheduler = train_ddpm.noise_schedule(args)
    optimizer = adam(unet, args)
    rate = get_scheduler("constant", optimizer)
    average = EMAModel(
        unet.parameters(), args.ema_max_decay, use_ema_warmup=True, inv_gamma=args.ema_inv_gamma, foreach=True
    )
    batches = image_dataset(args).batches(batch_size=args.train_batch_size, seed=args.seed)
    for batch in batches:
        learn(args, unet, scheduler, batch["pixel_values"]).backward()
        torch.nn.utils.clip_grad_norm_(unet.parameters(), args.max_grad_norm)
        optimizer.step()
        rate.step()
        optimizer.zero_grad()
        average.step(unet.parameters())
        yield


def run_loop(args: train_ddpm.Args) -> tuple[Run, Any]:
    """The same through `Run`: the run, and a generator whose every `next` is one whole step."""
    torch.manual_seed(args.seed)
    nets = train_ddpm.build(args)
    scheduler = train_ddpm.noise_schedule(args)
    run = Run(
        args,
        nets=nets,
        optimizers={"unet": adam(nets["unet"], args)},
        ema=["unet"],
        data=image_dataset(args),
        export=lambda nets: train_ddpm.export(nets, scheduler, None),
    )

    def steps() -> Any:
        for _ in run.steps():
            for batch in run.update("unet"):
                run.backward(learn(args, run.nets["unet"], scheduler, batch["pixel_values"]))
            yield

    return run, steps()


def measure(rounds: int = 40) -> dict[str, float]:
    """Median step of each loop, their ratio, the share of waiting for data, and the share of checkpoints."""
    with tempfile.TemporaryDirectory() as name:
        bare = bare_loop(small_args(Path(name) / "bare"))
        run, ours = run_loop(small_args(Path(name) / "run", max_train_steps=10**6, lr_scheduler="constant"))
        # `next` on ours ends inside a step's body; what follows the body is paid by the next call, as it should be.
        seconds = interleaved([lambda: next(bare), lambda: next(ours)], rounds)
        step = statistics.median(seconds[1])
        waited = run.data_seconds / (rounds + 2) / step
        checkpoint = _checkpoint_seconds(run)
        interval = train_ddpm.Args().checkpointing_steps
        return {
            "bare_step_ms": 1e3 * statistics.median(seconds[0]),
            "run_step_ms": 1e3 * step,
            "run_cost_percent": 100 * (median_ratio(seconds[1], seconds[0]) - 1),
            "data_wait_percent": 100 * waited,
            "checkpoint_ms": 1e3 * checkpoint,
            "checkpoint_percent": 100 * checkpoint / (interval * step + checkpoint),
        }


def _checkpoint_seconds(run: Run, times: int = 5) -> float:
    taken = []
    for number in itertools.islice(itertools.count(1), times):
        started = time.perf_counter()
        run.step = number
        run._save_checkpoint()
        taken.append(time.perf_counter() - started)
    return statistics.median(taken)
