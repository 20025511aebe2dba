"""Features of real pictures, kept: they are the same for every model that is measured on one data set."""

import logging
import zipfile
import zlib
from pathlib import Path

import numpy as np

from hf_genzoo.atomic import replacing
from hf_genzoo.data.fingerprint import cache_root, digest
from hf_genzoo.evaluation.extractors import Extractor, Features, Images
from hf_genzoo.evaluation.resize import RESIZER

logger = logging.getLogger(__name__)


def cached_features(
    extractor: Extractor, images: Images, key: str, cache_dir: str | Path | None, progress: bool = True
) -> Features:
    """`extractor(images)`, read from `<cache>/features` where it was taken before.

    A file that is damaged is named in a warning and taken anew.

    Args:
        extractor: Its hash is part of the file's name.
        images: uint8 (N, C, H, W); not read where the features are there.
        key: Digest of what the pictures are, with the way they were cropped and resized: equal keys must mean equal
            pictures in equal order, up to their number.
        cache_dir: Root of the caches; None for the default of `cache_root`.
        progress: Show a bar on a terminal.

    Raises:
        ValueError: see `Extractor`.
        OSError: if the cache cannot be written.
    """
    root = cache_root(None if cache_dir is None else str(cache_dir)) / "features"
    root.mkdir(exist_ok=True)
    path = root / f"{digest(key, extractor.hash, RESIZER, list(images.shape))}.npz"
    if path.exists():
        try:
            return _read(path, len(images), extractor.dim)
        except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile, zlib.error) as error:
            logger.warning("the features in %s are damaged (%s): taking them again", path, error)
    features = extractor(images, progress=progress)
    _write(path, features)
    return features


def _read(path: Path, count: int, dim: int) -> Features:
    with np.load(path, allow_pickle=False) as stored:  # the zip archive checks what it gives by its checksums
        values = stored["values"]
        probabilities = stored["probabilities"] if "probabilities" in stored.files else None
    if values.shape != (count, dim) or (probabilities is not None and len(probabilities) != count):
        raise ValueError(f"features of shape {values.shape} instead of {(count, dim)}")
    return Features(values, probabilities)


def _write(path: Path, features: Features) -> None:
    arrays = {"values": features.values}
    if features.probabilities is not None:
        arrays["probabilities"] = features.probabilities
    with replacing(path) as aside, open(aside, "wb") as file:  # given a name, savez would append .npz to it
        np.savez(file, **arrays)  # pyright: ignore[reportArgumentType]
