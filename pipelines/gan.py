"""Sampling from a generator trained against another network: images, or points in the plane, with or without classes.

Papers
- Goodfellow et al. 2014, "Generative Adversarial Networks".
- Mirza & Osindero 2014, "Conditional Generative Adversarial Nets".
- Arjovsky, Chintala & Bottou 2017, "Wasserstein GAN"; Gulrajani et al. 2017, "Improved Training of Wasserstein GANs".

However a generator was trained, it is sampled in the same way: draw z, and a class where there are classes, and run it
once.

This file is published beside the weights, with the parts it imports put into it.
"""

from collections.abc import Sequence

import torch
from diffusers.image_processor import VaeImageProcessor
from diffusers.models.modeling_utils import ModelMixin
from diffusers.pipelines.pipeline_utils import DiffusionPipeline, ImagePipelineOutput
from diffusers.utils.torch_utils import randn_tensor
from torch import Tensor

from hf_genzoo.pipelines._classes import Labels, class_indices
from hf_genzoo.pipelines._latents import OUTPUT_TYPES, LatentPipeline
from hf_genzoo.pipelines._pictures import check_choice, check_counts, check_generators
from hf_genzoo.pipelines._points import scatter


class GANPipeline(LatentPipeline, DiffusionPipeline):
    """Images or points from a generator.

    Args:
        net_g: Network that maps latents (B, latent_dim) to images (B, C, H, W) in [-1, 1] or to points (B, 2);
            class-conditional if its config has `num_classes`: it then takes labels (B,) as well.
        id2label: Names of the classes, {0: "cat", ...}. A dictionary and not a list: diffusers takes every list in
            model_index.json for a component.
    """

    model_cpu_offload_seq = "net_g"

    def __init__(self, net_g: ModelMixin, id2label: dict | None = None):
        super().__init__()
        self.register_modules(net_g=net_g)
        # JSON turns the keys into strings; done at once, so that a saved and loaded pipeline has the same config.
        self.register_to_config(id2label=id2label and {str(label): str(name) for label, name in id2label.items()})

    @property
    def latent_dim(self) -> int:
        """Length of a latent."""
        return self.net_g.config["latent_dim"]

    @property
    def num_classes(self) -> int | None:
        """Number of classes, or None if the generator is unconditional."""
        return self.net_g.config.get("num_classes")

    @torch.no_grad()
    def __call__(
        self,
        batch_size: int = 1,
        class_labels: Labels = None,
        latents: Tensor | None = None,
        generator: torch.Generator | list[torch.Generator] | None = None,
        output_type: str = "pil",
        return_dict: bool = True,
    ) -> ImagePipelineOutput | tuple:
        """Sample: z ~ N(0, I), G(z), or G(z, y) where there are classes.

        Args:
            batch_size: Number of samples. Left at 1, a sequence of class labels or the latents decide.
            class_labels: One label for all samples or one for each: an index or, where the pipeline knows names, a
                name. None draws a class at random for each sample.
            latents: (B, latent_dim) latents in place of drawn ones.
            generator: Source of randomness, one for the batch or one for each sample.
            output_type: For images "pil" (list of images), "np" ((B, H, W, C) in [0, 1]) or "pt" ((B, C, H, W) in
                [0, 1]). For points "np" or "pt" are the coordinates, (B, 2), and "pil" is a list of one picture, the
                scatter plot of all points.
            return_dict: Return an `ImagePipelineOutput` rather than a tuple of one element.

        Raises:
            ValueError: If an argument does not fit; the message names it and the fix.
        """
        check_choice("output_type", output_type, OUTPUT_TYPES)
        check_counts(batch_size=batch_size)
        if latents is not None:
            if latents.ndim != 2 or latents.shape[1] != self.latent_dim:
                raise ValueError(f"latents must have shape (B, {self.latent_dim}), not {tuple(latents.shape)}")
            batch_size = len(latents)
        labels, batch_size = self._labels(class_labels, batch_size)
        if latents is not None and len(latents) != batch_size:
            raise ValueError(f"got {batch_size} class_labels for {len(latents)} latents; pass one for each, or one")
        check_generators(generator, batch_size, "samples")
        if labels is None and self.num_classes is not None:
            labels = self._random_labels(self.num_classes, batch_size, generator)
        if latents is None:
            shape = (batch_size, self.latent_dim)
            latents = randn_tensor(shape, generator=generator, device=self._execution_device, dtype=self.net_g.dtype)

        latents = latents.to(device=self._execution_device, dtype=self.net_g.dtype)
        out = self.net_g(latents) if labels is None else self.net_g(latents, labels)
        if out.ndim == 4:
            out = VaeImageProcessor().postprocess(out, output_type=output_type)
        elif output_type == "pil":
            out = [scatter(out)]
        elif output_type == "np":
            out = out.cpu().float().numpy()
        self.maybe_free_model_hooks()
        return ImagePipelineOutput(images=out) if return_dict else (out,)  # type: ignore[arg-type]

    def decode(
        self, latents: Tensor, output_type: str = "pil", return_dict: bool = True, class_labels: Labels = None
    ) -> ImagePipelineOutput | tuple:
        """G(z) of latents (B, latent_dim); the rest as in the call."""
        return self(latents=latents, class_labels=class_labels, output_type=output_type, return_dict=return_dict)

    def interpolate(
        self,
        a: Tensor,
        b: Tensor,
        steps: int = 8,
        mode: str = "spherical",
        output_type: str = "pil",
        return_dict: bool = True,
        class_labels: Labels = None,
    ) -> ImagePipelineOutput | tuple:
        """Samples on the way between two latents (see `LatentPipeline`), by default along the arc, where the prior has
        its mass. One class label keeps the class on the way."""
        return self.decode(self.between(a, b, steps, mode), output_type, return_dict, class_labels)

    def traverse(
        self,
        image_or_latent: Tensor,
        dims: Sequence[int] | None = None,
        range: tuple[float, float] = (-3.0, 3.0),
        steps: int = 7,
        output_type: str = "pil",
        return_dict: bool = True,
        class_labels: Labels = None,
    ) -> ImagePipelineOutput | tuple:
        """What one number of a latent after another does (see `LatentPipeline`). One class label keeps the class."""
        return self.decode(self.traversal(image_or_latent, dims, range, steps), output_type, return_dict, class_labels)

    def _labels(self, class_labels: Labels, batch_size: int) -> tuple[Tensor | None, int]:
        """Labels as (B,) int64, None where none are given, and the batch size."""
        if class_labels is None:
            return None, batch_size
        if self.num_classes is None:
            raise ValueError(f"class_labels {class_labels!r} for an unconditional generator; leave them out")
        labels = class_indices(class_labels, batch_size, self.num_classes, self.config["id2label"])
        return labels.to(self._execution_device), len(labels)

    def _random_labels(
        self, num_classes: int, batch_size: int, generator: torch.Generator | list[torch.Generator] | None
    ) -> Tensor:
        """(B,) int64; a sample that has its own generator gets the same label in a batch and alone."""
        each = generator if isinstance(generator, list) else [generator]
        count = 1 if isinstance(generator, list) else batch_size
        drawn = [
            torch.randint(num_classes, (count,), generator=g, device="cpu" if g is None else g.device) for g in each
        ]
        return torch.cat([labels.to(self._execution_device) for labels in drawn])


class WGANPipeline(GANPipeline):
    """The name under which Wasserstein GANs are published; their generators are sampled like any other's."""
