"""Samples, exact likelihoods, latents and controlled generation by a score-based model in continuous time.

Papers
- Song, Sohl-Dickstein, Kingma, Kumar, Ermon & Poole 2021, "Score-Based Generative Modeling through Stochastic
  Differential Equations".
- Kingma et al. 2021, "Variational Diffusion Models": the bound.

What differs from the paper and why
- Each sample of an ODE has its own step size (see part `_ode`).
- Inpainting and colourisation return known pixels as they were given: the last mean is not noised again.
- Colourisation is told the mean of the three colours, the channel that the paper's orthogonal matrix splits off.

Latents are vectors (B, C H W): the noise at the end of the ODE, standard normal for the data's law.

This file is published beside the weights, with the parts it imports put into it.
"""

import itertools
import math
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import torch
from diffusers.image_processor import PipelineImageInput, VaeImageProcessor
from diffusers.models.modeling_utils import ModelMixin
from diffusers.pipelines.pipeline_utils import DiffusionPipeline, ImagePipelineOutput
from diffusers.schedulers.scheduling_utils import SchedulerMixin
from diffusers.utils.torch_utils import randn_tensor
from torch import Tensor

from hf_genzoo.pipelines._classes import Labels, class_indices
from hf_genzoo.pipelines._completion import STEPS, CompletingPipeline, Generators
from hf_genzoo.pipelines._dequantization import LEVELS, dequantized
from hf_genzoo.pipelines._flow_likelihood import continuous_bound, flow_log_density
from hf_genzoo.pipelines._latents import OUTPUT_TYPES, EncodingPipeline
from hf_genzoo.pipelines._ode import heun_step, solve_adaptive
from hf_genzoo.pipelines._pictures import as_list, check_choice, check_counts, check_generators, to_pixels
from hf_genzoo.pipelines._points import scatter

LATENT_TOLERANCE = 1e-6  # of encoding and decoding, which are to be each other's inverse
Callback = Callable[[DiffusionPipeline, int, Tensor, dict], dict]
FIRST_TIME = 1e-5  # of likelihoods and latents; the samplers' final time would cost 0.01 nats in the plane already


@dataclass
class ScoreSdePipelineOutput(ImagePipelineOutput):
    """Samples, and what they took.

    Attributes:
        images: List of PIL images, array (B, H, W, C) or tensor (B, C, H, W); of points see the call.
        network_evaluations: How often the score network was run on the batch.
    """

    network_evaluations: int = 0


