"""A U-Net that reads a caption while it removes noise.

Papers
- Nichol et al. 2021, "GLIDE: Towards Photorealistic Image Generation and Editing with Text-Guided Diffusion Models",
  section 4.1: keys and values of the caption's tokens beside those of the pixels in every attention, one vector of the
  caption added to the embedding of the noise level.
- Dhariwal & Nichol 2021, "Diffusion Models Beat GANs on Image Synthesis": the residual blocks (scale and shift by the
  noise level, branches that begin at zero).

What differs from the papers and why
- The learned padding replaces the *outputs* of the text encoder at padded places, not its inputs: any encoder serves,
  a frozen one too, and what it makes of a caption can be kept.
- The vector of the caption is the mean of its tokens, which every encoder has, not the last token's output.
- Where a block attends it is told its places (as in DiT, Peebles & Xie 2023), and the picture enters at a fifth of
  its size. In noise alone nothing else says where left is, and noise at full size drowns what does: without the two a
  small network learns which things a caption names but not how they lie.
- A direct path from the noisy picture to the output: a multiple of each channel and a constant, both learned functions
  of the noise level (as the skip connection of Karras et al. 2022, table 1, is a given one). Most of what is to be
  predicted is that, and a narrow network would spend its width on copying the noise.
- `patch_size` folds that many pixels a side into channels: convolutions at full resolution are most of the cost of a
  small network. As many blocks on the way up as on the way down, and channels are reduced before the picture grows.

This file is published beside the weights: it imports torch and diffusers only.
"""

from functools import lru_cache
from typing import Any

import torch
import torch.nn.functional as F
from diffusers.configuration_utils import ConfigMixin, register_to_config
from diffusers.models.attention_processor import Attention, AttnAddedKVProcessor2_0
from diffusers.models.embeddings import TimestepEmbedding, Timesteps
from diffusers.models.modeling_utils import ModelMixin
from diffusers.models.resnet import ResnetBlock2D
from diffusers.models.unets.unet_2d_condition import UNet2DConditionOutput
from torch import Tensor, nn

INPUT_SCALE = 0.2

PLACE_FREQUENCIES = (1, 2, 4)
"""Half waves across the picture by which a place is told."""


@lru_cache(maxsize=16)  # every attending block asks in every step: a twelfth of the time of a small network
@torch.inference_mode(False)  # what is kept may first be asked for in inference, and then be needed in training
def places(height: int, width: int, device: torch.device) -> Tensor:
    """Sines and cosines of every place's coordinates, (1, 4 len(PLACE_FREQUENCIES), height, width) in [-1, 1]."""
    down, across = ((torch.arange(n, device=device) + 0.5) / n for n in (height, width))
    where = torch.stack(torch.meshgrid(down, across, indexing="ij"))
    waves = torch.pi * torch.tensor(PLACE_FREQUENCIES, device=device)[:, None, None, None] * where
    return torch.stack([waves.sin(), waves.cos()], dim=1).flatten(0, 2)[None]


class Block(nn.Module):
    """A residual block, and attention to the picture's own places and the caption's tokens where it is wanted."""

    def __init__(
        self, channels: int, out_channels: int, time_dim: int, text_dim: int, groups: int, heads: int, dropout: float
    ):
        super().__init__()
        self.resnet = ResnetBlock2D(
            in_channels=channels,
            out_channels=out_channels,
            temb_channels=time_dim,
            groups=groups,
            dropout=dropout,
            time_embedding_norm="scale_shift",
        )
        nn.init.zeros_(self.resnet.conv2.weight)
        self.attention = None
        if heads:
            self.attention = Attention(
                query_dim=out_channels,
                heads=heads,
                dim_head=out_channels // heads,
                added_kv_proj_dim=text_dim,
                norm_num_groups=groups,
                bias=True,
                residual_connection=True,
                processor=AttnAddedKVProcessor2_0(),  # pyright: ignore[reportArgumentType]
            )
            nn.init.zeros_(self.attention.to_out[0].weight)  # pyright: ignore
            self.place = nn.Conv2d(4 * len(PLACE_FREQUENCIES), out_channels, 1)

    def forward(self, h: Tensor, time: Tensor, tokens: Tensor) -> Tensor:
        h = self.resnet(h, time)
        if self.attention is None:
            return h
        h = h + self.place(places(h.shape[-2], h.shape[-1], h.device).to(h.dtype))
        return self.attention(h, encoder_hidden_states=tokens)


