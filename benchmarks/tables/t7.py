"""Which variance a diffusion should take back, tables 1 and 2 and figure 8 of Nichol & Dhariwal (2021), on digits.

    python -m benchmarks.tables.t7

One network a row, of one shape and budget: trained by L_simple (`ddpm`), by the hybrid loss (`iddpm`), and by a hybrid
loss whose bound weighs a thousandth, as where its sum over the noise levels is forgotten. Each is asked, for chains of
S steps and every variance it has, for the bound of 64 held-out pictures with their labels and for samples, whose
Frechet distance to held-out pictures is divided by that of as many training pictures, in three feature spaces: a
classifier's, random convolutions', and that of the principal components of the pixels.

The last column of the bounds says what became of the variance: how far from the best is the share of the way from
btilde to beta that v gives, 0 if it is nowhere wrong, and what that would be untrained, where v is 0 and the
share a half.
"""

from pathlib import Path
from typing import Any

import numpy as np
import torch
from diffusers import DDPMScheduler
from numpy.typing import NDArray

from benchmarks.tables.cells import Cells, Row, arguments, markdown, spread, trained
from benchmarks.tables.spaces import MEAN, SPACES, frechet_ratios, shown, yardstick
from hf_genzoo.data import DataArgs, MapImages, image_dataset
from hf_genzoo.pipelines._variational import chain_of, predicted_x_0

STEPS = (10, 25, 50, 100, 1000)
SAMPLED = 50  # chains up to here are also sampled: a thousand steps would take an hour
PICTURES, SAMPLES = 64, 500
GROUPS = 16  # of the pixels of one noise level, equal
FEW = 25  # chains up to here are few steps, of which the paper says that only the learned variance keeps the quality
VARIANCES = {"beta": "fixed_large", "btilde": "fixed_small", "learned": "learned_range"}
SHAPE: dict[str, Any] = {"class_column": "label", "num_channels": 1, "resolution": 28}
SHARED: dict[str, Any] = {
    "preset": "small",
    "timestep_sampling": "stratified",
    "num_validation_images": 20,
    "max_train_steps": 16_000,
    "checkpoints_total_limit": 1,
}
ROWS = (
    Row("simple", "L_simple", "ddpm"),
    Row("hybrid", "hybrid", "iddpm"),
    Row("weak", "hybrid, bound 1000 x too weak", "iddpm", {"lambda_vlb": 1e-6}),
)
PAPER = "Paper, CIFAR-10, 4,000 noise levels, cosine: 3.26 bits / FID 3.05 by L_simple, 3.17 / 3.19 by the hybrid.\n"


def held_out(dataset: str, count: int) -> dict[str, torch.Tensor]:
    """`pixel_values` (count, 1, 28, 28) in [-1, 1] and `class_labels` (count,) of held-out pictures."""
    found = image_dataset(DataArgs(dataset_name=dataset, **SHAPE), split="validation")
    assert isinstance(found, MapImages)
    return found.examples(count)


def draw(pipeline: Any, steps: int, count: int, seed: int) -> NDArray[np.uint8]:
    """Pictures, uint8 (count, 1, 28, 28), without guidance, every class alike; the same noise for every variance."""
    generator, drawn = torch.Generator().manual_seed(seed), []
    for start in range(0, count, 100):
        labels = [i % 10 for i in range(start, min(start + 100, count))]
        images = pipeline(class_labels=labels, num_inference_steps=steps, generator=generator, output_type="np").images
        drawn.append((images.transpose(0, 3, 1, 2) * 255).round().astype(np.uint8))
    return np.concatenate(drawn)


