"""Pictures compared one by one with what they should be: reconstruction, super-resolution, restoration.

Pictures are arrays (N, H, W, C) or (N, H, W) in [0, 1]; every function returns one number a picture, (N,).

Papers
- Wang et al. 2004, "Image Quality Assessment: From Error Visibility to Structural Similarity": SSIM.
"""

import numpy as np
from numpy.typing import ArrayLike

from hf_genzoo.evaluation.distances import Array

SSIM_SIGMA = 1.5  # of the Gaussian window; Wang et al. 2004, section III.C
SSIM_RADIUS = 5  # an 11 x 11 window
SSIM_K1, SSIM_K2 = 0.01, 0.03


def _pictures(a: ArrayLike, b: ArrayLike) -> tuple[Array, Array]:
    x, y = np.asarray(a, dtype=np.float64), np.asarray(b, dtype=np.float64)
    if x.shape != y.shape:
        raise ValueError(f"pictures of shape {x.shape} against {y.shape}: compare equal numbers and sizes")
    if x.ndim not in (3, 4):
        raise ValueError(f"pictures have shape {x.shape}: they must be (N, H, W) or (N, H, W, C)")
    for name, values in (("first", x), ("second", y)):
        if not np.isfinite(values).all():
            raise ValueError(f"the {name} pictures hold NaN or infinite pixels")
        if values.min() < 0 or values.max() > 1:
            raise ValueError(f"the {name} pictures range from {values.min():.3g} to {values.max():.3g}, not in [0, 1]")
    return x.reshape(*x.shape[:3], -1), y.reshape(*y.shape[:3], -1)


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
