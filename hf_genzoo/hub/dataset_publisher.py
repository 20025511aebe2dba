"""From an embedded or local data set to one on the Hub: Parquet and a card, checked here, one commit, then shown.

The whole repository is written to a folder and read back with `datasets` before the Hub is asked to change anything. A
new data set stays private until its one commit is complete. The same rows give the same bytes, so nothing is committed
twice.
"""

import re
import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from datasets.utils.py_utils import convert_file_size_to_int
from huggingface_hub import DatasetCard, constants

from hf_genzoo.data.computed import Draw
from hf_genzoo.hub.client import Commit, HubClient, HubError, check_name
from hf_genzoo.hub.dataset_about import About, about_embedded
from hf_genzoo.hub.dataset_card import render_dataset_card
from hf_genzoo.hub.dataset_parquet import Written, data_folder, read_back, write_split
from hf_genzoo.hub.dataset_pictures import draw_rows
from hf_genzoo.hub.dataset_source import Config, Request, check_request, read_configs
from hf_genzoo.hub.layout import CARD
from hf_genzoo.hub.patience import Patience, is_disk_full

PICTURE = "samples.png"
MAX_SHARD_SIZE = "500MB"

# What a later push may remove: shards by the Hub's convention, and the picture of the card.
_OWNED = re.compile(rf"[^/]+/[^/]+-\d{{5}}-of-\d{{5}}\.parquet|{re.escape(PICTURE)}")
_LICENCE = re.compile(r"[a-z0-9]+([.-][a-z0-9]+)*")

Say = Callable[[str], None]


@dataclass(frozen=True)
class PushedData:
    """What was published, or would be.

    Args:
        repo_id: The data set's repository.
        revision: The commit that holds it; None on a dry run.
        url: Its page.
        changed: Whether anything had to be uploaded.
        files: What the push holds, with sizes in bytes.
        rows: Rows of each split, {configuration: {split: rows}}.
    """

    repo_id: str
    revision: str | None
    url: str
    changed: bool
    files: dict[str, int]
    rows: dict[str, dict[str, int]]


def push_data(
    name_or_folder: str | Path,
    repo_id: str,
    *,
    dataset_config_name: str | Sequence[str] | None = None,
    private: bool = False,
    license: str | None = None,
    description: str | None = None,
    source: str | None = None,
    image_column: str | Sequence[str] | None = None,
    max_samples: int | None = None,
    num_samples: int | None = None,
    seed: int = 0,
    resolution: int | None = None,
    max_corrupt_images: int = 0,
    max_shard_size: str | int = MAX_SHARD_SIZE,
    dry_run: bool = False,
    output_dir: str | Path | None = None,
    token: str | None = None,
    say: Say = print,
    patience: Patience | None = None,
) -> PushedData:
    """Publish an embedded or local data set on the Hub: all its splits as Parquet, with a card.

    Pictures keep their bytes; class names, captions and all other columns keep their types. A push replaces the shards
    and the card of an earlier one; unchanged content makes no commit.

    Args:
        name_or_folder: digits, sprites, scenes or gaussians2d; or a folder or file of your own, as `--dataset_name`
            takes it: pictures (with metadata.jsonl or one folder a class), Parquet, arrow, or from `save_to_disk`.
        repo_id: "user/name" or "organisation/name"; made if it does not exist.
        dataset_config_name: One or several configurations to publish; the first is the default one.
        private: Keep a new data set private. One that exists keeps its visibility.
        license: The Hub's identifier of the licence. Embedded sets know theirs; a folder may state it in its README.
        description: What the data are, for the card.
        source: Where they come from and whose they are, for the card.
        image_column: Columns to publish as pictures that are stored as paths or plain bytes.
        max_samples: At most so many rows of each split, a fixed random choice.
        num_samples: Computed sets: rows of the training split; the held-out splits have a tenth of it each.
        seed: Computed sets: other rows than those of the embedded set, which has seed 0.
        resolution: Computed pictures: height and width, by default 64.
        max_corrupt_images: Rows with unreadable pictures to leave out (each is named) before it is an error.
        max_shard_size: Largest size of a file, such as "500MB".
        dry_run: Write and check everything, and leave the Hub alone.
        output_dir: Keep what is uploaded in this folder, which must be empty or new.
        token: A token that may write; the one of `hf auth login` if None.
        say: Told what happens, line by line.
        patience: How often a call of the Hub is tried.

    Raises:
        FileNotFoundError: There is no such set, or the folder holds no data.
        HubError: The name, the token or the Hub is no good, or the disk is full.
        ValueError: A flag does not fit the data, or pictures cannot be read; the message names them and the fix.
        OSError: Files cannot be read or written.
    """
    request = Request(
        name=str(name_or_folder),
        config_names=_several(dataset_config_name),
        max_samples=max_samples,
        draw=Draw(num_samples, seed),
        resolution=resolution,
        image_columns=_several(image_column),
    )
    if max_corrupt_images < 0:
        raise ValueError(f"--max_corrupt_images must be at least 0, not {max_corrupt_images!r}")
    shard_bytes = convert_file_size_to_int(max_shard_size)
    check_request(request)  # all mistakes show before hours of writing
    about = _about(request, license, description, source)
    client = None
    if dry_run:
        check_name(repo_id)
    else:
        client = HubClient(token, patience)
        client.check_private(repo_id, private=private, say=say, repo_type="dataset")
    with _folder(output_dir) as folder:
        configs = read_configs(request)
        done = [(c, _write(c, folder, shard_bytes, max_corrupt_images, c is configs[0])) for c in configs]
        _add_card(folder, repo_id, request, about, done)
        for config, splits in done:
            read_back(folder, config, splits)
            _report_skipped(splits, say)
        files = {p.relative_to(folder).as_posix(): p for p in sorted(folder.rglob("*")) if p.is_file()}
        sizes = {name: path.stat().st_size for name, path in files.items()}
        rows = {config.name: {split.name: split.num_rows for split in splits} for config, splits in done}
        if client is None:
            return PushedData(repo_id, None, f"{constants.ENDPOINT}/datasets/{repo_id}", False, sizes, rows)
        commit = _upload(client, repo_id, files, private, say)
    page = commit.url.partition("/commit/")[0]
    return PushedData(repo_id, commit.sha, page, commit.changed, sizes, rows)


