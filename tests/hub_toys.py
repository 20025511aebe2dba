"""Tiny pipelines of each kind, and what the tests of the Hub part do with exported folders."""

from pathlib import Path

import numpy as np
import torch
from diffusers import DDPMScheduler, DiffusionPipeline, UNet2DModel

from hf_genzoo.hub.layout import INDEX, content_hash, split_pipeline_stem

TRAINING = {
    "family": "vae",
    "command": "genzoo train vae --dataset_name digits --max_train_steps 1234",
    "args": {"dataset_name": "digits", "max_train_steps": 1234},
    "steps": 1234,
    "images_seen": 78976,
    "seconds": 471.3,
    "loss": 0.024131,
    "versions": {"torch": "2.9.1", "diffusers": "0.42.1"},
    "data": {"name": "digits", "fingerprint": "f00dfeed", "num_samples": 4000, "split": "train"},
    "git_revision": None,
    "parameters": {"vae": 3942145},
    "device": "cpu",
    "seed": 7,
    "sample_grid": None,
}


def tiny_vae(seed: int = 0, latent_dim: int = 3) -> DiffusionPipeline:
    from hf_genzoo.models.vae import ConvVAE
    from hf_genzoo.pipelines.vae import VAEPipeline

    torch.manual_seed(seed)
    return VAEPipeline(ConvVAE(sample_size=8, latent_dim=latent_dim, block_out_channels=(8,)))


def tiny_points(seed: int = 0) -> DiffusionPipeline:
    from hf_genzoo.models.generator import MLPGenerator
    from hf_genzoo.pipelines.gan import WGANPipeline

    torch.manual_seed(seed)
    return WGANPipeline(MLPGenerator(hidden_dim=8))


def tiny_ddpm(seed: int = 0, num_classes: int | None = None) -> DiffusionPipeline:
    from hf_genzoo.pipelines.ddpm import DenoisingDiffusionPipeline

    torch.manual_seed(seed)
    unet = UNet2DModel(
        sample_size=8,
        in_channels=1,
        out_channels=1,
        block_out_channels=(4, 4),
        down_block_types=("DownBlock2D", "DownBlock2D"),
        up_block_types=("UpBlock2D", "UpBlock2D"),
        layers_per_block=1,
        norm_num_groups=2,
        attention_head_dim=2,
        num_class_embeds=num_classes,
    )
    return DenoisingDiffusionPipeline(unet, DDPMScheduler(num_train_timesteps=60, beta_schedule="squaredcos_cap_v2"))


def draw(pipeline: DiffusionPipeline, **kwargs: object) -> np.ndarray:
    """Two samples with seed 0."""
    pipeline.set_progress_bar_config(disable=True)
    return pipeline(batch_size=2, generator=torch.Generator().manual_seed(0), output_type="np", **kwargs)[0]


def tree(folder: Path) -> dict[str, bytes]:
    """Every file below a folder."""
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def other_code(folder: Path, change: tuple[str, str]) -> None:
    """Make of an exported folder what another version of the package would have exported: another pipeline file."""
    (old,) = folder.glob("pipeline_*.py")
    text = old.read_text(encoding="utf-8")
    assert change[0] in text, change[0]
    text = text.replace(*change)
    parts = split_pipeline_stem(old.stem)
    assert parts is not None
    new = old.with_name(f"pipeline_{parts[0]}_{content_hash(text)}.py")
    old.unlink()
    new.write_text(text, encoding="utf-8")
    index = (folder / INDEX).read_text(encoding="utf-8")
    (folder / INDEX).write_text(index.replace(old.stem, new.stem), encoding="utf-8")
