"""The demos without a browser: limits, messages, controls by task, and an app driven by gradio's own client."""

import functools
import gc
import json
import os
import sys
import threading
import time
import urllib.request
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from demo_models import CLASSES, tiny_ddpm, tiny_inpainting, tiny_sr3, tiny_stable_diffusion
from hub_toys import tiny_points
from PIL import Image

pytest.importorskip("gradio", reason="needs gradio for the demos")
pytest.importorskip("gradio_client", reason="needs gradio_client to drive the demos")
os.environ.setdefault("GRADIO_ANALYTICS_ENABLED", "False")

from gradio import Error
from gradio_client import Client, handle_file
from gradio_client.exceptions import AppError
from gradio_client.utils import Status

from hf_genzoo.cli import main as genzoo
from hf_genzoo.demo import guard, playground_server
from hf_genzoo.demo.app import build_app, start
from hf_genzoo.demo.box import LIMITS, box_mask
from hf_genzoo.demo.examples import Examples, load_examples
from hf_genzoo.demo.form import Form
from hf_genzoo.demo.panel import Stops
from hf_genzoo.demo.pictures import preview
from hf_genzoo.demo.runs import Result, Step, stream
from hf_genzoo.demo.samplers import own_pipeline, samplers_of
from hf_genzoo.demo.tasks import task_of
from hf_genzoo.pipelines.gan import WGANPipeline

MORE_MEMORY = 40e6  # bytes that twenty requests may leave behind: about what the allocator keeps for itself


class Watched:
    """A pipeline's `__call__` that waits for the gate and notes the seeds in the order in which it serves them."""

    def __init__(self, cls: type, monkeypatch: pytest.MonkeyPatch):
        self.seeds: list[int] = []
        self.gate = threading.Event()
        call = cls.__call__

        @functools.wraps(call)
        def watched(pipeline: Any, *args: Any, **kwargs: Any) -> Any:
            assert self.gate.wait(120)
            generator = kwargs["generator"]
            self.seeds.append((generator[0] if isinstance(generator, list) else generator).initial_seed())
            return call(pipeline, *args, **kwargs)

        monkeypatch.setattr(cls, "__call__", watched)


@pytest.fixture(scope="module")
def ddpm() -> Any:
    return tiny_ddpm()


@pytest.fixture(scope="module")
def app(ddpm: Any) -> Iterator[str]:
    built = build_app(ddpm, title="Tiny", about="Shapes.", defaults={"num_inference_steps": 7})
    yield start(built)
    built.close()


def client_of(url: str, folder: Path) -> Client:
    """A client with a folder of its own: by default it would write its copies over the files of the server."""
    return Client(url, verbose=False, download_files=folder / "client")


@pytest.fixture
def client(app: str, tmp_path: Path) -> Client:
    return client_of(app, tmp_path)


def shown(result: Any) -> str:
    """What the status says."""
    return result[0].partition(">")[2].partition("<")[0]


# Limits and messages


def test_uploads_are_looked_at_before_they_are_decoded(tmp_path: Path) -> None:
    text, cut, large = tmp_path / "a.png", tmp_path / "b.png", tmp_path / "c.png"
    text.write_text("no picture")
    Image.fromarray(np.random.default_rng(0).integers(0, 255, (64, 64, 3), dtype=np.uint8)).save(cut)
    cut.write_bytes(cut.read_bytes()[:2000])
    Image.new("1", (5000, 5000)).save(large)
    for path in (text, cut):
        with pytest.raises(ValueError, match="cannot be read as a picture"):
            guard.check_upload(path)
    with pytest.raises(ValueError, match="5000 x 5000"):
        guard.check_upload(large)
    with pytest.raises(ValueError, match="upload a picture"):
        guard.check_upload(None)
    turned = Image.new("RGB", (4, 2))
    turned.getexif()[274] = 6  # a telephone held upright
    turned.save(tmp_path / "d.jpg", exif=turned.getexif())
    assert guard.check_upload(tmp_path / "d.jpg").size == (2, 4)


