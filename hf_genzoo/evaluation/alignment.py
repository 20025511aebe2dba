"""Does a generated scene show what its caption says? Read from the picture by the parser of `hf_genzoo.data.scenes`.

Papers
- Huang et al. 2023, "T2I-CompBench: A Comprehensive Benchmark for Open-world Compositional Text-to-image Generation":
  attributes and spatial relations measured apart.
- Ghosh et al. 2023, "GenEval: An Object-Focused Framework for Evaluating Text-to-Image Alignment": a picture is right
  only if count, colours and position are.

What differs from the papers and why: pictures are read by a parser that is right on real ones, not by detectors or
question-answering networks that err themselves; and the same pictures are compared with exchanged captions too, which
is what a generator that ignores its caption would score.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from hf_genzoo.data.scenes import Scene, parse, parse_caption, slot_matches, slots


@dataclass(frozen=True)
class SceneAlignment:
    """How well pictures agree with their captions; every share is in [0, 1].

    Attributes:
        count: Pictures with as many objects as the caption has.
        size: Objects of the captions whose size is right; an object that is missing has no slot right.
        colour: Likewise.
        shape: Likewise.
        relation: Captions with two objects whose relation holds in the picture; None if there are no such captions.
        slots: Mean over pictures of the share of slots that are right, an object too many being a wrong slot.
        all_correct: Pictures with every slot right and no object too many.
        shuffled_slots: `slots` of the same pictures with exchanged captions: what chance gives.
        shuffled_all_correct: `all_correct` likewise.
        num_pictures: Pictures compared.
        num_relations: Pictures whose caption has a relation.
        correct: For each picture whether it has every slot right and no object too many.
    """

    count: float
    size: float
    colour: float
    shape: float
    relation: float | None
    slots: float
    all_correct: float
    shuffled_slots: float
    shuffled_all_correct: float
    num_pictures: int
    num_relations: int
    correct: tuple[bool, ...]


def scene_alignment(images: Sequence[Any] | np.ndarray, captions: Sequence[str], seed: int = 0) -> SceneAlignment:
    """Read every picture and compare it, slot by slot, with its caption.

    Args:
        images: N square pictures of at least 32 pixels a side: uint8 (N, H, W, 3), floats (N, H, W, 3) in [0, 1], or
            PIL images.
        captions: Their captions, as the data set `scenes` writes them.
        seed: Seeds the exchange of captions for the control. No picture keeps its own caption; it may get an equal
            one, as often as captions repeat.

    Raises:
        ValueError: if numbers differ or are below 2, or a caption or a picture cannot be read; the message says which.
    """
    if len(images) != len(captions):
        raise ValueError(f"{len(images)} pictures against {len(captions)} captions: pass one caption for each picture")
    if len(images) < 2:
        raise ValueError(f"{len(images)} pictures: the control exchanges captions, so at least 2 are needed")
    wanted = [_read_caption(caption, f"caption {i} of {len(captions)}") for i, caption in enumerate(captions)]
    found = [_read_picture(image, f"picture {i} of {len(images)}") for i, image in enumerate(images)]

    matches = [match for w, f in zip(wanted, found, strict=True) for match in slot_matches(w, f)]
    right = {kind: [is_right for k, is_right in matches if k == kind] for kind, _ in matches}
    own_slots, own_all = _shares(wanted, found)
    shuffled_slots, shuffled_all = _shares(_exchanged(wanted, seed), found)
    return SceneAlignment(
        count=float(np.mean([len(w.things) == len(f.things) for w, f in zip(wanted, found, strict=True)])),
        size=float(np.mean(right["size"])),
        colour=float(np.mean(right["colour"])),
        shape=float(np.mean(right["shape"])),
        relation=float(np.mean(right["relation"])) if "relation" in right else None,
        slots=own_slots,
        all_correct=float(np.mean(own_all)),
        shuffled_slots=shuffled_slots,
        shuffled_all_correct=float(np.mean(shuffled_all)),
        num_pictures=len(wanted),
        num_relations=len(right.get("relation", [])),
        correct=tuple(own_all),
    )


def caption_kinds(captions: Sequence[str], training: Sequence[str]) -> list[str]:
    """What is asked for by each caption: "one" or "two" objects, or "one_held_out" or "two_held_out".

    Held out is a caption with a colour and a shape that no object of the training captions has together. A caption of
    nothing is "none".

    Raises:
        ValueError: if a caption cannot be read.
    """

    def combinations(caption: str) -> set[tuple[str, str]]:
        return {(thing.colour, thing.shape) for thing in parse_caption(caption).things}

    seen = set().union(*(combinations(caption) for caption in set(training)))
    kinds = []
    for caption in captions:
        number = ("none", "one", "two")[len(parse_caption(caption).things)]
        kinds.append(number if combinations(caption) <= seen else f"{number}_held_out")
    return kinds


def _read_caption(caption: str, which: str) -> Scene:
    try:
        return parse_caption(caption)
    except ValueError as error:
        raise ValueError(f"{which}: {error}") from error


def _read_picture(image: Any, which: str) -> Scene:
    try:
        return parse(image)
    except ValueError as error:
        raise ValueError(f"{which}: {error}") from error


def _exchanged(scenes: list[Scene], seed: int) -> list[Scene]:
    """Each scene handed on along a random circle through all of them, so that none stays where it was."""
    circle = np.random.default_rng(seed).permutation(len(scenes))
    exchanged = list(scenes)
    for giver, receiver in zip(circle, np.roll(circle, 1), strict=True):
        exchanged[receiver] = scenes[giver]
    return exchanged


def _shares(wanted: list[Scene], found: list[Scene]) -> tuple[float, list[bool]]:
    """Mean share of slots that are right, and for each scene whether all of them are."""
    right, total = np.array([slots(w, f) for w, f in zip(wanted, found, strict=True)]).T
    return float((right / total).mean()), (right == total).tolist()
