"""What the paper makes true of text-guided diffusion (https://arxiv.org/abs/2112.10741): guidance and inpainting in
closed form, captions of any length side by side, frozen text encoders of any kind."""

import copy
import json
import math
from pathlib import Path
from typing import Any

import contract
import numpy as np
import pytest
import torch
from diffusers import DDIMScheduler, DDPMScheduler, DPMSolverMultistepScheduler, EulerDiscreteScheduler
from diffusers.configuration_utils import ConfigMixin, register_to_config
from diffusers.models.modeling_utils import ModelMixin
from diffusers.models.unets.unet_2d_condition import UNet2DConditionOutput
from oracle import GaussianMixture
from PIL import Image
from text_models import text_encoder_folder

import hf_genzoo
from benchmarks import guidance, inpainting
from hf_genzoo.diffusion import convert
from hf_genzoo.hub import load, report, verify
from hf_genzoo.masks import random_known
from hf_genzoo.models.text_unet import TextUNet, places, with_known_part
from hf_genzoo.pipelines._guidance import from_sample, guided, signal_and_noise, to_sample
from hf_genzoo.pipelines.glide import GlideInpaintPipeline, GlidePipeline, token_states, too_long
from hf_genzoo.text import load_text_encoder, small_text_encoder, small_tokenizer
from hf_genzoo.training_scripts import train_glide
from hf_genzoo.training_scripts.train_glide import EMOJI, SMALL, TINY, Args

WORDS = ["a small red circle", "a large blue square left of a small green triangle"]
LENGTH, DIM, SIZE = 16, 16, 16


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def tiny_unet(**config: Any) -> TextUNet:
    """A U-Net whose every weight is random, those that begin at zero too, so that everything matters."""
    settings: dict[str, Any] = {
        "sample_size": SIZE,
        "patch_size": 2,
        "block_out_channels": (8, 16),
        "layers_per_block": 1,
        "attention_levels": (1,),
        "attention_head_dim": 8,
        "norm_num_groups": 4,
        "text_dim": DIM,
        "text_length": LENGTH,
    }
    torch.manual_seed(0)
    unet = TextUNet(**{**settings, **config}).eval()
    with torch.no_grad():
        for name, parameter in unet.named_parameters():
            if name.endswith(("conv2.weight", "to_out.0.weight", "direct.weight")):
                parameter.copy_(0.3 * torch.randn(parameter.shape, generator=seeded(1)))
    return unet


@pytest.fixture(scope="module")
def texts() -> dict[str, Any]:
    tokenizer = small_tokenizer(WORDS, 340, LENGTH)
    torch.manual_seed(0)
    return {"tokenizer": tokenizer, "text_encoder": small_text_encoder(340, LENGTH, DIM, 2).eval()}


def scheduler(cls: Any = DDIMScheduler, prediction_type: str = "v_prediction", **changes: Any) -> Any:
    settings = {"beta_schedule": "squaredcos_cap_v2", "timestep_spacing": "trailing", "clip_sample": False, **changes}
    return cls.from_config(DDPMScheduler(prediction_type=prediction_type, **settings).config)


def quiet(pipeline: Any) -> Any:
    pipeline.set_progress_bar_config(disable=True)
    return pipeline


@pytest.fixture(scope="module")
def pipeline(texts: dict[str, Any]) -> GlidePipeline:
    return quiet(GlidePipeline(tiny_unet(), scheduler=scheduler(), **texts))


# Captions


def test_padding_stands_at_padded_places_and_nowhere_else() -> None:
    unet = tiny_unet()
    states, mask = torch.randn(3, LENGTH, DIM), torch.arange(LENGTH)[None] < torch.tensor([[2], [7], [LENGTH]])
    tokens, sentence = unet.caption(states, mask)
    assert torch.equal(tokens[~mask], unet.padding.expand(3, -1, -1)[~mask])
    assert torch.equal(tokens[mask], unet.text_norm(states)[mask])
    for i, count in enumerate((2, 7, LENGTH)):
        torch.testing.assert_close(sentence[i], unet.text_norm(states[i, :count]).mean(0))
    hidden = torch.where(mask[..., None], states, 1e3)  # what the encoder says at padding changes nothing
    x, t = torch.randn(3, 3, SIZE, SIZE), torch.tensor([1, 500, 900])
    assert torch.equal(unet(x, t, states, mask).sample, unet(x, t, hidden, mask).sample)
    with torch.no_grad():
        before = unet(x, t, states, mask).sample
        unet.padding.add_(1.0)
        after = unet(x, t, states, mask).sample
    assert [torch.equal(a, b) for a, b in zip(before, after, strict=True)] == [False, False, True]


