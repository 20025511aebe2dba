"""Data sets on a loopback Hub: published whole and unchanged, trained from over HTTP, streamed and not."""

import errno
import hashlib
import io
import json
import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest
from datasets import ClassLabel, Dataset, DatasetDict, Features, Image, List, Value, load_dataset
from hub_server import TOKEN, HubServer
from hub_validation import problems
from PIL import Image as PILImage

from hf_genzoo.cli import main
from hf_genzoo.data import DataArgs, image_dataset, points_dataset
from hf_genzoo.data.computed import Draw
from hf_genzoo.data.images import choose_rows
from hf_genzoo.data.scenes import scenes
from hf_genzoo.data.sprites import factors
from hf_genzoo.hub.client import HubError
from hf_genzoo.hub.dataset_parquet import read_back, write_split
from hf_genzoo.hub.dataset_publisher import PushedData, push_data
from hf_genzoo.hub.dataset_source import Request, read_configs
from hf_genzoo.hub.patience import Patience

REPO, KEY = "tester/set", "datasets/tester/set"


def picture(level: int, size: tuple[int, int] = (8, 8), suffix: str = "PNG") -> bytes:
    buffer = io.BytesIO()
    PILImage.new("RGB", size, (level, 255 - level, 7)).save(buffer, suffix)
    return buffer.getvalue()


def written(data: object, folder: Path, **options: Any) -> PushedData:
    """What a push would upload, in `folder`; no Hub is asked."""
    return push_data(str(data), REPO, dry_run=True, output_dir=folder, say=lambda line: None, **options)


def opened(folder: Path, tmp_path: Path, *config: str) -> DatasetDict:
    loaded = load_dataset(str(folder), *config, cache_dir=str(tmp_path / "opened"))
    assert isinstance(loaded, DatasetDict)
    return loaded


def cells(rows: Dataset, column: str) -> list:
    """The stored values of a column: of pictures their bytes."""
    values = rows.with_format("arrow")[:][column].to_pylist()
    return [value["bytes"] if isinstance(value, dict) else value for value in values]


# Over HTTP, in clean interpreters with clean caches


def clean(hub: HubServer, home: Path, *words: str, token: str | None = TOKEN) -> subprocess.CompletedProcess[str]:
    """`genzoo WORDS` (or python, if the first one is code) with nothing cached, against the loopback Hub."""
    home.mkdir(parents=True, exist_ok=True)
    env = {name: value for name, value in os.environ.items() if name != "HF_TOKEN"}
    env |= {"HF_HOME": str(home), "HF_GENZOO_CACHE": str(home / "zoo"), "HF_HUB_OFFLINE": "0", "OMP_NUM_THREADS": "1"}
    code = ["-c", *words] if "\n" in words[0] else ["-m", "hf_genzoo.cli", *words]
    env |= hub.environment(token)
    return subprocess.run([sys.executable, *code], env=env, cwd=home, capture_output=True, text=True, timeout=240)


def ok(done: subprocess.CompletedProcess[str]) -> str:
    assert done.returncode == 0, done.stdout + done.stderr[-3000:]
    return done.stdout


def tiny(family: str, out: str, *words: str) -> list[str]:
    flags = ["--preset", "tiny", "--dataset_name", REPO, "--max_train_steps", "2", "--output_dir", out]
    return ["train", family, *flags, *words]


