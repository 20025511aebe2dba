"""The latent API: the same call, and the same kind of answer, from every pipeline that has a vector latent."""

import importlib
from collections.abc import Callable

import numpy as np
import PIL.Image
import pytest
import torch
from diffusers.pipelines.pipeline_utils import DiffusionPipeline
from sklearn.datasets import load_digits
from sklearn.manifold import trustworthiness as sklearn_trustworthiness
from sklearn.neighbors import KNeighborsClassifier

from hf_genzoo.models.autoencoder import ConvAutoencoder
from hf_genzoo.models.generator import ConvGenerator
from hf_genzoo.models.vae import ConvVAE
from hf_genzoo.pipelines._latent_map import knn_accuracy, lay_out, principal_axes, trustworthiness
from hf_genzoo.pipelines._latents import MODES, EncodingPipeline, LatentPipeline, interpolate_latents
from hf_genzoo.pipelines._map_figure import MAP_SIZE, Frame, draw_map
from hf_genzoo.pipelines.autoencoder import AutoencoderPipeline
from hf_genzoo.pipelines.gan import GANPipeline
from hf_genzoo.pipelines.vae import VAEPipeline

PIPELINES: dict[str, Callable[[], DiffusionPipeline]] = {
    "vae": lambda: VAEPipeline(ConvVAE(8, latent_dim=5, block_out_channels=(4,), hidden_dim=16)),
    "autoencoder": lambda: AutoencoderPipeline(ConvAutoencoder(8, latent_dim=5, block_out_channels=(4,))),
    "gan": lambda: GANPipeline(ConvGenerator(5, 1, 8, block_out_channels=(8, 8))),
}
ENCODING = ("vae", "autoencoder")


@pytest.fixture(scope="module", params=PIPELINES)
def pipe(request: pytest.FixtureRequest) -> DiffusionPipeline:
    torch.manual_seed(0)
    pipeline = PIPELINES[request.param]()
    assert isinstance(pipeline, LatentPipeline)
    return pipeline


@pytest.fixture(scope="module", params=ENCODING)
def encoding(request: pytest.FixtureRequest) -> DiffusionPipeline:
    torch.manual_seed(0)
    pipeline = PIPELINES[request.param]()
    assert isinstance(pipeline, EncodingPipeline)
    return pipeline


def same(call: Callable, count: int) -> torch.Tensor:
    """The answer as tensors, after a look at its other forms."""
    pt = call(output_type="pt").images
    assert pt.shape == (count, 1, 8, 8)
    np.testing.assert_array_equal(call(output_type="np").images, pt.permute(0, 2, 3, 1).numpy())
    pil = call().images
    assert len(pil) == count
    assert all(isinstance(image, PIL.Image.Image) and image.size == (8, 8) for image in pil)
    assert torch.equal(call(output_type="pt", return_dict=False)[0], pt)
    with pytest.raises(ValueError, match="unknown output_type 'jpg'"):
        call(output_type="jpg")
    return pt


@pytest.mark.parametrize("mode", MODES)
def test_interpolation_of_latents(pipe, mode: str) -> None:
    a, b = torch.randn(2, 5, generator=torch.Generator().manual_seed(0))
    between = same(lambda **how: pipe.interpolate(a, b[None], steps=4, mode=mode, **how), 4)
    ends = same(lambda **how: pipe.decode(torch.stack([a, b]), **how), 2)
    torch.testing.assert_close(between[[0, 3]], ends)
    middle = pipe.interpolate(a, b, steps=3, mode="linear", output_type="pt").images[1:2]
    torch.testing.assert_close(middle, pipe.decode((0.5 * (a + b))[None], output_type="pt").images)


def test_traversal_changes_one_number_at_a_time(pipe) -> None:
    z = torch.randn(5, generator=torch.Generator().manual_seed(1))
    found = same(lambda **how: pipe.traverse(z, dims=[3, 0], range=(-1.0, 2.0), steps=4, **how), 8)
    expected = z.repeat(8, 1)
    expected[:4, 3] = expected[4:, 0] = torch.tensor([-1.0, 0.0, 1.0, 2.0])
    torch.testing.assert_close(found, pipe.decode(expected, output_type="pt").images)
    assert len(pipe.traverse(z).images) == 5 * 7


