"""Train a diffusion model that paints what a text says (Nichol et al. 2021, "GLIDE: Towards Photorealistic Image
Generation and Editing with Text-Guided Diffusion Models", https://arxiv.org/abs/2112.10741).

A U-Net learns to undo noise while it reads the caption: its attention looks at the caption's tokens beside the
picture's own places. One caption in five is hidden in training, so the same network also knows pictures of no caption
in particular, and sampling can exaggerate the difference that the caption makes (classifier-free guidance).
`--stage inpaint` goes on with a finished folder: the network is also given a part of the picture and where that part
lies, and learns to paint the rest as the caption says.

Differs from the paper: captions are hidden from the start and not in a second training; the network predicts the
noise or what --prediction_type says (the preset small: the velocity), and no variance; the learned padding stands in
for outputs of the text encoder (see hf_genzoo.models.text_unet). The text encoder learns along, as in the paper, but
is a small one; or it is a frozen one (--text_encoder_name_or_path), whose outputs are kept on disk.
"""

import logging
import sys
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any, ClassVar, Literal

import torch
from diffusers import DDPMScheduler, DiffusionPipeline
from PIL import Image
from torch import Tensor, nn
from transformers import PreTrainedTokenizerBase

from hf_genzoo.data import Data, image_dataset
from hf_genzoo.data.fingerprint import cache_root
from hf_genzoo.diffusion import training_target
from hf_genzoo.masks import random_known
from hf_genzoo.models.text_unet import TextUNet, with_known_part
from hf_genzoo.pipelines.glide import GlideInpaintPipeline, GlidePipeline, token_states, too_long
from hf_genzoo.text import FrozenTexts, load_text_encoder, small_text_encoder, small_tokenizer, text_dim
from hf_genzoo.training.args import flag
from hf_genzoo.training.optimizers import adam
from hf_genzoo.training.run import Run
from hf_genzoo.training.script import run_script
from hf_genzoo.training_scripts.train_ddpm import SAMPLERS, NoiseLevelArgs, draw_timesteps, noise_schedule

logger = logging.getLogger(__name__)

Texts = Callable[[list[str], torch.device], tuple[Tensor, Tensor]]
"""From B captions to token states (B, L, dim) and their mask (B, L)."""

NUM_EXAMPLES = 8


@dataclass
class Args(NoiseLevelArgs):
    family: ClassVar[str] = "glide"

    caption_column: str | None = flag("text", "Column of captions; of a list of captions one is drawn each time.")
    resolution: int = flag(64, "Height and width, in pixels, that every picture is resized and cropped to.")
    learning_rate: float = flag(1e-4, "Peak learning rate.")
    lr_warmup_steps: int = flag(1000, "Optimiser steps of linear warm-up, whatever the number of processes.")

    stage: Literal["base", "inpaint"] = flag(
        "base", "Text to picture; or filling a part, where networks and noise schedule are those of a finished folder."
    )
    pretrained_model_name_or_path: str | None = flag(
        None, "inpaint: the finished folder, or Hub repository, of the base stage."
    )
    text_encoder_name_or_path: str | None = flag(
        None,
        "A text encoder of transformers (CLIP, T5, BERT and the like), which stays frozen. None: one learns along.",
    )
    text_length: int = flag(128, "Tokens of a caption, padding included; longer ones are cut.")
    text_dim: int = flag(512, "Length of a token's vector in the text encoder that learns along.")
    text_layers: int = flag(16, "Layers of the text encoder that learns along.")
    text_learning_rate: float | None = flag(
        None, "Peak learning rate of the text encoder that learns along; that of the U-Net by default."
    )
    vocab_size: int = flag(8192, "Tokens at most of its vocabulary, which is made of the training captions.")

    block_out_channels: list[int] = field(
        default_factory=lambda: [192, 384, 576, 768],
        metadata={"help": "Channels of the U-Net at each resolution, finest first; each level halves the picture."},
    )
    layers_per_block: int = flag(3, "Blocks at each resolution, on the way down and on the way up.")
    attention_levels: list[int] = field(
        default_factory=lambda: [1, 2, 3],
        metadata={"help": "Levels with attention, 0 being the finest; -1 for the middle only."},
    )
    attention_head_dim: int = flag(64, "Channels of one attention head; must divide every channel count.")
    patch_size: int = flag(1, "Pixels a side that are folded into channels: 2 makes training up to four times faster.")
    ddpm_beta_schedule: Literal["linear", "scaled_linear", "squaredcos_cap_v2"] = flag(
        "squaredcos_cap_v2", "How noise grows with t: cosine (squaredcos_cap_v2, paper), linear or scaled_linear."
    )

    conditioning_dropout_prob: float = flag(0.2, "Share of captions hidden in training, so that guidance can be used.")
    sampler: Literal["ddpm", "ddim", "dpmsolver++"] = flag("ddim", "Sampler of the finished pipeline.")
    guidance_scale: float = flag(3.0, "Classifier-free guidance of the sample grids; 1 is none.")
    validation_prompts: list[str] | None = field(
        default=None, metadata={"help": "Texts of the sample grids, a row each; the first captions by default."}
    )

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.caption_column is None:
            raise ValueError("--caption_column names the column of captions: there is nothing to learn without one")
        if (self.stage == "inpaint") != (self.pretrained_model_name_or_path is not None):
            raise ValueError("--stage inpaint and --pretrained_model_name_or_path go together: give both or neither")
        if not 0 <= self.conditioning_dropout_prob < 1:
            raise ValueError(f"--conditioning_dropout_prob is {self.conditioning_dropout_prob}: it must be in [0, 1)")


