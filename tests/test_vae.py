"""Variational autoencoder: the bound on a model whose likelihood is known, the network, and the pipeline."""

import math
from pathlib import Path

import numpy as np
import PIL.Image
import pytest
import torch
from accelerate.utils import convert_outputs_to_fp32
from diffusers.configuration_utils import ConfigMixin, register_to_config
from diffusers.models.modeling_utils import ModelMixin
from torch import Tensor, nn
from torch.distributions import MultivariateNormal

from hf_genzoo.losses import gaussian_log_likelihood, kl_standard_normal
from hf_genzoo.models.vae import LIKELIHOODS, ConvVAE, ConvVAEOutput
from hf_genzoo.pipelines._latents import interpolate_latents
from hf_genzoo.pipelines.vae import VAEPipeline, importance_weighted_bound

SIGMA = 0.2


def seeded(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


class LinearGaussianVAE(ModelMixin, ConfigMixin):
    """p(z) = N(0, I), p(y | z) = N(W z + 1/2, SIGMA^2 I): the likelihood N(1/2, W W^T + SIGMA^2 I) is known.

    The encoder is nearly right: mean of the true posterior, and the diagonal of its covariance made wider.
    Images x in [-1, 1] stand for y = (x + 1) / 2.
    """

    @register_to_config
    def __init__(
        self,
        sample_size: int = 4,
        in_channels: int = 1,
        latent_dim: int = 3,
        likelihood: str = "gaussian",
        gain: float = 0.1,
    ):
        super().__init__()
        pixels = sample_size**2
        weight = gain * torch.randn(pixels, latent_dim, generator=seeded(3), dtype=torch.float64)
        self.weight = nn.Parameter(weight)
        precision = torch.eye(latent_dim) + weight.T @ weight / SIGMA**2
        self.to_mean = (torch.linalg.inv(precision) @ weight.T / SIGMA**2).T
        self.logvar = (1.3 * torch.linalg.inv(precision).diagonal()).log()
        self.decoded: list[int] = []

    def encode(self, sample: Tensor) -> tuple[Tensor, Tensor]:
        mean = (0.5 * sample).flatten(1) @ self.to_mean  # y - 1/2 = x / 2
        return mean, self.logvar.expand_as(mean)

    def decode(self, z: Tensor) -> Tensor:
        self.decoded.append(len(z))
        return (0.5 + z @ self.weight.T).unflatten(1, (1, self.config.sample_size, -1))

    def log_likelihood(self, sample: Tensor, decoded: Tensor) -> Tensor:
        return gaussian_log_likelihood(decoded, torch.tensor(math.log(SIGMA), dtype=torch.float64), 0.5 * (sample + 1))

    def exact(self, sample: Tensor) -> Tensor:
        covariance = self.weight @ self.weight.T + SIGMA**2 * torch.eye(len(self.weight))
        return MultivariateNormal(torch.full((len(self.weight),), 0.5).double(), covariance).log_prob(
            0.5 * (sample + 1).flatten(1)
        )

    def bound(self, sample: Tensor, num_samples: int, seed: int, max_batch_size: int = 100_000) -> Tensor:
        def log_likelihood(x: Tensor, z: Tensor) -> Tensor:
            return self.log_likelihood(x, self.decode(z))

        return importance_weighted_bound(
            self.encode, log_likelihood, sample, num_samples, max_batch_size, seeded(seed)
        )


@pytest.fixture(scope="module")
def linear() -> LinearGaussianVAE:
    return LinearGaussianVAE()


@pytest.fixture(scope="module")
def pipe() -> VAEPipeline:
    torch.manual_seed(0)
    return VAEPipeline(ConvVAE(sample_size=8, latent_dim=5, block_out_channels=(4, 8), hidden_dim=16))


# The importance-weighted bound


@pytest.fixture(scope="module")
def bounds(linear: LinearGaussianVAE) -> dict[int, tuple[float, float]]:
    """Mean and standard error over repeats of bound minus exact, for one image, by number of samples."""
    with torch.no_grad():
        x = 2 * torch.rand(1, 1, 4, 4, generator=seeded(1), dtype=torch.float64) - 1
        gaps = {k: linear.bound(x.expand(400, -1, -1, -1), k, seed=k) - linear.exact(x) for k in (1, 10, 100, 500)}
    return {k: (gap.mean().item(), gap.std().item() / 20) for k, gap in gaps.items()}


@pytest.mark.parametrize("k", [1, 10, 100, 500])
def test_bound_is_never_above_the_exact_likelihood(bounds: dict, k: int) -> None:
    mean, error = bounds[k]
    assert mean < 3 * error


def test_bound_is_tight_with_500_samples_and_loose_with_one(bounds: dict) -> None:
    assert bounds[500][0] > -0.05
    assert bounds[1][0] < -0.1


def test_bound_grows_with_the_samples(bounds: dict) -> None:
    for fewer, more in ((1, 10), (10, 100), (100, 500)):
        assert bounds[more][0] > bounds[fewer][0] - 3 * math.hypot(bounds[more][1], bounds[fewer][1])
    assert bounds[10][0] > bounds[1][0] + 0.1


def test_one_sample_bound_is_the_elbo(linear: LinearGaussianVAE, bounds: dict) -> None:
    with torch.no_grad():
        x = 2 * torch.rand(1, 1, 4, 4, generator=seeded(1), dtype=torch.float64) - 1
        mean, logvar = linear.encode(x)
        z = mean + torch.exp(0.5 * logvar) * torch.randn(20_000, 3, generator=seeded(0), dtype=torch.float64)
        elbo = linear.log_likelihood(x, linear.decode(z)).mean() - kl_standard_normal(mean, logvar)
        assert (elbo - linear.exact(x)).item() == pytest.approx(bounds[1][0], abs=4 * bounds[1][1] + 0.02)


def test_bound_is_exact_with_the_true_posterior() -> None:
    """With one latent the posterior is diagonal; with its true variance every weight is p(x) itself."""
    linear = LinearGaussianVAE(latent_dim=1)
    linear.logvar = linear.logvar - math.log(1.3)
    x = torch.rand(5, 1, 4, 4, generator=seeded(0), dtype=torch.float64)
    with torch.no_grad():
        torch.testing.assert_close(linear.bound(x, 3, seed=0), linear.exact(x), rtol=1e-6, atol=0)


def test_pipeline_gives_the_bound_in_bounded_memory(linear: LinearGaussianVAE) -> None:
    images = torch.rand(7, 1, 4, 4, generator=seeded(2), dtype=torch.float64)
    linear.decoded.clear()
    pipe = VAEPipeline(linear)
    bound = pipe.log_likelihood(images, num_samples=500, dequantize=False, generator=seeded(0), max_batch_size=64)
    assert bound.shape == (7,)
    assert max(linear.decoded) <= 64
    assert sum(linear.decoded) == 7 * 500
    # The image goes through float32, as 8-bit pictures do
    torch.testing.assert_close(bound, linear.exact(2 * images - 1).detach(), rtol=0, atol=0.1)
    more_images_than_fit = pipe.log_likelihood(images, num_samples=2, dequantize=False, max_batch_size=3)
    assert more_images_than_fit.shape == (7,)


def test_dequantised_probabilities_of_all_pictures_sum_to_one() -> None:
    """One pixel, 256 possible pictures; what is missing is the Gaussian's mass outside [0, 1]."""
    linear = LinearGaussianVAE(sample_size=1, latent_dim=1, gain=0.0)
    linear.logvar = torch.zeros(1)
    pipe = VAEPipeline(linear)
    pictures = torch.arange(256, dtype=torch.uint8)[:, None, None, None]
    draws = [pipe.log_likelihood(pictures, num_samples=1, generator=seeded(i)).exp() for i in range(20)]
    inside = math.erf(0.5 / SIGMA / math.sqrt(2))
    assert torch.stack(draws).mean(0).sum().item() == pytest.approx(inside, abs=0.001)


# The network


@pytest.mark.parametrize(
    ("size", "channels", "widths"), [(28, 1, (4, 8)), (32, 3, (4, 8)), (64, 3, (4, 4, 8)), (12, 2, (4,))]
)
@pytest.mark.parametrize("likelihood", LIKELIHOODS)
def test_shapes_and_gradients(size: int, channels: int, widths: tuple[int, ...], likelihood: str) -> None:
    vae = ConvVAE(size, channels, 5, widths, 16, likelihood)
    x = 2 * torch.rand(2, channels, size, size) - 1
    out = vae(x)
    assert out.decoded.shape == vae.mean_image(out.decoded).shape == x.shape
    assert out.mean.shape == out.logvar.shape == out.z.shape == (2, 5)
    assert out.log_likelihood.shape == (2,)
    (kl_standard_normal(out.mean, out.logvar) - out.log_likelihood).mean().backward()
    for name, parameter in vae.named_parameters():
        assert parameter.grad is not None, name
        assert parameter.grad.abs().sum() > 0, name


def test_reparameterisation() -> None:
    vae = ConvVAE(8, latent_dim=5, block_out_channels=(4,))
    x, noise = torch.zeros(2, 1, 8, 8), torch.randn(2, 5)
    out = vae(x, noise)
    torch.testing.assert_close(out.z, out.mean + (0.5 * out.logvar).exp() * noise)
    torch.testing.assert_close(vae(x, noise).log_likelihood, out.log_likelihood)
    assert not torch.equal(vae(x).z, vae(x).z)


@pytest.mark.parametrize("likelihood", LIKELIHOODS)
def test_mean_image_is_in_the_package_s_range(likelihood: str) -> None:
    vae = ConvVAE(8, block_out_channels=(4,), likelihood=likelihood)
    lowest, highest = (-60.0, 60.0) if likelihood != "gaussian" else (0.0, 1.0)
    middle = 0.0 if likelihood != "gaussian" else 0.5
    image = vae.mean_image(torch.tensor([lowest, middle, highest]))
    torch.testing.assert_close(image, torch.tensor([-1.0, 0.0, 1.0]), rtol=0, atol=0.04)


def test_sigma_learns_the_root_mean_squared_error() -> None:
    vae = ConvVAE(8, block_out_channels=(4,), likelihood="gaussian")
    x, decoded = 2 * torch.rand(4, 1, 8, 8) - 1, torch.full((4, 1, 8, 8), 0.4)
    optimizer = torch.optim.LBFGS([vae.log_sigma], max_iter=50, line_search_fn="strong_wolfe")

    def closure() -> Tensor:
        optimizer.zero_grad()
        loss = -vae.log_likelihood(x, decoded).mean()
        loss.backward()
        return loss

    optimizer.step(closure)
    mse = (0.5 * (x + 1) - decoded).square().mean()
    best = gaussian_log_likelihood(decoded, 0.5 * mse.log(), 0.5 * (x + 1)).mean()
    torch.testing.assert_close(-closure(), best, rtol=0, atol=1e-3)


def test_sigma_never_falls_below_one_grey_level() -> None:
    vae = ConvVAE(8, block_out_channels=(4,), likelihood="gaussian")
    vae.log_sigma.data.fill_(-1e3)
    perfect = vae.log_likelihood(torch.zeros(1, 1, 8, 8), torch.full((1, 1, 8, 8), 0.5))
    assert perfect.item() == pytest.approx(64 * (math.log(256) - 0.5 * math.log(2 * math.pi)), rel=1e-4)


def test_training_raises_the_bound() -> None:
    torch.manual_seed(0)
    vae = ConvVAE(8, latent_dim=2, block_out_channels=(8, 16), hidden_dim=32)
    data = -torch.ones(64, 1, 8, 8)
    data[:32, :, :, :4] = 1.0  # two kinds of pictures: one bit, ln 2 nats
    data[32:, :, 4:, :] = 1.0
    optimizer = torch.optim.Adam(vae.parameters(), lr=1e-2)
    for _ in range(80):
        out = vae(data)
        elbo = (out.log_likelihood - kl_standard_normal(out.mean, out.logvar)).mean()
        optimizer.zero_grad()
        (-elbo).backward()
        optimizer.step()
    assert -10 * math.log(2) < elbo.item() < -math.log(2) + 0.2  # untrained: -64 ln 2


def test_output_survives_mixed_precision_wrappers() -> None:
    vae = ConvVAE(8, block_out_channels=(4,))
    out = convert_outputs_to_fp32(vae.forward)(torch.zeros(2, 1, 8, 8))
    assert isinstance(out, ConvVAEOutput)
    assert isinstance(out.log_likelihood, Tensor)
    with torch.autocast("cpu", torch.bfloat16):
        assert vae(torch.zeros(2, 1, 8, 8)).log_likelihood.dtype == torch.float32


def test_network_refuses_what_it_cannot_be() -> None:
    with pytest.raises(ValueError, match="sample_size 30 is not divisible by 4"):
        ConvVAE(sample_size=30)
    with pytest.raises(ValueError, match=r"unknown likelihood 'poisson'.*bernoulli"):
        ConvVAE(likelihood="poisson")


# The pipeline


@pytest.mark.parametrize("likelihood", LIKELIHOODS)
def test_save_and_load_give_the_same_pixels(likelihood: str, tmp_path: Path) -> None:
    pipe = VAEPipeline(ConvVAE(8, latent_dim=5, block_out_channels=(4,), likelihood=likelihood))
    pipe.save_pretrained(tmp_path)
    loaded = VAEPipeline.from_pretrained(tmp_path)
    assert loaded.vae.config["likelihood"] == likelihood
    before, after = (each(2, generator=seeded(0), output_type="pt").images for each in (pipe, loaded))
    torch.testing.assert_close(before, after, rtol=0, atol=1e-6)


def test_a_batch_equals_its_singles(pipe: VAEPipeline) -> None:
    batch = pipe(2, generator=[seeded(0), seeded(1)], output_type="pt").images
    singles = [pipe(generator=seeded(i), output_type="pt").images for i in range(2)]
    torch.testing.assert_close(batch, torch.cat(singles))


def test_output_types_agree_and_go_back_in(pipe: VAEPipeline) -> None:
    pt, np_, pil = (pipe(2, generator=seeded(0), output_type=name).images for name in ("pt", "np", "pil"))
    assert pt.shape == (2, 1, 8, 8)
    assert (pt.permute(0, 2, 3, 1).numpy() == np_).all()
    assert pil[1].tobytes() == (np_[1] * 255).round().astype("uint8").tobytes()
    torch.testing.assert_close(pipe.encode(pt), pipe.encode(np_))
    as_bytes = (np_ * 255).round().astype("uint8")
    torch.testing.assert_close(pipe.encode(pil), pipe.encode(as_bytes))
    assert torch.equal(pipe(2, generator=seeded(0), output_type="pt", return_dict=False)[0], pt)


def test_encode_gives_the_mean_or_a_draw(pipe: VAEPipeline) -> None:
    images = torch.rand(2, 1, 8, 8)
    mean, logvar = pipe.vae.encode(2 * images - 1)
    torch.testing.assert_close(pipe.encode(images), mean)
    noise = torch.randn(2, 5, generator=seeded(0))
    draw = pipe.encode(images, sample=True, generator=seeded(0))
    torch.testing.assert_close(draw, mean + (0.5 * logvar).exp() * noise)


@pytest.mark.parametrize("mode", ["1", "L", "P", "RGB", "RGBA", "LA", "CMYK", "YCbCr", "I", "I;16", "F"])
def test_white_is_white_in_every_mode_and_size(pipe: VAEPipeline, mode: str) -> None:
    white = PIL.Image.new("L", (13, 9), 255)
    if mode in ("I", "I;16"):
        white = PIL.Image.fromarray(np.full((9, 13), 65535, dtype="uint16" if mode == "I;16" else "int32"))
        assert white.mode == mode
    else:
        white = (
            white.convert("RGB").convert(mode) if mode in ("CMYK", "YCbCr", "RGBA", "LA", "P") else white.convert(mode)
        )
    torch.testing.assert_close(pipe.encode(white), pipe.encode(torch.ones(1, 1, 8, 8)))


def test_transparency_lies_on_white_and_exif_is_heeded(pipe: VAEPipeline) -> None:
    transparent = PIL.Image.new("RGBA", (8, 8), (0, 0, 0, 0))
    torch.testing.assert_close(pipe.encode(transparent), pipe.encode(torch.ones(1, 1, 8, 8)))
    upright = PIL.Image.fromarray((np.arange(64).reshape(8, 8) * 4).astype("uint8"))
    turned = upright.rotate(90)
    turned.getexif()[0x0112] = 6  # "turn me clockwise"
    torch.testing.assert_close(pipe.encode(turned), pipe.encode(upright))


def test_colour_networks_take_grey_pictures_and_other_sizes() -> None:
    pipe = VAEPipeline(ConvVAE(8, in_channels=3, block_out_channels=(4,)))
    assert pipe.encode(PIL.Image.new("L", (20, 30))).shape == (1, 32)
    assert pipe.encode([PIL.Image.new("RGB", (5, 5)), PIL.Image.new("L", (9, 8))]).shape == (2, 32)
    assert pipe.encode(torch.rand(2, 3, 16, 12)).shape == (2, 32)
    assert pipe.reconstruct(np.random.default_rng(0).random((2, 8, 8, 3)), output_type="np").images.shape == (
        2,
        8,
        8,
        3,
    )


def test_interpolation_ends_at_the_reconstructions(pipe: VAEPipeline) -> None:
    images = torch.rand(2, 1, 8, 8)
    ends = pipe.reconstruct(images, output_type="pt").images
    for mode in ("linear", "spherical"):
        between = pipe.interpolate(images[0], images[1], steps=5, mode=mode, output_type="pt").images
        assert between.shape == (5, 1, 8, 8)
        torch.testing.assert_close(between[[0, -1]], ends)


def test_spherical_interpolation_keeps_the_norm_and_turns_evenly() -> None:
    a, b = torch.tensor([2.0, 0.0, 0.0]), torch.tensor([0.0, 2.0, 0.0])
    arc = interpolate_latents(a, b, 4, "spherical")
    torch.testing.assert_close(arc.norm(dim=1), torch.full((4,), 2.0))
    torch.testing.assert_close(torch.atan2(arc[:, 1], arc[:, 0]), torch.linspace(0, math.pi / 2, 4))
    torch.testing.assert_close(interpolate_latents(a, b, 3, "linear")[1], torch.tensor([1.0, 1.0, 0.0]))
    for end in (a, -a, 3 * a, torch.zeros(3)):
        assert torch.isfinite(interpolate_latents(a, end, 3, "spherical")).all()


BAD = {
    "batch": (lambda p: p(0), "batch_size must be at least 1, not 0"),
    "output": (lambda p: p(output_type="jpg"), "unknown output_type 'jpg'; choose one of pil"),
    "generators": (lambda p: p(2, generator=[seeded(0)] * 3), "got 3 generators for 2 images"),
    "latents": (lambda p: p(latents=torch.zeros(1, 4)), r"latents must have shape \(B, 5\), not \(1, 4\)"),
    "mode": (lambda p: p.interpolate(torch.zeros(1, 8, 8), torch.zeros(1, 8, 8), mode="arc"), "unknown mode 'arc'"),
    "steps": (
        lambda p: p.interpolate(torch.zeros(1, 8, 8), torch.zeros(1, 8, 8), steps=1),
        "steps must be at least 2",
    ),
    "two": (
        lambda p: p.interpolate(torch.zeros(2, 1, 8, 8), torch.zeros(1, 8, 8)),
        "a latent or a single image, not 2 images",
    ),
    "range": (lambda p: p.encode(torch.full((1, 1, 8, 8), -1.0)), r"pixel values span -1 to -1.*\[0, 1\]"),
    "channels": (lambda p: p.encode(torch.zeros(1, 3, 8, 8)), r"shape \(1, 3, 8, 8\) does not have .* 1 channel"),
    "type": (lambda p: p.encode("cat.png"), "expected a PIL image, an array or a tensor, not str"),
    "none": (lambda p: p.encode([]), "got no images"),
    "samples": (lambda p: p.log_likelihood(torch.zeros(1, 8, 8), num_samples=0), "num_samples must be at least 1"),
    "reconstruct": (lambda p: p.reconstruct(torch.zeros(1, 8, 8), output_type="x"), "unknown output_type 'x'"),
}


@pytest.mark.parametrize("case", BAD)
def test_bad_arguments_are_named(pipe: VAEPipeline, case: str) -> None:
    call, message = BAD[case]
    with pytest.raises(ValueError, match=message):
        call(pipe)
