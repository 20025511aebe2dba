"""Sampling from noise, by class or from a text: controls on one side, what comes out of them on the other."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import gradio as gr
from diffusers.pipelines.pipeline_utils import DiffusionPipeline

from .form import Form, Request
from .panel import Panel
from .pictures import SMALL
from .tasks import Task


def add_sampling_tab(
    pipeline: DiffusionPipeline, task: Task, defaults: Mapping[str, Any], prompts: tuple[str, ...] = ()
) -> None:
    """Put sampling into the page that is being built.

    Args:
        pipeline: The shared pipeline.
        task: What it does.
        defaults: Settings to begin with.
        prompts: Texts to offer, for text to image.
    """
    form = Form(pipeline, task, defaults)
    panel = Panel(form, "Paint" if task.kind == "text to image" else "Sample")
    with gr.Row():
        with gr.Column(min_width=300, scale=2):
            form.add()
            panel.add_buttons()
            if prompts:
                gr.Examples([[prompt] for prompt in prompts], [form.fields["prompt"]], label="Try")
        with gr.Column(min_width=300, scale=3):
            panel.add_status()
            gallery = gr.Gallery(
                label="Points" if task.points else "Pictures",
                object_fit="contain",
                height="auto",
                interactive=False,
                elem_id="gallery",
                elem_classes=["gallery", "small-pictures"] if form.side and form.side < SMALL else "gallery",
            )
            panel.add_downloads()

    def show(pictures: list[Path], asked: Request) -> list[Any]:
        captions = asked.settings.get("classes") or [None] * len(pictures)
        return [[(str(path), caption) for path, caption in zip(pictures, captions, strict=True)]]

    panel.wire([gallery], show, "sample")
