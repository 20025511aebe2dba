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
from hf_genzoo.evaluation.pictures import low_resolution_consistency, mean_squared_error, psnr, psnr_of_mean, ssim
from hf_genzoo.evaluation.small_pictures import SmallPictures
from hf_genzoo.evaluation.sources import PipelineSource
from hf_genzoo.evaluation.yardstick import Scores, Yardstick

BATCH = 100
BICUBIC = "bicubic interpolation"
ANSWERS = 8  # to each picture, for their mean
PIXELS_OF_MEAN = 32 * 64 * 64  # of the pictures that are answered several times: few large ones, or more small ones
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
    real = _array(yardstick.held_out.values)
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


def super_resolution(pictures: NDArray[np.uint8], source: PipelineSource) -> list[Measurement]:
    """How near enlarged pictures are to what they should be, for pipelines that enlarge.

    Args:
        pictures: Answers 0 to n - 1, (n, C, H, W) in the size of the real pictures.
        source: Where they come from.
    """
    if (small := source.small) is None:
        return []
    return [*_enlargement(pictures, small), *_mean_of_answers(source, small, len(pictures))]


def bicubic(source: Any, yardstick: Yardstick) -> list[Scores]:
    """What bicubic interpolation scores, as a row beside the model's, for pipelines that enlarge."""
    if not isinstance(source, PipelineSource) or (small := source.small) is None:
        return []
    enlarged = small.bicubic(np.arange(yardstick.num_samples))
    row = yardstick.kept(BICUBIC, digest(small.key, "bicubic", len(enlarged)), lambda: enlarged).scores
    row.measurements.extend(_enlargement(enlarged, small))
    return [row]


def _enlargement(pictures: NDArray[np.uint8], small: SmallPictures) -> list[Measurement]:
    numbers = np.arange(len(pictures))
    ours, truth = (_array(p) for p in (pictures, small.truth(numbers)))
    given = small.small(numbers).double().permute(0, 2, 3, 1).numpy()
    found = {"super_resolution_psnr": psnr(ours, truth)}
    if min(truth.shape[1:3]) > 10:  # the window of SSIM
        found["super_resolution_ssim"] = ssim(ours, truth)
    found["low_resolution_consistency"] = low_resolution_consistency(ours, given)
    return [Measurement.of(name, _mean(values)) for name, values in found.items()]


def _mean_of_answers(source: PipelineSource, small: SmallPictures, count: int) -> list[Measurement]:
    """Whether answers are spread as those that fit are; a model that gives one answer only is not asked."""
    if source.pipeline.config.get("objective") == "regression":
        return []
    height, width = small.held_out.values.shape[2:]
    numbers = np.arange(min(count, BATCH, max(4, PIXELS_OF_MEAN // (height * width))))
    drawn = source.pipeline(  # pyright: ignore[reportCallIssue]
        image=small.small(numbers),
        num_samples=ANSWERS,
        generator=torch.Generator().manual_seed(source.sampling.seed),
        output_type="np",
        **source.sampling.call,
    ).images
    answers = drawn.clip(0, 1).reshape(len(numbers), ANSWERS, *drawn.shape[1:]).swapaxes(0, 1)
    found = psnr_of_mean(answers, _array(small.truth(numbers)))
    measured = {
        "super_resolution_psnr_of_mean": found.of_mean,
        "super_resolution_gain_of_mean": found.of_mean - found.of_singles,
    }
    return [Measurement.of(name, _mean(values)) for name, values in measured.items()]


def disentanglement_scores(pipeline: Any, yardstick: Yardstick) -> list[Measurement]:
    """Whether each number of a latent stands for one factor of `sprites`, for pipelines that encode into vectors."""
    if not callable(getattr(pipeline, "encode", None)) or yardstick.reference.name != "sprites":
        return []
    if len(getattr(pipeline, "latent_shape", (None,))) > 1:  # a picture of noise is no code
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


def likelihood(pipeline: Any, yardstick: Yardstick, seed: int) -> list[Measurement]:
    """How probable the first held-out pictures are, for pipelines with `bits_per_dimension`."""
    if not callable(getattr(pipeline, "bits_per_dimension", None)):
        return []
    pictures = _tensor(yardstick.held_out.values[:BATCH])
    bits = pipeline.bits_per_dimension(pictures, generator=torch.Generator().manual_seed(seed))
    return [Measurement.of("bits_per_dimension", _mean(bits.cpu().double().numpy()))]


def _array(pictures: NDArray[np.uint8]) -> Array:
    """uint8 (N, C, H, W) as (N, H, W, C) in [0, 1]."""
    return pictures.transpose(0, 2, 3, 1) / 255.0


def _tensor(pictures: NDArray[np.uint8]) -> torch.Tensor:
    return torch.from_numpy(np.ascontiguousarray(pictures)).float() / 255


def _batches(count: int, title: str) -> Sequence[int]:
    return tqdm(range(0, count, BATCH), desc=title, unit="batch", disable=None, leave=False)  # type: ignore[return-value]


def _mean(values: Array) -> Estimate:
    """The mean over pictures; a picture that came back perfectly would be infinitely good and is left out."""
    finite = values[np.isfinite(values)]
    return Estimate(float(finite.mean()), float(finite.std(ddof=1) / np.sqrt(len(finite))))