def test_images_stand_for_their_latents(encoding) -> None:
    images = torch.rand(2, 1, 8, 8, generator=torch.Generator().manual_seed(2))
    codes = encoding.encode(images)
    assert codes.shape == (2, 5) == (2, encoding.latent_dim)
    back = same(lambda **how: encoding.reconstruct(images, **how), 2)
    torch.testing.assert_close(back, encoding.decode(codes, output_type="pt").images)
    for call in (
        lambda a, b: encoding.interpolate(a, b, steps=3, output_type="pt").images,
        lambda a, _: encoding.traverse(a, dims=[1], output_type="pt").images,
    ):
        torch.testing.assert_close(call(images[0], images[1]), call(codes[0], codes[1]))
    as_pil = PIL.Image.fromarray((images[0, 0] * 255).round().byte().numpy()).resize((20, 16))
    assert len(encoding.traverse(as_pil, dims=[0, 1], steps=3).images) == 6


BAD = {
    "mode": (lambda p, z: p.interpolate(z, z, mode="arc"), "unknown mode 'arc'"),
    "steps": (lambda p, z: p.interpolate(z, z, steps=1), "steps must be at least 2"),
    "values": (lambda p, z: p.traverse(z, steps=1), "steps must be at least 2"),
    "dims": (lambda p, z: p.traverse(z, dims=[5]), r"dims must be some of 0 to 4, not \[5\]"),
    "no dims": (lambda p, z: p.traverse(z, dims=[]), r"dims must be some of 0 to 4, not \[\]"),
    "range": (lambda p, z: p.traverse(z, range=(1.0, 1.0)), r"range must be .*\(1.0, 1.0\)"),
}


@pytest.mark.parametrize("case", BAD)
def test_bad_arguments_are_named(pipe, case: str) -> None:
    call, message = BAD[case]
    with pytest.raises(ValueError, match=message):
        call(pipe, torch.zeros(5))


def test_who_cannot_encode_says_what_a_latent_is() -> None:
    with pytest.raises(ValueError, match=r"shape \(5,\) or \(1, 5\), not \(1, 8, 8\)"):
        PIPELINES["gan"]().interpolate(torch.zeros(1, 8, 8), torch.zeros(1, 8, 8))  # type: ignore[attr-defined]


@pytest.fixture
def rng() -> np.random.Generator:
    return np.random.default_rng(0)


def test_the_arc_keeps_its_distance_from_the_origin(rng: np.random.Generator) -> None:
    a, b = torch.from_numpy(rng.normal(size=(2, 6)))
    for mode in MODES:
        way = interpolate_latents(a, b, 5, mode)
        torch.testing.assert_close(way[[0, -1]], torch.stack([a, b]))
    a, b = a / a.norm(), b / b.norm()
    torch.testing.assert_close(interpolate_latents(a, b, 9, "spherical").norm(dim=1), torch.ones(9, dtype=a.dtype))
    opposite = interpolate_latents(a, -a, 3, "spherical")
    torch.testing.assert_close(opposite[1], torch.zeros_like(a), msg="no arc is defined")


# Maps


@pytest.fixture(scope="module")
def digits() -> tuple[np.ndarray, np.ndarray]:
    found = load_digits()
    ties = 1e-3 * np.random.default_rng(0).standard_normal((300, 64))  # none of them: neighbours are then unambiguous
    return found.data[:300] + ties, found.target[:300]


def test_map_of_images(encoding) -> None:
    images = torch.rand(12, 1, 8, 8, generator=torch.Generator().manual_seed(3))
    labels = np.arange(12) % 3
    found = encoding.latent_map(images, labels)
    codes = encoding.encode(images)
    np.testing.assert_allclose(found.latents, codes.numpy(), atol=1e-6)
    again = encoding.latent_map(codes, labels)
    np.testing.assert_allclose(found.points, again.points, atol=1e-5)
    assert found.points.shape == (12, 2)
    assert found.figure.tobytes() == draw_map(found.points, labels).tobytes()
    assert encoding.latent_map(images).knn_accuracy is None


