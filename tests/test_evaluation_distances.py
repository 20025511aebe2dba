"""Distances and two-sample tests against closed forms, planted failures, and scikit-learn and scipy."""

import numpy as np
import pytest
from scipy.linalg import sqrtm
from scipy.stats import kstest, wasserstein_distance
from sklearn.metrics.pairwise import polynomial_kernel, rbf_kernel
from sklearn.neighbors import NearestNeighbors

from hf_genzoo.evaluation.distances import (
    class_balance,
    frechet_distance,
    frechet_distance_infinity,
    inception_score,
    sliced_wasserstein,
)
from hf_genzoo.evaluation.kernels import cmmd, kernel_distance
from hf_genzoo.evaluation.neighbours import overlap
from hf_genzoo.evaluation.two_sample import classifier_test, kernel_test


def normal(*shape: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).standard_normal(shape)


# Frechet distance


def test_frechet_distance_of_gaussians_is_the_formula() -> None:
    """Independent axes: |shift|^2 + sum (s_1 - s_2)^2, up to the error of estimated moments."""
    spread, other, shift = np.array([1.0, 2.0, 0.5]), np.array([1.5, 1.0, 0.5]), np.array([1.0, 0.0, -2.0])
    a, b = normal(2, 200_000, 3)
    expected = shift @ shift + np.square(spread - other).sum()
    assert frechet_distance(a * spread, b * other + shift) == pytest.approx(expected, rel=0.01)
    assert frechet_distance(a, a) == pytest.approx(0, abs=1e-9)


def test_frechet_distance_sees_correlation() -> None:
    """Equal means and variances; correlation r against none: 4 - 2 (sqrt(1 + r) + sqrt(1 - r))."""
    a, b = normal(2, 200_000, 2)
    correlated = a @ np.linalg.cholesky(np.array([[1, 0.8], [0.8, 1]])).T
    expected = 4 - 2 * (np.sqrt(1.8) + np.sqrt(0.2))
    assert frechet_distance(correlated, b) == pytest.approx(expected, rel=0.02)


def test_frechet_distance_agrees_with_the_matrix_root_of_scipy() -> None:
    a, b = normal(300, 12), 0.5 + normal(300, 12, seed=1) @ normal(12, 12, seed=2)
    c_a, c_b = np.cov(a, rowvar=False), np.cov(b, rowvar=False)
    root = np.trace(sqrtm(c_a @ c_b)).real
    expected = np.square(a.mean(0) - b.mean(0)).sum() + np.trace(c_a) + np.trace(c_b) - 2 * root
    assert frechet_distance(a, b) == pytest.approx(expected, rel=1e-6)


def test_frechet_distance_in_one_dimension() -> None:
    a, b = normal(50, 1), 3 * normal(70, 1, seed=1)
    expected = (a.mean() - b.mean()) ** 2 + (a.std(ddof=1) - b.std(ddof=1)) ** 2
    assert frechet_distance(a, b) == pytest.approx(expected)


def test_extrapolation_removes_the_bias_of_few_samples() -> None:
    """Two samples of one law: the plain distance is far from 0, the extrapolated one near it."""
    a, b = normal(2, 1000, 32)
    plain, extrapolated = frechet_distance(a, b), frechet_distance_infinity(a, b).value
    assert plain > 0.4
    assert abs(extrapolated) < 0.2 * plain


# Kernel distances


def test_kernel_distance_has_mean_zero_under_the_null() -> None:
    """200 samples split in two: the mean lies within three standard errors of 0."""
    found = []
    for seed in range(200):
        a, b = normal(2, 60, 4, seed=seed)
        found.append(kernel_distance(a, b).value)
    assert abs(np.mean(found)) < 3 * np.std(found) / np.sqrt(len(found))


def test_kernel_distances_agree_with_scikit_learn() -> None:
    a, b = normal(50, 8), normal(50, 8, seed=1) + 0.3

    def mmd(kernel) -> float:
        off = ~np.eye(50, dtype=bool)
        return kernel(a, a)[off].mean() + kernel(b, b)[off].mean() - 2 * kernel(a, b).mean()

    cubic = mmd(lambda x, y: polynomial_kernel(x, y, degree=3, gamma=1 / 8, coef0=1))
    assert kernel_distance(a, b).value == pytest.approx(cubic, rel=1e-6)
    gaussian = mmd(lambda x, y: rbf_kernel(x, y, gamma=1 / (2 * 10**2)))
    assert cmmd(a, b).value == pytest.approx(1000 * gaussian, rel=1e-6)


