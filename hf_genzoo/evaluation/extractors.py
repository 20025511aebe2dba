"""Feature extractors: pictures to vectors in which two sets of pictures are compared.

A distance of features says as much about the extractor as about the pictures, so each extractor carries a hash of all
that decides its features; numbers of two different hashes are never comparable. Which extractor for what:

- 'classifier': a small network trained on the classes of the training data; sees what tells the classes apart.
- 'random': untrained convolutions with fixed weights; needs no data and no download, and no generator was tuned to it.
- 'pca': the first principal components of the pixels; sees layout and brightness.
- 'inception': the features of the published FID (Heusel et al. 2017), through torch-fidelity.
- a vision model of transformers (DINOv2, CLIP, SigLIP, ViT, ...) by Hub id or folder; id@revision pins one version.
- a folder with a `ConvClassifier`.
"""

import hashlib
import json
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from tqdm.auto import tqdm

from hf_genzoo.data.fingerprint import DIGEST_SIZE, digest
from hf_genzoo.evaluation.resize import check_square

Images = NDArray[np.uint8]

BUILT_IN = ("classifier", "random", "pca", "inception")
"""What `get_extractor` takes beside folders and ids."""


@dataclass(frozen=True)
class Features:
    """What an extractor sees in N pictures.

    Attributes:
        values: float32 (N, D).
        probabilities: float32 (N, K), class probabilities that sum to 1; None where the extractor knows no classes.
    """

    values: NDArray[np.float32]
    probabilities: NDArray[np.float32] | None


class Extractor(ABC):
    """Pictures to features.

    Attributes:
        name: For people: 'classifier', 'random', 'pca', 'inception', or the model's id.
        hash: Hex digest of weights, preprocessing and code version: equal where features are comparable.
        dim: Length of a feature vector.
        batch_size: Pictures that go through at once; features do not depend on it.
    """

    name: str
    hash: str
    dim: int
    batch_size: int = 256

    def __call__(self, images: Images, progress: bool = True) -> Features:
        """Features of pictures, uint8 (N, C, H, W) with C 1 or 3 and H = W, in their order.

        Args:
            images: The pictures; a memory map is read one batch at a time.
            progress: Show a bar on a terminal.

        Raises:
            ValueError: if the pictures are of another type or shape, not square, or none.
        """
        check_square(images)
        if len(images) == 0:
            raise ValueError("there are no pictures to take features of")
        values, probabilities = [], []
        with tqdm(
            total=len(images), desc=f"{self.name} features", unit="img", disable=None if progress else True
        ) as bar:
            for start in range(0, len(images), self.batch_size):
                batch = np.ascontiguousarray(images[start : start + self.batch_size])
                with torch.inference_mode():
                    found, classes = self._extract(batch)
                values.append(found)
                probabilities.append(classes)
                bar.update(len(batch))
        known = probabilities[0] is not None
        return Features(np.concatenate(values), np.concatenate(probabilities) if known else None)

    @abstractmethod
    def _extract(self, batch: Images) -> tuple[NDArray[np.float32], NDArray[np.float32] | None]:
        """Features (B, D) and class probabilities (B, K), or None, of one batch (B, C, H, W)."""


def arrays_hash(*arrays: np.ndarray) -> str:
    """Hash of the types, shapes and numbers of arrays."""
    total = hashlib.blake2b(digest_size=DIGEST_SIZE)
    for array in arrays:
        total.update(f"{array.dtype.str} {array.shape}\n".encode())
        total.update(np.ascontiguousarray(array).data)
    return total.hexdigest()


def weights_hash(weights: Mapping[str, torch.Tensor]) -> str:
    """Hash of the tensors of a state dict, without their names: transformers renames layers between versions."""
    found = []
    for value in weights.values():
        value = value.detach().cpu().contiguous()
        numbers = value.flatten().view(torch.uint8).numpy()  # bytes: numpy has no bfloat16
        found.append(digest(str(value.dtype), list(value.shape), arrays_hash(numbers)))
    return digest(sorted(found))


