"""Super-resolution: draws from a posterior that is known, the law of gamma, any schedule, tiles, pictures."""

import itertools
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from diffusers import (
    DDPMScheduler,
    DPMSolverMultistepScheduler,
    EulerDiscreteScheduler,
    FlowMatchEulerDiscreteScheduler,
    UNet2DModel,
)
from diffusers.configuration_utils import ConfigMixin, register_to_config
from diffusers.models.modeling_utils import ModelMixin
from PIL import Image
from torch import Tensor

from hf_genzoo.corruptions import enlarged, low_resolution
from hf_genzoo.diffusion import piecewise_uniform_gamma
from hf_genzoo.pipelines._tiles import by_tiles, mirrored, tile_starts
from hf_genzoo.pipelines.sr3 import LEVEL_SCALE, SR3Pipeline, denoise, regress, residual_spread, signal_level
from hf_genzoo.training_scripts.train_sr3 import PRESETS, TINY, Args, build, draw_gamma, noise_schedule, pairs

SIDE, SCALE = 4, 2


# A law whose posterior is known -------------------------------------------------------------------------------------


class GaussianPictures:
    """Pictures (1, 4, 4) ~ N(0, covariance) in [-1, 1], and the law of those that fit a small one, in closed form.

    What is given is linear in the picture, so the posterior is normal: mean K x~ and one covariance.
    """

    def __init__(self) -> None:
        place = torch.cartesian_prod(torch.arange(SIDE), torch.arange(SIDE)).double()
        self.covariance = 0.15**2 * torch.exp(-torch.cdist(place, place).square() / (2 * 1.2**2))
        basis = torch.eye(SIDE**2, dtype=torch.float64).view(-1, 1, SIDE, SIDE)
        kwargs: dict[str, Any] = {"mode": "bicubic", "antialias": True}
        small = F.interpolate(basis, size=(SIDE // SCALE,) * 2, **kwargs)
        self.given = F.interpolate(small, size=(SIDE, SIDE), **kwargs).flatten(1).T  # x~ = given @ x
        seen = self.given @ self.covariance @ self.given.T
        gain = self.covariance @ self.given.T @ torch.linalg.pinv(seen, hermitian=True, rtol=1e-9)
        self.gain, self.posterior = gain, self.covariance - gain @ self.given @ self.covariance

    def sample(self, count: int, seed: int) -> tuple[Tensor, Tensor]:
        """Pictures and the small ones (C, h, w) in [0, 1], which no file has rounded."""
        root = torch.linalg.cholesky(self.covariance + 1e-9 * torch.eye(SIDE**2))
        noise = torch.randn(count, SIDE**2, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))
        x = (noise @ root.T).view(count, 1, SIDE, SIDE)
        small = F.interpolate(x, size=(SIDE // SCALE,) * 2, mode="bicubic", antialias=True)
        return x, 0.5 * (small + 1.0)

    def mean(self, low: Tensor) -> Tensor:
        """E[x_0 | x~], of x~ in [-1, 1] in the large size."""
        return (low.double().flatten(1) @ self.gain.T).view(low.shape)


class ExactDenoiser(ModelMixin, ConfigMixin):
    """The best network of all: E[eps | x_t, x~], or E[v | x_t, x~], of Gaussian pictures."""

    @register_to_config
    def __init__(self, prediction_type: str, out_channels: int = 1, sample_size: int = SIDE) -> None:
        super().__init__()
        self.register_to_config(block_out_channels=(1,))
        self.law, self.anchor = GaussianPictures(), torch.nn.Parameter(torch.zeros((), dtype=torch.float64))
        self.told: list[float] = []

    def forward(self, both: Tensor, timestep: Tensor) -> SimpleNamespace:
        low, x_t = both.chunk(2, dim=1)
        a = float(timestep.flatten()[0]) / LEVEL_SCALE
        s = (1.0 - a**2) ** 0.5
        self.told.append(a)
        mean, P = self.law.mean(low).flatten(1), self.law.posterior
        gain = a * P @ torch.linalg.inv(a**2 * P + s**2 * torch.eye(len(P)))
        x_0 = (mean + (x_t.double().flatten(1) - a * mean) @ gain.T).view(low.shape)
        eps = (x_t - a * x_0) / s
        return SimpleNamespace(sample=eps if self.config["prediction_type"] == "epsilon" else a * eps - s * x_0)


def exact_pipeline(scheduler: Any) -> SR3Pipeline:
    unet: Any = ExactDenoiser(scheduler.config.prediction_type)
    pipeline = SR3Pipeline(unet, scheduler, scale=SCALE)
    pipeline.set_progress_bar_config(disable=True)
    return pipeline


def draws(pipeline: SR3Pipeline, small: Tensor, count: int, steps: int, seed: int = 0) -> Tensor:
    """(pictures, count, 16) in [-1, 1]."""
    out = pipeline(
        small, steps, num_samples=count, generator=torch.Generator().manual_seed(seed), output_type="pt"
    ).images
    return (2.0 * out.double() - 1.0).view(len(small), count, -1)


def own_schedule(steps: int, variance_type: str = "fixed_small") -> DDPMScheduler:
    """Levels that no training has seen."""
    place = torch.linspace(0.0, 0.99, steps + 1, dtype=torch.float64)
    abar = (0.5 * torch.pi * place).cos().square()
    return DDPMScheduler(
        steps,
        trained_betas=(1.0 - abar[1:] / abar[:-1]).tolist(),
        variance_type=variance_type,  # type: ignore[arg-type]
        prediction_type="v_prediction",
        clip_sample=False,
    )


SHARED: dict[str, Any] = {"prediction_type": "v_prediction", "timestep_spacing": "trailing"}
SCHEDULES = {
    "levels of the training": lambda steps: DDPMScheduler(
        2000, beta_schedule="squaredcos_cap_v2", clip_sample=False, **SHARED
    ),
    "a schedule of its own": own_schedule,
    "its own, with the paper's variance": lambda steps: own_schedule(steps, "fixed_large"),
    "DPM-Solver++": lambda steps: DPMSolverMultistepScheduler(2000, beta_schedule="squaredcos_cap_v2", **SHARED),
    "Euler": lambda steps: EulerDiscreteScheduler(2000, 1e-6, 1e-2, "linear", **SHARED),
}


@pytest.mark.parametrize("name", list(SCHEDULES))
def test_samples_have_the_mean_and_the_variance_of_the_posterior_by_any_schedule(name: str) -> None:
    """The variance is right at first order in the steps: from below, or from above with the paper's 1 - alpha_t."""
    count, errors = 2000, []
    for steps in (60, 240):
        pipeline = exact_pipeline(SCHEDULES[name](steps))
        law = pipeline.unet.law
        _, small = law.sample(1, seed=3)
        found = draws(pipeline, small, count, steps)[0]
        mean = law.mean(enlarged(2.0 * small - 1.0, SCALE)).flatten()
        error = (found.mean(0) - mean) / (law.posterior.diagonal() / count).sqrt()
        assert error.square().mean() < 2  # 16 pixels, correlated: about 1
        errors.append((found.var(0).sum() / law.posterior.trace()).item() - 1.0)
    coarse, fine = errors
    assert (coarse > 0) == (name == "its own, with the paper's variance")
    assert abs(fine) < 0.45 * abs(coarse)
    assert abs(fine) < 0.15
    largest = law.posterior.diagonal().max()
    assert (torch.cov(found.T) - law.posterior).abs().max() < 0.2 * largest


def test_the_mean_of_samples_comes_nearer_to_the_posterior_s_mean_as_1_over_k() -> None:
    pipeline, most = exact_pipeline(own_schedule(400)), 64
    law = pipeline.unet.law
    x, small = law.sample(24, seed=5)
    found = draws(pipeline, small, most, steps=400)
    mean, trace = law.mean(enlarged(2.0 * small - 1.0, SCALE)).flatten(1), law.posterior.trace().item()
    errors = {k: (found.view(24, -1, k, SIDE**2).mean(2) - mean[:, None]).square().sum(2).mean() for k in (1, 4, 16)}
    for k, error in errors.items():
        assert error.item() == pytest.approx(trace / k, rel=0.12), k
    # The truth is one more draw: the best answer is trace off, one sample twice that, the mean of k 1 + 1 / k.
    truth = x.flatten(1)
    assert (truth - mean).square().sum(1).mean().item() == pytest.approx(trace, rel=0.35)
    single = (found - truth[:, None]).square().sum(2).mean() / (truth - mean).square().sum(1).mean()
    assert single.item() == pytest.approx(2.0, rel=0.15)


def test_samples_agree_with_the_small_picture() -> None:
    pipeline = exact_pipeline(own_schedule(50))
    law = pipeline.unet.law
    _, small = law.sample(2, seed=8)
    found = draws(pipeline, small, 20, steps=50)
    low = enlarged(2.0 * small - 1.0, SCALE).flatten(1)
    assert (found @ law.given.T - low[:, None]).abs().max() < 2e-3
    assert (law.sample(1, seed=1)[0].flatten(1) @ law.given.T - low).abs().max() > 0.1  # another picture does not


def test_the_network_is_told_the_level_and_not_the_step() -> None:
    steps = 20
    for make in SCHEDULES.values():
        pipeline = exact_pipeline(make(steps))
        _, small = pipeline.unet.law.sample(1, seed=0)
        draws(pipeline, small, 1, steps)
        expected = [signal_level(pipeline.scheduler.alphas_cumprod, t).item() for t in pipeline.scheduler.timesteps]
        assert np.all(np.diff(expected) > 0)
        np.testing.assert_allclose(pipeline.unet.told, expected, rtol=1e-6)
    euler = EulerDiscreteScheduler(timestep_spacing="linspace")  # between the levels of the training
    euler.set_timesteps(7)
    told = [signal_level(euler.alphas_cumprod, t).item() for t in euler.timesteps]
    np.testing.assert_allclose(told, 1 / np.sqrt(1 + euler.sigmas[:-1].numpy() ** 2), rtol=1e-4)


def test_without_signal_the_best_network_is_the_regression() -> None:
    """At gamma = 0 nothing is seen of the large picture, and v = -x_0: the mean of all that fit."""
    unet = ExactDenoiser("v_prediction")
    _, small = unet.law.sample(3, seed=2)
    low = enlarged(2.0 * small - 1.0, SCALE)
    torch.testing.assert_close(-regress(unet, low), unet.law.mean(low))
    assert unet.told == [0.0]
    same = SR3Pipeline(Negated(), DDPMScheduler(), scale=SCALE, objective="regression")  # type: ignore[arg-type]
    found = same(small, output_type="pt").images
    torch.testing.assert_close(2 * found.double() - 1, unet.law.mean(low), rtol=0, atol=1e-6)


class Negated(ExactDenoiser):
    """A regression network: it predicts the picture."""

    @register_to_config
    def __init__(self, prediction_type: str = "v_prediction", out_channels: int = 1, sample_size: int = SIDE) -> None:
        super().__init__(prediction_type, out_channels, sample_size)

    def forward(self, both: Tensor, timestep: Tensor) -> SimpleNamespace:
        return SimpleNamespace(sample=-super().forward(both, timestep).sample)


# The law of gamma ---------------------------------------------------------------------------------------------------


def test_gamma_is_uniform_between_neighbouring_levels() -> None:
    abar = torch.tensor([0.9, 0.5, 0.45, 0.1])
    u = (torch.arange(4000, dtype=torch.float64) + 0.5) / 4000
    gamma = piecewise_uniform_gamma(u, abar)
    for t, (high, low) in enumerate(zip([1.0, 0.9, 0.5, 0.45], abar.tolist(), strict=True)):
        inside = gamma[1000 * t : 1000 * (t + 1)]  # each interval has the mass 1 / T
        expected = high - (high - low) * (torch.arange(1000, dtype=torch.float64) + 0.5) / 1000
        torch.testing.assert_close(inside, expected, rtol=0, atol=1e-6)
    assert piecewise_uniform_gamma(torch.zeros(1), abar) == 1.0
    assert abar[-1] < piecewise_uniform_gamma(torch.tensor([1 - 2**-24]), abar) < abar[-1] + 1e-6


@pytest.mark.parametrize("sampling", ["uniform", "stratified"])
def test_gamma_is_drawn_for_each_sample(sampling: str) -> None:
    args = Args(**{**TINY, "gamma_sampling": sampling})
    abar = noise_schedule(args).alphas_cumprod
    torch.manual_seed(0)
    gamma = draw_gamma(2000, abar, args).flatten()
    levels = torch.cat([torch.ones(1), abar]).flip(0)
    upper = torch.searchsorted(levels, gamma).clamp(1, len(abar))
    share = (gamma - levels[upper - 1]) / (levels[upper] - levels[upper - 1])
    u = np.sort(((upper - 1 + share) / len(abar)).numpy())  # the law's distribution function: uniform on [0, 1]
    distance = np.abs(u - (np.arange(2000) + 0.5) / 2000).max()
    assert distance < (1.63 / np.sqrt(2000) if sampling == "uniform" else 2 / 2000)
    assert len(gamma.unique()) > 1900


# Tiles --------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("length", "tile", "overlap"), [(8, 8, 2), (5, 8, 2), (9, 8, 0), (64, 16, 4), (61, 16, 12)])
def test_tiles_cover_the_picture_and_overlap(length: int, tile: int, overlap: int) -> None:
    starts = tile_starts(length, tile, overlap)
    assert starts[0] == 0
    assert starts[-1] == max(0, length - tile)
    assert all(b - a <= tile - overlap for a, b in itertools.pairwise(starts))


def test_tiles_of_a_local_function_are_the_whole_where_its_field_allows() -> None:
    x = torch.rand(2, 3, 37, 50, generator=torch.Generator().manual_seed(0))
    torch.testing.assert_close(by_tiles(lambda part: part**2, x, 16, 4), x**2)  # pixel by pixel: everywhere
    kernel = torch.rand(1, 3, 3, 3, generator=torch.Generator().manual_seed(1))

    def local(part: Tensor) -> Tensor:
        return F.conv2d(part, kernel, padding=1)

    inside = torch.ones(37, 50, dtype=torch.bool)  # nowhere beside an edge of a tile
    for dim, length in ((0, 37), (1, 50)):
        for start in tile_starts(length, 16, 4):
            edges = [p for p in (start, start + 15) if p not in (0, length - 1)]
            inside.index_fill_(dim, torch.tensor(edges, dtype=torch.long), False)
    whole, tiled = local(x), by_tiles(local, x, 16, 4)
    torch.testing.assert_close(tiled[..., inside], whole[..., inside])
    assert 0.3 < inside.float().mean() < 1
    assert (tiled - whole).abs().max() > 0.1


def test_what_tiles_disagree_about_leaves_no_seam() -> None:
    """Each tile's answer is off by a number of its own, as with group normalisation: steps become slopes."""
    x = torch.arange(64.0).view(1, 1, 1, 64).expand(1, 1, 64, 64) / 64

    def off(part: Tensor) -> Tensor:
        return part.mean((2, 3), keepdim=True).expand_as(part)

    def step(overlap: int) -> float:
        return by_tiles(off, x, 16, overlap).diff(dim=3).abs().max().item()

    assert step(0) == pytest.approx(16 / 64)  # whole tiles apart
    assert step(8) < 0.2 * step(0)


def test_mirrored_pictures_continue_themselves() -> None:
    x = torch.arange(6.0).view(1, 1, 2, 3)
    assert mirrored(x, 4)[0, 0].tolist() == [[0, 1, 2, 2], [3, 4, 5, 5], [3, 4, 5, 5], [0, 1, 2, 2]]
    assert mirrored(x, 8).shape == (1, 1, 8, 8)
    assert mirrored(x[..., :2, :2], 2) is not None
    assert torch.equal(mirrored(x[..., :2], 2), x[..., :2])


# Pictures in, pictures out ------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def tiny() -> SR3Pipeline:
    """Colour, four times larger, tiles of 16; weights that have learnt nothing."""
    torch.manual_seed(0)
    args = Args(**{**TINY, "num_channels": 3, "resolution": 16, "scale": 4})
    pipeline = SR3Pipeline(build(args)["unet"], noise_schedule(args), scale=4)  # type: ignore[arg-type]
    pipeline.set_progress_bar_config(disable=True)
    return pipeline


def generators(*seeds: int) -> list[torch.Generator]:
    return [torch.Generator().manual_seed(seed) for seed in seeds]


def noise_picture(width: int, height: int, mode: str = "RGB", seed: int = 0) -> Image.Image:
    values = np.random.default_rng(seed).integers(0, 256, (height, width, 4), dtype=np.uint8)
    return Image.fromarray(values, "RGBA").convert(mode)


@pytest.mark.parametrize("mode", ["RGB", "RGBA", "LA", "L", "P", "1", "CMYK", "I;16"])
def test_pictures_of_any_mode_and_size(tiny: SR3Pipeline, mode: str) -> None:
    if mode == "I;16":
        picture = Image.fromarray(np.arange(35, dtype=np.uint16).reshape(5, 7) * 1800)
    else:
        picture = noise_picture(7, 5, mode if mode != "P" else "RGB").convert(mode)
    (answer,) = tiny(picture, 2, generator=torch.Generator().manual_seed(0)).images
    assert (answer.mode, answer.size) == ("RGB", (28, 20))


def test_transparency_is_laid_on_white(tiny: SR3Pipeline) -> None:
    clear = noise_picture(4, 4, "RGBA")
    flat = Image.alpha_composite(Image.new("RGBA", clear.size, "white"), clear).convert("RGB")
    one, other = (tiny(p, 2, generator=generators(0), output_type="np").images for p in (clear, flat))
    np.testing.assert_array_equal(one, other)


def test_answers_do_not_depend_on_what_else_is_asked(tiny: SR3Pipeline) -> None:
    """Pictures of several sizes, several answers each: every one equals that of a call of its own."""
    pictures = [noise_picture(4, 4, seed=1), noise_picture(9, 5, seed=2), noise_picture(4, 4, seed=3)]
    together = tiny(pictures, 3, num_samples=2, generator=generators(*range(6))).images
    assert [image.size for image in together] == [(16, 16)] * 2 + [(36, 20)] * 2 + [(16, 16)] * 2
    for place, image in enumerate(together):
        (alone,) = tiny(pictures[place // 2], 3, generator=generators(place)).images
        assert np.abs(np.asarray(alone, dtype=int) - np.asarray(image, dtype=int)).max() <= 1
    with pytest.raises(ValueError, match=r"sizes \[\(16, 16\), \(20, 36\)\].*'pil'"):
        tiny(pictures, 1, output_type="np")


def test_noise_may_be_given_and_steps_may_be_watched(tiny: SR3Pipeline) -> None:
    picture, seen = noise_picture(4, 4), []
    x_T = torch.randn(1, 3, 16, 16, generator=torch.Generator().manual_seed(7))

    def watch(pipeline: Any, index: int, t: Any, state: dict) -> dict:
        seen.append((index, tuple(state["latents"].shape)))
        return {}

    drawn = tiny(picture, 2, generator=generators(7), output_type="pt").images
    generator = generators(7)
    torch.randn(1, 3, 16, 16, generator=generator[0])  # the noise to begin with; the steps draw on
    given = tiny(picture, 2, generator=generator, latents=x_T, output_type="pt", callback_on_step_end=watch).images
    assert torch.equal(drawn, given)
    assert seen == [(0, (1, 3, 16, 16)), (1, (1, 3, 16, 16))]
    changed = tiny(
        picture,
        2,
        latents=x_T,
        output_type="pt",
        callback_on_step_end=lambda *state: {"latents": torch.ones_like(state[3]["latents"])},
    ).images
    assert torch.equal(changed, torch.ones_like(changed))


def test_large_pictures_are_worked_in_tiles_with_one_noise(tiny: SR3Pipeline) -> None:
    """No row or column is rougher than others, where tiles end or anywhere: what is random is drawn for the whole."""
    picture = Image.new("RGB", (24, 24), (90, 120, 200))
    whole = tiny(picture, 4, generator=generators(0), output_type="np").images[0]
    assert whole.shape == (96, 96, 3)
    rough = np.abs(np.diff(whole, axis=1)).mean(axis=(0, 2))
    edges = np.array(
        sorted({s - 1 for s in tile_starts(96, 16, 4)[1:]} | {s + 15 for s in tile_starts(96, 16, 4)[:-1]})
    )
    others = np.delete(rough, edges)
    assert abs(rough[edges].mean() - others.mean()) < 4 * others.std() / np.sqrt(len(edges))


def test_tiles_of_a_network_that_sees_single_pixels_make_no_difference() -> None:
    class Pixelwise(Negated):
        def forward(self, both: Tensor, timestep: Tensor) -> SimpleNamespace:
            low, x_t = both.chunk(2, dim=1)
            return SimpleNamespace(sample=torch.tanh(x_t - low) + timestep.mean() / LEVEL_SCALE)

    pipeline = SR3Pipeline(Pixelwise(), DDPMScheduler(), scale=SCALE)  # type: ignore[arg-type]
    pipeline.set_progress_bar_config(disable=True)
    small = torch.rand(2, 1, 15, 21, generator=torch.Generator().manual_seed(0))
    tiled, whole = (
        pipeline(small, 5, generator=torch.Generator().manual_seed(1), output_type="pt", **tiles).images
        for tiles in ({}, {"tile_size": 64})
    )
    torch.testing.assert_close(tiled, whole, rtol=0, atol=1e-6)


def test_bad_arguments_are_named(tiny: SR3Pipeline) -> None:
    picture = noise_picture(4, 4)
    for changes, message in (
        ({"num_inference_steps": 0}, "num_inference_steps must be at least 1, not 0"),
        ({"num_samples": -1}, "num_samples must be at least 1, not -1"),
        ({"tile_size": 10}, "tile_size must be a multiple of 4, not 10"),
        ({"tile_overlap": 16}, "tile_overlap must be a multiple of 4, from 0 and below 16, not 16"),
        ({"latents": torch.zeros(1, 3, 8, 8)}, r"latents must have shape \(1, 3, 16, 16\), not \(1, 3, 8, 8\)"),
        ({"image": []}, "got no images"),
        ({"image": np.zeros((4, 4, 1))}, r"\(4, 4, 1\) does not have the network's 3"),
        ({"image": "a.png"}, "not str"),
        ({"generator": generators(0, 1)}, "2 generators for 1 images"),
    ):
        with pytest.raises(ValueError, match=message):
            tiny(**{"image": picture, **changes})
    with pytest.raises(ValueError, match=r"several sizes \[\(3, 16, 16\), \(3, 16, 20\)\]"):
        tiny([picture, noise_picture(5, 4)], latents=torch.zeros(2, 3, 16, 16))
    flow = SR3Pipeline(tiny.unet, FlowMatchEulerDiscreteScheduler(), scale=4)
    with pytest.raises(ValueError, match="FlowMatchEulerDiscreteScheduler has no alphas_cumprod"):
        flow(picture)
    known = SR3Pipeline(tiny.unet, DDPMScheduler(prediction_type="epsilon"), scale=4, residual_std=0.1)
    with pytest.raises(
        ValueError, match="residual_std needs a scheduler of prediction_type 'v_prediction', not 'epsi"
    ):
        known(picture)
    with pytest.raises(ValueError, match="unknown objective 'gan'"):
        SR3Pipeline(tiny.unet, tiny.scheduler, objective="gan")


# Training -----------------------------------------------------------------------------------------------------------


def test_small_pictures_are_those_of_pillow() -> None:
    picture = noise_picture(32, 24)
    pixels = torch.from_numpy(np.array(picture)).permute(2, 0, 1)[None].float() / 255
    small = 255 * low_resolution(pixels, 4)
    assert torch.equal(small, small.round())
    theirs = np.asarray(picture.resize((8, 6), Image.Resampling.BICUBIC), dtype=int)
    assert np.abs(small[0].permute(1, 2, 0).numpy() - theirs).max() <= 1  # it rounds after each direction
    with pytest.raises(ValueError, match="24x32 have no sides that 5 divides"):
        low_resolution(pixels, 5)


def test_crops_are_of_one_place_and_keep_to_small_pixels() -> None:
    args = Args(**{**TINY, "resolution": 32, "crop_size": 8, "scale": 4})
    row = torch.arange(32.0).view(1, 1, 1, 32).expand(64, 1, 32, 32)
    column = row.transpose(2, 3)
    pictures = 0.9 * (row / 31 - 0.5) + 0.9 * (column / 31 - 0.5)
    torch.manual_seed(0)
    x_0, low = pairs(pictures, args)
    assert x_0.shape == low.shape == (64, 1, 8, 8)
    corners = set((x_0[:, 0, 0, 0] / 0.9 * 31 + 31).round().int().tolist())
    assert corners <= set(range(0, 49, 4))
    assert len(corners) > 8
    assert (x_0 - low).abs().mean() < 0.02  # a plane is as good when it was made small
    whole, _ = pairs(pictures, Args(**{**TINY, "resolution": 32}))
    assert whole is pictures


@pytest.mark.parametrize("prediction_type", ["epsilon", "v_prediction"])
def test_the_loss_is_least_at_the_exact_denoiser(prediction_type: str) -> None:
    """Algorithm 1's squared error, at levels drawn as in the training: any other answer is worse."""
    unet = ExactDenoiser(prediction_type)
    x_0, small = unet.law.sample(400, seed=4)
    low = enlarged(2.0 * small - 1.0, SCALE)
    noise = torch.randn(x_0.shape, dtype=x_0.dtype, generator=torch.Generator().manual_seed(0))
    for gamma in (0.02, 0.4, 0.95):
        a, s = gamma**0.5, (1 - gamma) ** 0.5
        target = noise if prediction_type == "epsilon" else a * noise - s * x_0
        best = denoise(unet, low, a * x_0 + s * noise, torch.tensor([a], dtype=torch.float64))
        error = (best - target).square().mean()
        for other in (0.9 * best, 1.1 * best, best + 0.05):
            assert (other - target).square().mean() > error


def test_what_is_known_of_the_residual_is_left_out_of_the_networks_task() -> None:
    """A normal residual about the enlarged picture: a network that says nothing answers as well as can be.

    What it would have to say beyond that, and what it is given, have unit variance at every noise level.
    """
    generator, spread, given = torch.Generator().manual_seed(0), 0.1, []

    def silent(both: Tensor, timestep: Tensor) -> SimpleNamespace:
        given.append(both.chunk(2, dim=1)[1])
        return SimpleNamespace(sample=torch.zeros_like(given[-1]))

    def speaking(both: Tensor, timestep: Tensor) -> SimpleNamespace:
        return SimpleNamespace(sample=torch.ones_like(both[:, :1]))

    low, residual, noise = torch.randn(3, 4000, 1, 4, 4, dtype=torch.float64, generator=generator)
    x_0 = low + spread * residual
    for gamma in (1e-6, 0.1, 0.5, 0.9, 0.999):
        a, s = gamma**0.5, (1 - gamma) ** 0.5
        x_t, level = a * x_0 + s * noise, torch.full((4000,), a, dtype=torch.float64)
        answer = denoise(silent, low, x_t, level, residual_std=spread)
        gain = a * spread**2 / ((a * spread) ** 2 + s**2)
        expected = low + gain * (x_t - a * low)  # of x_0
        torch.testing.assert_close(a * x_t - s * answer, expected, rtol=0, atol=1e-9)
        unit = denoise(speaking, low, x_t, level, residual_std=spread) - answer
        torch.testing.assert_close(1 / unit[:, 0, 0, 0], residual_spread(level, spread) / spread)  # the loss's weight
        left = (a * noise - s * x_0 - answer) / unit
        assert left.std().item() == pytest.approx(1.0, abs=0.02)
        assert (left * given[-1]).mean().abs() < 0.02  # nothing linear is left to find
        assert given[-1].std().item() == pytest.approx(1.0, abs=0.02)


def test_a_network_that_says_nothing_draws_the_normal_law_of_the_residual() -> None:
    class Silent(ExactDenoiser):
        def forward(self, both: Tensor, timestep: Tensor) -> SimpleNamespace:
            return SimpleNamespace(sample=torch.zeros_like(both[:, :1]))

    scheduler = DDPMScheduler(prediction_type="v_prediction", timestep_spacing="trailing")
    pipeline = SR3Pipeline(Silent("v_prediction"), scheduler, scale=SCALE, residual_std=0.1)  # type: ignore[arg-type]
    pipeline.set_progress_bar_config(disable=True)
    small = 0.3 + 0.4 * torch.rand(2, 1, SIDE // SCALE, SIDE // SCALE, generator=torch.Generator().manual_seed(0))
    found = draws(pipeline, small, 1000, steps=1000)
    low = enlarged(2.0 * small.double() - 1.0, SCALE).flatten(1)
    torch.testing.assert_close(found.mean(1), low, rtol=0, atol=0.015)
    torch.testing.assert_close(found.std(1), torch.full_like(low, 0.1), rtol=0.1, atol=0)


@pytest.mark.parametrize("name", list(PRESETS))
def test_presets_fit(name: str) -> None:
    args = Args(**PRESETS[name])
    with torch.device("meta"):
        unet = build(args)["unet"]
        assert isinstance(unet, UNet2DModel)
        x = torch.zeros(1, 2 * args.num_channels, args.crop_size or args.resolution, args.crop_size or args.resolution)
        assert unet(x, torch.zeros(1)).sample.shape[1] == args.num_channels


def test_flags_that_do_not_fit_are_refused() -> None:
    for changes, message in (
        ({"resolution": 30, "scale": 4}, "--resolution is 30: --scale 4 must divide it"),
        ({"crop_size": 16}, "--crop_size is 16.*at most --resolution 8"),
        ({"crop_size": 3}, "--crop_size is 3: --scale 2 must divide it"),
        ({"resolution": 10, "block_out_channels": [8, 8, 8]}, "3 levels: pictures of 10 pixels.*by 4"),
        ({"residual_std": 0.0, "prediction_type": "v_prediction"}, "--residual_std is 0.0"),
        ({"residual_std": 0.1}, "--residual_std needs --prediction_type v_prediction, not epsilon"),
    ):
        with pytest.raises(ValueError, match=message):
            Args(**{**TINY, **changes})


# Measured -----------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Both objectives, trained for a few steps on digits of 12 pixels."""
    import hf_genzoo

    home = tmp_path_factory.mktemp("sr3")
    shared: dict[str, Any] = {"preset": "tiny", "resolution": 12, "max_train_steps": 3}
    return {
        objective: hf_genzoo.train("sr3", objective=objective, output_dir=str(home / objective), **shared)
        for objective in ("diffusion", "regression")
    }


def test_measured_numbers_stand_beside_those_of_bicubic_and_regression(
    folders: dict[str, Path], tmp_path: Path
) -> None:
    import hf_genzoo
    from hf_genzoo.evaluation.pictures import low_resolution_consistency, psnr

    results = hf_genzoo.evaluate(
        folders["diffusion"], num_samples=80, extractor=["random"], baseline=str(folders["regression"])
    )
    assert results is not None
    rows = {row["name"]: {m["name"]: m["value"] for m in row["metrics"]} for row in results["calibration"]}
    ours = {m["name"]: m["value"] for m in results["metrics"]}
    assert {"bicubic interpolation", "baseline regression"} <= rows.keys()
    kinds = ("super_resolution_psnr", "super_resolution_ssim", "low_resolution_consistency", "coverage")
    for numbers in (ours, rows["bicubic interpolation"], rows["baseline regression"]):
        assert all(np.isfinite(numbers[kind]) for kind in kinds)
    assert ours["super_resolution_gain_of_mean"] > 0
    assert "super_resolution_gain_of_mean" not in rows["baseline regression"]
    assert results["protocol"]["sampling"]["condition"] == "pictures of the held-out split, made small"

    from hf_genzoo.data import DataArgs, MapImages, image_dataset

    data = image_dataset(DataArgs(dataset_name="digits", resolution=12, num_channels=1), split="test")
    assert isinstance(data, MapImages)
    rows_of = np.random.default_rng(list(_digest("", len(data.pixels)).encode())).permutation(len(data.pixels))[:80]
    truth = torch.from_numpy(np.asarray(data.pixels)[rows_of]).float() / 255
    small = low_resolution(truth, 2)
    bicubic = (255 * (0.5 * (enlarged(2 * small - 1, 2) + 1))).round() / 255
    pair = [p.permute(0, 2, 3, 1).double().numpy() for p in (bicubic, truth)]
    assert rows["bicubic interpolation"]["super_resolution_psnr"] == pytest.approx(psnr(*pair).mean(), rel=1e-6)
    found = low_resolution_consistency(pair[0], small.permute(0, 2, 3, 1).double().numpy()).mean()
    assert rows["bicubic interpolation"]["low_resolution_consistency"] == pytest.approx(found, rel=1e-6)
    card = (folders["diffusion"] / "README.md").read_text()
    assert "bicubic interpolation" in card
    assert "Super-resolution PSNR" in card


def _digest(*parts: Any) -> str:
    from hf_genzoo.data.fingerprint import digest

    return digest(*parts)


def test_sample_enlarges_files(folders: dict[str, Path], tmp_path: Path) -> None:
    import hf_genzoo

    files = []
    for number, size in enumerate(((4, 4), (6, 5))):
        files.append(tmp_path / f"{number}.png")
        noise_picture(*size, seed=number).save(files[-1])
    hf_genzoo.sample(folders["diffusion"], tmp_path / "out", num_images=3, image=files, num_inference_steps=2)
    assert [Image.open(p).size for p in sorted((tmp_path / "out").iterdir())] == [(8, 8), (12, 10), (8, 8)]
    with pytest.raises(ValueError, match="SR3Pipeline works on pictures: name the files"):
        hf_genzoo.sample(folders["diffusion"], tmp_path / "out", num_images=1)


def test_a_regression_has_one_answer(folders: dict[str, Path]) -> None:
    import hf_genzoo

    pipeline = hf_genzoo.load(folders["regression"])
    first, second = pipeline(noise_picture(6, 6), num_samples=2, output_type="np").images
    np.testing.assert_array_equal(first, second)
