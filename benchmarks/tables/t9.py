"""Super-resolution by draws against regression: tables 1 and 2 of SR3 (Saharia et al. 2021), small.

    python -m benchmarks.tables.t9 --photos path/to/photos
    python -m benchmarks.tables.t9 --photos path/to/photos --grid   # 64 to 256 pixels, whole photographs, to look at

On the digits of this package (7 to 28 pixels) and on photographs (16 to 64) one network learns twice, for as many
steps: to draw the large picture from noise, and to give it at once by the squared error. Every held-out picture is
made small, enlarged by each row, and compared with what it was: PSNR and SSIM, the error of the answer made small
again, and the Frechet ratio of all answers (of digits in the features of a classifier; of photographs, of which there
are few, of their four quarters in those of random convolutions; other real pictures score 1, and answers, which are
told what is to be seen, may score less: the rows are to be compared with one another). Digits are also read by that
classifier. The mean of several draws is what regression learns to give: of the 3 dB that one draw of the true
posterior lacks against the posterior's mean, the mean of 16 makes up for 91 %.
"""

from collections.abc import Callable
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image

from benchmarks.tables.cells import Cells, Row, arguments, markdown, spread, trained
from hf_genzoo.corruptions import enlarged, low_resolution
from hf_genzoo.data import DataArgs
from hf_genzoo.data.fingerprint import cache_root, digest
from hf_genzoo.evaluation.pictures import low_resolution_consistency, psnr, ssim
from hf_genzoo.evaluation.reference import RealSplit, Reference, load_reference
from hf_genzoo.evaluation.yardstick import Yardstick
from hf_genzoo.images import image_grid

Pixels = NDArray[np.uint8]

MEAN_STEPS = 10  # of each of the draws whose mean is taken
ROWS = (
    Row("bicubic", "bicubic", "sr3"),
    Row("regression", "regression", "sr3", {"draws": 1, "objective": "regression"}),
    Row("sr3-10", "SR3, 10 steps", "sr3", {"draws": 1, "steps": 10}),
    Row("sr3-25", "SR3, 25 steps", "sr3", {"draws": 1, "steps": 25}),
    Row("sr3-100", "SR3, 100 steps", "sr3", {"draws": 1, "steps": 100}),
    Row("mean-4", f"mean of 4 draws, {MEAN_STEPS} steps", "sr3", {"draws": 4, "steps": MEAN_STEPS}),
    Row("mean-16", f"mean of 16 draws, {MEAN_STEPS} steps", "sr3", {"draws": 16, "steps": MEAN_STEPS}),
)
COLUMNS: dict[str, dict[str, Any]] = {
    "digits": {"preset": "small", "dataset_name": "digits", "max_train_steps": 6000, "checkpoints_total_limit": 1},
    "photos": {"preset": "photos"},
}
PAPER = {"regression": "23.96 / 0.69 / 2.71", "sr3-100": "23.04 / 0.65 / 2.68"}
AT_ONCE = 50
SHOWN = 6


class Held:
    """The held-out pictures of a set, what is given of them, and what answers are judged by."""

    def __init__(self, column: str, dataset: str, scale: int) -> None:
        from hf_genzoo.api import script_of

        script = script_of("sr3")
        preset = script.PRESETS[COLUMNS[column]["preset"]]
        shape = {name: preset[name] for name in ("resolution", "num_channels")}
        classes = {"class_column": "label"} if column == "digits" else {}
        reference = load_reference(DataArgs(dataset_name=dataset, **shape, **classes))
        self.split, self.scale, self.pieces = reference.held_out, scale, _whole if column == "digits" else quarters
        pieces = reference if column == "digits" else _quartered(reference)
        extractor = "classifier" if column == "digits" else "random"
        self.yardstick = Yardstick(pieces, None, [extractor], cache_root(None), "cpu")

    @property
    def truth(self) -> Pixels:
        return np.array(self.split.values)

    @property
    def small(self) -> torch.Tensor:
        """(N, C, h, w) in [0, 1]."""
        return low_resolution(torch.from_numpy(self.truth).float() / 255, self.scale)

    def bicubic(self) -> Pixels:
        return _eight_bit(0.5 * (enlarged(2 * self.small - 1, self.scale) + 1))

    def judged(self, answers: NDArray[np.float64]) -> dict[str, float]:
        """Means over the pictures of answers (N, C, H, W) in [0, 1], and the law of all of them."""
        ours, truth, small = (
            np.asarray(x, dtype=np.float64).transpose(0, 2, 3, 1)
            for x in (answers, self.truth / 255, self.small.numpy())
        )
        pictures = (255 * answers).round().astype(np.uint8)
        law = {m.name: m.value for m in self.yardstick.distances(self.pieces(pictures))}
        found = {
            "psnr": psnr(ours, truth).mean(),
            "ssim": ssim(ours, truth).mean(),
            "consistency": low_resolution_consistency(ours, small).mean(),
            "frechet_ratio": law["frechet_ratio"],
            "coverage": law["coverage"],
        }
        if self.split.labels is not None:
            read = self.yardstick.extractor("classifier")(pictures, progress=False).probabilities
            assert read is not None
            found["accuracy"] = (read.argmax(axis=1) == self.split.labels).mean()
        return {name: float(value) for name, value in found.items()}


