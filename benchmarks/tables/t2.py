"""Stacked digits: modes that GANs keep on pictures, tables 2 and 3 of PacGAN (Lin et al. 2018), with two digits.

    python -m benchmarks.tables.t2 --dataset path/to/mnist --seeds 3

A picture of 14 x 14 pixels shows one random digit in red and another in green: 100 equally frequent modes, which no
label tells. Every row has the same generator and a discriminator half as wide that sees 64 inputs a step, and draws
5,000 pictures from its averaged generator; a classifier of single digits reads both channels. A mode is kept if
it is drawn once, and the KL is that of the modes' histogram to the uniform law. The paper stacks three digits (1,000
modes); the floor of a perfect sampler, (K - 1) / (2 N), is given, and real pictures read by the same classifier are
the first row. A sample of which the classifier is sure to 90 %, in both digits, is recognised. The KL of those alone
tells modes that are missing from digits that cannot be read, which are taken for whatever they resemble most.
"""

import json
from pathlib import Path
from typing import Any

import numpy as np
import torch
from datasets import Dataset, Features, Image
from numpy.typing import NDArray

from benchmarks.tables.cells import Cells, Row, arguments, markdown, spread, trained
from hf_genzoo.data import DataArgs, MapImages, image_dataset
from hf_genzoo.evaluation.classifier import accuracy, classify, train_classifier
from hf_genzoo.evaluation.distances import class_balance
from hf_genzoo.models.classifier import ConvClassifier

Pictures = NDArray[np.uint8]

SIZE, MODES, SAMPLES, TRAINED_ON = 14, 100, 5000, 25_000
SURE = 0.9
"""Probability of a digit from which on it counts as recognised."""
COLUMN = "two"
STEPS = 6000
SHARED: dict[str, Any] = {
    "preset": "small",
    "num_channels": 3,
    "resolution": SIZE,
    "block_out_channels": [64, 128],
    "max_train_steps": STEPS,
}
WEAK = {"discriminator_channels": [32, 64]}
PLAIN = {**WEAK, "r1_gamma": 0.0, "norm_type": "batch", "adam_beta1": 0.5, "adam_beta2": 0.999}
ROWS = (
    Row("dcgan", "DCGAN", "gan", PLAIN),
    Row("pacdcgan2", "PacDCGAN2", "gan", {**PLAIN, "pack": 2, "train_batch_size": 128}),  # 64 packs
    Row("wgan_gp", "WGAN-GP", "wgan_gp", {"critic_channels": [32, 64]}),
    Row("rpgan", "relativistic, R1 + R2", "gan", {**WEAK, "loss": "relativistic", "r1_gamma": 1.0, "r2_gamma": 1.0}),
)
PAPER = {"dcgan": "487.7 / 2.24", "pacdcgan2": "840.7 / 1.00"}  # of 1,000, discriminator half of the generator


def stacked(digits: Pictures, count: int, seed: int) -> tuple[Pictures, NDArray[np.int64]]:
    """Pictures, uint8 (count, H, W, 3), of two random digits (N, H, W), and the rows of both, (count, 2)."""
    rows = np.random.default_rng(seed).integers(len(digits), size=(count, 2))
    red, green = digits[rows[:, 0]], digits[rows[:, 1]]
    return np.stack([red, green, np.zeros_like(red)], axis=-1), rows


def read(judge: ConvClassifier, pictures: Pictures) -> tuple[NDArray[np.int64], NDArray[np.bool_]]:
    """What a classifier of single digits reads in pictures (N, H, W, 3): modes, 10 a + b, and if it is sure of both.

    It names a digit for any blot; how often it is sure of one tells how much the modes' histogram is worth.
    """
    red, green = (classify(judge, pictures[:, None, ..., c])[1] for c in (0, 1))
    sure = np.minimum(red.max(axis=1), green.max(axis=1)) >= SURE
    return 10 * red.argmax(axis=1) + green.argmax(axis=1), sure


