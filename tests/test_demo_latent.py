"""The latent explorer: what its parts do with a model, and the app as a program uses it."""

import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from hub_toys import tiny_vae
from PIL import Image

pytest.importorskip("gradio", reason="the demo needs gradio")
pytest.importorskip("sklearn", reason="a t-SNE map needs scikit-learn")

from hf_genzoo.demo.app import build_app, start
from hf_genzoo.demo.examples import Examples
from hf_genzoo.demo.guard import check_upload
from hf_genzoo.demo.latent_model import LatentModel
from hf_genzoo.demo.map_tab import DataMap
from hf_genzoo.demo.pictures import SHOWN, TILE, film, shown, strip
from hf_genzoo.demo.sliders_tab import Sliders
from hf_genzoo.models.generator import ConvGenerator
from hf_genzoo.pipelines._latent_map import lay_out
from hf_genzoo.pipelines._map_figure import MAP_SIZE
from hf_genzoo.pipelines.gan import GANPipeline, WGANPipeline

GAP = 2  # pixels between the pictures of a grid
CELL = TILE + GAP


def test_strips_and_films_are_large_enough_to_see(tmp_path: Path) -> None:
    images = [Image.new("L", (8, 8), 60 * index) for index in range(4)]
    line = strip(images)
    assert line.size == (4 * CELL + GAP, CELL + GAP)
    assert [line.getpixel((CELL * i + GAP, GAP))[0] for i in range(4)] == [0, 60, 120, 180]
    assert strip(images, 2).size == (2 * CELL + GAP, 2 * CELL + GAP)
    with Image.open(film(images, tmp_path / "film.gif")) as moving:
        assert moving.size == shown(images[0]).size == (SHOWN, SHOWN)
        assert moving.n_frames == 6, "there and back, each end once"


# The app, as a program uses it


@pytest.fixture(scope="module")
def examples() -> Examples:
    random = np.random.default_rng(0)
    images = random.integers(0, 256, (40, 8, 8, 1), dtype=np.uint8)
    return Examples(images, np.arange(40) % 2, ("zero", "one"))


@pytest.fixture(scope="module")
def client(examples: Examples):
    api = pytest.importorskip("gradio_client", reason="drives the app")
    app = build_app(tiny_vae(latent_dim=10), title="Tiny", examples=examples)
    url = start(app, server_name="127.0.0.1")
    yield api.Client(url, verbose=False)
    app.close()


def pixels(path: str) -> np.ndarray:
    return np.asarray(Image.open(path).convert("L"))


def test_the_map_decodes_a_place(client, examples: Examples) -> None:
    model = LatentModel(tiny_vae(latent_dim=10), examples)
    laid_out = lay_out(model.latents, examples.labels)
    x, y = laid_out.points[5]
    figure, painted, nearest, said = client.predict("PCA", "Dots", float(x), float(y), api_name="/decode_place")
    assert "number 5, of class one" in said
    wanted = np.asarray(model.decode(laid_out.latent_at(x, y)[None])[0])
    assert np.abs(pixels(painted)[::24, ::24].astype(int) - wanted).max() <= 1
    assert np.abs(pixels(nearest)[12::24, 12::24].astype(int) - examples.images[5, ..., 0]).max() <= 1
    assert pixels(figure).shape[1] == MAP_SIZE
    marked = pixels(client.predict("PCA", "Dots", api_name="/look"))
    assert np.array_equal(marked, pixels(figure)), "the place stays marked"
    numbers, *_ = client.predict("t-SNE", "Pictures", api_name="/map")
    assert "Trustworthiness" in numbers
    assert "mean nothing on a t-SNE map" in numbers


