"""The same numbers from other people's code on the same features, to 1e-6, or why they differ.

scikit-learn, scipy and scikit-image are there wherever the tests run; torchmetrics, prdc and POT are compared with
where they are installed.
"""

import numpy as np
import pytest
import torch
from scipy.linalg import eigvals, sqrtm
from scipy.spatial import cKDTree
from scipy.spatial.distance import cdist, pdist
from scipy.stats import entropy, multivariate_normal, norm, wasserstein_distance
from skimage.metrics import mean_squared_error as skimage_mse
from skimage.metrics import peak_signal_noise_ratio, structural_similarity
from sklearn.discriminant_analysis import LinearDiscriminantAnalysis
from sklearn.metrics import mutual_info_score
from sklearn.metrics.pairwise import polynomial_kernel, rbf_kernel
from sklearn.model_selection import LeaveOneOut, cross_val_predict
from sklearn.neighbors import KNeighborsClassifier, NearestNeighbors

from hf_genzoo.data import Gaussians2D
from hf_genzoo.evaluation.distances import class_balance, frechet_distance, inception_score, sliced_wasserstein
from hf_genzoo.evaluation.kernels import cmmd, kernel_distance
from hf_genzoo.evaluation.memorisation import copy_report
from hf_genzoo.evaluation.neighbours import overlap
from hf_genzoo.evaluation.pictures import mean_squared_error, psnr, ssim
from hf_genzoo.evaluation.point_clouds import chamfer_distance, cloud_report, earth_movers_distance
from hf_genzoo.evaluation.points import negative_log_likelihood, wasserstein
from hf_genzoo.evaluation.two_sample import classifier_test, kernel_test

CLOSE = {"rel": 1e-6}


def features(count: int = 300, dimensions: int = 16, seed: int = 0) -> np.ndarray:
    """Correlated and off centre, as those of a network are."""
    rng = np.random.default_rng(seed)
    mixing = rng.standard_normal((dimensions, dimensions)) / np.sqrt(dimensions)
    return rng.standard_normal((count, dimensions)) @ mixing + rng.uniform(0, 1, dimensions)


def pictures(*shape: int) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(0)
    one = rng.uniform(size=shape)
    return one, np.clip(one + 0.1 * rng.standard_normal(shape), 0, 1)


def unbiased_mmd(k_aa: np.ndarray, k_bb: np.ndarray, k_ab: np.ndarray) -> float:
    def off(k: np.ndarray) -> float:
        return float(k[~np.eye(len(k), dtype=bool)].mean())

    return off(k_aa) + off(k_bb) - 2 * float(k_ab.mean())


# Frechet distance


def test_frechet_distance_of_scipy_s_matrix_root() -> None:
    a, b = features(), features(seed=1)
    c_a, c_b = np.cov(a, rowvar=False), np.cov(b, rowvar=False)
    root = np.trace(sqrtm(c_a @ c_b)).real
    expected = np.square(a.mean(0) - b.mean(0)).sum() + np.trace(c_a) + np.trace(c_b) - 2 * root
    assert frechet_distance(a, b) == pytest.approx(expected, **CLOSE)


def test_frechet_distance_of_scipy_s_eigenvalues_with_fewer_samples_than_dimensions() -> None:
    """The product is singular then and has no computable root; torch-fidelity takes its eigenvalues as here."""
    a, b = features(10), features(10, seed=1)
    c_a, c_b = np.cov(a, rowvar=False), np.cov(b, rowvar=False)
    root = np.sqrt(eigvals(c_a @ c_b)).real.sum()
    expected = np.square(a.mean(0) - b.mean(0)).sum() + np.trace(c_a) + np.trace(c_b) - 2 * root
    assert frechet_distance(a, b) == pytest.approx(expected, **CLOSE)


class Rows(torch.nn.Module):
    """A feature network that passes features on."""

    num_features = 16

    def forward(self, rows: torch.Tensor) -> torch.Tensor:
        return rows


def test_frechet_distance_of_torchmetrics() -> None:
    fid = pytest.importorskip("torchmetrics.image.fid")
    a, b = features(), features(seed=1)
    metric = fid.FrechetInceptionDistance(feature=Rows()).set_dtype(torch.float64)
    metric.update(torch.from_numpy(a), real=True)
    metric.update(torch.from_numpy(b), real=False)
    assert frechet_distance(a, b) == pytest.approx(metric.compute().item(), **CLOSE)


