"""Train a score in continuous time (Song et al. 2021, https://arxiv.org/abs/2011.13456).

Data are turned into noise by a stochastic differential equation, VP, sub-VP or VE by --sde, and a network learns the
score, the gradient of the log-density of what is noisy to a degree. It turns noise back into data, by the reverse SDE
or by an ordinary differential equation that has the same laws; by that one also the exact likelihood and the latent of
any sample are had. --stage classifier then trains a classifier of noisy pictures, which leads samples to a class.

Differs from the paper: small stock U-Nets (points: a fully connected network) that predict the noise, or the velocity
(--prediction_type), from which the noise follows; the network's input has unit size for VE, too; t may be drawn evenly
over a batch. --likelihood_weighting is that of Song, Durkan, Murray & Ermon 2021 (https://arxiv.org/abs/2101.09258),
with their importance sampling of t, which for all three SDEs is a uniform log-SNR.
"""

import sys
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, ClassVar, Literal

import torch
import torch.nn.functional as F
from PIL import Image
from torch import Tensor, nn

from hf_genzoo.data.args import POINT_SETS
from hf_genzoo.diffusion import low_discrepancy_uniform
from hf_genzoo.hub import load
from hf_genzoo.models.noisy_classifier import NoisyClassifier
from hf_genzoo.models.score_mlp import ScoreMLP
from hf_genzoo.pipelines._dequantization import dequantized
from hf_genzoo.pipelines.score_sde import FIRST_TIME, ScoreSdePipeline
from hf_genzoo.schedulers.score_sde import ScoreSdeScheduler
from hf_genzoo.training.args import flag
from hf_genzoo.training.optimizers import adam
from hf_genzoo.training.run import Run
from hf_genzoo.training.script import run_script
from hf_genzoo.training_scripts.train_ddpm import UNetArgs, stock_unet
from hf_genzoo.training_scripts.train_gan import dataset


@dataclass
class Args(UNetArgs):
    family: ClassVar[str] = "score_sde"

    stage: Literal["score", "classifier"] = flag("score", "What is trained: the score, or a classifier to lead it.")
    score_model: str | None = flag(None, "classifier: folder or Hub repository of the trained score.")

    sde: Literal["vp", "sub_vp", "ve"] = flag("vp", "How data turn into noise.")
    prediction_type: Literal["epsilon", "v_prediction"] = flag(
        "epsilon",
        "What the network predicts; from the velocity the noise follows exactly where nearly all is noise.",
    )
    sigma_max: float = flag(50.0, "ve: largest noise level, about the largest distance of two samples.")
    sigma_min: float = flag(0.01, "ve: smallest noise level.")
    likelihood_weighting: bool = flag(False, "Weigh the loss by g^2 in place of std^2: the bound on the likelihood.")
    importance_sampling: bool = flag(True, "likelihood_weighting: draw t by the weight rather than evenly.")
    timestep_sampling: Literal["uniform", "stratified"] = flag(
        "uniform", "How t is drawn: each by itself, or one from each of B equal parts of its law."
    )
    dequantize: bool = flag(False, "Spread 8-bit pictures evenly over their cells: for likelihoods.")

    hidden_dim: int = flag(128, "Width of the network for points.")

    predictor: Literal["reverse_diffusion", "euler_maruyama", "ancestral", "ode"] = flag(
        "reverse_diffusion", "What the published pipeline samples by, unless it is told otherwise."
    )
    corrector_steps: int = flag(0, "Langevin steps before each step of the predictor; the paper takes 1 for ve.")
    num_inference_steps: int = flag(1000, "Steps of the predictor for the sample grids.")
    guidance_scale: float = flag(1.0, "classifier: weight of its gradient for the sample grids; 1 is Bayes' rule.")

    def __post_init__(self) -> None:
        super().__post_init__()
        points = self.dataset_name in POINT_SETS
        if self.stage == "classifier" and (self.score_model is None or self.class_column is None or points):
            raise ValueError(
                "--stage classifier needs --score_model, the trained score, and pictures with a --class_column, not "
                f"{self.score_model!r} and {self.class_column!r} of {self.dataset_name or self.train_data_dir!r}"
            )
        if self.stage == "score" and self.score_model is not None:
            raise ValueError(f"--score_model {self.score_model!r} is for --stage classifier")