@torch.no_grad()
def variance_error(pipeline: Any, x_0: torch.Tensor, labels: torch.Tensor) -> dict[str, float]:
    """How far the network's variance is from the best: `learned`, and `untrained`, of v = 0 and the same mean.

    The best share of the way from btilde to beta is the posterior variance of x_0 over 1 - abar, for a step to any
    lower level. A pixel's squared error says little of it, the mean of many does: at each of ten noise levels the
    pixels are put into equal groups by the share that the network gives them. Of the groups' errors, the root mean
    square (a calibration error).

    Args:
        pipeline: With a network that learns its variance.
        x_0: (B, 1, 28, 28) in [-1, 1].
        labels: (B,).
    """
    generator, chain = torch.Generator().manual_seed(0), chain_of(pipeline.scheduler.betas)
    learned, untrained = [], []
    for t in torch.linspace(0, len(chain) - 1, 11).long()[1:]:
        noise, index = torch.randn(x_0.shape, generator=generator), t.expand(len(x_0))
        x_t = pipeline.scheduler.add_noise(x_0, noise, index)
        output, v = pipeline.unet(x_t, t, class_labels=labels).sample.chunk(2, dim=1)
        x_0_hat = predicted_x_0(output, x_t, chain, index, pipeline.scheduler.config.prediction_type).clamp(-1, 1)
        order = v.flatten().argsort()
        share, best = (
            pixels.flatten()[order].view(GROUPS, -1).mean(1)
            for pixels in (0.5 * (v + 1), (x_0 - x_0_hat).square() / (1 - chain.abar[t]).float())
        )
        learned.append((share - best).square().mean())
        untrained.append((0.5 - best).square().mean())
    return {
        "learned": torch.stack(learned).mean().sqrt().item(),
        "untrained": torch.stack(untrained).mean().sqrt().item(),
    }


def measure(row: Row, steps: int, seed: int, args: Any, output_dir: Path) -> dict[str, Any]:
    """A row's network at one number of steps: bound and Frechet ratio of every variance it has."""
    import hf_genzoo
    from hf_genzoo.images import image_grid

    folder = output_dir / f"{row.key}-{seed}"
    settings = {**SHARED, **row.settings, "dataset_name": args.dataset}
    if args.max_train_steps is not None:
        settings["max_train_steps"] = args.max_train_steps
    record = trained(row.family, folder, seed=seed, **settings)
    pipeline = hf_genzoo.load(folder)
    pipeline.set_progress_bar_config(disable=True)
    own, examples = pipeline.scheduler.config, held_out(args.dataset, args.num_pictures)
    x, labels = 0.5 * (examples["pixel_values"] + 1), examples["class_labels"]
    real = yardstick(args.num_samples, dataset_name=args.dataset, **SHAPE)
    learns = pipeline.unet.config["out_channels"] > pipeline.unet.config["in_channels"]
    found: dict[str, Any] = {"bits": {}, "frechet_ratio": {}}
    for name, kind in VARIANCES.items():
        if name == "learned" and not learns:
            continue
        pipeline.scheduler = DDPMScheduler.from_config(own, variance_type=kind, timestep_spacing="linspace")
        noise = torch.Generator().manual_seed(seed)
        bound = pipeline.variational_bound(x, labels, num_inference_steps=steps, generator=noise)
        found["bits"][name] = bound.sum(1).mean().item()
        if steps <= SAMPLED:
            pictures = draw(pipeline, steps, args.num_samples, seed)
            found["frechet_ratio"][name] = frechet_ratios(real, pictures)
            image_grid(pipeline.numpy_to_pil(pictures[:50].transpose(0, 2, 3, 1) / 255)).save(
                output_dir / f"{row.key}-{steps}-{name}-{seed}.png"
            )
    of_v = {"variance_error": variance_error(pipeline, 2 * x - 1, labels)} if learns else {}
    sizes = {"pictures": len(x), "samples": args.num_samples, "steps": record["steps"]}
    return {**found, **of_v, **sizes, "seconds": round(record["seconds"], 1)}


