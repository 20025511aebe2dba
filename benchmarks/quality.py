"""Sample quality of the SMALL preset of `ddpm` against plain recipes at equal wall time, on this machine.

    python -m benchmarks.quality --dataset path/to/mnist --minutes 8 --output_dir outputs/bench-quality

Rows, one after the other: real pictures against real pictures, a class-wise PCA-plus-Gaussian generator, our SMALL
preset as it is (class-conditional: the labels are its largest single gain) and without labels, then diffusers'
unconditional recipe for the wall time that ours took, on a 3.9 M-parameter network of its kind and on our network.
Each draws 1,000 pictures, rounded to 8 bits; distances are taken to the validation pictures in the penultimate
features of a classifier trained here. A finished row is not done again: delete its folder to repeat it.
"""

import argparse
import json
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from datasets import DatasetDict, load_dataset
from diffusers import UNet2DModel
from PIL import Image

from benchmarks.equal_time import train_for
from benchmarks.quality_theirs import network, sample_theirs, train_theirs
from hf_genzoo.evaluation.baselines import pca_gaussian
from hf_genzoo.evaluation.classifier import classify, train_classifier
from hf_genzoo.evaluation.distances import frechet_distance
from hf_genzoo.evaluation.neighbours import overlap
from hf_genzoo.models.classifier import ConvClassifier

OURS, UNLABELLED = "ours", "ours-no-labels"
THEIRS, THEIRS_ON_OURS = "diffusers", "diffusers-our-network"
TITLES = {
    "real": "real pictures (train against validation)",
    "pca-gaussian": "class-wise PCA + Gaussian",
    OURS: "ours: ddpm, preset small (learns with labels)",
    UNLABELLED: "the same without labels",
    THEIRS: "diffusers' recipe, 3.9 M network",
    THEIRS_ON_OURS: "diffusers' recipe, our network",
}


@dataclass(frozen=True)
class Digits:
    """Both splits as uint8 (N, 28, 28) with labels, and the train split as the `datasets.Dataset` it came from."""

    train: np.ndarray
    train_labels: np.ndarray
    validation: np.ndarray
    validation_labels: np.ndarray
    dataset: Any


def load_digits(name: str) -> Digits:
    """A Hub name, or a folder with train.parquet and validation.parquet; columns `image` and `label`."""
    folder = Path(name)
    if folder.is_dir():
        files = {split: str(folder / f"{split}.parquet") for split in ("train", "validation")}
        splits = load_dataset("parquet", data_files=files)
    else:
        splits = load_dataset(name)
    assert isinstance(splits, DatasetDict)
    held_out = splits["validation"] if "validation" in splits else splits["test"]
    return Digits(*_arrays(splits["train"]), *_arrays(held_out), dataset=splits["train"])


def _arrays(split: Any) -> tuple[np.ndarray, np.ndarray]:
    images = np.stack([np.asarray(image.convert("L")) for image in split["image"]])
    if images.shape[1:] != (28, 28):
        raise ValueError(f"this benchmark measures 28x28 pictures; this set has {images.shape[1:]}")
    return images, np.asarray(split["label"], dtype=np.int64)


def train_ours(dataset: str, minutes: float, output_dir: Path, seed: int, **changes: Any) -> dict[str, Any]:
    """Train the SMALL preset of `ddpm` for these minutes; what the table says of it."""
    record = train_for("ddpm", dataset, minutes, output_dir, seed, **changes)
    return {
        "steps": record["steps"],
        "images_seen": record["images_seen"],
        "seconds": round(record["seconds"], 1),
        "images_per_second": round(record["images_seen"] / record["seconds"], 1),
        "loss": record["loss"],
    }


