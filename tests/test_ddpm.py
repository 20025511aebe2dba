"""Denoising diffusion: timestep laws, weights and targets by formula; the sampler by a denoiser that is exact."""

import math
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from diffusers import (
    DDIMScheduler,
    DDPMScheduler,
    DPMSolverMultistepScheduler,
    EulerDiscreteScheduler,
    HeunDiscreteScheduler,
    UNet2DModel,
)
from diffusers.configuration_utils import ConfigMixin, register_to_config
from diffusers.models.modeling_utils import ModelMixin
from diffusers.models.unets.unet_2d import UNet2DOutput
from torch import Tensor, nn

from hf_genzoo.diffusion import (
    lognormal_timestep_probabilities,
    lognormal_timesteps,
    low_discrepancy_uniform,
    min_snr_weight,
    training_target,
    uniform_timesteps,
)
from hf_genzoo.pipelines.ddpm import DenoisingDiffusionPipeline

PREDICTIONS = ("epsilon", "v_prediction", "sample")
STD = 0.15


def seeded(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


class ExactDenoiser(ModelMixin, ConfigMixin):
    """The best possible network for pixels distributed as N(mean of the class, STD^2): no training error at all.

    E[x_0 | x_t] = m + a STD^2 / (a^2 STD^2 + s^2) (x_t - a m), with x_t = a x_0 + s eps. The last mean is the null
    label's; a network of one mean is unconditional.
    """

    @register_to_config
    def __init__(
        self,
        means: tuple[float, ...] = (0.2,),
        prediction_type: str = "epsilon",
        in_channels: int = 1,
        sample_size: int = 4,
        num_class_embeds: int | None = None,
    ):
        super().__init__()
        self.class_means = nn.Parameter(torch.tensor(means, dtype=torch.float64))
        abar = DDPMScheduler().alphas_cumprod.double()
        self.register_buffer("sigmas", ((1 - abar) / abar).sqrt(), persistent=False)
        self.batch_sizes: list[int] = []

    def forward(self, sample: Tensor, timestep: Tensor, class_labels: Tensor | None = None) -> UNet2DOutput:
        self.batch_sizes.append(len(sample))
        m = self.class_means[-1] if class_labels is None else self.class_means[class_labels][:, None, None, None]
        below, above = self.sigmas[timestep.long()], self.sigmas[(timestep.long() + 1).clamp(max=999)]
        sigma = torch.lerp(below, above, timestep.double().frac())  # Heun and Euler stop between timesteps
        a, s = 1 / (1 + sigma**2).sqrt(), sigma / (1 + sigma**2).sqrt()
        x_0 = m + a * STD**2 / (a**2 * STD**2 + s**2) * (sample - a * m)
        eps = (sample - a * x_0) / s
        return UNet2DOutput(
            {"epsilon": eps, "sample": x_0, "v_prediction": a * eps - s * x_0}[self.config.prediction_type]
        )


def pipeline(unet: ModelMixin, scheduler: type = DDIMScheduler) -> DenoisingDiffusionPipeline:
    prediction_type = unet.config.get("prediction_type", "epsilon")
    # Stated, though DDPM's defaults: from_config hands defaults on as the other class's own, and Heun's differ.
    betas = {"beta_start": 1e-4, "beta_end": 0.02, "beta_schedule": "linear"}
    base = DDPMScheduler(**betas, clip_sample=False, prediction_type=prediction_type)
    pipe = DenoisingDiffusionPipeline(unet, scheduler.from_config(base.config))
    pipe.set_progress_bar_config(disable=True)
    return pipe


def conditional(**config: object) -> ExactDenoiser:
    return ExactDenoiser(means=(-0.3, 0.1, 0.0), num_class_embeds=3, **config)


@pytest.fixture(scope="module")
def tiny_unet() -> UNet2DModel:
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
        num_class_embeds=4,
    )


# Timesteps, weights, targets