def test_prompts_of_different_length_equal_their_singles(pipeline: GlidePipeline) -> None:
    prompts = [*WORDS, "", "circle"]
    noise = torch.randn(4, 3, SIZE, SIZE, generator=seeded())
    together = pipeline(prompts, latents=noise, num_inference_steps=3, output_type="pt").images
    for i, prompt in enumerate(prompts):
        alone = pipeline(prompt, latents=noise[i : i + 1], num_inference_steps=3, output_type="pt").images
        torch.testing.assert_close(together[i : i + 1], alone, rtol=0, atol=1e-4)
    assert (together[0] - together[1]).abs().max() > 1e-3


def test_an_empty_prompt_is_a_dropped_caption(pipeline: GlidePipeline) -> None:
    hidden = train_glide.hide_captions(WORDS, 1.0 - 1e-9, torch.device("cpu"))
    assert hidden == ["", ""]
    noise, settings = torch.randn(1, 3, SIZE, SIZE), {"num_inference_steps": 2, "output_type": "pt"}
    plain = pipeline(hidden[0], latents=noise, guidance_scale=1.0, **settings).images
    for scale in (0.0, 7.0):  # led from nothing to nothing, or not led at all to the words
        prompt = WORDS[0] if scale == 0 else ""
        torch.testing.assert_close(pipeline(prompt, latents=noise, guidance_scale=scale, **settings).images, plain)
    torch.manual_seed(0)
    share = np.mean([text == "" for text in train_glide.hide_captions(WORDS * 5000, 0.2, torch.device("cpu"))])
    assert share == pytest.approx(0.2, abs=4 * math.sqrt(0.16 / 10_000))


def test_a_caption_that_is_too_long_is_cut_and_named(
    pipeline: GlidePipeline, caplog: pytest.LogCaptureFixture
) -> None:
    long = " ".join(WORDS * 2)
    assert too_long(pipeline.tokenizer, [WORDS[0], long], LENGTH) == [long]
    with caplog.at_level("WARNING"):
        states, mask = pipeline.encode_prompt([WORDS[0], long])
    assert states.shape == (2, LENGTH, DIM)
    assert mask.sum(1).tolist() == [6, LENGTH]
    assert [record.getMessage() for record in caplog.records] == [
        f"the end of this prompt is cut, it has more than {LENGTH} tokens: {long!r}"
    ]


def test_the_small_tokenizer_writes_any_text(texts: dict[str, Any]) -> None:
    tokenizer = texts["tokenizer"]
    assert tokenizer.decode(tokenizer("Zürich ☃")["input_ids"], skip_special_tokens=True).strip() == "zürich ☃"
    assert tokenizer("a small red circle")["input_ids"][-2] == tokenizer("circle")["input_ids"][1]  # one token a word
    with pytest.raises(ValueError, match="vocabulary of 200 has no room"):
        small_tokenizer(WORDS, 200, LENGTH)


# Guidance


class TwoWords(ModelMixin, ConfigMixin):
    """Exact denoiser of pixels that are one mixture without a caption and another with one."""

    _mixtures = (
        GaussianMixture(torch.tensor([[-0.5], [0.4]]).double(), 0.2, torch.tensor([0.5, 0.5]).double()),
        GaussianMixture(torch.tensor([[0.4]]).double(), 0.2, torch.tensor([1.0]).double()),
    )

    @register_to_config
    def __init__(self, in_channels: int = 1, out_channels: int = 1, sample_size: int = 2, text_length: int = LENGTH):
        super().__init__()
        self.abar = DDPMScheduler(beta_schedule="squaredcos_cap_v2").alphas_cumprod.double()
        self.calls: list[int] = []
        self.anchor = torch.nn.Parameter(torch.zeros((), dtype=torch.float64))

    picture_channels = 1

    def epsilon(self, x: torch.Tensor, t: torch.Tensor, captioned: bool) -> torch.Tensor:
        a, s = self.abar[int(t)].sqrt(), (1 - self.abar[int(t)]).sqrt()
        return self._mixtures[captioned].epsilon(x.reshape(-1, 1), a, s).reshape(x.shape)

    def forward(
        self, sample: torch.Tensor, timestep: torch.Tensor, encoder_hidden_states: torch.Tensor, mask: torch.Tensor
    ) -> UNet2DConditionOutput:
        self.calls.append(len(sample))
        captioned = (mask.sum(1) > 2).tolist()  # an empty caption has two marks
        rows = [self.epsilon(x[None], timestep, c) for x, c in zip(sample, captioned, strict=True)]
        return UNet2DConditionOutput(sample=torch.cat(rows))


