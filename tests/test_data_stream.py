"""Streamed pictures: exact resume inside the shuffling buffer and at ends of epochs, ranks, bounded state."""

import io
import json
import os
import signal
import subprocess
import sys
from collections import Counter

import numpy as np
import pytest
import torch
from datasets import ClassLabel, Dataset, Features, Image, IterableDataset, List, Value
from PIL import Image as PILImage

from hf_genzoo.data import DataArgs, image_dataset
from hf_genzoo.data import stream as stream_module
from hf_genzoo.data.stream import Layout, Shards, ShuffleBuffer

ROWS = 60


def plain(level: int) -> bytes:
    buffer = io.BytesIO()
    PILImage.fromarray(np.full((8, 8), level, np.uint8)).save(buffer, "PNG")
    return buffer.getvalue()


def write(folder, num_files: int, cells: list) -> None:
    """Parquet files whose pictures' grey levels are their numbers."""
    folder.mkdir()
    features = Features({"image": Image(), "label": ClassLabel(names=["even", "odd"]), "text": List(Value("string"))})
    for part, numbers in enumerate(np.array_split(np.arange(len(cells)), num_files)):
        columns = {
            "image": [None if cells[i] is None else {"bytes": cells[i], "path": None} for i in numbers],
            "label": [int(i % 2) for i in numbers],
            "text": [[f"number {i}", f"no. {i}"] for i in numbers],
        }
        Dataset.from_dict(columns, features=features).to_parquet(str(folder / f"train-{part}.parquet"))


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    path = tmp_path_factory.mktemp("stream") / "data"
    write(path, 4, [plain(i) for i in range(ROWS)])
    return path


def flags(folder, **options) -> DataArgs:
    return DataArgs(
        **{
            "dataset_name": str(folder),
            "resolution": 8,
            "num_channels": 1,
            "streaming": True,
            "shuffle_buffer_size": 10,
            "data_cache_dir": str(folder.parent / "cache"),
        }
        | options
    )


def levels(batch) -> list[int]:
    return ((batch["pixel_values"][:, 0, 0, 0] + 1) * 127.5).round().int().tolist()


