"""Where samples come from: a pipeline that is called, or a folder of pictures that is read.

Sample number i of a pipeline is drawn from its own generator, seeded with (seed, i), under its own condition. So it
does not depend on how many others are drawn, in what batches or by how many processes, up to rounding.
"""

import inspect
from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import diffusers
import numpy as np
import torch
from diffusers import DDIMPipeline, DDPMPipeline, DiffusionPipeline
from numpy.typing import NDArray

from hf_genzoo.data.decode import CorruptImageError, decode_whole
from hf_genzoo.data.fingerprint import digest
from hf_genzoo.evaluation.small_pictures import SmallPictures
from hf_genzoo.hub.probe import needs_picture
from hf_genzoo.pipelines.ddpm import DenoisingDiffusionPipeline

PICTURE_SUFFIXES = (".png", ".jpg", ".jpeg", ".webp", ".bmp", ".gif", ".tif", ".tiff")


class SampleError(ValueError):
    """A generator gave something that cannot be measured."""


@dataclass(frozen=True)
class Sampling:
    """How a pipeline is asked for samples.

    Attributes:
        scheduler: Name of a scheduler of diffusers that replaces the pipeline's own; None keeps it.
        num_inference_steps: Denoising steps; None is the pipeline's default.
        guidance_scale: Classifier-free guidance; None is the pipeline's default.
        seed: Of all samples.
    """

    scheduler: str | None = None
    num_inference_steps: int | None = None
    guidance_scale: float | None = None
    seed: int = 0

    @property
    def call(self) -> dict[str, Any]:
        """What is passed to the pipeline's call."""
        options = {"num_inference_steps": self.num_inference_steps, "guidance_scale": self.guidance_scale}
        return {name: value for name, value in options.items() if value is not None}


@dataclass(frozen=True)
class Conditions:
    """What each sample is asked to show: sample i gets the class or caption of real sample i of a seeded order.

    Attributes:
        labels: Class of every real sample that may be asked for, int64, or None.
        captions: Caption of every real sample, or None.
        small: What is to be enlarged, one picture for each sample, or None.
    """

    labels: NDArray[np.int64] | None = None
    captions: Sequence[str] | None = None
    small: SmallPictures | None = None

    def choose(self, numbers: NDArray[np.int64], seed: int) -> NDArray[np.int64]:
        """Which real sample lends its condition to each sample, int64 of the shape of `numbers`."""
        known = self.labels if self.labels is not None else self.captions
        assert known is not None
        return np.array([np.random.default_rng([seed, int(number)]).integers(len(known)) for number in numbers])


class Source(ABC):
    """Something that samples can be had from.

    Attributes:
        name: What the user called it.
        key: Hash of everything that settles the samples.
        limit: How many samples there are; None where there is no end.
    """

    name: str
    key: str
    limit: int | None = None

    @property
    def settings(self) -> dict[str, Any]:
        """How samples are drawn, for the record; empty where nothing is drawn."""
        return {}

    @abstractmethod
    def draw(self, numbers: NDArray[np.int64]) -> NDArray[Any]:
        """The samples of these numbers: pictures, uint8 (n, C, H, W), or points, float32 (n, 2).

        Raises:
            SampleError: if a sample is not finite, or pictures differ in size.
        """


class PictureFolder(Source):
    """The pictures of a folder, in the order of their names, subfolders included.

    Raises:
        SampleError: if there are none.
    """

    def __init__(self, folder: Path) -> None:
        self.name = str(folder)
        self._paths = sorted(path for path in folder.rglob("*") if path.suffix.lower() in PICTURE_SUFFIXES)
        if not self._paths:
            raise SampleError(f"{folder} holds neither a pipeline (no model_index.json) nor pictures")
        self.limit = len(self._paths)
        stats = [(path.name, path.stat().st_size, path.stat().st_mtime_ns) for path in self._paths]
        self.key = digest("folder", str(folder.resolve()), stats)

    @cached_property
    def _is_grey(self) -> bool:
        """Reads the whole folder, so only where pictures are drawn and none of them is kept yet."""
        return all(len(self._read(path)) == 1 for path in self._paths)

    def draw(self, numbers: NDArray[np.int64]) -> NDArray[Any]:
        """See `Source.draw`."""
        pictures = [self._read(self._paths[number]) for number in numbers]
        if not self._is_grey:  # a coloured set may have grey pictures in it
            pictures = [np.repeat(picture, 3, axis=0) if len(picture) == 1 else picture for picture in pictures]
        if len(sizes := {picture.shape[1:] for picture in pictures}) > 1:
            raise SampleError(f"pictures in {self.name} differ in size: {', '.join(map(str, sorted(sizes)))}")
        return np.stack(pictures)

    def _read(self, path: Path) -> NDArray[np.uint8]:
        try:
            return decode_whole(path.read_bytes())
        except (CorruptImageError, OSError) as error:
            raise SampleError(f"{path} cannot be read: {error}") from error