def exact_pipeline(texts: dict[str, Any]) -> GlidePipeline:
    return quiet(GlidePipeline(TwoWords(), scheduler=scheduler(prediction_type="epsilon"), **texts))


@pytest.mark.parametrize("scale", [0.0, 1.0, 3.0])
def test_the_guided_score_is_the_weighted_sum(scale: float, texts: dict[str, Any]) -> None:
    """score = (1 - s) uncond + s cond at every x_t that a sampler passes, with exact scores on both sides."""
    pipeline = exact_pipeline(texts)
    noise, path = torch.randn(4, 1, 2, 2, dtype=torch.float64), []

    def keep(_: Any, index: int, t: torch.Tensor, state: dict[str, Any]) -> dict[str, Any]:
        path.append((int(t), state["latents"].clone()))
        return {}

    pipeline(
        "red", batch_size=4, latents=noise, guidance_scale=scale, num_inference_steps=12, callback_on_step_end=keep
    )
    net, ddim, x = pipeline.unet, scheduler(prediction_type="epsilon"), noise
    ddim.set_timesteps(12)
    for t, after in path:
        a, s = net.abar[t].sqrt(), (1 - net.abar[t]).sqrt()
        score = sum(
            weight * net._mixtures[i].score(x.reshape(-1, 1), a, s) for i, weight in enumerate((1 - scale, scale))
        )
        x = ddim.step(-s * score.reshape(x.shape), t, x).prev_sample
        torch.testing.assert_close(x, after, rtol=0, atol=1e-9)


def test_guidance_moves_samples_towards_the_caption(texts: dict[str, Any]) -> None:
    pipeline = exact_pipeline(texts)
    noise = torch.randn(100, 1, 2, 2, dtype=torch.float64, generator=seeded())
    means = [
        2 * pipeline("red", batch_size=100, latents=noise, guidance_scale=s, output_type="pt").images.mean() - 1
        for s in (0.0, 0.5, 1.0)
    ]
    assert means[0] == pytest.approx(-0.05, abs=0.1)  # half the pixels at each mode
    assert means[0] < means[1] < means[2]
    assert means[2] == pytest.approx(0.4, abs=0.03)


def test_the_interval_says_where_guidance_acts(texts: dict[str, Any]) -> None:
    pipeline = exact_pipeline(texts)
    noise = torch.randn(1, 1, 2, 2, dtype=torch.float64)

    def run(scale: float, interval: tuple[float, float]) -> tuple[torch.Tensor, list[int]]:
        pipeline.unet.calls.clear()
        drawn = pipeline(
            "red",
            latents=noise,
            guidance_scale=scale,
            guidance_interval=interval,
            num_inference_steps=10,
            output_type="pt",
        ).images
        return drawn, list(pipeline.unet.calls)

    whole, calls = run(4.0, (0.0, 1.0))
    assert calls == [2] * 10
    none, calls = run(1.0, (0.0, 1.0))
    assert calls == [1] * 10
    outside, calls = run(4.0, (0.0, 0.05))  # ten steps end at a tenth
    assert calls == [1] * 10
    assert torch.equal(outside, none)
    _, calls = run(4.0, (0.25, 0.75))
    assert calls == [1] * 3 + [2] * 5 + [1] * 2
    assert not torch.equal(whole, none)
    with pytest.raises(ValueError, match=r"guidance_interval \(0.7, 0.2\)"):
        run(4.0, (0.7, 0.2))


def test_guidance_leaves_a_learned_variance_alone() -> None:
    uncond, cond = torch.randn(2, 2, 6, 4, 4)
    both = guided(uncond, cond, 3.0, channels=3)
    torch.testing.assert_close(both[:, :3], -2 * uncond[:, :3] + 3 * cond[:, :3])
    assert torch.equal(both[:, 3:], cond[:, 3:])


