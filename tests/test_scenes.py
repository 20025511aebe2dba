"""Scenes: the parser reads real pictures, and says so when it cannot."""

from collections import Counter

import numpy as np
import pytest
from PIL import Image as PILImage

from hf_genzoo.data import DataArgs, MapImages, image_dataset
from hf_genzoo.data.scenes import (
    OFF_PALETTE,
    PALETTE,
    RELATIONS,
    SHAPES,
    SIZES,
    UNKNOWN,
    Scene,
    Thing,
    parse,
    parse_caption,
    render,
    sample,
    slots,
)


def some(n: int, seed: int = 0) -> list:
    rng = np.random.default_rng(seed)
    return [sample(rng) for _ in range(n)]


def accuracy(pairs) -> tuple[float, float]:
    """Share of right slots, and of pictures with all slots right."""
    counts = np.array([slots(wanted, found) for wanted, found in pairs])
    return counts[:, 0].sum() / counts[:, 1].sum(), (counts[:, 0] == counts[:, 1]).mean()


@pytest.mark.parametrize(("resolution", "n"), [(32, 1000), (48, 200), (64, 300)])
def test_the_parser_is_right_on_real_pictures(resolution, n):
    scenes = some(n)
    slot, whole = accuracy((scene, parse(render(scene, radii, resolution))) for scene, radii in scenes)
    assert slot > 0.998
    assert whole > 0.99


@pytest.mark.parametrize("resolution", [32, 64])
def test_the_parser_bears_mild_noise_and_floats(resolution):
    rng = np.random.default_rng(1)
    pairs = []
    for scene, radii in some(150, seed=2):
        noisy = render(scene, radii, resolution) / 255 + rng.normal(0, 0.04, (resolution, resolution, 3))
        pairs.append((scene, parse(np.clip(noisy, 0, 1))))
    assert accuracy(pairs)[0] > 0.995


def test_eight_bit_rounding_and_pil_change_nothing():
    scene, radii = some(1, seed=3)[0]
    picture = render(scene, radii, 64)
    assert parse(PILImage.fromarray(picture)) == parse(picture) == parse(picture / 255)


def test_every_word_is_read_from_a_picture():
    rng = np.random.default_rng(0)
    for size, (low, high) in SIZES.items():
        for colour in PALETTE:
            for shape in SHAPES:
                thing = Thing(size, colour, shape, *rng.uniform(0.4, 0.6, 2))
                found = parse(render(Scene((thing,)), (rng.uniform(low, high),), 32))
                assert [t.words for t in found.things] == [(size, colour, shape)]
                assert abs(found.things[0].x - thing.x) < 0.01


@pytest.mark.parametrize("colour", [(255, 140, 0), (128, 128, 128), (255, 150, 200), (120, 70, 20), (160, 220, 160)])
def test_a_colour_that_is_not_in_the_palette_is_not_guessed(colour, monkeypatch):
    monkeypatch.setitem(PALETTE, "odd", colour)
    picture = render(Scene((Thing("large", "odd", "square"),)), (0.15,), 64)
    monkeypatch.delitem(PALETTE, "odd")
    assert parse(picture).things[0].words == ("large", OFF_PALETTE, "square")


def test_a_shape_or_size_that_is_none_is_not_guessed():
    picture = np.full((64, 64, 3), 255, np.uint8)
    picture[30:34, 12:52] = PALETTE["red"]  # a bar
    assert parse(picture).things[0].words[1:] == ("red", UNKNOWN)
    y, x = np.mgrid[:64, :64]
    ring = np.full((64, 64, 3), 255, np.uint8)
    ring[(np.hypot(x - 32, y - 32) < 14) & (np.hypot(x - 32, y - 32) > 8)] = PALETTE["blue"]
    assert parse(ring).things[0].shape == UNKNOWN
    huge = render(Scene((Thing("large", "red", "circle"),)), (0.3,), 64)
    assert parse(huge).things[0].words == (UNKNOWN, "red", "circle")


