"""Other samplers for a trained denoiser, each in a pipeline of its own: the shared one is never touched."""

import copy
import inspect
from typing import Any

import diffusers
import torch
from diffusers.pipelines.pipeline_utils import DiffusionPipeline

CANDIDATES = {
    "DDPM": "DDPMScheduler",
    "DDIM": "DDIMScheduler",
    "DPM-Solver++": "DPMSolverMultistepScheduler",
    "Euler": "EulerDiscreteScheduler",
}
"""What is offered beside the model's own, by the names people know them by."""


def samplers_of(pipeline: DiffusionPipeline) -> dict[str, Any]:
    """Schedulers that fit the pipeline's network, the model's own first; empty if it has none.

    One fits if diffusers counts it among the compatible ones and it takes a step with the model's configuration.
    """
    own = pipeline.components.get("scheduler")
    if own is None:
        return {}
    names = {cls: name for name, cls in CANDIDATES.items()}
    found = {names.get(type(own).__name__, type(own).__name__): own}
    compatible = {cls.__name__ for cls in getattr(own, "compatibles", [])}
    for name, cls in CANDIDATES.items():
        if name not in found and cls in compatible:
            scheduler = getattr(diffusers, cls).from_config(own.config)
            if _takes_a_step(scheduler):
                found[name] = scheduler
    return found


def own_pipeline(pipeline: DiffusionPipeline, scheduler: Any = None) -> DiffusionPipeline:
    """A pipeline for one request: the same networks, with a scheduler that nobody else uses.

    Args:
        pipeline: The shared one. It stays as it is.
        scheduler: Its scheduler, which is copied; the shared one's by default.
    """
    settings = inspect.signature(type(pipeline).__init__).parameters.keys() - {"self", *pipeline.components}
    parts = dict(pipeline.components)
    if parts.get("scheduler") is not None:
        parts["scheduler"] = copy.deepcopy(scheduler or parts["scheduler"])
    own = type(pipeline)(**parts, **{name: pipeline.config[name] for name in settings if name in pipeline.config})
    own.set_progress_bar_config(disable=True)
    return own


def _takes_a_step(scheduler: Any) -> bool:
    """Whether a scheduler works with its configuration; some refuse one only when they are used."""
    try:
        scheduler.set_timesteps(2)
        x = torch.zeros(1, 1, 2, 2)
        after = scheduler.step(scheduler.scale_model_input(x, scheduler.timesteps[0]), scheduler.timesteps[0], x)
    except (ValueError, NotImplementedError, TypeError, IndexError):
        return False
    return bool(torch.isfinite(after.prev_sample).all())