def test_low_discrepancy_puts_one_draw_into_each_interval() -> None:
    u = low_discrepancy_uniform(64, generator=seeded(0))
    assert torch.equal((u * 64).long().sort().values, torch.arange(64))
    assert not torch.equal(u, u.sort().values)
    first = torch.stack([low_discrepancy_uniform(4, generator=seeded(seed))[0] for seed in range(2000)])
    assert first.mean().item() == pytest.approx(0.5, abs=4 * math.sqrt(1 / 12 / 2000))
    assert first.var().item() == pytest.approx(1 / 12, rel=0.1)


def test_uniform_timesteps_cover_all_alike() -> None:
    t = uniform_timesteps(low_discrepancy_uniform(5000, generator=seeded(0)), 1000)
    assert t.dtype == torch.int64
    assert torch.equal(t.bincount(minlength=1000), torch.full((1000,), 5))


@pytest.mark.parametrize("schedule", ["linear", "scaled_linear", "squaredcos_cap_v2"])
def test_lognormal_timesteps_follow_the_law(schedule: str) -> None:
    abar = DDPMScheduler(beta_schedule=schedule).alphas_cumprod
    t = lognormal_timesteps(low_discrepancy_uniform(20_000, generator=seeded(0)), abar, mean=-0.6, std=1.0)
    log_sigma = 0.5 * ((1 - abar.double()) / abar.double()).log()[t]
    # The logit of flow matching's time sigma / (1 + sigma) is ln sigma: one law, two names.
    flow_time = log_sigma.exp() / (1 + log_sigma.exp())
    assert torch.logit(flow_time).mean().item() == pytest.approx(-0.6, abs=0.02)
    assert log_sigma.std().item() == pytest.approx(1.0, abs=0.02)


def test_lognormal_probabilities_are_those_of_the_draws() -> None:
    abar = DDPMScheduler(num_train_timesteps=20, beta_end=0.4).alphas_cumprod
    probabilities = lognormal_timestep_probabilities(abar, -1.2, 1.2)
    assert probabilities.sum().item() == pytest.approx(1.0)
    u = (torch.arange(100_000, dtype=torch.float64) + 0.5) / 100_000
    frequencies = lognormal_timesteps(u, abar, -1.2, 1.2).bincount(minlength=20) / 100_000
    torch.testing.assert_close(frequencies.double(), probabilities, rtol=0, atol=2e-5)


def test_lognormal_timesteps_refuse_an_infinite_sigma() -> None:
    abar = DDPMScheduler(rescale_betas_zero_snr=True).alphas_cumprod.clone()
    abar[-1] = 0.0
    with pytest.raises(ValueError, match="zero terminal SNR"):
        lognormal_timesteps(torch.rand(3), abar, -1.2, 1.2)
    with pytest.raises(ValueError, match="std must be positive, not 0"):
        lognormal_timesteps(torch.rand(3), abar, -1.2, 0)


def test_min_snr_weights_are_the_formulas() -> None:
    abar = torch.tensor([0.99, 5 / 6, 0.5, 0.0], dtype=torch.float64)  # SNR 99, 5, 1, 0
    t = torch.arange(4)
    expected = {"epsilon": [5 / 99, 1, 1, 1], "sample": [5, 5, 1, 0], "v_prediction": [5 / 100, 5 / 6, 1 / 2, 0]}
    for prediction_type, weights in expected.items():
        torch.testing.assert_close(min_snr_weight(abar, t, 5.0, prediction_type), torch.tensor(weights).double())


