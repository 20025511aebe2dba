"""Wasserstein GAN with gradient penalty: networks, what the critic measures, and the pipeline."""

from pathlib import Path

import PIL.Image
import pytest
import torch
from torch import Tensor, nn

from hf_genzoo.losses import gradient_penalty
from hf_genzoo.models.critic import ConvCritic, MLPCritic
from hf_genzoo.models.generator import ConvGenerator, MLPGenerator
from hf_genzoo.pipelines._latents import interpolate_latents
from hf_genzoo.pipelines._points import scatter
from hf_genzoo.pipelines.gan import WGANPipeline


def seeded(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def networks(name: str) -> tuple[nn.Module, nn.Module]:
    """Small generator and critic: of points, or of images of a size and number of channels."""
    if name == "points":
        return MLPGenerator(latent_dim=3, hidden_dim=16), MLPCritic(hidden_dim=16)
    size, channels = (int(part) for part in name.split("x"))
    return ConvGenerator(3, channels, size, (8, 6, 4)), ConvCritic(channels, size, (4, 6, 8))


ALL = ["points", "28x1", "32x3", "64x3"]


@pytest.fixture(scope="module", params=["points", "28x1"])
def pipe(request: pytest.FixtureRequest) -> WGANPipeline:
    torch.manual_seed(0)
    return WGANPipeline(networks(request.param)[0])


@pytest.fixture(scope="module")
def image_pipe() -> WGANPipeline:
    torch.manual_seed(0)
    return WGANPipeline(networks("28x1")[0])


# Networks


@pytest.mark.parametrize("name", ALL)
def test_shapes(name: str) -> None:
    net_g, critic = networks(name)
    samples = net_g(torch.randn(2, 3))
    size, channels = (2, 2) if name == "points" else (int(part) for part in name.split("x"))
    assert samples.shape == ((2, 2) if name == "points" else (2, channels, size, size))
    assert critic(samples).shape == (2,)
    if name != "points":
        assert samples.abs().max() <= 1


@pytest.mark.parametrize("name", ALL)
def test_every_parameter_learns(name: str) -> None:
    torch.manual_seed(0)
    net_g, critic = networks(name)
    fake = net_g(torch.randn(8, 3))
    real = torch.randn_like(fake)
    loss = critic(fake.detach()).mean() - critic(real).mean() + 10 * gradient_penalty(critic, real, fake)
    loss.backward()
    critic_gradients = {key: parameter.grad for key, parameter in critic.named_parameters()}
    (-critic(fake).mean()).backward()
    generator_gradients = {key: parameter.grad for key, parameter in net_g.named_parameters()}
    for key, gradient in {**critic_gradients, **generator_gradients}.items():
        assert gradient is not None, key
        assert gradient.abs().sum() > 1e-8, key  # the bias of the last layer would have an exact zero


@pytest.mark.parametrize("name", ALL)
def test_samples_do_not_see_one_another(name: str) -> None:
    """The gradient penalty is about one sample's gradient: nothing in the critic may tie a batch together."""
    net_g, critic = networks(name)
    for net in (net_g, critic):
        assert not any(isinstance(module, nn.modules.batchnorm._NormBase) for module in net.modules())
        net.train()
    z = torch.randn(3, 3)
    singles = torch.cat([net_g(row[None]) for row in z])
    torch.testing.assert_close(net_g(z), singles)
    torch.testing.assert_close(critic(singles), torch.cat([critic(row[None]) for row in singles]))


def test_networks_refuse_what_they_cannot_be() -> None:
    with pytest.raises(ValueError, match="sample_size 30 is not divisible by 4"):
        ConvGenerator(sample_size=30)
    with pytest.raises(ValueError, match="3 stages leave no pixel of sample_size 4"):
        ConvCritic(sample_size=4)


def test_critic_measures_the_distance_it_was_trained_for() -> None:
    """Two clouds of points a distance d apart have W1 = d.

    The penalty is soft: the slope s of the best critic maximises s d - lambda (s - 1)^2, so the difference of scores
    tends to d (1 + d / (2 lambda)), here 2.2.
    """
    torch.manual_seed(0)
    critic = MLPCritic(hidden_dim=32, num_hidden_layers=2)
    optimizer = torch.optim.Adam(critic.parameters(), lr=2e-3, betas=(0.0, 0.9))

    def clouds() -> tuple[Tensor, Tensor]:
        return 0.1 * torch.randn(128, 2) + torch.tensor([2.0, 0.0]), 0.1 * torch.randn(128, 2)

    for _ in range(200):
        real, fake = clouds()
        loss = critic(fake).mean() - critic(real).mean() + 10 * gradient_penalty(critic, real, fake)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    real, fake = clouds()
    distance = (critic(real).mean() - critic(fake).mean()).item()
    assert distance == pytest.approx(2.2, abs=0.2)


# Pipeline


def test_save_and_load_give_the_same_samples(pipe: WGANPipeline, tmp_path: Path) -> None:
    pipe.save_pretrained(tmp_path)
    loaded = WGANPipeline.from_pretrained(tmp_path)
    before, after = (each(4, generator=seeded(0), output_type="pt").images for each in (pipe, loaded))
    torch.testing.assert_close(before, after, rtol=0, atol=1e-6)


def test_a_batch_equals_its_singles(pipe: WGANPipeline) -> None:
    batch = pipe(2, generator=[seeded(0), seeded(1)], output_type="pt").images
    singles = [pipe(generator=seeded(i), output_type="pt").images for i in range(2)]
    torch.testing.assert_close(batch, torch.cat(singles))


def test_latents_are_what_the_generator_would_have_drawn(pipe: WGANPipeline) -> None:
    drawn = pipe(3, generator=seeded(0), output_type="pt", return_dict=False)[0]
    given = pipe(latents=torch.randn(3, 3, generator=seeded(0)), output_type="pt").images
    assert torch.equal(drawn, given)


def test_image_output_types_agree(image_pipe: WGANPipeline) -> None:
    pt, np, pil = (image_pipe(2, generator=seeded(0), output_type=name).images for name in ("pt", "np", "pil"))
    assert pt.shape == (2, 1, 28, 28)
    assert (pt.permute(0, 2, 3, 1).numpy() == np).all()
    assert pil[1].tobytes() == (np[1] * 255).round().astype("uint8").tobytes()


def test_points_are_coordinates_or_one_scatter_plot() -> None:
    pipe = WGANPipeline(networks("points")[0])
    pt, np, pil = (pipe(50, generator=seeded(0), output_type=name).images for name in ("pt", "np", "pil"))
    assert pt.shape == (50, 2)
    assert (pt.numpy() == np).all()
    assert len(pil) == 1
    assert isinstance(pil[0], PIL.Image.Image)


def test_scatter_plots_points_where_they_are() -> None:
    picture = scatter(torch.tensor([[1.5, 1.5], [-2.0, 0.0]]), size=101)  # frame [-2, 2]
    dark = {(x, y) for x in range(101) for y in range(101) if picture.getpixel((x, y)) != (255, 255, 255)}
    assert (0, 50) in dark  # left edge, half way up
    assert (87, 13) in dark or (88, 12) in dark  # up on the right: y points upwards
    assert len(dark) < 30


def test_interpolation_starts_and_ends_at_its_ends(pipe: WGANPipeline) -> None:
    a, b = torch.randn(2, 3, generator=seeded(0))
    ends = pipe(2, latents=torch.stack([a, b]), output_type="pt").images
    for mode in ("linear", "spherical"):
        between = pipe.interpolate(a, b[None], steps=5, mode=mode, output_type="pt").images
        assert len(between) == 5
        torch.testing.assert_close(between[[0, -1]], ends)


def test_spherical_interpolation_stays_where_the_prior_has_its_mass() -> None:
    a, b = torch.randn(2, 1000, generator=seeded(0))
    assert interpolate_latents(a, b, 3, "spherical")[1].norm().item() == pytest.approx(1000**0.5, rel=0.05)
    assert interpolate_latents(a, b, 3, "linear")[1].norm().item() == pytest.approx(500**0.5, rel=0.1)
    for end in (a, -a, 3 * a, torch.zeros(1000)):
        assert torch.isfinite(interpolate_latents(a, end, 3, "spherical")).all()


BAD = {
    "batch": (lambda p: p(0), "batch_size must be at least 1, not 0"),
    "output": (lambda p: p(output_type="jpg"), "unknown output_type 'jpg'; choose one of pil"),
    "generators": (lambda p: p(2, generator=[seeded(0)] * 3), "got 3 generators for 2 samples"),
    "latents": (lambda p: p(latents=torch.zeros(1, 4)), r"latents must have shape \(B, 3\), not \(1, 4\)"),
    "mode": (lambda p: p.interpolate(torch.zeros(3), torch.zeros(3), mode="arc"), "unknown mode 'arc'"),
    "steps": (lambda p: p.interpolate(torch.zeros(3), torch.zeros(3), steps=1), "steps must be at least 2"),
    "ends": (lambda p: p.interpolate(torch.zeros(3), torch.zeros(2, 3)), r"shape \(3,\) or \(1, 3\), not \(2, 3\)"),
}


@pytest.mark.parametrize("case", BAD)
def test_bad_arguments_are_named(image_pipe: WGANPipeline, case: str) -> None:
    call, message = BAD[case]
    with pytest.raises(ValueError, match=message):
        call(image_pipe)