TINY: dict[str, Any] = {
    "dataset_name": "scenes",
    "max_train_samples": 40,
    "resolution": 32,
    "text_length": 16,
    "text_dim": 16,
    "text_layers": 1,
    "vocab_size": 320,
    "block_out_channels": [8, 16],
    "layers_per_block": 1,
    "attention_levels": [-1],
    "attention_head_dim": 8,
    "norm_num_groups": 4,
    "patch_size": 4,
    "dropout": 0.0,
    "prediction_type": "v_prediction",
    "train_batch_size": 4,
    "max_train_steps": 20,
    "lr_warmup_steps": 0,
    "num_validation_images": 4,
    "ddpm_num_inference_steps": 3,
}
SMALL: dict[str, Any] = {
    "dataset_name": "scenes",
    "dataset_config_name": "compositions",
    "resolution": 32,
    "text_length": 16,
    "text_dim": 64,
    "text_layers": 2,
    "vocab_size": 400,
    "block_out_channels": [48, 96],
    "layers_per_block": 1,
    "attention_levels": [1],
    "attention_head_dim": 24,
    "norm_num_groups": 8,
    "patch_size": 2,
    "dropout": 0.0,
    "prediction_type": "v_prediction",
    "timestep_sampling": "lognormal",
    "noise_mean": 2.4,  # how two things lie is learnt where the picture is all noise,
    "noise_mean_end": 0.6,  # their outlines where little is
    "noise_std": 1.5,
    "train_batch_size": 32,
    "max_train_steps": 15000,
    "learning_rate": 2e-3,
    "text_learning_rate": 5e-4,
    "adam_beta2": 0.99,
    "lr_scheduler": "cosine",
    "lr_warmup_steps": 200,
    "ema_power": 1.0,
    "ema_inv_gamma": 8.0,
    "channels_last": True,
    "ddpm_num_inference_steps": 25,
}
EMOJI: dict[str, Any] = {
    **SMALL,
    "dataset_name": None,
    "dataset_config_name": None,
    "image_column": "twitter",
    "caption_column": "caption",
    "text_length": 24,
    "vocab_size": 2048,
    "max_train_steps": 8000,
}
PRESETS = {"tiny": TINY, "small": SMALL, "emoji": EMOJI}


def build(args: Args, frozen_dim: int | None = None) -> dict[str, nn.Module]:
    """The U-Net and, unless a frozen text encoder with vectors of `frozen_dim` is used, the one that learns along."""
    unet = TextUNet(
        sample_size=args.resolution,
        in_channels=args.num_channels,
        out_channels=args.num_channels,
        patch_size=args.patch_size,
        block_out_channels=tuple(args.block_out_channels),
        layers_per_block=args.layers_per_block,
        attention_levels=tuple(args.attention_levels),
        attention_head_dim=args.attention_head_dim,
        norm_num_groups=args.norm_num_groups,
        dropout=args.dropout,
        text_dim=frozen_dim or args.text_dim,
        text_length=args.text_length,
    )
    if frozen_dim is not None:
        return {"unet": unet}
    encoder = small_text_encoder(args.vocab_size, args.text_length, args.text_dim, args.text_layers)
    return {"unet": unet, "text_encoder": encoder}


