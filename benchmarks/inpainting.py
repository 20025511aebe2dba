"""Filling a hole by a text: a network that was fine-tuned for it, and one that was not.

    python -m benchmarks.inpainting outputs/glide outputs/glide-inpaint

Both get held-out scenes of two objects with one of them cut out, and the caption of the whole. The second network
only has what is known put into its noisy picture before every step (replacement). The pictures are read back: is the
object of the caption in the hole, with its size, colour and shape, and nothing else? Writes results.json, results.md
and figure.png (a row each: the picture, what is known, fine-tuned, replacement).
"""

import argparse
import json
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image

from benchmarks.tables.cells import markdown
from hf_genzoo.data.scenes import Scene, coverage, parse, render, scenes, slots
from hf_genzoo.evaluation.measurement import Measurement
from hf_genzoo.images import image_grid

HOLE = 0.46
"""Side of the hole, as a part of the picture's: the largest object fits."""

BATCH, SHOWN = 100, 10


def cut_out(scene: Scene, radii: tuple[float, ...], size: int) -> NDArray[np.bool_]:
    """Where to paint, (size, size): a square about the first object, without what belongs to the second one."""
    lost, kept = scene.things
    axis = (np.arange(size) + 0.5) / size
    left, top = (float(np.clip(centre - HOLE / 2, 0, 1 - HOLE)) for centre in (lost.x, lost.y))
    inside = ((axis >= top) & (axis <= top + HOLE))[:, None] & ((axis >= left) & (axis <= left + HOLE))[None, :]
    return inside & (coverage(kept.shape, kept.x * size, kept.y * size, radii[1] * size + 1, size) == 0)


def filled_as_asked(picture: NDArray[np.uint8], scene: Scene, hole: NDArray[np.bool_]) -> bool:
    """Whether exactly one object lies in the hole, and is the one that was cut out."""
    size, wanted = len(hole), scene.things[0]
    there = [thing for thing in parse(picture).things if hole[_pixel(thing.y, size), _pixel(thing.x, size)]]
    return [thing.words for thing in there] == [wanted.words]


def _pixel(place: float, size: int) -> int:
    return min(size - 1, int(place * size))


def cases(count: int, size: int) -> list[tuple[Scene, NDArray[np.uint8], NDArray[np.bool_]]]:
    """Held-out scenes of two objects: scene, picture, and where to paint."""
    pairs = [(scene, radii) for scene, radii in scenes("validation") if len(scene.things) == 2][:count]
    return [(scene, render(scene, radii, size), cut_out(scene, radii, size)) for scene, radii in pairs]


def fill(pipeline: Any, found: list[tuple[Scene, Any, Any]], settings: dict[str, Any]) -> NDArray[np.uint8]:
    """Each picture with its hole filled, uint8 (N, size, size, 3), from a noise of its own."""
    parts = []
    for start in range(0, len(found), BATCH):
        some = found[start : start + BATCH]
        pictures = torch.from_numpy(np.stack([picture for _, picture, _ in some])).permute(0, 3, 1, 2)
        holes = torch.from_numpy(np.stack([hole for _, _, hole in some])).float()[:, None]
        generators = [torch.Generator().manual_seed(start + i) for i in range(len(some))]
        drawn = pipeline(
            [scene.caption for scene, _, _ in some],
            pictures,
            holes,
            generator=generators,
            output_type="np",
            **settings,
        ).images
        parts.append((255 * drawn).round().astype(np.uint8))
    return np.concatenate(parts)


def measure(
    drawn: NDArray[np.uint8], found: list[tuple[Scene, NDArray[np.uint8], NDArray[np.bool_]]]
) -> dict[str, Any]:
    """Shares of pictures whose hole was filled as asked, and that show every fact of their caption."""
    filled = [filled_as_asked(picture, scene, hole) for picture, (scene, _, hole) in zip(drawn, found, strict=True)]
    facts = [slots(scene, parse(picture)) for picture, (scene, _, _) in zip(drawn, found, strict=True)]
    untouched = [
        bool((picture[~hole] == real[~hole]).all()) for picture, (_, real, hole) in zip(drawn, found, strict=True)
    ]
    shares = {"filled": sum(filled), "all_correct": sum(right == total for right, total in facts)}
    return {
        **{name: Measurement.share(name, right, len(found)).to_json() for name, right in shares.items()},
        "known_untouched": sum(untouched) / len(found),
    }


def table(results: dict[str, dict[str, Any]], count: int) -> str:
    lines = []
    for name, found in results.items():
        shares = [found[key] for key in ("filled", "all_correct")]
        cells = [f"{s['value']:.3f} ({s['interval'][0]:.3f} to {s['interval'][1]:.3f})" for s in shares]
        lines.append([name, *cells, f"{found['known_untouched']:.3f}"])
    return markdown([f"{count} pictures", "filled as asked", "every fact right", "known part untouched"], lines)


def main(argv: list[str] | None = None) -> None:
    import hf_genzoo
    from hf_genzoo.pipelines import GlideInpaintPipeline

    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("base", help="Folder of a trained model.")
    parser.add_argument("inpaint", help="Folder of what --stage inpaint made of it.")
    parser.add_argument("--output_dir", type=Path, default=Path("outputs/bench-inpainting"), help="Results.")
    parser.add_argument("--num_samples", type=int, default=500, help="Pictures.")
    parser.add_argument("--guidance_scale", type=float, default=3.0, help="Of both.")
    parser.add_argument("--num_inference_steps", type=int, default=25, help="Of both.")
    args = parser.parse_args(argv)
    base: Any = hf_genzoo.load(args.base)
    tuned: Any = hf_genzoo.load(args.inpaint)
    if not isinstance(tuned, GlideInpaintPipeline):
        parser.error(f"{args.inpaint} is no folder of genzoo train glide --stage inpaint")
    pipelines = {"fine-tuned": tuned, "replacement": GlideInpaintPipeline(**base.components)}
    settings = {"guidance_scale": args.guidance_scale, "num_inference_steps": args.num_inference_steps}
    found, results = cases(args.num_samples, base.unet.config["sample_size"]), {}
    columns = [[picture for _, picture, _ in found], [np.where(h[..., None], 128, p) for _, p, h in found]]
    for name, pipeline in pipelines.items():
        pipeline.set_progress_bar_config(disable=True)
        columns.append(list(fill(pipeline, found, settings)))
        results[name] = measure(np.stack(columns[-1]), found)
    args.output_dir.mkdir(parents=True, exist_ok=True)
    (args.output_dir / "results.json").write_text(json.dumps(results, indent=1) + "\n")
    (args.output_dir / "results.md").write_text(table(results, len(found)))
    tiles = [Image.fromarray(column[i].astype(np.uint8)) for column in columns for i in range(min(SHOWN, len(found)))]
    image_grid(tiles, columns=min(SHOWN, len(found))).save(args.output_dir / "figure.png")
    print(table(results, len(found)))


if __name__ == "__main__":
    main()
