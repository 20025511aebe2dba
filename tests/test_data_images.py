"""Map-style pictures: every kind of file, the cache, the order of batches, and the errors of the data flags."""

import io
import json
import logging
import os
import signal
import subprocess
import sys
import time
from dataclasses import fields
from pathlib import Path

import numpy as np
import pytest
import torch
from datasets import ClassLabel, Dataset, DatasetDict, Features, Image, Value
from PIL import Image as PILImage

from hf_genzoo.data import DataArgs, MapImages, image_dataset
from hf_genzoo.data import cache as cache_module
from hf_genzoo.data import images as images_module
from hf_genzoo.data.cache import cached_pixels
from hf_genzoo.data.decode import CorruptImageError, Transform, decode
from hf_genzoo.data.order import EndlessOrder, random_bits

EXACT = Transform(resolution=8, num_channels=3, center_crop=True, interpolation="lanczos")
GREY = Transform(resolution=8, num_channels=1, center_crop=True, interpolation="lanczos")


def encoded(image: PILImage.Image, kind: str = "PNG", **options) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, kind, **options)
    return buffer.getvalue()


def plain(level: int, size: int = 8) -> bytes:
    return encoded(PILImage.fromarray(np.full((size, size), level, np.uint8)))


def dataset_of(cells: list, **columns) -> Dataset:
    features = {"image": Image()} | {k: v[0] for k, v in columns.items()}
    data = {"image": [{"bytes": c, "path": None} if c is not None else None for c in cells]}
    return Dataset.from_dict(data | {k: v[1] for k, v in columns.items()}, features=Features(features))


@pytest.fixture
def saved(tmp_path):
    """Saves rows as a dataset folder and gives the flags that read it."""

    def save(cells: list, columns: dict | None = None, **options) -> DataArgs:
        folder = tmp_path / f"set{len(list(tmp_path.iterdir()))}"
        dataset_of(cells, **(columns or {})).save_to_disk(str(folder))
        return DataArgs(
            **{"dataset_name": str(folder), "resolution": 8, "data_cache_dir": str(tmp_path / "cache")} | options
        )

    return save


def opened(args: DataArgs, **options) -> MapImages:
    data = image_dataset(args, **options)
    assert isinstance(data, MapImages)
    return data


# ---------------------------------------------------------------- flags


def test_reading_the_flags_imports_nothing_heavy():
    code = "import sys; from hf_genzoo.data import DataArgs; print({'torch', 'datasets'} & set(sys.modules))"
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert result.stdout.strip() == "set()"


def test_every_flag_has_help():
    assert [f.name for f in fields(DataArgs) if len(f.metadata.get("help", "")) < 10] == []


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"num_channels": 2}, "--num_channels must be 1 or 3, not 2"),
        ({"resolution": 0}, "--resolution must be at least 1, not 0"),
        ({"image_interpolation_mode": "cubic"}, "not 'cubic'"),
        ({"max_train_samples": 0}, "--max_train_samples must be at least 1"),
        ({"train_data_dir": "x"}, "--train_data_dir"),
        ({"dataset_name": None}, "--dataset_name"),
    ],
)
def test_wrong_flags_are_named(options, message):
    with pytest.raises(ValueError, match=message):
        image_dataset(DataArgs(**{"dataset_name": "digits"} | options))


# ---------------------------------------------------------------- decoding


def test_grey_becomes_three_equal_channels_and_colour_becomes_grey():
    out = decode({"bytes": plain(77), "path": None}, EXACT)
    assert out.shape == (3, 8, 8)
    assert (out == 77).all()
    red = encoded(PILImage.new("RGB", (8, 8), (200, 0, 0)))
    assert (decode(red, GREY) == round(0.299 * 200)).all()


def test_transparency_is_laid_on_white():
    half = encoded(PILImage.new("RGBA", (8, 8), (0, 100, 255, 51)))  # opacity 1/5
    assert decode(half, EXACT)[:, 0, 0].tolist() == [204, 224, 255]
    grey = encoded(PILImage.new("LA", (8, 8), (0, 0)))
    assert (decode(grey, GREY) == 255).all()


