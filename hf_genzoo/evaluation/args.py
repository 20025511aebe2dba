"""The flags of `genzoo evaluate` and `genzoo compare`. Imports neither torch nor datasets."""

from dataclasses import dataclass, field
from typing import Any

from hf_genzoo.data.args import DataArgs


def flag(default: Any, help: str) -> Any:
    """A field with a help text; a list stands for any number of values."""
    if isinstance(default, list):
        return field(default_factory=lambda: list(default), metadata={"help": help})
    return field(default=default, metadata={"help": help})


@dataclass
class MeasureArgs(DataArgs):
    """What measuring one model and comparing several have in common.

    The data flags name the data set; where they are left out, those that the model was trained with are taken.
    """

    split: str | None = flag(None, "Held-out split to measure on: by default test if there is one, else validation.")
    num_samples: int | None = flag(
        None, "Samples of each kind: by default as many as both splits have, at most 5000. Equal numbers are compared."
    )
    extractor: list[str] = flag(
        [],
        "Feature extractors, the first one for the headline: classifier (trained on the data set's classes), random "
        "(untrained convolutions), pca (of pixels), inception (needs torch-fidelity), a vision model of transformers "
        "by Hub id or folder, or a folder that train_classifier wrote. By default classifier where there are classes, "
        "random and pca.",
    )
    batch_size: int = flag(100, "Samples drawn at once: memory and speed, not results.")
    use_cpu: bool = flag(False, "Stay on the CPU even where a GPU is present.")


@dataclass
class EvaluateArgs(MeasureArgs):
    """Measure one model."""

    scheduler: str | None = flag(
        None,
        "A scheduler of diffusers in place of the model's own, such as DDIM. By default that of its sample grids.",
    )
    num_inference_steps: int | None = flag(None, "Denoising steps, where the model has them.")
    guidance_scale: float | None = flag(None, "Classifier-free guidance, where the model has it.")
    seed: int = flag(0, "Seed of the samples: the same seed gives the same numbers.")
    revision: str | None = flag(None, "Branch, tag or commit of a model on the Hub.")
    baseline: str | None = flag(
        None,
        "Another model to measure beside it, as a row of the table: for super-resolution, the regression network.",
    )
    output_dir: str | None = flag(None, "Where results.json goes: by default into the model's folder, with its card.")


@dataclass
class CompareArgs(MeasureArgs):
    """Measure several models on one footing."""

    seeds: list[int] = flag([0, 1, 2], "Seeds of the samples; every model is drawn once with each.")
    output_dir: str = flag("outputs/compare", "Folder for the table, the figure and the page.")
