"""What the papers make true of generative adversarial networks: the values of the games, their gradients, packing.

Densities are tables of probabilities in multiples of 1/20: a sample of 20 that holds each point as often as its
probability says makes the losses' means exact expectations.
"""

import math
from pathlib import Path
from typing import get_args

import pytest
import torch
from torch import Tensor

from hf_genzoo.hub import load
from hf_genzoo.losses import AdversarialLoss, discriminator_loss, generator_loss, pack, zero_centred_penalty
from hf_genzoo.models.discriminator import ConvDiscriminator, MLPDiscriminator
from hf_genzoo.models.generator import ConvGenerator
from hf_genzoo.pipelines.gan import GANPipeline
from hf_genzoo.training_scripts.train_gan import GRID, RING, TINY, Args, build, main

LOSSES = get_args(AdversarialLoss)
P, Q = torch.tensor([8, 6, 4, 2]).double() / 20, torch.tensor([2, 4, 4, 10]).double() / 20


def samples_of(density: Tensor) -> Tensor:
    """Indices of points, each as often as its probability says."""
    return torch.arange(len(density)).repeat_interleave((density * 20).round().long())


def value(logits: Tensor, loss: AdversarialLoss) -> Tensor:
    """The discriminator's loss when data follow P, samples follow Q, and point i has logit i."""
    return discriminator_loss(logits[samples_of(P)], logits[samples_of(Q)], loss)


def best(loss: AdversarialLoss) -> Tensor:
    """Logits of the best discriminator, by the formulas of the papers."""
    return {"non_saturating": (P / Q).log(), "least_squares": (P - Q) / (P + Q), "hinge": torch.sign(P - Q)}[loss]


# The value of the game


def test_best_discriminator_is_worth_the_jensen_shannon_divergence() -> None:
    """Theorem 1 of Goodfellow et al. 2014: the game's value at D* = p / (p + q) is -log 4 + 2 JSD."""
    middle = (P + Q) / 2
    jsd = 0.5 * (P * (P / middle).log()).sum() + 0.5 * (Q * (Q / middle).log()).sum()
    for loss in ("minimax", "non_saturating"):
        assert -value(best("non_saturating"), loss).item() == pytest.approx(-math.log(4) + 2 * jsd.item())
    same = discriminator_loss(torch.zeros(5), torch.zeros(5), "minimax")
    assert same.item() == pytest.approx(math.log(4))  # p = q: the least that the generator can make of it


def test_least_squares_is_pearson_s_chi_squared() -> None:
    """Theorem 1 of Mao et al. 2017: with b - a = 2 and b - c = 1, 2 C(G) = chi^2(p + q || 2 q)."""
    logits = best("least_squares")
    cost = generator_loss(logits[samples_of(P)], "least_squares") + generator_loss(
        logits[samples_of(Q)], "least_squares"
    )
    chi_squared = ((2 * Q - (P + Q)) ** 2 / (P + Q)).sum()
    assert 2 * cost.item() == pytest.approx(chi_squared.item())


def test_best_hinge_discriminator_is_worth_the_total_variation() -> None:
    variation = 0.5 * (P - Q).abs().sum().item()
    assert value(best("hinge"), "hinge").item() == pytest.approx(2 * (1 - variation))


@pytest.mark.parametrize("loss", ["non_saturating", "least_squares", "hinge"])
def test_best_discriminator_is_best(loss: AdversarialLoss) -> None:
    least = value(best(loss), loss)
    torch.manual_seed(0)
    for size in (0.01, 0.1, 1.0):
        for _ in range(20):
            assert value(best(loss) + size * torch.randn(4).double(), loss) >= least - 1e-12


def test_the_game_of_pairs_is_symmetric_and_sees_differences_only() -> None:
    torch.manual_seed(0)
    real, fake = torch.randn(2, 50).double()
    discriminator = discriminator_loss(real, fake, "relativistic")
    generator = generator_loss(fake, "relativistic", real)
    torch.testing.assert_close(discriminator, generator_loss(real, "relativistic", fake))  # the roles exchanged
    torch.testing.assert_close(discriminator - generator, (fake - real).mean())  # softplus(d) - softplus(-d) = d
    torch.testing.assert_close(discriminator, discriminator_loss(real + 7, fake + 7, "relativistic"))
    assert discriminator_loss(real, real, "relativistic").item() == pytest.approx(math.log(2))
    with pytest.raises(ValueError, match="pass their logits"):
        generator_loss(fake, "relativistic")


# Gradients


def test_only_the_minimax_generator_is_left_without_a_gradient() -> None:
    """d/ds log(1 - sigmoid(s)) = -sigmoid(s), d/ds -log sigmoid(s) = -sigmoid(-s) (section 3 of the paper)."""
    logits = torch.linspace(-40, 40, 81, dtype=torch.float64)
    gradients = {}
    for loss in LOSSES:
        s = logits.clone().requires_grad_()
        (gradients[loss],) = torch.autograd.grad(generator_loss(s, loss, torch.zeros_like(s)) * len(s), s)
    torch.testing.assert_close(gradients["minimax"], -torch.sigmoid(logits))
    torch.testing.assert_close(gradients["non_saturating"], -torch.sigmoid(-logits))
    torch.testing.assert_close(gradients["relativistic"], -torch.sigmoid(-logits))
    torch.testing.assert_close(gradients["least_squares"], logits)
    assert (gradients["hinge"] == -1).all()
    sure = logits < -30  # the discriminator is sure that they are generated
    assert gradients["minimax"][sure].abs().max() < 1e-12
    assert gradients["non_saturating"][sure].abs().min() > 1 - 1e-12


