"""What a scheduler's `step` is given beside the network's output. A part of pipelines' files (see
`hf_genzoo.hub.inline`)."""

import inspect
from typing import Any

import torch


def step_options(scheduler: Any, generator: torch.Generator | list[torch.Generator] | None, eta: float = 0.0) -> dict:
    """The arguments that this scheduler's `step` takes.

    Where x_0 is clipped, eps has to follow from the clipped x_0. DDIM's eps otherwise follows from the unclipped one,
    and a guided x_0 far out of range leads x_t away from where it points: guidance then does the opposite.

    Raises:
        ValueError: If eta is not 0 and the scheduler knows no eta.
    """
    parameters = inspect.signature(scheduler.step).parameters
    if eta != 0.0 and "eta" not in parameters:
        raise ValueError(f"eta {eta} has no meaning for {type(scheduler).__name__}; use DDIMScheduler, or 0")
    options = {"eta": eta, "generator": generator, "use_clipped_model_output": True}
    return {name: value for name, value in options.items() if name in parameters}
