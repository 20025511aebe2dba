"""Quality, coverage and speed of the families' SMALL presets, trained on `digits` for equal minutes on this machine.

    python -m benchmarks.trilemma --minutes 3 --output_dir outputs/bench-trilemma

A family that is trained already is not trained again: delete its folder to repeat it.
"""

import argparse
from pathlib import Path

from benchmarks.equal_time import train_for

FAMILIES = ("ddpm", "vae", "wgan_gp")


def run(minutes: float, output_dir: Path) -> None:
    import hf_genzoo

    folders = [output_dir / family for family in FAMILIES]
    for family, folder in zip(FAMILIES, folders, strict=True):
        if not (folder / "model_index.json").is_file():
            train_for(family, "digits", minutes, folder)
    hf_genzoo.compare(*folders, dataset_name="digits", class_column="label", output_dir=str(output_dir))
    report = (output_dir / "comparison.md").read_text()
    # Its title and its figure are those of the section it becomes.
    (output_dir / "results.md").write_text(report.split("\n\n", 2)[2].replace("\n## ", "\n### "))
    print(report)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--minutes", type=float, default=3, help="Training time of a family on two cores.")
    parser.add_argument("--output_dir", type=Path, default=Path("outputs/bench-trilemma"), help="Models and report.")
    args = parser.parse_args()
    run(args.minutes, args.output_dir)


if __name__ == "__main__":
    main()