def test_sliders_move_one_dimension(client, examples: Examples) -> None:
    model = LatentModel(tiny_vae(latent_dim=10), examples)
    page, first = "1 to 8 of 10", model.order[:8]
    latent = model.draw(3)
    painted, *sliders = client.predict("A random draw", 3, None, page, api_name="/begin")
    values = [slider["value"] for slider in sliders]
    assert values == [round(float(value), 2) for value in latent[first]]
    assert np.abs(pixels(painted)[12::24, 12::24].astype(int) - np.asarray(model.decode(latent[None])[0])).max() <= 1
    rows = client.predict(page, api_name="/traverse")["value"]
    assert pixels(rows).shape == (8 * CELL + GAP, 9 * CELL + GAP)
    start, values[0] = pixels(painted), 2.5
    painted = client.predict(page, *values, api_name="/move")
    latent[first[0]] = 2.5
    assert np.abs(pixels(painted)[12::24, 12::24].astype(int) - np.asarray(model.decode(latent[None])[0])).max() <= 1
    painted, *sliders = client.predict(page, api_name="/reset")
    assert np.array_equal(pixels(painted), start)
    assert sliders[0]["value"] != 2.5


def test_a_latent_beyond_the_sliders_stays_until_it_is_moved() -> None:
    sliders = Sliders(LatentModel(tiny_vae(latent_dim=10)))
    latent = [7.0, -9.0, *[0.123456] * 8]
    stand = [update["value"] for update in sliders.updates(latent, sliders.first)]
    assert stand[:3] == [3.0, -3.0, 0.12]
    assert sliders.moved(latent, sliders.first, tuple(stand)) == latent
    stand[1] = 1.0
    assert sliders.moved(latent, sliders.first, tuple(stand)) == [7.0, 1.0, *latent[2:]]
    with pytest.raises(ValueError, match=r"Dimension 0 must lie between -3.0 and 3.0; it is 4"):
        sliders.moved(latent, sliders.first, (4.0, *stand[1:]))
    last = list(sliders.pages)[-1]
    assert [update["visible"] for update in sliders.updates(latent, last)] == [True] * 2 + [False] * 6
    assert sliders.moved(latent, last, (1.0, 2.0, *stand[2:]))[8:] == [1.0, 2.0]


def test_rows_move_one_dimension_from_end_to_end() -> None:
    model = LatentModel(tiny_vae(latent_dim=3))
    rows = np.asarray(Sliders(model).traversal([0.5, 0.0, -0.5], "1 to 3 of 3").convert("L"))
    assert rows.shape == (3 * CELL + GAP, 9 * CELL + GAP)
    for row, column, latent in ((0, 0, [-3, 0, -0.5]), (1, 8, [0.5, 3, -0.5]), (2, 4, [0.5, 0, 0])):
        top, left = GAP + row * CELL, GAP + column * CELL
        tile = rows[top : top + TILE, left : left + TILE]
        assert np.array_equal(tile[6::12, 6::12], np.asarray(model.decode(np.array([latent]))[0]))


def test_a_generator_without_an_encoder() -> None:
    """What remains is sliders and seeds; a map and uploads need an encoder."""
    torch.manual_seed(0)
    net_g = ConvGenerator(latent_dim=4, sample_size=8, block_out_channels=(8, 4))
    pipeline = WGANPipeline(net_g.eval())
    pictures = np.zeros((20, 8, 8, 1), np.uint8)
    app = build_app(pipeline, title="Tiny", examples=Examples(pictures))
    names = {dependency.api_name for dependency in app.fns.values()}
    assert {"begin", "move", "traverse", "between"} <= names
    assert not {"map", "decode_place"} & names
    model = LatentModel(pipeline)
    painted = np.asarray(model.decode(model.draw(4)[None])[0])
    assert np.array_equal(painted, np.asarray(pipeline(latents=torch.from_numpy(model.draw(4)[None])).images[0]))
    assert not np.array_equal(painted, np.asarray(model.decode(model.draw(5)[None])[0]))
    with pytest.raises(ValueError, match="cannot start from 'An uploaded picture'"):
        Sliders(model).start("An uploaded picture", 0, None)
    with pytest.raises(ValueError, match="The seed must be a whole number"):
        Sliders(model).start("A random draw", 0.5, None)