TINY: dict[str, Any] = {
    "dataset_name": "digits",
    "num_channels": 1,
    "resolution": 8,
    "block_out_channels": [8, 16],
    "layers_per_block": 1,
    "attention_levels": [-1],
    "norm_num_groups": 4,
    "dropout": 0.0,
    "hidden_dim": 16,
    "dequantize": True,
    "train_batch_size": 4,
    "max_train_steps": 20,
    "lr_warmup_steps": 0,
    "num_validation_images": 4,
    "num_inference_steps": 3,
}
SMALL: dict[str, Any] = {
    "dataset_name": "digits",
    "num_channels": 1,
    "resolution": 28,
    "block_out_channels": [16, 32, 64],
    "layers_per_block": 1,
    "attention_levels": [-1],
    "norm_num_groups": 8,
    "dropout": 0.0,
    "dequantize": True,
    "prediction_type": "v_prediction",
    "timestep_sampling": "stratified",
    "predictor": "ode",
    "num_inference_steps": 25,
    "num_validation_images": 100,
    "train_batch_size": 32,
    "max_train_steps": 3000,
    "learning_rate": 5e-3,
    "adam_beta2": 0.99,
    "lr_scheduler": "cosine",
    "lr_warmup_steps": 100,
    "ema_power": 1.0,
    "ema_inv_gamma": 8.0,
}
RING: dict[str, Any] = {  # eight Gaussians on a circle, in the plane
    "dataset_name": "gaussians2d",
    "dataset_config_name": "ring",
    "timestep_sampling": "stratified",
    "likelihood_weighting": True,
    "predictor": "ode",
    "num_inference_steps": 100,
    "train_batch_size": 512,
    "max_train_steps": 5000,
    "learning_rate": 3e-3,
    "adam_beta2": 0.99,
    "lr_scheduler": "cosine",
    "lr_warmup_steps": 100,
    "ema_power": 1.0,
    "ema_inv_gamma": 8.0,
}
PRESETS = {"tiny": TINY, "small": SMALL, "ring": RING}


def build(args: Args, num_classes: int | None = None) -> dict[str, nn.Module]:
    """The network of the stage."""
    if args.stage == "classifier":
        classifier = NoisyClassifier(
            in_channels=args.num_channels,
            num_classes=num_classes or 2,
            block_out_channels=tuple(args.block_out_channels),
            norm_num_groups=args.norm_num_groups,
        )
        return {"classifier": classifier}
    if args.dataset_name in POINT_SETS:
        return {"score_net": ScoreMLP(hidden_dim=args.hidden_dim)}
    return {"score_net": stock_unet(args, args.num_channels, args.num_channels)}


def draw_times(count: int, scheduler: ScoreSdeScheduler, args: Args, device: torch.device) -> tuple[Tensor, Tensor]:
    """Times (B,) and the weights (B,) of their squared errors of eps.

    The error of the score is that of eps over std: lambda = std^2 leaves 1, lambda = g^2 leaves g^2 / std^2, here with
    the half of the bound. That is also half the slope of the log-SNR, so that t drawn by it has a uniform log-SNR.
    Of a network that predicts the velocity that one's error is taken in place of lambda = std^2: the error of eps
    vanishes where all is noise, and what the picture is to be would not be learnt.
    """
    stratified = args.timestep_sampling == "stratified"
    u = low_discrepancy_uniform(count, device).float() if stratified else torch.rand(count, device=device)
    t = FIRST_TIME + (1.0 - FIRST_TIME) * u
    if not args.likelihood_weighting:
        return t, torch.ones_like(t) if args.prediction_type == "epsilon" else 1.0 + scheduler.log_snr(t).neg().exp()
    if args.importance_sampling:
        first, last = scheduler.log_snr(torch.tensor([FIRST_TIME, 1.0], device=device))
        return scheduler.time_of_log_snr(torch.lerp(first, last, u)), 0.5 * (first - last).expand(count)
    return t, 0.5 * scheduler.squared_diffusion(t) / scheduler.marginal(t)[1].square()


def noised(x_0: Tensor, noise: Tensor, t: Tensor, scheduler: ScoreSdeScheduler) -> tuple[Tensor, Tensor]:
    """x_t as networks are given it, and what they are told of t."""
    a, s = (values.reshape(-1, *(1,) * (x_0.ndim - 1)) for values in scheduler.marginal(t))
    return scheduler.scale_model_input(a * x_0 + s * noise, t), scheduler.time_input(t)


