"""Measures where theory says what they must give: known moments, one law on both sides, planted failures."""

from math import comb

import numpy as np
import pytest
from scipy.stats import kstest, norm

from hf_genzoo.data import Gaussians2D
from hf_genzoo.evaluation.distances import frechet_distance
from hf_genzoo.evaluation.kernels import kernel_distance
from hf_genzoo.evaluation.neighbours import Overlap, overlap
from hf_genzoo.evaluation.point_clouds import cloud_report
from hf_genzoo.evaluation.points import mode_report
from hf_genzoo.evaluation.two_sample import classifier_test


def normal(*shape: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).standard_normal(shape)


# Frechet distance


def with_moments(mean: np.ndarray, covariance: np.ndarray, seed: int) -> np.ndarray:
    """300 points whose mean and covariance are exactly the given ones."""
    points = normal(300, len(mean), seed=seed)
    points -= points.mean(axis=0)
    white = np.linalg.solve(np.linalg.cholesky(np.cov(points, rowvar=False)), points.T)
    return mean + white.T @ np.linalg.cholesky(covariance).T


def test_frechet_distance_of_known_moments() -> None:
    """Ellipses of other directions, whose covariances do not commute: for 2 x 2 the trace of the root is closed."""
    a, b = np.array([[2.0, 0.6], [0.6, 1.0]]), np.array([[0.5, -0.3], [-0.3, 3.0]])
    shift = np.array([1.0, -2.0])
    root = np.sqrt(np.trace(a @ b) + 2 * np.sqrt(np.linalg.det(a @ b)))
    expected = shift @ shift + np.trace(a) + np.trace(b) - 2 * root
    assert not np.allclose(a @ b, b @ a)
    found = frechet_distance(with_moments(np.zeros(2), a, 0), with_moments(shift, b, 1))
    assert found == pytest.approx(expected, rel=1e-9)


def test_frechet_distance_of_fewer_samples_than_dimensions() -> None:
    """Covariances of rank 1 along two axes at right angles: their product is 0, and so is the root."""
    along_x, along_y = np.array([[1.0, 0, 0], [-1, 0, 0]]), np.array([[0, 2.0, 0], [0, -2, 0]])
    assert frechet_distance(along_x, along_y) == pytest.approx(2 + 8)
    assert frechet_distance(along_x, 3 * along_x) == pytest.approx(2 * (3 - 1) ** 2)


# Kernel distance


def test_kernel_distance_of_one_distribution_split_in_two_is_zero_on_average() -> None:
    found = []
    for seed in range(200):
        both = np.random.default_rng(seed).permutation(normal(160, 5, seed=1000 + seed))
        found.append(kernel_distance(both[:80], both[80:]).value)
    assert abs(np.mean(found)) < 3.5 * np.std(found) / np.sqrt(200)
    assert min(found) < 0 < max(found)  # unbiased, so not clipped at 0


def test_kernel_distance_of_a_shift_is_the_formula_and_lies_in_its_interval() -> None:
    """In one dimension (x y + 1)^3 compares three moments: 3 (m)^2 + 3 (m^2)^2 + (m^3 + 3 m)^2 for a shift of m."""
    m = 0.7
    expected = 3 * m**2 + 3 * m**4 + (m**3 + 3 * m) ** 2
    found = [kernel_distance(normal(200, 1, seed=s), m + normal(200, 1, seed=s + 10_000)) for s in range(200)]
    values = np.array([estimate.value for estimate in found])
    assert abs(values.mean() - expected) < 3.5 * values.std() / np.sqrt(200)
    inside = np.mean([low < expected < high for low, high in (estimate.interval for estimate in found)])
    assert 0.88 < inside <= 1


# Precision, recall, density, coverage

K, COUNT = 5, 500


def missed(others: int, fakes: int) -> float:
    """Probability that the k nearest neighbours of a real point, among its others and the fakes, are all real."""
    return comb(others, K) / comb(others + fakes, K)


