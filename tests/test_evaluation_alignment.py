"""Text alignment on scenes: pictures with planted faults lose the slots of that fault and no others."""

from collections import Counter
from dataclasses import asdict, replace

import numpy as np
import pytest
from PIL import Image as PILImage

from hf_genzoo.data.scenes import (
    COMPOSITIONS,
    HELD_OUT,
    PALETTE,
    SHAPES,
    SIZES,
    Scene,
    Thing,
    computed,
    render,
    scenes,
    slot_matches,
    slots,
)
from hf_genzoo.evaluation import alignment
from hf_genzoo.evaluation.alignment import SceneAlignment, caption_kinds, scene_alignment

RIGHT = {"count": 1, "size": 1, "colour": 1, "shape": 1, "relation": 1, "slots": 1, "all_correct": 1}


def own(report: SceneAlignment) -> dict[str, float]:
    """The shares of pictures against their own captions."""
    return {name: value for name, value in asdict(report).items() if name in RIGHT}


@pytest.fixture(scope="module")
def some() -> list[tuple[Scene, tuple[float, ...]]]:
    return scenes("test")[:150]


@pytest.fixture(scope="module")
def pairs(some) -> list[tuple[Scene, tuple[float, ...]]]:
    """Scenes with two objects that differ, so that only one match of objects is best."""
    return [(s, radii) for s, radii in some if len(s.things) == 2 and s.things[0].words != s.things[1].words][:80]


def captions(drawn) -> list[str]:
    return [scene.caption for scene, _ in drawn]


def pictures(drawn, resolution: int = 64) -> np.ndarray:
    return np.stack([render(scene, radii, resolution) for scene, radii in drawn])


def test_real_pictures_are_right_in_everything(some) -> None:
    report = scene_alignment(pictures(some), captions(some))
    assert own(report) == RIGHT
    assert report.num_pictures == 150
    assert report.num_relations == sum(scene.relation is not None for scene, _ in some)
    assert report.shuffled_all_correct < 0.03
    assert 0.2 < report.shuffled_slots < 0.4


def test_arrays_floats_and_pil_images_score_the_same(some) -> None:
    drawn, texts = pictures(some[:20], 32), captions(some[1:21])  # not their own captions: shares below 1
    report = scene_alignment(drawn, texts, seed=3)
    assert scene_alignment(drawn / 255, texts, seed=3) == report
    assert scene_alignment([PILImage.fromarray(p) for p in drawn], texts, seed=3) == report


def test_other_colours_are_wrong_colours_only(some) -> None:
    def recoloured(scene: Scene) -> Scene:
        unused = [name for name in PALETTE if name not in {thing.colour for thing in scene.things}]
        things = [replace(thing, colour=name) for thing, name in zip(scene.things, unused, strict=False)]
        return replace(scene, things=tuple(things))

    report = scene_alignment(pictures([(recoloured(scene), radii) for scene, radii in some]), captions(some))
    share = np.mean([2 / 3 if scene.relation is None else 5 / 7 for scene, _ in some])
    assert own(report) == RIGHT | {"colour": 0, "all_correct": 0, "slots": pytest.approx(share)}


def test_exchanged_colours_are_wrong_colours_unless_the_converse_explains_them() -> None:
    """Of one size and shape, two objects with exchanged colours are the same two objects the other way round."""
    red, blue = Thing("small", "red", "circle", 0.2, 0.5), Thing("large", "blue", "circle", 0.8, 0.5)
    exchanged = Scene((replace(red, colour="blue"), replace(blue, colour="red")), "left of")
    wrong = [kind for kind, right in slot_matches(Scene((red, blue), "left of"), exchanged) if not right]
    assert wrong == ["colour", "colour"]
    twin = replace(blue, size="small")
    exchanged = Scene((replace(red, colour="blue"), replace(twin, colour="red")), "left of")
    wrong = [kind for kind, right in slot_matches(Scene((red, twin), "left of"), exchanged) if not right]
    assert wrong == ["relation"]


def test_mirrored_pictures_lose_left_and_right_only(pairs) -> None:
    report = scene_alignment(pictures(pairs)[:, :, ::-1], captions(pairs))
    upright = np.mean([scene.relation in ("above", "below") for scene, _ in pairs])
    assert 0.3 < upright < 0.7
    share = upright + (1 - upright) * 6 / 7
    expected = {name: pytest.approx(upright) for name in ("relation", "all_correct")}
    assert own(report) == RIGHT | expected | {"slots": pytest.approx(share)}


def test_a_missing_object_takes_its_slots_and_the_relation(pairs) -> None:
    alone = [(Scene(scene.things[:1]), radii[:1]) for scene, radii in pairs]
    half = dict.fromkeys(("size", "colour", "shape"), 0.5)
    expected = {"count": 0, "relation": 0, "slots": pytest.approx(3 / 7), "all_correct": 0} | half
    assert own(scene_alignment(pictures(alone), captions(pairs))) == expected