def test_a_network_that_says_its_variance_samples(texts: dict[str, Any]) -> None:
    unet = tiny_unet(out_channels=6)
    assert (unet.picture_channels, with_known_part(unet).picture_channels) == (3, 3)
    learned = quiet(GlidePipeline(unet, scheduler=scheduler(DDPMScheduler, variance_type="learned_range"), **texts))
    fixed = quiet(GlidePipeline(unet, scheduler=scheduler(DDPMScheduler), **texts))
    draws = [p(WORDS[0], num_inference_steps=4, generator=seeded(), output_type="pt").images for p in (learned, fixed)]
    assert draws[0].shape == (1, 3, SIZE, SIZE)
    assert not torch.equal(*draws)


def test_negative_prompt_takes_the_place_of_the_empty_caption(pipeline: GlidePipeline) -> None:
    noise, settings = torch.randn(1, 3, SIZE, SIZE), {"num_inference_steps": 2, "output_type": "pt"}
    same = pipeline(WORDS[0], WORDS[0], latents=noise, guidance_scale=9.0, **settings).images
    plain = pipeline(WORDS[0], latents=noise, guidance_scale=1.0, **settings).images
    torch.testing.assert_close(same, plain)  # led away from what it is led to
    led = pipeline(WORDS[0], WORDS[1], latents=noise, guidance_scale=9.0, **settings).images
    assert not torch.allclose(led, plain, atol=1e-3)


def test_bad_arguments_are_named(pipeline: GlidePipeline) -> None:
    contract.check_bad_arguments(pipeline)
    cases: list[tuple[dict[str, Any], str]] = [
        ({"prompt": ["a", "b"], "batch_size": 3}, "got 2 texts as prompt for 3 images"),
        ({"prompt": [1]}, r"prompt \[1\] is not a text"),
        ({"negative_prompt": ["a", "b"]}, "got 2 texts as negative_prompt for 1 images"),
        ({"latents": torch.zeros(1, 3, 4, 4)}, r"latents must have shape \(1, 3, 16, 16\), not \(1, 3, 4, 4\)"),
        ({"num_inference_steps": 0}, "num_inference_steps must be at least 1, not 0"),
    ]
    for call, message in cases:
        with pytest.raises(ValueError, match=message):
            pipeline(**call)
    with pytest.raises(ValueError, match=r"divisible by 4, not \(6, 8\)"):
        pipeline.unet(torch.zeros(1, 3, 6, 8), 0, torch.zeros(1, LENGTH, DIM))
    with pytest.raises(ValueError, match=r"captions must have shape \(B, 16, 16\)"):
        pipeline.unet(torch.zeros(1, 3, 8, 8), 0, torch.zeros(1, 3, DIM))


# Inpainting


@pytest.mark.parametrize("kind", ["epsilon", "v_prediction", "sample"])
def test_x_0_and_back(kind: str) -> None:
    """The pipeline's conversions are those of `hf_genzoo.diffusion`."""
    ddpm = DDPMScheduler(beta_schedule="squaredcos_cap_v2")
    for t in (0, 400, 998):
        a, s = signal_and_noise(ddpm, torch.tensor(t))
        assert float(a**2) == pytest.approx(float(ddpm.alphas_cumprod[t]), rel=1e-4)
        x_t, output = torch.randn(2, 5, dtype=torch.float64)
        x_0 = to_sample(output, x_t, a, s, kind)
        torch.testing.assert_close(x_0, convert(output, x_t, a, s, kind, "sample"), rtol=1e-6, atol=1e-6)
        torch.testing.assert_close(from_sample(x_0, x_t, a, s, kind), output, rtol=1e-6, atol=1e-6)


def test_inpainting_begins_as_its_parent() -> None:
    unet = tiny_unet()
    wider = with_known_part(unet)
    assert wider.config.in_channels == 7
    x, picture = torch.randn(2, 2, 3, SIZE, SIZE)
    known = random_known(x)
    c, t = (torch.randn(2, LENGTH, DIM), torch.arange(LENGTH)[None] < torch.tensor([[3], [9]])), torch.tensor([3, 700])
    given = torch.cat([x, picture * known, known], dim=1)
    torch.testing.assert_close(
        wider(given, t, *c).sample, unet(x, t, *c).sample, rtol=0, atol=1e-5
    )  # sums of more terms
    wider(given, t, *c).sample.square().mean().backward()
    assert wider.conv_in.weight.grad[:, 12:].abs().sum() > 0  # and learns to use them
    with pytest.raises(ValueError, match="7 input channels takes a known part already"):
        with_known_part(wider)