def sample_ours(folder: Path, count: int, seed: int, batch_size: int = 100) -> np.ndarray:
    """Pictures, uint8 (count, 28, 28), as the preset's own sample grid draws them: sampler, steps, guidance."""
    import hf_genzoo
    from hf_genzoo.training_scripts.train_ddpm import Args, sampling

    args = Args(**json.loads((folder / "training.json").read_text())["args"])
    pipeline, options = sampling(hf_genzoo.load(str(folder)), args, args.sampler)
    generator, drawn = torch.Generator().manual_seed(seed), []
    for start in range(0, count, batch_size):
        size = min(batch_size, count - start)
        images = pipeline(batch_size=size, generator=generator, output_type="np", **options).images
        drawn.append((images[..., 0] * 255).round().astype(np.uint8))
        print(f"  {start + size}/{count} samples", flush=True)
    return np.concatenate(drawn)


def judge(folder: Path, digits: Digits, epochs: int) -> ConvClassifier:
    """The classifier in whose features distances are taken: the one in `folder`, or a new one that is put there."""
    if not folder.exists():
        names = [str(digit) for digit in range(10)]
        train_classifier(digits.train[:, None], digits.train_labels, names, epochs=epochs).save_pretrained(folder)
    return ConvClassifier.from_pretrained(folder)  # type: ignore[return-value]


class Benchmark:
    """Rows, their folders and their results; a row is a function that returns pictures and facts about them."""

    def __init__(self, digits: Digits, net: ConvClassifier, output_dir: Path) -> None:
        self.digits, self.net, self.output_dir = digits, net, output_dir
        order = np.random.default_rng(0).permutation(len(digits.validation))
        self.real, probabilities = classify(net, digits.validation[order][:, None])
        self.accuracy = float((probabilities.argmax(axis=1) == digits.validation_labels[order]).mean())
        self.results: dict[str, dict[str, Any]] = {}

    def row(self, name: str, draw: Callable[[Path], tuple[np.ndarray, dict[str, Any]]]) -> None:
        """Do the row, or read it if it is there."""
        folder = self.output_dir / name
        result = folder / "result.json"
        if result.exists():
            print(f"{name}: already there", flush=True)
            self.results[name] = json.loads(result.read_text())
            return
        print(f"{name}: {TITLES[name]}", flush=True)
        folder.mkdir(parents=True, exist_ok=True)
        images, facts = draw(folder)
        features, probabilities = classify(self.net, images[:, None])
        self.results[name] = {
            "title": TITLES[name],
            "samples": len(images),
            "frechet_distance": round(frechet_distance(self.real, features), 2),
            "coverage": round(overlap(self.real[: len(features)], features).coverage, 4),  # of equally many
            "classes": np.bincount(probabilities.argmax(axis=1), minlength=10).tolist(),
            **facts,
        }
        # In random order: the first hundred of the PCA generator would all be zeros.
        shown = images[np.random.default_rng(0).permutation(len(images))[:100]]
        save_grid(shown, folder / "grid.png")
        np.save(folder / "samples.npy", images)
        result.write_text(json.dumps(self.results[name], indent=2))
        print(f"  {self.results[name]}", flush=True)

    def write(self) -> None:
        """results.json and results.md in the output folder."""
        summary = {"classifier_accuracy": self.accuracy, "rows": self.results}
        (self.output_dir / "results.json").write_text(json.dumps(summary, indent=2))
        table = markdown(self.results, self.accuracy)
        (self.output_dir / "results.md").write_text(table)
        print("\n" + table)


