"""What people hand to image to image: pictures of any shape, and settings that leave nothing to do."""

import threading
from pathlib import Path
from typing import Any

import pytest
from demo_models import tiny_sr3, tiny_stable_diffusion
from PIL import Image

pytest.importorskip("gradio", reason="needs gradio for the demos")

import gradio as gr

from hf_genzoo.demo.form import Form
from hf_genzoo.demo.image_tab import made_small
from hf_genzoo.demo.runs import Result, stream
from hf_genzoo.demo.tasks import task_of


def tiny_super_resolution() -> Any:
    """A stock pipeline of pixels: it has no `vae`, and rounds a picture's sides down to multiples of 32."""
    from diffusers.models.autoencoders.vq_model import VQModel
    from diffusers.models.unets.unet_2d import UNet2DModel
    from diffusers.pipelines.latent_diffusion.pipeline_latent_diffusion_superresolution import (
        LDMSuperResolutionPipeline,
    )
    from diffusers.schedulers.scheduling_ddim import DDIMScheduler

    small = {"block_out_channels": (8, 8), "norm_num_groups": 4, "layers_per_block": 1}
    unet = UNet2DModel(
        sample_size=32,
        in_channels=6,
        out_channels=3,
        down_block_types=("DownBlock2D",) * 2,
        up_block_types=("UpBlock2D",) * 2,
        **small,  # type: ignore[arg-type]
    )
    vqvae = VQModel(
        down_block_types=("DownEncoderBlock2D",) * 2,
        up_block_types=("UpDecoderBlock2D",) * 2,
        **small,  # type: ignore[arg-type]
    )
    return LDMSuperResolutionPipeline(vqvae=vqvae, unet=unet, scheduler=DDIMScheduler())


def changed(pipeline: Any, picture: Path, **settings: Any) -> tuple[Image.Image, Image.Image]:
    """What the model is given of a picture, and what it makes of it."""
    with gr.Blocks():
        form = Form(pipeline, task_of(pipeline), {}).add()
    values = {name: getattr(control, "value", None) for name, control in form.fields.items()}
    words = {"prompt": "a star"} if "prompt" in form.fields else {}
    asked = form.request({**values, **words, "image": str(picture), **settings})
    *_, last = stream(asked.pipeline, asked.call, threading.Event())
    assert isinstance(last, Result)
    return asked.call["image"], last.images[0]


@pytest.mark.parametrize(("size", "fitted"), [((60, 40), (32, 20)), ((2000, 3), (32, 2)), ((1, 1), (32, 32))])
def test_pictures_of_any_shape_fit_a_latent_model(
    size: tuple[int, int], fitted: tuple[int, int], tmp_path: Path
) -> None:
    Image.new("RGB", size, "red").save(tmp_path / "a.png")
    before, after = changed(tiny_stable_diffusion(image=True), tmp_path / "a.png", steps=2)
    assert before.size == after.size == fitted  # the longer side is the model's, both are multiples of its halvings


@pytest.mark.parametrize("size", [(60, 40), (3, 2000), (32, 32)])
def test_pictures_of_any_shape_fit_a_model_that_does_not_say_what_it_can_halve(
    size: tuple[int, int], tmp_path: Path
) -> None:
    Image.new("RGB", size, "red").save(tmp_path / "a.png")
    before, after = changed(tiny_super_resolution(), tmp_path / "a.png", steps=2)
    assert before.size == (32, 32)
    assert after.width == after.height


@pytest.mark.parametrize(
    ("size", "given"), [((12, 8), (12, 8)), ((60, 40), (16, 11)), ((3, 2000), (1, 16)), ((1, 1), (1, 1))]
)
def test_pictures_for_a_model_that_enlarges_keep_their_shape(
    size: tuple[int, int], given: tuple[int, int], tmp_path: Path
) -> None:
    """Only very large ones are shrunk: an answer has up to four times the side of the model's own pictures."""
    Image.new("RGB", size, "red").save(tmp_path / "a.png")
    before, after = changed(tiny_sr3(), tmp_path / "a.png", steps=2)
    assert before.size == given
    assert after.size == (4 * given[0], 4 * given[1])


def test_a_model_that_enlarges_is_offered_small_examples() -> None:
    picture = Image.radial_gradient("L").resize((28, 20))
    assert made_small(picture, 1) is picture
    assert made_small(picture, 4).size == (7, 5)


def test_a_strength_that_leaves_no_step_is_told(tmp_path: Path) -> None:
    Image.new("RGB", (32, 32), "red").save(tmp_path / "a.png")
    pipeline = tiny_stable_diffusion(image=True)
    with pytest.raises(ValueError, match=r"3 steps are too few for a strength of 0\.05: take 20 or more"):
        changed(pipeline, tmp_path / "a.png", steps=3, strength=0.05)
    changed(pipeline, tmp_path / "a.png", steps=20, strength=0.05)  # what the message says does work