class ScoreSdePipeline(CompletingPipeline, EncodingPipeline, DiffusionPipeline):
    """Everything one does with a trained score.

    Args:
        score_net: Network that predicts, from x_t and a time input, the noise of x_t or what else the scheduler says:
            a UNet2DModel, or a ScoreMLP for points.
        scheduler: A ScoreSdeScheduler.
        classifier: Network of the same inputs that predicts the logits of classes (B, K), for samples by class.
        id2label: Names of the classes, {0: "cat", ...}. A dictionary and not a list: diffusers takes every list in
            model_index.json for a component.
    """

    model_cpu_offload_seq = "score_net"
    _optional_components = ["classifier"]  # noqa: RUF012

    def __init__(
        self,
        score_net: ModelMixin,
        scheduler: SchedulerMixin,
        classifier: ModelMixin | None = None,
        id2label: dict | None = None,
    ):
        super().__init__()
        self.register_modules(score_net=score_net, scheduler=scheduler, classifier=classifier)
        # JSON turns the keys into strings; done at once, so that a saved and loaded pipeline has the same config.
        self.register_to_config(id2label=id2label and {str(label): str(name) for label, name in id2label.items()})

    @property
    def num_classes(self) -> int | None:
        """Number of classes that can be asked for, or None without a classifier."""
        return None if self.classifier is None else self.classifier.config["num_classes"]

    @property
    def sample_shape(self) -> tuple[int, ...]:
        """Shape of a sample: (C, H, W), or (D,) for points."""
        config = self.score_net.config
        if config.get("dim") is not None:
            return (config["dim"],)
        return (config["in_channels"], config["sample_size"], config["sample_size"])

    @property
    def latent_dim(self) -> int:
        """Length of a latent: as many numbers as a sample has."""
        return math.prod(self.sample_shape)

    # Samples ---------------------------------------------------------------------------------------------------------

    @torch.no_grad()
    def __call__(
        self,
        batch_size: int = 1,
        class_labels: Labels = None,
        guidance_scale: float = 1.0,
        num_inference_steps: int | None = None,
        predictor: str | None = None,
        corrector_steps: int | None = None,
        latents: Tensor | None = None,
        generator: Generators = None,
        output_type: str = "pil",
        return_dict: bool = True,
        callback_on_step_end: Callback | None = None,
    ) -> ScoreSdePipelineOutput | tuple:
        """Sample.

        Args:
            batch_size: Number of samples. Left at 1, a sequence of class labels decides.
            class_labels: One label for all samples or one for each, by index or name; needs a classifier. None
                samples all of the data.
            guidance_scale: Weight of the classifier's gradient: 1 is Bayes' rule (Song et al. 2021, eq. 14).
            num_inference_steps: Steps of the predictor. None is 1000, and for the ODE steps of their own size.
            predictor: "reverse_diffusion", "euler_maruyama", "ancestral" or "ode"; None is the scheduler's.
            corrector_steps: Langevin steps before each step of a random predictor; None is the scheduler's number.
            latents: (B, latent_dim) standard normal numbers to start from; drawn if not given.
            generator: Source of randomness, one for the batch or one for each sample.
            output_type: For images "pil" (list of images), "np" ((B, H, W, C) in [0, 1]) or "pt" ((B, C, H, W) in
                [0, 1]). For points "np" or "pt" are the coordinates, (B, D), and "pil" is a list of one picture, the
                scatter plot of all points.
            return_dict: Return a `ScoreSdePipelineOutput` rather than a tuple of its two.
            callback_on_step_end: Called with (pipeline, step index, time, {"latents": x_t}) after each step; it
                returns a dictionary, whose "latents", if there, replace x_t. Not called where the ODE chooses its own
                steps, which differ from sample to sample.

        Raises:
            ValueError: If an argument does not fit; the message names it and the fix.
        """
        check_choice("output_type", output_type, OUTPUT_TYPES)
        check_counts(batch_size=batch_size)
        batch_size = len(latents) if latents is not None else batch_size
        labels, batch_size = self._labels(class_labels, batch_size)
        if latents is not None and len(latents) != batch_size:
            raise ValueError(f"got {batch_size} class_labels for {len(latents)} latents; pass one for each, or one")
        check_generators(generator, batch_size, "samples")
        x = self._start(batch_size, generator, latents)

        def noise(x: Tensor, t: Tensor) -> Tensor:
            return self._noise(x, t, labels, guidance_scale)

        predictor = predictor or self.scheduler.config["predictor"]
        if predictor == "ode":
            if corrector_steps:
                raise ValueError(f"corrector_steps {corrector_steps}: the ODE has none; choose another predictor")
            steps, stop = num_inference_steps, self.scheduler.stop
            x, evaluations = self._flow(noise, x, 1.0, stop, steps, callback=callback_on_step_end)
        else:
            steps = STEPS if num_inference_steps is None else num_inference_steps
            how = (predictor, corrector_steps, generator)
            x, evaluations = self._walk(noise, x, steps, *how, callback=callback_on_step_end)
        return self._output(x, evaluations, output_type, return_dict)

    def _noise(self, x: Tensor, t: Tensor, labels: Tensor | None = None, guidance_scale: float = 1.0) -> Tensor:
        """eps by the network at samples (B, ...) and a time or times (B,), led to the labels where there are any."""
        t = t.expand(len(x))
        dtype = self.score_net.dtype
        time, given = self.scheduler.time_input(t).to(dtype), self.scheduler.scale_model_input(x, t).to(dtype)
        eps = self.scheduler.noise(self.score_net(given, time).sample, t, given).to(x.dtype)
        if labels is None:
            return eps
        # The score of p(x_t | y) is that of p(x_t) plus the gradient of ln p(y | x_t); a score is -eps / s.
        with torch.enable_grad():
            at = x.detach().requires_grad_()
            log_p = self.classifier(self.scheduler.scale_model_input(at, t).to(dtype), time).log_softmax(dim=1)
            (gradient,) = torch.autograd.grad(log_p.gather(1, labels[:, None]).sum(), at)
        s = self.scheduler.marginal(t)[1].to(x.dtype).reshape(-1, *(1,) * (x.ndim - 1))
        return eps - guidance_scale * s * gradient

    def _walk(
        self,
        noise: Callable[[Tensor, Tensor], Tensor],
        x: Tensor,
        steps: int,
        predictor: str,
        corrector_steps: int | None,
        generator: Generators,
        known: Callable[[Tensor, Tensor], Tensor] = lambda x, t: x,
        callback: Callback | None = None,
    ) -> tuple[Tensor, int]:
        """x at the final time, denoised, by corrector and predictor in turn (Song et al. 2021, algorithm 1).

        `known` puts what is known at a time into a sample, as it is after every step but the last.
        """
        scheduler = self.scheduler
        corrections = scheduler.config["corrector_steps"] if corrector_steps is None else corrector_steps
        if corrections < 0:
            raise ValueError(f"corrector_steps must be 0 or more, not {corrections}")
        scheduler.set_timesteps(steps, device=self._execution_device)
        with self.progress_bar(total=steps) as progress:  # type: ignore[call-arg]
            for index, t in enumerate(scheduler.timesteps):
                for _ in range(corrections):
                    x = known(scheduler.correct(noise(x, t), t, x, generator).prev_sample, t)
                out = scheduler.step(noise(x, t), t, x, generator, predictor)
                last = index + 1 == steps
                x = out.prev_sample_mean if last else known(out.prev_sample, scheduler.next_timestep(t))
                x = self._told(callback, index, t, x)
                progress.update()
        return x, steps * (1 + corrections)

    def _flow(
        self,
        noise: Callable[[Tensor, Tensor], Tensor],
        x: Tensor,
        start: float,
        end: float,
        steps: int | None = None,
        tolerance: float = 1e-5,
        callback: Callback | None = None,
    ) -> tuple[Tensor, int]:
        """x at another time by the probability-flow ODE (Song et al. 2021, eq. 13), and the evaluations it took."""

        def velocity(x: Tensor, t: Tensor) -> Tensor:
            return self.scheduler.velocity(noise(x, t), t, x)

        x = self._exact(x)
        if steps is None:
            with self._percents() as progress:
                return solve_adaptive(velocity, x, start, end, tolerance, tolerance, progress)
        check_counts(num_inference_steps=steps)
        times = torch.linspace(start, end, steps + 1, dtype=x.dtype, device=x.device)
        with self.progress_bar(total=steps) as progress:  # type: ignore[call-arg]
            for index, (t, u) in enumerate(itertools.pairwise(times)):
                x = self._told(callback, index, t, heun_step(velocity, x, t, u))
                progress.update()
        return x, 2 * steps

    def _told(self, callback: Callback | None, index: int, t: Tensor, x: Tensor) -> Tensor:
        """x after a step, or what the callback puts in its place."""
        return x if callback is None else callback(self, index, t, {"latents": x}).get("latents", x)

    @contextmanager
    def _percents(self) -> Iterator[Callable[[float], None]]:
        """A progress bar of 100, to be told shares in [0, 1]."""
        with self.progress_bar(total=100) as progress:  # type: ignore[call-arg]
            yield lambda share: progress.update(int(100 * share) - progress.n)

    @torch.no_grad()
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
        """See `CompletingPipeline`: what is known is noised to each time and put in (appendix I.2)."""
        labels, count = self._labels(class_labels, len(given))
        if count != len(given):
            raise ValueError(f"got {count} class_labels for {len(given)} images; pass one for each, or one")
        kept = torch.einsum("ij,bjhw->bihw", matrix, given)

        def insert(x: Tensor, noisy: Tensor) -> Tensor:
            turned = torch.where(hole, torch.einsum("ij,bjhw->bihw", matrix, x), noisy)
            return torch.einsum("ij,bihw->bjhw", matrix, turned)

        def known(x: Tensor, t: Tensor) -> Tensor:
            a, s = self.scheduler.marginal(t)
            return insert(x, a * kept + s * randn_tensor(x.shape, generator, x.device, x.dtype))

        def noise(x: Tensor, t: Tensor) -> Tensor:
            return self._noise(x, t, labels, guidance_scale)

        x = self._start(len(given), generator)
        x, evaluations = self._walk(noise, x, steps, predictor, corrector_steps, generator, known)
        return insert(x, kept), evaluations

    # Latents and likelihoods -----------------------------------------------------------------------------------------

    @torch.no_grad()
    def encode(self, images: PipelineImageInput) -> Tensor:
        """Latents (B, latent_dim) of images, by the probability-flow ODE, of which decoding is the inverse.

        Args:
            images: PIL images of any mode and size, arrays (B, H, W, C) or tensors (B, C, H, W) in [0, 1] or uint8;
                one or many. They are resized to the network's resolution. Of points, a tensor (B, D).
        """
        x, _ = self._flow(self._noise, self._to_sample(images), FIRST_TIME, 1.0, tolerance=LATENT_TOLERANCE)
        self.maybe_free_model_hooks()
        return (x / self.scheduler.init_noise_sigma).flatten(1).to(self.score_net.dtype)

    @torch.no_grad()
    def decode(
        self, latents: Tensor, output_type: str = "pil", return_dict: bool = True
    ) -> ScoreSdePipelineOutput | tuple:
        """Samples of latents (B, latent_dim) by the probability-flow ODE; the rest as in the call."""
        check_choice("output_type", output_type, OUTPUT_TYPES)
        x = self._start(len(latents), None, latents)
        x, evaluations = self._flow(self._noise, x, 1.0, FIRST_TIME, tolerance=LATENT_TOLERANCE)
        return self._output(x, evaluations, output_type, return_dict)

    def interpolate(
        self,
        a: Tensor | PipelineImageInput,
        b: Tensor | PipelineImageInput,
        steps: int = 8,
        mode: str = "spherical",
        output_type: str = "pil",
        return_dict: bool = True,
    ) -> ImagePipelineOutput | tuple:
        """What lies between two latents or images (see `LatentPipeline`), by default along the arc, where the prior
        has its mass."""
        return super().interpolate(a, b, steps, mode, output_type, return_dict)

    @torch.no_grad()
    def log_likelihood(
        self,
        images: PipelineImageInput,
        trace: str | None = None,
        num_draws: int = 1,
        dequantize: bool = True,
        generator: torch.Generator | None = None,
        tolerance: float = 1e-5,
        first_time: float = FIRST_TIME,
    ) -> Tensor:
        """ln p(image) in nats, by the probability-flow ODE (Song et al. 2021, section 4.3 and appendix D.2).

        The density is exact up to the solver and, with a random trace, up to noise of mean zero. It is one of pixels
        in [-1, 1], and pictures have 256 levels: so the image is dequantised, and the volume of its cell added,
        ln(2 / 256) a pixel and channel. That is the offset of 7 bits of the paper's code (8 where data are in
        [0, 1]), and the result is, on average over draws, a lower bound on the log-probability of the 8-bit picture.

        Args:
            images: As in `encode`. Of points the log-density is returned; there is nothing to dequantise.
            trace: "exact", "rademacher" or "gaussian"; None is exact up to 3 dimensions, else by a Rademacher probe.
            num_draws: Dequantisations, each with its probe, to average over; the paper takes 5.
            dequantize: False gives the log-density at the pixels as they are.
            generator: Source of randomness.
            tolerance: rtol and atol of the solver.
            first_time: Where the ODE begins.

        Returns:
            (B,) float64.

        Raises:
            ValueError: If an argument does not fit.
        """
        check_counts(num_draws=num_draws)
        trace = trace or ("exact" if self.latent_dim <= 3 else "rademacher")

        def velocity(x: Tensor, t: Tensor) -> Tensor:
            return self.scheduler.velocity(self._noise(x, t), t, x)

        drawn = []
        for _ in range(num_draws):
            x, cell = self._with_volume(images, dequantize, generator)
            prior = self.scheduler.init_noise_sigma
            how = (first_time, 1.0, prior, trace, generator, tolerance, tolerance)
            with self._percents() as progress:
                drawn.append(flow_log_density(velocity, x, *how, progress)[0] + cell)
        self.maybe_free_model_hooks()
        return torch.stack(drawn).mean(0).double()

    @torch.no_grad()
    def log_likelihood_bound(
        self,
        images: PipelineImageInput,
        num_times: int = 100,
        dequantize: bool = True,
        generator: torch.Generator | None = None,
    ) -> Tensor:
        """A lower bound on ln p(image) under the reverse SDE, estimated without bias at `num_times` times.

        It takes no derivative and a fixed number of evaluations; for a score without error it is below
        `log_likelihood`, on average, by no more than discretisation costs.

        Args:
            images: As in `encode`.
            num_times: Times of the integral, one in each of as many equal parts of the log-SNR.
            dequantize: As in `log_likelihood`.
            generator: Source of randomness.

        Returns:
            (B,) float64 nats.

        Raises:
            ValueError: If `num_times` is below 1.
        """
        check_counts(num_times=num_times)
        x, cell = self._with_volume(images, dequantize, generator)
        device = x.device if generator is None else generator.device
        u = torch.arange(num_times)[:, None] + torch.rand(num_times, len(x), generator=generator, device=device).cpu()
        share = torch.cat([torch.zeros(1, len(x)), u / num_times, torch.ones(1, len(x))]).to(x)
        ends = self.scheduler.log_snr(torch.tensor([FIRST_TIME, 1.0]).to(x))
        times = self.scheduler.time_of_log_snr(torch.lerp(ends[0], ends[1], share))
        prior = self.scheduler.init_noise_sigma
        bound = continuous_bound(self._noise, self.scheduler.marginal, times, x, prior, generator)
        self.maybe_free_model_hooks()
        return (bound + cell).double()

    def bits_per_dimension(self, images: PipelineImageInput, generator: torch.Generator | None = None) -> Tensor:
        """-log2 p(image) over the number of pixels and channels, (B,) float64; see `log_likelihood`."""
        return -self.log_likelihood(images, generator=generator) / (self.latent_dim * math.log(2.0))

    # Between users and the network -----------------------------------------------------------------------------------

    def _with_volume(
        self, images: PipelineImageInput, dequantize: bool, generator: torch.Generator | None
    ) -> tuple[Tensor, float]:
        """Samples of a density, and the logarithm of the volume of their cells."""
        x = self._exact(self._to_sample(images))
        if len(self.sample_shape) == 1 or not dequantize:
            return x, 0.0
        return 2.0 * dequantized(0.5 * x + 0.5, generator) - 1.0, math.log(2.0 / LEVELS) * self.latent_dim

    def _to_sample(self, images: PipelineImageInput) -> Tensor:
        """Images of any accepted kind as (B, C, H, W) in [-1, 1], or points (B, D) as they are."""
        if len(self.sample_shape) == 3:
            return 2.0 * self._to_pixels(images) - 1.0
        if not isinstance(images, Tensor) or images.ndim != 2 or images.shape[1:] != self.sample_shape:
            raise ValueError(f"points must be a tensor of shape (B, {self.sample_shape[0]})")
        return images.to(self._execution_device)

    def _to_pixels(self, images: PipelineImageInput, channels: int | None = None) -> Tensor:
        """Images as (B, C, H, W) in [0, 1]."""
        if len(self.sample_shape) != 3:
            raise ValueError(f"the network draws points of {self.sample_shape[0]} dimensions, no images")
        channels = self.sample_shape[0] if channels is None else channels
        pixels = [to_pixels(image, channels, self.sample_shape[-1]) for image in as_list(images)]
        return torch.cat(pixels).to(device=self._execution_device, dtype=self.score_net.dtype)

    def _start(self, count: int, generator: Generators, latents: Tensor | None = None) -> Tensor:
        """Samples of the prior, (B, ...)."""
        shape, dtype = (count, *self.sample_shape), self.score_net.dtype
        if latents is None:
            latents = randn_tensor(shape, generator=generator, device=self._execution_device, dtype=dtype)
        elif latents.ndim != 2 or latents.shape[1] != self.latent_dim:
            raise ValueError(f"latents must have shape (B, {self.latent_dim}), not {tuple(latents.shape)}")
        return latents.to(device=self._execution_device, dtype=dtype).view(shape) * self.scheduler.init_noise_sigma

    def _labels(self, class_labels: Labels, batch_size: int) -> tuple[Tensor | None, int]:
        """Labels as (B,) int64, None where none are given, and the batch size."""
        if class_labels is None:
            return None, batch_size
        if self.num_classes is None:
            raise ValueError(
                f"class_labels {class_labels!r}, but there is no classifier to lead there; leave them out"
            )
        labels = class_indices(class_labels, batch_size, self.num_classes, self.config["id2label"])
        return labels.to(self._execution_device), len(labels)

    def _output(
        self, x: Tensor, evaluations: int, output_type: str, return_dict: bool, denormalize: bool = True
    ) -> ScoreSdePipelineOutput | tuple:
        x = x.to(self.score_net.dtype)
        if x.ndim == 4:
            how = [denormalize] * len(x)
            images = VaeImageProcessor().postprocess(x, output_type=output_type, do_denormalize=how)
        elif output_type == "pil":
            images = [scatter(x)]
        else:
            images = x.cpu().float().numpy() if output_type == "np" else x
        self.maybe_free_model_hooks()
        if not return_dict:
            return images, evaluations
        return ScoreSdePipelineOutput(images=images, network_evaluations=evaluations)  # type: ignore[arg-type]

    @staticmethod
    def _exact(x: Tensor) -> Tensor:
        """In float64, in which the steps of a solver add up, where the device has it."""
        return x.float() if x.device.type == "mps" else x.double()
