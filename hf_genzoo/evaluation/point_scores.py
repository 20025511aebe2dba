"""Metrics of points in the plane whose density is known."""

import numpy as np
from numpy.typing import NDArray

from hf_genzoo.data.points import Gaussians2D
from hf_genzoo.evaluation.distances import Array, sliced_wasserstein
from hf_genzoo.evaluation.intervals import Estimate, jackknife
from hf_genzoo.evaluation.measurement import Measurement
from hf_genzoo.evaluation.points import mode_report, negative_log_likelihood, wasserstein

LARGEST_ASSIGNMENT = 2000
"""Points of an exact assignment, whose time is cubic in them."""


def point_metrics(fake: NDArray[np.float32], real: NDArray[np.float32], law: Gaussians2D) -> list[Measurement]:
    """What generated points (N, 2) score against real ones and against the density itself."""
    f, r = np.asarray(fake, dtype=np.float64), np.asarray(real, dtype=np.float64)
    size = min(LARGEST_ASSIGNMENT, len(f))
    found = [
        Measurement("wasserstein_2", wasserstein(f[:size], r[:size], order=2)),
        Measurement.of("sliced_wasserstein", jackknife(sliced_wasserstein, r, f)),
    ]
    if law.modes is None:
        return found
    report = mode_report(f, law)
    _, good = law.nearest_mode(f)

    def divergence(points: Array) -> float:
        return mode_report(points, law).reverse_kl

    found += [
        Measurement("modes", float(report.modes)),
        Measurement.share("high_quality", int(good.sum()), len(good)),
        Measurement.of("reverse_kl", jackknife(divergence, f)),
        Measurement("reverse_kl_floor", report.reverse_kl_floor),
    ]
    if np.isfinite(likelihood := negative_log_likelihood(f, law)):
        spread = law.log_density(f).std(ddof=1) / np.sqrt(len(f))
        found.append(Measurement.of("negative_log_likelihood", Estimate(likelihood, float(spread))))
    return found
