"""What the paper makes true of DDIM (https://arxiv.org/abs/2010.02502): its steps, its grids, and the way back."""

import math
import warnings
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from diffusers import DDIMScheduler, DDPMScheduler, EulerDiscreteScheduler, ScoreSdeVeScheduler, UNet2DModel
from exact_unet import ExactUNet, ten_modes
from torch import Tensor

from hf_genzoo.evaluation.task_scores import disentanglement_scores
from hf_genzoo.hub import check_published_file
from hf_genzoo.hub.code_files import code_file
from hf_genzoo.hub.exporter import export
from hf_genzoo.pipelines.ddim import ImplicitDiffusionPipeline
from hf_genzoo.pipelines.ddpm import DenoisingDiffusionPipeline
from hf_genzoo.schedulers.implicit import GRIDS, ImplicitDiffusionScheduler

BETAS = {"beta_start": 1e-4, "beta_end": 0.02, "beta_schedule": "linear"}
CLOSE = {"rtol": 0.0, "atol": 1e-5}
ABAR = DDPMScheduler(**BETAS).alphas_cumprod.double()


def seeded(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def walk(scheduler: Any, x: Tensor, std: float = 0.2, prediction_type: str = "epsilon", **options: Any) -> Tensor:
    """From x at the first timestep to the picture, with the exact denoiser of `ten_modes(std)`."""
    mixture = ten_modes(std)
    for t in scheduler.timesteps:
        a, s = ABAR[int(t)].sqrt(), (1 - ABAR[int(t)]).sqrt()
        eps = mixture.epsilon(x, a, s)
        x_0 = (x - s * eps) / a
        output = {"epsilon": eps, "sample": x_0, "v_prediction": a * eps - s * x_0}[prediction_type]
        x = scheduler.step(output, t, x, **options).prev_sample
    return x


def noise(count: int) -> Tensor:
    return torch.randn(count, 64, dtype=torch.float64, generator=seeded(0))


def implicit(steps: int, grid: str, **settings: Any) -> ImplicitDiffusionScheduler:
    scheduler = ImplicitDiffusionScheduler(**BETAS, **settings)
    scheduler.set_timesteps(steps, timestep_spacing=grid)
    return scheduler


# Steps, against what is known to be right


@pytest.mark.parametrize("prediction_type", ["epsilon", "v_prediction", "sample"])
@pytest.mark.parametrize(("grid", "theirs"), [("trailing", "trailing"), ("uniform", "leading")])
@pytest.mark.parametrize("eta", [0.0, 0.5, 1.0])
def test_where_s_divides_t_it_is_diffusers_ddim(grid: str, theirs: str, eta: float, prediction_type: str) -> None:
    stock = DDIMScheduler(**BETAS, clip_sample=False, timestep_spacing=theirs, prediction_type=prediction_type)
    stock.set_timesteps(20)
    ours = implicit(20, grid, prediction_type=prediction_type)
    assert torch.equal(ours.timesteps, stock.timesteps)
    found, expected = (
        walk(s, noise(5), prediction_type=prediction_type, eta=eta, generator=seeded(1)) for s in (ours, stock)
    )
    torch.testing.assert_close(found, expected, **CLOSE)


@pytest.mark.parametrize("steps", [7, 50, 250])
@pytest.mark.parametrize(("sigma_hat", "variance"), [(False, "fixed_small"), (True, "fixed_large")])
def test_eta_one_samples_ddpm_s_posterior_by_either_variance(steps: int, sigma_hat: bool, variance: str) -> None:
    """More than in law: with the same noise each step is DDPM's."""
    ddpm = DDPMScheduler(**BETAS, clip_sample=False, variance_type=variance, timestep_spacing="leading")
    ours = implicit(steps, "uniform")
    ddpm.set_timesteps(timesteps=ours.timesteps.tolist())
    found = walk(ours, noise(5), eta=1.0, sigma_hat=sigma_hat, generator=seeded(1))
    expected = walk(ddpm, noise(5), generator=seeded(1))
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-4)  # their steps are rounded to float32