def test_a_picture_without_objects_has_none():
    for level in (1.0, 0.97):
        assert parse(np.full((32, 32, 3), level)) == Scene((), None)
    speck = np.full((64, 64, 3), 255, np.uint8)
    speck[5:7, 5:7] = 0
    assert parse(speck).things == ()
    assert parse(speck).caption == "an empty picture"


def test_noise_is_not_read_as_a_scene():
    rng = np.random.default_rng(0)
    for _ in range(10):
        found = parse(rng.random((32, 32, 3)))
        assert not any(OFF_PALETTE not in t.words and UNKNOWN not in t.words for t in found.things)


def test_wrong_pictures_are_refused():
    for picture, message in (
        (np.zeros((32, 32), np.uint8), "square picture"),
        (np.zeros((16, 16, 3), np.uint8), "32 pixels"),
        (np.full((32, 32, 3), 1.5), r"\[0, 1\]"),
        (np.full((32, 32, 3), np.nan), r"\[0, 1\]"),
    ):
        with pytest.raises(ValueError, match=message):
            parse(picture)


def test_captions_are_read_back_and_words_are_uniform():
    scenes = [scene for scene, _ in some(3000, seed=5)]
    for scene in scenes:
        graph = parse_caption(scene.caption)
        assert [t.words for t in graph.things] == [t.words for t in scene.things]
        assert graph.relation == scene.relation
    counts = Counter(scene.relation for scene in scenes)
    assert abs(counts[None] / 3000 - 0.2) < 0.03
    assert all(abs(counts[relation] / 3000 - 0.2) < 0.03 for relation in RELATIONS)
    colours = Counter(thing.colour for scene in scenes for thing in scene.things)
    assert max(colours.values()) / min(colours.values()) < 1.25
    for caption in ("a red small circle", "a small red dog", "a small red circle near a large blue square"):
        with pytest.raises(ValueError, match="small"):
            parse_caption(caption)


def test_relations_hold_in_the_scene():
    for scene, _ in some(300, seed=6):
        if scene.relation is not None:
            one, two = scene.things
            dx, dy = one.x - two.x, one.y - two.y
            holds = {"left of": dx < -abs(dy), "right of": dx > abs(dy), "above": dy < -abs(dx), "below": dy > abs(dx)}
            assert [name for name, is_so in holds.items() if is_so] == [scene.relation]


def test_slots_count_what_agrees():
    red, blue = Thing("small", "red", "circle", 0.2, 0.5), Thing("large", "blue", "square", 0.8, 0.5)
    scene = Scene((red, blue), "left of")
    assert slots(scene, scene) == (7, 7)
    assert slots(scene, scene.converse()) == (7, 7)
    assert slots(scene, Scene((blue,))) == (3, 7)
    assert slots(scene, Scene(())) == (0, 7)
    swapped = Scene(
        (Thing("small", "red", "circle", 0.8, 0.5), Thing("large", "blue", "square", 0.2, 0.5)), "right of"
    )
    assert slots(scene, swapped) == (6, 7)
    assert slots(Scene((red,)), scene) == (3, 4)
    assert slots(scene, Scene((Thing("small", OFF_PALETTE, UNKNOWN, 0.2, 0.5), blue), "left of")) == (5, 7)


def test_scenes_are_a_dataset(tmp_path):
    args = DataArgs(
        dataset_name="scenes",
        dataset_split="test",
        caption_column="text",
        data_cache_dir=str(tmp_path),
        max_train_samples=50,
    )
    data = image_dataset(args)
    assert isinstance(data, MapImages)
    batch = data.examples(50)
    pictures = (batch["pixel_values"].permute(0, 2, 3, 1).numpy() + 1) / 2
    graphs = [parse_caption(caption) for caption in batch["captions"]]
    assert accuracy(zip(graphs, map(parse, pictures), strict=True))[0] > 0.99
    for options, message in (
        ({"num_channels": 1}, "--num_channels must be 3"),
        ({"resolution": 16}, "--resolution 32 or more"),
        ({"caption_column": "caption"}, "the columns are: text"),
        ({"dataset_config_name": "x"}, "no configuration 'x'; it has compositions"),
    ):
        with pytest.raises(ValueError, match=message):
            image_dataset(DataArgs(**vars(args) | options))