def test_palette_with_and_without_transparency():
    image = PILImage.new("P", (8, 8), 0)
    image.putpalette([10, 20, 30, 200, 100, 0])
    image.paste(1, (4, 0, 8, 8))
    out = decode(encoded(image), EXACT)
    assert out[:, 0, 0].tolist() == [10, 20, 30]
    assert out[:, 0, 7].tolist() == [200, 100, 0]
    out = decode(encoded(image, transparency=1), EXACT)
    assert out[:, 0, 0].tolist() == [10, 20, 30]
    assert out[:, 0, 7].tolist() == [255, 255, 255]


@pytest.mark.parametrize(("level", "wanted"), [(0, 0), (257, 1), (32896, 128), (65535, 255)])
def test_sixteen_bit_grey_is_scaled_not_clipped(level, wanted):
    image = PILImage.fromarray(np.full((8, 8), level, np.uint16))
    assert (decode(encoded(image), GREY) == wanted).all()
    assert (decode(encoded(image, "TIFF"), GREY) == wanted).all()


def test_cmyk_and_one_bit_pictures():
    out = decode(encoded(PILImage.new("CMYK", (8, 8), (0, 255, 255, 0)), "TIFF"), EXACT)
    assert out[:, 0, 0].tolist() == [255, 0, 0]
    out = decode(encoded(PILImage.new("CMYK", (8, 8), (0, 255, 255, 0)), "JPEG", quality=95), EXACT)
    assert np.abs(out[:, 0, 0].astype(int) - [255, 0, 0]).max() <= 6
    assert (decode(encoded(PILImage.new("1", (8, 8), 1)), GREY) == 255).all()


@pytest.mark.parametrize("kind", ["JPEG", "PNG"])
def test_exif_orientation_is_applied(kind):
    array = np.zeros((16, 16), np.uint8)
    array[:8] = 255  # bright above
    exif = PILImage.Exif()
    exif[0x0112] = 6  # to be turned by 90 degrees clockwise: bright on the right
    out = decode(encoded(PILImage.fromarray(array), kind, exif=exif), GREY)[0].astype(int)
    assert out[:, 6:].min() > 200
    assert out[:, :2].max() < 50


def test_resizing_is_antialiased_and_the_crop_is_exact():
    stripes = np.tile(np.array([[0, 255]], np.uint8), (64, 32))  # one-pixel stripes: aliasing would show them
    out = decode(encoded(PILImage.fromarray(stripes)), GREY).astype(int)
    assert np.abs(out[0, :, 1:-1] - 127).max() <= 3
    wide = np.zeros((8, 24), np.uint8)
    wide[:, 8:16] = 200
    assert (decode(encoded(PILImage.fromarray(wide)), GREY) == 200).all()
    tall = encoded(PILImage.fromarray(wide.T.copy()))
    assert (decode(tall, GREY) == 200).all()


def test_random_crop_is_a_function_of_the_picture():
    free = Transform(resolution=8, num_channels=1, center_crop=False, interpolation="lanczos")
    ramp = np.tile(np.arange(240, dtype=np.uint8), (8, 1))
    starts = set()
    for i in range(20):
        ramp[0, 0] = i  # another picture, another crop
        first, second = (decode(encoded(PILImage.fromarray(ramp)), free) for _ in range(2))
        assert np.array_equal(first, second)
        starts.add(int(first[0, 4, 0]))
    assert len(starts) > 12
    assert min(starts) < 60 < 170 < max(starts)


def test_a_large_jpeg_decoded_at_a_fraction_agrees_with_the_full_decode():
    rng = np.random.default_rng(0)
    smooth = PILImage.fromarray(rng.integers(0, 256, (16, 16, 3), np.uint8)).resize((1024, 1024), PILImage.BICUBIC)
    raw = encoded(smooth, "JPEG", quality=95)
    full = np.asarray(PILImage.open(io.BytesIO(raw)).convert("RGB").resize((8, 8), PILImage.LANCZOS)).transpose(
        2, 0, 1
    )
    assert np.abs(decode(raw, EXACT).astype(int) - full).max() <= 2


