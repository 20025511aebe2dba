"""What this machine computes on."""

import torch


def has_gpu() -> bool:
    """Whether there is an accelerator that accelerate would choose by itself."""
    return torch.cuda.is_available() or torch.backends.mps.is_available() or torch.xpu.is_available()