def test_min_snr_is_one_objective_whatever_is_predicted() -> None:
    scheduler = DDPMScheduler()
    abar = scheduler.alphas_cumprod.double()
    t = torch.tensor([3, 100, 400, 800])
    x_0, noise, guess = (torch.randn(4, 6, generator=seeded(seed), dtype=torch.float64) for seed in range(3))
    a, s = abar[t].sqrt()[:, None], (1 - abar[t]).sqrt()[:, None]
    noise_of_guess = (a * x_0 + s * noise - a * guess) / s  # the noise that this guess of x_0 implies
    losses = []
    for prediction_type in PREDICTIONS:
        target = training_target(scheduler, x_0, noise, t, prediction_type)
        predicted = training_target(scheduler, guess, noise_of_guess, t, prediction_type)
        weight = min_snr_weight(abar, t, 5.0, prediction_type)
        losses.append(weight * (predicted - target).square().sum(1))
    torch.testing.assert_close(losses[1], losses[0], rtol=1e-3, atol=0)
    torch.testing.assert_close(losses[2], losses[0], rtol=1e-3, atol=0)


def test_weights_and_targets_name_what_they_do_not_know() -> None:
    ones, t = torch.ones(1, 1), torch.zeros(1, dtype=torch.int64)
    with pytest.raises(ValueError, match=r"unknown prediction_type 'eps'.*epsilon"):
        training_target(DDPMScheduler(), ones, ones, t, "eps")
    with pytest.raises(ValueError, match="unknown prediction_type 'x'"):
        min_snr_weight(torch.ones(1), t, 5.0, "x")
    with pytest.raises(ValueError, match="gamma must be positive, not 0"):
        min_snr_weight(torch.ones(1), t, 0, "epsilon")


# Sampling with an exact denoiser


@pytest.mark.parametrize(
    ("scheduler", "steps", "options"),
    [
        (DDIMScheduler, 500, {}),
        (DDIMScheduler, 1000, {"eta": 1.0}),
        (DDPMScheduler, 1000, {}),
        (HeunDiscreteScheduler, 100, {}),
        (EulerDiscreteScheduler, 500, {}),
        (DPMSolverMultistepScheduler, 200, {}),
    ],
)
def test_samples_of_an_exact_denoiser_have_the_data_s_mean_and_spread(
    scheduler: type, steps: int, options: dict
) -> None:
    pipe = pipeline(ExactDenoiser(), scheduler)
    images = pipe(256, num_inference_steps=steps, generator=seeded(0), output_type="pt", **options).images
    x = 2 * images - 1
    assert x.mean().item() == pytest.approx(0.2, abs=0.012)
    assert x.std().item() == pytest.approx(STD, rel=0.04)


def test_prediction_types_agree() -> None:
    latents = torch.randn(8, 1, 4, 4, generator=seeded(0), dtype=torch.float64)
    images = [
        pipeline(ExactDenoiser(prediction_type=name))(
            8, latents=latents, num_inference_steps=20, output_type="pt"
        ).images
        for name in PREDICTIONS
    ]
    torch.testing.assert_close(images[1], images[0], rtol=0, atol=1e-5)
    torch.testing.assert_close(images[2], images[0], rtol=0, atol=1e-5)


def test_guidance_extrapolates_from_the_null_label_to_the_class() -> None:
    """For Gaussians of one spread, guided scores are those of the mean null + scale (class - null)."""
    latents = torch.randn(6, 1, 4, 4, generator=seeded(0), dtype=torch.float64)
    call = {"latents": latents, "num_inference_steps": 10, "output_type": "pt"}
    guided = pipeline(conditional())(6, class_labels=1, guidance_scale=3.0, **call).images
    expected = pipeline(ExactDenoiser(means=(0.3,)))(6, **call).images
    torch.testing.assert_close(guided, expected)


def test_scale_one_is_the_conditional_network_alone() -> None:
    latents = torch.randn(2, 1, 4, 4, generator=seeded(0), dtype=torch.float64)
    call = {"latents": latents, "num_inference_steps": 4, "output_type": "pt"}
    unet = conditional()
    images = pipeline(unet)(2, class_labels=[0, 1], **call).images
    assert unet.batch_sizes == [2] * 4
    for row, mean in enumerate((-0.3, 0.1)):
        alone = pipeline(ExactDenoiser(means=(mean,)))(2, **call).images
        torch.testing.assert_close(images[row], alone[row])


