"""hf_genzoo: generative-model families as diffusers-compatible, trained, measured and published models.

Importing this package imports nothing heavy; each name below is loaded on first use.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from hf_genzoo.api import info, list_families, sample, train
    from hf_genzoo.evaluation.comparison import compare
    from hf_genzoo.evaluation.protocol import evaluate
    from hf_genzoo.hub import export, load, publish, push_data, verify

__version__ = "0.1.0"

_HOMES = {
    "compare": "hf_genzoo.evaluation.comparison",
    "evaluate": "hf_genzoo.evaluation.protocol",
    "export": "hf_genzoo.hub",
    "load": "hf_genzoo.hub",
    "publish": "hf_genzoo.hub",
    "push_data": "hf_genzoo.hub",
    "verify": "hf_genzoo.hub",
    "info": "hf_genzoo.api",
    "list_families": "hf_genzoo.api",
    "sample": "hf_genzoo.api",
    "train": "hf_genzoo.api",
}
__all__ = [
    "compare",
    "evaluate",
    "export",
    "info",
    "list_families",
    "load",
    "publish",
    "push_data",
    "sample",
    "train",
    "verify",
]


def __getattr__(name: str) -> Any:
    if name in _HOMES:
        return getattr(import_module(_HOMES[name]), name)
    raise AttributeError(f"module 'hf_genzoo' has no attribute {name!r}; it offers {', '.join(__all__)}")


def __dir__() -> list[str]:
    return sorted([*globals(), *__all__])