def test_a_stream_gives_every_row_once_an_epoch_in_a_new_order(folder):
    data = image_dataset(flags(folder, class_column="label", caption_column="text"))
    assert data.num_samples is None
    assert data.class_names == ["even", "odd"]
    batches, seen = data.batches(batch_size=7, seed=1), []
    for _ in range(ROWS * 3 // 7 + 1):
        batch = next(batches)
        assert batch["pixel_values"].shape == (7, 1, 8, 8)
        assert batch["class_labels"].tolist() == [i % 2 for i in levels(batch)]
        assert all(c in (f"number {i}", f"no. {i}") for c, i in zip(batch["captions"], levels(batch), strict=True))
        seen += levels(batch)
    epochs = [tuple(seen[i : i + ROWS]) for i in (0, ROWS, 2 * ROWS)]
    assert all(sorted(epoch) == list(range(ROWS)) for epoch in epochs)
    assert len(set(epochs)) == 3
    other = image_dataset(flags(folder)).batches(batch_size=7, seed=2)
    assert levels(next(other)) != seen[:7]


@pytest.mark.parametrize("world_size", [1, 2, 3])  # 4 files: 2 ranks own files, 3 ranks share all of them
def test_a_stream_resumes_at_the_very_next_sample_everywhere(folder, world_size):
    data = image_dataset(flags(folder, random_flip=True, caption_column="text"))
    rank = world_size - 1

    def fresh():
        return data.batches(batch_size=3, seed=0, rank=rank, world_size=world_size)

    batches, states, wanted = fresh(), [], []
    for _ in range(2 * ROWS // 3 + 4):  # across the ends of two epochs of one rank, and more of several
        states.append(json.dumps(batches.state_dict()))
        wanted.append(next(batches))
    for start, state in enumerate(states):
        again = fresh()
        again.load_state_dict(json.loads(state))
        for batch in wanted[start : start + 2]:
            found = next(again)
            assert torch.equal(found["pixel_values"], batch["pixel_values"]), start
            assert found["captions"] == batch["captions"]
        assert json.loads(json.dumps(again.state_dict()))["count"] == 3 * (start + min(2, len(states) - start))


def test_a_state_saved_after_a_resume_is_as_good(folder):
    data = image_dataset(flags(folder))
    batches, wanted = data.batches(batch_size=4, seed=3), []
    for _ in range(40):
        wanted += levels(next(batches))
    seen, state = [], None
    for _ in range(40):  # killed after every batch
        again = data.batches(batch_size=4, seed=3)
        if state is not None:
            again.load_state_dict(state)
        seen += levels(next(again))
        state = json.loads(json.dumps(again.state_dict()))
    assert seen == wanted


def test_ranks_divide_each_epoch_among_them(folder):
    data = image_dataset(flags(folder))
    for world_size in (2, 3, 4):
        seen = Counter()
        for rank in range(world_size):
            batches = data.batches(batch_size=1, seed=4, rank=rank, world_size=world_size)
            seen.update(level for _ in range(ROWS // world_size) for level in levels(next(batches)))
        assert seen == Counter(range(ROWS))


def test_a_killed_process_resumes_at_the_same_sample(folder, tmp_path):
    code = f"""
import json, os, signal, sys
from hf_genzoo.data import DataArgs, image_dataset
args = DataArgs(**{vars(flags(folder))!r})
batches = image_dataset(args).batches(batch_size=5, seed=9)
for step in range(8):
    print(((next(batches)["pixel_values"][:, 0, 0, 0] + 1) * 127.5).round().int().tolist())
    with open({str(tmp_path / "state.json")!r}, "w") as file: json.dump(batches.state_dict(), file)
sys.stdout.flush()
os.kill(os.getpid(), signal.SIGKILL)
"""
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=os.environ.copy())
    assert result.returncode == -signal.SIGKILL, result.stderr
    first = [json.loads(line) for line in result.stdout.splitlines()]
    straight, resumed = (image_dataset(flags(folder)).batches(batch_size=5, seed=9) for _ in range(2))
    assert [levels(next(straight)) for _ in range(8)] == first
    resumed.load_state_dict(json.loads((tmp_path / "state.json").read_text()))
    assert [levels(next(resumed)) for _ in range(8)] == [levels(next(straight)) for _ in range(8)]


def test_the_state_of_another_order_is_refused(folder):
    state = image_dataset(flags(folder)).batches(batch_size=5, seed=9).state_dict()
    with pytest.raises(ValueError, match="world_size: saved 1, now 2"):
        image_dataset(flags(folder)).batches(batch_size=5, seed=9, world_size=2).load_state_dict(state)
    with pytest.raises(ValueError, match="shuffle_buffer_size: saved 10, now 11"):
        image_dataset(flags(folder, shuffle_buffer_size=11)).batches(batch_size=5, seed=9).load_state_dict(state)


def test_the_buffer_mixes_and_its_size_bounds_what_is_held_and_read_again():
    reads = []

    def rows(parts):
        for part in parts:
            for i in range(250_000):
                reads.append(None)
                yield {"n": part * 250_000 + i}

    stream = IterableDataset.from_generator(rows, gen_kwargs={"parts": [0, 1, 2, 3]})
    buffer = ShuffleBuffer(Shards(stream, None), 100, Layout(0, 0, 1))
    drawn = [buffer.draw()[2]["n"] for _ in range(20_000)]
    assert len(set(drawn)) == 20_000
    shift = np.array(drawn) % 250_000 - np.arange(20_000)
    assert 60 < np.abs(shift - np.median(shift)).mean() < 160  # each row waits for about 100 draws
    assert len(reads) <= 20_000 + 200  # a million rows are there, only those needed are read
    state = buffer.state_dict()
    assert len(json.dumps(state)) < 3000
    assert len(buffer._marks) <= 20
    again = ShuffleBuffer(Shards(stream, None), 100, Layout(0, 0, 1))
    again.load_state_dict(state)
    assert again._reader.read - state["mark"]["read"] < 100 * 15  # b ln b, not all 20,000 rows
    assert [again.draw()[2] for _ in range(50)] == [buffer.draw()[2] for _ in range(50)]


def test_resuming_does_not_decode_what_was_seen(folder, monkeypatch):
    data = image_dataset(flags(folder))
    batches = data.batches(batch_size=5, seed=0)
    for _ in range(9):
        next(batches)
    state, again, calls = batches.state_dict(), data.batches(batch_size=5, seed=0), []
    real = stream_module.decode
    monkeypatch.setattr(stream_module, "decode", lambda *a: calls.append(1) or real(*a))
    again.load_state_dict(state)
    next(again)
    assert len(calls) == 5


def test_corrupt_pictures_of_a_stream(tmp_path, caplog):
    cells = [plain(i) for i in range(20)]
    cells[3], cells[11] = b"broken", None
    write(tmp_path / "data", 2, cells)
    batches = image_dataset(flags(tmp_path / "data", max_corrupt_images=2)).batches(batch_size=6, seed=0)
    seen = [level for _ in range(9) for level in levels(next(batches))]
    assert all(sorted(seen[i : i + 18]) == sorted({*range(20)} - {3, 11}) for i in (0, 18, 36))
    assert caplog.text.count("skipped an unusable picture") == 2
    assert "UnidentifiedImageError" in caplog.text
    state, again = batches.state_dict(), image_dataset(flags(tmp_path / "data", max_corrupt_images=2))
    resumed = again.batches(batch_size=6, seed=0)
    resumed.load_state_dict(state)
    assert [levels(next(resumed)) for _ in range(5)] == [levels(next(batches)) for _ in range(5)]
    batches = image_dataset(flags(tmp_path / "data", max_corrupt_images=1)).batches(batch_size=6, seed=0)
    with pytest.raises(ValueError, match=r"2 pictures .* --max_corrupt_images"):
        [next(batches) for _ in range(9)]


def test_a_stream_without_usable_pictures_ends_with_an_error(tmp_path):
    write(tmp_path / "data", 1, [b"broken"] * 3)
    batches = image_dataset(flags(tmp_path / "data")).batches(batch_size=2, seed=0)
    with pytest.raises(ValueError, match="unusable"):
        next(batches)


def test_more_ranks_than_rows_is_an_error(tmp_path):
    write(tmp_path / "data", 1, [plain(0), plain(1)])
    batches = image_dataset(flags(tmp_path / "data")).batches(batch_size=1, seed=0, rank=2, world_size=3)
    with pytest.raises(ValueError, match="no row for rank 2 of 3"):
        next(batches)


def test_max_train_samples_of_a_stream_takes_the_first_rows(folder):
    batches = image_dataset(flags(folder, max_train_samples=25)).batches(batch_size=5, seed=0)
    for _ in range(2):
        assert sorted(level for _ in range(5) for level in levels(next(batches))) == list(range(25))


def test_streamed_and_prepared_pictures_are_the_same(tmp_path):
    args = DataArgs(dataset_name="digits", dataset_split="test", num_channels=1, data_cache_dir=str(tmp_path))
    prepared = image_dataset(args).batches(batch_size=500, seed=0)
    args.streaming = True
    streamed = image_dataset(args).batches(batch_size=500, seed=0)
    one, two = (sorted(x.numpy().tobytes() for x in next(b)["pixel_values"]) for b in (prepared, streamed))
    assert one == two


def test_the_fingerprint_of_a_stream_does_not_depend_on_the_place(folder, tmp_path):
    write(tmp_path / "copy", 4, [plain(i) for i in range(ROWS)])
    assert image_dataset(flags(folder)).fingerprint == image_dataset(flags(tmp_path / "copy")).fingerprint
    assert image_dataset(flags(folder)).fingerprint != image_dataset(flags(folder, caption_column="text")).fingerprint


def test_computed_sets_are_not_streamed(tmp_path):
    with pytest.raises(ValueError, match="nothing to stream"):
        image_dataset(DataArgs(dataset_name="sprites", streaming=True, data_cache_dir=str(tmp_path)))
