"""The way from one picture to another through the latent space, as a strip and as an animation."""

import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import gradio as gr
import numpy as np
from PIL import Image

from .guard import MAX_SEED, check_upload, check_whole, friendly
from .latent_model import LatentModel
from .pictures import film, strip
from .upload import upload

MIN_STEPS, MAX_STEPS = 3, 24
_OFFERED = 8  # examples under the two pictures


def add_between_tab(model: LatentModel) -> None:
    """Put interpolation into the page that is being built."""
    with gr.Tab("Between two", id="between"):
        with gr.Row():
            one, other = _add_ends(model)
        with gr.Row():
            steps = gr.Slider(MIN_STEPS, MAX_STEPS, value=9, step=1, label="Pictures on the way", min_width=150)
            mode = gr.Radio(
                ["linear", "spherical"],
                value="linear" if model.encodes else "spherical",
                label="Way",
                info="Straight, or along the arc, where the prior has its mass.",
                min_width=150,
            )
        go = gr.Button("Go from one to the other", variant="primary", elem_id="between-go")
        row = _result("The way", "between-strip")
        with gr.Row():
            with gr.Column(min_width=200):
                moving = _result("There and back", "between-film")
            with gr.Column(min_width=200, visible=model.encodes):
                pairs = _result("Each picture, and what the model makes of it", "between-pairs")
        with gr.Row():
            strip_file = gr.DownloadButton("Download strip (PNG)", size="sm", interactive=False, min_width=150)
            film_file = gr.DownloadButton("Download animation (GIF)", size="sm", interactive=False, min_width=150)

    @friendly
    def between(one: Any, other: Any, steps: float, mode: str) -> Iterator[list[Any]]:
        count = check_whole("The number of pictures", steps, MIN_STEPS, MAX_STEPS)
        ends, originals = _ends(model, one, other)
        images = model.between(ends[0], ends[1], count, mode)
        with tempfile.TemporaryDirectory(prefix="genzoo-demo-") as folder:
            still, animation = Path(folder) / "strip.png", Path(folder) / "animation.gif"
            line = strip(images)
            line.save(still)
            film(images, animation)
            files = [gr.update(value=str(file), interactive=True) for file in (still, animation)]
            # gradio copies the files to its cache before it asks for more, so they can go afterwards.
            yield [line, str(animation), _compared(originals, images), *files]

    outputs = [row, moving, pairs, strip_file, film_file]
    go.click(
        between,
        [one, other, steps, mode],
        outputs,
        api_name="between",
        concurrency_id="model",
        show_progress_on=row,
    )


def _result(label: str, elem_id: str) -> gr.Image:
    """A picture under its label, which would hide part of a low one if it lay on it."""
    gr.Markdown(label)
    return gr.Image(
        label=label, show_label=False, type="filepath", format="png", interactive=False, buttons=[], elem_id=elem_id
    )


def _compared(originals: list[Image.Image] | None, images: list[Image.Image]) -> Image.Image | None:
    """Each end beside what is decoded of it."""
    if originals is None:
        return None
    ends = [image.resize(images[0].size, Image.Resampling.LANCZOS) for image in originals]
    return strip([ends[0], images[0], ends[1], images[-1]])


def _add_ends(model: LatentModel) -> tuple[Any, Any]:
    """Two pictures where the model encodes, else two seeds."""
    if not model.encodes:
        return gr.Number(0, precision=0, label="First seed"), gr.Number(1, precision=0, label="Second seed")
    ends = []
    for name, offset in (("First picture", 0), ("Second picture", _OFFERED)):
        with gr.Column(min_width=300):
            picture = upload(label=name, sources=["upload", "clipboard"], height=180)
            if model.examples is not None and len(model.examples):
                last = len(model.examples) - 1
                offered = [[model.examples.picture(min(offset + index, last))] for index in range(_OFFERED)]
                gr.Examples(offered, [picture], label="Try one", examples_per_page=_OFFERED)
        ends.append(picture)
    return ends[0], ends[1]


def _ends(model: LatentModel, one: Any, other: Any) -> tuple[np.ndarray, list[Image.Image] | None]:
    """Latents (2, d) of the two ends, and the pictures they are of."""
    if model.encodes:
        pictures = [check_upload(one), check_upload(other)]
        return model.encode(pictures), pictures
    seeds = [check_whole("The seed", seed, 0, MAX_SEED) for seed in (one, other)]
    return np.stack([model.draw(seed) for seed in seeds]), None