@pytest.mark.parametrize("grid", GRIDS)
@pytest.mark.parametrize("eta", [0.0, 0.3, 1.0])
def test_every_eta_keeps_the_marginals(grid: str, eta: float) -> None:
    """With x_0 known, x_r is a_r x_0 + s_r times standard normal noise at every level (lemma 1), up to the picture."""
    scheduler, x_0 = implicit(8, grid), 0.7
    eps = torch.randn(200_000, dtype=torch.float64, generator=seeded(0))
    a, s = ABAR.sqrt(), (1 - ABAR).sqrt()
    levels = scheduler.timesteps.tolist()
    x = a[levels[0]] * x_0 + s[levels[0]] * eps
    g = seeded(1)
    for t, r in zip(levels, [*levels[1:], None], strict=True):
        known = (x - a[t] * x_0) / s[t]
        x = scheduler.step(known, t, x, eta=eta, generator=g).prev_sample
        if r is not None:
            assert ((x - a[r] * x_0) / s[r]).mean().item() == pytest.approx(0.0, abs=0.01)
            assert ((x - a[r] * x_0) / s[r]).std().item() == pytest.approx(1.0, abs=0.01)
    torch.testing.assert_close(x, torch.full_like(x, x_0), rtol=0, atol=1e-6)


def test_a_step_up_undoes_a_step_down_with_the_same_epsilon() -> None:
    for prediction_type in ("epsilon", "v_prediction", "sample"):
        scheduler = implicit(10, "trailing", prediction_type=prediction_type)
        x_t, t, r = noise(3), scheduler.timesteps[4], scheduler.timesteps[5]
        eps = torch.randn(3, 64, dtype=torch.float64, generator=seeded(1))

        def output(x: Tensor, level: Tensor, eps: Tensor = eps, kind: str = prediction_type) -> Tensor:
            a, s = ABAR[level].sqrt(), (1 - ABAR[level]).sqrt()
            x_0 = (x - s * eps) / a
            return {"epsilon": eps, "sample": x_0, "v_prediction": a * eps - s * x_0}[kind]

        x_r = scheduler.step(output(x_t, t), t, x_t).prev_sample
        assert scheduler.ascending_timesteps[5] == r
        torch.testing.assert_close(scheduler.ascend(output(x_r, r), 5, x_r), x_t)


def test_clipping_keeps_epsilon_and_picture_together() -> None:
    """Whatever is clipped, x_t = a x_0 + s eps holds: the sample moves on the line through it and the clipped x_0."""
    scheduler = implicit(10, "trailing", clip_sample=True)
    t, r = (int(level) for level in scheduler.timesteps[3:5])
    x_t = 3 * noise(2)
    found = scheduler.step(torch.zeros_like(x_t), t, x_t)
    x_0 = (x_t / ABAR[t].sqrt()).clamp(-1, 1)
    assert (x_0.abs() == 1).any()
    torch.testing.assert_close(found.pred_original_sample, x_0)
    eps = (x_t - ABAR[t].sqrt() * x_0) / (1 - ABAR[t]).sqrt()
    torch.testing.assert_close(found.prev_sample, ABAR[r].sqrt() * x_0 + (1 - ABAR[r]).sqrt() * eps)


# Grids


