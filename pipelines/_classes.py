"""Classes by number or name, one or many. A part of pipelines' files (see `hf_genzoo.hub.inline`)."""

from collections.abc import Mapping, Sequence
from numbers import Integral

import torch
from torch import Tensor

Labels = int | str | Sequence[int | str] | Tensor | None


def class_indices(
    class_labels: int | str | Sequence[int | str] | Tensor,
    batch_size: int,
    num_classes: int,
    names: Mapping[str, str] | None,
) -> Tensor:
    """Labels as int64 (B,).

    Args:
        class_labels: One label for all samples or one for each, each an index or a name.
        batch_size: B; left at 1, a sequence of labels decides.
        num_classes: Number of classes.
        names: {"0": "cat", ...}, where there are any.

    Raises:
        ValueError: If a label is unknown, or their number does not fit.
    """
    if isinstance(class_labels, (Integral, str)):
        return torch.full((batch_size,), _label_index(class_labels, num_classes, names))
    if not isinstance(class_labels, (Sequence, Tensor)):
        raise ValueError(f"class_labels {class_labels!r} is not a label, a sequence of labels or a tensor")
    values = class_labels.flatten().tolist() if isinstance(class_labels, Tensor) else class_labels
    given = torch.tensor([_label_index(label, num_classes, names) for label in values])
    if batch_size == 1 and len(given) > 1:
        batch_size = len(given)
    if len(given) not in (1, batch_size):
        raise ValueError(f"got {len(given)} class_labels for {batch_size} samples; pass one for each, or one")
    return given.expand(batch_size)


def _label_index(label: int | str, num_classes: int, names: Mapping[str, str] | None) -> int:
    if isinstance(label, str):
        for index, name in (names or {}).items():
            if name == label:
                return int(index)
        known = ", ".join((names or {}).values()) or "none, use indices"
        raise ValueError(f"unknown class label {label!r}; known names: {known}")
    if not isinstance(label, Integral) or not 0 <= label < num_classes:
        raise ValueError(f"class label {label!r} is not one of 0 to {num_classes - 1}")
    return int(label)