def test_an_object_too_many_is_no_right_picture(pairs) -> None:
    texts = [Scene(scene.things[:1]).caption for scene, _ in pairs]
    report = scene_alignment(pictures(pairs), texts)
    assert own(report) == RIGHT | {"count": 0, "relation": None, "slots": 0.75, "all_correct": 0}
    assert report.num_relations == 0


def test_noise_and_empty_pictures_are_never_right(some) -> None:
    noise = np.random.default_rng(0).random((20, 64, 64, 3))
    report = scene_alignment(noise, captions(some[:20]))
    assert (report.all_correct, report.colour, report.relation) == (0, 0, 0)
    empty = scene_alignment(np.ones((20, 64, 64, 3)), captions(some[:20]))
    assert own(empty) == dict.fromkeys(RIGHT, 0)


def test_the_control_gives_chance(monkeypatch: pytest.MonkeyPatch) -> None:
    """Each of 42 one-object captions twice: of 83 others, 41 have the size, 11 the colour, 27 the shape, 1 all three.

    The captions themselves stand for what is read from pictures, so that 200 exchanges cost nothing.
    """
    read = 2 * [Scene((Thing(size, colour, shape),)) for size in SIZES for colour in PALETTE for shape in SHAPES]
    monkeypatch.setattr(alignment, "parse", read.__getitem__)
    texts = [scene.caption for scene in read]
    found = [scene_alignment(range(84), texts, seed) for seed in range(200)]
    assert {report.all_correct for report in found} == {1.0}
    shares = np.array([(report.shuffled_slots, report.shuffled_all_correct) for report in found])
    error = 4 * shares.std(axis=0) / np.sqrt(200)
    assert (np.abs(shares.mean(axis=0) - [(41 + 11 + 27) / (3 * 83), 1 / 83]) < error).all()
    assert len(set(shares[:, 0])) > 10  # seeds differ
    assert scene_alignment(range(84), texts, 7) == found[7]


def test_no_picture_keeps_its_own_caption(some) -> None:
    """Two pictures can only exchange their captions."""
    (one, _), (two, _) = drawn = some[:2]
    for seed in range(5):
        report = scene_alignment(pictures(drawn), captions(drawn), seed)
        crossed = [slots(one, two), slots(two, one)]
        assert report.shuffled_slots == pytest.approx(np.mean([right / total for right, total in crossed]))


def test_bad_input_is_named(some) -> None:
    drawn, texts = pictures(some[:3], 32), captions(some[:3])
    for images, words, message in (
        (drawn, texts[:2], "3 pictures against 2 captions"),
        (drawn[:1], texts[:1], "1 pictures: the control exchanges captions"),
        (drawn, [*texts[:2], "a dog"], "caption 2 of 3: cannot read 'a dog'"),
        (drawn[:, :16, :16], texts, "picture 0 of 3: scenes need 32 pixels"),
        (
            drawn.transpose(0, 3, 1, 2),
            texts,
            r"picture 0 of 3: expected a square picture \(H, W, 3\), got \(3, 32",
        ),
        (drawn / 127.5 - 1, texts, r"picture 0 of 3: floats must be in \[0, 1\]"),
    ):
        with pytest.raises(ValueError, match=message):
            scene_alignment(images, words)


def test_kinds_of_captions_by_what_training_has_shown() -> None:
    training = ["a small red circle", "a large blue square above a small green circle", "a large red square"]
    asked = {
        "a large red circle": "one",
        "a small blue circle": "one_held_out",
        "a large green circle left of a small red square": "two",
        "a large green circle left of a small green square": "two_held_out",
    }
    assert caption_kinds(list(asked), training) == list(asked.values())


def test_the_compositions_of_scenes_are_new_in_the_other_splits_only() -> None:
    sets = {split: computed(split, COMPOSITIONS) for split in ("train", "validation")}
    kinds = {
        name: Counter(caption_kinds(s.captions["text"], sets["train"].captions["text"])) for name, s in sets.items()
    }
    assert set(kinds["train"]) == {"one", "two"}
    combinations = len(PALETTE) * len(SHAPES)
    shown = 1 - len(HELD_OUT) / combinations
    assert kinds["validation"]["one"] / 400 == pytest.approx(shown, abs=0.1)
    assert kinds["validation"]["two"] / 1600 == pytest.approx(shown**2, abs=0.05)
    whole = computed("train", None)
    assert sets["train"].num_rows < whole.num_rows
    assert sets["train"].recipe != whole.recipe
    words = " ".join(sets["train"].captions["text"])
    assert all(word in words for word in (*PALETTE, *SHAPES))
