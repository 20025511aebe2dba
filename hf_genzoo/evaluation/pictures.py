"""Pictures compared one by one with what they should be: reconstruction, super-resolution, restoration.

Pictures are arrays (N, H, W, C) or (N, H, W) in [0, 1]; every function returns one number a picture, (N,).

Papers
- Wang et al. 2004, "Image Quality Assessment: From Error Visibility to Structural Similarity": SSIM.
- Lugmayr et al. 2020, "SRFlow: Learning the Super-Resolution Space with Normalizing Flow": low-resolution consistency.
- Saharia et al. 2021, "Image Super-Resolution via Iterative Refinement" (SR3): the same, as an MSE.
- Blau & Michaeli 2018, "The Perception-Distortion Tradeoff": why a single sample of the posterior loses up to 3 dB
  against the posterior's mean.

What differs from the papers and why: consistency is taken with the antialiased filters of Pillow, with which pictures
are made small here, not with Matlab's.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike
from PIL import Image

from hf_genzoo.evaluation.distances import Array

SSIM_SIGMA = 1.5  # of the Gaussian window; Wang et al. 2004, section III.C
SSIM_RADIUS = 5  # an 11 x 11 window
SSIM_K1, SSIM_K2 = 0.01, 0.03


def _pictures(a: ArrayLike, b: ArrayLike) -> tuple[Array, Array]:
    x, y = _checked(a, "first pictures"), _checked(b, "second pictures")
    if np.shape(a) != np.shape(b):
        raise ValueError(f"pictures of shape {np.shape(a)} against {np.shape(b)}: compare equal numbers and sizes")
    return x, y


def _checked(pictures: ArrayLike, name: str) -> Array:
    """Pictures as float64 (N, H, W, C)."""
    values = np.asarray(pictures, dtype=np.float64)
    if values.ndim not in (3, 4) or not values.size:
        raise ValueError(f"{name} have shape {values.shape}: they must be (N, H, W) or (N, H, W, C)")
    if not np.isfinite(values).all():
        raise ValueError(f"the {name} hold NaN or infinite pixels")
    if values.min() < 0 or values.max() > 1:
        raise ValueError(f"the {name} range from {values.min():.3g} to {values.max():.3g}, not in [0, 1]")
    return values.reshape(*values.shape[:3], -1)


def mean_squared_error(a: ArrayLike, b: ArrayLike) -> Array:
    """Mean over pixels and channels of the squared difference.

    Raises:
        ValueError: if shapes differ, or pixels are not in [0, 1].
    """
    x, y = _pictures(a, b)
    return np.square(x - y).mean(axis=(1, 2, 3))


def psnr(a: ArrayLike, b: ArrayLike) -> Array:
    """Peak signal-to-noise ratio -10 log10(MSE), in dB; infinite where two pictures are equal.

    Raises:
        ValueError: if shapes differ, or pixels are not in [0, 1].
    """
    error = mean_squared_error(a, b)
    with np.errstate(divide="ignore"):
        return -10 * np.log10(error)


def ssim(a: ArrayLike, b: ArrayLike) -> Array:
    """Structural similarity (Wang et al. 2004, eq. 13); 1 for equal pictures.

    It is averaged over channels and over the positions where the whole window fits. Moments in the window are those of
    the weighted population, as in the paper.

    Raises:
        ValueError: if shapes differ, pixels are not in [0, 1], or a picture is smaller than the window (11 x 11).
    """
    from scipy.ndimage import correlate1d

    x, y = _pictures(a, b)
    width = 2 * SSIM_RADIUS + 1
    if min(x.shape[1:3]) < width:
        raise ValueError(f"pictures of {x.shape[1]}x{x.shape[2]} are smaller than the {width}x{width} window of SSIM")
    offsets = np.arange(-SSIM_RADIUS, SSIM_RADIUS + 1)
    window = np.exp(-(offsets**2) / (2 * SSIM_SIGMA**2))
    window /= window.sum()
    inside = slice(SSIM_RADIUS, -SSIM_RADIUS)

    def mean(values: Array) -> Array:
        return correlate1d(correlate1d(values, window, axis=1), window, axis=2)[:, inside, inside]

    mean_x, mean_y = mean(x), mean(y)
    variance_x, variance_y = mean(x * x) - mean_x**2, mean(y * y) - mean_y**2
    covariance = mean(x * y) - mean_x * mean_y
    c1, c2 = SSIM_K1**2, SSIM_K2**2
    luminance = (2 * mean_x * mean_y + c1) / (mean_x**2 + mean_y**2 + c1)
    structure = (2 * covariance + c2) / (variance_x + variance_y + c2)
    return (luminance * structure).mean(axis=(1, 2, 3))


def low_resolution_consistency(
    sr: ArrayLike, lr: ArrayLike, resample: Image.Resampling = Image.Resampling.BICUBIC
) -> Array:
    """Mean squared error between super-resolved pictures made small again and their low-resolution inputs.

    0 for pictures that agree with what was given. Pixels are in [0, 1]; SR3 prints the number in units of 1e-5, SRFlow
    as -10 log10 of it. A result is made small in 32-bit floats, across and then down, and clipped to [0, 1] after
    each, as Pillow does with 8-bit pictures, but not rounded. Inputs that were rounded to 8 bits leave the true
    pictures an error of 1 / (12 255^2) = 0.13e-5, and up to twice that where Pillow made them small in 8 bits, which
    rounds after each of its two directions.

    Args:
        sr: (N, H, W, C) or (N, H, W) in [0, 1].
        lr: The inputs, (N, h, w, C) or (N, h, w) in [0, 1]; smaller.
        resample: The filter with which the inputs were made small.

    Raises:
        ValueError: if numbers or channels differ, inputs are not smaller, or pixels are not in [0, 1].
    """
    large, small = _checked(sr, "super-resolved pictures"), _checked(lr, "low-resolution pictures")
    if (len(large), large.shape[3]) != (len(small), small.shape[3]):
        raise ValueError(
            f"pictures of shape {np.shape(sr)} against {np.shape(lr)}: numbers and channels must be equal"
        )
    height, width = small.shape[1:3]
    if height >= large.shape[1] or width >= large.shape[2]:
        raise ValueError(
            f"super-resolved pictures of {large.shape[1]}x{large.shape[2]} are not larger than their inputs of "
            f"{height}x{width}: pass the result first"
        )
    error = np.empty_like(small)
    for i, picture in enumerate(large.astype(np.float32)):
        for channel in range(small.shape[3]):
            rows = _resized(picture[..., channel], (width, len(picture)), resample)
            error[i, ..., channel] = _resized(rows, (width, height), resample) - small[i, ..., channel]
    return np.square(error).mean(axis=(1, 2, 3))


def _resized(plane: np.ndarray, size: tuple[int, int], resample: Image.Resampling) -> np.ndarray:
    """One channel (H, W) at another (width, height), without the overshoot of the filter beyond [0, 1]."""
    return np.asarray(Image.fromarray(np.ascontiguousarray(plane)).resize(size, resample)).clip(0, 1)


@dataclass(frozen=True)
class MeanOfSamples:
    """PSNR of several samples for each input, in dB, (N,) each.

    Attributes:
        of_mean: PSNR of the mean of the samples.
        of_singles: Mean over the samples of each one's PSNR.
    """

    of_mean: Array
    of_singles: Array


def psnr_of_mean(samples: ArrayLike, target: ArrayLike) -> MeanOfSamples:
    """Whether samples are spread around the truth as those of a posterior are: PSNR of their mean, and of single ones.

    A sample's squared error is bias^2 + variance, the mean's is bias^2 + variance / K. For a model that samples the
    true posterior the bias is that of the best estimate, whose squared error is the variance: then single samples lose
    10 log10 2 = 3.01 dB against the posterior's mean, and the mean of K loses 10 log10(1 + 1/K) (Blau & Michaeli
    2018). A model that always gives the same answer has both numbers equal.

    Args:
        samples: K samples for each of N inputs, (K, N, H, W, C) or (K, N, H, W) in [0, 1].
        target: What they should be, (N, H, W, C) or (N, H, W) in [0, 1].

    Raises:
        ValueError: if shapes do not fit, there is one sample only, or pixels are not in [0, 1].
    """
    drawn, truth = np.asarray(samples, dtype=np.float64), np.asarray(target, dtype=np.float64)
    if drawn.ndim != truth.ndim + 1 or drawn.shape[1:] != truth.shape or len(drawn) < 2:
        raise ValueError(f"samples of shape {drawn.shape} against {truth.shape}: pass (K, *target's shape), K >= 2")
    singles = np.mean([psnr(sample, truth) for sample in drawn], axis=0)
    return MeanOfSamples(of_mean=psnr(drawn.mean(axis=0), truth), of_singles=singles)
