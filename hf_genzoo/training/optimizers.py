"""Optimisers from flags."""

import torch
from torch import nn

from hf_genzoo.training.args import TrainingArgs


def adam(net: nn.Module, args: TrainingArgs, learning_rate: float | None = None) -> torch.optim.Optimizer:
    """Adam with decoupled weight decay (Loshchilov & Hutter 2019), which without decay is plain Adam.

    Args:
        net: The network whose trainable parameters it owns.
        args: Supplies learning rate, betas, epsilon and weight decay.
        learning_rate: Used instead of `args.learning_rate`, for families whose networks learn at different rates.
    """
    return torch.optim.AdamW(
        [p for p in net.parameters() if p.requires_grad],
        lr=args.learning_rate if learning_rate is None else learning_rate,
        betas=(args.adam_beta1, args.adam_beta2),
        weight_decay=args.adam_weight_decay,
        eps=args.adam_epsilon,
        fused=True,
    )
