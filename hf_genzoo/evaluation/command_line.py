"""`genzoo evaluate` and `genzoo compare`: flags in, tables on the terminal out."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar

from transformers import HfArgumentParser

from hf_genzoo.evaluation import comparison, protocol
from hf_genzoo.evaluation.args import CompareArgs, EvaluateArgs, MeasureArgs
from hf_genzoo.flags import HelpFormatter
from hf_genzoo.hub.measured import tables

A = TypeVar("A", bound=MeasureArgs)

_EVALUATE = """Measure a model: its samples against held-out pictures that it has never seen.

Writes results.json with every number, its 95 % interval and all that it takes to repeat it, and renews the measured
part of the model's card. Real training data, a copier, and two simple densities are measured beside it, so that the
numbers mean something."""
_EVALUATE_EXAMPLES = """examples:
  genzoo evaluate outputs/ddpm-digits
  genzoo evaluate user/model --dataset_name user/dataset --class_column label --num_samples 5000
  genzoo evaluate my_pictures/ --dataset_name digits --extractor facebook/dinov2-small
  accelerate launch --module hf_genzoo.cli evaluate outputs/big"""


def evaluate(words: Sequence[str]) -> int:
    """`genzoo evaluate MODEL --name value ...`."""
    parser = _parser("genzoo evaluate", EvaluateArgs, _EVALUATE, _EVALUATE_EXAMPLES)
    parser.add_argument("model", help="exported folder, repository on the Hub (ours or any), or folder of pictures")
    typed = parser.parse_args(list(words))
    results = protocol.run(typed.model, _flags(parser, EvaluateArgs, words, [typed.model], typed.revision))
    if results is not None:
        print(summary(results))
    return 0


_COMPARE = """Measure several models on one footing, and draw the trilemma: quality, coverage, speed.

Every model is sampled with every seed and compared with the same real pictures by the same extractors; all are timed
in turn on this machine. Leaves comparison.html (open it in a browser), .png, .md, .csv and .json. Samples and scores
are kept: after a kill the same command goes on, and one more model costs one more model."""
_COMPARE_EXAMPLES = """examples:
  genzoo compare outputs/ddpm-digits outputs/vae-digits outputs/wgan-digits
  genzoo compare user/one user/two my_pictures/ --dataset_name user/dataset --num_samples 5000 --seeds 0 1 2 3 4"""


def compare(words: Sequence[str]) -> int:
    """`genzoo compare MODEL MODEL ... --name value ...`."""
    parser = _parser("genzoo compare", CompareArgs, _COMPARE, _COMPARE_EXAMPLES)
    parser.add_argument("models", nargs="+", help="exported folders, repositories on the Hub, folders of pictures")
    typed = parser.parse_args(list(words))
    args = _flags(parser, CompareArgs, words, typed.models)
    found = comparison.run(typed.models, args)
    if found is not None:
        print((Path(args.output_dir) / "comparison.md").read_text(encoding="utf-8"))
        print(f"Page: {Path(args.output_dir) / 'comparison.html'}")
    return 0


def _parser(prog: str, cls: type[A], description: str, examples: str) -> HfArgumentParser:
    return HfArgumentParser(
        cls,  # pyright: ignore[reportArgumentType]
        prog=prog,
        description=description,
        epilog=examples,
        allow_abbrev=False,
        formatter_class=HelpFormatter,
    )


def _flags(
    parser: HfArgumentParser, cls: type[A], words: Sequence[str], models: Sequence[str], revision: str | None = None
) -> A:
    """The flags as `cls`; where they were not typed, what the models recorded comes before plain defaults."""
    typed = vars(parser.parse_args(list(words)))
    flags = {word.split("=")[0] for word in words if word.startswith("--")}
    given = {action.dest: typed[action.dest] for action in parser._actions if flags & set(action.option_strings)}
    parser.set_defaults(**protocol.recorded_flags(cls, models, given, revision))
    namespace = vars(parser.parse_args(list(words)))
    return cls(**{name: namespace[name] for name in cls.__dataclass_fields__})


def summary(results: Mapping[str, Any]) -> str:
    """The results as a person reads them on a terminal."""
    shown = tables(results)
    count, data = results["protocol"]["num_samples"], results["data"]
    lines = [f"{results['model']['name']}: {count} samples against {data['name']}, split {data['split']}", ""]
    lines += _table(["", *(metric.title for metric in shown["columns"])], shown["compared"])
    if shown["by_extractor"]:
        lines += ["", *_table(["", *shown["extractors"]], [(m.title, cells) for m, cells in shown["by_extractor"]])]
    if shown["others"]:
        lines += ["", *_table(["", "value"], [(metric.title, [cell]) for metric, cell in shown["others"]])]
    if speed := results["speed"]:
        lines += ["", f"{speed['ms_per_image']:.3g} ms and {speed['network_evaluations']:.4g} evaluations a sample"]
    lines += ["", *results["verdicts"], *(f"Note: {remark}" for remark in results["remarks"])]
    return "\n".join(lines)


def _table(head: Sequence[str], rows: Sequence[tuple[str, Sequence[Mapping[str, Any] | None]]]) -> list[str]:
    """Columns of equal width, numbers to the right."""
    text = [list(head), *([name.strip("*"), *(_cell(cell) for cell in cells)] for name, cells in rows)]
    widths = [max(len(row[i]) for row in text) for i in range(len(head))]
    return [
        "  ".join(c.ljust(w) if i == 0 else c.rjust(w) for i, (c, w) in enumerate(zip(row, widths, strict=True)))
        for row in text
    ]


def _cell(row: Mapping[str, Any] | None) -> str:
    if row is None:
        return "-"
    spread = f" ±{(row['interval'][1] - row['interval'][0]) / 2:.2g}" if row["interval"] else ""
    return f"{row['value']:.4g}{spread}"
