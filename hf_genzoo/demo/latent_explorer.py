"""The latent explorer: a map of the data, a slider for each dimension, and the way between two pictures."""

from diffusers.pipelines.pipeline_utils import DiffusionPipeline

from .between_tab import add_between_tab
from .examples import Examples
from .latent_model import LatentModel
from .map_tab import add_map_tab
from .sliders_tab import add_sliders_tab

LEAST_ON_A_MAP = 8


def add_latent_tabs(pipeline: DiffusionPipeline, examples: Examples | None) -> None:
    """Put the explorer's tabs into the page that is being built.

    Args:
        pipeline: Has a vector latent (`latent_model.has_vector_latent`).
        examples: Real pictures, for the map; without them, or without an encoder, there is none.
    """
    model = LatentModel(pipeline, examples)
    if model.latents is not None and len(model.latents) >= LEAST_ON_A_MAP:
        add_map_tab(model)
    add_sliders_tab(model)
    add_between_tab(model)
