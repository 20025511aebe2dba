"""The `genzoo` command: a thin layer over `hf_genzoo.api`. Heavy imports wait until a command needs them."""

import argparse
import json
import sys
from collections.abc import Sequence

from hf_genzoo.families import FAMILIES
from hf_genzoo.flags import DiscreetParser
from hf_genzoo.hub.secrets import scrub

# Commands whose module has the flags (`add_arguments`) and does the work (`run`); imported when they are used.
_OWN_FLAGS = {
    "publish": ("hf_genzoo.hub.command_line", "put a trained folder on the Hub, checked, whole or not at all"),
    "push-data": ("hf_genzoo.hub.command_line_data", "put a data set on the Hub as Parquet, with its card"),
    "demo": ("hf_genzoo.demo.command_line", "open an app that samples, explores and compares, in the browser"),
}


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command and return its exit status; bad input is one line on standard error, not a stack trace."""
    words = list(sys.argv[1:] if argv is None else argv)
    if len(words) >= 2 and words[0] == "train" and words[1] in FAMILIES:
        return _train(words[1], words[2:])  # the script parses its own flags
    try:
        if words and words[0] in ("evaluate", "compare"):
            return _measure(words[0], words[1:])
        if words and words[0] in _OWN_FLAGS:
            return _own(words[0], words[1:])
        args = _parser().parse_args(words)
        return args.run(args)
    except (ValueError, OSError) as error:
        print(f"genzoo: {scrub(error)}", file=sys.stderr)
        return 1


def _parser() -> argparse.ArgumentParser:
    parser = DiscreetParser(
        prog="genzoo",
        description="Train, sample, check and publish generative models.",
        epilog="Start with: genzoo train ddpm --preset small --dataset_name digits --output_dir outputs/ddpm-digits",
    )
    commands = parser.add_subparsers(title="commands", required=True, metavar="COMMAND")

    command = commands.add_parser("list", help="the families: paper, year, modality, preset sizes")
    command.add_argument("--json", action="store_true", help="machine-readable")
    command.set_defaults(run=_list)

    command = commands.add_parser("train", help="train a family (genzoo train FAMILY --help shows its flags)")
    command.add_argument("family", choices=sorted(FAMILIES), help="which family")
    command.set_defaults(run=lambda args: _train(args.family, []))

    command = commands.add_parser("sample", help="draw pictures from a trained model")
    command.add_argument("model", help="Hub repository or folder")
    command.add_argument("--output", default="samples.png", help="a .png for one grid, else a folder (%(default)s)")
    command.add_argument("--num_images", type=int, default=16, help="how many (%(default)s)")
    command.add_argument("--seed", type=int, default=0, help="same seed, same pictures (%(default)s)")
    command.add_argument("--num_inference_steps", type=int, help="denoising steps, where the model has them")
    command.add_argument(
        "--class_labels", nargs="+", type=_label, help="classes by number or name, taken in turn, where there are any"
    )
    command.add_argument("--prompts", nargs="+", help="texts, taken in turn, where the model takes any")
    command.add_argument("--image", nargs="+", help="pictures to work on, taken in turn, for models that take any")
    command.add_argument(
        "--guidance_scale", type=float, help="how closely to follow labels or texts; 1 is the plain model"
    )
    command.add_argument("--batch_size", type=int, default=64, help="pictures drawn at once (%(default)s)")
    command.set_defaults(run=_sample)

    commands.add_parser("evaluate", help="measure a model against held-out data and write the numbers into its card")
    commands.add_parser("compare", help="measure several models on one footing: table, figure and page")

    for name, (_, summary) in _OWN_FLAGS.items():
        commands.add_parser(name, help=summary)

    command = commands.add_parser("verify", help="prove that a folder loads in every way it should")
    command.add_argument("model", help="Hub repository or folder")
    command.set_defaults(run=_verify)

    command = commands.add_parser("info", help="what a folder holds and how it was trained")
    command.add_argument("folder", help="an exported folder")
    command.set_defaults(run=_info)
    return parser


def _train(family: str, words: Sequence[str]) -> int:
    from hf_genzoo.api import script_of
    from hf_genzoo.training.script import run_script

    return run_script(script_of(family), words, prog=f"genzoo train {family}")


def _measure(command: str, words: Sequence[str]) -> int:
    from hf_genzoo.evaluation import command_line

    return command_line.evaluate(words) if command == "evaluate" else command_line.compare(words)


def _own(command: str, words: Sequence[str]) -> int:
    from importlib import import_module

    module = import_module(_OWN_FLAGS[command][0])
    parser = DiscreetParser(prog=f"genzoo {command}", allow_abbrev=False)
    module.add_arguments(parser)
    return module.run(parser.parse_args(words))


def _list(args: argparse.Namespace) -> int:
    from hf_genzoo.api import list_families

    rows = list_families()
    if args.json:
        print(json.dumps([{**vars(row.family), "parameters": row.parameters} for row in rows], indent=1))
        return 0
    print(f"{'family':<10} {'year':<5} {'modality':<16} {'tiny':>8} {'small':>8}  paper")
    for row in rows:
        tiny, small = (_count(sum(row.parameters[preset].values())) for preset in ("tiny", "small"))
        family = row.family
        print(f"{family.name:<10} {family.year:<5} {family.modality:<16} {tiny:>8} {small:>8}  {family.paper}")
    return 0


def _label(word: str) -> int | str:
    return int(word) if word.isdecimal() else word


def _count(number: int) -> str:
    return f"{number / 1e6:.2f} M" if number >= 1e6 else f"{number / 1e3:.1f} k"


def _sample(args: argparse.Namespace) -> int:
    from hf_genzoo.api import sample

    path = sample(
        args.model,
        args.output,
        num_images=args.num_images,
        seed=args.seed,
        num_inference_steps=args.num_inference_steps,
        class_labels=args.class_labels,
        guidance_scale=args.guidance_scale,
        image=args.image,
        prompts=args.prompts,
        batch_size=args.batch_size,
    )
    print(path)
    return 0


def _verify(args: argparse.Namespace) -> int:
    from hf_genzoo.hub import report, verify

    results = verify(args.model)
    print(report(results))
    return 0 if all(result.ok for result in results) else 1


def _info(args: argparse.Namespace) -> int:
    from hf_genzoo.api import info

    print(json.dumps(info(args.folder), indent=1))
    return 0


if __name__ == "__main__":
    sys.exit(main())