class PipelineSource(Source):
    """A diffusers pipeline, ours or a stock one.

    Args:
        pipeline: Loaded and on its device.
        name: What the user called it.
        model_hash: Hash of its weights and settings (see `model_hash`).
        sampling: How to ask.
        conditions: What to ask for, where the pipeline takes classes or prompts.

    Raises:
        SampleError: if the pipeline needs an input that is not given, or lacks a setting that is asked for.
    """

    def __init__(
        self,
        pipeline: DiffusionPipeline,
        name: str,
        model_hash: str,
        sampling: Sampling,
        conditions: Conditions,
    ) -> None:
        if sampling.scheduler is not None:
            pipeline = with_scheduler(pipeline, sampling.scheduler)
        self.name, self.pipeline, self.sampling, self.conditions = name, pipeline, sampling, conditions
        self._takes = inspect.signature(type(pipeline).__call__).parameters
        self._check()
        pipeline.set_progress_bar_config(disable=True)
        asked = [None if v is None else digest([str(x) for x in v]) for v in (self._labels, self._captions)]
        code = inspect.getsource(inspect.getmodule(type(pipeline)) or type(pipeline))
        versions = [torch.__version__, diffusers.__version__]
        asked += [] if self.small is None else [self.small.key]
        self.limit = None if self.small is None else len(self.small)
        self.key = digest("pipeline", model_hash, digest(code), versions, asdict(sampling), asked)

    @property
    def _labels(self) -> NDArray[np.int64] | None:
        return self.conditions.labels if "class_labels" in self._takes and self.is_class_conditional else None

    @property
    def _captions(self) -> Sequence[str] | None:
        return self.conditions.captions if "prompt" in self._takes else None

    @property
    def small(self) -> SmallPictures | None:
        """What is to be enlarged, where the pipeline takes pictures."""
        return self.conditions.small if needs_picture(self.pipeline) else None

    @property
    def is_class_conditional(self) -> bool:
        """Whether it takes class labels and its network knows classes."""
        return "class_labels" in self._takes and getattr(self.pipeline, "num_classes", 0) is not None

    @property
    def settings(self) -> dict[str, Any]:
        """See `Source.settings`: what is asked for, or else the defaults of the pipeline's call."""
        scheduler = getattr(self.pipeline, "scheduler", None)
        defaults = {
            name: self._takes[name].default
            for name in ("num_inference_steps", "guidance_scale")
            if name in self._takes
        }
        asked = None if self._captions is None else "captions of the held-out split"
        asked = asked if self.small is None else "pictures of the held-out split, made small"
        return {
            "pipeline": type(self.pipeline).__name__,
            "scheduler": None if scheduler is None else type(scheduler).__name__,
            **defaults,
            **self.sampling.call,
            "condition": asked if self._labels is None else "classes as frequent as in the training split",
        }

    def _check(self) -> None:
        name = type(self.pipeline).__name__
        asked = set(self.sampling.call)
        if unknown := sorted(asked - set(self._takes)):
            raise SampleError(f"{name} has no {' and no '.join(unknown)}: leave that out")
        if "generator" not in self._takes:
            raise SampleError(f"{name} takes no generator, so its samples cannot be repeated")
        needed = [
            parameter.name
            for parameter in self._takes.values()
            if parameter.default is parameter.empty
            and parameter.kind in (parameter.POSITIONAL_OR_KEYWORD, parameter.KEYWORD_ONLY)
            and parameter.name not in ("self", "batch_size")
        ]
        given = {"prompt": self._captions, "class_labels": self._labels, "image": self.small}
        if missing := [need for need in needed if given.get(need) is None]:
            fixes = {"prompt": "--caption_column", "class_labels": "--class_column"}
            fix = " ".join(fixes.get(need, f"(no flag gives {need})") for need in missing)
            raise SampleError(f"{name} needs {', '.join(missing)} to draw samples: {fix}")
        if "batch_size" not in self._takes and all(value is None for value in given.values()):
            raise SampleError(f"{name} takes no batch_size, and there are no captions or classes to ask it for")

    def labels(self, numbers: NDArray[np.int64]) -> NDArray[np.int64] | None:
        """Class that each sample is asked to show, (n,), or None."""
        if self._labels is None:
            return None
        return self._labels[self.conditions.choose(numbers, self.sampling.seed)]

    def captions(self, numbers: NDArray[np.int64]) -> list[str] | None:
        """Caption that each sample is asked to show, or None."""
        if self._captions is None:
            return None
        return [str(self._captions[i]) for i in self.conditions.choose(numbers, self.sampling.seed)]

    def draw(self, numbers: NDArray[np.int64]) -> NDArray[Any]:
        """See `Source.draw`."""
        seeds = [np.random.SeedSequence([self.sampling.seed, int(n)]).generate_state(1, np.uint64)[0] for n in numbers]
        # On the CPU whatever the device: a seed then means the same noise everywhere.
        generators = [torch.Generator().manual_seed(int(seed >> np.uint64(1))) for seed in seeds]
        asked: dict[str, Any] = {"generator": generators, **self.sampling.call}
        if "batch_size" in self._takes:
            asked["batch_size"] = len(numbers)
        if (labels := self.labels(numbers)) is not None:
            asked["class_labels"] = labels.tolist()
        if (captions := self.captions(numbers)) is not None:
            asked["prompt"] = captions
        if self.small is not None:
            asked["image"] = self.small.small(numbers)
        if "output_type" in self._takes:
            asked["output_type"] = "np"
        return _measurable(self.pipeline(**asked)[0], self.name)  # pyright: ignore[reportCallIssue]