def hide_captions(captions: list[str], probability: float, device: torch.device) -> list[str]:
    """Replace a random share of the captions by the empty one (Ho & Salimans 2021, algorithm 1)."""
    hidden = torch.rand((len(captions),), device=device) < probability
    return ["" if hide else caption for caption, hide in zip(captions, hidden.tolist(), strict=True)]


def main(args: Args) -> Path:
    torch.manual_seed(args.seed)
    data = image_dataset(args)
    return base(args, data) if args.stage == "base" else inpaint(args, data)


def base(args: Args, data: Data) -> Path:
    """Text to picture."""
    captions = all_captions(data)
    if args.text_encoder_name_or_path:
        tokenizer, encoder = load_text_encoder(args.text_encoder_name_or_path)
        nets, frozen = build(args, text_dim(encoder)), {"text_encoder": encoder}
    else:
        tokenizer = small_tokenizer(captions, args.vocab_size, args.text_length)
        nets, frozen = build(args), {}
    if cut := set(too_long(tokenizer, captions, args.text_length)):
        logger.warning("%d captions are longer than --text_length %d and are cut", len(cut), args.text_length)
    scheduler = noise_schedule(args)
    finished = partial(
        export, frozen=frozen, tokenizer=tokenizer, scheduler=scheduler, prompts=examples(args, captions), args=args
    )
    run = new_run(args, nets, data, finished, partial(preview, args=args))
    if frozen:
        encoder.to(run.device)  # pyright: ignore[reportArgumentType]
        texts: Texts = FrozenTexts(tokenizer, encoder, args.text_length, cache_root(args.data_cache_dir))
        texts.prepare(["", *captions])
    else:
        learning = run.nets["text_encoder"]
        texts = lambda captions, _: token_states(tokenizer, learning, captions, args.text_length)  # noqa: E731
    unet, alphas_cumprod = run.nets["unet"], scheduler.alphas_cumprod.to(run.device)

    for step in run.steps():
        for batch in run.update("unet"):
            x_0 = batch["pixel_values"]  # (B, C, H, W) in [-1, 1]
            noise = torch.randn_like(x_0)
            t = draw_timesteps(len(x_0), alphas_cumprod, args, step / run.max_train_steps)
            x_t = scheduler.add_noise(x_0, noise, t)  # pyright: ignore[reportArgumentType]
            c = texts(hide_captions(batch["captions"], args.conditioning_dropout_prob, run.device), run.device)
            target = training_target(scheduler, x_0, noise, t, args.prediction_type)
            run.backward((unet(x_t, t, *c).sample - target).square().mean())  # Nichol et al. 2021, eq. 3
    return run.output_dir


def inpaint(args: Args, data: Data) -> Path:
    """Filling a part of a picture (Nichol et al. 2021, section 2.4)."""
    import hf_genzoo

    captions = all_captions(data)
    parent: Any = hf_genzoo.load(str(args.pretrained_model_name_or_path))
    nets: dict[str, nn.Module] = {"unet": with_known_part(parent.unet)}
    scheduler: Any = DDPMScheduler.from_config(parent.scheduler.config)
    kind = scheduler.config.prediction_type
    encoder = parent.text_encoder.eval().requires_grad_(False)
    finished = partial(
        export,
        frozen={"text_encoder": encoder},
        tokenizer=parent.tokenizer,
        scheduler=scheduler,
        prompts=examples(args, captions),
        args=args,
    )
    run = new_run(args, nets, data, finished, partial(preview_filled, args=args, data=data))
    length = parent.unet.config["text_length"]
    texts = FrozenTexts(parent.tokenizer, encoder.to(run.device), length, cache_root(args.data_cache_dir))
    texts.prepare(["", *captions])
    unet, alphas_cumprod = run.nets["unet"], scheduler.alphas_cumprod.to(run.device)

    for step in run.steps():
        for batch in run.update("unet"):
            x_0 = batch["pixel_values"]  # (B, C, H, W) in [-1, 1]
            known = random_known(x_0)  # (B, 1, H, W), 1 where the picture is known
            noise = torch.randn_like(x_0)
            t = draw_timesteps(len(x_0), alphas_cumprod, args, step / run.max_train_steps)
            x_t = scheduler.add_noise(x_0, noise, t)
            c = texts(hide_captions(batch["captions"], args.conditioning_dropout_prob, run.device), run.device)
            target = training_target(scheduler, x_0, noise, t, kind)
            given = torch.cat([x_t, x_0 * known, known], dim=1)
            run.backward((unet(given, t, *c).sample - target).square().mean())
    return run.output_dir