def table(cells: Cells) -> str:
    """Bounds, Frechet ratios, and what of the paper holds; a line for each network and variance."""
    columns = [steps for steps in STEPS if any(cells.read(row.key, str(steps)) for row in ROWS)]
    sampled = [steps for steps in columns if steps <= SAMPLED]
    cell = next((cell for row in ROWS for steps in columns for cell in cells.read(row.key, str(steps))), None)
    if cell is None:
        return PAPER
    bounds, ratios = [], []
    for row in ROWS:
        for variance in VARIANCES:
            title = f"{row.title}: {variance}"
            found = {steps: _of(cells, row, steps, variance) for steps in columns}
            if not any(found.values()):
                continue
            of_v = {  # every cell of a seed is of one network
                one["seed"]: one["variance_error"] for many in found.values() for one in many if variance == "learned"
            }
            errors = [spread([one[which] for one in of_v.values()], 2) for which in ("learned", "untrained") if of_v]
            bits = [spread([one["bits"][variance] for one in many], 2) if many else "" for many in found.values()]
            bounds.append([title, *bits, " of ".join(errors)])
            drawn = [[one["frechet_ratio"][variance] for one in found[steps]] for steps in sampled]
            ratios.append([title, *(shown(many) if many else "" for many in drawn)])
    bits = f"bits per dimension of {cell['pictures']} pictures"
    spaces = f"{' / '.join(SPACES)} of {cell['samples']} samples"
    return "\n".join(
        [
            markdown([bits, *(f"{steps} steps" for steps in columns), "error of the variance"], bounds),
            markdown([spaces, *(f"{steps} steps" for steps in sampled)], ratios),
            "".join(f"- {claim}: {verdict}.\n" for claim, verdict in claims(cells).items()),
            f"Networks: {cell['steps']:,} steps.\n{PAPER}",
        ]
    )


def _of(cells: Cells, row: Row, steps: int, variance: str) -> list[dict[str, Any]]:
    """A row's seeds, if its network has this variance."""
    return [cell for cell in cells.read(row.key, str(steps)) if variance in cell["bits"]]


def claims(cells: Cells) -> dict[str, str]:
    """Whether the hybrid's learned variance is at most both fixed ones, number of steps by number of steps."""
    row = next(row for row in ROWS if row.key == "hybrid")

    def best(found: list[dict[str, Any]], kind: str, space: str | None = None) -> bool:
        def mean(variance: str) -> float:
            values = [cell[kind][variance] for cell in found]
            return float(np.mean(values if space is None else [value[space] for value in values]))

        return mean("learned") <= min(mean(variance) for variance in VARIANCES if variance != "learned")

    measured = {steps: found for steps in STEPS if (found := _of(cells, row, steps, "learned"))}
    bits = [best(found, "bits") for found in measured.values()]
    few = {
        space: ", ".join(
            f"{steps} steps {'yes' if best(found, 'frechet_ratio', space) else 'no'}"
            for steps, found in measured.items()
            if steps <= FEW
        )
        for space in (*SPACES, MEAN)
    }
    return {
        "The learned variance's bound is at most both fixed ones'": f"{sum(bits)} of {len(bits)} numbers of steps",
        **{f"Its Frechet ratio is at most both fixed ones', {space}": said for space, said in few.items()},
    }


def main() -> None:
    parser = arguments(__doc__, ROWS)
    parser.add_argument("--dataset", default="digits", help="Digits of 28 x 28: a Hub name, a folder, or digits.")
    parser.add_argument("--steps", nargs="+", type=int, choices=STEPS, default=STEPS, help="Chains to measure.")
    parser.add_argument("--max_train_steps", type=int, help="Training steps of a row, if not the preset's.")
    parser.add_argument("--num_pictures", type=int, default=PICTURES, help="Held-out pictures of the bound.")
    parser.add_argument("--num_samples", type=int, default=SAMPLES, help="Samples of a Frechet ratio.")
    parser.add_argument("--home", type=Path, help="Folder of cells and table; benchmarks/tables by default.")
    args = parser.parse_args()
    cells = Cells("t7") if args.home is None else Cells("t7", args.home)
    output_dir = args.output_dir or Path("outputs/tables/t7")
    if not args.only_write:
        rows, columns = [row for row in ROWS if row.key in args.rows], [str(steps) for steps in args.steps]
        for folder in (output_dir, cells.home):
            folder.mkdir(parents=True, exist_ok=True)
        cells.fill(
            rows, columns, range(args.seeds), lambda row, steps, seed: measure(row, int(steps), seed, args, output_dir)
        )
    cells.write(table(cells))


if __name__ == "__main__":
    main()
