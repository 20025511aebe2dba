"""Which variance a diffusion should take back, tables 1 and 2 and figure 8 of Nichol & Dhariwal (2021), on digits.

    python -m benchmarks.tables.t7

One network a row, of one shape and budget: trained by L_simple (`ddpm`), by the hybrid loss (`iddpm`), and by a hybrid
loss whose bound weighs a thousandth, as where its sum over the noise levels is forgotten. Each is asked, for chains of
S steps and every variance it has, for the bound of 64 held-out pictures with their labels and for samples, whose
Frechet distance to held-out pictures is divided by that of as many real ones, in the features of a classifier.

The last column says what became of the variance: the spread of v over pixels and noise levels, where -1 is btilde and
1 beta; untrained, the network's v is 0 everywhere.
"""

from pathlib import Path
from typing import Any

import numpy as np
import torch
from diffusers import DDPMScheduler
from numpy.typing import NDArray

from benchmarks.tables.cells import Cells, Row, arguments, markdown, spread, trained
from hf_genzoo.data import DataArgs, MapImages, image_dataset
from hf_genzoo.evaluation.classifier import classify, train_classifier
from hf_genzoo.evaluation.distances import frechet_distance
from hf_genzoo.models.classifier import ConvClassifier

STEPS = (10, 25, 50, 100, 1000)
SAMPLED = 100  # chains up to here are also sampled: a thousand steps would take an hour
PICTURES, SAMPLES = 64, 500
VARIANCES = {"beta": "fixed_large", "btilde": "fixed_small", "learned": "learned_range"}
SHARED: dict[str, Any] = {"preset": "small", "timestep_sampling": "stratified", "num_validation_images": 20}
ROWS = (
    Row("simple", "L_simple", "ddpm"),
    Row("hybrid", "hybrid", "iddpm"),
    Row("weak", "hybrid, bound 1000 x too weak", "iddpm", {"lambda_vlb": 1e-6}),
)
PAPER = "Paper, CIFAR-10, 4,000 noise levels, cosine: 3.26 bits / FID 3.05 by L_simple, 3.17 / 3.19 by the hybrid.\n"


def digits(dataset: str, split: str) -> MapImages:
    args = DataArgs(dataset_name=dataset, class_column="label", num_channels=1, resolution=28)
    found = image_dataset(args, split=split)
    assert isinstance(found, MapImages)
    return found


def judge(dataset: str, output_dir: Path) -> ConvClassifier:
    """The classifier in whose features distances are taken; trained once."""
    folder = output_dir / "classifier"
    if not folder.is_dir():
        data = digits(dataset, "train")
        assert data.labels is not None
        assert data.class_names is not None
        train_classifier(np.asarray(data.pixels), data.labels, data.class_names).save_pretrained(folder)
    return ConvClassifier.from_pretrained(folder)  # type: ignore[return-value]


def features(net: ConvClassifier, pictures: NDArray[np.uint8]) -> NDArray[Any]:
    return classify(net, np.ascontiguousarray(pictures))[0]


def draw(pipeline: Any, steps: int, count: int, seed: int) -> NDArray[np.uint8]:
    """Pictures, uint8 (count, 1, 28, 28), without guidance, every class alike; the same noise for every variance."""
    generator, drawn = torch.Generator().manual_seed(seed), []
    for start in range(0, count, 100):
        labels = [i % 10 for i in range(start, min(start + 100, count))]
        images = pipeline(class_labels=labels, num_inference_steps=steps, generator=generator, output_type="np").images
        drawn.append((images.transpose(0, 3, 1, 2) * 255).round().astype(np.uint8))
    return np.concatenate(drawn)


@torch.no_grad()
def spread_of_v(pipeline: Any, x_0: torch.Tensor, labels: torch.Tensor) -> float:
    """Standard deviation of v over pictures, pixels and ten noise levels."""
    generator, scheduler, found = torch.Generator().manual_seed(0), pipeline.scheduler, []
    for t in torch.linspace(0, scheduler.config.num_train_timesteps - 1, 10).long():
        noise = torch.randn(x_0.shape, generator=generator)
        x_t = scheduler.add_noise(x_0, noise, t.expand(len(x_0)))
        found.append(pipeline.unet(x_t, t, class_labels=labels).sample[:, x_0.shape[1] :])
    return torch.stack(found).std().item()