def pictures(count: int) -> torch.Tensor:
    return torch.randint(0, 256, (count, 3, SIZE, SIZE), generator=seeded(3)) / 255


@pytest.mark.parametrize("cls", [DDIMScheduler, DDPMScheduler, DPMSolverMultistepScheduler, EulerDiscreteScheduler])
@pytest.mark.parametrize("finetuned", [True, False])
def test_known_pixels_come_back_untouched(cls: Any, finetuned: bool, texts: dict[str, Any]) -> None:
    unet = with_known_part(tiny_unet()) if finetuned else tiny_unet()
    fill = quiet(GlideInpaintPipeline(unet, scheduler=scheduler(cls), **texts))
    given, hole = pictures(2), 1 - random_known(torch.zeros(2, 3, SIZE, SIZE), seeded())
    call = {"prompt": WORDS, "image": given, "mask_image": hole, "num_inference_steps": 4}
    out = fill(**call, generator=seeded(), output_type="pt").images
    kept = (hole < 0.5).expand_as(given)
    assert torch.equal(out[kept], given[kept])
    assert (out[~kept] - given[~kept]).abs().mean() > 0.01
    images = fill(**call, generator=seeded()).images
    levels = np.stack([np.asarray(image) for image in images]).transpose(0, 3, 1, 2)
    assert np.array_equal(levels[kept.numpy()], (255 * given[kept]).round().numpy().astype(np.uint8))


