"""Improved DDPM: terms of the bound by closed form, the learned variance against its optimum, importance sampling."""

import math
from collections.abc import Callable
from functools import partial
from pathlib import Path

import jobs
import pytest
import torch
from diffusers import DDIMScheduler, DDPMScheduler, UNet2DModel
from jobs import Job, settings_of
from oracle import GaussianMixture
from torch import Tensor, nn

from hf_genzoo.pipelines._variational import (
    Chain,
    at,
    bound_term,
    chain_of,
    discretized_gaussian_log_likelihood,
    gaussian_kl,
    log_variance,
    posterior_mean,
    predicted_x_0,
    prior_term,
    variational_bound,
)
from hf_genzoo.pipelines.ddpm import DenoisingDiffusionPipeline
from hf_genzoo.training_scripts.train_iddpm import SMALL, TINY, Args, reverse_process
from hf_genzoo.variational import ImportanceSampler, interval_width, scale_gradient, variational_term

COSINE = DDPMScheduler(beta_schedule="squaredcos_cap_v2", timestep_spacing="linspace", variance_type="learned_range")
BITS = torch.arange(256, dtype=torch.float64) / 127.5 - 1.0


def seeded(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def strided(steps: int) -> Chain:
    COSINE.set_timesteps(steps)
    return chain_of(COSINE.betas, COSINE.timesteps.flip(0))


def marginal(chain: Chain, step: int) -> tuple[float, float]:
    return chain.abar[step].sqrt().item(), (1.0 - chain.abar[step]).sqrt().item()


# Terms --------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("mean", "logvar"), [(0.3, -12.0), (0.0, 0.0), (-1.0, -5.0), (1.7, -9.0), (0.2, 6.0)])
def test_bins_share_the_whole_mass(mean: float, logvar: float) -> None:
    m, v = torch.tensor([mean, logvar], dtype=torch.float64)
    mass = discretized_gaussian_log_likelihood(BITS, m, v).exp()
    assert mass.sum().item() == pytest.approx(1.0, abs=1e-12)
    normal = torch.distributions.Normal(m, (0.5 * v).exp())
    assert mass[0].item() == pytest.approx(normal.cdf(BITS[0] + 1 / 255).item(), abs=1e-12)
    inner = normal.cdf(BITS[100] + 1 / 255) - normal.cdf(BITS[100] - 1 / 255)
    assert mass[100].item() == pytest.approx(inner.item(), abs=1e-9)


def test_far_bins_keep_a_finite_logarithm_and_gradient() -> None:
    mean, logvar = torch.tensor(-0.9, requires_grad=True), torch.tensor(-11.0, requires_grad=True)
    found = discretized_gaussian_log_likelihood(BITS.float(), mean, logvar)
    assert found.isfinite().all()
    found.sum().backward()
    assert mean.grad is not None
    assert logvar.grad is not None
    assert mean.grad.isfinite()
    assert logvar.grad.isfinite()


def test_kl_is_that_of_torch() -> None:
    mean_q, logvar_q, mean_p, logvar_p = torch.randn(4, 50, dtype=torch.float64, generator=seeded(0))
    q, p = (torch.distributions.Normal(m, (0.5 * v).exp()) for m, v in ((mean_q, logvar_q), (mean_p, logvar_p)))
    torch.testing.assert_close(
        gaussian_kl(mean_q, logvar_q, mean_p, logvar_p), torch.distributions.kl_divergence(q, p)
    )


@pytest.mark.parametrize("steps", [2, 7, 1000])
def test_a_strided_chain_is_one_chain_with_its_own_betas(steps: int) -> None:
    """Its betas multiply to abar of the kept levels, and its posterior joins two neighbouring levels of q."""
    chain = strided(steps)
    assert chain.timesteps[0] == 0
    assert chain.timesteps[-1] == 999
    full = chain_of(COSINE.betas)
    torch.testing.assert_close((1 - chain.beta).cumprod(0), full.abar[chain.timesteps])
    x_0 = torch.ones(steps - 1, 1, dtype=torch.float64)
    index = torch.arange(1, steps)
    a, s2 = at(chain.abar.sqrt(), index, x_0), at(1 - chain.abar, index, x_0)
    mean = posterior_mean(x_0, a * x_0, chain, index)
    torch.testing.assert_close(mean, at(chain.abar_prev.sqrt(), index, x_0))
    slope = posterior_mean(0 * x_0, x_0, chain, index)  # of x_t
    total = slope**2 * s2 + at(chain.log_btilde.exp(), index, x_0)
    torch.testing.assert_close(total, 1 - at(chain.abar_prev, index, x_0))


def test_variance_lies_between_its_bounds_in_the_logarithm_and_goes_beyond() -> None:
    chain, like = strided(20), torch.zeros(20, 1, dtype=torch.float64)
    index = torch.arange(20)

    def learned(v: float) -> Tensor:
        return log_variance("learned", torch.full_like(like, v), chain, index, like)[:, 0]

    torch.testing.assert_close(learned(-1.0), chain.log_btilde)
    torch.testing.assert_close(learned(1.0), chain.beta.log())
    torch.testing.assert_close(learned(3.0), 2 * chain.beta.log() - chain.log_btilde)
    assert chain.log_btilde[0] == chain.log_btilde[1]
    fixed = log_variance("beta", None, chain, index, like)[:, 0]
    torch.testing.assert_close(fixed[1:], chain.beta[1:].log())
    assert fixed[0] == chain.log_btilde[0]
    with pytest.raises(ValueError, match="no channels for the variance"):
        log_variance("learned", None, chain, index, like)
    with pytest.raises(ValueError, match="chain of 1 step"):
        chain_of(COSINE.betas, torch.tensor([0]))


# Sampling: diffusers' step is the paper's ---------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["learned_range", "fixed_small", "fixed_large"])
def test_the_scheduler_s_step_is_the_strided_step(kind: str) -> None:
    """Mean and spread of DDPMScheduler's step on the grid of this family, with x_0 cut to [-1, 1]."""
    variance = {"learned_range": "learned", "fixed_small": "btilde", "fixed_large": "beta"}[kind]
    scheduler = DDPMScheduler.from_config(reverse_process(Args(ddpm_num_steps=1000)).config, variance_type=kind)
    assert scheduler.config.clip_sample
    scheduler.set_timesteps(10)
    chain = chain_of(scheduler.betas, scheduler.timesteps.flip(0))
    x_t, eps, v = torch.randn(3, 2, 1, 2, 2, dtype=torch.float64, generator=seeded(0))
    output = torch.cat([eps, v], dim=1) if kind == "learned_range" else eps
    for step in range(10):
        index, t = torch.full((2,), step), chain.timesteps[step]
        x_0 = predicted_x_0(eps, x_t, chain, index, "epsilon").clamp(-1, 1)
        noise = torch.randn(x_t.shape, generator=seeded(1), dtype=x_t.dtype)
        spread = (0.5 * log_variance(variance, v, chain, index, x_t)).exp() * (step > 0)  # none after the last step
        expected = posterior_mean(x_0, x_t, chain, index) + spread * noise
        found = scheduler.step(output, t, x_t, generator=seeded(1)).prev_sample
        torch.testing.assert_close(found, expected, rtol=2e-3, atol=1e-4)  # abar in single precision


# The oracle ---------------------------------------------------------------------------------------------------------


def optimal_v(mixture: GaussianMixture, chain: Chain, step: int, x_t: Tensor) -> Tensor:
    """v of the variance that minimises the bound at x_t: btilde plus the spread that x_0 leaves in the mean."""
    coefficient = chain.abar_prev[step].sqrt() * chain.beta[step] / (1 - chain.abar[step])
    own = chain.log_btilde[step].exp() if step else 0.0  # q(x_0 | x_1, x_0) is a point
    best = (own + coefficient**2 * mixture.posterior_variance(x_t, *marginal(chain, step))).log()
    low, high = chain.log_btilde[step], chain.beta[step].log()
    return 2 * (best - low) / (high - low) - 1


@pytest.fixture(scope="module")
def bounds() -> tuple[Tensor, dict[int, dict[str, Tensor]]]:
    """-log2 p of 2,000 points per dimension, and their bounds by exact means at every number of steps."""
    mixture = GaussianMixture.ring()
    x_0 = mixture.sample(2000, seeded(0))
    found: dict[int, dict[str, Tensor]] = {}
    for steps in (5, 10, 25, 100):
        chain = strided(steps)

        def exact(x_t: Tensor, index: Tensor, chain: Chain = chain) -> tuple[Tensor, Tensor]:
            step = int(index[0])
            x_0_hat = mixture.denoised(x_t, *marginal(chain, step))
            return x_0_hat, optimal_v(mixture, chain, step, x_t)

        found[steps] = {
            variance: variational_bound(exact, x_0, chain, variance, discrete=False, generator=seeded(1))
            for variance in ("beta", "btilde", "learned")
        }
    return -mixture.log_density(x_0) / (2 * math.log(2)), found


@pytest.mark.parametrize("steps", [5, 10, 25, 100])
def test_the_optimal_variance_has_the_lowest_bound_at_every_number_of_steps(
    steps: int, bounds: tuple[Tensor, dict[int, dict[str, Tensor]]]
) -> None:
    """A theorem, term by term and in expectation; the draws are the same for all three."""
    found = bounds[1][steps]
    assert found["learned"].shape == (2000, steps + 1)
    for fixed in ("beta", "btilde"):
        assert found["learned"].sum(1).mean() < found[fixed].sum(1).mean()
        worse = found[fixed] - found["learned"]
        assert (worse.mean(0) > -4 * worse.std(0) / 2000**0.5 - 1e-12).all()


def test_the_bound_is_above_the_exact_value_and_closes_in(
    bounds: tuple[Tensor, dict[int, dict[str, Tensor]]],
) -> None:
    exact, found = bounds
    gaps = {steps: rows["learned"].sum(1) - exact for steps, rows in found.items()}
    for steps, gap in gaps.items():
        error = (gap.std() / 2000**0.5).item()
        assert gap.mean().item() > (4 * error if steps <= 10 else -4 * error)
    means = [gaps[steps].mean() for steps in (5, 10, 25, 100)]
    assert means == sorted(means, reverse=True)


def test_prior_term_is_the_kl_of_the_last_level() -> None:
    chain = chain_of(torch.full((3,), 0.3))
    q = torch.distributions.Normal(0.7**1.5 * 0.5, (1 - 0.7**3) ** 0.5)
    expected = torch.distributions.kl_divergence(q, torch.distributions.Normal(0.0, 1.0)).item() / math.log(2)
    assert prior_term(torch.full((1, 4), 0.5).double(), chain).item() == pytest.approx(expected, rel=1e-6)


# The hybrid loss ----------------------------------------------------------------------------------------------------


def test_the_bound_teaches_the_variance_only() -> None:
    """With the mean cut off, its gradient from the bound is exactly zero, and that of the variance is not."""
    chain = chain_of(COSINE.betas)
    x_0 = torch.rand(4, 1, 2, 2, generator=seeded(0)) * 2 - 1
    x_t = torch.randn(4, 1, 2, 2, generator=seeded(1))
    t = torch.tensor([0, 1, 30, 400])
    net = nn.Conv2d(1, 2, 1)
    output, v = net(x_t).chunk(2, dim=1)
    variational_term(output.detach(), v, x_0, x_t, t, chain, "epsilon", clip=1.0).sum().backward()
    assert net.weight.grad is not None
    assert (net.weight.grad[0] == 0).all()
    assert (net.weight.grad[1] != 0).all()


def test_the_terms_at_all_levels_sum_to_the_bound() -> None:
    """T times the mean over t of what the loss holds is what `variational_bound` reports: the weight of L_vlb is T."""
    chain = chain_of(DDPMScheduler(num_train_timesteps=8, beta_schedule="squaredcos_cap_v2").betas)
    x_0 = BITS[torch.randint(256, (5, 1, 2, 2), generator=seeded(0))]
    seen: list[tuple[Tensor, Tensor]] = []

    def predict(x_t: Tensor, index: Tensor) -> tuple[Tensor, Tensor]:
        seen.append((x_t, index))
        return predicted_x_0(0.9 * x_t, x_t, chain, index, "epsilon"), 0.1 * x_t

    bound = variational_bound(predict, x_0, chain, "learned", generator=seeded(2))
    x_t, t = torch.cat([x for x, _ in seen]), torch.cat([i for _, i in seen])
    terms = variational_term(0.9 * x_t, 0.1 * x_t, x_0.repeat(8, 1, 1, 1), x_t, t, chain, "epsilon")
    torch.testing.assert_close(8 * terms.view(8, 5).mean(0) + prior_term(x_0, chain), bound.sum(1))


def test_scaled_gradients_teach_the_variance_alike_at_all_levels() -> None:
    """Over the squared interval, dL_t / dv is that of (share - best)^2 / (4 ln 2), whatever the noise."""
    chain = chain_of(COSINE.betas)
    t = torch.tensor([100, 300, 600, 900, 999])
    x_0, x_0_hat = torch.full((5, 1), 0.5), torch.full((5, 1), 0.1)
    x_t = torch.randn(5, 1, generator=seeded(0))
    gradients = []
    for factor in (torch.ones_like(chain.beta), interval_width(chain) ** -2):
        v = torch.full((5, 1), -0.2, requires_grad=True)
        scaled = scale_gradient(v, at(factor, t, v))
        assert torch.equal(scaled, v)
        variational_term(x_0_hat, scaled, x_0, x_t, t, chain, "sample").sum().backward()
        gradients.append(v.grad[:, 0])  # pyright: ignore[reportOptionalSubscript]
    best = 0.4**2 / (1 - chain.abar[t])
    torch.testing.assert_close(gradients[1].double(), (0.4 - best) / (4 * math.log(2)), rtol=0.02, atol=0)
    assert (gradients[0].abs() < 1e-3 * gradients[1].abs()).all()


def learned_v(
    lambda_vlb: float, make_optimizer: Callable[..., torch.optim.Optimizer], weighting: str = "interval"
) -> tuple[Tensor, Tensor]:
    """v of a small network after the hybrid loss on a mixture, and the best v, each (5, N), at five noise levels."""
    width, updates, generator = 32, 600, seeded(0)
    chain = chain_of(COSINE.betas)
    levels = torch.tensor([50, 150, 300, 500, 700])
    level_weight = interval_width(chain) ** (-2 if weighting == "interval" else 0)
    mixture = GaussianMixture(torch.tensor([[-0.6], [0.5]]).double(), 0.2, torch.tensor([0.5, 0.5]).double())
    torch.manual_seed(0)
    net = nn.Sequential(nn.Linear(1 + len(levels), width), nn.Tanh(), nn.Linear(width, width), nn.Tanh())
    head = nn.Linear(width, 2)
    nn.init.zeros_(head.weight)
    nn.init.zeros_(head.bias)

    def outputs(x_t: Tensor, level: Tensor) -> tuple[Tensor, Tensor]:
        known = torch.cat([x_t, nn.functional.one_hot(level, len(levels))], dim=1)
        output, v = head(net(2 * known)).chunk(2, dim=1)
        return output, v

    def draw(level: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        x_0 = mixture.sample(len(level), generator).float()
        noise, t = torch.randn(x_0.shape, generator=generator), levels[level]
        return x_0, noise, at(chain.abar.sqrt(), t, x_0) * x_0 + at((1 - chain.abar).sqrt(), t, x_0) * noise

    optimizer = make_optimizer([*net.parameters(), *head.parameters()])
    rates = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, updates)
    for _ in range(updates):
        level = torch.randint(len(levels), (1024,), generator=generator)
        t, (x_0, noise, x_t) = levels[level], draw(level)
        output, v = outputs(x_t, level)
        v = scale_gradient(v, at(level_weight, t, v))
        target = at(chain.abar.sqrt(), t, x_0) * noise - at((1 - chain.abar).sqrt(), t, x_0) * x_0
        bound = 1000 * variational_term(output.detach(), v, x_0, x_t, t, chain, "v_prediction", clip=1.0)
        optimizer.zero_grad()
        ((output - target).square().mean(1) + lambda_vlb * bound).mean().backward()
        optimizer.step()
        rates.step()
    level = torch.arange(len(levels)).repeat_interleave(1000)
    x_t = draw(level)[2]
    with torch.no_grad():
        found = outputs(x_t, level)[1].view(len(levels), -1).double()
    rows = zip(levels.tolist(), x_t.view(len(levels), -1, 1).double(), strict=True)
    return found, torch.stack([optimal_v(mixture, chain, t, x)[:, 0] for t, x in rows])


def agreement(v: Tensor, best: Tensor) -> float:
    return torch.corrcoef(torch.stack([v.flatten(), best.flatten()]))[0, 1].item()


def squared_error(v: Tensor, best: Tensor) -> Tensor:
    """Of each level, over that of the untrained v, 0."""
    return (v - best).square().mean(1) / best.square().mean(1)


def test_a_network_learns_the_best_variance_unless_the_bound_weighs_too_little() -> None:
    """lambda T is 1, as in the paper at its shortest T, 1,000; without the T it would be 1,000 times less.

    The control takes plain gradient steps, which are as long as gradients are, and v stays where it began, at 0. Adam
    divides the weight out wherever the bound alone teaches, as in the last layer, and hides some of the mistake.
    """
    right, wrong = 1e-3, 1e-6
    sgd = partial(torch.optim.SGD, lr=0.2, momentum=0.9)
    assert agreement(*learned_v(right, sgd)) > 0.9
    v, best = learned_v(wrong, sgd)
    assert agreement(v, best) < 0.6
    assert v.std() < 0.1 * best.std()
    assert v.abs().max() < 0.1 * best.abs().max()


def test_a_network_learns_the_best_variance_at_strong_noise_if_all_levels_teach_alike() -> None:
    adam = partial(torch.optim.Adam, lr=1e-2)
    alike, as_in_the_bound = learned_v(1e-3, adam), learned_v(1e-3, adam, "bound")
    assert agreement(*alike) > 0.95
    assert (squared_error(*alike)[-2:] < 0.2).all()
    assert (squared_error(*as_in_the_bound)[-2:] > 0.5).all()


# Importance sampling ------------------------------------------------------------------------------------------------


def warm_sampler(size: int = 6) -> ImportanceSampler:
    sampler = ImportanceSampler(size)
    for row in range(10):
        sampler.update(torch.arange(size), torch.arange(1.0, size + 1) ** 2 * (1 + 0.1 * row))
    return sampler


def test_levels_are_drawn_by_the_root_of_their_mean_squared_loss() -> None:
    sampler = warm_sampler()
    expected = torch.arange(1.0, 7.0).double() ** 2
    torch.testing.assert_close(sampler.probabilities(), 0.999 * expected / expected.sum() + 0.001 / 6)
    torch.manual_seed(0)
    drawn = sampler.draw(40_000)[0].bincount(minlength=6) / 40_000
    torch.testing.assert_close(drawn.double(), sampler.probabilities(), rtol=0, atol=0.01)


def test_weights_make_the_mean_unbiased() -> None:
    """E_p[w f] = mean f for any f, exactly; and the draw carries those weights."""
    sampler = warm_sampler()
    torch.manual_seed(0)
    t, weight = sampler.draw(50)
    p = sampler.probabilities()
    torch.testing.assert_close(weight, (1 / (6 * p[t])).float())
    f = torch.randn(6, dtype=torch.float64, generator=seeded(3))
    assert (p * f / (6 * p)).sum().item() == pytest.approx(f.mean().item())


def test_uniform_until_every_level_is_known_and_old_losses_go() -> None:
    sampler = ImportanceSampler(3)
    uniform = torch.full((3,), 1 / 3, dtype=torch.float64)
    for _ in range(10):
        sampler.update(torch.tensor([0, 1]), torch.tensor([5.0, 1.0]))
    torch.testing.assert_close(sampler.probabilities(), uniform)
    sampler.update(torch.full((10,), 2), torch.ones(10))
    assert sampler.warm
    assert sampler.probabilities()[0] > 0.7
    sampler.update(torch.zeros(10, dtype=torch.int64), torch.ones(10))
    torch.testing.assert_close(sampler.probabilities(), uniform)


IMPORTANT = {"timestep_sampling": "importance", "objective": "vlb", "ddpm_num_steps": 3, "train_batch_size": 8}


def test_importance_sampling_resumes_bit_for_bit_and_is_shared_by_processes(tmp_path: Path) -> None:
    """Two processes, killed after the sampler has become warm: the same checkpoint as without the kill."""
    from test_resume import assert_same_run

    changes = {**IMPORTANT, "max_train_steps": 7, "checkpointing_steps": 4}
    Job(jobs.train, "iddpm", settings_of("iddpm", tmp_path / "a", **changes), log=tmp_path / "a", ranks=2).succeed()
    broken = settings_of("iddpm", tmp_path / "b", **changes, resume_from_checkpoint="latest")
    Job(jobs.train, "iddpm", broken, 6, log=tmp_path / "killed", ranks=2).wait()
    Job(jobs.train, "iddpm", broken, log=tmp_path / "b", ranks=2).succeed()
    assert_same_run(tmp_path / "a", tmp_path / "b", 7)
    states = [
        torch.load(tmp_path / f"a/checkpoint-7/run_{rank}.pt", weights_only=True)["states"]["importance"]
        for rank in (0, 1)
    ]
    assert states[0]["seen"].sum() == 7 * 8 * 2
    assert (states[0]["seen"] >= 10).all()
    assert torch.equal(states[0]["losses"], states[1]["losses"])


# The pipeline -------------------------------------------------------------------------------------------------------


@pytest.fixture
def pipeline() -> DenoisingDiffusionPipeline:
    torch.manual_seed(0)
    unet = UNet2DModel(
        sample_size=8,
        in_channels=1,
        out_channels=2,
        layers_per_block=1,
        block_out_channels=(8, 16),
        norm_num_groups=4,
        down_block_types=("DownBlock2D", "DownBlock2D"),
        up_block_types=("UpBlock2D", "UpBlock2D"),
        num_class_embeds=3,
    )
    scheduler = reverse_process(Args(ddpm_num_steps=12))
    pipe = DenoisingDiffusionPipeline(unet, scheduler)
    pipe.set_progress_bar_config(disable=True)
    return pipe


def test_log_likelihood_is_minus_the_sum_of_all_terms(pipeline: DenoisingDiffusionPipeline) -> None:
    images = torch.rand(3, 1, 8, 8, generator=seeded(0))
    terms = pipeline.variational_bound(images, generator=seeded(1))
    assert terms.shape == (3, 12 + 1)
    assert (terms[:, 1:] >= 0).all()
    torch.testing.assert_close(pipeline.log_likelihood(images, generator=seeded(1)), -terms.sum(1))
    eight_bit = (255 * images).round().to(torch.uint8)
    torch.testing.assert_close(pipeline.log_likelihood(eight_bit, generator=seeded(1)), -terms.sum(1))
    told = pipeline.log_likelihood(images, class_labels=[0, 1, 1], generator=seeded(1))
    assert (told != -terms.sum(1)).all()
    null = pipeline.log_likelihood(images, class_labels="null", generator=seeded(1))
    torch.testing.assert_close(null, -terms.sum(1))


def test_first_term_is_the_decoder_of_the_first_step(pipeline: DenoisingDiffusionPipeline) -> None:
    images = torch.rand(2, 1, 8, 8, generator=seeded(0))
    chain = chain_of(pipeline.scheduler.betas)
    x_0 = (255 * images).round().double() / 127.5 - 1
    noise = torch.randn(x_0.shape, generator=seeded(1), dtype=torch.float64)
    x_t = chain.abar[0].sqrt() * x_0 + (1 - chain.abar[0]).sqrt() * noise
    with torch.no_grad():
        output = pipeline.unet(x_t.float(), 0, class_labels=torch.tensor([2, 2])).sample.double()
    index = torch.zeros(2, dtype=torch.int64)
    x_0_hat = predicted_x_0(output[:, :1], x_t, chain, index, "epsilon").clamp(-1, 1)
    logvar = log_variance("learned", output[:, 1:], chain, index, x_t)
    expected = bound_term(x_0, x_t, x_0_hat, logvar, chain, index)
    torch.testing.assert_close(
        pipeline.variational_bound(images, generator=seeded(1))[:, 0], expected, rtol=1e-4, atol=1e-4
    )


def test_other_schedulers_are_given_the_mean_alone(pipeline: DenoisingDiffusionPipeline) -> None:
    """DDIM on the network with a variance draws what it draws on the network's first half."""
    pipeline.scheduler = DDIMScheduler.from_config(pipeline.scheduler.config)
    call = {"class_labels": 1, "num_inference_steps": 3, "output_type": "pt"}
    found = pipeline(2, generator=seeded(0), **call).images
    half = UNet2DModel.from_config({**pipeline.unet.config, "out_channels": 1})
    weights = pipeline.unet.state_dict()
    half.load_state_dict(weights | {n: weights[n][:1] for n in ("conv_out.weight", "conv_out.bias")})
    alone = DenoisingDiffusionPipeline(half, pipeline.scheduler)  # type: ignore[arg-type]
    alone.set_progress_bar_config(disable=True)
    torch.testing.assert_close(alone(2, generator=seeded(0), **call).images, found)


def test_guidance_leaves_the_variance_of_the_class(pipeline: DenoisingDiffusionPipeline) -> None:
    x_t, labels = torch.randn(2, 1, 8, 8, generator=seeded(0)), torch.tensor([0, 1])
    with torch.no_grad():
        plain = pipeline._predict(x_t, torch.tensor(3), labels, 1.0)
        null = pipeline._predict(x_t, torch.tensor(3), torch.tensor([2, 2]), 1.0)
        guided = pipeline._predict(x_t, torch.tensor(3), labels, 3.0)
    torch.testing.assert_close(guided[:, 1:], plain[:, 1:])
    torch.testing.assert_close(guided[:, :1], null[:, :1] + 3 * (plain - null)[:, :1])


def test_what_does_not_fit_is_named(pipeline: DenoisingDiffusionPipeline) -> None:
    images = torch.rand(1, 1, 8, 8)
    with pytest.raises(ValueError, match="num_inference_steps must be at least 2, not 1"):
        pipeline.variational_bound(images, num_inference_steps=1)
    with pytest.raises(ValueError, match="got 2 class_labels for 1 images"):
        pipeline.log_likelihood(images, class_labels=[0, 1])
    with pytest.raises(ValueError, match="max_batch_size must be at least 1, not 0"):
        pipeline.variational_bound(images, max_batch_size=0)
    learned = pipeline.scheduler
    pipeline.scheduler = DDIMScheduler.from_config(learned.config)
    with pytest.raises(ValueError, match=r"DDPMScheduler.*not of DDIMScheduler"):
        pipeline.log_likelihood(images)
    half = UNet2DModel.from_config({**pipeline.unet.config, "out_channels": 1})
    with pytest.raises(ValueError, match="'learned_range' needs a network of 2 output channels, not 1"):
        DenoisingDiffusionPipeline(half, learned)(num_inference_steps=2)  # type: ignore[arg-type]
    for wrong, message in (({"lambda_vlb": -1.0}, "lambda_vlb is -1"), ({"ddpm_num_steps": 1}, "ddpm_num_steps is 1")):
        with pytest.raises(ValueError, match=message):
            Args(**{**TINY, **wrong})
    assert Args(**SMALL).lambda_vlb == 1e-3