def test_frechet_distance_of_pot_has_covariances_over_n() -> None:
    """POT's `empirical_bures_wasserstein_distance` divides by n, FID's code and ours by n - 1; moments agree."""
    ot = pytest.importorskip("ot")
    a, b = features(), features(seed=1)
    moments = [a.mean(0), b.mean(0), np.cov(a, rowvar=False), np.cov(b, rowvar=False)]
    assert frechet_distance(a, b) == pytest.approx(ot.gaussian.bures_wasserstein_distance(*moments) ** 2, **CLOSE)
    shift = np.square(moments[0] - moments[1]).sum()
    expected = shift + (frechet_distance(a, b) - shift) * 299 / 300
    assert ot.gaussian.empirical_bures_wasserstein_distance(a, b, reg=0) ** 2 == pytest.approx(expected, **CLOSE)


# Kernel distances


def test_kernel_distances_of_scikit_learn() -> None:
    """With samples of different size, where a formula for equal sizes would go wrong."""
    a, b = features(120), features(90, seed=1)
    cubic = [polynomial_kernel(x, y, degree=3, gamma=1 / 16, coef0=1) for x, y in ((a, a), (b, b), (a, b))]
    assert kernel_distance(a, b).value == pytest.approx(unbiased_mmd(*cubic), **CLOSE)
    gaussian = [rbf_kernel(x, y, gamma=1 / (2 * 10**2)) for x, y in ((a, a), (b, b), (a, b))]
    assert cmmd(a, b).value == pytest.approx(1000 * unbiased_mmd(*gaussian), **CLOSE)


def test_kernel_distance_of_torchmetrics() -> None:
    """One subset of all samples; a hundred subsets of a part of them have ours as their mean."""
    kid = pytest.importorskip("torchmetrics.image.kid")
    a, b = features(), features(seed=1)

    def theirs(subsets: int, size: int) -> tuple[float, float]:
        metric = kid.KernelInceptionDistance(feature=Rows(), subsets=subsets, subset_size=size)
        metric.update(torch.from_numpy(a), real=True)
        metric.update(torch.from_numpy(b), real=False)
        mean, spread = metric.compute()
        return mean.item(), spread.item()

    assert kernel_distance(a, b).value == pytest.approx(theirs(1, 300)[0], **CLOSE)
    torch.manual_seed(0)
    mean, spread = theirs(100, 100)
    assert kernel_distance(a, b).value == pytest.approx(mean, abs=4 * spread / np.sqrt(100))


def test_kernel_test_s_statistic_of_scikit_learn() -> None:
    a, b = features(80), features(80, seed=1)
    gamma = 1 / np.median(pdist(np.concatenate([a, b]), "sqeuclidean"))
    expected = unbiased_mmd(*(rbf_kernel(x, y, gamma=gamma) for x, y in ((a, a), (b, b), (a, b))))
    assert kernel_test(a, b, permutations=9).statistic == pytest.approx(expected, **CLOSE)


# Overlap


def test_overlap_of_prdc() -> None:
    prdc = pytest.importorskip("prdc")
    a, b = features(300, 4), 0.2 + features(240, 4, seed=1)
    for k in (1, 5):
        found, expected = overlap(a, b, k), prdc.compute_prdc(a, b, k)
        for name, value in expected.items():
            assert 0.02 < value < 0.98 or name == "density"
            assert getattr(found, name) == pytest.approx(value, **CLOSE), (name, k)


def test_overlap_s_balls_are_open_as_those_of_prdc() -> None:
    """A ball does not hold its surface, in prdc and here; in Kynkaanniemi et al. 2019 it does (<=).

    It matters only where more than k real samples are equal: their balls have no radius, and exact copies of them are
    then outside. Whole numbers, so that distances of equal samples are 0 and not 1e-8.
    """
    prdc = pytest.importorskip("prdc")
    places = np.array([[0.0, 0], [8, 0], [0, 8], [8, 8], [3, 5]])
    real, fake = places.repeat(6, axis=0), places.repeat(2, axis=0)
    found, expected = overlap(real, fake), prdc.compute_prdc(real, fake, 5)
    assert found.precision == expected["precision"] == 0
    assert found.coverage == expected["coverage"] == 0
    assert overlap(real[::2], fake).precision == prdc.compute_prdc(real[::2], fake, 5)["precision"] == 1


