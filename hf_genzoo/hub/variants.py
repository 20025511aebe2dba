"""Weights in half precision beside the plain ones, as `from_pretrained(..., variant="fp16")` looks for them."""

import shutil
import tempfile
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
        ValueError: Unknown variant.
    """
    import torch

    from hf_genzoo.hub.loader import load

    if variant not in VARIANTS:
        raise ValueError(f"unknown variant {variant!r}; choose one of {', '.join(VARIANTS)}")
    dtype = {"fp16": torch.float16, "bf16": torch.bfloat16}[variant]
    written = []
    components: dict[str, Any] = load(folder, torch_dtype=dtype).components
    for name, component in components.items():
        if not isinstance(component, torch.nn.Module):
            continue
        with tempfile.TemporaryDirectory(prefix="genzoo-variant-") as aside:
            component.save_pretrained(aside, variant=variant, safe_serialization=True)  # type: ignore[operator]
            for path in sorted(Path(aside).iterdir()):
                if VARIANT_WEIGHTS.fullmatch(path.name):
                    shutil.copyfile(path, folder / name / path.name)
                    written.append(Path(name) / path.name)
    return written
