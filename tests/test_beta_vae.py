"""What the papers make true of beta-VAEs: the KL's three terms, stratified sampling, capacity, and beta 1, the VAE."""

import itertools
import math
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from hf_genzoo.hub import load
from hf_genzoo.losses import annealed_capacity, kl_standard_normal, kl_terms, stratified_log_weights
from hf_genzoo.training_scripts import train_beta_vae, train_vae
from hf_genzoo.training_scripts.train_beta_vae import SMALL, TINY, Args


def seeded(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def posterior(count: int, dim: int, seed: int = 0) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """A draw, means and log-variances of `count` samples, float64."""
    mean, logvar, noise = torch.randn(3, count, dim, generator=seeded(seed), dtype=torch.float64)
    logvar = 0.5 * logvar - 1
    return mean + torch.exp(0.5 * logvar) * noise, mean, logvar


# The three terms


def test_terms_of_a_gaussian_have_their_closed_forms() -> None:
    """x ~ N(0, K), q(z | x) = N(x, s^2): q(z) is N(0, K + s^2), and all three terms are known."""
    count, variance = 3000, 0.3
    covariance = torch.tensor([[0.9, 0.6], [0.6, 0.7]], dtype=torch.float64)
    root = torch.linalg.cholesky(covariance)
    mean = torch.randn(count, 2, generator=seeded(0), dtype=torch.float64) @ root.T
    logvar = torch.full_like(mean, math.log(variance))
    z = mean + math.sqrt(variance) * torch.randn(count, 2, generator=seeded(1), dtype=torch.float64)
    marginal = covariance + variance * torch.eye(2)
    diagonal = marginal.diagonal()
    information = 0.5 * (torch.logdet(marginal) - 2 * math.log(variance))
    correlation = 0.5 * (diagonal.log().sum() - torch.logdet(marginal))
    dimension_wise = 0.5 * (diagonal - 1 - diagonal.log()).sum()
    found = torch.stack(kl_terms(z, mean, logvar, count))
    torch.testing.assert_close(found, torch.stack([information, correlation, dimension_wise]), rtol=0, atol=0.05)
    exact = 0.5 * (covariance.diagonal() + variance - 1 - math.log(variance)).sum()  # E KL(q(z|x) || p(z))
    torch.testing.assert_close(information + correlation + dimension_wise, exact)
    torch.testing.assert_close(kl_standard_normal(mean, logvar).mean(), exact, rtol=0, atol=0.05)


@pytest.mark.parametrize("num_samples", [6, 50, 10**6])
def test_terms_add_up_to_the_kl_at_the_draw(num_samples: int) -> None:
    z, mean, logvar = posterior(6, 3)
    log_q = torch.distributions.Normal(mean, torch.exp(0.5 * logvar)).log_prob(z).sum(1)
    log_p = torch.distributions.Normal(0.0, 1.0).log_prob(z).sum(1)
    total = sum(kl_terms(z, mean, logvar, num_samples))
    torch.testing.assert_close(total, (log_q - log_p).mean())


def test_independent_numbers_have_no_total_correlation() -> None:
    """Every combination of two independent codes occurs: q(z) is the product of its marginals, exactly."""
    values = torch.tensor([-1.0, 0.2, 1.5], dtype=torch.float64)
    mean = torch.cartesian_prod(values, values)
    logvar = torch.full_like(mean, -1.0)
    z = mean + 0.3
    _, correlation, _ = kl_terms(z, mean, logvar, len(mean))
    assert correlation.abs().item() < 1e-12
    _, tied, _ = kl_terms(torch.stack([values, values], 1), torch.stack([values, values], 1), logvar[:3] - 3, 3)
    assert tied.item() == pytest.approx(math.log(3), abs=0.01)  # one says what the other is: ln 3 nats


def test_terms_are_differentiable_and_pull_correlated_numbers_apart() -> None:
    _, mean, logvar = posterior(40, 1)
    mean, logvar = mean.repeat(1, 2).requires_grad_(), logvar.repeat(1, 2)
    _, correlation, _ = kl_terms(mean, mean, logvar, 1000)
    correlation.backward()
    assert mean.grad is not None
    assert torch.isfinite(mean.grad).all()
    assert mean.grad.abs().sum() > 0


# Minibatch stratified sampling


def brute_force(log_q: np.ndarray, batch_size: int, weights: np.ndarray) -> np.ndarray:
    """The mean of the estimate of q(z_n) over every batch that starts with n, by enumeration; log_q[n, m] (N, N)."""
    found = np.zeros(len(log_q))
    for n in range(len(log_q)):
        others = [m for m in range(len(log_q)) if m != n]
        estimates = [
            weights @ np.exp(log_q[n, [n, *batch]]) for batch in itertools.permutations(others, batch_size - 1)
        ]
        found[n] = np.mean(estimates)
    return found


@pytest.mark.parametrize("batch_size", [2, 3, 5])
def test_stratified_weights_are_unbiased_and_equal_ones_are_not(batch_size: int) -> None:
    num_samples = 5
    z, mean, logvar = posterior(num_samples, 2)
    normal = torch.distributions.Normal(mean[None], torch.exp(0.5 * logvar)[None])
    log_q = normal.log_prob(z[:, None]).sum(2).numpy()
    exact = np.exp(log_q).mean(1)
    weights = stratified_log_weights(batch_size, num_samples).double().exp()
    torch.testing.assert_close(weights.sum(1), torch.ones(batch_size).double(), rtol=0, atol=1e-6)
    np.testing.assert_allclose(brute_force(log_q, batch_size, weights[0].numpy()), exact, rtol=1e-6)
    equal = brute_force(log_q, batch_size, np.full(batch_size, 1 / batch_size))
    if batch_size < num_samples:
        assert equal.mean() > 1.2 * exact.mean()
        paper = np.full(batch_size, 1 / (batch_size - 1))  # Chen et al.: 1/N, 1/M ..., (N - M) / (N M), M = B - 1
        paper[0], paper[-1] = 1 / num_samples, (num_samples - batch_size + 1) / (num_samples * (batch_size - 1))
        np.testing.assert_allclose(brute_force(log_q, batch_size, paper), exact, rtol=1e-6)
        assert paper[1:].mean() == pytest.approx(weights[0, 1].item(), rel=1e-6)


def test_stratified_weights_refuse_impossible_batches() -> None:
    for batch_size, num_samples in ((1, 10), (11, 10)):
        with pytest.raises(ValueError, match=f"between 2 and the {num_samples} samples of the data, not {batch_size}"):
            stratified_log_weights(batch_size, num_samples)


# Capacity and the training


def test_capacity_rises_linearly_and_stays() -> None:
    assert [annealed_capacity(step, 25.0, 100) for step in (0, 1, 50, 100, 1000)] == [0.0, 0.25, 12.5, 25.0, 25.0]
    with pytest.raises(ValueError, match="capacity_steps must be at least 1, not 0"):
        annealed_capacity(1, 25.0, 0)


def weights(folder: Path) -> dict[str, torch.Tensor]:
    return load_file(folder / "vae" / "diffusion_pytorch_model.safetensors")


def test_beta_one_is_the_vae_bit_for_bit(tmp_path: Path) -> None:
    shared = {**train_vae.TINY, "max_train_steps": 4, "learning_rate": 1e-3}
    train_vae.main(train_vae.Args(**shared, output_dir=str(tmp_path / "vae")))
    for beta in (1.0, 4.0):
        train_beta_vae.main(Args(**shared, beta=beta, output_dir=str(tmp_path / str(beta))))
    vae, same, other = (weights(tmp_path / name) for name in ("vae", "1.0", "4.0"))
    assert all(torch.equal(vae[name], same[name]) for name in vae)
    assert not all(torch.equal(vae[name], other[name]) for name in vae)


def test_capacity_holds_the_kl_where_it_should_be(tmp_path: Path) -> None:
    settings = {"objective": "capacity", "capacity": 2.0, "capacity_steps": 50, "learning_rate": 1e-2}
    args = Args(**{**TINY, **settings, "max_train_steps": 150, "train_batch_size": 32, "output_dir": str(tmp_path)})
    pipe = load(train_beta_vae.main(args))
    x = train_beta_vae.image_dataset(args).examples(200)["pixel_values"]  # type: ignore[attr-defined]
    with torch.no_grad():
        kl = kl_standard_normal(*pipe.vae.encode(x)).mean().item()
    assert kl == pytest.approx(2.0, abs=0.5)


def test_preview_is_a_square_of_traversals(tmp_path: Path) -> None:
    args = Args(**{**TINY, "latent_dim": 5, "num_validation_images": 30, "max_train_steps": 1, "objective": "tc"})
    args.output_dir = str(tmp_path)
    pipe = load(train_beta_vae.main(args))
    assert len(train_beta_vae.preview(pipe, args, train_beta_vae.image_dataset(args))) == 25


def test_bad_flags_are_named() -> None:
    with pytest.raises(ValueError, match="--beta is -1"):
        Args(**{**SMALL, "beta": -1.0})
    with pytest.raises(ValueError, match="--capacity_steps is 0"):
        Args(**{**SMALL, "capacity_steps": 0})
    streamed = Args(dataset_name="digits", streaming=True, objective="tc")
    with pytest.raises(ValueError, match="leave --streaming out"):
        train_beta_vae.main(streamed)