def test_overlap_of_scikit_learn_s_neighbours() -> None:
    a, b, k = features(200, 4), 0.2 + features(150, 4, seed=1), 3
    reach_a, reach_b = (NearestNeighbors(n_neighbors=k).fit(x).kneighbors()[0][:, -1] for x in (a, b))  # not itself
    between, found = cdist(a, b), overlap(a, b, k)
    assert found.precision == (between < reach_a[:, None]).any(axis=0).mean()
    assert found.recall == (between < reach_b).any(axis=1).mean()
    assert found.density == pytest.approx((between < reach_a[:, None]).sum(axis=0).mean() / k, **CLOSE)
    assert found.coverage == (between.min(axis=1) < reach_a).mean()


# Wasserstein


def directions(count: int, seed: int) -> np.ndarray:
    """The directions that `sliced_wasserstein` draws with this seed, (16, count)."""
    drawn = np.random.default_rng(seed).standard_normal((16, count))
    return drawn / np.linalg.norm(drawn, axis=0)


@pytest.mark.parametrize("count", [300, 170])
def test_sliced_wasserstein_of_scipy(count: int) -> None:
    a, b = features(), features(count, seed=1)
    expected = np.mean([wasserstein_distance(a @ u, b @ u) for u in directions(64, seed=3).T])
    assert sliced_wasserstein(a, b, projections=64, seed=3) == pytest.approx(expected, **CLOSE)


@pytest.mark.parametrize("count", [300, 170])
def test_sliced_wasserstein_of_pot(count: int) -> None:
    ot = pytest.importorskip("ot")
    a, b = features(), features(count, seed=1)
    expected = ot.sliced_wasserstein_distance(a, b, projections=directions(64, seed=3), p=1)
    assert sliced_wasserstein(a, b, projections=64, seed=3) == pytest.approx(expected, **CLOSE)


def test_exact_wasserstein_of_pot() -> None:
    ot = pytest.importorskip("ot")
    a, b = features(200, 3), features(200, 3, seed=1)
    weights = np.full(200, 1 / 200)
    expected = ot.emd2(weights, weights, ot.dist(a, b, "euclidean"))
    assert wasserstein(a, b) == pytest.approx(expected, **CLOSE)
    assert earth_movers_distance(a, b) == pytest.approx(expected, **CLOSE)
    assert wasserstein(a, b, order=2) == pytest.approx(ot.emd2(weights, weights, ot.dist(a, b)) ** 0.5, **CLOSE)


# Labels and densities


def test_inception_score_of_scikit_learn() -> None:
    """For sure predictions it is exp of the mutual information of pictures and classes."""
    classes = np.random.default_rng(0).integers(0, 4, 300) ** 2 % 7
    assert inception_score(np.eye(7)[classes]) == pytest.approx(np.exp(mutual_info_score(classes, classes)), **CLOSE)


def test_inception_score_of_torchmetrics() -> None:
    """In one split: the usual ten splits of N samples score lower, each with the bias of N / 10."""
    inception = pytest.importorskip("torchmetrics.image.inception")
    logits = torch.from_numpy(2 * np.random.default_rng(0).standard_normal((300, 10)))

    def theirs(splits: int) -> float:
        metric = inception.InceptionScore(feature=Rows(), splits=splits)
        metric.update(logits)
        return metric.compute()[0].item()

    found = inception_score(logits.softmax(dim=1).numpy())
    assert found == pytest.approx(theirs(1), **CLOSE)
    assert found > theirs(10) * 1.01


def test_class_balance_of_scipy() -> None:
    labels = np.random.default_rng(0).integers(0, 6, 500) ** 2 // 6
    counts = np.bincount(labels, minlength=6)
    assert class_balance(labels, 6)[0] == pytest.approx(entropy(counts, np.ones(6)), **CLOSE)


def test_negative_log_likelihood_of_scipy() -> None:
    law = Gaussians2D("grid")
    assert law.modes is not None
    assert law.std is not None
    points = law.sample(400, seed=0)[0].astype(np.float64)
    density = np.mean([multivariate_normal(mode, law.std**2).pdf(points) for mode in law.modes], axis=0)
    assert negative_log_likelihood(points, law) == pytest.approx(-np.log(density).mean(), **CLOSE)


# Pictures