def test_the_x_0_of_known_pixels_is_what_is_known(texts: dict[str, Any]) -> None:
    """At every step, not only at the end: DDIM's x_0 is recovered from each pair of neighbouring x_t."""
    fill = quiet(GlideInpaintPipeline(with_known_part(tiny_unet()), scheduler=scheduler(), **texts))
    given, hole, path = pictures(1), torch.zeros(1, 1, SIZE, SIZE), []
    hole[..., : SIZE // 2] = 1

    def keep(_: Any, index: int, t: torch.Tensor, state: dict[str, Any]) -> dict[str, Any]:
        path.append((t, state["latents"].clone()))
        return {}

    noise = torch.randn(1, 3, SIZE, SIZE)
    fill(WORDS[0], given, hole, latents=noise, num_inference_steps=5, callback_on_step_end=keep)
    kept = (hole < 0.5).expand_as(given)
    for t, x in path[:-1]:
        a, s = signal_and_noise(fill.scheduler, t - 200)
        expected = a * (2 * given - 1) + s * noise  # the same eps all the way: the known part follows a straight line
        torch.testing.assert_close(x[kept].double(), expected.double()[kept], rtol=0, atol=2e-3)


def test_inpainting_with_nothing_known_is_sampling(texts: dict[str, Any]) -> None:
    unet = tiny_unet()
    base = quiet(GlidePipeline(unet, scheduler=scheduler(), **texts))
    fill = quiet(GlideInpaintPipeline(with_known_part(unet), scheduler=scheduler(), **texts))
    settings = {"num_inference_steps": 3, "output_type": "pt"}
    plain = base(WORDS, generator=seeded(), **settings).images
    unmasked = fill(WORDS, generator=seeded(), **settings).images
    torch.testing.assert_close(unmasked, plain, rtol=0, atol=1e-4)
    white = Image.new("L", (40, 40), 255)
    painted = fill(WORDS, Image.new("RGB", (20, 30)), white, generator=seeded(), **settings).images
    torch.testing.assert_close(painted, unmasked, rtol=0, atol=1e-6)
    with pytest.raises(ValueError, match="image and mask_image go together"):
        fill(WORDS, image=white)
    with pytest.raises(ValueError, match="got 3 pictures for 2 images"):
        fill(WORDS, pictures(3), white, batch_size=2)


def test_holes_are_inside_and_of_the_said_size() -> None:
    known = random_known(torch.zeros(2000, 3, 32, 32), seeded(), whole=0.25)
    assert set(known.unique().tolist()) == {0.0, 1.0}
    empty = known.flatten(1).sum(1) == 0
    assert empty.float().mean().item() == pytest.approx(0.25, abs=0.04)
    sides = (1 - known[~empty]).amax(dim=(1, 2)).sum(1)  # the widest row of each hole
    assert 7 <= sides.min() <= sides.max() <= 25
    area = (1 - known[~empty]).mean(dim=(1, 2, 3))
    assert area.mean().item() == pytest.approx(0.25 * (1 + math.pi / 4) / 2, abs=0.02)  # half are ellipses


# Training


@pytest.mark.parametrize("kind", ["clip", "t5", "bert"])
def test_any_frozen_text_encoder(kind: str, tmp_path: Path) -> None:
    encoder = text_encoder_folder(kind, tmp_path / kind)
    before = load_text_encoder(str(encoder))[1].state_dict()
    settings = {**TINY, "max_train_steps": 2, "text_encoder_name_or_path": str(encoder), "text_length": 20}
    cache = str(tmp_path / "cache")
    folder = train_glide.main(Args(**settings, output_dir=str(tmp_path / "out"), data_cache_dir=cache))
    pipeline = quiet(load(folder))
    assert type(pipeline.text_encoder).__name__ == {"clip": "CLIPTextModel", "t5": "T5EncoderModel"}.get(
        kind, "BertModel"
    )
    after = pipeline.text_encoder.state_dict()
    assert all(torch.equal(before[name], after[name]) for name in before)
    states, mask = pipeline.encode_prompt([*WORDS, ""])
    for i, prompt in enumerate([*WORDS, ""]):
        alone, real = pipeline.encode_prompt([prompt])
        torch.testing.assert_close(states[i, mask[i]], alone[0, real[0]], rtol=0, atol=1e-5)
    contract.check_sampling(pipeline)


@pytest.fixture(scope="module")
def stages(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """A base of four steps and the inpainting that goes on from it."""
    home = tmp_path_factory.mktemp("stages")
    base = train_glide.main(Args(**{**TINY, "max_train_steps": 4}, output_dir=str(home / "base")))
    settings = {**TINY, "max_train_steps": 2, "stage": "inpaint", "pretrained_model_name_or_path": str(base)}
    return base, train_glide.main(Args(**settings, output_dir=str(home / "inpaint")))


def test_inpaint_stage_goes_on_from_a_finished_folder(stages: tuple[Path, Path]) -> None:
    base, filled = (quiet(load(folder)) for folder in stages)
    assert (type(base).__name__, type(filled).__name__) == ("GlidePipeline", "GlideInpaintPipeline")
    assert filled.takes_known_part
    moved = filled.unet.conv_in.weight[:, 48:].abs().sum()  # 3 channels of patches of 4 x 4
    assert moved > 0
    for name, value in base.text_encoder.state_dict().items():
        assert torch.equal(value, filled.text_encoder.state_dict()[name]), name
    contract.check_sampling(filled)
    contract.check_bad_arguments(filled)
    assert filled.scheduler.config.prediction_type == base.scheduler.config.prediction_type


def test_inpaint_folder_loads_in_every_way(stages: tuple[Path, Path]) -> None:
    results = verify(stages[1])
    assert all(result.ok for result in results), report(results)


def test_stages_and_presets_are_checked() -> None:
    assert Args(**SMALL).family == "glide"
    assert Args(**{**EMOJI, "dataset_name": "emoji64"}).caption_column == "caption"
    for changes, message in (
        ({"stage": "inpaint"}, "go together"),
        ({"pretrained_model_name_or_path": "x"}, "go together"),
        ({"caption_column": None}, "nothing to learn"),
        ({"conditioning_dropout_prob": 1.0}, r"must be in \[0, 1\)"),
    ):
        with pytest.raises(ValueError, match=message):
            Args(**{**TINY, **changes})


def test_example_prompts_are_captions_of_the_training_data(stages: tuple[Path, Path]) -> None:
    prompts = list(load(stages[0]).config["example_prompts"].values())
    data: Any = train_glide.image_dataset(Args(**TINY))
    assert prompts == list(dict.fromkeys(data.captions.to_list()))[: TINY["num_validation_images"]]
    card = (stages[0] / "README.md").read_text()
    assert f"“{prompts[0]}”; “{prompts[1]}”" in card
    assert hf_genzoo.info(stages[0])["training"]["sampling"]["guidance_scale"] == 3.0


def test_captions_are_learnt_by_text_encoder_and_network() -> None:
    """On two captioned pictures the loss with the right captions falls below that with exchanged ones."""
    tokenizer = small_tokenizer(WORDS, 340, LENGTH)
    torch.manual_seed(0)
    nets = train_glide.build(Args(**{**TINY, "vocab_size": 340, "resolution": 32}))
    x_0 = torch.stack([torch.full((3, 32, 32), 0.8), torch.full((3, 32, 32), -0.8)])
    ddpm, unet = train_glide.noise_schedule(Args(**TINY)), nets["unet"]
    adam = torch.optim.AdamW([p for net in nets.values() for p in net.parameters()], lr=3e-3)

    def loss(captions: list[str], count: int) -> torch.Tensor:
        noise, t = torch.randn(2 * count, 3, 32, 32), torch.full((2 * count,), 950)
        x_t = ddpm.add_noise(x_0.repeat(count, 1, 1, 1), noise, t)
        c = token_states(tokenizer, nets["text_encoder"], captions * count, LENGTH)
        v = ddpm.get_velocity(x_0.repeat(count, 1, 1, 1), noise, t)
        return (unet(x_t, t, *c).sample - v).square().mean()

    for _ in range(60):
        loss(WORDS, 4).backward()
        adam.step()
        adam.zero_grad()
    with torch.no_grad():
        torch.manual_seed(1)
        right, wrong = (float(loss(captions, 50)) for captions in (WORDS, WORDS[::-1]))
    assert right < 0.5 * wrong


def test_places_are_told_apart() -> None:
    """By waves whose values are known; in a picture that is everywhere the same nothing else can."""
    told = places(4, 8, torch.device("cpu"))
    down, across = (1 + 0.5) / 4, (6 + 0.5) / 8
    expected = [
        f(math.pi * frequency * x) for frequency in (1, 2, 4) for f in (math.sin, math.cos) for x in (down, across)
    ]
    torch.testing.assert_close(told[0, :, 1, 6], torch.tensor(expected))

    block: Any = tiny_unet().mid[0]
    block.resnet = torch.nn.Identity()
    block.resnet.forward = lambda h, time: h
    flat, tokens = torch.ones(1, 16, 8, 8), torch.randn(1, LENGTH, DIM, generator=seeded())

    def nearest(out: torch.Tensor) -> float:
        """The least distance of two places."""
        between = torch.cdist(out.flatten(2)[0].T, out.flatten(2)[0].T, compute_mode="donot_use_mm_for_euclid_dist")
        return between[~torch.eye(64, dtype=torch.bool)].min().item()

    with torch.no_grad():
        assert nearest(block(flat, None, tokens)) > 0.05
        block.place.weight.zero_()
        assert nearest(block(flat, None, tokens)) < 1e-5


@pytest.mark.parametrize("channels", [(3, 3), (7, 3), (3, 6)], ids=["plain", "inpainting", "variance"])
def test_the_direct_path_is_a_multiple_of_the_noisy_picture_and_a_constant(channels: tuple[int, int]) -> None:
    unet = tiny_unet(in_channels=channels[0], out_channels=channels[1])
    for weight in (*unet.conv_out.parameters(), unet.direct.weight):
        weight.data.zero_()
    gain, shift = unet.direct.bias.data.copy_(torch.arange(2.0 * channels[1])).view(2, -1, 1, 1)
    given = torch.randn(2, channels[0], SIZE, SIZE, generator=seeded())
    out = unet(given, 500, torch.randn(2, LENGTH, DIM, generator=seeded())).sample
    torch.testing.assert_close(out, gain * given[:, :3].repeat(1, channels[1] // 3, 1, 1) + shift)


def test_the_text_encoder_learns_at_its_own_rate(tmp_path: Path) -> None:
    """At none it stays as it began, while the network that reads it learns."""
    settings = {**TINY, "max_train_steps": 2, "text_learning_rate": 0.0, "output_dir": str(tmp_path)}
    args = Args(**settings)
    trained: Any = load(train_glide.main(args))
    torch.manual_seed(args.seed)
    began = train_glide.build(args)
    same = {
        name: all(
            torch.equal(a, b) for a, b in zip(net.state_dict().values(), after.state_dict().values(), strict=True)
        )
        for name, net, after in (
            ("text_encoder", began["text_encoder"], trained.text_encoder),
            ("unet", began["unet"], trained.unet),
        )
    }
    assert same == {"text_encoder": True, "unet": False}


def test_the_law_of_noise_levels_moves_evenly_through_training() -> None:
    args = Args(timestep_sampling="lognormal", noise_mean=1.0, noise_mean_end=-1.0, noise_std=0.5)
    stays = Args(timestep_sampling="lognormal", noise_mean=1.0, noise_std=0.5)
    abar = train_glide.noise_schedule(args).alphas_cumprod
    log_ratio = 0.5 * ((1 - abar.double()) / abar.double()).log()
    for progress in (0.0, 0.25, 1.0):
        for which, mean in ((args, 1.0 - 2.0 * progress), (stays, 1.0)):
            t = train_glide.draw_timesteps(5_000, abar, which, progress)
            assert log_ratio[t].mean().item() == pytest.approx(mean, abs=0.02)
            assert log_ratio[t].std().item() == pytest.approx(0.5, abs=0.02)


def test_gradient_checkpointing_gives_the_same_gradients() -> None:
    plain = tiny_unet()
    thrifty = copy.deepcopy(plain)
    thrifty.enable_gradient_checkpointing()
    x, states, mask = torch.randn(2, 3, SIZE, SIZE), torch.randn(2, LENGTH, DIM), torch.ones(2, LENGTH).bool()
    mask[:, 5:] = False
    for unet in (plain.train(), thrifty.train()):
        unet(x, torch.tensor([10, 900]), states, mask).sample.square().mean().backward()
    for (name, a), b in zip(plain.named_parameters(), thrifty.parameters(), strict=True):
        assert a.grad is not None, name
        torch.testing.assert_close(a.grad, b.grad)


def test_the_demo_offers_captions_of_the_training_data(pipeline: GlidePipeline) -> None:
    pytest.importorskip("gradio")
    from hf_genzoo.demo.app import build_app

    asked = quiet(GlidePipeline(**pipeline.components, example_prompts=dict(enumerate(WORDS))))
    app = build_app(asked, title="scenes")
    offered = [c["props"]["samples"] for c in app.config["components"] if c["type"] == "dataset"]
    assert offered == [[[word] for word in WORDS]]
    labels = {c["props"].get("label") for c in app.config["components"]}
    assert {"Prompt", "Not in the picture", "Guidance", "Steps", "Pictures"} <= labels
    assert not [c for c in build_app(pipeline, title="x").config["components"] if c["type"] == "dataset"]


def test_samples_follow_the_prompts_of_the_command(stages: tuple[Path, Path], tmp_path: Path) -> None:
    settings = {"num_images": 3, "num_inference_steps": 2, "guidance_scale": 9.0}
    hf_genzoo.sample(stages[0], tmp_path / "a", prompts=WORDS, **settings)
    hf_genzoo.sample(stages[0], tmp_path / "b", prompts=WORDS[:1], **settings)
    same = [
        (tmp_path / "a" / f"{i:05d}.png").read_bytes() == (tmp_path / "b" / f"{i:05d}.png").read_bytes()
        for i in range(3)
    ]
    assert same == [True, False, True]


def test_the_measuring_commands_run(stages: tuple[Path, Path], tmp_path: Path) -> None:
    base, filled = map(str, stages)
    few = ["--num_samples", "6"]
    inpainting.main([base, filled, *few, "--num_inference_steps", "2", "--output_dir", str(tmp_path / "i")])
    found = json.loads((tmp_path / "i" / "results.json").read_text())
    assert [row["known_untouched"] for row in found.values()] == [1.0, 1.0]
    with pytest.raises(SystemExit):
        inpainting.main([base, base])
    guidance.main([base, *few, "--scales", "1", "3", "--output_dir", str(tmp_path / "g")])
    rows = json.loads((tmp_path / "g" / "results.json").read_text())
    assert [row["guidance_scale"] for row in rows] == [1.0, 3.0]
    assert all(0 <= row["text_all_correct"] <= 1 and 0 <= row["coverage"] <= 1 for row in rows)
    assert (tmp_path / "g" / "figure.png").is_file()


def test_what_was_cut_out_and_painted_again_is_recognised() -> None:
    for scene, picture, hole in inpainting.cases(20, 32):
        assert inpainting.filled_as_asked(picture, scene, hole)
        assert not inpainting.filled_as_asked(np.where(hole[..., None], 255, picture).astype(np.uint8), scene, hole)