def test_a_map_style_training_reads_the_published_commit(hub: HubServer, tmp_path: Path, capsys) -> None:
    assert main(["push-data", "digits", "--repo_id", REPO]) == 0
    sha = hub.repos[KEY].commits[-1].sha
    assert f"{hub.url}/{KEY} at commit {sha}" in capsys.readouterr().out
    assert not hub.repos[KEY].private
    assert len(hub.repos[KEY].commits) == 2, "the creation, and all of the data in one"
    hub.repos[KEY].add("spoilt", {"README.md": b"", "data/train-00000-of-00001.parquet": b"none"})
    hub.requests.clear()
    ok(clean(hub, tmp_path / "reader", *tiny("vae", "out", "--dataset_revision", sha), token=None))
    data = json.loads((tmp_path / "reader" / "out" / "training.json").read_text())["data"]
    local = image_dataset(DataArgs(dataset_name="digits", num_channels=1, resolution=8))
    assert data == {"name": REPO, "split": "train", "fingerprint": local.fingerprint, "num_samples": local.num_samples}
    assert f"GET /{KEY}/resolve/{sha}/data/train-00000-of-00001.parquet" in hub.requests


SEE_ALL = """
import hashlib, sys
from hf_genzoo.cli import main
from hf_genzoo.data import DataArgs, image_dataset

assert main(sys.argv[1:]) == 0
args = DataArgs(dataset_name=sys.argv[6], num_channels=1, resolution=8, class_column="label", streaming=True)
batches, seen = image_dataset(args).batches(batch_size=50, seed=0), []
for _ in range(2):
    batch = next(batches)
    levels = ((batch["pixel_values"] + 1) * 127.5).round().byte().numpy()
    seen += [hashlib.sha1(x.tobytes()).hexdigest() + str(int(y)) for x, y in zip(levels, batch["class_labels"])]
print("seen", *sorted(seen))
"""


OPEN = """
import sys
from hf_genzoo.data import DataArgs, image_dataset

image_dataset(DataArgs(dataset_name=sys.argv[1], streaming=True))
"""


def test_a_streamed_training_reads_a_private_set_in_ranges_with_a_token_only(hub: HubServer, tmp_path: Path) -> None:
    push_data("digits", REPO, private=True, max_samples=100)
    assert hub.repos[KEY].private
    refused = clean(hub, tmp_path / "stranger", OPEN, REPO, token=None)
    assert refused.returncode == 1
    assert "If it is private, run `hf auth login`" in refused.stderr.splitlines()[-1]
    assert hub.ranges == []
    words = tiny("ddpm", "out", "--streaming", "--class_column", "label")
    output = ok(clean(hub, tmp_path / "owner", SEE_ALL, *words))
    assert any(entry.startswith("data/train-00000-of-00001.parquet ") for entry in hub.ranges)
    data = json.loads((tmp_path / "owner" / "out" / "training.json").read_text())["data"]
    assert (data["name"], data["num_samples"]) == (REPO, None)
    flags = DataArgs(dataset_name="digits", num_channels=1, resolution=8, class_column="label", max_train_samples=100)
    local = image_dataset(flags)
    pairs = zip(np.asarray(local.pixels), local.labels, strict=True)
    wanted = sorted(hashlib.sha1(x.tobytes()).hexdigest() + str(int(y)) for x, y in pairs)
    assert output.splitlines()[-1].split()[1:] == wanted
    logs = [path.read_bytes() for path in (tmp_path / "owner").rglob("*") if path.is_file()]
    assert logs
    assert not [log for log in logs if TOKEN.encode() in log]


def test_the_cards_own_lines_run(hub: HubServer, tmp_path: Path) -> None:
    push_data("scenes", REPO, num_samples=40)
    card = hub.repos[KEY].commits[-1].files["README.md"].decode()
    assert problems(card, "dataset") == []
    [load] = re.findall(r"```python\n(.*?)```", card, re.DOTALL)
    [command] = re.findall(r"```bash\n(.*?)```", card, re.DOTALL)
    code = f"from hf_genzoo.cli import main\n{load}\nsays = {command.split()[1:]!r}\n"
    code += (
        "assert main([*says, '--streaming', '--max_train_steps', '1', '--train_batch_size', '4', '--use_cpu']) == 0\n"
    )
    output = ok(clean(hub, tmp_path / "reader", code))
    assert "'text': 'a " in output
    assert (tmp_path / "reader" / "outputs" / "vae" / "training.json").is_file()