def main(args: Args) -> Path:
    return {"score": train_score, "classifier": train_classifier}[args.stage](args)


def train_score(args: Args) -> Path:
    torch.manual_seed(args.seed)
    data, nets = dataset(args), build(args)
    scheduler = ScoreSdeScheduler(
        sde=args.sde,
        sigma_min=args.sigma_min,
        sigma_max=args.sigma_max,
        predictor=args.predictor,
        corrector_steps=args.corrector_steps,
        prediction_type=args.prediction_type,
    )
    run = Run(
        args,
        nets=nets,
        optimizers={"score_net": adam(nets["score_net"], args)},
        ema=["score_net"],
        data=data,
        export=lambda nets: ScoreSdePipeline(score_net=nets["score_net"], scheduler=scheduler),  # pyright: ignore[reportArgumentType]
        preview=partial(preview, args=args),
        sampling={"num_inference_steps": args.num_inference_steps},
    )
    score_net = run.nets["score_net"]

    for _ in run.steps():  # Song et al. 2021, eq. 7
        for batch in run.update("score_net"):
            x_0 = batch[data.key]  # (B, C, H, W) in [-1, 1], or points (B, 2)
            if args.dequantize and x_0.ndim == 4:
                x_0 = 2.0 * dequantized(0.5 * x_0 + 0.5) - 1.0
            noise = torch.randn_like(x_0)
            t, weight = draw_times(len(x_0), scheduler, args, run.device)
            given, told = noised(x_0, noise, t, scheduler)
            eps = scheduler.noise(score_net(given, told).sample, t, given)  # -std times the score
            error = (eps - noise).square().flatten(1).mean(1)
            run.backward((weight * error).mean())
    return run.output_dir


def train_classifier(args: Args) -> Path:
    torch.manual_seed(args.seed)
    data: Any = dataset(args)
    scored = load(args.score_model or "")
    if not isinstance(scored, ScoreSdePipeline):
        raise ValueError(f"--score_model {args.score_model} holds a {type(scored).__name__}, no ScoreSdePipeline")
    if (shape := (args.num_channels, args.resolution, args.resolution)) != scored.sample_shape:
        raise ValueError(f"--score_model draws {scored.sample_shape}, the data are {shape}: set --resolution")
    scheduler, nets = scored.scheduler, build(args, data.num_classes)
    run = Run(
        args,
        nets=nets,
        optimizers={"classifier": adam(nets["classifier"], args)},
        ema=["classifier"],
        data=data,
        export=partial(export_guided, scored=scored, class_names=data.class_names),
        preview=partial(preview, args=args),
        sampling={"num_inference_steps": args.num_inference_steps, "guidance_scale": args.guidance_scale},
    )
    classifier = run.nets["classifier"]

    for _ in run.steps():  # Song et al. 2021, appendix I.1
        for batch in run.update("classifier"):
            x_0, y = batch[data.key], batch["class_labels"]
            t = FIRST_TIME + (1.0 - FIRST_TIME) * torch.rand(len(x_0), device=run.device)
            logits = classifier(*noised(x_0, torch.randn_like(x_0), t, scheduler))  # ln p(y | x_t), up to a constant
            run.backward(F.cross_entropy(logits, y), accuracy=(logits.argmax(1) == y).float().mean())
    return run.output_dir


def export_guided(nets: dict[str, nn.Module], scored: ScoreSdePipeline, class_names: list[str]) -> ScoreSdePipeline:
    """The score's pipeline with the classifier."""
    return ScoreSdePipeline(
        score_net=scored.score_net,
        scheduler=scored.scheduler,
        classifier=nets["classifier"],  # pyright: ignore[reportArgumentType]
        id2label=dict(enumerate(class_names)),
    )


def preview(pipeline: ScoreSdePipeline, args: Args) -> list[Image.Image]:
    """Samples from the same noise each time; one class after the other where there are classes; points as a plot."""
    count, classes = args.num_validation_images, pipeline.num_classes
    count = 2500 if args.dataset_name in POINT_SETS else count
    return pipeline(
        batch_size=count,
        class_labels=None if classes is None else [i % classes for i in range(count)],
        guidance_scale=args.guidance_scale,
        num_inference_steps=args.num_inference_steps,
        generator=torch.Generator().manual_seed(args.seed),
    ).images  # pyright: ignore[reportAttributeAccessIssue]


if __name__ == "__main__":
    sys.exit(run_script(sys.modules[__name__]))