def test_arrays_lists_and_paths_are_pictures_too(tmp_path):
    array = np.arange(192, dtype=np.uint8).reshape(8, 8, 3)
    for value in (array, array.tolist(), array.transpose(2, 0, 1), PILImage.fromarray(array)):
        assert np.array_equal(decode(value, EXACT), array.transpose(2, 0, 1))
    (tmp_path / "a.png").write_bytes(plain(5))
    assert (decode({"bytes": None, "path": str(tmp_path / "a.png")}, EXACT) == 5).all()
    assert (decode(str(tmp_path / "a.png"), EXACT) == 5).all()


@pytest.mark.parametrize(
    ("value", "message"),
    [
        (None, "null"),
        ({"bytes": None, "path": None}, "null"),
        (b"no picture", "UnidentifiedImageError"),
        (plain(3, 64)[:-40], "OSError|SyntaxError|ValueError"),
        ({"bytes": None, "path": "/nowhere/a.png"}, "FileNotFoundError"),
        (np.zeros((8, 8, 2), np.uint8), r"\(8, 8, 2\)"),
        (np.full((8, 8), 300), "0..255"),
        (encoded(PILImage.fromarray(np.zeros((8, 8), np.float32)), "TIFF"), "floating-point"),
    ],
)
def test_unusable_pictures_say_why(value, message):
    with pytest.raises(CorruptImageError, match=message):
        decode(value, EXACT)


# ---------------------------------------------------------------- sources and columns


def test_corrupt_pictures_are_skipped_counted_and_named(saved, caplog):
    cells = [plain(i) for i in range(6)]
    cells[2], cells[4] = b"broken", None
    columns = {"label": (ClassLabel(names=list("abcdef")), list(range(6))), "text": (Value("string"), list("uvwxyz"))}
    args = saved(cells, columns, class_column="label", caption_column="text")
    for _ in range(2):  # prepared, and opened again
        caplog.clear()
        data = opened(args)
        assert "skipped 2 unusable pictures" in caplog.text
        assert "row 2: UnidentifiedImageError" in caplog.text
        assert "row 4: null" in caplog.text
        assert data.num_samples == 4
        assert data.pixels[:, 0, 0, 0].tolist() == [0, 1, 3, 5]
        assert data.labels is not None
        assert data.labels.tolist() == [0, 1, 3, 5]
        assert data.captions is not None
        assert list(data.captions) == ["u", "v", "x", "z"]
        assert data.rows.tolist() == [0, 1, 3, 5]
        args.max_corrupt_images = 2
    for limit, fresh in ((1, False), (1, True)):
        args.max_corrupt_images = limit
        args.resolution = 4 if fresh else 8
        with pytest.raises(ValueError, match=r"2 pictures .* --max_corrupt_images: row 2: .*; row 4: null"):
            image_dataset(args)


def test_a_corrupt_file_is_named_by_its_path(tmp_path):
    (tmp_path / "pics").mkdir()
    for i in range(3):
        (tmp_path / "pics" / f"{i}.png").write_bytes(plain(i) if i != 1 else b"broken")
    args = DataArgs(
        train_data_dir=str(tmp_path / "pics"), resolution=8, data_cache_dir=str(tmp_path / "c"), max_corrupt_images=0
    )
    with pytest.raises(ValueError, match=r"row 1 \(.*1\.png\)"):
        image_dataset(args)


