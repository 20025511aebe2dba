"""The latent API: the same call, and the same kind of answer, from every pipeline that has a vector latent."""

import importlib
import math
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
from hf_genzoo.pipelines._latents import MODES, EncodingPipeline, LatentPipeline
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
    assert found.figure.size == (640, 640)
    colours = {colour for _, colour in found.figure.getcolors(100_000) or []}
    assert len(colours) >= 4  # white, and a colour for each class
    assert encoding.latent_map(images).knn_accuracy is None


def test_pca_map_is_the_best_plane_and_leads_back(digits: tuple[np.ndarray, np.ndarray]) -> None:
    latents, labels = digits
    found = lay_out(latents, labels, "pca")
    centred = latents - latents.mean(0)
    eigenvalues = np.linalg.eigvalsh(np.cov(centred.T))[::-1]
    assert found.explained == pytest.approx(eigenvalues[:2].sum() / eigenvalues.sum())
    np.testing.assert_allclose(np.cov(found.points.T), np.diag(eigenvalues[:2]), atol=1e-9 * eigenvalues[0])
    mean, axes, _ = principal_axes(latents)
    back = found.latent_at(*found.points[7])
    np.testing.assert_allclose(back, mean + (latents[7] - mean) @ axes[:2].T @ axes[:2])


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
    np.testing.assert_array_equal(found.points, lay_out(latents, labels, method, seed=1).points)
    if method == "tsne":
        flat = lay_out(latents, labels, "pca")
        assert flat.knn_accuracy is not None
        assert found.trustworthiness > flat.trustworthiness + 0.05
        assert found.knn_accuracy > flat.knn_accuracy + 0.2
        np.testing.assert_array_equal(found.latent_at(*found.points[3]), latents[3])
        assert found.nearest(*(found.points[3] + 1e-6)) == 3


def test_numbers_at_their_ends() -> None:
    rng = np.random.default_rng(0)
    plane = rng.standard_normal((60, 2))
    lifted = plane @ rng.standard_normal((2, 5))
    assert trustworthiness(plane, plane, 5) == 1.0
    assert lay_out(lifted).trustworthiness > 0.98
    assert trustworthiness(plane, rng.standard_normal((60, 2)), 5) == pytest.approx(0.5, abs=0.08)
    labels = (plane[:, 0] > 0).astype(int)
    apart = plane + 10 * np.stack([labels, labels], 1)
    assert knn_accuracy(apart, labels, 5) == 1.0
    assert knn_accuracy(plane, np.arange(60) % 2, 11) == pytest.approx(0.5, abs=0.2)
    assert math.isclose(lay_out(plane[:, :1]).explained or 0, 1.0)


def test_bad_maps_are_named(monkeypatch: pytest.MonkeyPatch) -> None:
    latents = np.random.default_rng(0).standard_normal((20, 4))
    with pytest.raises(ValueError, match="unknown method 'umap'; choose one of pca, tsne"):
        lay_out(latents, method="umap")
    with pytest.raises(ValueError, match=r"N at least 8, not \(7, 4\)"):
        lay_out(latents[:7])
    with pytest.raises(ValueError, match="got 3 labels for 20 latents"):
        lay_out(latents, [1, 2, 3])

    def missing(name: str) -> None:
        raise ModuleNotFoundError(f"No module named {name!r}", name=name)

    monkeypatch.setattr(importlib, "import_module", missing)
    with pytest.raises(ImportError, match="needs scikit-learn: pip install scikit-learn"):
        lay_out(latents, method="tsne")
    assert lay_out(latents).points.shape == (20, 2)  # PCA needs nothing
