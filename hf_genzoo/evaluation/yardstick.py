"""One footing: a held-out split, a number of samples and a list of extractors, against which anything is measured.

Everything that does not depend on the generator (features of real pictures, the calibration rows) is computed once and
kept in the cache.
"""

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from tqdm.auto import tqdm

from hf_genzoo.atomic import replacing
from hf_genzoo.data.fingerprint import digest
from hf_genzoo.evaluation import baselines, scores
from hf_genzoo.evaluation.extractors import Extractor, Features, get_extractor
from hf_genzoo.evaluation.extras import require
from hf_genzoo.evaluation.feature_cache import cached_features
from hf_genzoo.evaluation.measurement import Measurement
from hf_genzoo.evaluation.memorisation import CopyReport, copy_report
from hf_genzoo.evaluation.metrics import MIXTURE
from hf_genzoo.evaluation.point_scores import point_metrics
from hf_genzoo.evaluation.reference import Reference
from hf_genzoo.evaluation.resize import resize, with_channels
from hf_genzoo.images import image_grid
from hf_genzoo.pipelines._points import scatter

LARGEST_DEFAULT = 5000
YARDSTICK_DRAWS = 5
"""Draws of training samples whose mean distance is the ratio's yardstick: a single one would add its own noise."""
GRID = 64
REAL, COPIER, GAUSSIAN = "real training data", "training-set copier", "pixel Gaussian"
COPY_EXTRACTOR = "pca"  # copying is a matter of pixels, and no network that learnt the training data judges it


@dataclass(frozen=True)
class Scores:
    """What one set of samples scored.

    Attributes:
        name: Of the generator.
        measurements: All numbers.
        verdicts: Sentences of the two-sample tests and of the test for copies.
    """

    name: str
    measurements: list[Measurement]
    verdicts: list[str]

    def get(self, name: str, extractor: str | None = None) -> Measurement | None:
        """The number of this name, of this extractor or of the first one that has it."""
        fitting = [m for m in self.measurements if m.name == name and extractor in (None, m.extractor)]
        return fitting[0] if fitting else None

    def to_json(self) -> dict[str, Any]:
        """As plain values."""
        numbers = [measurement.to_json() for measurement in self.measurements]
        return {"name": self.name, "metrics": numbers, "verdicts": self.verdicts}

    @staticmethod
    def from_json(raw: dict[str, Any]) -> "Scores":
        """What `to_json` wrote."""
        return Scores(raw["name"], [Measurement.from_json(m) for m in raw["metrics"]], raw["verdicts"])


@dataclass(frozen=True)
class Kept:
    """Scores that lie in the cache, and a grid of the samples.

    Attributes:
        scores: The numbers.
        grid: PNG file of the first samples.
    """

    scores: Scores
    grid: Path


