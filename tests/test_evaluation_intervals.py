"""Standard errors and intervals: exact for a mean, honest for the metrics, and exact about what is left out."""

import numpy as np
import pytest

from hf_genzoo.evaluation.distances import as_features, frechet_distance, sliced_wasserstein, squared_distances
from hf_genzoo.evaluation.intervals import GROUPS, T_QUANTILE, Estimate, group_of, jackknife
from hf_genzoo.evaluation.kernels import kernel_distance
from hf_genzoo.evaluation.measurement import Measurement
from hf_genzoo.evaluation.neighbours import overlap, overlap_estimates


def normal(*shape: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).standard_normal(shape)


def test_jackknife_of_a_mean_is_the_error_of_group_means() -> None:
    sample = normal(400, 1)
    groups = np.array([sample[group_of(400) == g].mean() for g in range(GROUPS)])
    found = jackknife(lambda x: float(x.mean()), sample)
    assert found.value == sample.mean()
    assert found.standard_error == pytest.approx(groups.std(ddof=1) / np.sqrt(GROUPS), rel=1e-9)
    assert found.interval == pytest.approx(
        (found.value - T_QUANTILE * found.standard_error, found.value + T_QUANTILE * found.standard_error)
    )


def test_jackknife_adds_the_variances_of_two_samples() -> None:
    """Var(mean a - mean b) = s_a^2 / n + s_b^2 / m, on average over draws."""
    squares = [
        jackknife(lambda a, b: float(a.mean() - b.mean()), normal(200, 1, seed=s), 3 * normal(600, 1, seed=1000 + s))
        for s in range(100)
    ]
    expected = 1 / 200 + 9 / 600
    assert np.mean([e.standard_error**2 for e in squares]) == pytest.approx(expected, rel=0.1)


def test_too_few_samples_for_an_interval_are_named() -> None:
    with pytest.raises(ValueError, match="at least 40 samples"):
        jackknife(lambda x: float(x.mean()), normal(30, 1))
    assert Estimate(1.0).interval is None


@pytest.mark.parametrize("shift", [0.0, 0.25])
def test_intervals_of_metrics_hold_what_repeats_give(shift: float) -> None:
    """The error is that of repeats, or somewhat more: never less, which would show differences that are not there."""
    found: dict[str, list[Estimate]] = {}
    for seed in range(30):
        a = normal(300, 8, seed=seed) * np.linspace(2, 0.3, 8)
        b = normal(300, 8, seed=1000 + seed) * np.linspace(2, 0.3, 8) + shift
        estimates = overlap_estimates(a, b) | {
            "frechet": jackknife(frechet_distance, a, b),
            "sliced": jackknife(sliced_wasserstein, a, b),
            "kernel": kernel_distance(a, b),
        }
        for name, estimate in estimates.items():
            found.setdefault(name, []).append(estimate)
    for name, estimates in found.items():
        spread = np.std([e.value for e in estimates], ddof=1)
        error = np.mean([e.standard_error for e in estimates])
        assert 0.75 < error / spread < 2.5, name
        centre = np.mean([e.value for e in estimates])
        held = np.mean([low <= centre <= high for low, high in (e.interval for e in estimates)])
        assert held >= 0.8, name


def test_kernel_distance_of_one_law_holds_zero() -> None:
    """Where the laws agree the jackknife alone would see no error at all."""
    held = 0
    for seed in range(60):
        a, b = normal(2, 100, 6, seed=seed) * np.array([4, 2, 1, 0.5, 0.2, 0.1]) + 1
        low, high = kernel_distance(a, b).interval
        held += low <= 0 <= high
    assert held >= 55


def test_overlap_without_a_group_is_the_overlap_of_the_rest() -> None:
    """The reach of the rest is found among the neighbours that were kept: checked against doing it all again."""
    a, b = as_features(normal(200, 4)), as_features(1.3 * normal(200, 4, seed=1))
    kept = group_of(200)
    again = [overlap(a[kept != g], b[kept != g]).coverage for g in range(GROUPS)]
    replicated = overlap_estimates(a, b)["coverage"]
    spread = np.sqrt(np.square(np.array(again) - np.mean(again)).sum() * (GROUPS - 1) / GROUPS)
    assert replicated.standard_error == pytest.approx(spread, rel=1e-9)
    assert replicated.value == overlap(a, b).coverage


def test_squared_distances_are_never_negative() -> None:
    points = 1e6 + normal(50, 3)
    assert squared_distances(points, points).min() >= 0


def test_intervals_end_where_the_range_of_the_metric_does() -> None:
    assert Measurement.of("coverage", Estimate(0.99, 0.1)).interval == (pytest.approx(0.7807), 1.0)
    assert Measurement.of("frechet_ratio", Estimate(0.1, 0.1)).interval[0] == 0.0
    assert Measurement.of("kernel_distance", Estimate(0.0, 0.1)).interval[0] < 0  # unbiased: it may be negative


def test_share_has_the_exact_binomial_interval() -> None:
    """Clopper & Pearson 1934: no success in n leaves 1 - 0.025^(1/n) as the upper end."""
    found = Measurement.share("conditional_accuracy", 0, 50)
    assert found.interval == (0.0, pytest.approx(1 - 0.025 ** (1 / 50)))
    assert Measurement.from_json(found.to_json()) == found