def test_image_folder_with_class_folders_and_with_captions(tmp_path):
    for name, level in (("cat", 10), ("dog", 20)):
        (tmp_path / "train" / name).mkdir(parents=True)
        (tmp_path / "train" / name / "a.png").write_bytes(plain(level))
    cache = str(tmp_path / "cache")
    data = opened(DataArgs(dataset_name=str(tmp_path / "train"), class_column="label", data_cache_dir=cache))
    assert data.class_names == ["cat", "dog"]
    assert data.labels is not None
    assert [(int(p[0, 0, 0]), int(y)) for p, y in zip(data.pixels, data.labels, strict=True)] == [(10, 0), (20, 1)]
    folder = tmp_path / "captioned"
    folder.mkdir()
    (folder / "x.png").write_bytes(plain(1))
    (folder / "metadata.jsonl").write_text(json.dumps({"file_name": "x.png", "text": "a dot"}))
    data = opened(DataArgs(train_data_dir=str(folder), caption_column="text", data_cache_dir=cache))
    assert data.examples(5)["captions"] == ["a dot"]


def test_parquet_folder_splits_and_a_single_file(tmp_path):
    folder = tmp_path / "parquet"
    folder.mkdir()
    for split, n in (("train", 4), ("validation", 2)):
        rows = dataset_of([plain(i) for i in range(n)], label=(Value("string"), list("wxyz")[4 - n :]))
        rows.to_parquet(str(folder / f"{split}.parquet"))
    args = DataArgs(
        dataset_name=str(folder), resolution=8, class_column="label", data_cache_dir=str(tmp_path / "cache")
    )
    assert opened(args).class_names == list("wxyz")
    held_out = opened(args, split="validation")
    assert held_out.num_samples == 2
    assert held_out.class_names == list("wxyz")  # ids of the training split
    assert held_out.labels is not None
    assert held_out.labels.tolist() == [2, 3]
    with pytest.raises(ValueError, match="no split 'test'; its splits are: train, validation"):
        opened(args, split="test")
    args.dataset_name = str(folder / "validation.parquet")
    assert opened(args).num_samples == 2


def test_dataset_dict_on_disk(tmp_path):
    DatasetDict(train=dataset_of([plain(1)]), test=dataset_of([plain(2)])).save_to_disk(str(tmp_path / "both"))
    args = DataArgs(dataset_name=str(tmp_path / "both"), data_cache_dir=str(tmp_path / "cache"))
    assert opened(args, split="test").pixels.max() == 2
    with pytest.raises(ValueError, match="its splits are: train, test"):
        opened(args, split="validation")


@pytest.mark.parametrize("flag", ["image_column", "caption_column", "class_column"])
@pytest.mark.parametrize("streaming", [False, True])
def test_missing_column_lists_the_columns(saved, flag, streaming):
    args = saved([plain(1)], {"text": (Value("string"), ["t"])}, streaming=streaming, **{flag: "img"})
    with pytest.raises(ValueError, match=f"--{flag} 'img' is not there; the columns are: image, text"):
        image_dataset(args)


@pytest.mark.parametrize("streaming", [False, True])
def test_empty_split_and_wrong_kinds_of_columns(saved, tmp_path, streaming):
    with pytest.raises(ValueError, match=r"split 'train' of .* is empty"):
        image_dataset(saved([], streaming=streaming))
    dataset_of([]).to_parquet(str(tmp_path / "none.parquet"))
    args = DataArgs(dataset_name=str(tmp_path / "none.parquet"), streaming=streaming, data_cache_dir=str(tmp_path))
    with pytest.raises(ValueError, match=r"split 'train' of .* is empty"):
        image_dataset(args)
    columns = {"size": (Value("float32"), [0.5])}
    with pytest.raises(ValueError, match="'size' holds float32, not pictures"):
        image_dataset(saved([plain(1)], columns, image_column="size", streaming=streaming))
    with pytest.raises(ValueError, match=r"--class_column 'size'|ClassLabel"):
        image_dataset(saved([plain(1)], columns, class_column="size", streaming=streaming))