class Yardstick:
    """Measures samples against one data set.

    Args:
        reference: The data set.
        num_samples: N; by default as many as both splits have, at most 5,000.
        extractors: Names for `get_extractor` (see `default_extractors`). The first one is the headline's.
        cache_dir: Root of all caches.
        device: Where features are extracted.

    Raises:
        ValueError: if a split has fewer samples, or an extractor is unknown.
    """

    def __init__(
        self,
        reference: Reference,
        num_samples: int | None,
        extractors: Sequence[str],
        cache_dir: Path,
        device: torch.device | str = "cpu",
    ) -> None:
        require("scipy", "sklearn")
        self.reference, self._cache_dir, self._device = reference, cache_dir, device
        self.num_samples = min(LARGEST_DEFAULT, reference.largest_count) if num_samples is None else num_samples
        if not 2 <= self.num_samples <= reference.largest_count:
            sizes = [f"{len(part.values)} in {part.split}" for part in (reference.train, reference.held_out)]
            raise ValueError(
                f"--num_samples {self.num_samples}: equal numbers are compared, and {reference.name!r} has "
                f"{' and '.join(sizes)}; choose 2 to {reference.largest_count}"
            )
        self.held_out = reference.held_out.take(np.sort(reference.held_out.shuffled_rows()[: self.num_samples]))
        rows = reference.train.shuffled_rows("yardstick")
        draws = min(YARDSTICK_DRAWS, len(rows) // self.num_samples)
        self._train = [
            reference.train.take(np.sort(part)) for part in np.split(rows[: draws * self.num_samples], draws)
        ]
        self._extractors: dict[str, Extractor] = {}
        self.extractors: list[Extractor] = []
        if reference.law is None:
            self.extractors = [self.extractor(name) for name in extractors]

    def extractor(self, spec: str) -> Extractor:
        """An extractor that was trained on, or fitted to, this data set's training split where it needs one.

        Raises:
            ValueError: if it is unknown, or lacks what it needs.
        """
        if spec not in self._extractors:
            train = self.reference.train
            self._extractors[spec] = get_extractor(
                spec,
                train_images=train.values,
                train_labels=train.labels,
                class_names=self.reference.class_names,
                data_fingerprint=train.key,
                cache_dir=self._cache_dir,
                device=self._device,
            )
        return self._extractors[spec]

    def features(self, spec: str, samples: NDArray[np.uint8], key: str) -> Features:
        """Features of pictures in the size of the real ones, by any extractor."""
        return cached_features(self.extractor(spec), samples, key, self._cache_dir)

    def fitting(self, samples: NDArray[Any]) -> NDArray[Any]:
        """Samples in the size and with the channels of the real pictures."""
        if self.reference.law is not None:
            return samples
        channels, size = self.held_out.values.shape[1:3]
        return with_channels(resize(samples, size), channels)

    def score(
        self,
        name: str,
        samples: NDArray[Any],
        key: str,
        own_rows: NDArray[np.int64] | None = None,
    ) -> Scores:
        """Everything that a set of samples alone can be measured by.

        Args:
            name: Of the generator.
            samples: As many as `num_samples`: pictures, uint8 (N, C, H, W), or points, float32 (N, 2).
            key: Hash of the samples, for the cache of features.
            own_rows: Training rows that are these samples, and so are no copies of themselves.
        """
        if len(samples) != self.num_samples:
            raise ValueError(f"{name}: {len(samples)} samples, not {self.num_samples}")
        if self.reference.law is not None:
            return Scores(name, point_metrics(samples, self.held_out.values, self.reference.law), [])
        samples = self.fitting(samples)
        measurements, verdicts = [], []
        for extractor in self.extractors:
            fake = cached_features(extractor, samples, digest(key, samples.shape), self._cache_dir)
            found = scores.distribution_metrics(fake, *self._real(extractor))
            tests = scores.two_sample_tests(fake, self._real(extractor)[0])
            verdicts += [f"{test} with {extractor.name} features" for test in tests]
            found += [Measurement("kernel_test_p", tests[0].p_value)]
            found += [Measurement("classifier_test_accuracy", tests[1].statistic, tests[1].interval)]
            measurements += [replace(m, extractor=extractor.name) for m in found]
        others = len(self.reference.train.values) - (0 if own_rows is None else len(own_rows))
        if others >= self.num_samples:  # with fewer there is little that could have been copied
            copies = self._copies(samples, key, own_rows)
            measurements.append(Measurement("nearest_ratio", copies.nearest_ratio, None, COPY_EXTRACTOR))
            verdicts.append(str(copies))
        return Scores(name, measurements, verdicts)

    def calibration(self) -> list[Kept]:
        """What real training data, a copier and two simple densities score: numbers mean something next to theirs."""
        train, count = self.reference.train, self.num_samples
        if self.reference.law is not None:
            real = self._train[0]
            return [self.kept(REAL, real.key, lambda: real.values)]
        rows = np.sort(train.shuffled_rows("row")[:count])
        draws: dict[str, Callable[[], NDArray[np.uint8]]] = {
            REAL: lambda: np.asarray(train.values[rows]),
            COPIER: lambda: baselines.copies(train.values, count),
            GAUSSIAN: lambda: baselines.pixel_gaussian(train.values, count),
            MIXTURE: lambda: baselines.pca_mixture(train.values, count),
        }
        found = []
        for name, draw in tqdm(draws.items(), desc="calibration rows", unit="row", disable=None, leave=False):
            key = digest("calibration", scores.VERSION, train.key, count, name)
            found.append(self.kept(name, key, draw, rows if name == REAL else None))
        return found

    def kept(
        self, name: str, key: str, draw: Callable[[], NDArray[Any]], own_rows: NDArray[np.int64] | None = None
    ) -> Kept:
        """Scores as of `score`, read from the cache where they are there; only else samples are drawn.

        Args:
            name: Of the generator.
            key: Hash of the samples.
            draw: Gives the samples.
            own_rows: As in `score`.
        """
        hashes = [extractor.hash for extractor in self.extractors]
        path = self._cache_dir / "scores" / f"{digest(scores.VERSION, key, self.held_out.key, hashes)}.json"
        grid = path.with_suffix(".png")
        try:
            return Kept(replace(Scores.from_json(json.loads(path.read_text())), name=name), grid)
        except (OSError, ValueError, KeyError, TypeError):
            samples = draw()
        found = self.score(name, samples, key, own_rows)
        path.parent.mkdir(parents=True, exist_ok=True)
        picture(samples).save(grid)
        with replacing(path) as aside:  # after the grid: where there are scores, there is a grid
            aside.write_text(json.dumps(found.to_json()))
        return Kept(found, grid)

    def distances(self, samples: NDArray[Any], spec: str | None = None) -> list[Measurement]:
        """The distribution metrics of one extractor, and nothing kept: for looks during a training.

        Args:
            samples: As for `score`.
            spec: Of the extractor (see `get_extractor`); by default the headline's.
        """
        if self.reference.law is not None:
            return point_metrics(samples, self.held_out.values, self.reference.law)
        extractor = self.extractors[0] if spec is None else self.extractor(spec)
        fake = extractor(self.fitting(samples), progress=False)
        return scores.distribution_metrics(fake, *self._real(extractor))

    def _real(self, extractor: Extractor) -> tuple[Features, list[Features]]:
        """Features of the held-out samples, and of each draw of as many training samples."""
        held_out, *train = (
            cached_features(extractor, part.values, part.key, self._cache_dir)
            for part in (self.held_out, *self._train)
        )
        return held_out, train

    def _copies(self, samples: NDArray[np.uint8], key: str, own_rows: NDArray[np.int64] | None) -> CopyReport:
        extractor, train = self.extractor(COPY_EXTRACTOR), self.reference.train
        known = cached_features(extractor, train.values, train.key, self._cache_dir).values
        if own_rows is not None:
            known = np.delete(known, own_rows, axis=0)
        held_out = cached_features(extractor, self.held_out.values, self.held_out.key, self._cache_dir).values
        fake = cached_features(extractor, samples, digest(key, samples.shape), self._cache_dir).values
        return copy_report(known, held_out, fake)


def default_extractors(reference: Reference) -> list[str]:
    """A classifier where there are classes, random convolutions, and PCA of pixels."""
    return ["classifier", "random", "pca"] if reference.train.labels is not None else ["random", "pca"]


def picture(samples: NDArray[Any]) -> Image.Image:
    """A grid of the first samples, or a scatter plot of points."""
    if samples.ndim == 2:
        return scatter(torch.from_numpy(samples))
    shown = samples[:GRID].transpose(0, 2, 3, 1)
    return image_grid([Image.fromarray(image[..., 0] if image.shape[-1] == 1 else image) for image in shown])
