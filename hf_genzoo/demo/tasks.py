"""What a pipeline does, read off its call and its methods: so a demo fits models that nobody has thought of yet."""

import inspect
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from diffusers.pipelines.pipeline_utils import DiffusionPipeline

Kind = Literal["sampling", "image to image", "text to image"]


@dataclass(frozen=True)
class Task:
    """What can be asked of a pipeline.

    Args:
        kind: "sampling" (from noise alone, or by class), "image to image" or "text to image".
        takes: Names of the call's arguments.
        classes: Names of the classes, in the order of their numbers; empty without classes.
        points: Whether samples are points in the plane rather than pictures.
    """

    kind: Kind
    takes: frozenset[str]
    classes: tuple[str, ...] = ()
    points: bool = False

    @property
    def stepwise(self) -> bool:
        """Whether samples are made in many steps, and not in one pass."""
        return "num_inference_steps" in self.takes

    @property
    def guided(self) -> bool:
        """Whether there is something to guide towards: classes or words."""
        return "guidance_scale" in self.takes and bool(self.classes or "prompt" in self.takes)

    @property
    def partial(self) -> bool:
        """Whether a part of the picture is painted and the rest is kept."""
        return "mask_image" in self.takes


def task_of(pipeline: DiffusionPipeline) -> Task:
    """What a pipeline does.

    Raises:
        ValueError: If its call fits none of the apps.
    """
    takes = frozenset(inspect.signature(type(pipeline).__call__).parameters) - {"self", "args", "kwargs"}
    classes = _classes(pipeline) if "class_labels" in takes else ()
    if "image" in takes:
        return Task("image to image", takes, classes)
    if "prompt" in takes:
        return Task("text to image", takes, classes)
    if "batch_size" in takes or classes:
        points = _gives_points(pipeline, takes)
        return Task("sampling", takes, classes, points)
    raise ValueError(
        f"there is no demo for a {type(pipeline).__name__}: its call takes none of image, prompt, batch_size and "
        f"class_labels (of known classes), but {', '.join(sorted(takes)) or 'nothing'}"
    )


def _classes(pipeline: DiffusionPipeline) -> tuple[str, ...]:
    """Names of the classes: those the pipeline stores, else their numbers."""
    named: Any = pipeline.config.get("id2label")
    if named:
        return tuple(str(name) for _, name in sorted(named.items(), key=lambda item: int(item[0])))
    number: Any = getattr(pipeline, "num_classes", None)
    return tuple(str(label) for label in range(number or 0))


def _gives_points(pipeline: DiffusionPipeline, takes: frozenset[str]) -> bool:
    """Whether samples are points: two are drawn and looked at, unless a network has a size of pictures."""
    configs = [getattr(component, "config", None) for component in pipeline.components.values()]
    pictures = any(isinstance(config, Mapping) and "sample_size" in config for config in configs)
    if pictures or not {"batch_size", "output_type"} <= takes:
        return False
    steps = {"num_inference_steps": 2} if "num_inference_steps" in takes else {}
    drawn: Any = pipeline(  # pyright: ignore[reportCallIssue]
        batch_size=2, output_type="np", **steps
    ).images
    return isinstance(drawn, np.ndarray) and drawn.shape == (2, 2)