def measure(row: Row, steps: int, seed: int, args: Any, output_dir: Path) -> dict[str, Any]:
    """A row's network at one number of steps: bound and Frechet ratio of every variance it has."""
    import hf_genzoo
    from hf_genzoo.images import image_grid

    folder = output_dir / f"{row.key}-{seed}"
    settings = {**SHARED, **row.settings, "dataset_name": args.dataset}
    if args.max_train_steps is not None:
        settings["max_train_steps"] = args.max_train_steps
    record = trained(row.family, folder, seed=seed, **settings)
    pipeline, net = hf_genzoo.load(folder), judge(args.dataset, output_dir)
    pipeline.set_progress_bar_config(disable=True)
    own, train, held_out = pipeline.scheduler.config, digits(args.dataset, "train"), digits(args.dataset, "validation")
    examples = held_out.examples(args.num_pictures)
    x, labels = 0.5 * (examples["pixel_values"] + 1), examples["class_labels"]
    real = features(net, np.asarray(held_out.pixels))
    order = np.random.default_rng(seed).permutation(len(train.pixels))[: args.num_samples]
    floor = frechet_distance(real, features(net, np.asarray(train.pixels)[order]))
    learns = pipeline.unet.config["out_channels"] > pipeline.unet.config["in_channels"]
    found: dict[str, Any] = {"bits": {}, "frechet_ratio": {}, "real_distance": floor}
    for name, kind in VARIANCES.items():
        if name == "learned" and not learns:
            continue
        pipeline.scheduler = DDPMScheduler.from_config(own, variance_type=kind, timestep_spacing="linspace")
        noise = torch.Generator().manual_seed(seed)
        bound = pipeline.variational_bound(x, labels, num_inference_steps=steps, generator=noise)
        found["bits"][name] = bound.sum(1).mean().item()
        if steps <= SAMPLED:
            pictures = draw(pipeline, steps, args.num_samples, seed)
            found["frechet_ratio"][name] = frechet_distance(real, features(net, pictures)) / floor
            image_grid(pipeline.numpy_to_pil(pictures[:50].transpose(0, 2, 3, 1) / 255)).save(
                output_dir / f"{row.key}-{steps}-{name}-{seed}.png"
            )
    shown = {"v": spread_of_v(pipeline, 2 * x - 1, labels)} if learns else {}
    sizes = {"pictures": len(x), "samples": args.num_samples, "steps": record["steps"]}
    return {**found, **shown, **sizes, "seconds": round(record["seconds"], 1)}


def table(cells: Cells) -> str:
    """Bounds and Frechet ratios by number of steps; a line for each network and variance."""
    columns = [steps for steps in STEPS if any(cells.read(row.key, str(steps)) for row in ROWS)]
    lines = []
    for row in ROWS:
        for variance in VARIANCES:
            shown, spreads = [], {}  # every cell of a seed is of one network
            for steps in columns:
                found = [cell for cell in cells.read(row.key, str(steps)) if variance in cell["bits"]]
                parts = [
                    spread([cell[kind][variance] for cell in found if variance in cell[kind]], 2)
                    if any(variance in cell[kind] for cell in found)
                    else "-"
                    for kind in ("bits", "frechet_ratio")
                ]
                shown.append(" / ".join(parts) if found else "")
                spreads |= {cell["seed"]: cell["v"] for cell in found if variance == "learned"}
            if any(shown):
                of_v = spread(list(spreads.values()), 2) if spreads else ""
                lines.append([f"{row.title}: {variance}", *shown, of_v])
    cell = next((cell for row in ROWS for steps in columns for cell in cells.read(row.key, str(steps))), None)
    if cell is None:
        return PAPER
    note = (
        f"Bits per dimension of {cell['pictures']} pictures / Frechet ratio of {cell['samples']} samples, after "
        f"{cell['steps']:,} training steps.\n"
    )
    head = ["network: variance", *(f"{steps} steps" for steps in columns), "spread of v"]
    return markdown(head, lines) + "\n" + note + PAPER


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
