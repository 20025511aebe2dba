"""The map of the data: click a place to see what the model paints there."""

from typing import Any

import gradio as gr
import numpy as np
from PIL import Image

from hf_genzoo.pipelines._latent_map import MAP_METHODS, LatentMap, lay_out
from hf_genzoo.pipelines._map_figure import MAP_SIZE, Frame, draw_map

from .guard import check_between, friendly
from .latent_model import LatentModel
from .pictures import shown

_TITLES = dict(zip(("PCA", "t-SNE"), MAP_METHODS, strict=True))
_LOOKS = ("Dots", "Pictures")
_INVITATION = "Click the map, or give a place and press Decode."


class DataMap:
    """The maps of a model's examples, each laid out once for all visitors."""

    def __init__(self, model: LatentModel) -> None:
        if model.latents is None or model.examples is None:
            raise ValueError("a map needs an encoder and pictures")
        self.model, self.examples, self.latents = model, model.examples, model.latents
        self._maps: dict[str, LatentMap] = {}

    def of(self, title: str) -> LatentMap:
        """The map by a method's title.

        Raises:
            ValueError: Unknown title.
        """
        if title not in _TITLES:
            raise ValueError(f"There is no map {title!r}; choose PCA or t-SNE.")
        if title not in self._maps:
            try:
                self._maps[title] = lay_out(self.latents, self.examples.labels, _TITLES[title])
            except ImportError as error:  # the person in front of the page may well be the one who can install it
                raise ValueError(f"{title} is not to be had here: {error}") from error
        return self._maps[title]

    def picture(self, title: str, look: str, mark: tuple[float, float] | None = None) -> Image.Image:
        """The map as a picture, with a place marked."""
        pictures = self.examples.picture if look == "Pictures" else None
        return draw_map(self.of(title).points, self.examples.labels, self.examples.names, pictures, mark)

    def numbers(self, title: str) -> str:
        """What the map keeps, in plain words."""
        laid_out = self.of(title)
        lines = [
            f"**Trustworthiness {laid_out.trustworthiness:.2f}**: 1 if neighbours on the map are neighbours among the"
            " latents, about 0.5 by chance."
        ]
        if laid_out.knn_accuracy is not None and self.examples.labels is not None:
            most = np.unique(self.examples.labels, return_counts=True)[1].max() / len(self.examples)
            lines.append(
                f"**Neighbours' vote {laid_out.knn_accuracy:.0%}**: how often the pictures around one on the map tell"
                f" its class. Always saying the most frequent one would be right in {most:.0%}."
            )
        if laid_out.explained is not None:
            lines.append(f"The plane keeps {laid_out.explained:.0%} of the latents' variance.")
        else:
            lines.append(
                "Distances between groups and their sizes mean nothing on a t-SNE map, and there is no exact way back:"
                " a place is decoded as a mixture of its nearest pictures' latents."
            )
        return "\n\n".join(lines)

    def at(self, title: str, x: float, y: float) -> tuple[Image.Image, Image.Image, str]:
        """What the model paints at a place, the data picture nearest to it, and which that is."""
        laid_out = self.of(title)
        frame = Frame.of(laid_out.points)
        for axis, value, centre in zip("xy", (x, y), frame.centre, strict=True):
            check_between(axis, value, round(centre - 2 * frame.half, 1), round(centre + 2 * frame.half, 1))
        near = laid_out.nearest(x, y)
        name = self.examples.label_name(near)
        painted = self.model.decode(np.atleast_2d(laid_out.latent_at(x, y)))[0]
        said = f"At ({x:.3g}, {y:.3g}). The nearest picture is number {near}" + (
            f", of class {name}." if name else "."
        )
        return shown(painted), shown(self.examples.picture(near)), said


def add_map_tab(model: LatentModel) -> None:
    """Put the map into the page that is being built."""
    maps = DataMap(model)
    with gr.Tab("Map", id="map"):
        gr.Markdown(f"{len(model.examples or ())} pictures that the model was not trained on. Click a place.")
        with gr.Row():
            with gr.Column(min_width=300, scale=3):
                method = gr.Radio(list(_TITLES), value="PCA", label="Map")
                look = gr.Radio(list(_LOOKS), value="Dots", label="Show")
                figure = gr.Image(
                    maps.picture("PCA", "Dots"),
                    label="Map of the data",
                    interactive=False,
                    buttons=["fullscreen"],
                    elem_id="map",
                    format="png",
                )
                numbers = gr.Markdown(maps.numbers("PCA"), elem_id="map-numbers")
            with gr.Column(min_width=300, scale=2):
                place = gr.State(None)  # (x, y) that is marked
                said = gr.Markdown(_INVITATION, elem_id="map-place")
                with gr.Row():
                    painted = gr.Image(
                        label="Decoded",
                        interactive=False,
                        buttons=["download"],
                        min_width=140,
                        elem_id="map-decoded",
                        format="png",
                    )
                    nearest = gr.Image(
                        label="Nearest picture", interactive=False, buttons=[], min_width=140, format="png"
                    )
                with gr.Row():
                    x = gr.Number(0.0, label="x", min_width=100)
                    y = gr.Number(0.0, label="y", min_width=100)
                decode = gr.Button("Decode", elem_id="map-decode")

    @friendly
    def change_map(method: str, look: str) -> list[Any]:
        # A place on one map is nowhere on the other.
        centre = [round(value, 3) for value in Frame.of(maps.of(method).points).centre]
        return [maps.numbers(method), maps.picture(method, look), None, None, _INVITATION, None, *centre]

    @friendly
    def change_look(method: str, look: str, place: tuple[float, float] | None) -> Image.Image:
        return maps.picture(method, look, place)

    @friendly
    def decode_place(method: str, look: str, x: float, y: float) -> list[Any]:
        painted, nearest, said = maps.at(method, x, y)
        return [maps.picture(method, look, (x, y)), painted, nearest, said, (x, y)]

    @friendly
    def click(method: str, look: str, event: gr.SelectData) -> Any:
        column, row = event.index
        if row >= MAP_SIZE:  # the legend
            return gr.skip()
        x, y = Frame.of(maps.of(method).points).place(column, row)
        return [*decode_place(method, look, x, y), round(x, 3), round(y, 3)]

    marked = [figure, painted, nearest, said, place]
    common: dict[str, Any] = {"concurrency_id": "model", "show_progress_on": said}
    method.change(change_map, [method, look], [numbers, *marked, x, y], api_name="map", **common)
    look.change(change_look, [method, look, place], figure, api_name="look", **common)
    figure.select(click, [method, look], [*marked, x, y], api_visibility="private", **common)
    decode.click(decode_place, [method, look, x, y], marked, api_name="decode_place", **common)
