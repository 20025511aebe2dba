"""What autoencoders repair, against doing next to nothing: PSNR on held-out pictures.

    python -m benchmarks.tables.restoration --photos path/to/photos --emoji path/to/emoji64

One network (two stages, a map of features in the middle) under one corruption after another, on the digits of this
package, and on photographs and emoji of 64 x 64. The trivial answers: the noisy picture itself; the small one enlarged
bicubically; the mean colour of the known pixels in the hole; the grey picture. Both answers are judged against the
undamaged picture in the same way. Colour has four stages and more steps: what colour a place has, one sees from afar.
The last row is another question: digits in 16 numbers, against as many principal components.
"""

from pathlib import Path
from typing import Any

import numpy as np
import torch
from diffusers.image_processor import VaeImageProcessor
from torch import Tensor

from benchmarks.tables.cells import Cells, Row, arguments, markdown, spread, trained
from hf_genzoo.corruptions import Corruption, reduced
from hf_genzoo.data import DataArgs, MapImages, image_dataset
from hf_genzoo.evaluation.pictures import psnr
from hf_genzoo.images import image_grid

CODE = 16
DEEPER = {"block_out_channels": [24, 48, 96, 128], "max_train_steps": 900}
ROWS = (
    Row("denoise", "denoise: the noisy picture", "autoencoder"),
    Row("super_resolution", "super_resolution: bicubic", "autoencoder"),
    Row("completion", "completion: mean of the known pixels", "autoencoder"),
    Row("colorization", "colorization: the grey picture", "autoencoder", DEEPER),
    Row("reconstruct", f"reconstruct from {CODE} numbers: PCA", "autoencoder", {"latent_dim": CODE}),
)
PICTURES: dict[str, Any] = {
    "num_channels": 3,
    "resolution": 64,
    "center_crop": True,
    "random_flip": True,
    "block_out_channels": [32, 96],
    "train_batch_size": 16,
    "lr_scheduler": "cosine",
    "lr_warmup_steps": 50,
    "channels_last": True,
    "ema_power": 1.0,
    "ema_inv_gamma": 8.0,
}
COLUMNS: dict[str, dict[str, Any]] = {
    "digits": {"preset": "small", "num_channels": 1, "resolution": 28, "latent_dim": None, "max_train_steps": 500},
    "photos": {**PICTURES, "max_train_steps": 300},
    "emoji": {**PICTURES, "image_column": "twitter", "max_train_steps": 300},
}
SHOWN = 8


def applies(row: str, column: str) -> bool:
    """Grey digits have no colour, and coloured pictures are more than 16 numbers."""
    return row != ("colorization" if column == "digits" else "reconstruct")


def pixels(dataset: str, column: str, split: str) -> Tensor:
    """All pictures of a split, (N, C, H, W) in [-1, 1]."""
    known = ("num_channels", "resolution", "center_crop", "image_column")
    args = DataArgs(dataset_name=dataset, **{name: COLUMNS[column][name] for name in known if name in COLUMNS[column]})
    data = image_dataset(args, split=split)
    assert isinstance(data, MapImages)
    return data.examples(data.num_samples or 0)["pixel_values"]


def trivial(task: str, damaged: Tensor, mask: Tensor, train: Tensor, x: Tensor) -> Tensor:
    """The answer that takes no learning, (N, C, H, W) in [-1, 1]; for `reconstruct`, PCA."""
    if task == "completion":
        mean = (damaged * (1 - mask)).sum((2, 3), keepdim=True) / (1 - mask).sum((2, 3), keepdim=True)
        return torch.where(mask > 0, mean, damaged)
    if task == "reconstruct":
        mean = train.flatten(1).mean(0)
        axes = torch.linalg.svd(train.flatten(1) - mean, full_matrices=False).Vh[:CODE]
        return (mean + (x.flatten(1) - mean) @ axes.T @ axes).view_as(x)
    return damaged