class TextUNet(ModelMixin, ConfigMixin):
    """Denoiser of pictures with captions.

    Args:
        sample_size: Height and width of the pictures it is trained on.
        in_channels: Channels of what it is given: C, or 2C + 1 for inpainting (noisy picture, known part, mask).
        out_channels: C, or 2C where it predicts the variance too.
        patch_size: Pixels a side that are folded into channels.
        block_out_channels: Channels at each resolution, finest first; each level halves the picture.
        layers_per_block: Blocks at each resolution, on the way down and on the way up.
        attention_levels: Levels with attention, 0 being the finest; the middle has it always.
        attention_head_dim: Channels of one head.
        norm_num_groups: Groups of group normalisation.
        dropout: Dropout in the residual blocks.
        text_dim: Length of a token's vector.
        text_length: Tokens of a caption, padding included.

    Raises:
        ValueError: If channels cannot be divided into heads or groups.
    """

    _supports_gradient_checkpointing = True

    @register_to_config
    def __init__(
        self,
        sample_size: int = 64,
        in_channels: int = 3,
        out_channels: int = 3,
        patch_size: int = 1,
        block_out_channels: tuple[int, ...] = (192, 384, 576, 768),
        layers_per_block: int = 3,
        attention_levels: tuple[int, ...] = (1, 2, 3),
        attention_head_dim: int = 64,
        norm_num_groups: int = 32,
        dropout: float = 0.0,
        text_dim: int = 512,
        text_length: int = 128,
    ):
        super().__init__()
        widths, levels = block_out_channels, range(len(block_out_channels))
        if wrong := [w for w in widths if w % norm_num_groups or w % attention_head_dim]:
            raise ValueError(
                f"{wrong[0]} channels cannot be divided into norm_num_groups {norm_num_groups} and heads of "
                f"attention_head_dim {attention_head_dim}"
            )
        time_dim, folded = 4 * widths[0], patch_size**2

        def block(channels: int, level: int, attends: bool | None = None) -> Block:
            attends = level in attention_levels if attends is None else attends
            heads = widths[level] // attention_head_dim if attends else 0
            return Block(channels, widths[level], time_dim, text_dim, norm_num_groups, heads, dropout)

        self.time_proj = Timesteps(widths[0], flip_sin_to_cos=True, downscale_freq_shift=0)
        self.time_embedding = TimestepEmbedding(widths[0], time_dim)
        self.text_norm = nn.LayerNorm(text_dim)
        self.text_embedding = nn.Linear(text_dim, time_dim)
        self.padding = nn.Parameter(0.02 * torch.randn(text_length, text_dim))

        self.conv_in = nn.Conv2d(folded * in_channels, widths[0], 3, padding=1)
        self.down_blocks, self.down, self.up_blocks, self.up = (nn.ModuleList() for _ in range(4))
        for level in levels:
            first = widths[level]
            self.down_blocks.append(nn.ModuleList(block(first, level) for _ in range(layers_per_block)))
            self.up_blocks.append(nn.ModuleList(block(2 * first, level) for _ in range(layers_per_block)))
            if level + 1 < len(widths):
                self.down.append(nn.Conv2d(first, widths[level + 1], 3, stride=2, padding=1))
                self.up.append(nn.Conv2d(widths[level + 1], first, 3, padding=1))
        last = len(widths) - 1
        self.mid = nn.ModuleList([block(widths[-1], last, attends=True), block(widths[-1], last, attends=False)])
        self.norm_out = nn.GroupNorm(norm_num_groups, widths[0])
        self.conv_out = nn.Conv2d(widths[0], folded * out_channels, 3, padding=1)
        self.direct = nn.Linear(time_dim, 2 * out_channels)
        nn.init.zeros_(self.direct.weight)
        nn.init.zeros_(self.direct.bias)
        self.gradient_checkpointing = False

    @property
    def picture_channels(self) -> int:
        """C: a network for inpainting has 2C + 1 input channels, one that learns the variance 2C output channels."""
        given, out = self.config["in_channels"], self.config["out_channels"]
        return given if given in (out, out // 2) else (given - 1) // 2

    def forward(
        self,
        sample: Tensor,
        timestep: Tensor | float | int,
        encoder_hidden_states: Tensor,
        encoder_attention_mask: Tensor | None = None,
        return_dict: bool = True,
    ) -> UNet2DConditionOutput | tuple[Tensor]:
        """Predict what the scheduler asks for.

        Args:
            sample: (B, in_channels, H, W); H and W divisible by patch_size times 2 for each halving.
            timestep: One, or (B,).
            encoder_hidden_states: (B, text_length, text_dim), what a text encoder made of the captions.
            encoder_attention_mask: (B, text_length), true at tokens and false at padding; without it all are tokens.
            return_dict: Return an object with `sample` rather than a tuple.

        Returns:
            (B, out_channels, H, W).

        Raises:
            ValueError: If the picture's size or the shape of the captions does not fit.
        """
        config = self.config
        unit = config["patch_size"] * 2 ** (len(config["block_out_channels"]) - 1)
        if sample.shape[-2] % unit or sample.shape[-1] % unit:
            raise ValueError(f"height and width must be divisible by {unit}, not {tuple(sample.shape[-2:])}")
        t = torch.as_tensor(timestep, device=sample.device).expand(len(sample))
        tokens, sentence = self.caption(encoder_hidden_states, encoder_attention_mask)
        noise_level = self.time_embedding(self.time_proj(t).to(sample.dtype))
        time = noise_level + self.text_embedding(sentence)

        h = self.conv_in(INPUT_SCALE * F.pixel_unshuffle(sample, config["patch_size"]))
        skips = []
        for level, blocks in enumerate(self.down_blocks):
            for block in blocks:  # pyright: ignore[reportGeneralTypeIssues]
                h = self._run(block, h, time, tokens)
                skips.append(h)
            h = self.down[level](h) if level < len(self.down) else h
        for block in self.mid:
            h = self._run(block, h, time, tokens)
        for level, blocks in reversed(list(enumerate(self.up_blocks))):
            for block in blocks:  # pyright: ignore[reportGeneralTypeIssues]
                h = self._run(block, torch.cat([h, skips.pop()], dim=1), time, tokens)
            h = F.interpolate(self.up[level - 1](h), scale_factor=2.0, mode="nearest") if level else h
        out = F.pixel_shuffle(self.conv_out(F.silu(self.norm_out(h))), config["patch_size"])
        gain, shift = self.direct(F.silu(noise_level))[..., None, None].chunk(2, dim=1)
        noisy = sample[:, : self.picture_channels]
        out = out + gain * noisy.repeat(1, out.shape[1] // noisy.shape[1], 1, 1) + shift
        return UNet2DConditionOutput(sample=out) if return_dict else (out,)

    def caption(self, states: Tensor, mask: Tensor | None) -> tuple[Tensor, Tensor]:
        """Token vectors with the learned padding at padded places, and the mean of the others.

        Args:
            states: (B, text_length, text_dim).
            mask: (B, text_length), or None.

        Returns:
            (B, text_length, text_dim) and (B, text_dim).

        Raises:
            ValueError: If states are of another shape.
        """
        if tuple(states.shape[1:]) != tuple(self.padding.shape):
            raise ValueError(
                f"captions must have shape (B, {', '.join(map(str, self.padding.shape))}), not {tuple(states.shape)}"
            )
        tokens = self.text_norm(states.to(self.padding.dtype))
        if mask is None:
            return tokens, tokens.mean(dim=1)
        real = mask.bool()[..., None]
        sentence = torch.where(real, tokens, 0.0).sum(dim=1) / real.sum(dim=1).clamp(min=1)
        return torch.where(real, tokens, self.padding), sentence

    def _run(self, block: nn.Module, h: Tensor, time: Tensor, tokens: Tensor) -> Tensor:
        if torch.is_grad_enabled() and self.gradient_checkpointing:
            return self._gradient_checkpointing_func(block, h, time, tokens)  # pyright: ignore[reportOptionalCall]
        return block(h, time, tokens)


def with_known_part(unet: TextUNet) -> TextUNet:
    """The network for inpainting that begins as this one (Nichol et al. 2021, section 2.4).

    It is given 2C + 1 channels, [noisy picture, known part of the picture, mask], the mask being 1 where the picture
    is known. The weights of the new channels are zero, so it predicts the same.

    Raises:
        ValueError: If the network is one for inpainting already.
    """
    channels = unet.config["in_channels"]
    config = {name: value for name, value in unet.config.items() if not name.startswith("_")}
    if channels != unet.picture_channels:
        raise ValueError(f"a network of {channels} input channels takes a known part already; start from one without")
    wider: Any = TextUNet.from_config({**config, "in_channels": 2 * channels + 1})
    state = unet.state_dict()
    weight = torch.zeros_like(wider.conv_in.weight)
    weight[:, : state["conv_in.weight"].shape[1]] = state["conv_in.weight"]
    wider.load_state_dict({**state, "conv_in.weight": weight})
    return wider
