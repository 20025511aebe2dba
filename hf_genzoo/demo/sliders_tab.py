"""A slider for each latent dimension: what one number of the latent does to the picture."""

from typing import Any

import gradio as gr
import numpy as np
from PIL import Image

from .guard import MAX_SEED, check_between, check_upload, check_whole, friendly
from .latent_model import LatentModel
from .strips import enlarged, strip
from .upload import upload

PAGE = 8
"""Sliders shown at a time."""
_COLUMNS = 9  # pictures of a traversal
_SHOWN = 256
_DRAWN, _DATA, _UPLOADED = "A random draw", "A data picture", "An uploaded picture"


def add_sliders_tab(model: LatentModel) -> None:
    """Put the sliders into the page that is being built."""
    pages = _pages(model)
    with gr.Tab("Sliders", id="sliders"):
        gr.Markdown(f"The latent has {model.dim} dimensions, the one that varies most over the data first.")
        latent = gr.State(model.draw(0).tolist())
        with gr.Row():
            with gr.Column(min_width=300, scale=2):
                start, number, picture = _add_start(model)
                begin = gr.Button("Start from here", variant="primary", elem_id="sliders-begin")
                shown = gr.Image(
                    enlarged(model.decode(model.draw(0)[None])[0], _SHOWN),
                    label="Decoded",
                    interactive=False,
                    buttons=["download"],
                    elem_id="sliders-decoded",
                    format="png",
                )
            with gr.Column(min_width=300, scale=3):
                page = gr.Dropdown(list(pages), value=next(iter(pages)), label="Dimensions", visible=len(pages) > 1)
                first = pages[next(iter(pages))]
                sliders = [_slider(model, first, place, model.draw(0)) for place in range(min(PAGE, model.dim))]
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

    def values(page: str, latent: list[float]) -> list[Any]:
        return [_slider_update(pages[page], place, latent) for place in range(len(sliders))]

    @friendly
    def begin_from(start: str, number: float, picture: Any, page: str) -> list[Any]:
        chosen = _chosen(model, start, number, picture).tolist()
        return [chosen, _paint(model, chosen), *values(_known(page, pages), chosen)]

    @friendly
    def move(latent: list[float], page: str, *given: float) -> list[Any]:
        moved = list(_checked(latent, model))
        for dimension, value in zip(pages[_known(page, pages)], given, strict=False):
            check_between(f"Dimension {dimension}", value, -model.limit, model.limit)
            moved[dimension] = value
        return [moved, _paint(model, moved)]

    @friendly
    def turn(latent: list[float], page: str) -> list[Any]:
        return values(_known(page, pages), _checked(latent, model))

    @friendly
    def all_rows(latent: list[float], page: str) -> Any:
        places = _traversal(model, _checked(latent, model), pages[_known(page, pages)])
        return gr.update(value=strip(model.decode(places), _COLUMNS), visible=True)

    common: dict[str, Any] = {"concurrency_id": "model"}
    begin.click(begin_from, [start, number, picture, page], [latent, shown, *sliders], api_name="begin", **common)
    for slider in sliders:  # on release: a drag must not ask for a hundred pictures
        slider.release(move, [latent, page, *sliders], [latent, shown], api_name="move", **common)
    page.change(turn, [latent, page], sliders, api_visibility="private", **common)
    traverse.click(all_rows, [latent, page], rows, api_name="traverse", **common)


def _add_start(model: LatentModel) -> tuple[gr.Radio, gr.Number, gr.Image]:
    starts = [_DRAWN]
    starts += [_DATA] if model.latents is not None else []
    starts += [_UPLOADED] if model.encodes else []
    start = gr.Radio(starts, value=_DRAWN, label="Start from", visible=len(starts) > 1)
    number = gr.Number(0, precision=0, label="Seed, or number of the data picture", elem_id="sliders-number")
    picture = upload(label="Picture", sources=["upload", "clipboard"], height=160, visible=False)
    start.change(lambda chosen: gr.update(visible=chosen == _UPLOADED), start, picture, api_visibility="private")
    return start, number, picture


def _chosen(model: LatentModel, start: str, number: float, picture: Any) -> np.ndarray:
    """The latent (d,) to start from.

    Raises:
        ValueError: What was asked for does not exist.
    """
    if start == _UPLOADED and model.encodes:
        return model.encode([check_upload(picture)])[0]
    if start == _DATA and model.latents is not None:
        return model.latents[check_whole("The number of the picture", number, 0, len(model.latents) - 1)]
    if start == _DRAWN:
        return model.draw(check_whole("The seed", number, 0, MAX_SEED))
    raise ValueError(f"This model cannot start from {start!r}.")


def _pages(model: LatentModel) -> dict[str, list[int]]:
    """Title -> dimensions, in the model's order."""
    order = model.order.tolist()
    parts = [order[i : i + PAGE] for i in range(0, model.dim, PAGE)]
    return {f"{i * PAGE + 1} to {i * PAGE + len(part)} of {model.dim}": part for i, part in enumerate(parts)}


def _known(page: str, pages: dict[str, list[int]]) -> str:
    if page not in pages:
        raise ValueError(f"There are no dimensions {page!r}; choose one of {', '.join(pages)}.")
    return page


def _slider(model: LatentModel, dimensions: list[int], place: int, latent: np.ndarray) -> gr.Slider:
    limit, dimension = model.limit, dimensions[place]
    value = round(float(np.clip(latent[dimension], -limit, limit)), 2)
    return gr.Slider(-limit, limit, value=value, step=0.05, label=f"Dimension {dimension}", elem_id=f"slider-{place}")


def _slider_update(dimensions: list[int], place: int, latent: list[float]) -> Any:
    if place >= len(dimensions):
        return gr.update(visible=False)
    value = round(latent[dimensions[place]], 2)
    return gr.update(value=value, label=f"Dimension {dimensions[place]}", visible=True)


def _checked(latent: list[float], model: LatentModel) -> list[float]:
    if not isinstance(latent, list) or len(latent) != model.dim:
        raise ValueError(f"The latent must have {model.dim} numbers; press Start from here.")
    return latent


def _paint(model: LatentModel, latent: list[float]) -> Image.Image:
    return enlarged(model.decode(np.array([latent]))[0], _SHOWN)


def _traversal(model: LatentModel, latent: list[float], dimensions: list[int]) -> np.ndarray:
    """(rows * columns, d): the latent with one dimension after the other moved from one end to the other."""
    places = np.tile(np.array(latent), (len(dimensions), _COLUMNS, 1))
    for row, dimension in enumerate(dimensions):
        places[row, :, dimension] = np.linspace(-model.limit, model.limit, _COLUMNS)
    return places.reshape(-1, model.dim)
