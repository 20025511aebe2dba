"""From the names in a repository to the classes of the installed package. Nothing of a repository is ever imported.

The module doubles as the *library* that diffusers' loader is pointed at: it asks a library for the class by name and
for the base classes `ModelMixin` and `SchedulerMixin` that tell how to load it, and takes only libraries which are
imported already. `model_index.json` entries are rewritten to `["hf_genzoo.hub.installed", "models.vae:ConvVAE"]`, and
`__getattr__` resolves them. So no module of ours has to carry diffusers' base classes by name, and nothing global
(`sys.modules`, diffusers' tables) is changed while loading.
"""

import importlib
import importlib.util
import warnings
from types import ModuleType
from typing import Any

from diffusers.models.modeling_utils import ModelMixin
from diffusers.pipelines.pipeline_utils import DiffusionPipeline
from diffusers.schedulers.scheduling_utils import SchedulerMixin

from hf_genzoo.families import FAMILIES
from hf_genzoo.hub.code_files import pipeline_text
from hf_genzoo.hub.layout import (
    STOCK_LIBRARIES,
    Index,
    LayoutError,
    content_hash,
    split_pipeline_stem,
    split_stem,
)

__all__ = ["DiffusionPipeline", "ModelMixin", "SchedulerMixin"]

PACKAGE = "hf_genzoo"
HOMES = ("models", "schedulers", "pipelines")  # subpackages whose files are published


def __getattr__(name: str) -> Any:
    module_name, separator, class_name = name.partition(":")
    if not separator or module_name.split(".")[0] not in HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(f"{PACKAGE}.{module_name}"), class_name)


def is_ours(index: Index) -> bool:
    """Whether an index names any class of this package (else every class is stock, or of somebody else)."""
    library = index.pipeline[0]
    if library is not None and (split_pipeline_stem(library) or _is_installed_name(library)):
        return True
    if index.pipeline[0] is None and index.pipeline[1] in {family.pipeline for family in FAMILIES.values()}:
        return True
    return any(split_stem(library) or _is_installed_name(library) for library, _ in index.components.values())


def pipeline_class(index: Index, where: str) -> type[DiffusionPipeline]:
    """The installed pipeline class an index names.

    Raises:
        LayoutError: The index names a family or class this version does not have.
    """
    library, class_name = index.pipeline
    if library is None:
        module_name = next((f.pipeline_module for f in FAMILIES.values() if f.pipeline == class_name), None)
        if module_name is None:
            import diffusers

            stock = getattr(diffusers, class_name, None)
            if stock is None:
                raise LayoutError(
                    f"{where} names the pipeline {class_name!r}, which neither diffusers nor {PACKAGE} has"
                )
            return stock
        return _class_of(importlib.import_module(module_name), class_name, where)
    parts = split_pipeline_stem(library)
    if parts is None or parts[0] not in FAMILIES:
        raise LayoutError(
            f"{where} names its pipeline {library}.{class_name}, which is not one of {PACKAGE}'s families"
            f" ({', '.join(sorted(FAMILIES))}). If you trust its code: DiffusionPipeline.from_pretrained(...,"
            f" trust_remote_code=True); if it comes from a newer {PACKAGE}: pip install -U {PACKAGE}"
        )
    module = importlib.import_module(FAMILIES[parts[0]].pipeline_module)
    _warn_if_other_version(module, parts[1], class_name, where)
    return _class_of(module, class_name, where)


def local_index(index: Index, where: str) -> dict[str, Any]:
    """The `model_index.json` to load with: every class of ours named by its installed module.

    Raises:
        LayoutError: A component is neither stock nor known to this version.
    """
    from diffusers import pipelines

    raw = dict(index.raw)
    raw["_class_name"] = index.pipeline[1]
    for name, (library, class_name) in index.components.items():
        if library in STOCK_LIBRARIES or library == __name__ or hasattr(pipelines, library):
            continue
        module = _component_module(library, class_name, where, name)
        _class_of(module, class_name, where)
        raw[name] = [__name__, f"{module.__name__.removeprefix(PACKAGE + '.')}:{class_name}"]
    return raw


def _component_module(library: str, class_name: str, where: str, component: str) -> ModuleType:
    if _is_installed_name(library):  # saved by plain `save_pretrained` where the package is installed
        return importlib.import_module(library)
    parts = split_stem(library)
    for home in HOMES:
        if parts is None:
            break
        full_name = f"{PACKAGE}.{home}.{parts[0]}"
        if _exists(full_name):
            module = importlib.import_module(full_name)
            if hasattr(module, class_name):
                _warn_if_other_version(module, parts[1], class_name, where)
                return module
    raise LayoutError(
        f"{where}: component {component!r} is {library}.{class_name}, which this version of {PACKAGE} does not have."
        f" If you trust its code: DiffusionPipeline.from_pretrained(..., trust_remote_code=True); if it comes from a"
        f" newer {PACKAGE}: pip install -U {PACKAGE}"
    )


def _exists(full_name: str) -> bool:
    try:
        return importlib.util.find_spec(full_name) is not None
    except ModuleNotFoundError:  # the subpackage itself does not exist
        return False


def _is_installed_name(library: str) -> bool:
    parts = library.split(".")
    return len(parts) > 2 and parts[0] == PACKAGE and parts[1] in HOMES and _exists(library)


def _class_of(module: ModuleType, class_name: str, where: str) -> Any:
    cls = getattr(module, class_name, None)
    if not isinstance(cls, type):
        raise LayoutError(f"{where} names {class_name!r}, which {module.__name__} does not have")
    return cls


def _warn_if_other_version(module: ModuleType, expected: str, class_name: str, where: str) -> None:
    source = importlib.util.find_spec(module.__name__)
    get_source = getattr(source.loader, "get_source", None) if source else None
    text = get_source(module.__name__) if get_source else None
    if text is not None and f"{PACKAGE}.pipelines." in module.__name__:
        text = pipeline_text(text, class_name)
    if text is None or content_hash(text) == expected:
        return
    warnings.warn(
        f"{where} was exported with another version of {module.__name__} ({expected}; installed:"
        f" {content_hash(text)}). It is loaded with the installed {class_name}, so outputs may differ from those of"
        " its own code, which DiffusionPipeline.from_pretrained(..., trust_remote_code=True) runs.",
        UserWarning,
        stacklevel=2,
    )
