"""What a frozen text encoder makes of captions, computed once and kept on disk.

An entry's key is the encoder (weights, tokenizer, tokens a caption) and the text, and nothing else: another batch
size, picture size, seed or set of pictures never encodes a caption again, and another encoder never finds this one's.

A cache is a folder `captions-<encoder>` with parts, each of up to 1,024 captions: `states.npy`, float32 (T, dim), the
states of their tokens without padding, one caption after another, and `meta.json`. A part is written aside and renamed
into place, so a killed run keeps all but its last one; two processes that encode the same captions write one part.
"""

import json
import shutil
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import torch
from filelock import FileLock
from torch import Tensor
from tqdm.auto import tqdm

from hf_genzoo.data.fingerprint import digest

VERSION = 1
PART, AT_ONCE = 1024, 64

Encode = Callable[[Sequence[str]], tuple[Tensor, Tensor]]
"""From B texts to states (B, L, dim) and their mask (B, L)."""


class CaptionCache:
    """Token states of captions.

    Args:
        root: Folder of all caches.
        encoder: Names the encoder, by its content (see `hf_genzoo.text.encoder_key`).
        length: L, the tokens of a caption with padding.
    """

    def __init__(self, root: Path, encoder: str, length: int) -> None:
        self._folder = root / f"captions-{digest(VERSION, encoder, length)}"
        self._length = length
        self._where: dict[str, tuple[np.ndarray, int, int]] = {}
        for part in sorted(self._folder.glob("*/meta.json")):
            self._open(part.parent)

    def __contains__(self, text: str) -> bool:
        return text in self._where

    def fill(self, texts: Sequence[str], encode: Encode, name: str = "captions") -> int:
        """Encode the texts that are not there.

        Args:
            texts: Any number, repetitions included.
            encode: The encoder.
            name: What to call them on the progress bar.

        Returns:
            How many were encoded.
        """
        missing = sorted({text for text in texts if text not in self._where})
        with tqdm(total=len(missing), desc=f"encoding {name}", unit="text", disable=None, leave=False) as bar:
            for start in range(0, len(missing), PART):
                part = missing[start : start + PART]
                self._open(self._write(part, encode))
                bar.update(len(part))
        return len(missing)

    def gather(self, texts: Sequence[str], device: torch.device | str = "cpu") -> tuple[Tensor, Tensor]:
        """States (B, L, dim), zero at padding, and their mask, bool (B, L).

        Raises:
            KeyError: a text that was not encoded.
        """
        found = [self._where[text] for text in texts]
        states = np.zeros((len(found), self._length, found[0][0].shape[1]), np.float32)
        mask = np.zeros((len(found), self._length), bool)
        for i, (part, start, count) in enumerate(found):
            states[i, :count], mask[i, :count] = part[start : start + count], True
        return torch.from_numpy(states).to(device), torch.from_numpy(mask).to(device)

    def _open(self, folder: Path) -> None:
        meta = json.loads((folder / "meta.json").read_text())
        states = np.load(folder / "states.npy", mmap_mode="r")
        start = 0
        for text, count in meta:
            self._where[text] = (states, start, count)
            start += count

    def _write(self, texts: list[str], encode: Encode) -> Path:
        """Encode one part, aside, under a lock that keeps other processes from doing the same meanwhile."""
        folder = self._folder / digest(texts)
        self._folder.mkdir(parents=True, exist_ok=True)
        with FileLock(f"{folder}.lock"):
            if folder.exists():
                return folder
            aside = folder.with_name(f".{folder.name}.partial")
            shutil.rmtree(aside, ignore_errors=True)
            aside.mkdir()
            states, counts = [], []
            for start in range(0, len(texts), AT_ONCE):
                with torch.no_grad():
                    found, mask = encode(texts[start : start + AT_ONCE])
                for row, real in zip(found.float().cpu(), mask.cpu(), strict=True):
                    states.append(row[real].numpy())
                    counts.append(int(real.sum()))
            np.save(aside / "states.npy", np.concatenate(states))
            (aside / "meta.json").write_text(json.dumps(list(zip(texts, counts, strict=True))))
            aside.rename(folder)
        return folder
