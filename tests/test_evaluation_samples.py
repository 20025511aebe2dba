"""Samples of pipelines and folders: the same whatever the batches, counted, kept, and refused where they are bad."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from diffusers import (
    AutoencoderKL,
    DDIMPipeline,
    DDIMScheduler,
    DDPMPipeline,
    DDPMScheduler,
    DiffusionPipeline,
    UNet2DModel,
)
from hub_toys import tiny_ddpm, tiny_points, tiny_vae
from PIL import Image

from hf_genzoo.data import DataArgs
from hf_genzoo.evaluation import sample_store
from hf_genzoo.evaluation.counting import count_evaluations
from hf_genzoo.evaluation.reference import load_reference
from hf_genzoo.evaluation.sample_store import Store, time_in_turn
from hf_genzoo.evaluation.sources import (
    Conditions,
    PictureFolder,
    PipelineSource,
    SampleError,
    Sampling,
    scheduler_class,
)
from hf_genzoo.evaluation.subject import conditions_of, default_shape, open_subject, recorded_data_flags


def source(pipeline: DiffusionPipeline, conditions: Conditions | None = None, **sampling: Any) -> PipelineSource:
    return PipelineSource(pipeline, "toy", "hash", Sampling(**sampling), conditions or Conditions())


def differs(a: np.ndarray, b: np.ndarray) -> float:
    """Share of pixels that differ, after checking that none does by more than rounding."""
    apart = np.abs(a.astype(int) - b.astype(int))
    assert apart.max() <= 1
    return float((apart > 0).mean())


# Counting


def test_guidance_doubles_what_is_counted() -> None:
    pipeline = tiny_ddpm(num_classes=4)
    pipeline.set_progress_bar_config(disable=True)
    for scale, rows in ((1.0, 3 * 5), (2.0, 2 * 3 * 5)):
        with count_evaluations(pipeline.components) as counted:
            pipeline(batch_size=5, num_inference_steps=3, guidance_scale=scale, class_labels=1)
        assert counted.rows == {"unet": rows}


def test_a_decoder_that_is_called_by_name_is_counted_and_left_as_it_was() -> None:
    pipeline = tiny_vae()
    with count_evaluations(pipeline.components) as counted:
        pipeline(batch_size=7)
    assert counted.rows == {"vae": 7}
    assert "decode" not in vars(pipeline.vae)


def test_calls_inside_a_network_are_its_own() -> None:
    """AutoencoderKL's forward calls encode and decode: one evaluation."""
    net = AutoencoderKL(block_out_channels=(4,), norm_num_groups=2, latent_channels=2)
    with count_evaluations({"vae": net, "scheduler": object()}) as counted:
        net(torch.zeros(3, 3, 8, 8))
    assert counted.rows == {"vae": 3}


# Drawing


@pytest.mark.parametrize("make", [tiny_vae, tiny_ddpm, tiny_points])
def test_samples_do_not_depend_on_batches_or_on_the_others(make: Any, tmp_path: Path) -> None:
    steps = {"num_inference_steps": 3} if make is tiny_ddpm else {}
    one, other = source(make(), **steps), source(make(), **steps)
    whole = one.draw(np.arange(24))
    parts = np.concatenate([other.draw(part) for part in (np.arange(5), np.arange(5, 6), np.arange(6, 24))])
    if whole.ndim == 4:
        assert differs(whole, parts) < 1e-3
        assert whole.dtype == np.uint8
        assert whole.shape[2:] == (8, 8)
    else:
        np.testing.assert_allclose(whole, parts, atol=1e-6)
    assert one.key == other.key
    reseeded = source(make(), seed=1, **steps)
    assert reseeded.key != one.key
    assert not np.array_equal(reseeded.draw(np.arange(24)), whole)


def test_stock_pipelines_are_drawn_from_with_another_scheduler() -> None:
    net = tiny_ddpm().unet
    stock = DDPMPipeline(net, DDPMScheduler())
    for pipeline in (stock, DDIMPipeline(net, DDIMScheduler())):
        for name in ("DDIM", "DPMSolverMultistep", "HeunDiscreteScheduler"):
            drawn = source(pipeline, scheduler=name, num_inference_steps=2)
            assert drawn.draw(np.arange(3)).shape == (3, 1, 8, 8)
            assert drawn.settings["scheduler"] == name.removesuffix("Scheduler") + "Scheduler"
            assert drawn.settings["num_inference_steps"] == 2