def test_data_that_does_not_exist_is_said_to(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"--train_data_dir '.*nowhere' does not exist"):
        image_dataset(DataArgs(train_data_dir=str(tmp_path / "nowhere")))
    with pytest.raises(FileNotFoundError, match=r"--dataset_name '\./nowhere' does not exist"):
        image_dataset(DataArgs(dataset_name="./nowhere"))
    with pytest.raises(ValueError, match="use points_dataset"):
        image_dataset(DataArgs(dataset_name="gaussians2d"))
    with pytest.raises(ValueError, match="its splits are: test, train, validation"):
        image_dataset(DataArgs(dataset_name="digits", dataset_split="dev"))
    (tmp_path / "empty").mkdir()
    with pytest.raises(FileNotFoundError, match="empty"):
        image_dataset(DataArgs(train_data_dir=str(tmp_path / "empty"), data_cache_dir=str(tmp_path / "c")))


@pytest.mark.parametrize(
    ("feature", "values", "names", "ids"),
    [
        (ClassLabel(names=["b", "a"]), [1, 0, 1], ["b", "a"], [1, 0, 1]),
        (Value("int32"), [7, -2, 7], ["-2", "7"], [1, 0, 1]),
        (Value("string"), ["z", "m", "z"], ["m", "z"], [1, 0, 1]),
        (Value("bool"), [True, False, True], ["False", "True"], [1, 0, 1]),
    ],
)
def test_class_columns_become_contiguous_ids(saved, feature, values, names, ids):
    data = opened(saved([plain(i) for i in range(3)], {"label": (feature, values)}, class_column="label"))
    assert (data.class_names, data.num_classes) == (names, 2)
    assert data.examples(3)["class_labels"].tolist() == ids
    assert data.examples(3)["class_labels"].dtype == torch.int64


def test_null_classes_and_captions_are_errors_that_name_the_row(saved):
    cells = [plain(i) for i in range(3)]
    with pytest.raises(ValueError, match="1 rows have no known class, first row 1 with None"):
        image_dataset(saved(cells, {"label": (Value("string"), ["a", None, "b"])}, class_column="label"))
    with pytest.raises(ValueError, match="row 1 holds None"):
        image_dataset(saved(cells, {"text": (Value("string"), ["a", None, "b"])}, caption_column="text"))


def test_one_of_several_captions_is_drawn_by_position(saved):
    from datasets import List

    args = saved([plain(1)], {"text": (List(Value("string")), [["a", "b", "c"]])}, caption_column="text")
    batch = next(opened(args).batches(batch_size=300, seed=0))["captions"]
    assert set(batch) == {"a", "b", "c"}
    assert batch == next(opened(args).batches(batch_size=300, seed=0))["captions"]


# ---------------------------------------------------------------- batches


@pytest.fixture
def numbered(saved):
    """Eleven pictures whose grey level is their number, as flags."""
    return saved([plain(i) for i in range(11)], num_channels=1)


def levels(batch) -> list[int]:
    return ((batch["pixel_values"][:, 0, 0, 0] + 1) * 127.5).round().int().tolist()


def test_batches_are_normalised_and_each_epoch_is_its_own_permutation(numbered):
    batches = opened(numbered).batches(batch_size=3, seed=5)
    seen = []
    for _ in range(22):
        batch = next(batches)
        assert batch["pixel_values"].shape == (3, 1, 8, 8)
        assert batch["pixel_values"].dtype == torch.float32
        seen += levels(batch)
    epochs = [seen[i : i + 11] for i in range(0, 66, 11)]
    assert all(sorted(epoch) == list(range(11)) for epoch in epochs)  # though 3 does not divide 11
    assert len({tuple(epoch) for epoch in epochs}) == 6
    assert levels(next(opened(numbered).batches(batch_size=3, seed=6))) != seen[:3]


def test_extreme_levels_are_exactly_minus_one_and_one(saved):
    batch = opened(saved([plain(0), plain(255)])).examples(2)["pixel_values"]
    assert (batch[0] == -1).all()
    assert (batch[1] == 1).all()