def test_a_generator_with_classes_is_sampled_only() -> None:
    """Its latent alone does not say what is painted: without a label each picture is of a class drawn anew."""
    net_g = ConvGenerator(latent_dim=4, sample_size=8, block_out_channels=(8, 4), num_classes=3)
    app = build_app(GANPipeline(net_g.eval()), title="Tiny")
    names = {dependency.api_name for dependency in app.fns.values()}
    assert "sample" in names
    assert not {"begin", "move", "traverse", "between"} & names


def test_a_map_without_scikit_learn_says_what_to_install(examples: Examples, monkeypatch) -> None:
    maps = DataMap(LatentModel(tiny_vae(latent_dim=10), examples))
    monkeypatch.setitem(sys.modules, "sklearn.manifold", None)
    assert "keeps" in maps.numbers("PCA")
    with pytest.raises(ValueError, match=r"t-SNE is not to be had here: .* pip install"):
        maps.numbers("t-SNE")


def test_between_two_pictures(client, examples: Examples, tmp_path: Path) -> None:
    from gradio_client import handle_file

    for number in (0, 1):
        examples.picture(number).resize((50, 30)).save(tmp_path / f"{number}.png")
    one, other = (handle_file(str(tmp_path / f"{number}.png")) for number in (0, 1))
    row, film, pairs, still, moving = client.predict(one, other, 5, "spherical", api_name="/between")
    assert pixels(row).shape == (CELL + GAP, 5 * CELL + GAP)
    assert pixels(pairs).shape == (CELL + GAP, 4 * CELL + GAP)
    assert 2 <= Image.open(film).n_frames <= 8, "frames that look alike are one"
    assert still["value"] if isinstance(still, dict) else still
    assert moving


@pytest.mark.parametrize(
    ("api_name", "arguments", "message"),
    [
        ("/decode_place", ("PCA", "Dots", 1e9, 0.0), "x must lie between"),
        ("/decode_place", ("UMAP", "Dots", 0.0, 0.0), "There is no map|not in the list"),
        (
            "/begin",
            ("A data picture", 40, None, "1 to 8 of 10"),
            "The number of the picture must lie",
        ),
        ("/begin", ("An uploaded picture", 0, None, "1 to 8 of 10"), "Please upload a picture first"),
        ("/between", (None, None, 5, "linear"), "Please upload a picture first"),
    ],
)
def test_bad_input_is_told_in_words(client, api_name: str, arguments: tuple, message: str) -> None:
    from gradio_client.exceptions import AppError

    with pytest.raises(AppError, match=message):
        client.predict(*arguments, api_name=api_name)


def test_uploads_are_shown_as_the_model_sees_them(tmp_path: Path) -> None:
    clear = Image.new("RGBA", (6, 6), (0, 0, 0, 0))
    clear.putpixel((0, 0), (9, 9, 9, 255))
    clear.save(tmp_path / "clear.png")
    grey = Image.fromarray(np.full((6, 6), 128 * 257, np.uint16))
    grey.save(tmp_path / "grey.png")
    seen = [check_upload(tmp_path / name) for name in ("clear.png", "grey.png")]
    assert [image.getpixel((3, 3)) for image in seen] == [(255, 255, 255), (128, 128, 128)]
    assert seen[0].getpixel((0, 0)) == (9, 9, 9)
    pipeline = tiny_vae()
    for image, given in zip(seen, (clear, grey), strict=True):
        assert torch.equal(pipeline.encode(image), pipeline.encode(given))


def test_a_file_that_is_no_picture(client, tmp_path: Path) -> None:
    from gradio_client import handle_file
    from gradio_client.exceptions import AppError

    path = tmp_path / "text.png"
    path.write_text("no picture")
    with pytest.raises(AppError, match="cannot be read as a picture"):
        client.predict(handle_file(str(path)), handle_file(str(path)), 5, "linear", api_name="/between")