def _whole(pictures: Pixels) -> Pixels:
    return pictures


def quarters(pictures: Pixels) -> Pixels:
    """(N, C, H, W) cut into (4 N, C, H / 2, W / 2): texture is the same in all, and four times as many are known."""
    n, c, h, w = pictures.shape
    cut = pictures.reshape(n, c, 2, h // 2, 2, w // 2).transpose(0, 2, 4, 1, 3, 5)
    return np.ascontiguousarray(cut.reshape(4 * n, c, h // 2, w // 2))


def _quartered(reference: Reference) -> Reference:
    def cut(split: RealSplit) -> RealSplit:
        return replace(split, key=digest("quarters", split.key), values=quarters(np.asarray(split.values)))

    return replace(reference, train=cut(reference.train), held_out=cut(reference.held_out))


def _eight_bit(pixels: torch.Tensor) -> Pixels:
    return (255 * pixels).round().byte().numpy()


def drawn(answer: Callable[[torch.Tensor, int], torch.Tensor], small: torch.Tensor, folder: Path, name: str) -> Pixels:
    """One answer to every small picture, kept in the folder, so that rows share draws and a kill loses one draw.

    Args:
        answer: f(small pictures (B, C, h, w), seed), (B, C, H, W) in [0, 1].
        small: (N, C, h, w) in [0, 1].
        folder: Of the answers.
        name: Of these answers; its last part is the seed.
    """
    path = folder / f"{name}.npy"
    if not path.is_file():
        seed = int(name.rpartition("-")[2])
        parts = [answer(part, 1000 * seed + i) for i, part in enumerate(small.split(AT_ONCE))]
        path.parent.mkdir(parents=True, exist_ok=True)
        aside = path.with_suffix(".partial.npy")
        np.save(aside, _eight_bit(torch.cat(parts)))
        aside.rename(path)
    return np.load(path)


def measure(row: Row, column: str, seed: int, held: Held, folder: Path, settings: dict[str, Any]) -> dict[str, Any]:
    """Train a row's network, if it is not trained yet, and judge its answers to every held-out picture."""
    import hf_genzoo

    if row.key == "bicubic":
        return {**held.judged(held.bicubic() / 255), "steps": 0, "seconds": 0.0}
    objective = row.settings.get("objective", "diffusion")
    home = folder / f"{objective}-{column}-{seed}"
    record = trained(row.family, home, seed=seed, objective=objective, **settings)
    pipeline: Any = hf_genzoo.load(home)
    pipeline.set_progress_bar_config(disable=True)
    options = {"num_inference_steps": row.settings["steps"]} if "steps" in row.settings else {}

    def answer(small: torch.Tensor, number: int) -> torch.Tensor:
        return pipeline(small, generator=torch.Generator().manual_seed(number), output_type="pt", **options).images

    names = [f"{options.get('num_inference_steps', 1)}-steps-{number}" for number in range(row.settings["draws"])]
    total = sum(drawn(answer, held.small, home / "answers", name).astype(np.float64) for name in names)
    return {
        **held.judged(np.asarray(total) / (255 * len(names))),
        "steps": record["steps"],
        "seconds": round(record["seconds"], 1),
        "pictures": len(held.truth),
    }


def closed_gap(single: float, several: float, best: float) -> float:
    """How much of what one draw's PSNR lacks against regression the mean of several makes up for."""
    return (several - single) / (best - single)


def claims(cells: Cells, column: str) -> str:
    """What the paper says, and whether it holds here: sentences from the measured cells."""
    mean = {
        row.key: {name: float(np.mean([cell[name] for cell in found])) for name in _NUMBERS}
        for row in ROWS
        if (found := cells.read(row.key, column))
    }
    said = []
    for other in (key for key in ("sr3-10", "sr3-25", "sr3-100") if key in mean and "regression" in mean):
        ours, theirs = mean[other], mean["regression"]
        title = next(row.title for row in ROWS if row.key == other)
        for text, holds in (
            ("regression has the higher PSNR", theirs["psnr"] > ours["psnr"]),
            ("regression has the higher SSIM", theirs["ssim"] > ours["ssim"]),
            ("the draws have the lower Frechet ratio", ours["frechet_ratio"] < theirs["frechet_ratio"]),
            ("the draws are at least as consistent", ours["consistency"] <= theirs["consistency"]),
        ):
            said.append(f"- {title}: {text}: {'yes' if holds else 'no'}.")
    single = f"sr3-{MEAN_STEPS}"
    for key, count in (("mean-4", 4), ("mean-16", 16)):
        if {key, single, "regression"} <= mean.keys():
            gap = closed_gap(*(mean[name]["psnr"] for name in (single, key, "regression")))
            said.append(f"- The mean of {count} closes {100 * gap:.0f} % of the gap in PSNR.")
    return "\n".join(said)


_NUMBERS = ("psnr", "ssim", "consistency", "frechet_ratio", "coverage")


def table(cells: Cells) -> str:
    """One table a set, and what it says of the paper's claims."""
    parts = []
    for column in COLUMNS:
        lines = []
        for row in ROWS:
            if found := cells.read(row.key, column):
                lines.append([row.title, *_line(found), PAPER.get(row.key, "")])
        if lines:
            head = ["PSNR, dB", "SSIM", "made small again, 1e-5", "Frechet ratio", "coverage, %", "read, %"]
            paper = "paper, faces: PSNR / SSIM / 1e-5"
            table_of = markdown([column, *head, "steps", "seconds", "seeds", paper], lines)
            parts.append(f"{table_of}\n{claims(cells, column)}\n")
    return "\n".join(parts)


def _line(found: list[dict[str, Any]]) -> list[str]:
    read = [100 * cell["accuracy"] for cell in found if "accuracy" in cell]
    return [
        spread([cell["psnr"] for cell in found], 2),
        spread([cell["ssim"] for cell in found], 3),
        spread([1e5 * cell["consistency"] for cell in found], 1),
        spread([cell["frechet_ratio"] for cell in found], 2),
        spread([100 * cell["coverage"] for cell in found], 0),
        spread(read, 1) if read else "",
        f"{found[0]['steps']:,}",
        spread([cell["seconds"] for cell in found], 0),
        str(len(found)),
    ]


def grid(dataset: str, folder: Path, settings: dict[str, Any], steps: int = 25) -> Path:
    """Whole photographs from 64 to 256 pixels: what is given, bicubic, regression, a draw, and what it was."""
    import hf_genzoo
    from hf_genzoo.api import script_of

    resolution = script_of("sr3").PRESETS["photos256"]["resolution"]
    held = load_reference(DataArgs(dataset_name=dataset, resolution=resolution)).held_out
    chosen = held.shuffled_rows()[:SHOWN]
    truth = torch.from_numpy(np.asarray(held.values[np.sort(chosen)])).float() / 255
    columns, scale = [], 4
    for objective in ("regression", "diffusion"):
        home = folder / f"{objective}-photos256-0"
        trained("sr3", home, preset="photos256", objective=objective, dataset_name=dataset, **settings)
        pipeline: Any = hf_genzoo.load(home)
        scale, options = pipeline.config["scale"], {"generator": torch.Generator().manual_seed(0)}
        small = low_resolution(truth, scale)
        columns.append(pipeline(small, num_inference_steps=steps, output_type="pt", **options).images)
    given = small.repeat_interleave(scale, dim=2).repeat_interleave(scale, dim=3)
    bicubic = 0.5 * (enlarged(2 * small - 1, scale) + 1)
    rows = zip(given, bicubic, *columns, truth, strict=True)
    tiles = [Image.fromarray(_eight_bit(x).transpose(1, 2, 0)) for row in rows for x in row]
    path = folder / "photos256.png"
    image_grid(tiles, columns=5).save(path)
    return path


def main() -> None:
    parser = arguments(__doc__, ROWS)
    parser.add_argument("--photos", help="Photographs: a Hub name, or a folder. Without it their part is not filled.")
    parser.add_argument("--grid", action="store_true", help="Train on large photographs and write a grid, no table.")
    parser.add_argument("--max_train_steps", type=int, help="Steps of every training, in place of the table's.")
    args = parser.parse_args()
    cells, folder = Cells("t9"), args.output_dir or Path("outputs/tables/t9")
    steps = {} if args.max_train_steps is None else {"max_train_steps": args.max_train_steps}
    if args.grid:
        if args.photos is None:
            parser.error("--grid needs --photos")
        print(grid(args.photos, folder, steps))
        return
    sets = {"digits": "digits", "photos": args.photos}
    for column, dataset in sets.items():
        if dataset is not None and not args.only_write:
            settings = {**COLUMNS[column], "dataset_name": dataset, **steps}
            held = cache(lambda c=column, d=dataset: Held(c, d, scale=4))
            rows = [row for row in ROWS if row.key in args.rows]
            fill = cells.fill
            fill(rows, [column], range(args.seeds), lambda *cell, h=held, s=settings: measure(*cell, h(), folder, s))
    cells.write(table(cells))


if __name__ == "__main__":
    main()
