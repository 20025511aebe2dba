"""What is not known of a picture, drawn at random by a score. A part of pipelines' files (see `hf_genzoo.hub.inline`).

Papers
- Song et al. 2021, "Score-Based Generative Modeling through Stochastic Differential Equations", section 5 and
  appendix I.
"""

from abc import ABC, abstractmethod

import torch
import torch.nn.functional as F
from diffusers.image_processor import PipelineImageInput
from diffusers.pipelines.pipeline_utils import ImagePipelineOutput
from torch import Tensor

from hf_genzoo.pipelines._classes import Labels
from hf_genzoo.pipelines._pictures import as_list, to_pixels

STEPS = 1000  # of the random samplers, as in the paper
Generators = torch.Generator | list[torch.Generator] | None


class CompletingPipeline(ABC):
    """Inpainting and colourisation; for pipelines that walk from noise to pictures in random steps."""

    @property
    @abstractmethod
    def sample_shape(self) -> tuple[int, ...]:
        """Shape of a sample, (C, H, W) of pictures."""

    @abstractmethod
    def _to_pixels(self, images: PipelineImageInput, channels: int | None = None) -> Tensor:
        """Images as (B, channels, H, W) in [0, 1]."""

    @abstractmethod
    def _completed(
        self,
        given: Tensor,
        hole: Tensor,
        matrix: Tensor,
        class_labels: Labels,
        guidance_scale: float,
        steps: int,
        predictor: str,
        corrector_steps: int,
        generator: Generators,
    ) -> tuple[Tensor, int]:
        """Pictures in [-1, 1] that are the given ones outside the hole, and the evaluations they took.

        The hole is one in the channels that an orthogonal matrix (C, C) makes.
        """

    @abstractmethod
    def _output(
        self, x: Tensor, evaluations: int, output_type: str, return_dict: bool, denormalize: bool = True
    ) -> ImagePipelineOutput | tuple:
        """What a call returns, of pictures in [-1, 1], or in [0, 1] to be left as they are."""

    def inpaint(
        self,
        image: PipelineImageInput,
        mask_image: PipelineImageInput,
        class_labels: Labels = None,
        guidance_scale: float = 1.0,
        num_inference_steps: int = STEPS,
        predictor: str = "reverse_diffusion",
        corrector_steps: int = 1,
        generator: Generators = None,
        output_type: str = "pil",
        return_dict: bool = True,
    ) -> ImagePipelineOutput | tuple:
        """Fill holes; known pixels come back as they were given (Song et al. 2021, section 5 and appendix I.2).

        Args:
            image: Images as in `encode`.
            mask_image: Where to fill, white (1) on black (0); one for all images or one for each.
            class_labels: As in the call.
            guidance_scale: As in the call.
            num_inference_steps: As in the call; at least 1.
            predictor: A random one, as in the call.
            corrector_steps: As in the call.
            generator: As in the call.
            output_type: As in the call.
            return_dict: As in the call.

        Raises:
            ValueError: If an argument does not fit; the message names it and the fix.
        """
        given = self._to_pixels(image)
        size = self.sample_shape[-1]
        hole = torch.cat([to_pixels(mask, 1, size) for mask in as_list(mask_image)]).round() > 0
        if len(hole) not in (1, len(given)):
            raise ValueError(f"got {len(hole)} masks for {len(given)} images; pass one for each, or one")
        hole = hole.to(given.device).expand_as(given)
        how = (class_labels, guidance_scale, num_inference_steps, predictor, corrector_steps, generator)
        x, evaluations = self._completed(2.0 * given - 1.0, hole, torch.eye(given.shape[1]).to(given), *how)
        pixels = torch.where(hole, (0.5 * x + 0.5).clamp(0.0, 1.0), given)
        return self._output(pixels, evaluations, output_type, return_dict, denormalize=False)

    def colorize(
        self,
        image: PipelineImageInput,
        class_labels: Labels = None,
        guidance_scale: float = 1.0,
        num_inference_steps: int = STEPS,
        predictor: str = "reverse_diffusion",
        corrector_steps: int = 1,
        generator: Generators = None,
        output_type: str = "pil",
        return_dict: bool = True,
    ) -> ImagePipelineOutput | tuple:
        """Colours for grey images (Song et al. 2021, section 5 and appendix I.3).

        An orthogonal matrix turns red, green and blue into their mean, times the root of 3, and two channels of
        colour. Noise stays white in them, so that colourisation is inpainting of two channels.

        Args:
            image: Images as in `encode`, of one channel: each pixel is the mean of the colours that are wanted there.
                Coloured PIL images are taken by their luma.
            class_labels: As in the call.
            guidance_scale: As in the call.
            num_inference_steps: As in the call; at least 1.
            predictor: A random one, as in the call.
            corrector_steps: As in the call.
            generator: As in the call.
            output_type: As in the call.
            return_dict: As in the call.

        Raises:
            ValueError: If the network does not draw in colour, or an argument does not fit.
        """
        if len(self.sample_shape) != 3 or self.sample_shape[0] != 3:
            raise ValueError(f"the network draws samples of shape {self.sample_shape}, which have no colour")
        grey = 2.0 * self._to_pixels(image, channels=1).expand(-1, 3, -1, -1) - 1.0
        hole = torch.zeros_like(grey, dtype=torch.bool)
        hole[:, 1:] = True
        how = (class_labels, guidance_scale, num_inference_steps, predictor, corrector_steps, generator)
        x, evaluations = self._completed(grey, hole, grey_and_colour().to(grey), *how)
        return self._output(x, evaluations, output_type, return_dict)


def grey_and_colour() -> Tensor:
    """Orthogonal matrix (3, 3) whose first row gives the mean of the colours, times the root of 3."""
    rows = [[1.0, 1.0, 1.0], [2.0, -1.0, -1.0], [0.0, 1.0, -1.0]]
    return F.normalize(torch.tensor(rows), dim=1)
