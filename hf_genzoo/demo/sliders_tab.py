"""A slider for each latent dimension: what one number of the latent does to the picture."""

from typing import Any

import gradio as gr
import numpy as np
from PIL import Image

from .guard import MAX_SEED, check_between, check_upload, check_whole, friendly
from .latent_model import LatentModel
from .pictures import shown, strip
from .upload import upload

PAGE = 8
"""Sliders shown at a time."""
_COLUMNS = 9  # pictures of a traversal
_DRAWN, _DATA, _UPLOADED = "A random draw", "A data picture", "An uploaded picture"


class Sliders:
    """What the sliders do; which latent they stand for is each visitor's own and handed in."""

    def __init__(self, model: LatentModel) -> None:
        self.model = model
        order = model.order.tolist()
        parts = [order[i : i + PAGE] for i in range(0, model.dim, PAGE)]
        self.pages = {f"{i * PAGE + 1} to {i * PAGE + len(part)} of {model.dim}": part for i, part in enumerate(parts)}
        """Title -> the dimensions shown, in the model's order."""

    @property
    def first(self) -> str:
        """Title of the page to begin with."""
        return next(iter(self.pages))

    def paint(self, latent: list[float]) -> Image.Image:
        """The picture of a latent."""
        return shown(self.model.decode(np.array([latent]))[0])

    def stand(self, value: float) -> float:
        """Where a slider stands for one number of a latent."""
        return round(float(np.clip(value, -self.model.limit, self.model.limit)), 2)

    def updates(self, latent: list[float], page: str) -> list[Any]:
        """The sliders for a latent."""
        dimensions = self.dimensions(page)
        visible = [
            gr.update(value=self.stand(latent[dimension]), label=f"Dimension {dimension}", visible=True)
            for dimension in dimensions
        ]
        return visible + [gr.update(visible=False)] * (len(self.pages[self.first]) - len(visible))

    def dimensions(self, page: str) -> list[int]:
        """The dimensions of a page.

        Raises:
            ValueError: There is no such page.
        """
        if page not in self.pages:
            raise ValueError(f"There are no dimensions {page!r}; choose one of {', '.join(self.pages)}.")
        return self.pages[page]

    def start(self, start: str, number: float, picture: Any) -> list[float]:
        """The latent to start from.

        Raises:
            ValueError: What was asked for does not exist.
        """
        model = self.model
        if start == _UPLOADED and model.encodes:
            return model.encode([check_upload(picture)])[0].tolist()
        if start == _DATA and model.latents is not None:
            return model.latents[check_whole("The number of the picture", number, 0, len(model.latents) - 1)].tolist()
        if start == _DRAWN:
            return model.draw(check_whole("The seed", number, 0, MAX_SEED)).tolist()
        raise ValueError(f"This model cannot start from {start!r}.")

    def moved(self, latent: list[float], page: str, given: tuple[float, ...]) -> list[float]:
        """A latent with the dimensions of a page where the sliders stand.

        Raises:
            ValueError: A slider stands outside of its limits, or there is no such page.
        """
        moved, limit = list(latent), self.model.limit
        for dimension, value in zip(self.dimensions(page), given, strict=False):
            check_between(f"Dimension {dimension}", value, -limit, limit)
            # One that nobody moved keeps its digits, and its value where that lies beyond the slider's end.
            if value != self.stand(moved[dimension]):
                moved[dimension] = value
        return moved

    def traversal(self, latent: list[float], page: str) -> Image.Image:
        """Each row: the latent with one dimension moved from one end of its slider to the other."""
        return strip(self.model.traversal(latent, self.dimensions(page), _COLUMNS), _COLUMNS)


