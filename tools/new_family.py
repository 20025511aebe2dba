"""Start a new family from an existing one:

    python tools/new_family.py beta_vae --like vae --title "beta-VAE" --paper "Higgins et al.: beta-VAE" --year 2017 \
        --url https://openreview.net/forum?id=Sy2fzU9gl

writes its row in the table of families, its training script, card and test, as copies of the parent's to be edited.
By default the new family shares the parent's networks and pipeline; --own_pipeline copies the pipeline too.
CONTRIBUTING.md has the checklist of what comes next.
"""

import argparse
import re
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent


def main(argv: list[str] | None = None) -> int:
    """Write the files and say what to edit; nothing is written when anything is wrong."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("name", help="short name in snake_case; also the stem of its files")
    parser.add_argument("--like", required=True, metavar="PARENT", help="family to start from")
    parser.add_argument("--title", required=True, help="what a person calls it")
    parser.add_argument("--paper", required=True, help='"Authors: Title" of the defining paper')
    parser.add_argument("--year", required=True, type=int, help="year of that paper")
    parser.add_argument("--url", required=True, help="where the paper can be read")
    parser.add_argument("--own_pipeline", action="store_true", help="copy the pipeline instead of sharing it")
    parser.add_argument("--root", type=Path, default=ROOT, help=argparse.SUPPRESS)
    args = parser.parse_args(argv)
    try:
        files = plan(args)
    except ValueError as error:
        parser.error(str(error))
    for path, text in files.items():
        path.write_text(text)
        print(f"wrote {path.relative_to(args.root)}")
    print("Now edit each of them: CONTRIBUTING.md has the checklist.")
    return 0


def plan(args: argparse.Namespace) -> dict[Path, str]:
    """Every file to write, with its text.

    Raises:
        ValueError: on a bad or taken name, or an unknown parent.
    """
    root, name, parent = args.root, args.name, args.like
    table = root / "hf_genzoo" / "families.py"
    known = re.findall(r'^            name="(\w+)",$', table.read_text(), flags=re.MULTILINE)
    if not re.fullmatch(r"[a-z][a-z0-9_]*", name):
        raise ValueError(f"the name is {name!r}; use small letters, digits and _, starting with a letter")
    if name in known:
        raise ValueError(f"there is a family {name!r} already")
    if parent not in known:
        raise ValueError(f"--like {parent!r} is unknown; there are {', '.join(known)}")

    old_row = _row(table.read_text(), parent)
    old_class = _value(old_row, "pipeline")
    sharer = _value(old_row, "parent") or parent
    new_class = _camel(name) + "Pipeline" if args.own_pipeline else old_class
    files = {table: _with_row(table.read_text(), old_row, args, new_class, None if args.own_pipeline else sharer)}

    script = (root / "training_scripts" / f"train_{parent}.py").read_text()
    script = script.replace(f'family: ClassVar[str] = "{parent}"', f'family: ClassVar[str] = "{name}"')
    if args.own_pipeline:
        module = f"hf_genzoo.pipelines.{sharer} import"
        script = script.replace(module, f"hf_genzoo.pipelines.{name} import").replace(old_class, new_class)
        pipeline = (root / "pipelines" / f"{sharer}.py").read_text()
        files[root / "pipelines" / f"{name}.py"] = pipeline.replace(old_class, new_class)
    files[root / "training_scripts" / f"train_{name}.py"] = script
    files[root / "model_cards" / f"{name}.md"] = (root / "model_cards" / f"{parent}.md").read_text()
    files[root / "tests" / f"test_{name}.py"] = TEST.format(name=name, title=args.title, url=args.url)
    if taken := [str(path.relative_to(root)) for path in files if path.exists() and path != table]:
        raise ValueError(f"would overwrite {', '.join(taken)}")
    return files


def _row(table: str, family: str) -> str:
    match = re.search(rf'        Family\(\n            name="{family}",\n(?:            .*\n)*        \),\n', table)
    if match is None:
        raise ValueError(f"cannot find the row of {family!r} in families.py")
    return match[0]


def _value(row: str, key: str) -> str | None:
    match = re.search(rf'^            {key}="([^"]*)",$', row, flags=re.MULTILINE)
    return match[1] if match else None


def _with_row(table: str, old_row: str, args: argparse.Namespace, pipeline: str, parent: str | None) -> str:
    values = {
        "name": args.name,
        "title": args.title,
        "paper": args.paper,
        "year": args.year,
        "url": args.url,
        "modality": _value(old_row, "modality"),
        "pipeline": pipeline,
        **({"parent": parent} if parent else {}),
    }
    quoted = {key: f'"{value}"' if isinstance(value, str) else value for key, value in values.items()}
    row = "".join(f"            {key}={value},\n" for key, value in quoted.items())
    head, end, tail = table.rpartition("    )\n}\n\n\ndef get_family")
    return f"{head}        Family(\n{row}        ),\n{end}{tail}"


TEST = '''"""What the paper makes true of {title} ({url}).

The promises that all families share are in test_contract.py. Here belong closed forms and identities: a loss against
its formula, an estimator against a known density, a limit in which the family becomes its parent.
"""

from hf_genzoo.training_scripts.train_{name} import SMALL, Args


def test_small_preset_is_valid() -> None:
    assert Args(**SMALL).family == "{name}"
'''


def _camel(name: str) -> str:
    return "".join(part.capitalize() for part in name.split("_"))


if __name__ == "__main__":
    sys.exit(main())