@pytest.mark.parametrize("world_size", [2, 3])
def test_ranks_and_micro_batches_share_one_order(numbered, world_size):
    numbered.random_flip = True
    data = opened(numbered)
    whole = data.batches(batch_size=4 * world_size, seed=1)
    parts = [data.batches(batch_size=4, seed=1, rank=r, world_size=world_size) for r in range(world_size)]
    micro = data.batches(batch_size=4, seed=1)
    for _ in range(9):
        wanted = next(whole)["pixel_values"]
        assert torch.equal(wanted, torch.cat([next(part)["pixel_values"] for part in parts]))
        assert torch.equal(wanted, torch.cat([next(micro)["pixel_values"] for _ in range(world_size)]))


def test_a_restored_place_gives_the_very_next_batch(numbered):
    data = opened(numbered)
    batches = data.batches(batch_size=4, seed=2)
    for _ in range(7):
        next(batches)
    state = json.loads(json.dumps(batches.state_dict()))
    wanted = [levels(next(batches)) for _ in range(8)]
    again = opened(numbered).batches(batch_size=4, seed=2)
    again.load_state_dict(state)
    assert [levels(next(again)) for _ in range(8)] == wanted
    with pytest.raises(ValueError, match="seed: saved 2, now 3"):
        data.batches(batch_size=4, seed=3).load_state_dict(state)


@pytest.mark.parametrize(
    "layout", [{"batch_size": 0}, {"rank": 2, "world_size": 2}, {"rank": -1}, {"seed": -1}], ids=str
)
def test_impossible_layouts_are_refused(numbered, layout):
    with pytest.raises(ValueError, match="must"):
        opened(numbered).batches(**{"batch_size": 2, "seed": 0} | layout)


def test_flips_mirror_half_of_the_samples(saved):
    ramp = np.tile(np.arange(8, dtype=np.uint8) * 30, (8, 1))
    args = saved([encoded(PILImage.fromarray(ramp))], num_channels=1, random_flip=True)
    batch = next(opened(args).batches(batch_size=4000, seed=0))["pixel_values"]
    plain_one = opened(args).examples(1)["pixel_values"][0]
    mirrored = (batch == plain_one.flip(-1)).flatten(1).all(1)
    straight = (batch == plain_one).flatten(1).all(1)
    assert (mirrored ^ straight).all()
    assert abs(mirrored.float().mean().item() - 0.5) < 4 * 0.5 / 4000**0.5


def test_random_bits_are_independent_of_how_they_are_asked_for():
    positions = np.arange(10_000)
    bits = random_bits(3, 1, positions)
    assert np.array_equal(bits[77:80], random_bits(3, 1, positions[77:80]))
    assert len(np.unique(bits)) == len(bits)
    ones = [(bits >> np.uint64(b) & np.uint64(1)).mean() for b in range(64)]
    assert max(abs(one - 0.5) for one in ones) < 5 * 0.5 / 100
    other = random_bits(4, 1, positions) >> np.uint64(63) == bits >> np.uint64(63)
    assert abs(other.mean() - 0.5) < 0.025


def test_order_spans_several_epochs():
    order = EndlessOrder(5, seed=0)
    long = order.take(3, 19)
    assert np.array_equal(long, np.concatenate([EndlessOrder(5, seed=0).take(i, 1) for i in range(3, 22)]))
    assert sorted(long[2:7]) == list(range(5))


def test_max_train_samples_is_a_fixed_spread_choice(saved):
    cells = [plain(i) for i in range(100)]
    args = saved(cells, num_channels=1, max_train_samples=20)
    data = opened(args)
    assert data.num_samples == 20
    assert data.pixels[:, 0, 0, 0].tolist() == data.rows.tolist()
    assert data.rows.max() > 60  # not the first ones of a sorted set
    args.max_train_samples = 100
    everything = opened(args)
    args.max_train_samples = None
    assert opened(args).fingerprint == everything.fingerprint


# ---------------------------------------------------------------- cache and fingerprint


