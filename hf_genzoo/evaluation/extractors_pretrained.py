"""Vision models of transformers as extractors.

Papers
- Stein et al. 2023, "Exposing flaws of generative model evaluation metrics": features of DINOv2 agree better with
  people than Inception's.

What differs from the models' own preprocessing and why: pictures are resized to the input size as a whole, by this
package's resizer. The models' processors resize to a larger size and crop the centre, and would not see the border of
a generated picture; they also use filters of their own, and need torchvision for some.
"""

import json
from collections.abc import Mapping
from dataclasses import astuple, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from huggingface_hub import hf_hub_download
from huggingface_hub.errors import EntryNotFoundError, LocalEntryNotFoundError
from numpy.typing import NDArray
from torch import Tensor
from transformers import MODEL_MAPPING, AutoConfig, AutoModel, PretrainedConfig

from hf_genzoo.data.fingerprint import digest
from hf_genzoo.evaluation.extractors import Extractor, Images, weights_hash
from hf_genzoo.evaluation.resize import RESIZER, resize, with_channels

VERSION = 1
"""Part of the hashes: raised when the same weights would give other features."""

BATCH_SIZE = 32


@dataclass(frozen=True)
class Preprocessing:
    """What a vision model wants: (pixel * scale - mean) / std at one size.

    Attributes:
        size: Height and width.
        scale: What 8-bit pixels are multiplied by.
        mean: Of each channel.
        std: Of each channel.
    """

    size: int
    scale: float
    mean: tuple[float, ...]
    std: tuple[float, ...]

    @classmethod
    def read(cls, settings: Mapping[str, Any], name: str) -> "Preprocessing":
        """From the content of preprocessor_config.json.

        Raises:
            ValueError: if it has no mean, no deviation or no square size.
        """
        size = settings.get("crop_size") if settings.get("do_center_crop") else None
        size = size or settings.get("size")
        if isinstance(size, Mapping):
            sides = {size[key] for key in ("height", "width", "shortest_edge") if size.get(key)}
            size = sides.pop() if len(sides) == 1 else None
        if not isinstance(size, int):
            wanted = {key: settings.get(key) for key in ("size", "crop_size")}
            raise ValueError(f"preprocessor_config.json of {name} names no square size: {wanted}")
        scale = float(settings.get("rescale_factor", 1 / 255)) if settings.get("do_rescale", True) else 1.0
        if not settings.get("do_normalize", True):
            return cls(size, scale, (0.0,), (1.0,))
        if not settings.get("image_mean") or not settings.get("image_std"):
            raise ValueError(f"preprocessor_config.json of {name} has no image_mean or no image_std")
        return cls(size, scale, tuple(settings["image_mean"]), tuple(settings["image_std"]))

    def __call__(self, images: Images, device: torch.device) -> Tensor:
        """float32 (B, C, size, size) of pictures (B, C, H, H)."""
        pixels = torch.from_numpy(resize(images, self.size)).to(device).float() * self.scale
        mean, std = (torch.tensor(v, device=device).view(1, -1, 1, 1) for v in (self.mean, self.std))
        return (pixels - mean) / std