def test_what_goes_wrong_is_told_without_traces_and_paths(caplog: pytest.LogCaptureFixture) -> None:
    @guard.friendly
    def fails(error: Exception) -> None:
        raise error

    @guard.friendly
    def fails_on_the_way(error: Exception) -> Iterator[int]:
        yield 1
        raise error

    with pytest.raises(Error) as told:
        fails(ValueError("no weights in /srv/models/secret/unet.bin: look there"))
    assert told.value.message == "no weights in unet.bin: look there"
    for function in (fails, lambda error: list(fails_on_the_way(error))):
        caplog.clear()
        with pytest.raises(Error) as told:
            function(RuntimeError("size mismatch in /srv/models"))
        assert told.value.message == guard.APOLOGY
        assert "size mismatch" in caplog.text


def test_examples_come_back_as_they_were(tmp_path: Path) -> None:
    images = np.random.default_rng(0).integers(0, 255, (3, 4, 5, 1), dtype=np.uint8)
    for examples in (Examples(images, np.array([2, 0, 5]), ("a", "b", "c")), Examples(images)):
        examples.save(tmp_path / "e.npz")
        back = load_examples(tmp_path / "e.npz")
        np.testing.assert_array_equal(back.images, images)
        assert [back.label_name(i) for i in range(3)] == [examples.label_name(i) for i in range(3)]
        assert back.picture(0).size == (5, 4)
    assert Examples(images, np.array([2, 0, 5]), ("a", "b", "c")).label_name(2) == "5"
    with pytest.raises(ValueError, match=r"\(3,\)"):
        Examples(images, np.array([1]))


# What a pipeline does, and the controls it gets


def test_controls_follow_the_signature() -> None:
    import gradio as gr

    expected = {
        "ddpm": (tiny_ddpm(), "sampling", {"count", "classes", "steps", "sampler", "guidance", "seed"}),
        "unconditional": (tiny_ddpm(classes=()), "sampling", {"count", "steps", "sampler", "seed"}),
        "points": (tiny_points(), "sampling", {"count", "seed"}),
        "text": (
            tiny_stable_diffusion(),
            "text to image",
            {"prompt", "negative_prompt", "count", "steps", "sampler", "guidance", "seed"},
        ),
        "image": (
            tiny_stable_diffusion(image=True),
            "image to image",
            {"image", "prompt", "negative_prompt", "steps", "sampler", "guidance", "strength", "seed"},
        ),
        "super-resolution": (tiny_sr3(), "image to image", {"image", "steps", "sampler", "seed"}),
        "inpainting": (
            tiny_inpainting(),
            "image to image",
            {"image", "prompt", "negative_prompt", "steps", "sampler", "guidance", "seed", *LIMITS},
        ),
    }
    for pipeline, kind, fields in expected.values():
        task = task_of(pipeline)
        with gr.Blocks():
            assert (task.kind, set(Form(pipeline, task, {}).add().fields)) == (kind, fields)
    assert task_of(tiny_points()).points
    assert task_of(tiny_ddpm()).classes == CLASSES


def test_a_pipeline_without_an_app_is_refused() -> None:
    class Odd(WGANPipeline):
        def __call__(self, video: Any) -> None: ...

    with pytest.raises(ValueError, match=r"no demo for a Odd: .*video"):
        task_of(Odd(**tiny_points().components))


def test_a_sampler_of_ones_own_leaves_the_shared_pipeline_alone(ddpm: Any) -> None:
    before = ddpm.scheduler
    assert list(samplers_of(ddpm)) == ["DDPM", "DDIM", "DPM-Solver++", "Euler"]
    own = own_pipeline(ddpm, samplers_of(ddpm)["Euler"])
    own(batch_size=1, num_inference_steps=3)
    assert ddpm.scheduler is before
    assert before.num_inference_steps is None  # nobody has set its time steps
    assert own.unet is ddpm.unet
    assert own.config["id2label"] == ddpm.config["id2label"]


def test_a_stream_gives_every_step_and_the_same_pictures_as_the_call(ddpm: Any) -> None:
    call = {"batch_size": 2, "num_inference_steps": 5, "output_type": "pt", "class_labels": [0, 1]}
    events = list(stream(own_pipeline(ddpm), call | {"generator": torch.manual_seed(1)}, threading.Event()))
    assert [(event.done, event.total) for event in events if isinstance(event, Step)] == [(i, 5) for i in range(1, 6)]
    assert isinstance(events[-1], Result)
    assert isinstance(events[0], Step)
    assert events[0].picture is not None
    torch.testing.assert_close(events[-1].images, ddpm(**call, generator=torch.manual_seed(1)).images)