def test_principal_axes_are_the_eigenvectors_of_the_covariance(rng: np.random.Generator) -> None:
    x = rng.normal(size=(200, 5)) @ np.diag([5.0, 3.0, 1.0, 0.5, 0.1]) @ np.linalg.qr(rng.normal(size=(5, 5)))[0]
    mean, axes, variances = principal_axes(x)
    values, vectors = np.linalg.eigh(np.cov(x.T))
    np.testing.assert_allclose(mean, x.mean(0))
    np.testing.assert_allclose(variances, values[::-1])
    np.testing.assert_allclose(np.abs((axes * vectors.T[::-1]).sum(1)), 1.0)
    flipped = principal_axes(-(x - mean) + mean)[1]
    np.testing.assert_allclose(axes, flipped, err_msg="the same plane is drawn the same way round")


def test_pca_map_is_the_best_plane_and_leads_back(digits: tuple[np.ndarray, np.ndarray]) -> None:
    latents, labels = digits
    found = lay_out(latents, labels, "pca")
    eigenvalues = np.linalg.eigvalsh(np.cov(latents.T))[::-1]
    assert found.explained == pytest.approx(eigenvalues[:2].sum() / eigenvalues.sum())
    np.testing.assert_allclose(np.cov(found.points.T), np.diag(eigenvalues[:2]), atol=1e-9 * eigenvalues[0])
    mean, axes, _ = principal_axes(latents)
    back = found.latent_at(*found.points[7])
    np.testing.assert_allclose(back, mean + (latents[7] - mean) @ axes[:2].T @ axes[:2])


def test_pca_map_gives_back_the_points_of_a_planted_plane(rng: np.random.Generator) -> None:
    plane = np.linalg.qr(rng.normal(size=(7, 2)))[0].T
    x = rng.normal(size=(60, 2)) @ plane + rng.normal(size=7)
    found = lay_out(x)
    assert found.explained == pytest.approx(1.0)
    assert found.trustworthiness == 1.0
    for index in (0, 31, 59):
        np.testing.assert_allclose(found.latent_at(*found.points[index]), x[index])
        assert found.nearest(*found.points[index]) == index
    np.testing.assert_allclose(found.latent_at(0.0, 0.0), x.mean(0))


def test_latents_of_one_dimension_lie_on_a_line(rng: np.random.Generator) -> None:
    x = rng.normal(size=(20, 1))
    found = lay_out(x)
    assert found.explained == pytest.approx(1.0)
    assert np.all(found.points[:, 1] == 0.0)
    np.testing.assert_allclose(found.latent_at(found.points[3, 0], 5.0), x[3])
    assert lay_out(x, method="tsne").points.shape == (20, 2)


@pytest.mark.parametrize("method", ["pca", "tsne"])
def test_numbers_beside_a_map_are_the_known_ones(digits: tuple[np.ndarray, np.ndarray], method: str) -> None:
    latents, labels = digits
    found = lay_out(latents, labels, method, seed=1)
    assert found.points.shape == (300, 2)
    assert found.trustworthiness == pytest.approx(
        sklearn_trustworthiness(latents, found.points, n_neighbors=12), abs=1e-9
    )
    classifier = KNeighborsClassifier(13).fit(found.points, labels)  # a point is its own first neighbour
    assert found.knn_accuracy is not None
    assert found.knn_accuracy == pytest.approx(float(classifier.score(found.points, labels)), abs=0.08)
    if method == "tsne":
        flat = lay_out(latents, labels, "pca")
        assert flat.knn_accuracy is not None
        assert found.trustworthiness > flat.trustworthiness + 0.05
        assert found.knn_accuracy > flat.knn_accuracy + 0.2
        np.testing.assert_array_equal(found.latent_at(*found.points[3]), latents[3])
        assert found.nearest(*(found.points[3] + 1e-6)) == 3


def test_tsne_keeps_planted_groups_apart_and_repeats(rng: np.random.Generator) -> None:
    labels = np.repeat(np.arange(4), 25)
    centres = 8.0 * np.linalg.qr(rng.normal(size=(60, 4)))[0].T
    x = centres[labels] + 0.3 * rng.normal(size=(100, 60))
    found = lay_out(x, labels, "tsne")
    assert found.knn_accuracy == 1.0
    assert found.trustworthiness > 0.85
    between = found.latent_at(*(found.points[labels == 2].mean(0)))
    assert np.linalg.norm(between - centres[2]) < 2.0
    np.testing.assert_array_equal(found.points, lay_out(x, labels, "tsne").points)