def get_extractor(
    spec: str,
    *,
    train_images: Images | None = None,
    train_labels: NDArray[np.int64] | None = None,
    class_names: Sequence[str] | None = None,
    data_fingerprint: str | None = None,
    cache_dir: str | Path | None = None,
    device: torch.device | str = "cpu",
) -> Extractor:
    """The extractor that `spec` names.

    Args:
        spec: 'classifier', 'random', 'pca', 'inception', a folder that holds a `ConvClassifier` or a vision model of
            transformers, or such a model's id on the Hub, alone or as id@revision.
        train_images: Real training pictures, uint8 (N, C, H, W), for 'classifier' and 'pca'.
        train_labels: Their classes, int64 (N,), for 'classifier'.
        class_names: Name of each class, for 'classifier'.
        data_fingerprint: Hash of the data set's content, for 'classifier': the key under which it is kept.
        cache_dir: Root of the caches; None for the default of `cache_root`.
        device: Where to compute.

    Raises:
        ValueError: if nothing is called that, or it cannot be had from what is given; the message says what can.
        OSError: if weights cannot be downloaded.
    """
    # Imported here: transformers takes seconds, and every other extractor does without it.
    if spec == "random":
        from hf_genzoo.evaluation.extractors_pixels import RandomConvolutions

        return RandomConvolutions(device=device)
    if spec == "pca":
        from hf_genzoo.evaluation.extractors_pixels import PixelPCA

        if train_images is None:
            raise ValueError("the extractor 'pca' is fitted to training pictures, and there are none; use 'random'")
        return PixelPCA.fit(train_images)
    if spec == "inception":
        from hf_genzoo.evaluation.extractors_inception import Inception

        return Inception(device=device)
    if spec == "classifier":
        return _classifier(train_images, train_labels, class_names, data_fingerprint, cache_dir, device)
    folder = Path(spec).expanduser()
    if folder.is_dir() and is_classifier(folder):
        from hf_genzoo.evaluation.extractors_trained import ClassifierExtractor
        from hf_genzoo.models.classifier import ConvClassifier

        return ClassifierExtractor(ConvClassifier.from_pretrained(folder), device=device)
    if folder.is_dir() or "/" in spec:
        from hf_genzoo.evaluation.extractors_pretrained import VisionModel

        name, _, revision = (str(folder), "", "") if folder.is_dir() else spec.partition("@")
        return VisionModel(name, revision=revision or None, device=device)
    raise ValueError(
        f"there is no extractor {spec!r}: give {', '.join(BUILT_IN)}, a folder with a ConvClassifier or a vision "
        "model of transformers, or such a model's id on the Hub (facebook/dinov2-small, openai/clip-vit-base-patch32)"
    )


def _classifier(
    images: Images | None,
    labels: NDArray[np.int64] | None,
    class_names: Sequence[str] | None,
    fingerprint: str | None,
    cache_dir: str | Path | None,
    device: torch.device | str,
) -> Extractor:
    from hf_genzoo.evaluation.extractors_trained import ClassifierExtractor, cached_classifier

    if images is None or labels is None or class_names is None:
        raise ValueError(
            "the extractor 'classifier' learns the classes of the training pictures, and there are none: name their "
            "column with --class_column, or choose another extractor ('random', 'pca', or a vision model's id)"
        )
    if fingerprint is None:
        raise ValueError("the extractor 'classifier' is kept by the data's fingerprint: give data_fingerprint")
    return ClassifierExtractor(cached_classifier(images, labels, class_names, fingerprint, cache_dir, device), device)


def is_classifier(folder: Path) -> bool:
    """Whether a folder holds a `ConvClassifier`."""
    try:
        return json.loads((folder / "config.json").read_text())["_class_name"] == "ConvClassifier"
    except (OSError, ValueError, KeyError, TypeError):
        return False