def planted(failure: str, seed: int) -> Overlap:
    """Ten modes far apart, 50 real points on each, against 500 generated points."""
    labels = np.arange(COUNT) % 10
    centres = 50 * np.eye(10)
    real, good = centres[labels] + normal(COUNT, 10, seed=seed), centres[labels] + normal(COUNT, 10, seed=seed + 100)
    noise = normal(COUNT, 10, seed=seed + 200)
    fake = {
        "none": good,
        "one mode": centres[0] + noise,
        "ten repeated": good[labels] + 1e-6 * noise,
        "half noise": np.where(np.arange(COUNT)[:, None] < COUNT // 2, good, 200 * noise),
        "five classes": centres[labels % 5] + noise,
    }[failure]
    return overlap(real, fake, K)


@pytest.mark.parametrize(
    ("failure", "precision", "recall", "density", "coverage"),
    [
        ("one mode", "same", "falls", "same", 0.1 * (1 - missed(49, 500))),
        ("ten repeated", "same", "falls", "same", "falls"),
        ("half noise", "falls", "same", "falls", 1 - missed(49, 25)),
        ("five classes", "same", "falls", "same", 0.5 * (1 - missed(49, 100))),
    ],
    ids=["one mode", "ten repeated", "half noise", "five classes"],
)
def test_planted_failures_move_the_numbers_that_they_should(
    failure: str, precision: str, recall: str, density: str, coverage: str | float
) -> None:
    """ "falls": by 40 % or more; "same": within 20 %; a number: within 0.03. Means of ten repeats.

    Half of the samples being noise does not lower recall: the balls around far samples are large.
    """
    healthy, found = ([planted(kind, seed) for seed in range(10)] for kind in ("none", failure))
    for name, expected in (("precision", precision), ("recall", recall), ("density", density), ("coverage", coverage)):
        value, whole = (np.mean([getattr(report, name) for report in reports]) for reports in (found, healthy))
        if expected == "falls":
            assert value < 0.6 * whole, name
        elif expected == "same":
            assert value == pytest.approx(whole, rel=0.2), name
        else:
            assert value == pytest.approx(expected, abs=0.03), name


# Two-sample test of a classifier


def test_the_classifier_is_at_chance_and_its_interval_says_so() -> None:
    found = [classifier_test(*normal(2, 100, 3, seed=seed), seed=seed) for seed in range(200)]
    accuracies = [verdict.statistic for verdict in found]
    assert np.mean(accuracies) == pytest.approx(0.5, abs=4 * 0.5 / np.sqrt(200 * 100))
    intervals = [verdict.interval for verdict in found if verdict.interval is not None]
    inside = np.mean([low <= 0.5 <= high for low, high in intervals])
    assert len(intervals) == 200
    assert inside >= 0.95 - 3 * np.sqrt(0.05 * 0.95 / 200)


@pytest.mark.parametrize("shift", [0.5, 1.5, 4.0])
def test_the_classifier_reaches_the_best_accuracy_there_is(shift: float) -> None:
    """Two Gaussians at a distance: no classifier does better than Phi(distance / 2), 97.7 % at 4."""
    found = classifier_test(normal(4000, 3), normal(4000, 3, seed=1) + shift * np.array([0.6, 0.8, 0]))
    best = norm.cdf(shift / 2)
    assert found.statistic == pytest.approx(best, abs=4 * np.sqrt(best * (1 - best) / 4000) + 0.002)
    assert found.interval is not None
    assert found.interval[0] < best < found.interval[1]


# Nearest neighbours of point clouds


def test_nearest_neighbour_accuracy_of_a_split_set_over_repeats() -> None:
    """Of 2n - 1 other clouds n - 1 are of one's own set, so a split set scores a little less than a half."""

    def distance(a: np.ndarray, b: np.ndarray) -> float:
        return float(np.abs(a - b).sum())

    n = 15
    found = [cloud_report(*normal(2, n, 1, 3, seed=seed), distance).nearest_neighbour_accuracy for seed in range(150)]
    assert np.mean(found) == pytest.approx((n - 1) / (2 * n - 1), abs=4 * np.std(found) / np.sqrt(150))
    assert np.std(found) == pytest.approx(0.5 / np.sqrt(2 * n), rel=0.5)  # binomial, but neighbours are often mutual
    noise = cloud_report(normal(n, 1, 3), 100 + 30 * normal(n, 1, 3, seed=1), distance)
    assert noise.nearest_neighbour_accuracy > 0.9


# Modes


@pytest.mark.parametrize("config", ["ring", "grid"])
def test_reverse_kl_of_the_law_is_its_floor_over_repeats(config: str) -> None:
    """2 N times the KL of N uniform labels follows the chi-squared law of K - 1 degrees, whose mean is the floor's."""
    law = Gaussians2D(config)
    assert law.modes is not None
    reports = [mode_report(law.sample(2500, seed=seed)[0], law) for seed in range(300)]
    found, floor = np.array([(report.reverse_kl, report.reverse_kl_floor) for report in reports]).T
    degrees = len(law.modes) - 1
    scaled = found / floor * degrees
    assert scaled.mean() == pytest.approx(degrees, abs=4 * np.sqrt(2 * degrees / 300))
    assert kstest(scaled, "chi2", args=(degrees,)).pvalue > 0.01