def test_trustworthiness_at_its_ends(rng: np.random.Generator) -> None:
    x, y = rng.normal(size=(90, 6)), rng.normal(size=(90, 2))
    assert trustworthiness(x, y, 12) == pytest.approx(sklearn_trustworthiness(x, y, n_neighbors=12))
    assert trustworthiness(x, y, 12) == pytest.approx(0.5, abs=0.08), "by chance"
    assert trustworthiness(y, y @ np.array([[0.0, -2.0], [2.0, 0.0]]) + 1.0, 12) == 1.0, "turned, scaled and shifted"
    with pytest.raises(ValueError, match="k must lie between 1 and 44 for 90 points, not 45"):
        trustworthiness(x, y, 45)


def test_neighbours_vote_at_its_ends(rng: np.random.Generator) -> None:
    y, labels = rng.normal(size=(90, 2)), np.repeat(np.arange(3), 30)
    apart = y + 100.0 * labels[:, None]
    assert knn_accuracy(apart, labels, 12) == 1.0
    assert knn_accuracy(apart, labels * 7 - 3, 12) == 1.0, "classes of any numbers"
    assert knn_accuracy(apart, rng.permutation(labels), 12) == pytest.approx(1 / 3, abs=0.15)


def test_pixels_and_places(rng: np.random.Generator) -> None:
    points = rng.normal(size=(30, 2)) * [3.0, 0.5] + 7.0
    frame = Frame.of(points)
    for point in points:
        column, row = frame.pixel(*point)
        assert 0 < column < MAP_SIZE
        assert 0 < row < MAP_SIZE
        np.testing.assert_allclose(frame.place(column, row), point)
    assert frame.pixel(7.0, 8.0)[1] < frame.pixel(7.0, 6.0)[1], "up is up"
    marked = draw_map(points, mark=(7.0, 7.0))
    assert marked.getpixel(tuple(round(v) for v in frame.pixel(7.0, 7.0))) == (0, 0, 0)
    tiles = draw_map(points, picture=lambda index: PIL.Image.new("L", (8, 8), 7))
    assert (np.asarray(tiles) == 7).all(-1).sum() > 26**2, "at least one picture is shown"


@pytest.mark.parametrize("labels", [np.arange(30) % 3, np.arange(30) % 3 * 12], ids=["in a row", "far apart"])
def test_the_legend_explains_the_colours(labels: np.ndarray, rng: np.random.Generator) -> None:
    points = rng.normal(size=(30, 2))
    drawn = draw_map(points, labels, ("one", "two", "three"))
    assert drawn.width == MAP_SIZE
    assert drawn.height > MAP_SIZE, "the legend is below the map"
    legend = {colour for _, colour in drawn.crop((0, MAP_SIZE, *drawn.size)).getcolors(10_000) or ()}
    place = Frame.of(points).pixel
    shown = {drawn.getpixel(tuple(round(v) for v in place(*points[i]))) for i in range(27, 30)}
    assert len(shown) == 3
    assert shown <= legend
    assert draw_map(points, np.arange(30)).size == (MAP_SIZE, MAP_SIZE), "too many classes for colours to tell apart"


def test_bad_maps_are_named(monkeypatch: pytest.MonkeyPatch) -> None:
    latents = np.random.default_rng(0).standard_normal((20, 4))
    with pytest.raises(ValueError, match="unknown method 'umap'; choose one of pca, tsne"):
        lay_out(latents, method="umap")
    with pytest.raises(ValueError, match=r"N at least 8, not \(7, 4\)"):
        lay_out(latents[:7])
    with pytest.raises(ValueError, match="got 3 labels for 20 latents"):
        lay_out(latents, [1, 2, 3])
    latents[3, 1] = np.nan
    with pytest.raises(ValueError, match="latents must be finite"):
        lay_out(latents)
    latents[3, 1] = 0.0

    def missing(name: str) -> None:
        raise ModuleNotFoundError(f"No module named {name!r}", name=name)

    monkeypatch.setattr(importlib, "import_module", missing)
    with pytest.raises(ImportError, match="needs scikit-learn: pip install scikit-learn"):
        lay_out(latents, method="tsne")
    assert lay_out(latents).points.shape == (20, 2)  # PCA needs nothing