def test_the_null_label_is_no_label() -> None:
    latents = torch.randn(2, 1, 4, 4, generator=seeded(0), dtype=torch.float64)
    call = {"latents": latents, "num_inference_steps": 4, "output_type": "pt"}
    expected = pipeline(ExactDenoiser(means=(0.0,)))(2, **call).images
    torch.testing.assert_close(pipeline(conditional())(2, class_labels="null", **call).images, expected)


def test_without_labels_each_class_is_drawn_as_often() -> None:
    """With the same noise each image is one of the two classes' images; the one of the null label never."""
    count = 400
    latents = torch.randn(1, 1, 4, 4, generator=seeded(0), dtype=torch.float64).repeat(count, 1, 1, 1)
    call = {"latents": latents, "num_inference_steps": 4, "output_type": "pt"}
    drawn = pipeline(conditional())(count, generator=seeded(0), **call).images
    first, second = (pipeline(conditional())(count, class_labels=label, **call).images for label in (0, 1))
    is_first = torch.isclose(drawn, first).all(dim=(1, 2, 3))
    assert torch.equal(~is_first, torch.isclose(drawn, second).all(dim=(1, 2, 3)))
    assert abs(is_first.double().mean() - 0.5) < 4 * 0.5 / count**0.5


# Arguments


def labels_seen(**arguments: object) -> list[int]:
    pipe = DenoisingDiffusionPipeline(conditional(), DDIMScheduler(), id2label={0: "cat", 1: "dog"})
    labels, batch_size = pipe._labels(arguments["class_labels"], arguments.get("batch_size", 1))  # type: ignore[arg-type]
    assert labels is not None
    assert len(labels) == batch_size
    return labels.tolist()


def test_labels_may_be_indices_or_names_one_or_many() -> None:
    assert labels_seen(class_labels="dog", batch_size=2) == [1, 1]
    assert labels_seen(class_labels=["dog", 0, "cat"]) == [1, 0, 0]
    assert labels_seen(class_labels=torch.tensor([1, 0]), batch_size=2) == [1, 0]
    assert labels_seen(class_labels=[1], batch_size=3) == [1, 1, 1]
    assert labels_seen(class_labels=np.int64(1)) == labels_seen(class_labels=torch.tensor(1)) == [1]
    assert labels_seen(class_labels=["null", "cat"]) == [2, 0]


BAD = {
    "batch": (conditional, {"batch_size": 0}, "batch_size must be at least 1, not 0"),
    "steps": (conditional, {"num_inference_steps": 0}, "num_inference_steps must be at least 1, not 0"),
    "output": (conditional, {"output_type": "jpg"}, "unknown output_type 'jpg'.*pil"),
    "label": (conditional, {"class_labels": 2}, "class label 2 is not one of 0 to 1"),
    "negative label": (conditional, {"class_labels": [-1]}, "class label -1"),
    "fraction": (conditional, {"class_labels": 0.5}, "class_labels 0.5"),
    "fractions": (conditional, {"class_labels": [0.5]}, "class label 0.5 is not one of 0 to 1"),
    "name": (conditional, {"class_labels": "cow"}, "unknown class label 'cow'.*use indices"),
    "label count": (conditional, {"class_labels": [0, 1], "batch_size": 3}, "got 2 class_labels for 3 images"),
    "no labels": (conditional, {"class_labels": []}, "got 0 class_labels"),
    "guidance": (ExactDenoiser, {"guidance_scale": 2.0}, "guidance_scale 2.0 for an unconditional network"),
    "label of none": (ExactDenoiser, {"class_labels": 1}, "class_labels 1 for an unconditional network"),
    "generators": (ExactDenoiser, {"batch_size": 2, "generator": [seeded(0)] * 3}, "got 3 generators for 2 images"),
    "latents": (ExactDenoiser, {"latents": torch.zeros(1, 1, 5, 5)}, r"shape \(1, 1, 4, 4\), not \(1, 1, 5, 5\)"),
}


