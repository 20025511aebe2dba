"""What Song et al. 2021 make true (https://arxiv.org/abs/2011.13456), on mixtures whose score is known exactly."""

import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from diffusers import DDPMScheduler
from exact_score import exact_pipeline
from oracle import GaussianMixture
from torch import Tensor

from hf_genzoo.diffusion import sub_vp_marginal, ve_marginal, vp_marginal
from hf_genzoo.evaluation.points import wasserstein
from hf_genzoo.hub import load, report, verify
from hf_genzoo.models.noisy_classifier import NoisyClassifier
from hf_genzoo.models.score_mlp import ScoreMLP
from hf_genzoo.pipelines._completion import grey_and_colour
from hf_genzoo.pipelines._flow_likelihood import flow_log_density
from hf_genzoo.pipelines._ode import heun_step, solve_adaptive
from hf_genzoo.pipelines.score_sde import ScoreSdePipeline
from hf_genzoo.schedulers.score_sde import PREDICTORS, ScoreSdeScheduler
from hf_genzoo.training_scripts import train_score_sde
from hf_genzoo.training_scripts.train_score_sde import Args, draw_times

SDES: list[dict[str, Any]] = [{"sde": "vp"}, {"sde": "sub_vp"}, {"sde": "ve", "sigma_max": 10.0}]
each_sde = pytest.mark.parametrize("sde", SDES, ids=lambda sde: sde["sde"])
RING = GaussianMixture.ring()


