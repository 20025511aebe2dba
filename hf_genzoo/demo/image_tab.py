"""Image to image: a picture goes in, and a slider moves between before and after."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import gradio as gr
from diffusers.pipelines.pipeline_utils import DiffusionPipeline
from PIL import Image

from .box import blanked
from .examples import Examples
from .form import Form, Request, scale_of
from .panel import Panel
from .tasks import Task

_OFFERED = 6


def made_small(picture: Image.Image, scale: int) -> Image.Image:
    """A picture as a model that enlarges it `scale` times is given it: bicubic, with antialiasing."""
    size = (max(1, picture.width // scale), max(1, picture.height // scale))
    return picture if scale == 1 else picture.resize(size, Image.Resampling.BICUBIC)


def add_image_tab(
    pipeline: DiffusionPipeline, task: Task, examples: Examples | None, defaults: Mapping[str, Any]
) -> None:
    """Put image to image into the page that is being built.

    Args:
        pipeline: The shared pipeline.
        task: What it does.
        examples: Pictures to offer.
        defaults: Settings to begin with.
    """
    form = Form(pipeline, task, defaults)
    panel = Panel(form, "Change")
    with gr.Row():
        with gr.Column(min_width=300, scale=2):
            form.add()
            panel.add_buttons()
            if examples is not None and len(examples):
                pictures = [examples.picture(index) for index in range(min(_OFFERED, len(examples)))]
                offered = [[made_small(picture, scale_of(pipeline) or 1)] for picture in pictures]
                gr.Examples(offered, [form.fields["image"]], label="Try one")
        with gr.Column(min_width=300, scale=3):
            panel.add_status()
            slider = gr.ImageSlider(label="Before and after", type="filepath", interactive=False, elem_id="pair")
            panel.add_downloads()

    def show(pictures: list[Path], asked: Request) -> list[Any]:
        with Image.open(pictures[0]) as after:
            before = asked.call["image"]
            if task.partial:
                before = blanked(before, asked.call["mask_image"])
            before = before.resize(after.size, Image.Resampling.LANCZOS)
        path = pictures[0].with_name("before.png")
        before.save(path)
        return [(str(path), str(pictures[0]))]

    panel.wire([slider], show, "change")