def test_grids_are_those_of_the_authors_and_the_trailing_one() -> None:
    for steps in (1, 5, 10, 30, 100, 1000):
        assert implicit(steps, "uniform").timesteps.tolist() == list(range(0, 1000, 1000 // steps))[::-1]
        squares = [int(s) for s in np.linspace(0, np.sqrt(1000 * 0.8), steps) ** 2]
        assert implicit(steps, "quadratic").timesteps.tolist() == sorted(set(squares), reverse=True)
        trailing = implicit(steps, "trailing").timesteps
        assert len(trailing) == steps
        assert trailing[0] == 999
        assert (-trailing.diff() - 1000 / steps).abs().max() <= 1 if steps > 1 else True


@pytest.mark.parametrize("grid", GRIDS)
def test_the_last_step_leads_to_the_picture_also_where_s_does_not_divide_t(grid: str) -> None:
    """With the true epsilon a path ends at x_0; diffusers' scheduler leaves its own grid and ends elsewhere."""
    x_0, eps = noise(4), torch.randn(4, 64, dtype=torch.float64, generator=seeded(2))

    def end(scheduler: Any) -> Tensor:
        first = int(scheduler.timesteps[0])
        x = ABAR[first].sqrt() * x_0 + (1 - ABAR[first]).sqrt() * eps
        for t in scheduler.timesteps:
            x = scheduler.step(eps, t, x).prev_sample
        return x

    torch.testing.assert_close(end(implicit(30, grid)), x_0)
    stock = DDIMScheduler(**BETAS, clip_sample=False, timestep_spacing="trailing")
    stock.set_timesteps(30)
    assert (end(stock) - x_0).abs().max() > 0.01


def residual(grid: str, steps: int, std: float = 0.025, **options: Any) -> float:
    """How far samples of an exact denoiser lie from the nearest mode, root mean square, over what is right."""
    samples = walk(implicit(steps, grid), noise(200), std, generator=seeded(1), **options)
    distance = (samples[:, None] - ten_modes(std).means).square().sum(-1).min(dim=1).values
    return (distance.mean() / 64).sqrt().item() / std


def test_sigma_hat_fails_only_on_grids_that_end_with_a_call_at_t_zero() -> None:
    hat = {"eta": 1.0, "sigma_hat": True}
    uniform, quadratic, trailing = (
        [residual(grid, steps, **hat) for steps in (5, 10, 20, 50, 100)] for grid in GRIDS[1:] + GRIDS[:1]
    )
    print("sigma-hat:", uniform, quadratic, trailing)
    np.testing.assert_allclose(uniform, [23.6, 12.9, 6.9, 3.2, 1.9], rtol=0.15)  # twenty times too noisy, and less
    assert uniform == sorted(uniform, reverse=True)
    assert quadratic == sorted(quadratic, reverse=True)
    assert all(q < u for q, u in zip(quadratic, uniform, strict=True))
    assert max(trailing) < 2.5
    assert max(trailing[1:]) < 1.0
    for eta in (0.0, 0.5, 1.0):
        assert max(residual("uniform", steps, eta=eta) for steps in (5, 10, 20)) < 2.5


def test_more_noise_gives_samples_less_spread() -> None:
    found = [residual("quadratic", 10, std=0.2, eta=eta) for eta in (0.0, 0.5, 1.0)]
    np.testing.assert_allclose(found, [0.83, 0.80, 0.69], atol=0.03)
    assert found == sorted(found, reverse=True)


# The pipeline


def exact(scheduler: Any = None, **settings: Any) -> ImplicitDiffusionPipeline:
    pipe = ImplicitDiffusionPipeline(ExactUNet(**settings), scheduler or DDPMScheduler(**BETAS))  # type: ignore[arg-type]
    pipe.set_progress_bar_config(disable=True)
    return pipe


def pictures(count: int) -> Tensor:
    """(count, 1, 8, 8) in [0, 1], of the law that `exact()` knows."""
    x = ExactUNet().mixture.sample(count, seeded(3)).view(count, 1, 8, 8)
    return (0.5 * x + 0.5).clamp(0, 1)


def latents(count: int) -> Tensor:
    return noise(count).view(count, 1, 8, 8)


def tiny_unet(**settings: Any) -> UNet2DModel:
    torch.manual_seed(0)
    return UNet2DModel(
        sample_size=8,
        in_channels=1,
        out_channels=1,
        layers_per_block=1,
        block_out_channels=(8, 16),
        norm_num_groups=4,
        down_block_types=("DownBlock2D", "DownBlock2D"),
        up_block_types=("UpBlock2D", "UpBlock2D"),
        **settings,
    )


def test_pictures_come_back_more_exactly_with_more_steps() -> None:
    """Table 2 of the paper: the squared error falls by a factor of about four where the steps double."""
    pipe, x = exact(), pictures(16)
    for grid in GRIDS:
        steps = (50, 100, 200)
        errors = [
            (pipe.reconstruct(x, "pt", num_inference_steps=s, timestep_spacing=grid).images - x).square().mean().item()
            for s in steps
        ]
        print(grid, [f"{error:.1e}" for error in errors])
        assert errors == sorted(errors, reverse=True)
        assert errors[-1] < 5e-5
        if grid != "quadratic":  # its steps near the picture are down to single levels of the training
            assert math.log2(errors[-2] / errors[-1]) == pytest.approx(2.0, abs=0.5)


def test_encoding_finds_the_noise_that_a_picture_began_as() -> None:
    pipe, z, errors = exact(), latents(16), []
    images = pipe(16, latents=z, num_inference_steps=500, output_type="pt").images
    for steps in (10, 50, 250):
        found = pipe.encode(images, num_inference_steps=steps)
        errors.append((found - z).square().mean().sqrt().item())
        assert pipe.unet.calls[-steps:] == [0, *pipe.scheduler.timesteps.flip(0)[:-1].tolist()]
    print(errors)
    assert errors == sorted(errors, reverse=True)
    assert errors[-1] < 0.2


def test_a_picture_is_a_function_of_its_latent() -> None:
    pipe, z = exact(), latents(3)
    decoded = pipe.decode(z, "pt", num_inference_steps=10).images
    for seed in (0, 1):
        images = pipe(3, latents=z, num_inference_steps=10, generator=seeded(seed), output_type="pt").images
        assert torch.equal(images, decoded)
    noisy = [
        pipe(3, latents=z, num_inference_steps=10, eta=0.5, generator=seeded(s), output_type="pt").images
        for s in (0, 1)
    ]
    assert not torch.equal(*noisy)


def test_every_ddpm_opens_as_it_is(tmp_path: Path) -> None:
    """Stock folders, folders with classes, pipelines in memory: the same pictures as by diffusers' DDIM."""
    for name, settings, extra in (
        ("plain", {}, {}),
        ("classes", {"num_class_embeds": 3}, {"id2label": {0: "cat", 1: "dog"}}),
    ):
        base = DDPMScheduler(beta_schedule="squaredcos_cap_v2", prediction_type="v_prediction")
        parent = DenoisingDiffusionPipeline(tiny_unet(**settings), base, **extra)
        folder = export(parent, tmp_path / name, family="ddpm")
        call = {"num_inference_steps": 4, "generator": seeded(0), "output_type": "pt"}
        stock = DDIMScheduler.from_config(base.config, clip_sample=False, timestep_spacing="trailing")
        reference = DenoisingDiffusionPipeline(parent.unet, stock, **extra)
        reference.set_progress_bar_config(disable=True)
        expected = reference(2, **call).images
        for pipe in (
            ImplicitDiffusionPipeline.from_pretrained(folder),
            ImplicitDiffusionPipeline.from_pipe(parent),
        ):
            assert isinstance(pipe, ImplicitDiffusionPipeline)
            assert isinstance(pipe.scheduler, ImplicitDiffusionScheduler)
            assert pipe.config["id2label"] == parent.config["id2label"]
            pipe.set_progress_bar_config(disable=True)
            torch.testing.assert_close(pipe(2, **{**call, "generator": seeded(0)}).images, expected, **CLOSE)
        assert isinstance(parent.scheduler, DDPMScheduler)


def test_interpolation_between_images_and_latents() -> None:
    pipe, x = exact(), pictures(2)
    z = pipe.encode(x, num_inference_steps=20)
    call: dict[str, Any] = {"steps": 3, "output_type": "pt", "num_inference_steps": 20}
    strip = pipe.interpolate(x[0], x[1:], **call).images
    torch.testing.assert_close(strip, pipe.interpolate(z[0], z[1:], **call).images)
    torch.testing.assert_close(strip[[0, 2]], pipe.decode(z, "pt", num_inference_steps=20).images)
    cosine = torch.cosine_similarity(z[0].flatten(), z[1].flatten(), dim=0)
    middle = (z[0] + z[1]) / (2 * torch.cos(torch.arccos(cosine) / 2))  # eq. 67 at 1/2
    torch.testing.assert_close(strip[1:2], pipe.decode(middle[None], "pt", num_inference_steps=20).images)


def test_latents_have_the_shape_of_pictures_and_are_told_from_them() -> None:
    pipe = exact()
    assert pipe.latent_shape == (1, 8, 8)
    assert pipe.latent_dim == 64
    assert pipe.is_latent(latents(1)[0])
    assert pipe.is_latent(latents(1))
    assert not pipe.is_latent(pictures(1))
    assert not pipe.is_latent((255 * pictures(1)).byte())
    assert not pipe.is_latent(latents(2))
    walked = pipe.traverse(latents(1), dims=[9], range=(-1.0, 1.0), steps=2, output_type="pt").images
    changed = latents(1).repeat(2, 1, 1, 1)
    changed[:, 0, 1, 1] = torch.tensor([-1.0, 1.0])
    assert torch.equal(walked, pipe.decode(changed, "pt").images)
    drawn = latents(9)
    np.testing.assert_array_equal(pipe.latent_map(drawn).latents, drawn.flatten(1).numpy())
    images = pictures(8)
    np.testing.assert_array_equal(pipe.latent_map(images).latents, pipe.encode(images).flatten(1).numpy())


def test_noise_of_a_picture_is_no_code_to_be_disentangled() -> None:
    yardstick = SimpleNamespace(reference=SimpleNamespace(name="sprites"))
    assert disentanglement_scores(exact(), yardstick) == []  # type: ignore[arg-type]


def test_a_latent_is_decoded_with_the_label_it_was_encoded_with() -> None:
    pipe = ImplicitDiffusionPipeline(tiny_unet(num_class_embeds=3), DDPMScheduler(), id2label={0: "cat", 1: "dog"})
    pipe.set_progress_bar_config(disable=True)
    x, seen = pictures(2).float(), []
    predict = pipe._predict
    pipe._predict = lambda x_t, t, labels, scale: (seen.append(labels.tolist()), predict(x_t, t, labels, scale))[1]  # type: ignore[method-assign]
    pipe.reconstruct(x, num_inference_steps=2)
    pipe.reconstruct(x, num_inference_steps=2, class_labels=["dog", 0])
    assert seen == [[2, 2]] * 4 + [[1, 0]] * 4
    with pytest.raises(
        ValueError, match='class_labels None would draw a class: pass a label for each image, or "null"'
    ):
        pipe.encode(x, class_labels=None)
    with pytest.raises(ValueError, match="got 3 class_labels for 1 images"):
        pipe.encode(x[:1], class_labels=[0, 1, 1])
    drawn = pipe(6, num_inference_steps=1, generator=seeded(0), output_type="pt").images
    assert len(drawn) == 6
    assert set(seen[-1]) <= {0, 1}


def test_callback_sees_every_step_of_the_grid() -> None:
    seen: list[int] = []
    exact()(
        num_inference_steps=5,
        timestep_spacing="uniform",
        callback_on_step_end=lambda pipe, index, t, values: seen.append(int(t)) or {},
    )
    assert seen == [800, 600, 400, 200, 0]


BAD: dict[str, tuple[dict[str, Any], str]] = {
    "eta": ({"eta": 1.5}, r"eta must be 0 \(no noise\) to 1"),
    "sigma_hat": ({"sigma_hat": True}, "sigma_hat is a variance around the mean of eta 1, not of eta 0.0"),
    "grid": ({"timestep_spacing": "leading"}, "unknown timestep_spacing 'leading'; choose one of trailing"),
    "steps": ({"num_inference_steps": 1001}, "num_inference_steps must be 1 to 1000, not 1001"),
    "latents": ({"latents": torch.zeros(1, 1, 5, 5)}, r"shape \(1, 1, 8, 8\), not \(1, 1, 5, 5\)"),
    "label": ({"class_labels": 1}, "class_labels 1 for an unconditional network"),
}


@pytest.mark.parametrize("case", BAD)
def test_bad_arguments_are_named(case: str) -> None:
    arguments, message = BAD[case]
    with pytest.raises(ValueError, match=message):
        exact()(**arguments)


def test_other_misuse_is_named() -> None:
    pipe = exact()
    with pytest.raises(ValueError, match=r"latents must have shape \(B, 1, 8, 8\), not \(64,\)"):
        pipe.decode(torch.zeros(64))
    with pytest.raises(ValueError, match="unknown mode 'arc'"):
        pipe.interpolate(latents(1), latents(1), mode="arc", num_inference_steps=1)
    with pytest.raises(ValueError, match="timestep 5 is not on the grid"):
        implicit(10, "uniform").step(noise(1), 5, noise(1))
    with pytest.raises(ValueError, match="unknown prediction_type 'noise'"):
        ImplicitDiffusionScheduler(prediction_type="noise")
    with pytest.raises(ValueError, match="ScoreSdeVeScheduler does not say its betas"):
        exact(ScoreSdeVeScheduler())
    pipe.scheduler = EulerDiscreteScheduler()
    with pytest.raises(
        ValueError, match="EulerDiscreteScheduler does not know the grids of ImplicitDiffusionPipeline"
    ):
        pipe(num_inference_steps=2)


def test_a_level_where_epsilon_says_nothing_is_warned_of() -> None:
    cosine: dict[str, Any] = {"beta_schedule": "squaredcos_cap_v2"}
    with pytest.warns(UserWarning, match="at t = 999, where the trailing grid begins"):
        ImplicitDiffusionScheduler(**cosine).set_timesteps(10)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        ImplicitDiffusionScheduler(**cosine).set_timesteps(10, timestep_spacing="uniform")
        ImplicitDiffusionScheduler(**cosine, clip_sample=True).set_timesteps(10)
        ImplicitDiffusionScheduler(**cosine, prediction_type="v_prediction").set_timesteps(10)
        ImplicitDiffusionScheduler().set_timesteps(10)


# What is published


def test_the_scheduler_is_published_as_a_file_of_its_own(tmp_path: Path) -> None:
    file = code_file(ImplicitDiffusionScheduler)
    assert file.class_name == "ImplicitDiffusionScheduler"
    (tmp_path / "implicit.py").write_text(file.text)
    check_published_file(tmp_path / "implicit.py")
    unet = tiny_unet()
    pipe = ImplicitDiffusionPipeline(unet, ImplicitDiffusionScheduler(timestep_spacing="quadratic"))
    folder = export(pipe, tmp_path / "folder")
    assert (folder / "scheduler" / f"{file.stem}.py").read_text() == file.text
    again = ImplicitDiffusionPipeline.from_pretrained(folder)
    assert again.scheduler.config["timestep_spacing"] == "quadratic"
    assert type(again.scheduler) is ImplicitDiffusionScheduler