# On the Hub


def quick(data: object, **options: Any) -> PushedData:
    options = {"patience": Patience(tries=2, first=0.0), "say": lambda line: None, "max_samples": 20, **options}
    return push_data(str(data), REPO, **options)


def test_unchanged_content_makes_no_commit_and_a_change_replaces_stale_shards(hub: HubServer) -> None:
    first = quick("digits", max_shard_size=1000)
    assert first.changed
    assert first.url == f"{hub.url}/{KEY}"
    repo = hub.repos[KEY]
    assert first.revision == repo.commits[-1].sha
    assert len([name for name in repo.commits[-1].files if name.startswith("data/train-")]) > 1
    again = quick("digits", max_shard_size=1000)
    assert (again.revision, again.changed, len(repo.commits)) == (first.revision, False, 2)
    repo.add("by hand", {**repo.commits[-1].files, "notes.md": b"mine"})
    changed = quick("digits", max_samples=21)
    assert changed.changed
    assert len(repo.commits) == 4
    assert set(repo.commits[-1].files) == {*changed.files, ".gitattributes", "notes.md"}
    assert {name for name in changed.files if name.startswith("data/train-")} == {"data/train-00000-of-00001.parquet"}


def test_visibility_is_kept(hub: HubServer) -> None:
    lines: list[str] = []
    quick("digits", private=True)
    assert hub.snapshot() == {}
    quick("digits", max_samples=21, say=lines.append)
    assert hub.repos[KEY].private
    assert f"{KEY} is private and stays so; its settings on the Hub make it public" in lines
    hub.repos[KEY].private = False
    before = hub.snapshot()
    with pytest.raises(HubError, match=r"is public, so --private cannot be kept.*Nothing was sent"):
        quick("digits", private=True, max_samples=22)
    assert hub.snapshot() == before


@pytest.mark.parametrize(
    "fault",
    [
        {"path": "/commit/", "status": 500},
        {"path": "/commit/", "drop_after": 100},
        {"path": "PUT /lfs/upload", "status": 503},
        {"path": "/preupload/", "status": 403},
        {"path": "PUT .*/settings", "status": 500},
    ],
    ids=lambda fault: f"{fault['path']} {fault.get('status', 'cut')}",
)
def test_a_failed_push_shows_nothing_and_the_same_call_repairs_it(hub: HubServer, fault: dict[str, Any]) -> None:
    order = hub.fail(fault.pop("path"), times=50, **fault)
    with pytest.raises(HubError) as caught:
        quick("digits")
    assert order.hits
    assert TOKEN not in str(caught.value)
    assert hub.snapshot() == {}
    hub.faults.clear()
    done = quick("digits")
    assert hub.snapshot()[KEY][:2] == (False, done.revision)


def test_a_dry_run_and_a_failed_check_leave_the_hub_alone(hub: HubServer, monkeypatch: pytest.MonkeyPatch) -> None:
    dry = quick("digits", dry_run=True)
    assert (dry.revision, dry.changed, dry.rows["default"]["train"]) == (None, False, 20)
    assert hub.requests == []

    def spoilt(rows: Any, *args: Any, **kwargs: Any) -> Any:
        return load_dataset(rows, *args, **kwargs).take(19)

    monkeypatch.setattr("hf_genzoo.hub.dataset_parquet.load_dataset", spoilt)
    with pytest.raises(
        HubError, match="split 'train' of configuration 'default' reads back with 19 rows instead of 20"
    ):
        quick("digits")
    assert hub.repos == {}