def test_unrelated_flags_do_not_prepare_again_and_related_ones_do(saved, monkeypatch):
    columns = {"label": (ClassLabel(names=["a", "b"]), [0, 1]), "text": (Value("string"), ["s", "t"])}
    args = saved([plain(1), plain(2)], columns)
    calls = []
    real = images_module.decode
    monkeypatch.setattr(images_module, "decode", lambda *a: calls.append(1) or real(*a))
    opened(args)
    assert len(calls) == 2
    for name, value in {
        "class_column": "label",
        "caption_column": "text",
        "random_flip": True,
        "shuffle_buffer_size": 5,
        "max_corrupt_images": 0,
        "max_train_samples": 2,
    }.items():
        setattr(args, name, value)
        opened(args)
    assert len(calls) == 2
    for name, value in {"resolution": 4, "num_channels": 1, "center_crop": True}.items():
        calls.clear()
        setattr(args, name, value)
        opened(args)
        assert len(calls) == 2


def test_equal_content_has_an_equal_fingerprint_wherever_it_lies(tmp_path):
    cells = [plain(i) for i in range(5)]
    labels = (ClassLabel(names=["a", "b"]), [0, 1, 0, 1, 0])
    dataset_of(cells, label=labels).save_to_disk(str(tmp_path / "arrow"))
    (tmp_path / "parquet").mkdir()
    dataset_of(cells, label=labels).to_parquet(str(tmp_path / "parquet" / "train.parquet"))
    prints = []
    for i, folder in enumerate(("arrow", "parquet", "arrow")):
        args = DataArgs(dataset_name=str(tmp_path / folder), data_cache_dir=str(tmp_path / f"cache{i}"))
        prints.append(opened(args).fingerprint)
        args.class_column = "label"
        prints.append(opened(args).fingerprint)
    assert prints[0] == prints[2] == prints[4] != prints[1] == prints[3] == prints[5]
    cells[4] = plain(99)
    dataset_of(cells, label=labels).to_parquet(str(tmp_path / "parquet" / "train.parquet"))
    changed = DataArgs(dataset_name=str(tmp_path / "parquet"), data_cache_dir=str(tmp_path / "cache1"))
    assert opened(changed).fingerprint != prints[0]  # though a hash of the old file was remembered
    assert opened(changed).pixels[4].max() == 99


def cache_folder(root: Path) -> Path:
    return next(path for path in root.glob("images-*") if path.is_dir())


@pytest.mark.parametrize("damage", ["short", "bits", "meta", "no meta"])
def test_a_torn_cache_is_prepared_again(saved, damage, caplog):
    args = saved([plain(i) for i in range(9)])
    wanted = np.array(opened(args).pixels)
    folder = cache_folder(Path(str(args.data_cache_dir)))
    pixels = folder / "pixels.bin"
    if damage == "short":
        os.truncate(pixels, 100)
    elif damage == "bits":
        content = bytearray(pixels.read_bytes())
        content[500] ^= 1
        pixels.write_bytes(bytes(content))
    elif damage == "meta":
        (folder / "meta.json").write_text("{")
    else:
        (folder / "meta.json").unlink()
    assert np.array_equal(opened(args).pixels, wanted)
    assert "damaged" in caplog.text


def test_a_killed_writer_leaves_nothing_that_is_used(tmp_path):
    root = tmp_path / "cache"
    code = f"""
import os, signal, numpy as np
from pathlib import Path
from hf_genzoo.data.cache import cached_pixels
def rows():
    for i in range(10):
        if i == 7: os.kill(os.getpid(), signal.SIGKILL)
        yield np.full((1, 4, 4), 200, np.uint8)
Path({str(root)!r}).mkdir()
cached_pixels(Path({str(root)!r}), "k", shape=(1, 4, 4), num_rows=10, rows=rows, name="x")
"""
    assert subprocess.run([sys.executable, "-c", code], capture_output=True).returncode == -signal.SIGKILL
    assert [path.name for path in root.iterdir() if path.is_dir()] == ["images-k.partial"]
    good = lambda: iter([np.full((1, 4, 4), i, np.uint8) for i in range(10)])  # noqa: E731
    cache = cached_pixels(root, "k", shape=(1, 4, 4), num_rows=10, rows=good, name="x")
    assert cache.pixels[:, 0, 0, 0].tolist() == list(range(10))
    assert [path.name for path in root.iterdir() if path.is_dir()] == ["images-k"]


