"""Weights in half precision beside the plain ones, as `from_pretrained(..., variant="fp16")` looks for them."""

import shutil
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from hf_genzoo.hub.layout import VARIANT_WEIGHTS

VARIANTS = ("fp16", "bf16")


def add_variant(folder: Path, variant: str) -> list[Path]:
    """Write a variant of every component's weights beside the plain ones, which stay.

    Args:
        folder: An exported folder.
        variant: "fp16" or "bf16".

    Returns:
        The files written, relative to the folder.

    Raises:
        ValueError: Unknown variant, or weights too large for its range.
    """
    from hf_genzoo.hub.loader import load

    check_variant(variant)
    return write_variant(folder, variant, load(folder).components)


def check_variant(variant: str) -> None:
    """Refuse a variant that has no data type.

    Raises:
        ValueError: Naming it and the known ones.
    """
    if variant not in VARIANTS:
        raise ValueError(f"unknown variant {variant!r}; choose one of {', '.join(VARIANTS)}")


def write_variant(folder: Path, variant: str, components: Mapping[str, Any]) -> list[Path]:
    """As `add_variant`, with the components at hand: their weights are read from the folder, their classes from them.

    Reading them anew, in the data type that they will be read in, keeps whatever a class wants kept in full precision.
    """
    import torch

    check_variant(variant)
    dtype = {"fp16": torch.float16, "bf16": torch.bfloat16}[variant]
    written = []
    for name, component in components.items():
        if not isinstance(component, torch.nn.Module):
            continue
        cls: Any = type(getattr(component, "_orig_mod", component))  # compiled modules are wrapped
        narrow = cls.from_pretrained(folder / name, torch_dtype=dtype)
        _check_range(narrow, folder / name, variant)
        with tempfile.TemporaryDirectory(prefix="genzoo-variant-") as aside:
            narrow.save_pretrained(aside, variant=variant, safe_serialization=True)
            for path in sorted(Path(aside).iterdir()):
                if VARIANT_WEIGHTS.fullmatch(path.name):
                    shutil.copyfile(path, folder / name / path.name)
                    written.append(Path(name) / path.name)
    return written


def _check_range(module: Any, where: Path, variant: str) -> None:
    for name, value in module.state_dict().items():
        if value.is_floating_point() and not value.isfinite().all():
            raise ValueError(f"{where}: {name} does not fit the range of {variant}; publish without this variant")