def test_cmmd_of_unit_vectors_is_blind_to_spread() -> None:
    """The warning of its docstring: two far modes against one blob at their middle score next to nothing."""
    axis = np.eye(64)[0]
    blob = 0.01 * normal(400, 64)
    modes = blob + np.where(np.arange(400) % 2, 1, -1)[:, None] * axis
    moved = normal(400, 64, seed=1) * 0.01 + 0.5 * axis
    assert cmmd(blob, moved).value == pytest.approx(10 * 0.25, rel=0.02)
    assert abs(cmmd(blob, modes).value) < 0.1
    assert overlap(blob, modes).coverage < 0.1  # what sees it


# Overlap


def test_overlap_agrees_with_scikit_learn_s_neighbours() -> None:
    a, b, k = normal(120, 5), 1.3 * normal(100, 5, seed=1), 5
    reach_a = NearestNeighbors(n_neighbors=k + 1).fit(a).kneighbors(a)[0][:, -1]
    reach_b = NearestNeighbors(n_neighbors=k + 1).fit(b).kneighbors(b)[0][:, -1]
    between = np.linalg.norm(a[:, None] - b[None], axis=2)
    found = overlap(a, b, k)
    assert found.precision == (between < reach_a[:, None]).any(axis=0).mean()
    assert found.recall == (between < reach_b[None]).any(axis=1).mean()
    assert found.density == pytest.approx((between < reach_a[:, None]).sum() / (k * len(b)))
    assert found.coverage == (between < reach_a[:, None]).any(axis=1).mean()


def test_overlap_of_one_law() -> None:
    """Coverage 1 - C(n - 1, k) / C(2 n - 1, k), near 1 - 2^-k, and density 1 (Naeem et al. 2020, section 3.3)."""
    found = [overlap(normal(400, 3, seed=2 * s), normal(400, 3, seed=2 * s + 1)) for s in range(10)]
    k, n = 5, 400
    missing = np.prod([(n - i - 1) / (2 * n - i - 1) for i in range(k)])
    assert np.mean([f.coverage for f in found]) == pytest.approx(1 - missing, abs=0.01)
    assert np.mean([f.density for f in found]) == pytest.approx(1, abs=0.05)


def modes(count: int, labels: np.ndarray, seed: int) -> np.ndarray:
    return 50 * np.eye(10)[labels[:count]] + normal(count, 10, seed=seed)


@pytest.mark.parametrize(
    ("failure", "falls", "stays"),
    [
        ("collapse", "recall coverage", "precision"),
        ("ten repeated", "coverage recall", "precision"),
        ("half noise", "precision density", "recall"),
        ("half of the classes", "coverage recall", "precision"),
    ],
)
def test_overlap_shows_planted_failures(failure: str, falls: str, stays: str) -> None:
    labels = np.arange(500) % 10
    real, good = modes(500, labels, 0), modes(500, labels, 1)
    fake = {
        "collapse": good[:1] + 0.01 * normal(500, 10, seed=2),
        "ten repeated": good[np.arange(500) % 10] + 1e-6 * normal(500, 10, seed=2),
        "half noise": np.where(np.arange(500)[:, None] < 250, good, 200 * normal(500, 10, seed=2)),
        "half of the classes": modes(500, labels % 5, 1),
    }[failure]
    healthy, found = overlap(real, good), overlap(real, fake)
    for name in falls.split():
        assert getattr(found, name) < 0.7 * getattr(healthy, name), name
    for name in stays.split():
        assert getattr(found, name) > 0.75 * getattr(healthy, name), name


# Wasserstein


@pytest.mark.parametrize("sizes", [(80, 80), (80, 50), (7, 90)])
def test_sliced_wasserstein_in_one_dimension_is_scipy_s(sizes: tuple[int, int]) -> None:
    a, b = normal(sizes[0], 1), 2 * normal(sizes[1], 1, seed=1) + 1
    assert sliced_wasserstein(a, b, projections=1) == pytest.approx(wasserstein_distance(a[:, 0], b[:, 0]), rel=1e-6)