def test_older_pipelines_are_watched_by_their_scheduler() -> None:
    from diffusers.pipelines.ddpm.pipeline_ddpm import DDPMPipeline

    tiny = tiny_ddpm(classes=())
    old = DDPMPipeline(tiny.unet, tiny.scheduler)
    events = list(stream(own_pipeline(old), {"num_inference_steps": 4}, threading.Event()))
    assert [event.done for event in events if isinstance(event, Step)] == [1, 2, 3, 4]


@pytest.mark.parametrize("how", ["stop", "close"])
def test_a_stopped_stream_computes_no_further(ddpm: Any, how: str) -> None:
    stop = threading.Event()
    events = stream(own_pipeline(ddpm), {"num_inference_steps": 200}, stop)
    next(events)
    if how == "stop":
        stop.set()
        rest = list(events)
        assert isinstance(rest[-1], Result)
        assert rest[-1].images is None
        assert len(rest) < 150
    else:
        events.close()
    nothing_runs()


def test_latents_are_decoded_for_the_preview() -> None:
    pipeline = tiny_stable_diffusion()
    picture = preview(pipeline, torch.randn(1, 4, 16, 16))
    assert picture is not None
    assert picture.size == (512 + 2 * 2, 512 + 2 * 2)  # 32 x 32 pixels enlarged, in the frame of a grid
    assert preview(pipeline, torch.randn(1, 7, 16, 16)) is None  # not this autoencoder's latents
    assert preview(pipeline, torch.randn(5, 2)) is None


def test_a_request_can_be_stopped_while_it_waits() -> None:
    stops = Stops()
    assert not stops.stop("somebody")
    stops.ask("somebody")
    assert stops.stop("somebody")
    event = stops.begin("somebody")
    assert event.is_set()
    stops.ask("somebody")  # after a stop: something new
    assert not stops.begin("somebody").is_set()
    running = stops.begin("somebody")
    stops.ask("somebody")  # a second click while it runs
    stops.stop("somebody")
    assert running.is_set()
    stops.end("somebody", running)
    event = stops.begin("somebody")
    stops.end("somebody", event)
    assert not stops.begin("somebody").is_set()


# An app as a program sees it


def test_samples_by_class_and_seed(client: Client) -> None:
    asked = {"count": 3, "classes": ["star", "circle"], "steps": 4, "sampler": "DDIM"}
    first, again, other = (client.predict(**asked, seed=s, api_name="/sample") for s in (5, 5, 6))
    assert shown(first) == "Done."
    assert [picture["caption"] for picture in first[2]] == ["star", "circle", "star"]
    pixels = [[np.asarray(Image.open(p["image"])) for p in result[2]] for result in (first, again, other)]
    np.testing.assert_array_equal(pixels[0], pixels[1])
    assert not np.array_equal(pixels[0], pixels[2])
    with zipfile.ZipFile(first[4]) as files:
        assert sorted(files.namelist()) == ["000.png", "001.png", "002.png", "settings.json"]
        assert json.loads(files.read("settings.json"))["seed"] == 5
        np.testing.assert_array_equal(np.asarray(Image.open(files.open("000.png"))), pixels[0][0])


def test_the_model_begins_with_the_settings_it_was_made_for(client: Client) -> None:
    job = client.submit(count=1, api_name="/sample")
    job.result()
    assert any("Step 1 of 7" in output[0] for output in job.outputs())


@pytest.mark.parametrize(
    ("asked", "told"),
    [
        ({"seed": -1}, "The seed must lie between 0 and"),
        ({"count": 2.5}, "whole number"),
        ({"count": 1000}, "1000"),
        ({"steps": 0}, "minimum"),
        ({"classes": ["heptagon"]}, "heptagon"),
        ({"guidance": 99}, "99"),
    ],
)
def test_bad_input_is_told(client: Client, asked: dict[str, Any], told: str) -> None:
    with pytest.raises(AppError, match=told):
        client.predict(**asked, api_name="/sample")


