"""Captions through a frozen text encoder are encoded once, and found by encoder and text only."""

from collections.abc import Sequence
from pathlib import Path

import pytest
import torch
from text_models import CAPTIONS, text_encoder_folder

from hf_genzoo.data.caption_cache import PART, CaptionCache
from hf_genzoo.pipelines.glide import token_states
from hf_genzoo.text import FrozenTexts, encoder_key, load_text_encoder

LENGTH = 20


class Counting:
    """States that are the characters' codes."""

    def __init__(self) -> None:
        self.texts: list[str] = []

    def __call__(self, texts: Sequence[str]) -> tuple[torch.Tensor, torch.Tensor]:
        self.texts += texts
        states, mask = torch.full((len(texts), LENGTH, 3), float("nan")), torch.zeros(len(texts), LENGTH).bool()
        for i, text in enumerate(texts):
            codes = torch.tensor([ord(character) for character in f"<{text}"[:LENGTH]]).float()
            states[i, : len(codes)], mask[i, : len(codes)] = codes[:, None], True
        return states, mask


def test_each_text_is_encoded_once_for_each_encoder(tmp_path: Path) -> None:
    first, encode = CaptionCache(tmp_path, "encoder", LENGTH), Counting()
    assert first.fill(["b", "a", "b", ""], encode) == 3
    assert encode.texts == ["", "a", "b"]
    states, mask = first.gather(["b", "", "a"])
    assert states[:, 1, 0].tolist() == [ord("b"), 0.0, ord("a")]
    assert mask.sum(1).tolist() == [2, 1, 2]
    assert states[~mask].abs().sum() == 0  # padding is zero, whatever the encoder says there

    later, again = CaptionCache(tmp_path, "encoder", LENGTH), Counting()
    assert later.fill(["a", "c", "b"], again) == 1
    assert again.texts == ["c"]
    assert torch.equal(later.gather(["b", "", "a"])[0], states)

    for name, length in (("another", LENGTH), ("encoder", LENGTH - 1)):
        other = CaptionCache(tmp_path, name, length)
        assert "a" not in other
        with pytest.raises(KeyError):
            other.gather(["a"])


def test_a_killed_run_keeps_whole_parts(tmp_path: Path) -> None:
    texts = [f"{number:05d}" for number in range(PART + 10)]

    class Dying(Counting):
        def __call__(self, part: Sequence[str]) -> tuple[torch.Tensor, torch.Tensor]:
            if len(self.texts) >= PART:
                raise KeyboardInterrupt
            return super().__call__(part)

    with pytest.raises(KeyboardInterrupt):
        CaptionCache(tmp_path, "encoder", LENGTH).fill(texts, Dying())
    cache, encode = CaptionCache(tmp_path, "encoder", LENGTH), Counting()
    assert cache.fill(texts, encode) == 10
    assert encode.texts == texts[PART:]
    assert cache.gather(texts[-1:])[0][0, 1, 0] == ord("0")


@pytest.mark.parametrize("kind", ["clip", "t5", "bert"])
def test_kept_states_are_the_encoder_s(kind: str, tmp_path: Path) -> None:
    tokenizer, encoder = load_text_encoder(str(text_encoder_folder(kind, tmp_path / "a")))
    texts = FrozenTexts(tokenizer, encoder, LENGTH, tmp_path / "cache")
    assert texts.prepare([*CAPTIONS, ""]) == len(CAPTIONS) + 1
    states, mask = texts([CAPTIONS[1], ""], torch.device("cpu"))
    with torch.no_grad():
        fresh, real = token_states(tokenizer, encoder, [CAPTIONS[1], ""], LENGTH)
    assert torch.equal(mask, real)
    torch.testing.assert_close(states[mask], fresh[real], rtol=0, atol=1e-6)
    assert FrozenTexts(tokenizer, encoder, LENGTH, tmp_path / "cache").prepare(CAPTIONS) == 0

    # The same texts through another encoder of the same make are other entries.
    other_tokenizer, other = load_text_encoder(str(text_encoder_folder(kind, tmp_path / "b", seed=1)))
    assert encoder_key(tokenizer, encoder) != encoder_key(other_tokenizer, other)
    others = FrozenTexts(other_tokenizer, other, LENGTH, tmp_path / "cache")
    assert others.prepare(CAPTIONS) == len(CAPTIONS)
    assert not torch.equal(others(CAPTIONS, torch.device("cpu"))[0], texts(CAPTIONS, torch.device("cpu"))[0])


def test_the_key_is_content_and_not_place(tmp_path: Path) -> None:
    folder = text_encoder_folder("clip", tmp_path / "a")
    (tmp_path / "b").mkdir()
    moved = folder.rename(tmp_path / "b" / "moved")
    again = text_encoder_folder("clip", tmp_path / "a")
    assert encoder_key(*load_text_encoder(str(moved))) == encoder_key(*load_text_encoder(str(again)))
