"""Measures with known answers: points in the plane, pictures, copies, point clouds."""

import numpy as np
import pytest
from skimage.metrics import peak_signal_noise_ratio, structural_similarity

from hf_genzoo.data import Gaussians2D
from hf_genzoo.evaluation.memorisation import copy_report
from hf_genzoo.evaluation.pictures import mean_squared_error, psnr, ssim
from hf_genzoo.evaluation.point_clouds import chamfer_distance, cloud_report, earth_movers_distance
from hf_genzoo.evaluation.points import mode_report, negative_log_likelihood, wasserstein


def normal(*shape: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).standard_normal(shape)


# Points


def test_the_law_s_own_points_cover_every_mode_and_score_the_floor() -> None:
    """P(|x| <= 3 std) in the plane is 1 - exp(-9/2); the KL is its floor on average."""
    law = Gaussians2D("grid")
    reports = [mode_report(law.sample(2500, seed=seed)[0], law) for seed in range(40)]
    assert {report.modes for report in reports} == {25}
    share = 1 - np.exp(-4.5)
    assert np.mean([r.high_quality for r in reports]) == pytest.approx(share, abs=4 * np.sqrt(0.01 / 100_000))
    floor = np.mean([r.reverse_kl_floor for r in reports])
    assert np.mean([r.reverse_kl for r in reports]) == pytest.approx(floor, rel=0.15)


def test_missing_modes_and_noise_are_counted() -> None:
    law = Gaussians2D("ring")
    points, which = law.sample(4000, seed=0)
    assert which is not None
    half = mode_report(points[which < 4], law)
    assert half.modes == 4
    assert half.reverse_kl == pytest.approx(np.log(2), abs=0.01)
    far = np.where(np.arange(4000)[:, None] % 4 == 0, 5.0, points)
    assert mode_report(far, law).high_quality == pytest.approx(0.75 * (1 - np.exp(-4.5)), abs=0.005)
    nothing = mode_report(np.full((10, 2), 9.0), law)
    assert (nothing.modes, nothing.high_quality) == (0, 0.0)
    with pytest.raises(ValueError, match="'moons' has no modes"):
        mode_report(points, Gaussians2D("moons"))


def test_wasserstein_of_a_shift_and_of_a_scaling() -> None:
    a = normal(300, 2)
    shift = np.array([3.0, 4.0])
    assert wasserstein(a, np.random.default_rng(0).permutation(a) + shift) == pytest.approx(5)
    assert wasserstein(a, a + shift, order=2) == pytest.approx(5)
    # Scaling is the gradient of a convex function, so the identity assignment is the best one for W_2 (Brenier).
    assert wasserstein(a, 2 * a, order=2) == pytest.approx(np.sqrt(np.square(a).sum(1).mean()))
    with pytest.raises(ValueError, match="300 points against 200"):
        wasserstein(a, a[:200])


def test_negative_log_likelihood_of_the_law_s_own_points_is_its_entropy() -> None:
    """Modes hardly overlap: log K + log(2 pi e std^2)."""
    law = Gaussians2D("ring")
    entropy = np.log(8) + np.log(2 * np.pi * np.e * 0.01**2)
    points = law.sample(50_000, seed=0)[0]
    assert negative_log_likelihood(points, law) == pytest.approx(entropy, abs=4 / np.sqrt(50_000))


# Pictures


def test_psnr_and_mse_of_a_constant_error() -> None:
    a = np.full((3, 16, 16, 3), 0.5)
    np.testing.assert_allclose(mean_squared_error(a, a + 0.1), 0.01)
    np.testing.assert_allclose(psnr(a, a + 0.1), 20)
    assert np.isinf(psnr(a, a)).all()


@pytest.mark.parametrize("shape", [(4, 28, 28), (2, 20, 33, 3)])
def test_psnr_and_ssim_agree_with_scikit_image(shape: tuple[int, ...]) -> None:
    a = np.random.default_rng(0).uniform(size=shape)
    b = np.clip(a + 0.1 * normal(*shape), 0, 1)
    channel = {"channel_axis": -1} if len(shape) == 4 else {}
    options = {"gaussian_weights": True, "sigma": 1.5, "use_sample_covariance": False, "data_range": 1.0, **channel}
    expected = [structural_similarity(x, y, **options) for x, y in zip(a, b, strict=True)]
    np.testing.assert_allclose(ssim(a, b), expected, rtol=1e-6)
    expected = [peak_signal_noise_ratio(x, y, data_range=1.0) for x, y in zip(a, b, strict=True)]
    np.testing.assert_allclose(psnr(a, b), expected, rtol=1e-6)
    np.testing.assert_allclose(ssim(a, a), 1)