def test_classes_are_as_frequent_as_in_training_and_a_property_of_the_sample() -> None:
    labels = np.repeat([0, 3], [900, 100])
    drawn = source(tiny_ddpm(num_classes=4), Conditions(labels=labels))
    asked = drawn.labels(np.arange(1000))
    assert set(asked) == {0, 3}
    assert 60 < (asked == 3).sum() < 140
    np.testing.assert_array_equal(asked[500:510], drawn.labels(np.arange(500, 510)))
    assert source(tiny_ddpm()).labels(np.arange(3)) is None  # an unconditional network is not asked


def test_classes_are_matched_by_name() -> None:
    reference = load_reference(DataArgs(dataset_name="digits", class_column="label", num_channels=1, resolution=8))
    named = tiny_ddpm(num_classes=10)
    named.register_to_config(id2label={str(9 - i): str(i) for i in range(10)})
    labels = conditions_of(named, reference).labels
    np.testing.assert_array_equal(labels, 9 - reference.train.labels)
    with pytest.raises(ValueError, match="choose another --class_column"):
        conditions_of(tiny_ddpm(num_classes=4), reference)


def test_what_cannot_be_measured_is_named() -> None:
    spoilt = tiny_vae()
    with torch.no_grad():
        next(spoilt.vae.decoder.parameters()).fill_(float("nan"))
    with pytest.raises(SampleError, match="4 of 4 samples of toy hold NaN"):
        source(spoilt).draw(np.arange(4))
    with pytest.raises(SampleError, match="has no guidance_scale"):
        source(tiny_vae(), guidance_scale=2.0)
    with pytest.raises(SampleError, match="no scheduler to replace"):
        source(tiny_vae(), scheduler="DDIM")
    with pytest.raises(ValueError, match="diffusers has no scheduler 'Euclid'"):
        scheduler_class("Euclid")


def test_a_pipeline_that_needs_a_prompt_says_which_flag_gives_it() -> None:
    class Painter(DiffusionPipeline):
        def __init__(self, unet: UNet2DModel) -> None:
            super().__init__()
            self.register_modules(unet=unet)

        def __call__(self, prompt: list[str], generator: Any = None) -> tuple:
            return (np.zeros((len(prompt), 8, 8, 3)) + len(prompt[0]) / 255,)

    painter = Painter(tiny_ddpm().unet)
    with pytest.raises(SampleError, match="needs prompt to draw samples: --caption_column"):
        source(painter)
    asked = source(painter, Conditions(captions=["four"]))
    assert asked.draw(np.arange(2)).tolist() == np.full((2, 3, 8, 8), 4).tolist()


# Folders of pictures


def test_a_folder_of_pictures_is_read_in_order(tmp_path: Path) -> None:
    for index in range(3):
        Image.new("L", (8, 8), 10 * index).save(tmp_path / f"{index:02d}.png")
    folder = PictureFolder(tmp_path)
    assert folder.limit == 3
    assert folder.draw(np.array([2, 0]))[:, 0, 0, 0].tolist() == [20, 0]
    assert default_shape(tmp_path) == {"num_channels": 1, "resolution": 8}
    Image.new("RGB", (8, 8), (1, 2, 3)).save(tmp_path / "03.png")
    assert PictureFolder(tmp_path).draw(np.arange(4)).shape == (4, 3, 8, 8)
    Image.new("RGB", (9, 8)).save(tmp_path / "04.png")
    with pytest.raises(SampleError, match="differ in size"):
        PictureFolder(tmp_path).draw(np.arange(5))
    (tmp_path / "05.png").write_bytes(b"no picture")
    with pytest.raises(SampleError, match=r"05\.png cannot be read"):
        PictureFolder(tmp_path).draw(np.array([5]))


def test_an_empty_folder_is_named(tmp_path: Path) -> None:
    reference = load_reference(DataArgs(dataset_name="digits", num_channels=1, resolution=8))
    with pytest.raises(SampleError, match=r"neither a pipeline .* nor pictures"):
        open_subject(tmp_path).source(Sampling(), reference)


# The store