def new_run(args: Args, nets: dict[str, nn.Module], data: Data, finished: Any, draw: Any) -> Run:
    """One optimiser for all that learns."""
    optimizer = adam(nets["unet"], args)
    if "text_encoder" in nets:
        rate = args.learning_rate if args.text_learning_rate is None else args.text_learning_rate
        optimizer.add_param_group({"params": list(nets["text_encoder"].parameters()), "lr": rate})
    return Run(
        args,
        nets=nets,
        optimizers={"unet": optimizer},
        ema=list(nets),
        data=data,
        export=finished,
        preview=draw,
        sampling={
            "scheduler": SAMPLERS[args.sampler].__name__,
            "num_inference_steps": args.ddpm_num_inference_steps,
            "guidance_scale": args.guidance_scale,
        },
    )


def all_captions(data: Data) -> list[str]:
    """Every caption of the training data; of a picture with several, all of them.

    Raises:
        ValueError: If the data are streamed, so that nobody knows their captions beforehand.
    """
    captions = getattr(data, "captions", None)
    if captions is None:
        raise ValueError("--streaming: the captions are read before training; use the data without streaming")
    return [text for value in captions.to_list() for text in ([value] if isinstance(value, str) else value)]


def examples(args: Args, captions: list[str]) -> list[str]:
    """Texts of the sample grids, which the finished pipeline offers too."""
    return list(args.validation_prompts or dict.fromkeys(captions[:100]))[: args.num_validation_images][:NUM_EXAMPLES]


def export(
    nets: dict[str, nn.Module],
    frozen: dict[str, Any],
    tokenizer: PreTrainedTokenizerBase,
    scheduler: DDPMScheduler,
    prompts: list[str],
    args: Args,
) -> GlidePipeline:
    cls = GlideInpaintPipeline if args.stage == "inpaint" else GlidePipeline
    sampler: Any = SAMPLERS[args.sampler].from_config(scheduler.config)
    parts: dict[str, Any] = {**frozen, **nets}
    return cls(**parts, tokenizer=tokenizer, scheduler=sampler, example_prompts=dict(enumerate(prompts)))


def sampling_options(args: Args) -> dict[str, Any]:
    """How the sample grids are drawn, from the same noise each time."""
    return {
        "num_inference_steps": args.ddpm_num_inference_steps,
        "guidance_scale": args.guidance_scale,
        "generator": torch.Generator().manual_seed(args.seed),
    }


def preview(pipeline: DiffusionPipeline, args: Args) -> list[Image.Image]:
    """A row of pictures for each text."""
    prompts = list(pipeline.config["example_prompts"].values())
    repeated = [prompts[i * len(prompts) // args.num_validation_images] for i in range(args.num_validation_images)]
    return pipeline(repeated, **sampling_options(args)).images  # pyright: ignore[reportCallIssue]


def preview_filled(pipeline: DiffusionPipeline, args: Args, data: Data) -> list[Image.Image]:
    """Triples: a picture, what is known of it, and the picture filled by its caption."""
    count = max(1, args.num_validation_images // 3)
    batch = next(data.batches(batch_size=count, seed=args.seed + 1))
    known = random_known(batch["pixel_values"], torch.Generator().manual_seed(args.seed))
    pixels = 0.5 * batch["pixel_values"] + 0.5
    filled = pipeline(  # pyright: ignore[reportCallIssue]
        batch["captions"], pixels, 1 - known, output_type="pt", **sampling_options(args)
    ).images
    shown = torch.stack([pixels, torch.where(known > 0.5, pixels, 0.5), filled.cpu()], dim=1).flatten(0, 1)
    return pipeline.numpy_to_pil(shown.permute(0, 2, 3, 1).numpy())


if __name__ == "__main__":
    sys.exit(run_script(sys.modules[__name__]))