@pytest.mark.parametrize("shape", [(3, 28, 28), (2, 24, 33, 3)])
def test_picture_measures_of_scikit_image(shape: tuple[int, ...]) -> None:
    one, other = pictures(*shape)
    options = {"gaussian_weights": True, "sigma": 1.5, "use_sample_covariance": False, "data_range": 1.0}
    options |= {"channel_axis": -1} if len(shape) == 4 else {}
    pairs = list(zip(one, other, strict=True))
    np.testing.assert_allclose(mean_squared_error(one, other), [skimage_mse(x, y) for x, y in pairs], rtol=1e-6)
    expected = [peak_signal_noise_ratio(x, y, data_range=1.0) for x, y in pairs]
    np.testing.assert_allclose(psnr(one, other), expected, rtol=1e-6)
    expected = [structural_similarity(x, y, **options) for x, y in pairs]
    np.testing.assert_allclose(ssim(one, other), expected, rtol=1e-6)


def test_picture_measures_of_torchmetrics_without_its_border() -> None:
    """torchmetrics averages SSIM over mirrored borders too; where the window fits, its map is ours."""
    functional = pytest.importorskip("torchmetrics.functional.image")
    one, other = pictures(2, 24, 33, 3)
    tensors = [torch.from_numpy(x.transpose(0, 3, 1, 2).copy()) for x in (one, other)]
    expected = functional.peak_signal_noise_ratio(*tensors, data_range=1.0, dim=(1, 2, 3), reduction="none")
    np.testing.assert_allclose(psnr(one, other), expected, rtol=1e-6)
    whole, everywhere = functional.structural_similarity_index_measure(
        *tensors, data_range=1.0, reduction="none", return_full_image=True
    )
    inside = everywhere[..., 5:-5, 5:-5].mean(dim=(1, 2, 3))
    np.testing.assert_allclose(ssim(one, other), inside, rtol=1e-6)
    assert np.abs(ssim(one, other) - whole.numpy()).max() > 1e-4  # the border counts


# Point clouds


def test_chamfer_distance_of_scipy() -> None:
    """Squared distances, both ways added; some packages give plain distances (point-cloud-utils) or halve the sum."""
    a, b = features(200, 3), features(150, 3, seed=1)
    expected = np.square(cKDTree(b).query(a)[0]).mean() + np.square(cKDTree(a).query(b)[0]).mean()
    assert chamfer_distance(a, b) == pytest.approx(expected, **CLOSE)


def test_nearest_neighbour_accuracy_of_scikit_learn() -> None:
    x, y = (features(20 * 8, 3, seed=seed).reshape(20, 8, 3) * (1 + 0.3 * seed) for seed in (0, 1))
    clouds = np.concatenate([x, y])
    distances = np.array([[chamfer_distance(a, b) for b in clouds] for a in clouds])
    labels = np.repeat([0, 1], 20)
    classifier = KNeighborsClassifier(n_neighbors=1, metric="precomputed")
    predicted = cross_val_predict(classifier, distances, labels, cv=LeaveOneOut())
    found = cloud_report(x, y)
    assert found.nearest_neighbour_accuracy == (predicted == labels).mean()
    assert found.minimum_matching_distance == pytest.approx(distances[:20, 20:].min(axis=1).mean(), **CLOSE)


# Copies and the classifier test


def test_nearest_ratio_of_scikit_learn() -> None:
    train, held_out, fake = features(400, 5), features(150, 5, seed=1), 1.2 * features(100, 5, seed=2)
    search = NearestNeighbors(n_neighbors=1).fit(train)
    fresh, drawn = (search.kneighbors(points)[0][:, 0] for points in (held_out, fake))
    report = copy_report(train, held_out, fake)
    assert report.nearest_ratio == pytest.approx(np.median(drawn) / np.median(fresh), **CLOSE)
    assert report.num_copies == (drawn < fresh.min()).sum()


def test_classifier_test_of_linear_discriminants() -> None:
    """Another classifier that is right for two Gaussians of one shape is as accurate, within our interval."""
    scale = np.array([0.1, 1, 10, 100])
    a, b = np.random.default_rng(0).standard_normal((2, 1500, 4)) * scale
    b += 0.5 * scale
    found = classifier_test(a, b)
    pooled, labels = np.concatenate([a, b]), np.repeat([0, 1], 1500)
    accuracy = (cross_val_predict(LinearDiscriminantAnalysis(), pooled, labels, cv=5) == labels).mean()
    assert found.interval is not None
    assert found.interval[0] < accuracy < found.interval[1]
    assert accuracy == pytest.approx(norm.cdf(0.5), abs=0.03)  # the best there is, at a distance of 1
