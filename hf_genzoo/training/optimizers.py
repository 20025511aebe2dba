"""Optimisers and learning rate schedules from flags."""

import torch
from diffusers.optimization import get_scheduler
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


def schedule(
    optimizer: torch.optim.Optimizer, args: TrainingArgs, num_updates: int, num_processes: int
) -> torch.optim.lr_scheduler.LRScheduler:
    """The learning rate over `num_updates` optimiser steps, to be stepped once after each of them.

    It must not be handed to `accelerator.prepare`, which would step it once per process.
    """
    if args.scale_lr:
        for group in optimizer.param_groups:
            group["lr"] *= args.train_batch_size * args.gradient_accumulation_steps * num_processes
    return get_scheduler(
        args.lr_scheduler,
        optimizer,
        num_warmup_steps=args.lr_warmup_steps,
        num_training_steps=num_updates,
        num_cycles=args.lr_num_cycles,
        power=args.lr_power,
    )