def save_grid(images: np.ndarray, path: Path, columns: int = 10) -> None:
    """Lay pictures (N, 28, 28) out in a grid, doubled in size."""
    rows = -(-len(images) // columns)
    sheet = np.zeros((rows * columns, 28, 28), dtype=np.uint8)
    sheet[: len(images)] = images
    sheet = sheet.reshape(rows, columns, 28, 28).transpose(0, 2, 1, 3).reshape(rows * 28, columns * 28)
    Image.fromarray(sheet).resize((columns * 56, rows * 56), Image.Resampling.NEAREST).save(path)


def markdown(rows: dict[str, dict[str, Any]], accuracy: float) -> str:
    """The table for benchmarks/README.md."""
    lines = [
        f"Features of a digit classifier with {accuracy:.2%} accuracy on validation; {_count(rows)} samples a row.",
        "",
        "| generator | parameters | steps | images/s | seconds | Frechet distance | coverage |",
        "|---|---|---|---|---|---|---|",
    ]
    for row in rows.values():
        cells = [row.get(key, "") for key in ("parameters", "steps", "images_per_second", "seconds")]
        shown = " | ".join(f"{cell:,}" if isinstance(cell, int) else str(cell) for cell in cells)
        lines.append(f"| {row['title']} | {shown} | {row['frechet_distance']} | {row['coverage']} |")
    return "\n".join(lines) + "\n"


def _count(rows: dict[str, dict[str, Any]]) -> str:
    return "/".join(f"{count:,}" for count in sorted({row["samples"] for row in rows.values()}))


def run(dataset: str, minutes: float, output_dir: Path, num_samples: int, seed: int, epochs: int) -> None:
    digits = load_digits(dataset)
    net = judge(output_dir / "classifier", digits, epochs)
    bench = Benchmark(digits, net, output_dir)
    print(f"classifier: {bench.accuracy:.2%} on {len(digits.validation):,} validation pictures", flush=True)

    def real(_: Path) -> tuple[np.ndarray, dict[str, Any]]:
        chosen = np.random.default_rng(seed).permutation(len(digits.train))[:num_samples]
        return digits.train[chosen], {}

    def baseline(_: Path) -> tuple[np.ndarray, dict[str, Any]]:
        return pca_gaussian(digits.train, digits.train_labels, num_samples, seed=seed), {}

    def ours(folder: Path, **changes: Any) -> tuple[np.ndarray, dict[str, Any]]:
        facts = train_ours(dataset, minutes, folder / "model", seed, **changes)
        facts["parameters"] = our_network(folder / "model").num_parameters()
        return _timed(facts, lambda: sample_ours(folder / "model", num_samples, seed))

    def theirs(unet: UNet2DModel, folder: Path) -> tuple[np.ndarray, dict[str, Any]]:
        facts = train_theirs(unet, digits.dataset, bench.results[OURS]["seconds"], seed)
        facts["parameters"] = unet.num_parameters()
        unet.save_pretrained(folder / "unet")
        return _timed(facts, lambda: sample_theirs(unet, num_samples, seed=seed))

    def theirs_on_ours(folder: Path) -> tuple[np.ndarray, dict[str, Any]]:
        return theirs(UNet2DModel.from_config(our_network(output_dir / UNLABELLED / "model").config), folder)  # type: ignore[arg-type]

    bench.row("real", real)
    bench.row("pca-gaussian", baseline)
    bench.row(OURS, ours)
    bench.row(UNLABELLED, lambda folder: ours(folder, class_column=None))
    torch.manual_seed(seed)  # the weights of their networks
    bench.row(THEIRS, lambda folder: theirs(network(), folder))
    bench.row(THEIRS_ON_OURS, theirs_on_ours)
    bench.write()


def our_network(folder: Path) -> UNet2DModel:
    """The network of an exported `ddpm` folder."""
    return UNet2DModel.from_pretrained(folder / "unet")  # type: ignore[return-value]


def _timed(facts: dict[str, Any], sample: Callable[[], np.ndarray]) -> tuple[np.ndarray, dict[str, Any]]:
    started = time.perf_counter()
    images = sample()
    return images, {**facts, "sampling_seconds": round(time.perf_counter() - started, 1)}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--dataset", required=True, help="Hub name, or folder with train.parquet, validation.parquet.")
    parser.add_argument("--minutes", type=float, default=8, help="Training time of a row on two cores.")
    parser.add_argument("--output_dir", type=Path, default=Path("outputs/bench-quality"), help="Rows and tables.")
    parser.add_argument("--num_samples", type=int, default=1000, help="Pictures drawn from each generator.")
    parser.add_argument("--seed", type=int, default=0, help="Seed of trainings and samples.")
    parser.add_argument("--classifier_epochs", type=int, default=10, help="Passes of the classifier over the data.")
    args = parser.parse_args()
    run(args.dataset, args.minutes, args.output_dir, args.num_samples, args.seed, args.classifier_epochs)


if __name__ == "__main__":
    main()
