"""Put the measured figures into benchmarks/README.md; no number in it is typed by hand.

    python -m benchmarks                                   # measures, outputs/benchmarks.json
    python -m benchmarks.quality --dataset path/to/mnist   # trains, outputs/bench-quality/
    python -m benchmarks.metric_bias --dataset path/to/mnist   # outputs/bench-metric-bias/
    python -m benchmarks.trilemma --minutes 3              # trains and compares, outputs/bench-trilemma/
    python -m benchmarks.vanishing_gradients               # outputs/bench-vanishing-gradients/
    python -m benchmarks.mode_collapse                     # outputs/bench-mode-collapse/
    python -m benchmarks.tables.t1                         # benchmarks/tables/t1.md; the other tables likewise
    python -m benchmarks.report                            # all into README.md, pictures into figures/

Text between `<!-- begin NAME -->` and `<!-- end NAME -->` is replaced; a measurement that was not made leaves its
block as it is.
"""

import json
import re
import shutil
from pathlib import Path

README = Path(__file__).with_name("README.md")
FIGURES = Path(__file__).with_name("figures")


def table(rows: dict[str, float | str]) -> str:
    """A two-column table; figures of 100 and more have no decimals."""
    return "\n".join(["| | |", "|---|---|", *(f"| `{key}` | {_cell(value)} |" for key, value in rows.items())])


def _cell(value: float | str) -> str:
    if isinstance(value, (str, int)):
        return str(value)
    return f"{value:,.0f}" if abs(value) >= 100 else f"{value:.2f}"


def replace_block(text: str, name: str, content: str) -> str:
    """`text` with the block `name` holding `content`.

    Raises:
        ValueError: if there is no such block.
    """
    pattern = re.compile(rf"(<!-- begin {name} -->\n).*?(<!-- end {name} -->)", re.DOTALL)
    if not pattern.search(text):
        raise ValueError(f"{README.name} has no block {name!r}")
    return pattern.sub(lambda found: f"{found[1]}{content.strip()}\n{found[2]}", text)


def main(outputs: Path = Path("outputs")) -> None:
    text = README.read_text()
    quick = outputs / "benchmarks.json"
    if quick.exists():
        for name, rows in json.loads(quick.read_text()).items():
            text = replace_block(text, name, table(rows))
    quality = outputs / "bench-quality"
    if (quality / "results.md").exists():
        text = replace_block(text, "quality", (quality / "results.md").read_text())
        FIGURES.mkdir(exist_ok=True)
        for grid in quality.glob("*/grid.png"):
            shutil.copy(grid, FIGURES / f"{grid.parent.name}.png")
    for name in ("metric-bias", "trilemma", "latent-sampling", "guidance", "inpainting"):
        if (found := outputs / f"bench-{name}" / "results.md").exists():
            text = replace_block(text, name, found.read_text())
    for bench in ("vanishing-gradients", "mode-collapse", "latent-sampling", "guidance", "inpainting"):
        for figure in (outputs / f"bench-{bench}").glob("*.png"):
            FIGURES.mkdir(exist_ok=True)
            shutil.copy(figure, FIGURES / (f"{bench}.png" if figure.stem == "figure" else f"{bench}-{figure.name}"))
    for found in sorted((Path(__file__).parent / "tables").glob("*.md")):
        text = replace_block(text, found.stem, found.read_text())
    if (figure := outputs / "bench-trilemma" / "comparison.png").exists():
        FIGURES.mkdir(exist_ok=True)
        shutil.copy(figure, FIGURES / "trilemma.png")
    README.write_text(text)
    print(f"wrote {README}")


if __name__ == "__main__":
    main()