def add_sliders_tab(model: LatentModel) -> None:
    """Put the sliders into the page that is being built."""
    parts = Sliders(model)
    drawn = model.draw(0).tolist()
    with gr.Tab("Sliders", id="sliders"):
        order = "" if model.latents is None else ", the one that varies most over the data first"
        gr.Markdown(f"The latent has {model.dim} dimensions{order}.")
        latent, origin = gr.State(drawn), gr.State(drawn)
        with gr.Row():
            with gr.Column(min_width=300, scale=2):
                start, number, picture = _add_start(model)
                begin = gr.Button("Start from here", variant="primary", elem_id="sliders-begin")
                decoded = gr.Image(
                    parts.paint(drawn),
                    label="Decoded",
                    interactive=False,
                    buttons=["download"],
                    elem_id="sliders-decoded",
                    format="png",
                )
            with gr.Column(min_width=300, scale=3):
                page, sliders, reset = _add_sliders(parts, drawn)
        traverse = gr.Button("Move each of these from end to end", elem_id="sliders-traverse")
        rows = gr.Image(
            label="Each row moves one dimension",
            show_label=False,
            visible=False,
            interactive=False,
            buttons=["download"],
            elem_id="sliders-rows",
            format="png",
        )

    @friendly
    def begin_from(start: str, number: float, picture: Any, page: str) -> list[Any]:
        chosen = parts.start(start, number, picture)
        return [chosen, chosen, parts.paint(chosen), *parts.updates(chosen, page)]

    @friendly
    def back(origin: list[float], page: str) -> list[Any]:
        return [origin, parts.paint(origin), *parts.updates(origin, page)]

    @friendly
    def move(latent: list[float], page: str, *given: float) -> list[Any]:
        moved = parts.moved(latent, page, given)
        return [moved, parts.paint(moved)]

    @friendly
    def all_rows(latent: list[float], page: str) -> Any:
        return gr.update(value=parts.traversal(latent, page), visible=True)

    whole = [latent, decoded, *sliders]
    common: dict[str, Any] = {"concurrency_id": "model"}
    begin.click(begin_from, [start, number, picture, page], [origin, *whole], api_name="begin", **common)
    reset.click(back, [origin, page], whole, api_name="reset", **common)
    # `release` is the mouse's alone; `input` comes from the keyboard, too. A drag waits for one picture at a time.
    gr.on(
        [slider.input for slider in sliders],
        move,
        [latent, page, *sliders],
        [latent, decoded],
        api_name="move",
        trigger_mode="always_last",
        show_progress="hidden",
        **common,
    )
    page.change(friendly(parts.updates), [latent, page], sliders, api_visibility="private", **common)
    # The rows are of another latent, or of other dimensions, from then on.
    gr.on(
        [begin.click, page.change],
        lambda: gr.update(visible=False),
        outputs=rows,
        queue=False,
        api_visibility="private",
    )
    traverse.click(all_rows, [latent, page], rows, api_name="traverse", **common)


def _add_start(model: LatentModel) -> tuple[gr.Radio, gr.Number, gr.Image]:
    starts = [_DRAWN]
    starts += [_DATA] if model.latents is not None else []
    starts += [_UPLOADED] if model.encodes else []
    start = gr.Radio(starts, value=_DRAWN, label="Start from", visible=len(starts) > 1)
    label = "Seed" if model.latents is None else "Seed, or number of the data picture"
    number = gr.Number(0, precision=0, label=label, elem_id="sliders-number")
    with gr.Column(visible=False) as box:
        picture = upload(label="Picture", sources=["upload", "clipboard"], height=160)
    start.change(lambda chosen: gr.update(visible=chosen == _UPLOADED), start, box, api_visibility="private")
    return start, number, picture


def _add_sliders(parts: Sliders, latent: list[float]) -> tuple[gr.Dropdown, list[gr.Slider], gr.Button]:
    page = gr.Dropdown(list(parts.pages), value=parts.first, label="Dimensions", visible=len(parts.pages) > 1)
    sliders = [
        gr.Slider(
            -parts.model.limit,
            parts.model.limit,
            value=parts.stand(latent[dimension]),
            step=0.05,
            label=f"Dimension {dimension}",
            buttons=[],  # gradio's own would go back to where the page began, not to the latent of now
            elem_id=f"slider-{place}",
        )
        for place, dimension in enumerate(parts.dimensions(parts.first))
    ]
    return page, sliders, gr.Button("Back to the start", size="sm", elem_id="sliders-reset")