def test_sliced_wasserstein_of_a_shift() -> None:
    """E |u . shift| over unit vectors u of the plane is 2 |shift| / pi."""
    a = normal(200, 2)
    assert sliced_wasserstein(a, a + np.array([3.0, 4.0]), projections=20_000) == pytest.approx(10 / np.pi, rel=0.01)


# Labels


def test_inception_score_limits() -> None:
    assert inception_score(np.eye(10)[np.arange(100) % 10]) == pytest.approx(10)  # sure and diverse
    assert inception_score(np.eye(10)[np.zeros(100, dtype=int)]) == pytest.approx(1)  # sure, one class
    assert inception_score(np.full((100, 10), 0.1)) == pytest.approx(1)  # unsure
    with pytest.raises(ValueError, match="softmax"):
        inception_score(normal(5, 3))


def test_class_balance_floor_is_what_uniform_labels_score() -> None:
    rng = np.random.default_rng(0)
    found = [class_balance(rng.integers(0, 10, 1000), 10) for _ in range(400)]
    assert np.mean([kl for kl, _ in found]) == pytest.approx(found[0][1], rel=0.1)
    assert found[0][1] == 9 / 2000
    assert class_balance([3] * 50, 10)[0] == pytest.approx(np.log(10))


# Two-sample tests


def test_kernel_test_p_values_are_uniform_under_the_null() -> None:
    found = [kernel_test(*normal(2, 25, 3, seed=seed), permutations=99, seed=seed).p_value for seed in range(300)]
    jittered = np.array(found) - np.random.default_rng(0).uniform(0, 0.01, 300)  # they are multiples of 0.01
    assert kstest(jittered, "uniform").pvalue > 0.01


def test_kernel_test_statistic_is_the_unbiased_mmd() -> None:
    a, b = normal(40, 4), normal(40, 4, seed=1) + 0.2
    found = kernel_test(a, b, permutations=9)
    pooled = np.concatenate([a, b])
    median = np.median(np.square(pooled[:, None] - pooled[None]).sum(-1)[np.triu_indices(80, 1)])
    off = ~np.eye(40, dtype=bool)
    k_aa, k_bb, k_ab = (rbf_kernel(x, y, gamma=1 / median) for x, y in ((a, a), (b, b), (a, b)))
    assert found.statistic == pytest.approx(k_aa[off].mean() + k_bb[off].mean() - 2 * k_ab.mean(), rel=1e-6)


def test_kernel_test_sees_a_shift() -> None:
    found = kernel_test(normal(200, 4), normal(200, 4, seed=1) + 0.5)
    assert found.p_value == pytest.approx(1 / 1001)
    assert str(found) == "distinguishable at n = 200 (kernel test): yes, p = 0.001"


def test_classifier_test_at_chance_and_above() -> None:
    same = classifier_test(normal(1000, 5), normal(1000, 5, seed=1))
    assert same.interval is not None
    assert same.interval[0] < 0.5 < same.interval[1]
    assert "not shown" in str(same)
    shifted = classifier_test(normal(1000, 5), normal(1000, 5, seed=1) + 2)
    assert shifted.statistic > 0.95
    assert shifted.distinguishable


def test_classifier_test_keeps_its_level() -> None:
    found = [classifier_test(*normal(2, 100, 2, seed=seed), seed=seed).distinguishable for seed in range(200)]
    assert np.mean(found) <= 0.05 + 3 * np.sqrt(0.05 * 0.95 / 200)


# Bad input


def test_bad_features_are_named() -> None:
    good, broken = normal(50, 3), normal(50, 3)
    broken[4, 1] = np.nan
    with pytest.raises(ValueError, match="1 of 50 samples of the generated features are NaN"):
        frechet_distance(good, broken)
    with pytest.raises(ValueError, match="real features have 3 dimensions, generated ones 4"):
        overlap(good, normal(50, 4))
    with pytest.raises(ValueError, match=r"shape \(50,\)"):
        sliced_wasserstein(good[:, 0], good[:, 0])
    with pytest.raises(ValueError, match="hold 5 samples: at least 6"):
        overlap(good[:5], good)
