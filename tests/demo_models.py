"""Tiny pipelines with random weights for the demos, made on the spot: ours and stock ones of diffusers."""

import torch
from diffusers.models.autoencoders.autoencoder_kl import AutoencoderKL
from diffusers.models.unets.unet_2d import UNet2DModel
from diffusers.models.unets.unet_2d_condition import UNet2DConditionModel
from diffusers.pipelines.stable_diffusion.pipeline_stable_diffusion import StableDiffusionPipeline
from diffusers.pipelines.stable_diffusion.pipeline_stable_diffusion_img2img import StableDiffusionImg2ImgPipeline
from diffusers.schedulers.scheduling_ddpm import DDPMScheduler
from transformers import CLIPTextConfig, CLIPTextModel, CLIPTokenizer

from hf_genzoo.models.text_unet import TextUNet, with_known_part
from hf_genzoo.pipelines.ddpm import DenoisingDiffusionPipeline
from hf_genzoo.pipelines.glide import GlideInpaintPipeline
from hf_genzoo.pipelines.sr3 import SR3Pipeline
from hf_genzoo.text import small_text_encoder, small_tokenizer

CLASSES = ("circle", "square", "star")


def tiny_ddpm(classes: tuple[str, ...] = CLASSES) -> DenoisingDiffusionPipeline:
    """Grey 16 x 16 pictures, class-conditional unless there are no classes."""
    torch.manual_seed(0)
    unet = UNet2DModel(
        sample_size=16,
        in_channels=1,
        out_channels=1,
        layers_per_block=1,
        block_out_channels=(8, 8),
        down_block_types=("DownBlock2D", "DownBlock2D"),
        up_block_types=("UpBlock2D", "UpBlock2D"),
        norm_num_groups=4,
        num_class_embeds=len(classes) + 1 if classes else None,
    )
    return DenoisingDiffusionPipeline(unet, DDPMScheduler(), id2label=dict(enumerate(classes)) or None)


def tiny_sr3(scale: int = 4) -> SR3Pipeline:
    """Colour pictures, `scale` times larger, in tiles of 16 x 16."""
    torch.manual_seed(0)
    unet = UNet2DModel(
        sample_size=16,
        in_channels=6,
        out_channels=3,
        layers_per_block=1,
        block_out_channels=(8, 8),
        down_block_types=("DownBlock2D", "DownBlock2D"),
        up_block_types=("UpBlock2D", "UpBlock2D"),
        norm_num_groups=4,
    )
    return SR3Pipeline(unet, DDPMScheduler(timestep_spacing="trailing"), scale=scale)


def tiny_inpainting() -> GlideInpaintPipeline:
    """Parts of colour pictures of 16 x 16 from texts."""
    torch.manual_seed(0)
    unet = TextUNet(
        sample_size=16,
        block_out_channels=(8, 8),
        layers_per_block=1,
        attention_levels=(1,),
        attention_head_dim=8,
        norm_num_groups=4,
        text_dim=16,
        text_length=8,
    )
    words = {"tokenizer": small_tokenizer(["a star"], 340, 8), "text_encoder": small_text_encoder(340, 8, 16, 1)}
    return GlideInpaintPipeline(with_known_part(unet).eval(), scheduler=DDPMScheduler(), **words)


def tiny_stable_diffusion(image: bool = False) -> StableDiffusionPipeline | StableDiffusionImg2ImgPipeline:
    """Text to image, or image and text to image: RGB 32 x 32, latents 16 x 16."""
    torch.manual_seed(0)
    unet = UNet2DConditionModel(
        sample_size=16,
        block_out_channels=(8, 16),
        layers_per_block=1,
        down_block_types=("DownBlock2D", "CrossAttnDownBlock2D"),
        up_block_types=("CrossAttnUpBlock2D", "UpBlock2D"),
        cross_attention_dim=16,
        attention_head_dim=4,
        norm_num_groups=4,
    )
    vae = AutoencoderKL(
        down_block_types=("DownEncoderBlock2D",) * 2,
        up_block_types=("UpDecoderBlock2D",) * 2,
        block_out_channels=(8, 8),
        norm_num_groups=4,
        sample_size=32,
    )
    words = [
        "<|startoftext|>",
        "<|endoftext|>",
        *"abcdefghijklmnopqrstuvwxyz",
        *(f"{c}</w>" for c in map(chr, range(97, 123))),
    ]
    tokenizer = CLIPTokenizer(vocab={word: index for index, word in enumerate(words)}, merges=[], model_max_length=16)
    text_encoder = CLIPTextModel(
        CLIPTextConfig(
            vocab_size=len(words),
            hidden_size=16,
            intermediate_size=16,
            num_attention_heads=2,
            num_hidden_layers=1,
            max_position_embeddings=16,
            bos_token_id=0,
            eos_token_id=1,
            pad_token_id=1,
        )
    )
    kind = StableDiffusionImg2ImgPipeline if image else StableDiffusionPipeline
    return kind(
        vae=vae,
        text_encoder=text_encoder,
        tokenizer=tokenizer,
        unet=unet,
        scheduler=DDPMScheduler(beta_schedule="scaled_linear", clip_sample=False),
        safety_checker=None,  # type: ignore[arg-type]
        feature_extractor=None,  # type: ignore[arg-type]
        requires_safety_checker=False,
    )