def test_a_fault_is_an_apology(client: Client, monkeypatch: pytest.MonkeyPatch) -> None:
    from hf_genzoo.pipelines.ddpm import DenoisingDiffusionPipeline

    def breaks(*_: Any) -> None:
        raise RuntimeError("out of memory at /srv/secret")

    monkeypatch.setattr(DenoisingDiffusionPipeline, "_predict", breaks)
    with pytest.raises(AppError) as told:
        client.predict(api_name="/sample")
    assert guard.APOLOGY in str(told.value)
    assert "secret" not in str(told.value)


def test_a_cancelled_request_makes_room(client: Client) -> None:
    started = time.monotonic()
    job = client.submit(count=36, steps=250, api_name="/sample")
    while not any("Step" in output[0] for output in job.outputs()):
        assert time.monotonic() - started < 60
        time.sleep(0.05)
    job.cancel()
    cancelled = time.monotonic()
    client.predict(count=1, steps=1, api_name="/sample")
    assert time.monotonic() - cancelled < 5  # the 250 steps of 36 pictures take longer
    nothing_runs()


def test_twenty_at_once_are_served_in_order_and_leave_nothing_behind(
    client: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    psutil = pytest.importorskip("psutil", reason="needs psutil to watch the memory")
    from hf_genzoo.pipelines.ddpm import DenoisingDiffusionPipeline

    watched = Watched(DenoisingDiffusionPipeline, monkeypatch)

    def twenty(first: int) -> None:
        watched.gate.clear()
        jobs = []
        for seed in range(first, first + 20):
            jobs.append(client.submit(count=1, steps=1, seed=seed, api_name="/sample"))
            while jobs[-1].status().code in (Status.STARTING, Status.JOINING_QUEUE):  # it is sent from a thread
                time.sleep(0.01)
        watched.gate.set()
        assert [shown(job.result(timeout=120)) for job in jobs] == ["Done."] * 20

    twenty(100)
    gc.collect()
    memory = psutil.Process().memory_info().rss
    twenty(200)
    gc.collect()
    assert watched.seeds == [*range(100, 120), *range(200, 220)]
    assert psutil.Process().memory_info().rss - memory < MORE_MEMORY


def test_a_full_queue_says_so(ddpm: Any, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr("hf_genzoo.demo.app.MAX_QUEUE", 1)
    built = build_app(ddpm, title="Tiny")
    client = client_of(start(built), tmp_path)
    jobs = [client.submit(count=1, steps=30, api_name="/sample") for _ in range(5)]
    failed = [str(error) for error in (job.exception() for job in jobs) if error is not None]
    built.close()
    assert failed
    assert all("Queue is full" in message for message in failed)


def test_a_box_is_painted_and_the_rest_is_kept(tmp_path: Path) -> None:
    pixels = np.random.default_rng(0).integers(0, 255, (16, 16, 3), dtype=np.uint8)
    picture = tmp_path / "photo.png"
    Image.fromarray(pixels).save(picture)
    built = build_app(tiny_inpainting(), title="Box")
    client = client_of(start(built), tmp_path)
    box = {"left": 50, "top": 0, "width": 25, "height": 100}
    result = client.predict(image=handle_file(picture), prompt="a star", steps=2, **box, api_name="/change")
    before, after = (np.asarray(Image.open(path)) for path in result[2])
    inside = np.zeros((16, 16), bool)
    inside[:, 8:12] = True
    assert (before[inside] == 127).all()
    np.testing.assert_array_equal(after[~inside], pixels[~inside])
    assert (after[inside] != pixels[inside]).any()
    built.close()


def test_a_box_is_cut_at_the_edge_and_never_empty() -> None:
    whole = {"left": 0, "top": 0, "width": 100, "height": 100}
    assert np.asarray(box_mask((7, 5), whole)).min() == 255
    corner = np.asarray(box_mask((10, 20), {"left": 99, "top": 50, "width": 100, "height": 1})) > 0
    assert corner.shape == (20, 10)
    assert np.argwhere(corner).tolist() == [[10, 9]]
    with pytest.raises(ValueError, match="Width must lie between 1 and 100; it is 0"):
        box_mask((7, 5), {**whole, "width": 0})


def test_image_to_image_and_text_to_image(tmp_path: Path) -> None:
    picture = tmp_path / "photo.png"
    Image.fromarray(np.random.default_rng(0).integers(0, 255, (50, 70, 3), dtype=np.uint8)).save(picture)
    note = tmp_path / "note.png"
    note.write_text("not a picture")

    built = build_app(tiny_stable_diffusion(image=True), title="Image")
    client = client_of(start(built), tmp_path)
    result = client.predict(image=handle_file(picture), prompt="a star", steps=4, strength=0.5, api_name="/change")
    before, after = (Image.open(path) for path in result[2])
    assert before.size == after.size == (32, 22)  # shrunk to the model's size, in multiples of its halvings
    for bad, told in ((handle_file(note), "cannot be read"), (None, "upload a picture")):
        with pytest.raises(AppError, match=told):
            client.predict(image=bad, prompt="a star", steps=4, api_name="/change")
    built.close()

    examples = Examples(np.zeros((2, 16, 16, 3), np.uint8))
    built = build_app(tiny_sr3(), title="Larger", examples=examples)
    client = client_of(start(built), tmp_path)
    result = client.predict(image=handle_file(picture), steps=2, api_name="/change")
    before, after = (Image.open(path) for path in result[2])
    assert before.size == after.size == (64, 44)  # 70 x 50 pixels shrunk to 16 x 11, four times larger
    built.close()

    built = build_app(tiny_stable_diffusion(), title="Text")
    client = client_of(start(built), tmp_path)
    job = client.submit(prompt="a star", negative_prompt="noise", count=2, steps=3, api_name="/sample")
    assert len(job.result()[2]) == 2
    assert any("Step 3 of 3" in output[0] for output in job.outputs())
    with pytest.raises(AppError, match="write a prompt"):
        client.predict(prompt=" ", api_name="/sample")
    built.close()


# From a folder, and the playground


@pytest.fixture(scope="module")
def folder(ddpm: Any, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An exported folder whose record says that it was trained on the digits."""
    from hf_genzoo.hub import export

    where = tmp_path_factory.mktemp("exported") / "tiny"
    export(ddpm, where, family="ddpm")
    args = {"dataset_name": "digits", "resolution": 16, "num_channels": 1, "ddpm_num_inference_steps": 9}
    record = {"family": "ddpm", "args": args}
    (where / "training.json").write_text(json.dumps(record), encoding="utf-8")
    return where


def test_a_folder_opens_with_what_it_says_about_itself(folder: Path, tmp_path: Path) -> None:
    from hf_genzoo.demo.launcher import demo, examples_of

    examples = examples_of(folder)
    assert examples is not None
    assert examples.images.shape == (500, 16, 16, 1)
    assert examples.labels is not None
    assert len(set(examples.labels[:50])) > 5  # the stored digits are sorted by class
    client = client_of(demo(folder, open_browser=False), tmp_path)
    job = client.submit(count=1, classes=["star"], api_name="/sample")
    assert job.result()[2][0]["caption"] == "star"
    assert any("Step 1 of 9" in output[0] for output in job.outputs())
    page = json.dumps(client.config)
    assert "Denoising diffusion probabilistic model" in page
    assert str(folder) not in page


def test_missing_gradio_is_told(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from hf_genzoo.demo.launcher import demo

    monkeypatch.setitem(sys.modules, "gradio", None)
    with pytest.raises(ValueError, match=r'pip install "hf_genzoo\[demo\]"'):
        demo(folder)


def test_the_playground_is_handed_out() -> None:
    server, url = playground_server.serve()
    try:
        with urllib.request.urlopen(url, timeout=10) as answer:
            page = answer.read().decode()
        for name in ("gan2d.js", "page.js"):
            assert name in page
            with urllib.request.urlopen(url + name, timeout=10) as answer:
                assert answer.status == 200
    finally:
        server.shutdown()
        server.server_close()


def test_the_command_refuses_what_does_not_fit(capsys: pytest.CaptureFixture, tmp_path: Path) -> None:
    assert genzoo(["demo", "gan2d", "--share", "--no_browser"]) == 1
    assert "--share" in capsys.readouterr().err
    assert genzoo(["demo", str(tmp_path), "--no_browser"]) == 1
    assert "model_index.json" in capsys.readouterr().err


def nothing_runs() -> None:
    """Wait until the step that was under way is done, and no other follows it."""
    deadline = time.monotonic() + 10
    while any(thread.name == "sampling" for thread in threading.enumerate()):
        assert time.monotonic() < deadline
        time.sleep(0.05)
