"""Baselines have the moments they claim, and the stronger one is stronger where it should be."""

import numpy as np
import pytest
from sklearn.covariance import ledoit_wolf_shrinkage

from hf_genzoo.evaluation.baselines import copies, ledoit_wolf, pca_gaussian, pca_mixture, pixel_gaussian
from hf_genzoo.evaluation.distances import frechet_distance
from hf_genzoo.evaluation.kernels import kernel_distance
from hf_genzoo.evaluation.memorisation import copy_report


def correlated(count: int, shape: tuple[int, ...], seed: int = 0, rank: int = 4) -> np.ndarray:
    """Grey pictures far from 0 and 255 in which `rank` patterns vary, on a little noise: uint8 (count, *shape)."""
    size = int(np.prod(shape))
    patterns = np.random.default_rng(1).standard_normal((rank, size)) * np.linspace(12, 4, rank)[:, None]
    rng = np.random.default_rng(seed)
    pixels = 128 + rng.standard_normal((count, rank)) @ patterns + 3 * rng.standard_normal((count, size))
    return pixels.round().clip(0, 255).astype(np.uint8).reshape(count, *shape)


def moments(images: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    flat = images.reshape(len(images), -1).astype(np.float64)
    return flat.mean(axis=0), np.cov(flat, rowvar=False)


def planted(count: int, seed: int = 0) -> np.ndarray:
    """Four kinds of 8x8 pictures: one bright quarter, with a little noise."""
    rng = np.random.default_rng(seed)
    pixels = np.full((count, 2, 4, 2, 4), 60.0)
    which = rng.integers(4, size=count)
    pixels[np.arange(count), which // 2, :, which % 2, :] = 190
    pixels = pixels.reshape(count, 8, 8) + 5 * rng.standard_normal((count, 8, 8))
    return pixels.round().clip(0, 255).astype(np.uint8)


def one_class(images: np.ndarray, count: int, seed: int = 0) -> np.ndarray:
    return pca_gaussian(images, np.zeros(len(images), dtype=np.int64), count, components=images[0].size, seed=seed)


GENERATORS = {
    "class-wise": one_class,
    "pixel": pixel_gaussian,
    "mixture": lambda images, count, seed=0: pca_mixture(images, count, components=1, dims=images[0].size, seed=seed),
    "copies": copies,
}


@pytest.mark.parametrize("shape", [(4, 5), (3, 2, 4)])
@pytest.mark.parametrize("name", GENERATORS)
def test_moments_are_those_of_the_pictures(name: str, shape: tuple[int, ...]) -> None:
    """Means within 5 standard errors; covariances within 5, of variance c_ii c_jj + c_ij^2 over the number."""
    images, count = correlated(1000, shape), 20_000
    drawn = GENERATORS[name](images, count)
    assert drawn.shape == (count, *shape)
    assert drawn.dtype == np.uint8
    (mean, covariance), (drawn_mean, drawn_covariance) = moments(images), moments(drawn)
    variance = np.diag(covariance)
    assert (np.abs(drawn_mean - mean) < 5 * np.sqrt(variance / count)).all()
    error = np.sqrt((np.outer(variance, variance) + covariance**2) / count)
    systematic = 1 / 12 * np.eye(len(mean))  # of rounding to whole levels
    if name == "mixture":
        systematic = systematic + 0.01 * variance.mean() * np.eye(len(mean))  # the floor of its variances
    if name == "copies":
        systematic = 0
    assert (np.abs(drawn_covariance - covariance - systematic) < 5 * error).all()


@pytest.mark.parametrize("count", [30, 1500])
def test_shrinkage_is_scikit_learn_s(count: int) -> None:
    """The second number of pictures is more than one chunk of inner products, and pixels are still more."""
    images = correlated(count, (3, 24, 24), rank=20)
    flat = images.reshape(count, -1)
    shrinkage, variance = ledoit_wolf(flat)
    assert shrinkage == pytest.approx(ledoit_wolf_shrinkage(flat.astype(np.float64)), rel=1e-6)
    assert variance == pytest.approx(flat.var(axis=0).mean(), rel=1e-6)


def test_pixel_gaussian_of_few_pictures_has_the_shrunk_covariance() -> None:
    """Twelve pictures of 40 pixels: their own covariance has rank 11, the draws' has 40."""
    images, count = correlated(12, (5, 8)), 40_000
    shrinkage, variance = ledoit_wolf(images.reshape(12, -1))
    assert 0.02 < shrinkage < 0.9
    mean, covariance = moments(images)
    expected = (1 - shrinkage) * covariance + (shrinkage * variance + 1 / 12) * np.eye(40)
    drawn_mean, drawn_covariance = moments(pixel_gaussian(images, count))
    assert (np.abs(drawn_mean - mean) < 5 * np.sqrt(np.diag(expected) / count)).all()
    error = np.sqrt((np.outer(np.diag(expected), np.diag(expected)) + expected**2) / count)
    assert (np.abs(drawn_covariance - expected) < 5 * error).all()
    assert np.linalg.matrix_rank(covariance) == 11
    assert np.linalg.eigvalsh(drawn_covariance).min() > 0.5 * shrinkage * variance


def test_pixel_gaussian_takes_large_pictures() -> None:
    images = correlated(60, (3, 64, 64))
    drawn = pixel_gaussian(images, 30)
    assert drawn.shape == (30, 3, 64, 64)
    assert np.abs(drawn.mean(axis=0) - images.mean(axis=0)).mean() < 8  # the mean's own error is 15 / sqrt(30)


def test_pca_gaussian_of_few_pictures_is_the_same_law() -> None:
    """With fewer pictures than pixels the axes come from inner products: same mean and covariance, on 9 axes."""
    images, count = correlated(10, (4, 6)), 20_000
    mean, covariance = moments(images)
    drawn_mean, drawn_covariance = moments(one_class(images, count))
    assert (np.abs(drawn_mean - mean) < 5 * np.sqrt(np.diag(covariance) / count) + 0.01).all()
    error = np.sqrt((np.outer(np.diag(covariance), np.diag(covariance)) + covariance**2) / count)
    assert (np.abs(drawn_covariance - covariance - np.eye(24) / 12) < 5 * error + 0.05).all()


def test_pca_gaussian_keeps_classes_apart() -> None:
    images = np.concatenate([correlated(200, (3, 4, 4)) - 60, correlated(200, (3, 4, 4), seed=1) + 60])
    drawn = pca_gaussian(images, np.repeat([4, 7], 200), 301, components=5)
    assert drawn.shape == (301, 3, 4, 4)
    assert drawn[:151].mean() == pytest.approx(images[:200].mean(), abs=2)
    assert drawn[151:].mean() == pytest.approx(images[200:].mean(), abs=2)


def test_the_mixture_beats_the_gaussian_on_modes() -> None:
    """Equal first two moments, so the Frechet distance of raw pixels sees nothing; the cubic kernel does."""
    images, fresh = planted(800), planted(800, seed=1)
    real = fresh.reshape(800, -1) / 255
    gaussian, mixture = (draw(images, 800).reshape(800, -1) / 255 for draw in (pixel_gaussian, pca_mixture))
    assert frechet_distance(real, gaussian) < 0.1 * real.var(axis=0).sum()
    worse, better = kernel_distance(real, gaussian), kernel_distance(real, mixture)
    assert worse.standard_error is not None
    assert better.standard_error is not None
    assert better.value < 0.1 * worse.value

    def one_bright_quarter(pixels: np.ndarray) -> float:
        bright = (pixels.reshape(-1, 2, 4, 2, 4).mean(axis=(2, 4)) > 0.49).sum(axis=(1, 2))
        return float((bright == 1).mean())

    assert one_bright_quarter(mixture) > 0.99
    assert one_bright_quarter(gaussian) < 0.7


def test_the_mixture_is_in_random_order_and_no_copier() -> None:
    images, held_out = planted(800), planted(400, seed=1)
    drawn = pca_mixture(images, 400)
    kinds = drawn.reshape(400, 2, 4, 2, 4).mean(axis=(2, 4)).reshape(400, 4).argmax(axis=1)
    assert (kinds[1:] == kinds[:-1]).mean() == pytest.approx(0.25, abs=0.1)
    flat = [x.reshape(len(x), -1) / 255 for x in (images, held_out, drawn)]
    assert copy_report(*flat).nearest_ratio > 0.8
    copied = copies(images, 400).reshape(400, -1) / 255
    assert copy_report(flat[0], flat[1], copied).nearest_ratio < 1e-4


def test_copies_are_drawn_with_replacement() -> None:
    images = np.arange(50, dtype=np.uint8).reshape(50, 1, 1)
    drawn = copies(images, 5000)
    counts = np.bincount(drawn.ravel(), minlength=50)
    assert len(counts) == 50
    assert np.square(counts - 100).sum() / 100 < 49 + 5 * np.sqrt(98)  # chi-squared of 49 degrees of freedom


@pytest.mark.parametrize("name", GENERATORS)
def test_seeds_reproduce_and_differ(name: str) -> None:
    images, generator = correlated(60, (3, 4, 4)), GENERATORS[name]
    first = generator(images, 25, seed=5)
    assert np.array_equal(first, generator(images, 25, seed=5))
    assert not np.array_equal(first, generator(images, 25, seed=6))
    assert generator(images, 1).shape == (1, 3, 4, 4)


@pytest.mark.parametrize("count", [2, 3, 60])
def test_the_mixture_s_defaults_fit_any_number_of_pictures(count: int) -> None:
    assert pca_mixture(correlated(count, (1, 8, 8)), 7).shape == (7, 1, 8, 8)


def test_bad_input_is_named() -> None:
    images, labels = correlated(20, (4, 4)), np.arange(20) // 10
    for generator in GENERATORS.values():
        with pytest.raises(ValueError, match="pictures are float64: pass uint8"):
            generator(images / 255, 5)
        with pytest.raises(ValueError, match="0 pictures to draw"):
            generator(images, 0)
    for generator in (pixel_gaussian, pca_mixture):
        with pytest.raises(ValueError, match=r"shape \(1, 4, 4\): they must be \(N, ...\) with N at least 2"):
            generator(images[:1], 5)
    with pytest.raises(ValueError, match=r"shape \(0, 4, 4\)"):
        copies(images[:0], 5)
    with pytest.raises(ValueError, match="20 pictures against 19 labels"):
        pca_gaussian(images, labels[1:], 5)
    with pytest.raises(ValueError, match="class 2 has 1 picture"):
        pca_gaussian(images, np.where(np.arange(20) == 7, 2, labels), 5)
    with pytest.raises(ValueError, match="21 components for 20 pictures: from 1 to 20"):
        pca_mixture(images, 5, components=21)
    with pytest.raises(ValueError, match="17 dimensions for 20 pictures of 16 pixels: from 1 to 16"):
        pca_mixture(images, 5, dims=17)
