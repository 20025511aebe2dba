"""`genzoo push-data`: flags in, `push_data` called, its result on the terminal."""

import argparse
import sys

DESCRIPTION = """Publish a data set on the Hub as Parquet with a card: a Space or another machine can train from it.

Everything is written, checked and read back here first; then one commit, and a new data set is shown only once it is
complete. Unchanged content makes no commit."""

EXAMPLES = """examples:
  genzoo push-data digits --repo_id user/digits
  genzoo push-data sprites --repo_id user/sprites --num_samples 100000 --seed 1 --resolution 32
  genzoo push-data gaussians2d --repo_id user/plane --dataset_config_name ring grid
  genzoo push-data my_pictures/ --repo_id user/mine --license cc-by-4.0 --private
  genzoo push-data my_pictures/ --repo_id user/mine --license cc-by-4.0 --dry_run --output_dir outputs/mine-data"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The flags of `genzoo push-data`. Imports nothing heavy."""
    parser.description, parser.epilog = DESCRIPTION, EXAMPLES
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    add = parser.add_argument
    add("name_or_folder", help="digits, sprites, scenes, gaussians2d, or a folder or file of your own")
    add("--repo_id", required=True, metavar="USER/NAME", help="where to; made if it does not exist")
    add("--dataset_config_name", nargs="+", metavar="NAME", help="configurations to publish, the first is the default")
    add("--private", action="store_true", help="keep a new data set private; one that exists stays as it is")
    add("--license", help="identifier of the Hub, such as cc-by-4.0; needed for data of your own")
    add("--description", help="what the data are, for the card")
    add("--source", help="where they come from and whose they are, for the card")
    add("--image_column", nargs="+", metavar="NAME", help="columns of paths or bytes to publish as pictures")
    add("--max_samples", type=int, metavar="N", help="at most N rows of each split, a fixed random choice")
    add("--num_samples", type=int, metavar="N", help="computed sets: N rows to train on, a tenth in each other split")
    add("--seed", type=int, default=0, help="computed sets: another draw than the embedded one, which has seed 0")
    add("--resolution", type=int, metavar="N", help="computed pictures: N x N pixels (64)")
    add(
        "--max_corrupt_images",
        type=int,
        default=0,
        metavar="N",
        help="rows with unreadable pictures to leave out before it is an error (%(default)s)",
    )
    add("--max_shard_size", default="500MB", metavar="SIZE", help="largest size of a file (%(default)s)")
    add("--dry_run", action="store_true", help="write and check everything, and leave the Hub alone")
    add("--output_dir", metavar="FOLDER", help="keep what is uploaded in this new or empty folder")


def run(args: argparse.Namespace) -> int:
    """Publish, and print what came of it. Errors are raised."""
    from hf_genzoo.hub.dataset_publisher import push_data

    pushed = push_data(
        args.name_or_folder,
        args.repo_id,
        dataset_config_name=args.dataset_config_name,
        private=args.private,
        license=args.license,
        description=args.description,
        source=args.source,
        image_column=args.image_column,
        max_samples=args.max_samples,
        num_samples=args.num_samples,
        seed=args.seed,
        resolution=args.resolution,
        max_corrupt_images=args.max_corrupt_images,
        max_shard_size=args.max_shard_size,
        dry_run=args.dry_run,
        output_dir=args.output_dir,
        say=lambda line: print(line, file=sys.stderr),
    )
    for name, size in pushed.files.items():
        print(f"{size:>14,}  {name}")
    for config, splits in pushed.rows.items():
        print(f"{config}: " + ", ".join(f"{split} {count:,} rows" for split, count in splits.items()))
    if pushed.revision is None:
        print(f"dry run: this is what {args.repo_id} would hold; nothing was sent")
    else:
        print(f"{pushed.url} at commit {pushed.revision}{'' if pushed.changed else ' (nothing had to change)'}")
    return 0