@pytest.mark.parametrize("loss", LOSSES)
def test_losses_of_a_sure_discriminator_are_finite(loss: AdversarialLoss) -> None:
    extreme = torch.tensor([-1e4, 1e4])
    assert torch.isfinite(discriminator_loss(extreme, extreme.flip(0), loss))
    assert torch.isfinite(generator_loss(extreme, loss, extreme.flip(0)))


def test_penalty_is_half_the_squared_gradient_at_the_samples() -> None:
    """Of x'Ax / 2 + b'x the gradient is Ax + b, summed over pixels and averaged over samples."""
    torch.manual_seed(0)
    a, b = torch.randn(12, 12).double(), torch.randn(12).double().requires_grad_()
    a, x = a + a.T, torch.randn(5, 3, 2, 2).double().requires_grad_()
    flat = x.flatten(1)
    penalty = zero_centred_penalty(0.5 * (flat @ a * flat).sum(1) + flat @ b, x)
    expected = flat @ a + b
    torch.testing.assert_close(penalty, 0.5 * expected.square().sum(1).mean())
    (slope,) = torch.autograd.grad(penalty, b)  # the discriminator learns from it
    torch.testing.assert_close(slope, expected.mean(0))


@pytest.mark.parametrize(("gamma", "converges"), [(0.0, False), (1.0, True)])
def test_the_penalty_makes_the_dirac_gan_converge(gamma: float, converges: bool) -> None:
    """Mescheder et al. 2018, sections 2 and 4: data at 0, generator at theta, D(x) = psi x."""
    theta, psi = (torch.tensor(1.0, dtype=torch.float64, requires_grad=True) for _ in range(2))
    for _ in range(400):
        x = torch.zeros(1, 1, dtype=torch.float64, requires_grad=True)
        logits = (psi * x).squeeze(1)
        judged = discriminator_loss(logits, psi * theta[None].detach(), "minimax")
        judged = judged + gamma * zero_centred_penalty(logits, x)
        (slope_psi,) = torch.autograd.grad(judged, psi)
        (slope_theta,) = torch.autograd.grad(generator_loss(psi.detach() * theta[None], "minimax"), theta)
        with torch.no_grad():
            psi -= 0.1 * slope_psi
            theta -= 0.1 * slope_theta
    distance = math.hypot(theta.item(), psi.item())
    assert distance < 1e-3 if converges else distance > math.sqrt(2)


# Packing