@pytest.mark.parametrize("case", BAD)
def test_bad_arguments_are_named(case: str) -> None:
    build, arguments, message = BAD[case]
    with pytest.raises(ValueError, match=message):
        pipeline(build())(**arguments)  # type: ignore[operator]


def test_eta_needs_a_scheduler_that_takes_it() -> None:
    pipe = pipeline(ExactDenoiser(), DPMSolverMultistepScheduler)
    with pytest.raises(ValueError, match=r"eta 0.5 has no meaning for DPMSolverMultistepScheduler"):
        pipe(eta=0.5)


def test_callback_sees_every_step_and_may_change_the_sample() -> None:
    seen: list[int] = []

    def callback(pipe: DenoisingDiffusionPipeline, index: int, t: Tensor, values: dict) -> dict:
        seen.append(int(t))
        return {"latents": torch.ones_like(values["latents"])} if index == 3 else {}

    pipe = pipeline(ExactDenoiser())
    images = pipe(num_inference_steps=4, output_type="pt", callback_on_step_end=callback).images
    assert seen == [750, 500, 250, 0]
    assert len(seen) == 4
    assert torch.equal(images, torch.ones_like(images))


# With a real U-Net


@pytest.mark.parametrize(
    "scheduler", [DDPMScheduler, DDIMScheduler, DPMSolverMultistepScheduler, HeunDiscreteScheduler]
)
def test_a_batch_equals_its_singles(tiny_unet: UNet2DModel, scheduler: Callable) -> None:
    pipe = pipeline(tiny_unet, scheduler)
    call = {"guidance_scale": 2.0, "num_inference_steps": 3, "output_type": "pt"}
    batch = pipe(2, class_labels=[0, 2], generator=[seeded(0), seeded(1)], **call).images
    singles = [pipe(class_labels=[0, 2][i], generator=seeded(i), **call).images for i in range(2)]
    torch.testing.assert_close(batch, torch.cat(singles), rtol=0, atol=1e-4)
    batch = pipe(4, generator=[seeded(i) for i in range(4)], **call).images  # labels drawn
    singles = [pipe(generator=seeded(i), **call).images for i in range(4)]
    torch.testing.assert_close(batch, torch.cat(singles), rtol=0, atol=1e-4)


def test_save_and_load_keep_labels_and_pixels(tiny_unet: UNet2DModel, tmp_path: Path) -> None:
    pipe = DenoisingDiffusionPipeline(tiny_unet, DDPMScheduler(), id2label={0: "cat", 1: "dog", 2: "cow"})
    pipe.save_pretrained(tmp_path)
    loaded = DenoisingDiffusionPipeline.from_pretrained(tmp_path)
    assert loaded.config["id2label"] == pipe.config["id2label"] == {"0": "cat", "1": "dog", "2": "cow"}
    images = []
    for each in (pipe, loaded):
        each.set_progress_bar_config(disable=True)
        images.append(each(class_labels="cow", num_inference_steps=2, generator=seeded(0), output_type="pt").images)
    torch.testing.assert_close(*images, rtol=0, atol=1e-5)  # memory alignment may pick another kernel


def test_output_types_agree(tiny_unet: UNet2DModel) -> None:
    pipe = pipeline(tiny_unet)
    pt, array, pil = (
        pipe(2, num_inference_steps=2, generator=seeded(0), output_type=name, return_dict=False)[0]
        for name in ("pt", "np", "pil")
    )
    assert pt.shape == (2, 1, 8, 8)
    assert array.shape == (2, 8, 8, 1)
    assert (pt.permute(0, 2, 3, 1).numpy() == array).all()
    assert [image.size for image in pil] == [(8, 8)] * 2
    assert pil[1].tobytes() == (array[1] * 255).round().astype("uint8").tobytes()