def measure(row: Row, column: str, seed: int, dataset: str, output_dir: Path) -> dict[str, Any]:
    """Train a row on a set, and let it repair every held-out picture."""
    import hf_genzoo

    folder = output_dir / f"{row.key}-{column}-{seed}"
    settings = {**COLUMNS[column], **row.settings, "task": row.key, "dataset_name": dataset}
    record = trained(row.family, folder, seed=seed, **settings)
    pipeline, x = hf_genzoo.load(folder), pixels(dataset, column, "validation")
    corrupt = Corruption(row.key)
    damaged, mask = corrupt(x, torch.Generator().manual_seed(seed))
    given = reduced(x, corrupt.factor) if row.key == "super_resolution" else damaged
    holes = {"mask_image": mask} if row.key == "completion" else {}
    answer = torch.cat(
        [
            pipeline.restore(0.5 * (part + 1), output_type="pt", **{name: m[i : i + 50] for name, m in holes.items()})[
                0
            ]
            for i, part in zip(range(0, len(x), 50), given.split(50), strict=True)
        ]
    )
    baseline = trivial(row.key, damaged, mask, pixels(dataset, column, "train"), x).clamp(-1, 1)
    shown = [x, damaged, baseline, 2 * answer - 1]
    columns = [VaeImageProcessor().postprocess(images[:SHOWN], output_type="pil") for images in shown]
    tiles: list[Any] = [image for quadruple in zip(*columns, strict=True) for image in quadruple]
    image_grid(tiles, columns=8).save(output_dir / f"{row.key}-{column}-{seed}.png")
    truth, ours, theirs = (_array(images) for images in (0.5 * (x + 1), answer, 0.5 * (baseline + 1)))
    gain = psnr(ours, truth) - psnr(theirs, truth)
    return {
        "psnr": float(psnr(ours, truth).mean()),
        "trivial_psnr": float(psnr(theirs, truth).mean()),
        "better_on": float((gain > 0).mean()),
        "pictures": len(x),
        "steps": record["steps"],
        "seconds": round(record["seconds"], 1),
    }


def _array(images: Tensor) -> np.ndarray:
    return images.double().clamp(0, 1).permute(0, 2, 3, 1).numpy()


def table(cells: Cells) -> str:
    """One table a set."""
    parts = []
    for column in COLUMNS:
        lines = []
        for row in ROWS:
            if found := cells.read(row.key, column):
                numbers = [(name, 2) for name in ("trivial_psnr", "psnr")]
                shown = [spread([cell[name] for cell in found], digits) for name, digits in numbers]
                better = spread([100 * cell["better_on"] for cell in found], 0)
                seconds = spread([cell["seconds"] for cell in found], 0)
                lines.append([row.title, *shown, better, f"{found[0]['steps']:,}", seconds, str(len(found))])
        if lines:
            head = [
                f"{column}: trivial answer",
                "its PSNR, dB",
                "PSNR, dB",
                "better on, %",
                "steps",
                "seconds",
                "seeds",
            ]
            parts.append(markdown(head, lines))
    return "\n".join(parts)


def main() -> None:
    parser = arguments(__doc__, ROWS)
    parser.add_argument("--photos", help="Photographs: a Hub name, or a folder. Without it their part is not filled.")
    parser.add_argument("--emoji", help="The same of emoji, with a column `twitter`.")
    args = parser.parse_args()
    cells, output_dir = Cells("restoration"), args.output_dir or Path("outputs/tables/restoration")
    sets = {"digits": "digits", "photos": args.photos, "emoji": args.emoji}
    if not args.only_write:
        for column, dataset in sets.items():
            if dataset is None:
                continue
            rows = [row for row in ROWS if row.key in args.rows and applies(row.key, column)]
            cells.fill(rows, [column], range(args.seeds), lambda *cell, d=dataset: measure(*cell, d, output_dir))
    cells.write(table(cells))


if __name__ == "__main__":
    main()
