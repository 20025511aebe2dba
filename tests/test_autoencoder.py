"""What the papers make true of autoencoders: PCA as the linear one, the best denoiser, and what repairs must keep."""

import math
from pathlib import Path

import numpy as np
import PIL.Image
import pytest
import torch
from torch import Tensor

from hf_genzoo.corruptions import Corruption, add_noise, reduced, square_holes
from hf_genzoo.models.autoencoder import ConvAutoencoder
from hf_genzoo.pipelines.autoencoder import (
    TASKS,
    AutoencoderPipeline,
    chroma,
    composite,
    luma,
    network_input,
    picture,
    with_chroma,
)
from hf_genzoo.training_scripts.train_autoencoder import SMALL, TINY, Args, build, squared_error


def seeded(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def pipeline(task: str, latent_dim: int | None = 5, channels: int = 3) -> AutoencoderPipeline:
    """Untrained, 8 pixels."""
    torch.manual_seed(0)
    changes = {"task": task, "latent_dim": latent_dim, "num_channels": channels, "resolution": 8}
    net = build(Args(**{**TINY, **changes, "block_out_channels": [6]}))["autoencoder"]
    return AutoencoderPipeline(net, task=task, factor=2)  # type: ignore[arg-type]


# Closed forms


def test_linear_autoencoder_spans_the_principal_subspace() -> None:
    """Baldi & Hornik 1989: the squared error has one minimum, the projection on the first principal directions."""
    torch.manual_seed(0)
    scales = torch.tensor([3.0, 2.4, 1.8, *[0.4] * 13])
    rotation = torch.linalg.qr(torch.randn(16, 16)).Q
    x = torch.randn(400, 16) * scales @ rotation.T
    x = x - x.mean(0)
    net = ConvAutoencoder(4, 1, 1, latent_dim=3, block_out_channels=())
    optimizer = torch.optim.LBFGS(net.parameters(), max_iter=300, line_search_fn="strong_wolfe", tolerance_change=0)
    pictures = x.view(-1, 1, 4, 4)

    def closure() -> Tensor:
        optimizer.zero_grad()
        loss = squared_error(net(pictures), pictures)
        loss.backward()
        return loss

    optimizer.step(closure)
    principal = torch.linalg.svd(x, full_matrices=False).Vh[:3].T  # (16, 3)
    learnt = torch.linalg.qr(net.decoder[0].weight.detach()).Q
    cosines = torch.linalg.svdvals(principal.T @ learnt)
    angles = torch.arccos(cosines.clamp(max=1.0))
    assert angles.max().item() < 0.01
    rest = 0.25 * (x - x @ principal @ principal.T).square().sum(1).mean()
    assert closure().item() == pytest.approx(rest.item(), rel=1e-3)


def test_best_denoiser_of_a_gaussian_is_tweedies() -> None:
    """x~ + sigma^2 grad log p(x~), which for x ~ N(m, s^2) is (s^2 x~ + sigma^2 m) / (s^2 + sigma^2)."""
    mean, spread, sigma = 0.3, 0.5, 0.8
    x = mean + spread * torch.randn(400_000, 1, generator=seeded(0), dtype=torch.float64)
    noisy = add_noise(x, sigma, seeded(1))
    ones = torch.ones_like(noisy)
    slope, offset = torch.linalg.lstsq(torch.cat([noisy, ones], 1), x).solution.flatten().tolist()
    variance = spread**2 + sigma**2
    score = torch.distributions.Normal(mean, math.sqrt(variance)).log_prob(
        points := torch.tensor([-1.0, 0.0, 2.0]).requires_grad_()
    )
    (gradient,) = torch.autograd.grad(score.sum(), points)
    tweedie = points + sigma**2 * gradient
    torch.testing.assert_close(slope * points + offset, tweedie, rtol=0, atol=0.01)


def test_network_learns_the_best_denoiser_of_a_gaussian() -> None:
    """The same with the network: pictures of independent normal pixels, whose best denoiser shrinks them."""
    torch.manual_seed(0)
    net = ConvAutoencoder(2, 1, 1, latent_dim=4, block_out_channels=())
    optimizer = torch.optim.Adam(net.parameters(), 1e-2)
    for step in range(1500):
        optimizer.param_groups[0]["lr"] = 1e-2 * (1 - step / 1500)
        x = 0.5 * torch.randn(512, 1, 2, 2)
        optimizer.zero_grad()
        squared_error(net(add_noise(x, 0.5)), x).backward()
        optimizer.step()
    points = torch.randn(50, 1, 2, 2, generator=seeded(3))
    torch.testing.assert_close(net(points), 0.5 * points, rtol=0, atol=0.06)


def test_chroma_and_luma_make_the_picture_again() -> None:
    image = 2 * torch.rand(3, 3, 5, 4, generator=seeded(0), dtype=torch.float64) - 1
    torch.testing.assert_close(with_chroma(luma(image), chroma(image)), image)
    assert chroma(image).abs().max() <= 1
    grey = luma(image).expand(-1, 3, -1, -1)
    torch.testing.assert_close(chroma(grey), torch.zeros(3, 2, 5, 4, dtype=torch.float64))
    other = torch.rand(3, 2, 5, 4, generator=seeded(1), dtype=torch.float64)
    torch.testing.assert_close(luma(with_chroma(luma(image), other)), luma(image))
    # Pillow's YCbCr is the same, up to its cutting to 8 bits
    pixels = (127.5 * (image[0] + 1)).round().permute(1, 2, 0).numpy().astype("uint8")
    reference = np.asarray(PIL.Image.fromarray(pixels).convert("YCbCr")).astype(float)
    ours = 2 * torch.from_numpy(pixels).double().permute(2, 0, 1)[None] / 255 - 1
    found = torch.cat([luma(ours), chroma(ours)], 1)[0].permute(1, 2, 0).numpy()
    np.testing.assert_allclose(127.5 * found[..., 0] + 127.5, reference[..., 0], atol=1.01)
    np.testing.assert_allclose(127.5 * found[..., 1:] + 128, reference[..., 1:], atol=1.01)


# Corruptions


def test_noise_has_its_deviation_and_is_clipped_as_in_a_file() -> None:
    x = torch.zeros(10, 1, 100, 100)
    assert add_noise(x, 0.3, seeded(0)).std().item() == pytest.approx(0.3, rel=0.01)
    damaged, _ = Corruption("denoise", noise_sigma=0.1)(x, seeded(0))
    assert damaged.std().item() == pytest.approx(0.2, rel=0.01)  # [-1, 1] is twice as wide as [0, 1]
    damaged, _ = Corruption("denoise", noise_sigma=2.0)(x, seeded(0))
    assert damaged.abs().max().item() == 1.0


def test_holes_are_squares_everywhere_inside() -> None:
    mask = square_holes(torch.zeros(3000, 1, 10, 6), 0.5, seeded(0))
    assert mask.shape == (3000, 1, 10, 6)
    assert ((mask == 0) | (mask == 1)).all()
    assert (mask.amax(3).sum(2) == 5).all()
    assert (mask.amax(2).sum(2) == 3).all()
    assert (mask.sum((1, 2, 3)) == 15).all()
    assert (mask.sum(0) > 0).all()  # every pixel is in a hole of some picture
    starts = mask[:, 0].amax(2).argmax(1).bincount()
    assert len(starts) == 6
    assert starts.min() > 400  # of 500 each


def test_small_pictures_are_means_of_blocks() -> None:
    x = torch.arange(16.0).view(1, 1, 4, 4)
    assert reduced(x, 2).flatten().tolist() == [2.5, 4.5, 10.5, 12.5]
    flat = torch.full((1, 3, 8, 8), -0.4)
    damaged, _ = Corruption("super_resolution", factor=4)(flat)
    torch.testing.assert_close(damaged, flat)


@pytest.mark.parametrize("task", TASKS)
def test_a_perfect_answer_is_the_picture(task: str) -> None:
    x = 2 * torch.rand(2, 3, 8, 8, generator=seeded(0)) - 1
    damaged, mask = Corruption(task)(x, seeded(1))
    perfect = chroma(x) if task == "colorization" else x
    torch.testing.assert_close(picture(task, perfect, damaged, mask), x)
    assert (damaged != x).any() == (task != "reconstruct")
    again, _ = Corruption(task)(x, seeded(1))
    assert torch.equal(damaged, again)


def test_holes_hide_their_pixels_from_the_network() -> None:
    x = 2 * torch.rand(2, 3, 8, 8, generator=seeded(0)) - 1
    mask = square_holes(x, 0.5, seeded(1))
    other = torch.where(mask > 0, -x, x)
    assert torch.equal(network_input("completion", x, mask), network_input("completion", other, mask))
    assert torch.equal(network_input("colorization", x, mask), luma(x))


# The network


def test_network_without_a_code_begins_by_giving_back_what_it_is_given() -> None:
    for channels_in, channels_out, widths in ((3, 3, (32, 96)), (4, 3, (24, 96)), (1, 1, (8, 32, 128))):
        net = ConvAutoencoder(16, channels_in, channels_out, None, widths)
        x = 2 * torch.rand(2, channels_in, 24, 16) - 1
        torch.testing.assert_close(net(x), x[:, :channels_out], rtol=0, atol=1e-5)
    colourless = ConvAutoencoder(16, 1, 2, None, (8, 32))
    assert not colourless(torch.rand(1, 1, 16, 16)).any()
    narrow = ConvAutoencoder(16, 3, 3, None, (23, 96))
    x = torch.rand(1, 3, 16, 16)
    assert (narrow(x) - x).abs().max() > 0.1


def test_every_parameter_learns_from_the_identity() -> None:
    net = ConvAutoencoder(8, 1, 1, None, (10, 40))
    squared_error(net(torch.rand(4, 1, 8, 8)), torch.rand(4, 1, 8, 8)).backward()
    optimizer = torch.optim.SGD(net.parameters(), 1e-3)
    optimizer.step()  # channels that do not reach the output at first get a gradient once they do
    squared_error(net(torch.rand(4, 1, 8, 8)), torch.rand(4, 1, 8, 8)).backward()
    for name, parameter in net.named_parameters():
        assert parameter.grad is not None, name
        assert parameter.grad.flatten(1).abs().sum(1).gt(0).all() if parameter.ndim > 1 else True, name


def test_network_refuses_what_it_cannot_be() -> None:
    with pytest.raises(ValueError, match="sample_size 30 is not divisible by 4"):
        ConvAutoencoder(sample_size=30)
    with pytest.raises(ValueError, match="nothing to learn"):
        ConvAutoencoder(latent_dim=None, block_out_channels=())


BAD_ARGS = {
    "colour": ({"task": "colorization", "num_channels": 1}, "--task colorization needs --num_channels 3, not 1"),
    "factor": ({"task": "super_resolution", "factor": 3}, "--factor is 3"),
    "sigma": ({"noise_sigma": 0.0}, "--noise_sigma is 0"),
    "hole": ({"hole": 1.0}, "--hole is 1"),
}


@pytest.mark.parametrize("case", BAD_ARGS)
def test_bad_flags_are_named(case: str) -> None:
    changes, message = BAD_ARGS[case]
    with pytest.raises(ValueError, match=message):
        Args(**{**SMALL, **changes})


# The pipeline


@pytest.mark.parametrize("latent_dim", [5, None])
@pytest.mark.parametrize("task", TASKS)
def test_pictures_of_any_size_and_mode_are_answered_in_their_size(task: str, latent_dim: int | None) -> None:
    pipe = pipeline(task, latent_dim)
    pictures = [PIL.Image.new("RGBA", (13, 9)), PIL.Image.new("L", (8, 8), 40), PIL.Image.new("P", (5, 20))]
    masks = [PIL.Image.new("L", image.size, 255) for image in pictures] if task == "completion" else None
    answers = pipe.restore(pictures, mask_image=masks).images
    scale = 2 if task == "super_resolution" else 1
    assert [a.size for a in answers] == [
        (scale * width, scale * height) for width, height in (p.size for p in pictures)
    ]
    assert all(answer.mode == "RGB" for answer in answers)
    batch = torch.rand(2, 3, 6, 7, generator=seeded(0))
    mask = torch.ones(2, 1, 6, 7) if task == "completion" else None
    pt = pipe.restore(batch, mask_image=mask, output_type="pt").images
    assert pt.shape == (2, 3, 6 * scale, 7 * scale)
    single = pipe.restore(
        batch[1:], mask_image=None if mask is None else mask[1:], output_type="pt", return_dict=False
    )
    torch.testing.assert_close(pt[1:], single[0])
    np_ = pipe.restore(batch, mask_image=mask, output_type="np").images
    np.testing.assert_array_equal(np_, pt.permute(0, 2, 3, 1).numpy())


@pytest.mark.parametrize("latent_dim", [5, None])
def test_known_pixels_stay_exactly_as_they_are(latent_dim: int | None) -> None:
    pipe = pipeline("completion", latent_dim)
    image = PIL.Image.fromarray(np.random.default_rng(0).integers(0, 256, (21, 17, 3), dtype=np.uint8))
    hole = np.zeros((21, 17), dtype=np.uint8)
    hole[3:12, 5:9] = 255
    answer = np.asarray(pipe.restore(image, mask_image=PIL.Image.fromarray(hole)).images[0])
    np.testing.assert_array_equal(answer[hole == 0], np.asarray(image)[hole == 0])
    assert (answer[hole > 0] != np.asarray(image)[hole > 0]).any()
    torn = np.array(image)
    torn[hole > 0] = 7  # what stands in the hole does not matter
    again = pipe.restore(PIL.Image.fromarray(torn), mask_image=PIL.Image.fromarray(hole)).images[0]
    if latent_dim is None:  # a code of fixed length is made of a resized picture, into which a hole's edge bleeds
        np.testing.assert_array_equal(np.asarray(again), answer)


def test_composite_is_bit_for_bit() -> None:
    known, filled = torch.rand(1, 3, 4, 4), torch.full((1, 3, 4, 4), float("nan"))
    mask = torch.zeros(1, 1, 4, 4)
    assert torch.equal(composite(known, filled, mask), known)  # even where the network gave no number


@pytest.mark.parametrize("latent_dim", [5, None])
def test_colours_keep_the_luma(latent_dim: int | None) -> None:
    pipe = pipeline("colorization", latent_dim)
    image = 0.4 + 0.2 * torch.rand(1, 3, 12, 10, generator=seeded(0))
    with torch.no_grad():  # untrained colours may leave the range; make them small
        for parameter in pipe.autoencoder.decoder.parameters():
            parameter.mul_(0.05)
    answer = pipe.restore(image, output_type="pt").images
    torch.testing.assert_close(luma(answer), luma(image), rtol=0, atol=1e-5)
    grey = luma(image).expand(-1, 3, -1, -1)
    torch.testing.assert_close(pipe.restore(grey, output_type="pt").images, answer, rtol=0, atol=1e-5)


def test_calls_draw_codes_of_the_training_data_s_mean_and_spread() -> None:
    pipe = pipeline("reconstruct")
    pipe.autoencoder.latent_mean.copy_(torch.arange(5.0))
    pipe.autoencoder.latent_std.copy_(torch.tensor([1.0, 0.0, 2.0, 0.5, 0.0]))
    noise = torch.randn(3, 5, generator=seeded(4))
    expected = pipe.decode(torch.arange(5.0) + pipe.autoencoder.latent_std * noise, output_type="pt").images
    assert torch.equal(pipe(3, generator=seeded(4), output_type="pt").images, expected)


@pytest.mark.parametrize("task", TASKS)
def test_task_and_network_survive_saving(task: str, tmp_path: Path) -> None:
    pipe = pipeline(task, None)
    pipe.save_pretrained(tmp_path)
    loaded = AutoencoderPipeline.from_pretrained(tmp_path)
    assert (loaded.config["task"], loaded.config["factor"]) == (task, 2)
    image, mask = torch.rand(1, 3, 9, 9), torch.ones(1, 1, 9, 9) if task == "completion" else None
    before, after = (each.restore(image, mask_image=mask, output_type="pt").images for each in (pipe, loaded))
    torch.testing.assert_close(before, after)
    codes = pipe.encode(image)
    assert codes.shape == (1, pipe.latent_dim) == (1, 6 * 4 * 4)
    assert pipe.decode(codes, output_type="pt").images.shape == (1, 3, 8, 8)


GREY = torch.zeros(1, 1, 8, 8)
BAD_CALLS = {
    "task": (lambda: AutoencoderPipeline(ConvAutoencoder(8), task="sharpen"), "unknown task 'sharpen'"),
    "mask": (lambda: pipeline("completion", channels=1).restore(GREY), "'completion' needs a mask_image"),
    "no mask": (lambda: pipeline("denoise", channels=1).restore(GREY, mask_image=GREY), "takes no mask_image"),
    "size": (
        lambda: pipeline("completion", channels=1).restore(GREY, mask_image=torch.zeros(1, 1, 4, 8)),
        r"sizes \[\(4, 8\)\], the images \[\(8, 8\)\]",
    ),
    "sizes": (
        lambda: pipeline("denoise", channels=1).restore([GREY, GREY[..., :4]], output_type="np"),
        "take output_type 'pil'",
    ),
    "latents": (lambda: pipeline("denoise").decode(torch.zeros(2, 4)), r"shape \(B, 5\), not \(2, 4\)"),
}


@pytest.mark.parametrize("case", BAD_CALLS)
def test_bad_calls_are_named(case: str) -> None:
    call, message = BAD_CALLS[case]
    with pytest.raises(ValueError, match=message):
        call()