def prepare(dataset: str, output_dir: Path) -> tuple[ConvClassifier, dict[str, Any]]:
    """The stacked training set, the classifier, and what real pictures score; once for all cells."""
    import datasets
    from PIL import Image as Picture

    facts_file, folder = output_dir / "facts.json", output_dir / "data"
    if not facts_file.is_file():
        args = DataArgs(dataset_name=dataset, class_column="label", num_channels=1, resolution=SIZE)
        train, held_out = image_dataset(args), image_dataset(args, split="validation")
        assert isinstance(train, MapImages)
        assert isinstance(held_out, MapImages)
        assert train.labels is not None
        assert held_out.labels is not None
        assert train.class_names is not None
        pictures, _ = stacked(np.asarray(train.pixels)[:, 0], TRAINED_ON, seed=0)
        rows = {"image": [Picture.fromarray(picture) for picture in pictures]}
        folder.mkdir(parents=True, exist_ok=True)
        Dataset.from_dict(rows, features=Features({"image": Image()})).to_parquet(folder / "train.parquet")
        judge = train_classifier(np.asarray(train.pixels), train.labels, train.class_names)
        judge.save_pretrained(output_dir / "classifier")
        pictures, _ = stacked(np.asarray(held_out.pixels)[:, 0], SAMPLES, seed=1)
        share = accuracy(judge, np.asarray(held_out.pixels), held_out.labels).value
        facts = {"dataset": Path(dataset).name, "classifier_accuracy": share, **score(*read(judge, pictures))}
        facts_file.write_text(json.dumps(facts, indent=1))
        datasets.disable_progress_bars()
    judge = ConvClassifier.from_pretrained(output_dir / "classifier")
    return judge, json.loads(facts_file.read_text())  # type: ignore[return-value]


def score(modes: NDArray[np.int64], sure: NDArray[np.bool_]) -> dict[str, Any]:
    """Modes, KL, share of samples recognised, and the KL of those; each KL with the floor for as many samples."""
    found: dict[str, Any] = {"modes": len(np.unique(modes)), "recognised": float(sure.mean())}
    found["kl"], found["kl_floor"] = class_balance(modes, MODES)
    if sure.any():
        found["kl_recognised"], found["kl_recognised_floor"] = class_balance(modes[sure], MODES)
    return found


def measure(row: Row, seed: int, judge: ConvClassifier, output_dir: Path) -> dict[str, Any]:
    """Train a row, and read what 5,000 of its pictures show."""
    import hf_genzoo
    from hf_genzoo.images import image_grid

    folder = output_dir / f"{row.key}-{seed}"
    settings = {**SHARED, **row.settings, "train_data_dir": str(output_dir / "data"), "dataset_name": None}
    record = trained(row.family, folder, seed=seed, **settings)
    pipeline, generator = hf_genzoo.load(folder), torch.Generator().manual_seed(seed)
    drawn = [pipeline(batch_size=500, generator=generator, output_type="np").images for _ in range(SAMPLES // 500)]
    pictures = (np.concatenate(drawn) * 255).round().astype(np.uint8)
    image_grid(pipeline.numpy_to_pil(drawn[0][:100])).save(output_dir / f"{row.key}-{seed}.png")
    return {**score(*read(judge, pictures)), "steps": record["steps"]}


def table(cells: Cells) -> str:
    """Real pictures, then the rows that are measured."""
    facts = json.loads((cells.home / cells.table / "real.json").read_text())
    lines = [["real pictures", *_scores([facts]), "", "1", ""]]
    for row in ROWS:
        if found := cells.read(row.key, COLUMN):
            steps = f"{found[0]['steps']:,}"
            lines.append([row.title, *_scores(found), steps, str(len(found)), PAPER.get(row.key, "")])
    head = [f"method, {facts['dataset']}", f"modes of {MODES}", "KL", "recognised, %", "KL of those (floor)"]
    head += ["steps", "seeds", "paper (of 1,000): modes / KL"]
    floor = (
        f"Floor of the KL: {facts['kl_floor']:.4f}. "
        f"The classifier reads {facts['classifier_accuracy']:.2%} of held-out single digits.\n"
    )
    return markdown(head, lines) + "\n" + floor


def _scores(found: list[dict[str, Any]]) -> list[str]:
    """Modes, KL, share recognised and the KL of those, over seeds."""
    modes = spread([cell["modes"] for cell in found], 1)
    divergence = spread([cell["kl"] for cell in found], 3)
    recognised = spread([100 * cell["recognised"] for cell in found], 0)
    some = [cell for cell in found if "kl_recognised" in cell]
    floor = f" ({np.mean([cell['kl_recognised_floor'] for cell in some]):.3f})" if some else ""
    return [modes, divergence, recognised, spread([cell["kl_recognised"] for cell in some], 3) + floor if some else ""]


def main() -> None:
    parser = arguments(__doc__, ROWS)
    parser.add_argument("--dataset", default="digits", help="Single digits: a Hub name, a folder, or digits.")
    args = parser.parse_args()
    cells, output_dir = Cells("t2"), args.output_dir or Path("outputs/tables/t2")
    if not args.only_write:
        judge, facts = prepare(args.dataset, output_dir)
        (cells.home / cells.table).mkdir(exist_ok=True)
        (cells.home / cells.table / "real.json").write_text(json.dumps(facts, indent=1) + "\n")
        rows = [row for row in ROWS if row.key in args.rows]
        cells.fill(rows, [COLUMN], range(args.seeds), lambda row, _, seed: measure(row, seed, judge, output_dir))
    cells.write(table(cells))


if __name__ == "__main__":
    main()