def _measurable(output: Any, name: str) -> NDArray[Any]:
    """A pipeline's output as uint8 (n, C, H, W) or points float32 (n, 2).

    Raises:
        SampleError: if it is neither, or not finite.
    """
    if isinstance(output, list):
        pictures = [np.asarray(image) for image in output]
        array = np.stack([p[..., None] if p.ndim == 2 else p for p in pictures]).astype(np.float32) / 255
    else:
        array = np.asarray(output, dtype=np.float32)
    bad = int((~np.isfinite(array.reshape(len(array), -1))).any(axis=1).sum())
    if bad:
        raise SampleError(f"{bad} of {len(array)} samples of {name} hold NaN or infinite values: nothing to measure")
    if array.ndim == 2:
        return array
    if array.ndim != 4 or array.shape[-1] not in (1, 3):
        shape = tuple(array.shape)
        raise SampleError(f"{name} gave samples of shape {shape}: pictures (N, H, W, 1 or 3) and points are measured")
    return np.ascontiguousarray((array * 255).round().clip(0, 255).astype(np.uint8).transpose(0, 3, 1, 2))


def with_scheduler(pipeline: DiffusionPipeline, name: str) -> DiffusionPipeline:
    """The pipeline with another scheduler.

    diffusers' pipelines of DDPM and DDIM hand their steps arguments that other schedulers do not take; ours, of the
    same network, takes any.

    Raises:
        SampleError: if it has none to replace.
        ValueError: if diffusers has no such scheduler.
    """
    old = getattr(pipeline, "scheduler", None)
    if old is None:
        raise SampleError(f"{type(pipeline).__name__} has no scheduler to replace by {name}")
    new = scheduler_class(name).from_config(old.config)
    if type(pipeline) in (DDPMPipeline, DDIMPipeline):
        return DenoisingDiffusionPipeline(unet=pipeline.unet, scheduler=new)
    pipeline.scheduler = new
    return pipeline


def scheduler_class(name: str) -> Any:
    """A scheduler class of diffusers by name, with or without "Scheduler" at its end.

    Raises:
        ValueError: if there is none of that name.
    """
    for candidate in (name, f"{name}Scheduler"):
        found = getattr(diffusers, candidate, None)
        if candidate.endswith("Scheduler") and found is not None:
            return found
    raise ValueError(f"diffusers has no scheduler {name!r}; it has DDIM, DDPM, DPMSolverMultistep and others")
