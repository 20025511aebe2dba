"""The controls of a pipeline: those that its call has a use for, and the way from their values to its arguments."""

import inspect
import math
import random
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import gradio as gr
import torch
from diffusers.pipelines.pipeline_utils import DiffusionPipeline
from PIL import Image, ImageOps

from .box import box_fields, box_mask
from .guard import (
    MAX_BATCH_PIXELS,
    MAX_IMAGES,
    MAX_POINTS,
    MAX_PROMPT,
    MAX_SEED,
    MAX_STEPS,
    check_between,
    check_prompt,
    check_upload,
    check_whole,
)
from .samplers import own_pipeline, samplers_of
from .tasks import Task
from .upload import upload

MAX_GUIDANCE = 15.0
_DEFAULT_COUNT, _DEFAULT_POINTS = 16, 500
_SIDES_OF_ANSWER = 4  # an enlarged picture may be that many times as long as the model's own, and as wide
_DEFAULT_SIDE = 512  # what an uploaded picture is shrunk to where the model does not say its own size


@dataclass
class Form:
    """The controls of one pipeline.

    Args:
        pipeline: The shared pipeline.
        task: What it does.
        defaults: Settings to begin with, by names of the call's arguments.
    """

    pipeline: DiffusionPipeline
    task: Task
    defaults: Mapping[str, Any]
    fields: dict[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.samplers = samplers_of(self.pipeline) if self.task.stepwise else {}
        self.side = _side(self.pipeline)
        fitting = MAX_IMAGES if self.side is None else MAX_BATCH_PIXELS // self.side**2
        self.most = MAX_POINTS if self.task.points else max(1, min(MAX_IMAGES, fitting))

    @property
    def batches(self) -> str | None:
        """The argument that says how many samples to make, if there is one."""
        names = ("batch_size", "num_images_per_prompt")
        return next((name for name in names if name in self.task.takes), None)

    def add(self) -> "Form":
        """Put the controls into the page, in the order in which one thinks of them."""
        takes, fields = self.task.takes, self.fields
        if self.task.kind == "image to image":
            fields["image"] = upload(label="Picture", sources=["upload", "clipboard"], height=260)
        if self.task.partial:
            fields |= box_fields()
        if "prompt" in takes:
            fields["prompt"] = gr.Textbox("", label="Prompt", lines=2, max_length=MAX_PROMPT, autofocus=True)
        if "negative_prompt" in takes:
            fields["negative_prompt"] = gr.Textbox("", label="Not in the picture", lines=1, max_length=MAX_PROMPT)
        if (self.batches or self.task.classes) and self.task.kind != "image to image":
            label, start = ("Points", _DEFAULT_POINTS) if self.task.points else ("Pictures", _DEFAULT_COUNT)
            start = 1 if self.task.kind == "text to image" else min(start, self.most)
            fields["count"] = gr.Slider(1, self.most, value=start, step=1, label=label)
        if self.task.classes:
            fields["classes"] = gr.Dropdown(
                list(self.task.classes),
                multiselect=True,
                max_choices=MAX_IMAGES,
                label="Classes",
                info="Taken in turn. None: each picture of a class drawn at random.",
            )
        if self.task.stepwise:
            fields["steps"] = gr.Slider(
                1, MAX_STEPS, value=self._start("num_inference_steps", 50), step=1, label="Steps"
            )
        if len(self.samplers) > 1:
            names = list(self.samplers)
            fields["sampler"] = gr.Dropdown(
                names, value=names[0], label="Sampler", info="The first is the model's own."
            )
        if self.task.guided:
            start = self._start("guidance_scale", 1.0)
            fields["guidance"] = gr.Slider(
                1, MAX_GUIDANCE, value=start, step=0.1, label="Guidance", info="How closely to follow; 1 is none."
            )
        if "strength" in takes:
            start = self._start("strength", 0.8)
            fields["strength"] = gr.Slider(
                0.05, 1, value=start, step=0.05, label="Strength", info="How much of the picture may change."
            )
        if "generator" in takes:
            self._add_seed()
        return self

    def _start(self, name: str, otherwise: float) -> float:
        """The value a control begins with: what the model was trained or made for."""
        parameter = inspect.signature(type(self.pipeline).__call__).parameters[name].default
        value = self.defaults.get(name)
        value = parameter if value is None else value
        value = value if isinstance(value, (int, float)) else otherwise
        return min(value, MAX_STEPS) if name == "num_inference_steps" else min(max(value, 0.05), MAX_GUIDANCE)

    def _add_seed(self) -> None:
        with gr.Row():
            seed = gr.Number(
                0, precision=0, label="Seed", info="Same seed and settings, same pictures.", min_width=120
            )
            dice = gr.Button("🎲 New seed", size="md", min_width=110, elem_classes="beside")
        dice.click(lambda: random.randrange(10**6), outputs=seed, queue=False, api_visibility="private")
        self.fields["seed"] = seed

    def request(self, values: Mapping[str, Any]) -> "Request":
        """A pipeline and the arguments of its call, from the values of the controls.

        Raises:
            ValueError: If a value is outside of its limits.
        """
        values = dict(values)
        call: dict[str, Any] = {}
        count = 1
        if "image" in values:
            image = check_upload(values.pop("image"))
            call["image"] = self._fitted(image)
        if self.task.partial:
            call["mask_image"] = box_mask(call["image"].size, values)
        if "prompt" in values:
            call["prompt"] = check_prompt(values["prompt"])
        if values.get("negative_prompt"):
            call["negative_prompt"] = check_prompt(values["negative_prompt"])
        if "count" in values:
            count = check_whole("The number of samples", values["count"], 1, self.most)
            if self.batches:
                call[self.batches] = count
        chosen = values.get("classes")
        if chosen or (self.task.classes and not self.batches):
            call["class_labels"] = labels = self._labels(chosen or list(self.task.classes), count)
            values["classes"] = [self.task.classes[label] for label in labels]
        if "steps" in values:
            call["num_inference_steps"] = check_whole("Steps", values["steps"], 1, MAX_STEPS)
        for name, argument, low, high in (
            ("guidance", "guidance_scale", 1.0, MAX_GUIDANCE),
            ("strength", "strength", 0.05, 1.0),
        ):
            if name in values:
                check_between(name.capitalize(), values[name], low, high)
                call[argument] = float(values[name])
        if "strength" in values and "steps" in values:
            _check_work(call["num_inference_steps"], call["strength"])
        if "seed" in values:
            seed = check_whole("The seed", values["seed"], 0, MAX_SEED - MAX_IMAGES)
            # A generator for each picture: more pictures leave the first ones as they are.
            generators = [torch.Generator().manual_seed(seed + index) for index in range(count)]
            call["generator"] = torch.Generator().manual_seed(seed) if self.task.points or count == 1 else generators
        if "output_type" in self.task.takes:
            call["output_type"] = "pil"
        sampler = values.get("sampler")
        if sampler is not None and sampler not in self.samplers:
            raise ValueError(f"There is no sampler {sampler!r}; choose one of {', '.join(self.samplers)}.")
        return Request(own_pipeline(self.pipeline, self.samplers.get(str(sampler))), call, values)

    def _labels(self, names: list[str], count: int) -> list[int]:
        """Numbers of the classes, one for each picture, taken in turn."""
        unknown = [name for name in names if name not in self.task.classes]
        if unknown:
            raise ValueError(f"There is no class {unknown[0]!r}; choose among {', '.join(self.task.classes[:20])}.")
        return [self.task.classes.index(names[index % len(names)]) for index in range(count)]

    def _fitted(self, image: Image.Image) -> Image.Image:
        """An uploaded picture as RGB in the model's size, with sides that its stages can halve.

        A model that enlarges takes any size; only the work is limited.
        """
        side, image = self.side or _DEFAULT_SIDE, image.convert("RGB")
        if (scale := scale_of(self.pipeline)) is not None:
            most = max(1, _SIDES_OF_ANSWER * side // scale)
            image.thumbnail((most, most), Image.Resampling.LANCZOS)
            return image
        if "vae" not in self.pipeline.components:  # nothing says what it can halve but the size it was made for
            return ImageOps.fit(image, (side, side), Image.Resampling.LANCZOS)
        factor, scale = _vae_scale(self.pipeline), side / max(image.size)
        width, height = (max(factor, round(length * scale) // factor * factor) for length in image.size)
        return image.resize((width, height), Image.Resampling.LANCZOS)


@dataclass(frozen=True)
class Request:
    """What was asked for.

    Args:
        pipeline: One for this request alone.
        call: Arguments of its call.
        settings: The values of the controls, for people and files.
    """

    pipeline: DiffusionPipeline
    call: dict[str, Any]
    settings: dict[str, Any]


def _check_work(steps: int, strength: float) -> None:
    """Image to image takes only the last `strength` of its steps, rounded down.

    Raises:
        ValueError: If that leaves no step at all.
    """
    if int(steps * strength) < 1:
        needed = math.ceil(1 / strength)
        raise ValueError(f"{steps} steps are too few for a strength of {strength:g}: take {needed} or more.")


def scale_of(pipeline: DiffusionPipeline) -> int | None:
    """How many times a pipeline enlarges pictures, if it says that it does."""
    scale = pipeline.config.get("scale")
    return scale if isinstance(scale, int) else None


def _side(pipeline: DiffusionPipeline) -> int | None:
    """Pixels a side of what the model makes, if it says so."""
    parts = pipeline.components
    # Where there are a denoiser and an autoencoder, the denoiser has the size of the latents.
    for name in ("unet", "transformer", *parts):
        size = getattr(parts.get(name), "config", None) or {}
        size = size.get("sample_size") if hasattr(size, "get") else None
        if size:
            side = size if isinstance(size, int) else max(size)
            return side * (_vae_scale(pipeline) if name in ("unet", "transformer") else 1)
    return None


def _vae_scale(pipeline: DiffusionPipeline) -> int:
    """Pixels of a picture for one of its latent, a side."""
    return int(getattr(pipeline, "vae_scale_factor", 1)) if "vae" in pipeline.components else 1