def test_a_full_disk_is_said_and_nothing_is_sent(hub: HubServer, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*args: object, **kwargs: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr("pyarrow.parquet.ParquetWriter.write_table", full)
    with pytest.raises(HubError, match=r"the disk is full: .*--output_dir.*Nothing was published"):
        quick("digits")
    assert hub.repos == {}


# What is written


def test_reading_back_notices_another_row(tmp_path: Path) -> None:
    written("digits", tmp_path / "out", max_samples=50)
    [config] = read_configs(Request("digits", max_samples=50))
    splits = [
        write_split(split, tmp_path / "again", max_shard_bytes=10**9, max_corrupt=0, show=False)
        for split in config.splits
    ]
    read_back(tmp_path / "out", config, splits)
    file = tmp_path / "out" / "data" / "train-00000-of-00001.parquet"
    table = pq.read_table(file)
    pq.write_table(table.take([49, *range(1, 50)]), file)
    with pytest.raises(HubError, match=r"row 0 of split 'train' .* does not read back as it was written"):
        read_back(tmp_path / "out", config, splits)


def test_a_folder_of_pictures_keeps_its_bytes_classes_and_splits(tmp_path: Path) -> None:
    folder, stored = tmp_path / "pets", {}
    for split in ("train", "validation"):
        for number, kind in enumerate(("cat", "dog")):
            path = folder / split / kind / f"{number}.jpg"
            path.parent.mkdir(parents=True)
            stored[split, number] = picture(40 * number + len(split), (30, 20), "JPEG")
            path.write_bytes(stored[split, number])
    pushed = written(folder, tmp_path / "out", license="cc0-1.0", description="Pets.", source="Drawn for a test.")
    assert pushed.rows == {"default": {"train": 2, "validation": 2}}
    loaded = opened(tmp_path / "out", tmp_path)
    for split, rows in loaded.items():
        assert rows.features == {"image": Image(), "label": ClassLabel(names=["cat", "dog"])}
        assert cells(rows, "image") == [stored[split, 0], stored[split, 1]]
        assert cells(rows, "label") == [0, 1]
    flags = {"resolution": 8, "class_column": "label"}  # the place of a crop depends on the stored bytes
    here, there = (image_dataset(DataArgs(train_data_dir=str(path), **flags)) for path in (folder, tmp_path / "out"))
    assert here.fingerprint == there.fingerprint
    card = (tmp_path / "out" / "README.md").read_text()
    assert "Pets." in card
    assert "| `image` | picture: JPEG, 30 x 20, colour |" in card
    assert "--num_channels 3 --resolution 20" in card
    assert str(tmp_path) not in card
    assert str(tmp_path).encode() not in (tmp_path / "out/data/train-00000-of-00001.parquet").read_bytes()


def test_metadata_saved_and_listed_sets(tmp_path: Path) -> None:
    folder = tmp_path / "captioned"
    folder.mkdir()
    lines = []
    for number in range(3):
        (folder / f"{number}.png").write_bytes(picture(number))
        lines.append(
            {"file_name": f"{number}.png", "caption": [f"number {number}", f"no. {number}"], "size": number / 2}
        )
    (folder / "metadata.jsonl").write_text("\n".join(map(json.dumps, lines)))
    (folder / "README.md").write_text("---\nlicense: mit\n---\n")
    written(folder, tmp_path / "out")
    rows = opened(tmp_path / "out", tmp_path)["train"]
    assert cells(rows, "image") == [picture(number) for number in range(3)]
    assert rows[1]["caption"] == ["number 1", "no. 1"]
    assert rows[1]["size"] == 0.5
    card = (tmp_path / "out" / "README.md").read_text()
    assert "license: mit" in card
    assert "text-to-image" in card

    DatasetDict({"train": rows, "test": rows.select([0])}).save_to_disk(str(tmp_path / "saved"))
    pushed = written(tmp_path / "saved", tmp_path / "out2", license="mit")
    assert pushed.rows == {"default": {"train": 3, "test": 1}}
    assert opened(tmp_path / "out2", tmp_path)["train"].features == rows.features

    (tmp_path / "list.csv").write_text("file,kind\n" + "".join(f"{folder}/{n}.png,{n}\n" for n in range(3)))
    with pytest.raises(ValueError, match=r"column 'file' holds paths of pictures .* give --image_column file"):
        written(tmp_path / "list.csv", tmp_path / "out3", license="mit")
    written(tmp_path / "list.csv", tmp_path / "out4", license="mit", image_column="file")
    rows = opened(tmp_path / "out4", tmp_path)["train"]
    assert rows.features["file"] == Image()
    assert cells(rows, "file") == [picture(number) for number in range(3)]


def test_unreadable_pictures_are_named_or_left_out(tmp_path: Path) -> None:
    cells_stored = [picture(0), picture(1)[:45], None, b"no picture", picture(4)]
    rows = {"image": [None if c is None else {"bytes": c, "path": None} for c in cells_stored], "n": list(range(5))}
    data = Dataset.from_dict(rows).cast_column("image", Image())
    (tmp_path / "set").mkdir()
    data.to_parquet(str(tmp_path / "set" / "train.parquet"))
    with pytest.raises(ValueError, match=r"2 rows of split 'train' .*of row 1 \(.*of row 3 \(Unid") as e:
        written(tmp_path / "set", tmp_path / "out", license="mit")
    assert "--max_corrupt_images" in str(e.value)
    assert "object at" not in str(e.value)
    said: list[str] = []
    options = {"license": "mit", "max_corrupt_images": 2, "dry_run": True, "output_dir": tmp_path / "kept"}
    push_data(tmp_path / "set", REPO, say=said.append, **options)
    kept = opened(tmp_path / "kept", tmp_path)["train"]
    assert cells(kept, "n") == [0, 2, 4]
    assert cells(kept, "image") == [picture(0), None, picture(4)]
    assert [line.split(":")[1].strip() for line in said] == ["'image' of row 1", "'image' of row 3"]
    assert "missing in 1 of 3 rows" in (tmp_path / "kept" / "README.md").read_text()


def test_cards_of_gaps_and_bare_tables(tmp_path: Path) -> None:
    points = {"points": [[0.0, 1.0], None, [float("nan"), 0.0]]}
    kinds = Features({"points": List(Value("float32"), length=2)})
    gaps = {"image": [None], "n": [1]}
    sets = {
        "points": Dataset.from_dict(points, features=kinds),
        "nothing": Dataset.from_dict({"points": [None]}, features=kinds),
        "gaps": Dataset.from_dict(gaps, features=Features({"image": Image(), "n": Value("int8")})),
        "table": Dataset.from_dict({"n": [1.5], "text": ["a | `b`\nc"]}),
    }
    for name, rows in sets.items():
        (tmp_path / name).mkdir()
        rows.to_parquet(str(tmp_path / name / "train.parquet"))
        pushed = written(tmp_path / name, tmp_path / f"{name}-out", license="mit")
        assert ("samples.png" in pushed.files) == (name == "points")
        back = opened(tmp_path / f"{name}-out", tmp_path)["train"]
        assert repr([cells(back, c) for c in back.column_names]) == repr([cells(rows, c) for c in rows.column_names])
        card = (tmp_path / f"{name}-out" / "README.md").read_text()
        assert problems(card, "dataset") == []
        assert ("samples.png" in card) == (name == "points")
    assert "| `text` | text | such as `a \\| 'b' c` |" in card


def test_shards_and_row_groups_are_bounded_and_bytes_repeat(tmp_path: Path) -> None:
    for name in ("one", "two"):
        written("gaussians2d", tmp_path / name, num_samples=3000, max_shard_size="20KB")
    files = sorted(path.relative_to(tmp_path / "one") for path in (tmp_path / "one").rglob("*") if path.is_file())
    assert {file.as_posix() for file in files} > {f"data/train-0000{n}-of-00003.parquet" for n in range(3)}
    assert all((tmp_path / "one" / file).read_bytes() == (tmp_path / "two" / file).read_bytes() for file in files)
    groups = [pq.ParquetFile(tmp_path / "one" / file) for file in files if file.suffix == ".parquet"]
    assert all(f.metadata.row_group(g).num_rows <= 1000 for f in groups for g in range(f.num_row_groups))
    assert len(opened(tmp_path / "one", tmp_path)["train"]) == 3000


@pytest.mark.parametrize("options", [{}, {"seed": 3, "num_samples": 130}], ids=["embedded", "drawn"])
def test_computed_sets_hold_the_pictures_and_factors_of_their_seed(tmp_path: Path, options: dict[str, int]) -> None:
    draw = Draw(options.get("num_samples"), options.get("seed", 0))
    limit = {"max_samples": 12}
    written("scenes", tmp_path / "scenes", **options, **limit)
    rows = opened(tmp_path / "scenes", tmp_path)["test"]
    texts = [scene.caption for scene, _ in scenes("test", draw)]
    assert rows["text"][:] == [texts[i] for i in choose_rows(len(texts), 12)]
    written("sprites", tmp_path / "sprites", resolution=16, dataset_config_name="antialiased", **options, **limit)
    rows = opened(tmp_path / "sprites", tmp_path, "antialiased")["validation"]
    table = factors("validation", draw)
    table = table[choose_rows(len(table), 12)]
    assert [rows[name][:] for name in ("shape", "scale", "orientation", "x", "y")] == table.T.tolist()
    assert rows.features["shape"] == ClassLabel(names=["square", "ellipse", "heart"])
    if not options:  # the set that `--dataset_name sprites` trains on
        flags = DataArgs(
            dataset_name="sprites",
            dataset_config_name="antialiased",
            dataset_split="validation",
            resolution=16,
            num_channels=1,
            max_train_samples=12,
        )
        assert np.array_equal(np.stack([np.asarray(p) for p in rows["image"]])[:, None], image_dataset(flags).pixels)
        assert texts != [scene.caption for scene, _ in scenes("test", Draw(seed=3))]


def test_several_configurations_in_one_repository(tmp_path: Path) -> None:
    names = ["moons", "swiss_roll"]
    pushed = written("gaussians2d", tmp_path / "out", dataset_config_name=names, max_samples=40)
    assert list(pushed.rows) == names
    for name in names:
        rows = opened(tmp_path / "out", tmp_path, name)["test"]
        args = DataArgs(dataset_name="gaussians2d", dataset_config_name=name, dataset_split="test")
        wanted = points_dataset(args).points[choose_rows(10_000, 40)]
        assert np.array_equal(np.asarray(rows["points"][:], np.float32), wanted)
    assert opened(tmp_path / "out", tmp_path)["train"].column_names == ["points", "label"], "the first is the default"


@pytest.mark.parametrize(
    ("name", "config_columns"),
    [
        ("emoji/emoji64", ["twitter", "google", "fluent"]),
        ("photos", ["image"]),
        ("faces/toon_head", ["image"]),
        ("shapes3d/furniture", []),
    ],
)
def test_real_sets_survive(shared_data: Path, tmp_path: Path, name: str, config_columns: list[str]) -> None:
    if not (shared_data / name).is_dir():
        pytest.skip(f"needs the real data set {name}")
    pushed = written(shared_data / name, tmp_path / "out", license="other", source="See its page.", max_samples=24)
    before = load_dataset(str(shared_data / name), cache_dir=str(tmp_path / "source"))
    after = opened(tmp_path / "out", tmp_path)
    assert {split: len(rows) for split, rows in after.items()} == pushed.rows["default"]
    for split, rows in after.items():
        source = before[split].select(choose_rows(len(before[split]), 24))
        assert rows.features == source.features
        for column in rows.column_names:
            assert cells(rows, column) == cells(source, column), column
    with PILImage.open(tmp_path / "out" / "samples.png") as grid:
        assert len(np.unique(np.asarray(grid).reshape(-1, 3), axis=0)) > 1
    card = (tmp_path / "out" / "README.md").read_text()
    assert problems(card, "dataset") == []
    assert [column for column in config_columns if f"| `{column}` | picture: " in card] == config_columns


# What is refused


@pytest.mark.parametrize(
    ("source", "options", "message"),
    [
        ("digits", {"repo_id": "set"}, "'set' lacks its owner: pass 'user/set'"),
        ("nowhere", {}, "'nowhere' is neither an embedded set .* nor a folder or file here"),
        ("{empty}", {"license": "mit"}, "empty' holds no data that can be read: it takes pictures"),
        ("{broken}", {"license": "mit"}, "split 'train' of '.*broken' cannot be read: Parquet file size is 2 bytes"),
        ("{empty}", {}, "nothing says under which licence .* give --license .*`unknown` if you do not know"),
        ("digits", {"license": "CC BY 4.0"}, "--license 'CC BY 4.0' is not written as the Hub does.*cc-by-4.0"),
        ("{empty}", {"license": "other"}, "--license other says nothing by itself: .*--source"),
        ("digits", {"seed": 1}, "--num_samples and --seed are for sets that are computed .*not for 'digits'"),
        ("digits", {"resolution": 32}, "--resolution is for pictures that are computed .*those of 'digits'"),
        ("digits", {"max_samples": 0}, "--max_samples must be at least 1, not 0"),
        ("digits", {"max_corrupt_images": -1}, "--max_corrupt_images must be at least 0, not -1"),
        ("digits", {"image_column": "image"}, "--image_column is for data of your own"),
        ("digits", {"output_dir": "{broken}"}, "--output_dir '.*broken' is not an empty folder"),
        ("scenes", {"num_samples": 0}, "--num_samples must be at least 1, not 0"),
        ("scenes", {"resolution": 16, "num_samples": 10}, "scenes need --resolution 32 or more, not 16"),
        ("scenes", {"dataset_config_name": "big"}, "scenes has no configuration 'big'"),
        ("sprites", {"num_samples": 700_000}, "too few for --num_samples 700000 .* ask for at most 614,400"),
        ("gaussians2d", {"dataset_config_name": ["ring", "ring"]}, "--dataset_config_name names one twice: ring ring"),
        ("gaussians2d", {"dataset_config_name": "star"}, "gaussians2d has no configuration 'star'; it has: ring"),
    ],
)
def test_mistakes_are_named_with_the_fix(tmp_path: Path, source: str, options: dict[str, Any], message: str) -> None:
    (tmp_path / "empty").mkdir()
    (tmp_path / "broken").mkdir()
    (tmp_path / "broken" / "train.parquet").write_bytes(b"no")
    places = {"empty": str(tmp_path / "empty"), "broken": str(tmp_path / "broken")}
    options = {name: value.format(**places) if isinstance(value, str) else value for name, value in options.items()}
    with pytest.raises((ValueError, OSError), match=message):
        push_data(source.format(**places), **{"repo_id": REPO, "dry_run": True, "say": lambda line: None, **options})


def test_names_and_tokens_are_checked_before_anything_is_written(
    hub: HubServer, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("hf_genzoo.hub.dataset_publisher.write_split", lambda *a, **k: pytest.fail("it was written"))
    with pytest.raises(HubError, match="'set' lacks its owner: pass 'tester/set'"):
        push_data("digits", "set")
    hub.add_token("hf_reader", "read")
    with pytest.raises(HubError, match="may only read"):
        push_data("digits", REPO, token="hf_reader")
    monkeypatch.delenv("HF_TOKEN")
    monkeypatch.setattr("hf_genzoo.hub.client.get_token", lambda: None)
    assert main(["push-data", "digits", "--repo_id", REPO]) == 1
    assert "genzoo: no access token: run `hf auth login`" in capsys.readouterr().err
    assert hub.repos == {}
