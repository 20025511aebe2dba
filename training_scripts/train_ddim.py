"""Train a denoising diffusion implicit model (Song, Meng & Ermon 2021, https://arxiv.org/abs/2010.02502).

The network and its training are those of `ddpm`. For each eta the paper defines another process, from one whose
samples are drawn with noise at every step (eta 1, DDPM) to one without (eta 0, DDIM). All have the same marginals and,
but for the weights of the noise levels, the same objective (theorem 1). So what is new is the sampler alone, and any
model of `ddpm` can be opened with it: `ImplicitDiffusionPipeline.from_pretrained(folder)`. This script trains one and
exports it with that sampler.

What differs from the paper: the flags of `ddpm` for other noise schedules, predictions and weights, and for classes.
"""

import sys
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, ClassVar, Literal

from diffusers import DDPMScheduler
from PIL import Image
from torch import nn

from hf_genzoo.pipelines.ddim import ImplicitDiffusionPipeline, implicit_scheduler
from hf_genzoo.training.args import flag
from hf_genzoo.training.script import run_script
from hf_genzoo.training_scripts import train_ddpm
from hf_genzoo.training_scripts.train_ddpm import SimpleArgs, build, samples, sampling_options, train

__all__ = ["PRESETS", "SMALL", "TINY", "Args", "build", "main"]


@dataclass
class Args(SimpleArgs):
    family: ClassVar[str] = "ddim"

    timestep_spacing: Literal["trailing", "uniform", "quadratic"] = flag(
        "trailing",
        "Grid of sampling steps where the call names none: evenly from the noisiest level down; range(0, T, T // S), "
        "as in the authors' code; or its squares, up to 0.8 T.",
    )


TINY: dict[str, Any] = {**train_ddpm.TINY}
SMALL: dict[str, Any] = {**train_ddpm.SMALL}
PRESETS = {"tiny": TINY, "small": SMALL}


def main(args: Args) -> Path:
    return train(  # Song et al. 2021, eq. 5 with gamma = 1: algorithm 1 of Ho et al. 2020
        args,
        export=partial(export, timestep_spacing=args.timestep_spacing),
        preview=partial(preview, args=args),
        sampling={},
    )


def export(
    nets: dict[str, nn.Module], scheduler: DDPMScheduler, class_names: list[str] | None, timestep_spacing: str
) -> ImplicitDiffusionPipeline:
    id2label = None if class_names is None else dict(enumerate(class_names))
    sampler = implicit_scheduler(scheduler, timestep_spacing)
    return ImplicitDiffusionPipeline(unet=nets["unet"], scheduler=sampler, id2label=id2label)  # type: ignore[arg-type]


def preview(pipeline: ImplicitDiffusionPipeline, args: Args) -> list[Image.Image]:
    """Samples of eta 0 from the same noise each time; one class after the other where there are classes."""
    pipeline.set_progress_bar_config(disable=True)
    return samples(pipeline, args, **sampling_options(args, pipeline.num_classes))


if __name__ == "__main__":
    sys.exit(run_script(sys.modules[__name__]))