def seeded(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def standard_error(values: Tensor) -> float:
    return float(values.std() / len(values) ** 0.5)


# The SDEs


@each_sde
def test_drift_and_diffusion_have_the_marginals(sde: dict) -> None:
    """The moments of x_t obey a' = f a and (s^2)' = 2 f s^2 + g^2 (Sarkka & Solin 2019, eq. 5.51)."""
    scheduler = ScoreSdeScheduler(**sde)
    t = torch.linspace(0.01, 1.0, 50, dtype=torch.float64).requires_grad_()
    a, s = scheduler.marginal(t)
    (slope_a,) = torch.autograd.grad((a + 0 * t).sum(), t, retain_graph=True)
    (slope_variance,) = torch.autograd.grad(s.square().sum(), t)
    rate = scheduler.drift(torch.ones(50, 1, dtype=torch.float64), t)[:, 0]
    torch.testing.assert_close(slope_a, rate * a)
    torch.testing.assert_close(slope_variance, 2 * rate * s**2 + scheduler.squared_diffusion(t))


def test_the_noise_axis_has_the_scheduler_s_marginals() -> None:
    t = torch.linspace(1e-5, 1, 9)
    for sde, law in (("vp", vp_marginal), ("sub_vp", sub_vp_marginal), ("ve", ve_marginal)):
        torch.testing.assert_close(ScoreSdeScheduler(sde=sde).marginal(t), law(t), rtol=0, atol=0)


@each_sde
def test_times_of_log_snr_are_inverse_to_it(sde: dict) -> None:
    scheduler = ScoreSdeScheduler(**sde)
    t = torch.logspace(-5, 0, 60, dtype=torch.float64).requires_grad_()
    log_snr = scheduler.log_snr(t)
    torch.testing.assert_close(scheduler.time_of_log_snr(log_snr), t, rtol=1e-7, atol=0)
    (slope,) = torch.autograd.grad(log_snr.sum(), t)
    torch.testing.assert_close(slope, -scheduler.squared_diffusion(t) / scheduler.marginal(t)[1] ** 2)


def test_ancestral_steps_of_vp_are_those_of_ddpm() -> None:
    """On DDPM's own noise levels the posterior mean and variance agree with diffusers' scheduler."""
    ddpm = DDPMScheduler(clip_sample=False, variance_type="fixed_small")
    abar = ddpm.alphas_cumprod.double()

    class OnItsLevels(ScoreSdeScheduler):
        def marginal(self, t: Tensor) -> tuple[Tensor, Tensor]:
            level = abar[(1000 * t).round().long() - 1]
            return level.sqrt(), (1 - level).sqrt()

    scheduler = OnItsLevels(final_time=0.001)
    scheduler.set_timesteps(999)
    ddpm.set_timesteps(1000)
    x, eps = (torch.randn(3, 4, generator=seeded(seed), dtype=torch.float64) for seed in (0, 1))
    for index in (0, 400, 900):
        t = scheduler.timesteps[index]
        ours = scheduler.step(eps, t, x, seeded(2), "ancestral")
        theirs = ddpm.step(eps, 999 - index, x, generator=seeded(2))
        torch.testing.assert_close(ours.prev_sample, theirs.prev_sample, rtol=0, atol=2e-5)


# Samplers


@each_sde
@pytest.mark.parametrize("predictor", [*PREDICTORS, "corrected", "ode"])
def test_samplers_draw_from_the_mixture(sde: dict, predictor: str) -> None:
    pipeline = exact_pipeline(RING, **sde)
    how: dict[str, Any] = {"predictor": predictor, "num_inference_steps": 60 if predictor == "ode" else 150}
    if predictor == "corrected":
        how = {"predictor": "reverse_diffusion", "num_inference_steps": 100, "corrector_steps": 1}
    count = 800
    drawn = pipeline(count, generator=seeded(0), output_type="pt", **how)
    x = drawn.images
    distance, mode = torch.cdist(x, RING.means).min(dim=1)
    shares = torch.bincount(mode, minlength=8).double()
    assert ((shares - count / 8).square() / (count / 8)).sum() < 24.3  # chi-squared of 7 degrees at 0.999
    assert x.mean(0).abs().max() < 4 * (0.51 / count) ** 0.5
    assert (distance.square().mean() / 2).sqrt().item() == pytest.approx(RING.std, rel=0.12)
    real, other = RING.sample(count, seeded(1)), RING.sample(count, seeded(2))
    assert wasserstein(x, real, order=2) < 1.5 * wasserstein(other, real, order=2)
    assert drawn.network_evaluations == (200 if predictor == "corrected" else 120 if predictor == "ode" else 150)


@each_sde
def test_the_velocity_tells_the_noise(sde: dict) -> None:
    scheduler = ScoreSdeScheduler(**sde, prediction_type="v_prediction")
    x_0, eps = torch.randn((2, 50, 3), dtype=torch.float64, generator=seeded(0))
    t = torch.linspace(1e-3, 1.0, 50, dtype=torch.float64)
    a, s = (values[:, None] for values in scheduler.marginal(t))
    given = scheduler.scale_model_input(a * x_0 + s * eps, t)
    velocity = (a * eps - s * x_0) / (a**2 + s**2).sqrt()
    torch.testing.assert_close(scheduler.noise(velocity, t, given), eps)


@each_sde
def test_samples_and_likelihoods_are_those_of_the_score_whatever_the_network_predicts(sde: dict) -> None:
    mixture, found = GaussianMixture.ring(dim=2), []
    x = mixture.sample(20, seeded(0))
    for kind in ("epsilon", "v_prediction"):
        pipeline = exact_pipeline(mixture, **sde, prediction_type=kind)
        drawn = pipeline(batch_size=20, num_inference_steps=5, output_type="pt", generator=seeded(0)).images
        found.append((drawn, pipeline.log_likelihood(x, trace="exact")))
    for by_noise, by_velocity in zip(*found, strict=True):
        torch.testing.assert_close(by_noise, by_velocity, rtol=1e-6, atol=1e-6)


def test_the_last_noise_is_left_out() -> None:
    """The mean of the last step is returned: with one step, nothing but the start is random."""
    pipeline = exact_pipeline(RING)
    z = torch.randn(1, 2, generator=seeded(0), dtype=torch.float64).repeat(4, 1)
    x = pipeline(latents=z, num_inference_steps=1, generator=seeded(0), output_type="pt").images
    torch.testing.assert_close(x, x[:1].expand(4, 2))


def test_langevin_steps_leave_the_law_as_it_is() -> None:
    scheduler, pipeline = (made := exact_pipeline(RING, snr=0.05)).scheduler, made
    scheduler.set_timesteps(100)
    t = scheduler.timesteps[90]
    a, s = scheduler.marginal(t)
    noisy = GaussianMixture(a * RING.means, float((a**2 * RING.std**2 + s**2).sqrt()), RING.weights)
    x = noisy.sample(4000, seeded(0))
    before, near = x.square().mean(), torch.cdist(x, noisy.means).min(dim=1).values.square().mean()
    for step in range(20):
        x = scheduler.correct(pipeline._noise(x, t), t, x, seeded(step)).prev_sample
    assert x.square().mean().item() == pytest.approx(before.item(), rel=0.05)
    after = torch.cdist(x, noisy.means).min(dim=1).values.square().mean()
    assert after.item() == pytest.approx(near.item(), rel=0.07)


# The ODE


def test_heun_is_of_second_order() -> None:
    pipeline = exact_pipeline(RING)
    z = torch.randn(20, 2, generator=seeded(0), dtype=torch.float64)
    exact, _ = pipeline._flow(pipeline._noise, z, 1.0, 1e-3, tolerance=1e-8)
    errors = [(pipeline._flow(pipeline._noise, z, 1.0, 1e-3, n)[0] - exact).square().mean() for n in (200, 400)]
    assert 0.5 * math.log2(errors[0] / errors[1]) == pytest.approx(2.0, abs=0.2)


def test_the_adaptive_solver_is_of_fifth_order_and_keeps_its_tolerance() -> None:
    """Two rotations; the error per evaluation falls by the power 5, the step size's control keeps it near rtol."""

    def rotation(x: Tensor, t: Tensor) -> Tensor:
        return torch.stack([-x[:, 1], x[:, 0]], dim=1) * (1 + t[:, None])

    x = torch.tensor([[1.0, 0.0], [3.0, -2.0]], dtype=torch.float64)
    turned = math.pi**2 / 2 + math.pi  # of the angle: the integral of 1 + t from 0 to pi
    c, s = math.cos(turned), math.sin(turned)
    expected = x @ torch.tensor([[c, s], [-s, c]], dtype=torch.float64)
    found = {}
    for tolerance in (1e-5, 1e-10):
        y, evaluations = solve_adaptive(rotation, x, 0.0, math.pi, tolerance, tolerance)
        found[tolerance] = ((y - expected).abs().max().item(), evaluations)
        assert found[tolerance][0] < 100 * tolerance
    (large, few), (small, many) = found.values()
    assert math.log(large / small) / math.log(many / few) == pytest.approx(5.0, abs=1.0)
    back, _ = solve_adaptive(rotation, y, math.pi, 0.0, 1e-10, 1e-10)
    torch.testing.assert_close(back, x, rtol=0, atol=1e-8)


def test_each_sample_has_its_own_steps() -> None:
    pipeline = exact_pipeline(RING)
    z = torch.randn(5, 2, generator=seeded(0), dtype=torch.float64)
    both, _ = pipeline._flow(pipeline._noise, z, 1.0, 1e-3)
    for row in range(5):
        alone, _ = pipeline._flow(pipeline._noise, z[row : row + 1], 1.0, 1e-3)
        torch.testing.assert_close(alone[0], both[row], rtol=0, atol=1e-11)


def test_a_velocity_that_is_not_finite_is_an_error() -> None:
    x = torch.ones(2, 1, dtype=torch.float64)
    with pytest.raises(FloatingPointError, match=r"no step is small enough at time 0\.[45]"):
        solve_adaptive(lambda x, t: torch.where(t[:, None] > 0.5, torch.nan, -x), x, 0.0, 1.0)
    with pytest.raises(ValueError, match="rtol 0 and atol 1"):
        solve_adaptive(lambda x, t: x, x, 0.0, 1.0, 0, 1)
    t, u = torch.tensor([0.5, 0.6], dtype=torch.float64)
    decayed = heun_step(lambda x, t: -x, x, t, u)  # 1 - h + h^2 / 2
    torch.testing.assert_close(decayed, torch.full_like(x, 0.905), rtol=0, atol=1e-12)
    shares: list[float] = []
    solve_adaptive(lambda x, t: -x, x, 0.0, 1.0, progress=shares.append)
    assert shares == sorted(shares)
    assert shares[-1] == 1.0


@pytest.mark.parametrize("predictor", ["ode", "reverse_diffusion"])
def test_callback_sees_every_step_and_may_change_the_sample(predictor: str) -> None:
    seen: list[float] = []

    def callback(pipe: ScoreSdePipeline, index: int, t: torch.Tensor, values: dict) -> dict:
        seen.append(float(t))
        return {"latents": torch.full_like(values["latents"], 0.25)} if index == 3 else {}

    pipeline = exact_pipeline(RING)
    how = {"predictor": predictor, "num_inference_steps": 4, "output_type": "pt", "generator": seeded(0)}
    out = pipeline(5, callback_on_step_end=callback, **how)
    points = out.images
    assert out.network_evaluations == (8 if predictor == "ode" else 4)
    assert len(seen) == 4
    assert seen[0] == 1.0
    assert seen == sorted(seen, reverse=True)
    assert torch.equal(points, torch.full_like(points, 0.25))


def test_solving_by_its_own_steps_shows_how_far_it_is(capsys: pytest.CaptureFixture[str]) -> None:
    pipeline = exact_pipeline(RING)
    pipeline.set_progress_bar_config(disable=False)
    points = pipeline(3, predictor="ode", output_type="pt", generator=seeded(0)).images
    pipeline.log_likelihood(points)
    assert capsys.readouterr().err.count("100/100") == 2


@pytest.mark.parametrize("sde", [{"sde": "vp"}, {"sde": "sub_vp"}, {"sde": "ve"}], ids=lambda sde: sde["sde"])
def test_decoding_is_the_inverse_of_encoding(sde: dict) -> None:
    pipeline = exact_pipeline(RING, **sde)
    x = RING.sample(100, seeded(0))
    z = pipeline.encode(x)
    assert (pipeline.decode(z, output_type="pt").images - x).abs().max() < 1e-3
    assert z.square().mean().item() == pytest.approx(1.0, abs=0.3)
    ends = pipeline.interpolate(z[0], z[1], steps=3, output_type="pt").images[[0, -1]]
    torch.testing.assert_close(ends, x[:2], rtol=0, atol=1e-3)


# Likelihood


@pytest.mark.parametrize(
    ("sde", "first_time", "least", "most"),
    [
        ({"sde": "vp"}, 1e-5, 0.0, 0.001),
        ({"sde": "sub_vp"}, 1e-5, 0.0, 0.001),
        ({"sde": "ve", "sigma_max": 2.0}, 1e-5, 0.085, 0.105),  # the prior is not the law at time 1
        ({"sde": "ve", "sigma_max": 10.0}, 1e-5, 0.005, 0.01),  # sigma_min is not 0
        ({"sde": "ve", "sigma_max": 50.0}, 1e-5, 0.005, 0.01),
        ({"sde": "vp"}, 1e-3, 0.005, 0.015),  # the samplers' final time is no good here
    ],
    ids=str,
)
def test_exact_likelihood(sde: dict, first_time: float, least: float, most: float) -> None:
    x = RING.sample(150, seeded(0))
    found = exact_pipeline(RING, **sde).log_likelihood(x, first_time=first_time)
    assert least <= (found - RING.log_density(x)).abs().mean().item() <= most


@pytest.mark.parametrize("dim", [2, 8])
def test_the_random_trace_is_unbiased(dim: int) -> None:
    mixture = GaussianMixture.ring(dim=dim)
    pipeline = exact_pipeline(mixture)
    x = mixture.sample(4, seeded(0)).repeat_interleave(200, dim=0)
    spreads = {}
    for trace in ("rademacher", "gaussian"):
        found = pipeline.log_likelihood(x, trace=trace, generator=seeded(1), tolerance=1e-4).view(4, 200)
        exact = mixture.log_density(x[::200])
        for row in range(4):
            assert abs(found[row].mean() - exact[row]).item() < 4 * standard_error(found[row]) + 1e-3
        spreads[trace] = found.std(dim=1).mean().item()
    assert spreads["rademacher"] < 0.6 * spreads["gaussian"]


def test_a_linear_flow_has_the_density_of_its_gaussian() -> None:
    """x' = -x / 2 from 0 to 2: the data are N(0, e^2), and a Rademacher probe gives the trace of I without error."""
    x = torch.randn(6, 1, 2, 2, generator=seeded(0), dtype=torch.float64)
    expected = torch.distributions.Normal(0.0, math.e).log_prob(x).flatten(1).sum(1)
    for trace in ("exact", "rademacher"):
        how = {"start": 0.0, "end": 2.0, "prior_std": 1.0, "trace": trace, "rtol": 1e-8, "atol": 1e-8}
        found, z, _ = flow_log_density(lambda x, t: -0.5 * x, x, **how)
        torch.testing.assert_close(found, expected, rtol=0, atol=1e-6)
        torch.testing.assert_close(z, x / math.e, rtol=0, atol=1e-6)


def test_probabilities_of_all_grey_levels_add_up_to_one() -> None:
    """One pixel with a Gaussian law: the cells of the 256 levels fill [-1, 1], by the offset of 7 bits."""
    law = GaussianMixture(torch.tensor([[0.1]], dtype=torch.float64), 0.2, torch.ones(1, dtype=torch.float64))
    pipeline = exact_pipeline(law, shape=(1, 1))
    levels = (torch.arange(256) / 255).view(256, 1, 1, 1)
    total = pipeline.log_likelihood(levels, generator=seeded(0)).exp().sum().item()
    assert total == pytest.approx(1.0, abs=0.02)
    bits = pipeline.bits_per_dimension(levels[140:141], generator=seeded(0)).item()
    density = pipeline.log_likelihood(levels[140:141], dequantize=False).item()
    assert bits == pytest.approx(7 - density / math.log(2), abs=0.05)


@pytest.mark.parametrize("sde", [{"sde": "vp"}, {"sde": "sub_vp"}, {"sde": "ve"}], ids=lambda sde: sde["sde"])
def test_the_bound_is_tight_for_an_exact_score(sde: dict) -> None:
    """On average over data and noise the bound is the likelihood, and never more."""
    x = RING.sample(2000, seeded(0))
    gap = RING.log_density(x) - exact_pipeline(RING, **sde).log_likelihood_bound(x, 150, generator=seeded(1))
    assert abs(gap.mean().item()) < 4 * standard_error(gap) + 0.01


def test_a_worse_score_has_a_lower_bound_and_likelihood() -> None:
    """A network of too wide a mixture: both fall, and the likelihood is not below the bound."""
    x = RING.sample(1500, seeded(0))
    wide = GaussianMixture.ring(std=0.15)
    pipeline = exact_pipeline(wide)
    bound = pipeline.log_likelihood_bound(x, 100, generator=seeded(1))
    found = pipeline.log_likelihood(x[:300])
    assert (found - wide.log_density(x[:300])).abs().mean() < 0.001
    gap = RING.log_density(x) - bound
    assert gap.mean() > 4 * standard_error(gap)
    assert found.mean() >= bound.mean() - 3 * standard_error(bound)


# Controlled generation


def picture_mixture() -> GaussianMixture:
    """Two kinds of 2 x 2 pictures, light and dark, the light ones three times as many."""
    means = torch.stack([torch.full((4,), 0.5), torch.full((4,), -0.5)]).double()
    return GaussianMixture(means, 0.1, torch.tensor([0.75, 0.25], dtype=torch.float64))


def test_inpainting_keeps_what_is_known_and_fills_in_what_follows() -> None:
    pipeline = exact_pipeline(picture_mixture(), shape=(1, 2))
    given = torch.rand(60, 1, 2, 2, generator=seeded(0)).mul(0.2)
    given[:30] += 0.7  # the first half light
    mask = torch.tensor([[0.0, 1.0], [0.0, 1.0]]).view(1, 1, 2, 2)
    how = {"num_inference_steps": 100, "generator": seeded(1), "output_type": "pt"}
    filled = pipeline.inpaint(given, mask, **how).images
    assert torch.equal(filled[..., 0].float(), given[..., 0])
    unknown = 2 * filled[:, 0, :, 1] - 1
    light = unknown.mean(1) > 0
    assert light[:30].double().mean() > 0.9  # not all: what is put in early says little
    assert light[30:].double().mean() < 0.1
    for kind, mean in ((light, 0.5), (~light, -0.5)):
        assert unknown[kind].mean().item() == pytest.approx(mean, abs=0.05)
        assert unknown[kind].std().item() == pytest.approx(0.1, rel=0.3)
    led = pipeline.inpaint(given[:2], torch.ones(2, 1, 2, 2), **how).images
    assert led.shape == (2, 1, 2, 2)


def test_colours_are_drawn_given_their_mean() -> None:
    """Two colours, each with its own brightness; the grey channel is orthogonal to the others and stays."""
    matrix = grey_and_colour().double()
    torch.testing.assert_close(matrix @ matrix.T, torch.eye(3, dtype=torch.float64), rtol=0, atol=1e-6)
    colours = torch.tensor([[0.8, 0.2, 0.2], [-0.8, -0.2, 0.1]], dtype=torch.float64)
    mixture = GaussianMixture(colours, 0.05, torch.tensor([0.5, 0.5], dtype=torch.float64))
    pipeline = exact_pipeline(mixture, shape=(3, 1))
    grey = (0.5 * colours.mean(1) + 0.5).repeat_interleave(20).view(40, 1, 1, 1).float()
    images = pipeline.colorize(grey, num_inference_steps=100, generator=seeded(0), output_type="pt").images
    torch.testing.assert_close(images.mean(1, keepdim=True).float(), grey, rtol=0, atol=1e-5)
    found = 2 * images.view(2, 20, 3).mean(1) - 1
    torch.testing.assert_close(found, colours, rtol=0, atol=0.05)
    assert images[:20, 0].std() > 0.01  # drawn, not averaged
    with pytest.raises(ValueError, match=r"shape \(1, 2, 2\), which have no colour"):
        exact_pipeline(picture_mixture(), shape=(1, 2)).colorize(grey)


@pytest.mark.parametrize("predictor", ["reverse_diffusion", "ode"])
def test_an_exact_classifier_leads_to_the_class(predictor: str) -> None:
    pipeline = exact_pipeline(RING, classes=True)
    assert pipeline.num_classes == 8
    asked = [0, 3, 5] * 100
    how = {"predictor": predictor, "num_inference_steps": 150, "generator": seeded(0), "output_type": "pt"}
    x = pipeline(class_labels=asked, **how).images
    distance = (x - RING.means[asked]).norm(dim=1)
    assert (distance < 5 * RING.std).double().mean() > 0.99
    assert (distance.square().mean() / 2).sqrt().item() == pytest.approx(RING.std, rel=0.15)
    free = pipeline(300, class_labels=[0], guidance_scale=0.0, **how).images
    assert torch.cdist(free, RING.means).argmin(1).unique().numel() == 8


# Training


@each_sde
def test_weights_make_the_integrals_they_stand_for(sde: dict) -> None:
    """E[weight f(t)] is the integral of f for lambda = std^2, of g^2 f / (2 std^2) for g^2, however t is drawn."""
    scheduler, first = ScoreSdeScheduler(**sde), 1e-5
    t = torch.linspace(math.log(first), 0, 20001, dtype=torch.float64).exp()

    def f(t: Tensor) -> Tensor:
        return scheduler.marginal(t.double())[1] ** 2  # falls where the weight is large

    weighted = torch.trapezoid(0.5 * scheduler.squared_diffusion(t), t).item()
    plain = torch.trapezoid(f(t), t).item()
    a, s = scheduler.marginal(t)
    of_velocity = torch.trapezoid(f(t) * (a**2 + s**2) / a**2, t).item()  # which errs by as much as eps over a'
    for settings, expected in (
        ({}, plain),
        ({"prediction_type": "v_prediction"}, of_velocity),
        ({"likelihood_weighting": True}, weighted),
        ({"likelihood_weighting": True, "importance_sampling": False}, weighted),
    ):
        args = Args(dataset_name="digits", timestep_sampling="stratified", **settings)
        torch.manual_seed(0)
        drawn, weight = draw_times(20000, scheduler, args, torch.device("cpu"))
        assert drawn.min() >= 0.99 * first
        assert drawn.max() <= 1.00001
        assert (weight * f(drawn)).mean().item() == pytest.approx(expected, rel=0.01), settings


@pytest.mark.parametrize("sde", ["vp", pytest.param("ve", marks=pytest.mark.slow)])
def test_a_trained_network_is_no_less_likely_than_its_bound(sde: str, tmp_path: Path) -> None:
    """And both tell it from one that has learnt nothing."""
    settings = {**train_score_sde.RING, "hidden_dim": 64, "max_train_steps": 400, "train_batch_size": 256}
    settings |= {"dataset_config_name": "moons", "num_inference_steps": 2, "sde": sde, "output_dir": str(tmp_path)}
    pipeline = load(train_score_sde.main(Args(**settings)))
    assert isinstance(pipeline, ScoreSdePipeline)
    points = torch.from_numpy(np.random.default_rng(0).permutation(train_score_sde.dataset(Args(**settings)).points))  # type: ignore[attr-defined]
    found = pipeline.log_likelihood(points[:200], tolerance=1e-4)
    bound = pipeline.log_likelihood_bound(points[:1000], 50, generator=seeded(0))
    assert found.mean() >= bound.mean() - 2 * standard_error(bound)
    assert found.mean() > -1.5
    assert bound.mean() > -2.0


@pytest.mark.parametrize("net", ["points", "pictures"])
def test_networks_hear_the_time(net: str) -> None:
    torch.manual_seed(0)
    model, shape = (ScoreMLP(2, 16), (1, 2)) if net == "points" else (NoisyClassifier(1, 3, (8, 16), 4), (1, 1, 8, 8))
    x = torch.randn(shape).repeat(2, *(1,) * (len(shape) - 1))
    out = model(x, torch.tensor([10.0, 900.0]))
    values = out.sample if net == "points" else out
    assert values.shape == ((2, 2) if net == "points" else (2, 3))
    assert not torch.allclose(values[0], values[1])


@pytest.fixture(scope="module")
def led(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a score and a classifier, each trained for a moment."""
    tmp_path = tmp_path_factory.mktemp("stages")
    shared = {**train_score_sde.TINY, "max_train_steps": 3}
    score = train_score_sde.main(Args(**shared, output_dir=str(tmp_path / "score")))
    with pytest.raises(ValueError, match=r"draws \(1, 8, 8\), the data are \(1, 12, 12\)"):
        second = {**shared, "resolution": 12, "stage": "classifier", "score_model": str(score)}
        train_score_sde.main(Args(**second, class_column="label", output_dir=str(tmp_path / "no")))
    second = {**shared, "stage": "classifier", "score_model": str(score), "class_column": "label"}
    led = train_score_sde.main(Args(**second, output_dir=str(tmp_path / "led")))
    first, pipeline = load(score), load(led)
    for name, value in first.score_net.state_dict().items():
        assert torch.equal(value, pipeline.score_net.state_dict()[name])
    return led


def test_both_stages_make_one_pipeline(led: Path) -> None:
    pipeline, how = load(led), {"num_inference_steps": 3, "output_type": "np"}
    asked, free, strong = (
        pipeline(2, class_labels=labels, guidance_scale=scale, generator=seeded(0), **how).images
        for labels, scale in ((["3", "7"], 1.0), (None, 1.0), ([3, 7], 5.0))
    )
    assert np.abs(asked - free).max() > 0
    assert np.abs(strong - free).max() > np.abs(asked - free).max()


@pytest.mark.slow
def test_a_pipeline_with_a_classifier_loads_in_every_way(led: Path) -> None:
    results = verify(led)
    assert all(result.ok for result in results), report(results)


# Arguments

BAD: dict[str, tuple[dict[str, Any], str]] = {
    "steps": ({"num_inference_steps": 0}, "num_inference_steps must be at least 1, not 0"),
    "steps of the ode": ({"num_inference_steps": 0, "predictor": "ode"}, "at least 1, not 0"),
    "predictor": ({"predictor": "euler"}, "'euler' makes no random steps; choose one of reverse_diffusion"),
    "corrector": ({"corrector_steps": -1}, "corrector_steps must be 0 or more, not -1"),
    "corrected ode": ({"predictor": "ode", "corrector_steps": 1}, "corrector_steps 1: the ODE has none"),
    "labels": ({"class_labels": 1}, "there is no classifier to lead there"),
    "latents": ({"latents": torch.zeros(2, 3)}, r"latents must have shape \(B, 2\), not \(2, 3\)"),
}


@pytest.mark.parametrize("case", BAD)
def test_bad_arguments_are_named(case: str) -> None:
    arguments, message = BAD[case]
    with pytest.raises(ValueError, match=message):
        exact_pipeline(RING)(**{"num_inference_steps": 2, **arguments})


def test_bad_settings_are_named() -> None:
    for settings, message in (
        ({"sde": "edm"}, "unknown sde 'edm'; choose one of vp"),
        ({"predictor": "pc"}, "unknown predictor 'pc'"),
        ({"sigma_min": 60.0}, r"sigma_min 60.0 and sigma_max 50.0"),
        ({"final_time": 2.0}, "final_time must lie between 0 and 1, not 2.0"),
        ({"snr": 0.0}, "snr 0.0"),
    ):
        with pytest.raises(ValueError, match=message):
            ScoreSdeScheduler(**settings)
    points, pictures = exact_pipeline(RING), exact_pipeline(picture_mixture(), shape=(1, 2))
    with pytest.raises(ValueError, match="points of 2 dimensions, no images"):
        points.inpaint(torch.zeros(1, 1, 2, 2), torch.zeros(1, 1, 2, 2))
    with pytest.raises(ValueError, match=r"shape \(B, 2\)"):
        points.encode(torch.zeros(1, 3))
    with pytest.raises(ValueError, match="got 3 masks for 2 images"):
        pictures.inpaint(torch.zeros(2, 1, 2, 2), torch.zeros(3, 1, 2, 2))
    with pytest.raises(ValueError, match="unknown trace 'random'"):
        points.log_likelihood(torch.zeros(1, 2), trace="random")
    for wrong in ({"stage": "classifier"}, {"score_model": "somewhere"}):
        with pytest.raises(ValueError, match="--score_model"):
            Args(dataset_name="digits", **wrong)