@pytest.mark.parametrize("shape", [(12, 2), (12, 3, 4, 4)])
def test_packing_keeps_every_row(shape: tuple[int, ...]) -> None:
    x = torch.randn(shape)
    packed = pack(x, 3)
    assert packed.shape == (4, 3 * shape[1], *shape[2:])
    for i in range(12):
        assert torch.equal(packed[i // 3].chunk(3)[i % 3], x[i])
    assert torch.equal(pack(x, 1), x)
    with pytest.raises(ValueError, match="12 samples cannot be put into packs of 5"):
        pack(x, 5)


def test_packs_punish_collapse_more_than_unevenness() -> None:
    """Lin et al. 2018, section 3: two generators as far from the data as each other, until two samples are seen.

    Of ten equally likely points one generator never draws two, the other draws half of them more often; the best hinge
    discriminator tells the total variation. All pairs of a density are packs of a sample that holds each once.
    """
    data = torch.arange(10)
    collapsed = torch.arange(8).repeat(5)
    uneven = torch.cat([torch.arange(5).repeat(7), torch.arange(5, 10).repeat(3)])  # 1.4 and 0.6 times as often

    def variation(sample: Tensor, m: int) -> float:
        both = [torch.cartesian_prod(x, x).flatten() if m == 2 else x for x in (data, sample)]
        packs = [pack(x[:, None], m) for x in both]
        tables = [torch.zeros((10,) * m) for _ in packs]
        for table, found in zip(tables, packs, strict=True):
            table.index_put_(tuple(found.T), torch.ones(len(found)) / len(found), accumulate=True)
        judge = torch.sign(tables[0] - tables[1])
        scores = [judge[tuple(found.T)] for found in packs]
        return 1 - 0.5 * discriminator_loss(*scores, "hinge").item()

    assert variation(collapsed, 1) == pytest.approx(0.2)
    assert variation(uneven, 1) == pytest.approx(0.2)
    assert variation(collapsed, 2) == pytest.approx(1 - 0.8**2)
    density = torch.tensor([1.4, 0.6])  # of a pair, relative to the data: the product over its two points
    expected = 0.5 * (density[:, None] * density - 1).abs().mean().item()
    assert variation(uneven, 2) == pytest.approx(expected)
    assert expected < 0.8 * variation(collapsed, 2)


# Networks and script


@pytest.mark.parametrize("loss", LOSSES)
@pytest.mark.parametrize("dataset_name", ["digits", "gaussians2d"])
def test_every_parameter_learns(loss: AdversarialLoss, dataset_name: str) -> None:
    torch.manual_seed(0)
    args = Args(**{**TINY, "dataset_name": dataset_name, "loss": loss})
    nets = build(args, packed=args.pack)
    if loss != "relativistic":  # the hinge's bias only learns where one side is past its hinge
        torch.nn.init.constant_(nets["net_d"].head.bias, 1.5)  # type: ignore[arg-type, union-attr]
    fake = nets["net_g"](torch.randn(8, args.latent_dim))
    real = torch.randn_like(fake)
    real_logits, fake_logits = (nets["net_d"](pack(x, args.pack)) for x in (real, fake))
    assert real_logits.shape == (4,)
    game = discriminator_loss(real_logits, fake_logits, loss), generator_loss(fake_logits, loss, real_logits)
    for lost, name in zip(game, ("net_d", "net_g"), strict=True):
        parameters = dict(nets[name].named_parameters())
        # It refuses parameters that the loss does not reach.
        gradients = torch.autograd.grad(lost, list(parameters.values()), retain_graph=True)
        for key, gradient in zip(parameters, gradients, strict=True):
            assert gradient.abs().sum() > 1e-9, (name, key)


@pytest.mark.parametrize("net", [ConvDiscriminator(1, 8, (4, 6)), MLPDiscriminator(2, 16)])
def test_logits_do_not_see_one_another(net: ConvDiscriminator | MLPDiscriminator) -> None:
    shape = (1, 8, 8) if isinstance(net, ConvDiscriminator) else (2,)
    x = torch.randn(3, *shape)
    torch.testing.assert_close(net(x), torch.cat([net(row[None]) for row in x]))


def test_k_discriminator_steps_for_each_of_the_generator(tmp_path: Path) -> None:
    main(Args(**{**TINY, "output_dir": str(tmp_path), "n_discriminator": 3, "max_train_steps": 2}))
    steps = []
    for name in ("optimizer.bin", "optimizer_1.bin"):
        state = torch.load(tmp_path / "checkpoint-2" / name, weights_only=True)["state"]
        steps.append(int(state[0]["step"]))
    assert steps == [6, 2]


def test_batch_statistics_are_the_live_network_s(tmp_path: Path) -> None:
    """Weights are averaged, BatchNorm's statistics are not; and with them a batch still equals its singles."""
    from safetensors.torch import load_file

    main(Args(**{**TINY, "output_dir": str(tmp_path), "norm_type": "batch", "max_train_steps": 6}))
    published = load_file(tmp_path / "net_g" / "diffusion_pytorch_model.safetensors")
    live = load_file(tmp_path / "checkpoint-6" / "model.safetensors")
    buffers = [key for key in live if "running_" in key or "num_batches" in key]
    assert len(buffers) == 3 * 2
    assert all(torch.equal(published[key], live[key]) for key in buffers)
    assert all(not torch.equal(published[key], live[key]) for key in live.keys() - set(buffers))
    pipe = load(tmp_path)
    z = torch.randn(3, TINY["latent_dim"])
    singles = torch.cat([pipe(latents=row[None], output_type="pt").images for row in z])
    torch.testing.assert_close(pipe(latents=z, output_type="pt").images, singles)


def test_what_was_published_as_a_wasserstein_gan_still_opens(tmp_path: Path) -> None:
    """Folders name the class WGANPipeline; it is found in the file that all GANs share."""
    from hf_genzoo.hub import export
    from hf_genzoo.pipelines import WGANPipeline

    torch.manual_seed(0)
    before = WGANPipeline(ConvGenerator(4, 1, 8, (8, 4)))
    folder = export(before, tmp_path / "wgan", family="wgan_gp")
    for after in (load(folder), WGANPipeline.from_pretrained(folder), GANPipeline.from_pretrained(folder)):
        assert isinstance(after, GANPipeline)
        same = (p(2, generator=torch.Generator().manual_seed(0), output_type="pt").images for p in (before, after))
        torch.testing.assert_close(*same)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"pack": 3}, "--pack is 3: it must divide --train_batch_size 4"),
        ({"n_discriminator": 0}, "--n_discriminator is 0"),
        ({"r1_gamma": -1.0}, "--r1_gamma is -1.0"),
    ],
)
def test_bad_settings_are_named(changes: dict, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Args(**{**TINY, **changes})


def test_unknown_games_and_norms_are_refused() -> None:
    for call in (discriminator_loss, generator_loss):
        with pytest.raises(ValueError, match="unknown loss"):
            call(*[torch.zeros(1)] * (2 if call is discriminator_loss else 1), "wasserstein")
    with pytest.raises(ValueError, match="unknown norm_type 'layer'; choose one of group, batch"):
        ConvGenerator(norm_type="layer")


def test_point_presets_differ_in_their_data_only() -> None:
    assert {key for key in RING if RING[key] != GRID[key]} == {"dataset_config_name"}
