"""Datasets to device-ready batches: image columns, captions, classes, point clouds and the embedded sets.

Everything here is imported on first use, so that reading the flags (`DataArgs`) costs neither torch nor datasets.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from hf_genzoo.data.args import DataArgs
    from hf_genzoo.data.images import MapImages, image_dataset
    from hf_genzoo.data.interface import Batches, Data
    from hf_genzoo.data.points import Gaussians2D, MapPoints, points_dataset
    from hf_genzoo.data.stream import StreamImages

_HOME = {
    "DataArgs": "args",
    "Batches": "interface",
    "Data": "interface",
    "MapImages": "images",
    "image_dataset": "images",
    "StreamImages": "stream",
    "Gaussians2D": "points",
    "MapPoints": "points",
    "points_dataset": "points",
}

__all__ = [
    "Batches",
    "Data",
    "DataArgs",
    "Gaussians2D",
    "MapImages",
    "MapPoints",
    "StreamImages",
    "image_dataset",
    "points_dataset",
]


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_HOME[name]}"), name)


def __dir__() -> list[str]:
    return sorted(__all__)