def test_two_processes_prepare_once(saved, tmp_path):
    args = saved([plain(i) for i in range(40)])
    code = f"""
import os, sys, time
from hf_genzoo.data import DataArgs, image_dataset
from hf_genzoo.data import images
real = images.decode
def slow(*a):
    with open({str(tmp_path / "calls")!r}, "a") as f: f.write("x")
    time.sleep(0.02)
    return real(*a)
images.decode = slow
open({str(tmp_path)!r} + "/ready" + sys.argv[1], "w").close()
while not os.path.exists({str(tmp_path / "go")!r}): time.sleep(0.005)
args = DataArgs(dataset_name={args.dataset_name!r}, resolution=8, data_cache_dir={args.data_cache_dir!r})
data = image_dataset(args)
print(data.fingerprint, int(data.pixels.sum()), data.num_samples)
"""
    processes = [
        subprocess.Popen([sys.executable, "-c", code, str(i)], stdout=subprocess.PIPE, text=True) for i in range(2)
    ]
    deadline = time.monotonic() + 120
    while not all((tmp_path / f"ready{i}").exists() for i in range(2)) and time.monotonic() < deadline:
        time.sleep(0.02)
    (tmp_path / "go").touch()
    outputs = {process.communicate(timeout=120)[0] for process in processes}
    assert [process.returncode for process in processes] == [0, 0]
    assert len(outputs) == 1
    assert outputs.pop().split()[1:] == [str(3 * 64 * sum(range(40))), "40"]
    assert (tmp_path / "calls").read_text() == "x" * 40


def test_a_full_disk_gives_a_clear_message_and_leaves_nothing(tmp_path):
    code = f"""
import resource, signal
from pathlib import Path
import numpy as np
from hf_genzoo.data.cache import cached_pixels
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
resource.setrlimit(resource.RLIMIT_FSIZE, (1 << 20, 1 << 20))
rows = lambda: (np.zeros((3, 64, 64), np.uint8) for _ in range(1000))
try:
    cached_pixels(Path({str(tmp_path)!r}), "k", shape=(3, 64, 64), num_rows=1000, rows=rows, name="x")
except OSError as error:
    print(error)
"""
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert "it takes 12 MB" in result.stdout, result.stderr
    assert "--data_cache_dir" in result.stdout
    assert [path for path in tmp_path.iterdir() if path.is_dir()] == []


def test_a_disk_that_is_too_full_is_noticed_before_work_starts(tmp_path, monkeypatch):
    usage = type("Usage", (), {"free": 10})
    monkeypatch.setattr(cache_module.shutil, "disk_usage", lambda path: usage)
    with pytest.raises(OSError, match="too full"):
        cached_pixels(tmp_path, "k", shape=(1, 4, 4), num_rows=1, rows=lambda: iter(()), name="x")


def test_an_unwritable_cache_folder_names_the_flag(tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(OSError, match="--data_cache_dir"):
        image_dataset(DataArgs(dataset_name="digits", data_cache_dir=str(tmp_path / "file" / "cache")))


def test_waiting_for_the_next_batch_costs_little(tmp_path):
    data = opened(DataArgs(dataset_name="digits", num_channels=1, data_cache_dir=str(tmp_path)), split="validation")
    batches = data.batches(batch_size=128, seed=0)
    next(batches)
    costs = []
    for _ in range(50):
        begin = time.thread_time()
        next(batches)
        costs.append(time.thread_time() - begin)
    logging.getLogger(__name__).info("median %.3f ms", 1e3 * float(np.median(costs)))
    assert np.median(costs) < 0.005  # about 0.2 ms on an idle core; the bound only catches per-picture work
