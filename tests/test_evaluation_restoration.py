"""Super-resolution: consistency with the input, and what the mean of several samples tells."""

import numpy as np
import pytest
from PIL import Image

from hf_genzoo.evaluation.pictures import low_resolution_consistency, psnr_of_mean

BOX, BICUBIC, LANCZOS = Image.Resampling.BOX, Image.Resampling.BICUBIC, Image.Resampling.LANCZOS
ROUNDING = 1 / (12 * 255**2)  # mean squared error of rounding to 8 bits


def smooth(count: int = 3, side: int = 48, channels: int = 3) -> np.ndarray:
    """Pictures of two waves each, in [0.1, 0.9]: float64 (count, side, side, channels)."""
    rng = np.random.default_rng(0)
    y, x = np.mgrid[:side, :side][..., None, None] / side
    speed, phase = rng.uniform(-4, 4, (2, 2, count, channels)), rng.uniform(0, 6, (2, count, channels))
    waves = np.sin(2 * np.pi * (speed[0, 0] * x + speed[0, 1] * y) + phase[0])
    waves = waves + np.sin(2 * np.pi * (speed[1, 0] * x + speed[1, 1] * y) + phase[1])
    return (0.5 + 0.2 * waves).transpose(2, 0, 1, 3)


def resized(pictures: np.ndarray, side: int, resample: Image.Resampling) -> np.ndarray:
    """Through 8-bit pictures, as a data set is made."""
    levels = (pictures * 255).round().astype(np.uint8)
    return np.stack([np.asarray(Image.fromarray(p).resize((side, side), resample)) for p in levels]) / 255


@pytest.mark.parametrize("factor", [2, 3, 4])
def test_repeated_pixels_are_consistent_under_the_box_filter(factor: int) -> None:
    small = np.random.default_rng(0).random((4, 12, 10, 3))
    large = small.repeat(factor, axis=1).repeat(factor, axis=2)
    assert low_resolution_consistency(large, small, BOX).max() < 1e-13  # 32-bit floats
    assert low_resolution_consistency(large, small).min() > 1e-3  # the default is another filter


def test_a_constant_error_is_its_square() -> None:
    small = np.full((2, 8, 8), 0.3)
    found = low_resolution_consistency(np.full((2, 32, 32), 0.4), small)
    np.testing.assert_allclose(found, 0.01, rtol=1e-5)


def test_the_true_pictures_score_the_rounding_of_their_inputs() -> None:
    truth = (smooth() * 255).round() / 255
    shrunk = np.stack(
        [
            [np.asarray(Image.fromarray(c.astype(np.float32)).resize((12, 12), BICUBIC)) for c in p.transpose(2, 0, 1)]
            for p in truth
        ]
    ).transpose(0, 2, 3, 1)
    once = (shrunk * 255).round() / 255
    assert low_resolution_consistency(truth, once).mean() == pytest.approx(ROUNDING, rel=0.15)
    assert ROUNDING < low_resolution_consistency(truth, resized(truth, 12, BICUBIC)).mean() < 2.2 * ROUNDING


def test_upsampled_inputs_are_nearly_consistent_and_shifted_pictures_are_not() -> None:
    truth = smooth()
    small = resized(truth, 12, BICUBIC)
    upsampled = low_resolution_consistency(resized(small, 48, BICUBIC), small).mean()
    shifted = low_resolution_consistency(np.roll(truth, 2, axis=2), small).mean()
    exact = low_resolution_consistency(truth, small).mean()
    assert 10 * exact < upsampled < shifted / 10


def test_overshoot_is_clipped_as_in_8_bit_pictures() -> None:
    """At hard edges Lanczos leaves [0, 1] by a tenth, which no 8-bit input can."""
    edges = np.zeros((1, 48, 48))
    edges[:, 13:31, 9:22] = 1
    small = resized(edges, 12, LANCZOS)
    assert low_resolution_consistency(edges, small, LANCZOS)[0] < 2.2 * ROUNDING


def test_channels_are_averaged() -> None:
    truth = smooth()
    small = resized(truth, 12, BICUBIC)
    shifted = np.roll(truth, 1, axis=1)
    alone = [low_resolution_consistency(shifted[..., c], small[..., c]) for c in range(3)]
    np.testing.assert_allclose(low_resolution_consistency(shifted, small), np.mean(alone, axis=0), rtol=1e-9)


def test_the_mean_of_samples_gains_by_the_closed_form() -> None:
    """Samples spread by s around a mean that is b off: errors b^2 + s^2 / K, and b^2 + s^2 of single ones."""
    bias, spread, target = 0.02, 0.06, np.full((2, 64, 64, 3), 0.5)
    for k in (2, 4, 16):
        noise = np.random.default_rng(k).standard_normal((k, *target.shape))
        found = psnr_of_mean(target + bias + spread * noise, target)
        np.testing.assert_allclose(found.of_mean, -10 * np.log10(bias**2 + spread**2 / k), atol=0.1)
        np.testing.assert_allclose(found.of_singles, -10 * np.log10(bias**2 + spread**2), atol=0.1)


def test_samples_of_the_posterior_lose_three_decibels() -> None:
    """The truth is itself one draw: 10 log10 2 below the posterior's mean; the mean of K, 10 log10(1 + 1/K)."""
    spread, k = 0.05, 8
    draws = 0.5 + spread * np.random.default_rng(0).standard_normal((k + 1, 2, 64, 64))
    found = psnr_of_mean(draws[1:], draws[0])
    best = -10 * np.log10(spread**2)
    np.testing.assert_allclose(best - found.of_singles, 10 * np.log10(2), atol=0.1)
    np.testing.assert_allclose(best - found.of_mean, 10 * np.log10(1 + 1 / k), atol=0.1)


def test_a_model_without_spread_gains_nothing() -> None:
    target, answer = smooth(2, 16), smooth(2, 16)[:, ::-1]
    found = psnr_of_mean(np.stack([answer] * 3), target)
    np.testing.assert_allclose(found.of_mean, found.of_singles)


def test_bad_pictures_are_named() -> None:
    large, small = np.zeros((2, 16, 16, 3)), np.zeros((2, 8, 8, 3))
    for a, b, message in (
        (large, small[:1], r"\(2, 16, 16, 3\) against \(1, 8, 8, 3\): numbers and channels"),
        (large[..., :1], small, "numbers and channels"),
        (small, large, "8x8 are not larger than their inputs of 16x16"),
        (large + 2, small, "super-resolved pictures range from 2 to 2, not in"),
        (large, small * np.nan, "low-resolution pictures hold NaN"),
        (large[0, 0], small, r"super-resolved pictures have shape \(16, 3\)"),
    ):
        with pytest.raises(ValueError, match=message):
            low_resolution_consistency(a, b)
    for samples in (large, large[None], np.zeros((3, 2, 16, 16))):
        with pytest.raises(ValueError, match=r"pass \(K, \*target's shape\), K >= 2"):
            psnr_of_mean(samples, large)
    with pytest.raises(ValueError, match="range from 2 to 2"):
        psnr_of_mean(np.stack([large + 2] * 2), large)