def test_ssim_of_constant_pictures_is_the_luminance_term() -> None:
    a, b = np.full((1, 16, 16), 0.2), np.full((1, 16, 16), 0.6)
    expected = (2 * 0.2 * 0.6 + 1e-4) / (0.2**2 + 0.6**2 + 1e-4)
    np.testing.assert_allclose(ssim(a, b), expected, rtol=1e-9)


def test_bad_pictures_are_named() -> None:
    a = np.zeros((2, 16, 16))
    with pytest.raises(ValueError, match=r"\(2, 16, 16\) against \(1, 16, 16\)"):
        psnr(a, a[:1])
    with pytest.raises(ValueError, match="second pictures range from 0 to 255"):
        psnr(a, np.linspace(0, 255, 512).reshape(2, 16, 16))
    with pytest.raises(ValueError, match="8x8 are smaller than the 11x11 window"):
        ssim(a[:, :8, :8], a[:, :8, :8])


# Memorisation


def test_fresh_samples_are_no_copies_and_copies_are() -> None:
    train, held_out, fresh = normal(3, 500, 6)
    report = copy_report(train, held_out, fresh)
    assert report.nearest_ratio == pytest.approx(1, abs=0.1)
    assert not report.copies
    copier = train[np.random.default_rng(1).integers(0, 500, 500)] + 1e-3 * normal(500, 6, seed=2)
    report = copy_report(train, held_out, copier)
    assert report.nearest_ratio < 0.01
    assert report.copies
    assert report.num_copies > 490
    few = np.where(np.arange(500)[:, None] < 25, copier, 1.1 * fresh)  # one in twenty copied, the others off the data
    report = copy_report(train, held_out, few)
    assert report.nearest_ratio > 1
    assert report.copies


def test_smooth_samples_are_no_copies() -> None:
    """Drawn towards the mean they are nearer to everything, and copies of nothing."""
    train, held_out, fresh = normal(3, 500, 6)
    report = copy_report(train, held_out, 0.9 * fresh)
    assert report.nearest_ratio < 0.97
    assert not report.copies


def test_the_probability_of_copies_is_that_of_the_least_ranks() -> None:
    """Among 3 generated and 2 held-out samples the two least are generated ones with probability 3/5 * 2/4."""
    train = np.zeros((2, 1))
    report = copy_report(train, np.array([[3.0], [4.0]]), np.array([[1.0], [2.0], [5.0]]))
    assert report.num_copies == 2
    assert report.p_value == pytest.approx(3 / 5 * 2 / 4)


def test_copying_is_claimed_seldom_under_the_null() -> None:
    claims = [copy_report(*normal(3, 60, 3, seed=seed)).copies for seed in range(200)]
    assert np.mean(claims) <= 0.01 + 3 * np.sqrt(0.01 * 0.99 / 200)


# Point clouds


def test_chamfer_and_earth_movers_distances_of_a_small_shift() -> None:
    """Points of a coarse grid moved by less than half a cell: each one's partner is its own copy."""
    grid = np.stack(np.meshgrid(*[np.arange(4.0)] * 3), axis=-1).reshape(-1, 3)
    moved = np.random.default_rng(0).permutation(grid + np.array([0.3, 0.0, 0.0]))
    assert chamfer_distance(grid, moved) == pytest.approx(2 * 0.09)
    assert earth_movers_distance(grid, moved) == pytest.approx(0.3)
    assert chamfer_distance(grid, grid) == 0


@pytest.mark.parametrize("distance", [chamfer_distance, earth_movers_distance])
def test_nearest_neighbour_accuracy_of_a_split_set_and_of_noise(distance) -> None:
    spheres = normal(120, 24, 3)
    spheres /= np.linalg.norm(spheres, axis=-1, keepdims=True)
    split = cloud_report(spheres[:60], spheres[60:], distance)
    assert split.nearest_neighbour_accuracy == pytest.approx(0.5, abs=4 * 0.5 / np.sqrt(120))
    noise = cloud_report(spheres[:60], 3 * normal(60, 24, 3, seed=1), distance)
    assert noise.nearest_neighbour_accuracy == 1
    assert noise.minimum_matching_distance > split.minimum_matching_distance
    collapsed = cloud_report(spheres[:60], spheres[60:61] + 1e-3 * normal(60, 24, 3, seed=2), distance)
    assert collapsed.coverage < 0.2 < split.coverage