def test_a_killed_draw_goes_on_where_it_stopped(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sample_store, "CHUNK", 10)
    drawn: list[int] = []

    class Dying(PipelineSource):
        alive = 25

        def draw(self, numbers: np.ndarray) -> np.ndarray:
            if len(drawn) + len(numbers) > self.alive:
                raise KeyboardInterrupt
            drawn.extend(numbers.tolist())
            return super().draw(numbers)

    dying = Dying(tiny_vae(), "toy", "hash", Sampling(), Conditions())
    with pytest.raises(KeyboardInterrupt):
        Store(tmp_path, dying, batch_size=5).draw(40)
    assert max(drawn) == 24
    drawn.clear()
    dying.alive = 1000
    found = Store(tmp_path, dying, batch_size=5).draw(40)
    assert drawn == list(range(20, 40))  # the third chunk was not complete
    assert differs(found.values, source(tiny_vae()).draw(np.arange(40))) < 1e-3
    drawn.clear()
    assert len(Store(tmp_path, dying).draw(35).values) == 35
    assert drawn == []
    assert found.speed.evaluations == {"vae": 1.0}
    assert found.speed.network_evaluations == 1.0


def test_a_damaged_chunk_is_drawn_again(tmp_path: Path) -> None:
    store = Store(tmp_path, source(tiny_vae()))
    first = store.draw(12).values
    (path,) = (tmp_path / "samples").rglob("*.npz")
    path.write_bytes(path.read_bytes()[:200])
    np.testing.assert_array_equal(Store(tmp_path, source(tiny_vae())).draw(12).values, first)


def test_processes_share_the_chunks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sample_store, "CHUNK", 4)
    alone = Store(tmp_path / "alone", source(tiny_vae())).draw(18).values
    with pytest.raises(SampleError, match="left chunks"):  # rank 1 is not there
        Store(tmp_path / "both", source(tiny_vae()), rank=0, world_size=2).draw(18)
    assert len(list((tmp_path / "both").rglob("*.npz"))) == 3
    both = Store(tmp_path / "both", source(tiny_vae()), rank=1, world_size=2).draw(18).values
    np.testing.assert_array_equal(both, alone)


def test_more_pictures_than_a_folder_holds(tmp_path: Path) -> None:
    Image.new("L", (8, 8)).save(tmp_path / "one.png")
    with pytest.raises(SampleError, match="holds 1 pictures, 2 are asked for"):
        Store(tmp_path / "cache", PictureFolder(tmp_path)).draw(2)
    with pytest.raises(ValueError, match="--batch_size must be at least 1"):
        Store(tmp_path / "cache", PictureFolder(tmp_path), batch_size=0)


def test_the_interval_of_a_median_holds_it() -> None:
    held = 0
    for seed in range(200):
        times = np.sort(np.random.default_rng(seed).exponential(size=25))
        low, high = sample_store._median_interval(times)
        held += low <= np.log(2) <= high
    assert held / 200 > 0.92
    assert sample_store._median_interval(np.arange(5.0)) is None


def test_pipelines_are_timed_in_turn() -> None:
    class Slow(PipelineSource):
        def draw(self, numbers: np.ndarray) -> np.ndarray:
            import time

            time.sleep(0.02)
            return super().draw(numbers)

    slow = Slow(tiny_vae(), "slow", "hash", Sampling(), Conditions())
    found = time_in_turn({"fast": source(tiny_vae()), "slow": slow}, batch_size=4, rounds=3)
    assert len(found["slow"][0]) == 3
    assert min(found["slow"][0]) >= 5.0  # 20 ms of 4 samples
    assert found["fast"][1] == found["slow"][1] == 1.0


# What is known of a model


def test_the_shape_of_pictures_is_read_from_the_settings(tmp_path: Path) -> None:
    tiny_ddpm().save_pretrained(tmp_path / "ddpm")
    assert default_shape(tmp_path / "ddpm") == {"num_channels": 1, "resolution": 8}


def test_recorded_flags_are_the_data_s() -> None:
    training = {"args": {"dataset_name": "digits", "resolution": 8, "learning_rate": 1.0, "streaming": True}}
    assert recorded_data_flags(training) == {"dataset_name": "digits", "resolution": 8}
    assert recorded_data_flags(None) == {}