class VisionModel(Extractor):
    """Any vision model of transformers that turns a picture into one vector.

    The features are, of CLIP, SigLIP and their kind, the embedding of the picture (`get_image_features`; the text
    tower is not run); of transformers with a class token (DINOv2, ViT, ...), that token after the last layer; else the
    model's pooled output, or the mean over positions where it has none.

    Args:
        id_or_path: Id on the Hub, or a folder.
        revision: Commit, branch or tag on the Hub; a commit pins the weights.
        device: Where to compute.

    Raises:
        OSError: if it is no folder and the Hub does not give it.
        ValueError: if it is no vision model, lacks weights, or does not say how to prepare pictures.
    """

    batch_size = BATCH_SIZE

    def __init__(self, id_or_path: str, revision: str | None = None, device: torch.device | str = "cpu") -> None:
        folder = Path(id_or_path).expanduser()
        self.name = folder.resolve().name if folder.is_dir() else id_or_path
        self.name += f"@{revision}" if revision else ""
        config = self._config(id_or_path, revision)
        self._prepare = Preprocessing.read(self._settings(id_or_path, revision), self.name)
        self._channels = getattr(getattr(config, "vision_config", config), "num_channels", 3)
        self._device = torch.device(device)
        if hasattr(config, "mask_ratio"):  # masked autoencoders hide patches at random
            config.mask_ratio = 0.0
        self._model, missing = self._load(id_or_path, revision, config)
        names = [name for name, _ in self._model.named_parameters()]
        self._embeds = hasattr(self._model, "get_image_features")
        self._class_token = not self._embeds and any(name.endswith("cls_token") for name in names)
        # The pooler behind a class token is not run, and absent from checkpoints whose head took its place.
        unused = "pooler." if self._class_token else "\0"
        if absent := sorted(name for name in missing if not name.startswith(unused)):
            raise ValueError(f"{self.name} lacks weights of its {type(self._model).__name__}: {', '.join(absent[:5])}")
        self.dim = self._try()
        used = {k: v for k, v in self._model.state_dict().items() if not k.startswith(unused)}
        kind = [config.model_type, self._embeds, self._class_token]
        self.hash = digest("vision model", VERSION, RESIZER, kind, astuple(self._prepare), weights_hash(used))

    def _config(self, id_or_path: str, revision: str | None) -> PretrainedConfig:
        folder = Path(id_or_path).expanduser()
        if folder.is_dir() and not (folder / "config.json").is_file():
            raise ValueError(
                f"the folder {id_or_path} has no config.json: it holds no ConvClassifier and no model of transformers"
            )
        try:
            config = AutoConfig.from_pretrained(id_or_path, revision=revision)
        except OSError as error:
            raise OSError(
                f"{self.name}: there is no such folder, and the Hub does not give it ({_first_line(error)}); check "
                "the spelling and the connection"
            ) from error
        except ValueError as error:
            raise ValueError(f"{self.name} is no model that this transformers knows ({_first_line(error)})") from error
        found = MODEL_MAPPING.get(type(config), None)
        classes = found if isinstance(found, tuple) else (found,)
        if not any(hasattr(c, "get_image_features") or _input_of(c) == "pixel_values" for c in classes):
            raise ValueError(
                f"{self.name} is a {config.model_type!r} model, which takes no pictures: name a vision model, such as "
                "facebook/dinov2-small or openai/clip-vit-base-patch32"
            )
        return config

    def _settings(self, id_or_path: str, revision: str | None) -> dict[str, Any]:
        """What preprocessor_config.json says, or the part of processor_config.json that newer models have instead."""
        path = _file(id_or_path, "preprocessor_config.json", revision)
        if path is not None:
            return json.loads(path.read_text())
        path = _file(id_or_path, "processor_config.json", revision)
        settings = json.loads(path.read_text()).get("image_processor") if path is not None else None
        if settings is None:
            raise ValueError(
                f"{self.name} has no preprocessor_config.json, so the size, mean and deviation it wants are not "
                "known: save the model's image processor beside it (AutoImageProcessor ... save_pretrained)"
            )
        return settings

    def _load(self, id_or_path: str, revision: str | None, config: PretrainedConfig) -> tuple[Any, set[str]]:
        """The model, and the names of its weights that were not stored."""
        try:
            model, info = AutoModel.from_pretrained(
                id_or_path, revision=revision, config=config, dtype=torch.float32, output_loading_info=True
            )
        except ImportError as error:
            raise ValueError(f"{self.name} needs another package: {_first_line(error)}") from error
        return model.to(self._device).eval(), set(info["missing_keys"])

    @torch.inference_mode()
    def _try(self) -> int:
        """The length of the features, by one black picture."""
        blank = np.zeros((1, 3, self._prepare.size, self._prepare.size), dtype=np.uint8)
        try:
            found = self._extract(blank)[0]
        except Exception as error:  # each kind of model fails in its own way
            raise ValueError(f"{self.name} does not take one picture alone: {_first_line(error)}") from error
        if found.ndim != 2 or len(found) != 1:
            raise ValueError(f"{self.name} turns a picture into {found.shape}, not into one vector")
        return found.shape[1]

    def _extract(self, batch: Images) -> tuple[NDArray[np.float32], None]:
        pixels = self._prepare(with_channels(batch, self._channels), self._device)
        if self._embeds:
            found = self._model.get_image_features(pixel_values=pixels)
            found = getattr(found, "pooler_output", found)  # a tensor before transformers 5
        else:
            output = self._model(pixel_values=pixels)
            hidden, pooled = output.last_hidden_state, getattr(output, "pooler_output", None)
            if self._class_token:
                found = hidden[:, 0]
            elif pooled is not None:
                found = pooled.flatten(1)
            else:
                found = hidden.flatten(2).mean(dim=2) if hidden.ndim == 4 else hidden.mean(dim=1)
        return found.float().cpu().numpy(), None


def _input_of(model_class: Any) -> str | None:
    return getattr(model_class, "main_input_name", None)


def _first_line(error: BaseException) -> str:
    return (str(error).strip() or type(error).__name__).splitlines()[0]


def _file(id_or_path: str, name: str, revision: str | None) -> Path | None:
    """A file of a folder or of a model on the Hub; None if it does not have it.

    Raises:
        OSError: if the Hub cannot be asked.
    """
    folder = Path(id_or_path).expanduser()
    if folder.is_dir():
        return folder / name if (folder / name).is_file() else None
    try:
        return Path(hf_hub_download(id_or_path, name, revision=revision))
    except LocalEntryNotFoundError:  # a kind of EntryNotFoundError, but it means that nobody could be asked
        raise
    except EntryNotFoundError:
        return None
