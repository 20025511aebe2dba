"""Loss terms against closed forms, torch.distributions and quadrature."""

import math
import subprocess
import sys
import textwrap

import pytest
import torch
from torch import Tensor, nn
from torch.distributions import Bernoulli, ContinuousBernoulli, Normal, kl_divergence

from hf_genzoo.losses import (
    bernoulli_log_likelihood,
    continuous_bernoulli_log_likelihood,
    gaussian_log_likelihood,
    gradient_penalty,
    kl_standard_normal,
)
from hf_genzoo.models.vae import continuous_bernoulli_mean


def normal(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def uniform(*shape: int, seed: int = 0) -> Tensor:
    return torch.rand(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


# Kullback-Leibler divergence


def test_kl_equals_closed_form_of_torch() -> None:
    mean, logvar = normal(5, 7), normal(5, 7, seed=1)
    expected = kl_divergence(Normal(mean, torch.exp(0.5 * logvar)), Normal(0.0, 1.0)).sum(1)
    torch.testing.assert_close(kl_standard_normal(mean, logvar), expected)


def test_kl_is_zero_only_at_the_prior() -> None:
    assert kl_standard_normal(torch.zeros(1, 3), torch.zeros(1, 3)).item() == 0.0
    # float32 keeps the digits of a tiny divergence: 0.5 (e^v - 1 - v) is v^2 / 4 near 0
    assert kl_standard_normal(torch.zeros(1, 1), torch.full((1, 1), 0.01)).item() == pytest.approx(2.508e-5, rel=1e-2)


# Likelihoods


def test_bernoulli_equals_torch_on_binary_pixels() -> None:
    logits, pixels = normal(4, 1, 3, 3) * 5, uniform(4, 1, 3, 3).round()
    expected = Bernoulli(logits=logits).log_prob(pixels).flatten(1).sum(1)
    torch.testing.assert_close(bernoulli_log_likelihood(logits, pixels), expected)


def test_bernoulli_of_grey_is_the_expectation_over_random_bits() -> None:
    logits, grey = normal(2, 6), uniform(2, 6)
    zero, one = (Bernoulli(logits=logits).log_prob(torch.full_like(grey, bit)) for bit in (0.0, 1.0))
    torch.testing.assert_close(bernoulli_log_likelihood(logits, grey), (grey * one + (1 - grey) * zero).sum(1))


def test_gaussian_equals_torch() -> None:
    mean, pixels, log_sigma = normal(4, 2, 3, 3), uniform(4, 2, 3, 3), torch.tensor(-0.7, dtype=torch.float64)
    expected = Normal(mean, log_sigma.exp()).log_prob(pixels).flatten(1).sum(1)
    torch.testing.assert_close(gaussian_log_likelihood(mean, log_sigma, pixels), expected)


def test_best_sigma_is_the_root_mean_squared_error() -> None:
    mean, pixels = normal(4, 2, 3, 3), uniform(4, 2, 3, 3)
    best = 0.5 * (pixels - mean).square().mean().log()
    log_sigma = best.clone().requires_grad_()
    gaussian_log_likelihood(mean, log_sigma, pixels).mean().backward()
    assert log_sigma.grad is not None
    assert abs(log_sigma.grad.item()) < 1e-9
    at_best = gaussian_log_likelihood(mean, best, pixels).mean()
    for step in (-0.1, 0.1):
        assert gaussian_log_likelihood(mean, best + step, pixels).mean() < at_best


def test_continuous_bernoulli_equals_torch() -> None:
    logits, pixels = normal(4, 1, 5, 5) * 4, uniform(4, 1, 5, 5)
    expected = ContinuousBernoulli(logits=logits).log_prob(pixels).flatten(1).sum(1)
    torch.testing.assert_close(continuous_bernoulli_log_likelihood(logits, pixels), expected, rtol=1e-7, atol=1e-6)


@pytest.mark.parametrize("logit", [0.0, 1e-9, 1e-3, 0.0999, 0.1001, 0.1999, 0.2001, -0.2001, 1.0, -6.0, 30.0])
def test_continuous_bernoulli_density_integrates_to_one_and_has_its_mean(logit: float) -> None:
    nodes = 20_001  # Simpson's rule
    y = torch.linspace(0, 1, nodes, dtype=torch.float64)
    weights = torch.full((nodes,), 2.0, dtype=torch.float64)
    weights[1::2], weights[0], weights[-1] = 4.0, 1.0, 1.0
    weights /= 3 * (nodes - 1)
    logits = torch.full((nodes, 1), logit, dtype=torch.float64)
    density = continuous_bernoulli_log_likelihood(logits, y[:, None]).exp()
    assert (weights * density).sum().item() == pytest.approx(1.0, abs=1e-9)
    assert (weights * density * y).sum().item() == pytest.approx(continuous_bernoulli_mean(logits)[0].item(), abs=1e-8)


def test_continuous_bernoulli_gradient_keeps_its_digits_near_one_half() -> None:
    logits = torch.tensor([[1e-6], [1e-3], [0.15], [0.199], [0.201], [0.3]], requires_grad=True)
    # At y = sigmoid(l) the Bernoulli part has no slope. What is left is 1/l - 1/sinh(l) = l/6 - 7 l^3/360 + ...
    pixels = torch.sigmoid(logits.detach())
    continuous_bernoulli_log_likelihood(logits, pixels).sum().backward()
    values = logits.detach()
    assert logits.grad is not None
    expected = values / 6 - 7 * values**3 / 360 + 31 * values**5 / 15120
    torch.testing.assert_close(logits.grad, expected, rtol=1e-4, atol=1e-7)


@pytest.mark.parametrize("function", [bernoulli_log_likelihood, continuous_bernoulli_log_likelihood])
def test_likelihoods_sum_over_pixels_and_keep_the_batch(function) -> None:
    logits, pixels = normal(3, 1, 4, 4), uniform(3, 1, 4, 4)
    once = function(logits, pixels)
    twice = function(torch.cat([logits, logits], 1), torch.cat([pixels, pixels], 1))
    assert once.shape == (3,)
    torch.testing.assert_close(twice, 2 * once)


# Gradient penalty


@pytest.mark.parametrize("shape", [(6, 2), (6, 3, 4, 4)])
def test_penalty_of_a_linear_critic_is_closed_form(shape: tuple[int, ...]) -> None:
    real, fake = normal(*shape), normal(*shape, seed=1)
    w = normal(math.prod(shape[1:]), seed=2).requires_grad_()
    penalty = gradient_penalty(lambda x: x.flatten(1) @ w, real, fake)
    torch.testing.assert_close(penalty, (w.norm() - 1).square())
    penalty.backward()  # create_graph: the critic learns from the penalty
    torch.testing.assert_close(w.grad, (2 * (w.norm() - 1) * w / w.norm()).detach())


def test_penalty_of_a_quadratic_critic_follows_each_sample_s_coefficient() -> None:
    real, fake, u = normal(5, 2, 3, 3), normal(5, 2, 3, 3, seed=1), uniform(5, 1, 1, 1)
    x_hat = u * real + (1 - u) * fake
    expected = (3.0 * x_hat.flatten(1).norm(dim=1) - 1).square().mean()  # D = 3/2 |x|^2 has gradient 3 x
    penalty = gradient_penalty(lambda x: 1.5 * x.flatten(1).square().sum(1), real, fake, u)
    torch.testing.assert_close(penalty, expected)


def test_penalty_draws_one_coefficient_per_sample() -> None:
    seen: list[Tensor] = []

    def critic(x: Tensor) -> Tensor:
        seen.append(x.detach())
        return x.flatten(1).sum(1, keepdim=True)

    torch.manual_seed(0)
    gradient_penalty(critic, torch.ones(64, 3, 4, 4), torch.zeros(64, 3, 4, 4))
    u = seen[0].flatten(1)
    assert torch.equal(u, u[:, :1].expand_as(u))
    assert u[:, 0].unique().numel() == 64
    assert 0 <= u.min() < 0.1
    assert 0.9 < u.max() <= 1


def test_penalty_gives_the_generator_no_gradient_and_leaves_the_arguments_alone() -> None:
    real, fake = normal(3, 2), normal(3, 2, seed=1).requires_grad_()
    w = normal(2, seed=2).requires_grad_()
    gradient_penalty(lambda x: x @ w, real, fake).backward()
    assert fake.grad is None
    assert not real.requires_grad


def test_penalty_survives_a_critic_without_slope() -> None:
    w = torch.zeros(2, requires_grad=True)
    penalty = gradient_penalty(lambda x: x @ w, torch.ones(3, 2), torch.zeros(3, 2))
    penalty.backward()
    assert penalty.item() == 1.0
    assert w.grad is not None
    assert torch.isfinite(w.grad).all()


def test_penalty_refuses_what_it_cannot_mean() -> None:
    with pytest.raises(ValueError, match=r"\(3, 2\).*\(4, 2\)"):
        gradient_penalty(nn.Linear(2, 1), torch.ones(3, 2), torch.ones(4, 2))
    with pytest.raises(ValueError, match=r"one coefficient per sample, shape \(3, 1\), not \(3, 2\)"):
        gradient_penalty(nn.Linear(2, 1), torch.ones(3, 2), torch.ones(3, 2), u=torch.ones(3, 2))


def test_penalty_works_through_ddp() -> None:
    """In a process of its own: a process group must not outlive the test."""
    code = """
        import torch, torch.distributed as dist
        from torch import nn
        from hf_genzoo.losses import gradient_penalty

        def grads(critic, net):
            net.zero_grad()
            gp = gradient_penalty(critic, real, fake, u)
            (10 * gp - critic(real).mean() + critic(fake).mean()).backward()
            return [p.grad.clone() for p in net.parameters()]

        dist.init_process_group("gloo", store=dist.HashStore(), rank=0, world_size=1)
        torch.manual_seed(0)
        net = nn.Sequential(nn.Linear(2, 8), nn.ReLU(), nn.Linear(8, 1, bias=False))
        real, fake, u = torch.randn(4, 2), torch.randn(4, 2), torch.rand(4, 1)
        plain = grads(net, net)
        wrapped = nn.parallel.DistributedDataParallel(net)
        for _ in range(2):
            assert all(torch.allclose(a, b) for a, b in zip(plain, grads(wrapped, net)))
        del wrapped
        dist.destroy_process_group()
        print("same gradients")
    """
    run = subprocess.run([sys.executable, "-c", textwrap.dedent(code)], capture_output=True, text=True, timeout=120)
    assert "same gradients" in run.stdout, run.stderr