def _several(value: str | Sequence[str] | None) -> tuple[str, ...]:
    return () if value is None else (value,) if isinstance(value, str) else tuple(value)


@contextmanager
def _folder(output_dir: str | Path | None) -> Iterator[Path]:
    """Where the repository is written: a temporary folder, or the one that is to be kept."""
    try:
        if output_dir is None:
            with tempfile.TemporaryDirectory(prefix="genzoo-data-") as name:
                yield Path(name)
            return
        folder = Path(output_dir)
        if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
            raise ValueError(f"--output_dir {str(folder)!r} is not an empty folder: choose another one, or empty it")
        folder.mkdir(parents=True, exist_ok=True)
        yield folder
    except OSError as error:
        if not is_disk_full(error):
            raise
        place = output_dir or tempfile.gettempdir()
        raise HubError(
            f"the disk is full: {place} must have room for the whole data set as Parquet; free some, or name a place "
            f"that has it with --output_dir, and run the same command again ({error.strerror}). Nothing was published"
        ) from error


def _about(request: Request, licence: str | None, description: str | None, source: str | None) -> About:
    """What the card says beside what is read off the rows.

    Raises:
        ValueError: the licence is unknown, or is not written as the Hub does.
    """
    if request.is_embedded:
        about = about_embedded(request, licence, description, source)
    else:
        licence = licence or _stated_licence(Path(request.name).expanduser())
        if licence is None:
            raise ValueError(
                f"nothing says under which licence {request.name!r} may be passed on: give --license with an "
                "identifier of the Hub, such as cc-by-4.0 or cc0-1.0; `other` if none fits (with --source to say "
                "which), `unknown` if you do not know"
            )
        about = About(description, source, licence)
    if about.licence == "other" and not about.source:
        raise ValueError(
            "--license other says nothing by itself: say with --source which terms hold and whose they are"
        )
    if not _LICENCE.fullmatch(about.licence):
        raise ValueError(
            f"--license {about.licence!r} is not written as the Hub does: small letters, digits, hyphens and dots, "
            "such as cc-by-4.0, mit, other (https://huggingface.co/docs/hub/repositories-licenses)"
        )
    return about


def _stated_licence(path: Path) -> str | None:
    """The licence in the front matter of a folder's own README, if it states one."""
    readme = path / CARD
    if not path.is_dir() or not readme.is_file() or not readme.read_text(encoding="utf-8").startswith("---"):
        return None
    stated = DatasetCard.load(readme).data.get("license")
    return stated if isinstance(stated, str) else None


def _write(config: Config, folder: Path, shard_bytes: int, max_corrupt: int, show: bool) -> list[Written]:
    written = []
    for number, split in enumerate(config.splits):
        written.append(
            write_split(
                split,
                folder / data_folder(config.name),
                max_shard_bytes=shard_bytes,
                max_corrupt=max_corrupt,
                show=show and number == 0,
            )
        )
    return written


def _add_card(
    folder: Path, repo_id: str, request: Request, about: About, done: list[tuple[Config, list[Written]]]
) -> None:
    first = done[0][1][0]
    picture = draw_rows(first.features, first.shown)
    if picture is not None:
        picture.save(folder / PICTURE)
    for name, content in about.files.items():
        (folder / name).write_bytes(content)
    card = render_dataset_card(repo_id, request, about, done, PICTURE if picture else None)
    (folder / CARD).write_text(card, encoding="utf-8")


def _report_skipped(splits: list[Written], say: Say) -> None:
    for split in splits:
        for skipped in split.skipped:
            say(f"left out of split {split.name!r}: {skipped.name}: {skipped.reason}")


def _upload(client: HubClient, repo_id: str, files: dict[str, Path], private: bool, say: Say) -> Commit:
    """Everything in one commit, or none where nothing changed; a new data set is then shown, if it is to be."""
    say(f"uploading {len(files)} files to datasets/{repo_id}")
    commit = client.commit(
        repo_id,
        files,
        message="Publish the data with hf_genzoo",
        repo_type="dataset",
        owned=lambda path: _OWNED.fullmatch(path) is not None,
    )
    if not commit.changed:
        say(f"datasets/{repo_id} holds all of this already")
    client.settle(repo_id, private=private, repo_type="dataset")
    return commit
