"""What is measured: an exported folder, a repository on the Hub, any stock pipeline, or a folder of pictures."""

import json
from collections.abc import Mapping
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

import numpy as np
import torch
from diffusers import DiffusionPipeline
from huggingface_hub import hf_hub_download
from huggingface_hub.errors import EntryNotFoundError
from numpy.typing import NDArray
from torch import nn

from hf_genzoo.data import DataArgs
from hf_genzoo.evaluation.reference import Reference
from hf_genzoo.evaluation.small_pictures import SmallPictures
from hf_genzoo.evaluation.sources import Conditions, PictureFolder, PipelineSource, Sampling, Source
from hf_genzoo.hub.layout import INDEX, model_hash, read_index
from hf_genzoo.hub.loader import fetch_index, load

RECORD = "training.json"  # what a training run leaves in its folder


@dataclass(frozen=True)
class Subject:
    """One generator.

    Attributes:
        name: What the user called it.
        folder: Its local folder, where results and card go; None for a repository on the Hub.
        pipeline: Loaded and on its device; None for a folder of pictures.
        hash: Of its weights and settings; None for a folder of pictures.
        training: What its run recorded, or None.
    """

    name: str
    folder: Path | None
    pipeline: DiffusionPipeline | None
    hash: str | None
    training: Mapping[str, Any] | None

    @property
    def parameters(self) -> dict[str, int]:
        """Number of weights of each network."""
        if self.pipeline is None:
            return {}
        networks = {name: part for name, part in self.pipeline.components.items() if isinstance(part, nn.Module)}
        return {name: sum(p.numel() for p in net.parameters()) for name, net in networks.items()}

    def source(self, sampling: Sampling, reference: Reference) -> Source:
        """Where its samples come from; classes and captions are asked for as the data set has them.

        Raises:
            SampleError: if it cannot be sampled like this.
        """
        if self.pipeline is None or self.hash is None:
            assert self.folder is not None
            return PictureFolder(self.folder)
        return PipelineSource(self.pipeline, self.name, self.hash, sampling, conditions_of(self.pipeline, reference))


def open_subject(
    repo_or_folder: str | Path, *, revision: str | None = None, device: torch.device | str = "cpu"
) -> Subject:
    """Load what is to be measured.

    Raises:
        ValueError: if it is neither a pipeline nor a folder of pictures.
    """
    name = str(repo_or_folder)
    folder = Path(repo_or_folder) if Path(repo_or_folder).is_dir() else None
    if folder is not None and not (folder / INDEX).is_file():
        return Subject(name, folder, None, None, None)
    pipeline = load(name, revision=revision).to(device)
    files = fetch_index(name, revision=revision)
    return Subject(name, folder, pipeline, model_hash(files), read_training(name, revision))


def read_training(repo_or_folder: str | Path, revision: str | None = None) -> dict[str, Any] | None:
    """What a model's training run recorded, or None."""
    path = Path(repo_or_folder) / RECORD
    if not Path(repo_or_folder).is_dir():
        try:
            path = Path(hf_hub_download(str(repo_or_folder), RECORD, revision=revision))
        except (EntryNotFoundError, ValueError):
            return None
    return json.loads(path.read_text(encoding="utf-8")) if path.is_file() else None


def recorded_data_flags(training: Mapping[str, Any] | None) -> dict[str, Any]:
    """The data flags that a model was trained with."""
    known = {field.name for field in fields(DataArgs)} - {"data_cache_dir", "streaming"}
    recorded = (training or {}).get("args", {})
    return {name: value for name, value in recorded.items() if name in known and value is not None}


def default_shape(repo_or_folder: str | Path, revision: str | None = None) -> dict[str, int]:
    """The flags of channels and resolution for what a model draws or a folder holds; empty if that is not known.

    A latent diffusion model draws at its network's size times what its decoder enlarges.
    """
    local = Path(repo_or_folder)
    if local.is_dir() and not (local / INDEX).is_file():
        channels, height, _ = PictureFolder(local).draw(np.array([0]))[0].shape
        return {"num_channels": channels, "resolution": height}
    folder = fetch_index(str(repo_or_folder), revision=revision)
    configs = {}
    for name in read_index(folder).components:
        path = folder / name / "config.json"
        if path.is_file():
            configs[name] = json.loads(path.read_text(encoding="utf-8"))
    decoder = configs.get("vae", {})
    factor = 2 ** (len(decoder.get("block_out_channels", [0])) - 1) if len(configs) > 1 else 1
    for name in ("unet", "transformer", *configs):
        config = configs.get(name, {})
        size = config.get("sample_size")
        channels = decoder.get("out_channels") if factor > 1 else None
        channels = channels or config.get("out_channels") or config.get("in_channels")
        if isinstance(size, int) and isinstance(channels, int):
            return {"num_channels": channels, "resolution": size * factor}
    return {}


def conditions_of(pipeline: DiffusionPipeline, reference: Reference) -> Conditions:
    """What a pipeline can be asked for: classes as frequent as in training, captions of held-out pictures, and these
    pictures themselves, made small, where it says how many times it enlarges (`scale` of its settings).

    Raises:
        ValueError: if the pipeline's classes are not those of the data set.
    """
    scale = pipeline.config.get("scale")
    small = SmallPictures(reference.held_out, scale) if isinstance(scale, int) and reference.law is None else None
    return Conditions(_known_labels(pipeline, reference), reference.held_out.captions, small)


def _known_labels(pipeline: DiffusionPipeline, reference: Reference) -> NDArray[np.int64] | None:
    """The training labels in the pipeline's numbering, or None where there are none to ask for.

    Raises:
        ValueError: if the pipeline's classes are not those of the data set.
    """
    labels, names = reference.train.labels, reference.class_names
    classes = getattr(pipeline, "num_classes", None)
    if labels is None or names is None or not isinstance(classes, int):
        return None
    known = pipeline.config.get("id2label") or {}
    by_name = {str(name): int(index) for index, name in known.items()}
    if by_name and set(names) <= set(by_name):
        return np.array([by_name[name] for name in names])[labels]
    if classes != len(names) or (by_name and set(names) != set(by_name)):
        theirs = ", ".join(list(by_name)[:5]) or f"{classes} classes"
        raise ValueError(
            f"the model knows {theirs}..., the data set {', '.join(names[:5])}...: choose another --class_column"
        )
    return labels
