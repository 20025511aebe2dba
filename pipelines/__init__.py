"""The families' pipelines: one self-contained file each, installed as `hf_genzoo.pipelines.<family>`.

`hf_genzoo.pipelines.VAEPipeline` imports `hf_genzoo.pipelines.vae` on first use. However a module of this package is
imported, its classes afterwards open our repositories without a trust flag (`hf_genzoo.hub.loader.adopt`). The files
cannot ask for that themselves, since they are published to people who do not have this package; so a finder
does it behind their import.
"""

import importlib
import sys
from collections.abc import Sequence
from importlib.abc import MetaPathFinder
from importlib.machinery import ModuleSpec, PathFinder
from types import ModuleType
from typing import Any

from hf_genzoo.families import FAMILIES

_MODULES = {
    name: family.pipeline_module for family in FAMILIES.values() for name in (family.pipeline, *family.more_pipelines)
}


class _AdoptingFinder(MetaPathFinder):
    """Finds the modules of this package as usual and adopts their classes once they have run."""

    def find_spec(
        self, fullname: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        if not fullname.startswith(f"{__name__}."):
            return None
        spec = PathFinder.find_spec(fullname, path, target)
        if spec is None or spec.loader is None:
            return None
        run = spec.loader.exec_module

        def exec_module(module: ModuleType) -> None:
            run(module)
            from hf_genzoo.hub.loader import adopt

            adopt(module)

        spec.loader.exec_module = exec_module  # type: ignore[method-assign]
        return spec


if not any(type(finder).__name__ == _AdoptingFinder.__name__ for finder in sys.meta_path):
    sys.meta_path.insert(0, _AdoptingFinder())


def __getattr__(name: str) -> Any:
    if name not in _MODULES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(_MODULES[name]), name)


def __dir__() -> list[str]:
    return sorted(_MODULES)
