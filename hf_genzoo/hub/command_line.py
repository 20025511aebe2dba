"""`genzoo publish`: flags and what is printed."""

import argparse
import sys
from typing import TYPE_CHECKING

from hf_genzoo.demo.playground_server import NAME as PLAYGROUND

if TYPE_CHECKING:
    from hf_genzoo.hub.publisher import Published

DESCRIPTION = """\
Publish a trained folder on the Hugging Face Hub, so that strangers can load it, trust it and read about it.

The whole repository is built aside and loaded in every way it promises, each in a clean interpreter; only then is one
commit made. It is loaded back from the Hub by its hash and compared, sample for sample; a new repository stays private
until that has gone well. Whatever goes wrong, nobody sees half of it, and the same command goes on.

gan2d, in place of a folder, is the GAN playground (`genzoo demo gan2d`): it becomes a static Space, a page that anyone
can open and that computes in the visitor's browser.

Log in once with `hf auth login` (a token that may write), or set HF_TOKEN."""
EPILOG = """\
examples:
  genzoo publish outputs/ddpm-digits --repo_id you/ddpm-digits --dry_run    what would go up
  genzoo publish outputs/ddpm-digits --repo_id you/ddpm-digits --space      with a demo that people open
  genzoo publish gan2d --repo_id you/gan-playground                         the playground, as a Space"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The flags of `genzoo publish`."""
    parser.description, parser.epilog = DESCRIPTION, EPILOG
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.add_argument("folder", help="an exported folder, what a training leaves in --output_dir; or gan2d")
    parser.add_argument("--repo_id", required=True, help="repository to publish as, user/name; made if there is none")
    parser.add_argument(
        "--private", action="store_true", help="keep a new repository private; one that exists stays as it is"
    )
    parser.add_argument("--space", action="store_true", help="publish the demo, too, as a Space of the same name")
    parser.add_argument(
        "--variant", nargs="+", default=[], choices=("fp16", "bf16"), help="add the weights in lower precision"
    )
    parser.add_argument("--dry_run", action="store_true", help="build and check everything, but leave the Hub alone")


def run(args: argparse.Namespace) -> int:
    """Publish, and print where it is and how to load it."""
    from hf_genzoo.hub.publisher import publish

    done = publish(
        args.folder,
        args.repo_id,
        private=args.private,
        space=args.space,
        dry_run=args.dry_run,
        variants=args.variant,
        say=lambda line: print(line, file=sys.stderr),
    )
    if args.dry_run:
        _print_plan(done, args)
        return 0
    print(f"{'Published' if done.changed else 'Unchanged'}: {done.url}")
    if args.folder != PLAYGROUND:
        print(f'hf_genzoo.load("{done.repo_id}", revision="{done.revision}")')
    if done.space_url:
        print(f"Demo: {done.space_url}")
    return 0


def _print_plan(plan: "Published", args: argparse.Namespace) -> None:
    """What would happen, step by step, and which files would go up."""
    if plan.report:
        print(plan.report)
    shown = "kept private" if args.private else "shown"
    print(f"{plan.url}: made if there is none, loaded back and compared, then {shown}. One commit with")
    _print_sizes(plan.files)
    if plan.space_files:
        print(f"and the Space {plan.repo_id}:")
        _print_sizes(plan.space_files)
    print("nothing was sent")


def _print_sizes(files: dict[str, int]) -> None:
    for path, size in files.items():
        print(f"{size:>14,}  {path}")
    print(f"{sum(files.values()):>14,}  bytes in all")
