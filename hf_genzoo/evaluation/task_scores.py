"""What a pipeline is measured by beside the law of its samples: whether it does what its task asks.

Each function returns no measurement where the pipeline has no such task.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from tqdm.auto import tqdm

from hf_genzoo.data import sprites
from hf_genzoo.data.fingerprint import digest
from hf_genzoo.evaluation import alignment, disentanglement
from hf_genzoo.evaluation.distances import Array
from hf_genzoo.evaluation.intervals import Estimate
from hf_genzoo.evaluation.measurement import Measurement
from hf_genzoo.evaluation.pictures import mean_squared_error, psnr, ssim
from hf_genzoo.evaluation.sources import PipelineSource
from hf_genzoo.evaluation.yardstick import Yardstick

BATCH = 100
TEXT_KINDS = ("one", "two", "one_held_out", "two_held_out")


def conditional(
    pictures: NDArray[np.uint8], source: PipelineSource, numbers: NDArray[np.int64], key: str, yardstick: Yardstick
) -> list[Measurement]:
    """Whether pictures show the class that was asked for, by a classifier of real pictures that no generator has met.

    The accuracy of that classifier on real held-out pictures stands beside it: more cannot be expected.
    """
    held_out, known = yardstick.held_out, yardstick.reference.train.labels
    if source.labels(numbers) is None or known is None or held_out.labels is None:
        return []
    asked = known[source.conditions.choose(numbers, source.sampling.seed)]  # in the data set's numbering
    return [
        _accuracy("conditional_accuracy", pictures, asked, digest(key, pictures.shape), yardstick),
        _accuracy("conditional_accuracy_real", held_out.values, held_out.labels, held_out.key, yardstick),
    ]


def _accuracy(
    name: str, pictures: NDArray[np.uint8], labels: NDArray[np.int64], key: str, yardstick: Yardstick
) -> Measurement:
    probabilities = yardstick.features("classifier", pictures, key).probabilities
    assert probabilities is not None
    return Measurement.share(name, int((probabilities.argmax(axis=1) == labels).sum()), len(labels))


def text(
    pictures: NDArray[np.uint8], source: PipelineSource, numbers: NDArray[np.int64], yardstick: Yardstick
) -> list[Measurement]:
    """Whether scenes show what their captions say (`scenes` only: its pictures can be read back)."""
    captions = source.captions(numbers)
    if captions is None or yardstick.reference.name != "scenes":
        return []
    found = alignment.scene_alignment(pictures.transpose(0, 2, 3, 1), captions)
    shares = {
        "text_count": found.count,
        "text_size": found.size,
        "text_colour": found.colour,
        "text_shape": found.shape,
        "text_relation": found.relation,
        "text_slots": found.slots,
        "text_slots_shuffled": found.shuffled_slots,
    }
    measured = [Measurement(name, share) for name, share in shares.items() if share is not None]
    for name, share in (
        ("text_all_correct", found.all_correct),
        ("text_all_correct_shuffled", found.shuffled_all_correct),
    ):
        measured.append(Measurement.share(name, round(share * found.num_pictures), found.num_pictures))
    kinds = np.array(alignment.caption_kinds(captions, yardstick.reference.train.captions or captions))
    for kind in TEXT_KINDS:
        if (these := np.array(found.correct)[kinds == kind]).size:
            measured.append(Measurement.share(f"text_all_correct_{kind}", int(these.sum()), these.size))
    return measured


def reconstruction(pipeline: Any, yardstick: Yardstick) -> list[Measurement]:
    """How well held-out pictures come back, for pipelines with `reconstruct`."""
    if not callable(getattr(pipeline, "reconstruct", None)):
        return []
    real = yardstick.held_out.values.transpose(0, 2, 3, 1) / 255.0
    back = np.concatenate(
        [
            pipeline.reconstruct(_tensor(yardstick.held_out.values[start : start + BATCH]), output_type="np").images
            for start in _batches(len(real), "reconstructing")
        ]
    ).clip(0, 1)
    found = {"reconstruction_mse": mean_squared_error(back, real), "reconstruction_psnr": psnr(back, real)}
    if min(real.shape[1:3]) > 10:  # the window of SSIM
        found["reconstruction_ssim"] = ssim(back, real)
    return [Measurement.of(name, _mean(values)) for name, values in found.items()]


def disentanglement_scores(pipeline: Any, yardstick: Yardstick) -> list[Measurement]:
    """Whether each latent stands for one factor of `sprites`, for pipelines with `encode`."""
    if not callable(getattr(pipeline, "encode", None)) or yardstick.reference.name != "sprites":
        return []
    channels, size = yardstick.held_out.values.shape[1:3]

    def represent(factors: NDArray[np.int64]) -> Array:
        parts = []
        for start in range(0, len(factors), BATCH):
            grey = sprites.render(factors[start : start + BATCH], size)
            parts.append(pipeline.encode(_tensor(np.repeat(grey[:, None], channels, axis=1))).cpu().double().numpy())
        return np.concatenate(parts)

    found = disentanglement.report(represent, sprites.FACTOR_SIZES)
    return [Measurement(name, value) for name, value in found.items()]


def _tensor(pictures: NDArray[np.uint8]) -> torch.Tensor:
    return torch.from_numpy(np.ascontiguousarray(pictures)).float() / 255


def _batches(count: int, title: str) -> Sequence[int]:
    return tqdm(range(0, count, BATCH), desc=title, unit="batch", disable=None, leave=False)  # type: ignore[return-value]


def _mean(values: Array) -> Estimate:
    """The mean over pictures; a picture that came back perfectly would be infinitely good and is left out."""
    finite = values[np.isfinite(values)]
    return Estimate(float(finite.mean()), float(finite.std(ddof=1) / np.sqrt(len(finite))))
