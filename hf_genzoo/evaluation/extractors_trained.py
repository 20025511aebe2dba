"""The classifier as an extractor, and the folder in which trained ones are kept."""

import json
import logging
import os
import shutil
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from filelock import FileLock, Timeout
from numpy.typing import NDArray

from hf_genzoo.data.fingerprint import cache_root, digest
from hf_genzoo.evaluation.classifier import MOST_EPOCHS, MOST_SEEN, classify, train_classifier
from hf_genzoo.evaluation.extractors import Extractor, Images, arrays_hash, weights_hash
from hf_genzoo.evaluation.resize import RESIZER
from hf_genzoo.models.classifier import ConvClassifier

logger = logging.getLogger(__name__)

VERSION = 1
"""Part of hashes and keys: raised when the same pictures would give another classifier, or it other features."""

SAMPLED_FOR_KEY = 1000


class ClassifierExtractor(Extractor):
    """Penultimate activations and class probabilities of a classifier.

    Args:
        net: The classifier; it is moved to the device and set to evaluate.
        device: Where to compute.

    Attributes:
        class_names: What the columns of the probabilities stand for.
    """

    name = "classifier"

    def __init__(self, net: ConvClassifier, device: torch.device | str = "cpu") -> None:
        self.net = net.to(device).eval()  # pyright: ignore[reportArgumentType]
        self.class_names = net.class_names
        self.dim = net.config["feature_dim"]
        self.hash = digest("classifier", VERSION, RESIZER, net.config["sample_size"], weights_hash(net.state_dict()))

    def _extract(self, batch: Images) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        return classify(self.net, batch)


def cached_classifier(
    images: Images,
    labels: NDArray[np.int64],
    class_names: Sequence[str],
    fingerprint: str,
    cache_dir: str | Path | None,
    device: torch.device | str,
) -> ConvClassifier:
    """The classifier of a data set from `<cache>/classifiers`; trained and put there if it is not there whole.

    Of several processes that want the same one, one trains and the others wait.

    Args:
        images: Training pictures, uint8 (N, C, H, W).
        labels: Their classes, int64 (N,).
        class_names: Name of each class.
        fingerprint: Hash of the stored data. How the pictures were cropped and resized is not in it, so the key has
            1,000 of the pictures as well, spread over the set.
        cache_dir: Root of the caches; None for the default of `cache_root`.
        device: Where to train.

    Raises:
        ValueError: see `train_classifier`.
    """
    sample = np.linspace(0, len(images) - 1, min(len(images), SAMPLED_FOR_KEY)).astype(np.int64)
    content = arrays_hash(np.asarray(images[sample]), np.asarray(labels, dtype=np.int64))
    key = digest(VERSION, fingerprint, list(images.shape), list(class_names), content, MOST_EPOCHS, MOST_SEEN)
    root = cache_root(None if cache_dir is None else str(cache_dir)) / "classifiers"
    root.mkdir(exist_ok=True)
    folder = root / key
    lock = FileLock(f"{folder}.lock")
    try:
        lock.acquire(timeout=0)
    except Timeout:
        logger.info("another process is training this classifier: waiting for it")
        lock.acquire()
    try:
        net = _open(folder)
        if net is None:
            net = train_classifier(images, labels, class_names, device=device)
            _keep(net, folder)
    finally:
        lock.release()
    return net


def _open(folder: Path) -> ConvClassifier | None:
    """The classifier in a folder; None if there is none, or a damaged one."""
    if not folder.exists():
        return None
    try:
        wanted = json.loads((folder / "weights.json").read_text())
        net = ConvClassifier.from_pretrained(folder)
        assert isinstance(net, ConvClassifier)
        if weights_hash(net.state_dict()) != wanted:
            raise ValueError("the weights are not those that were stored")
    except Exception as error:  # each library has its own way to say that a file is torn
        logger.warning("the classifier in %s is damaged (%s): training it again", folder, error)
        return None
    return net


def _keep(net: ConvClassifier, folder: Path) -> None:
    """Write a classifier aside and rename it into place."""
    aside = folder.with_name(f"{folder.name}.partial")
    for left in (aside, folder):  # left by a process that was killed, or damaged: the lock is ours
        shutil.rmtree(left, ignore_errors=True)
    net.save_pretrained(aside)
    (aside / "weights.json").write_text(json.dumps(weights_hash(net.state_dict())))
    os.rename(aside, folder)
