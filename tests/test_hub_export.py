"""Exported folders: what is in them, that nothing tears them, and how they load inside one process."""

import json
import logging
import os
import shutil
import subprocess
import sys
import warnings
from pathlib import Path

import diffusers
import numpy as np
import pytest
import torch
from diffusers import DDIMPipeline, DDPMPipeline, DDPMScheduler, DiffusionPipeline
from hub_toys import draw, other_code, tiny_ddpm, tiny_points, tiny_vae, tree

from hf_genzoo.hub import PublishedFileError, check_published_file, export, load
from hf_genzoo.hub.check_folder import check_folder
from hf_genzoo.hub.code_files import code_file
from hf_genzoo.hub.inline import inlined
from hf_genzoo.hub.layout import STAGING, LayoutError, belonging_files, content_hash, read_index


@pytest.fixture
def remote_code(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> None:
    """Way 1 in this process, with a folder of its own for the code that diffusers copies."""
    folder = str(tmp_path_factory.mktemp("modules"))
    monkeypatch.setattr("diffusers.utils.dynamic_modules_utils.HF_MODULES_CACHE", folder)


def by_trust(folder: Path) -> DiffusionPipeline:
    return DiffusionPipeline.from_pretrained(folder, trust_remote_code=True)


# What is written


def test_unconditional_ddpm_is_stock_diffusers(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    folder = export(tiny_ddpm(), tmp_path / "ddpm")
    assert not list(folder.rglob("*.py"))
    index = read_index(folder)
    assert index.pipeline == (None, "DDIMPipeline")
    assert index.components["scheduler"] == ("diffusers", "DDPMScheduler")
    loggers = [logging.getLogger(name) for name in ("diffusers", "diffusers.configuration_utils")]
    for logger in loggers:
        logger.propagate = True
    with caplog.at_level(logging.WARNING), warnings.catch_warnings():
        warnings.simplefilter("error")
        pipelines = [cls.from_pretrained(folder) for cls in (DDPMPipeline, DDIMPipeline, DiffusionPipeline)]
    assert [type(pipeline) for pipeline in pipelines] == [DDPMPipeline, DDIMPipeline, DDIMPipeline]
    assert type(pipelines[0].scheduler) is DDPMScheduler
    assert not [record.getMessage() for record in caplog.records]
    assert pipelines[1].scheduler.config.beta_schedule == "squaredcos_cap_v2"
    assert type(load(folder)) is DDIMPipeline
    np.testing.assert_array_equal(draw(load(folder), num_inference_steps=3), draw(pipelines[1], num_inference_steps=3))


def test_a_ddim_scheduler_is_saved_as_the_chain_it_came_from(tmp_path: Path) -> None:
    source = tiny_ddpm()
    folder = export(DDIMPipeline(source.unet, source.scheduler), tmp_path / "ddpm")
    scheduler = DDPMPipeline.from_pretrained(folder).scheduler
    assert type(scheduler) is DDPMScheduler
    assert scheduler.config.num_train_timesteps == 60
    assert scheduler.config.beta_schedule == "squaredcos_cap_v2"


def test_conditional_ddpm_publishes_its_pipeline_only(tmp_path: Path) -> None:
    folder = export(tiny_ddpm(num_classes=4), tmp_path / "ddpm")
    (code,) = folder.rglob("*.py")
    assert code.name == f"pipeline_ddpm_{content_hash(code.read_text(encoding='utf-8'))}.py"
    assert read_index(folder).components["unet"] == ("diffusers", "UNet2DModel")
    assert type(load(folder)).__name__ == "DenoisingDiffusionPipeline"


def test_code_is_published_with_its_parts_under_unique_names(tmp_path: Path) -> None:
    from hf_genzoo.models import vae as networks
    from hf_genzoo.pipelines import vae as pipelines

    with warnings.catch_warnings():
        warnings.simplefilter("error")
        folder = export(tiny_vae(), tmp_path / "vae")
    (pipeline_file,) = folder.glob("*.py")
    (network_file,) = folder.glob("vae/*.py")
    assert network_file.read_bytes() == Path(networks.__file__ or "").read_bytes()
    assert pipeline_file.read_text(encoding="utf-8").startswith(inlined(Path(pipelines.__file__ or "").read_text()))
    assert pipeline_file.read_bytes().endswith(b"\n\ntake_code_along(VAEPipeline)\n")
    for path in (pipeline_file, network_file):
        assert path.stem.endswith(content_hash(path.read_text(encoding="utf-8")))
    index = read_index(folder)
    assert index.pipeline == (pipeline_file.stem, "VAEPipeline")
    assert index.components == {"vae": (network_file.stem, "ConvVAE")}
    assert (folder / "vae" / "diffusion_pytorch_model.safetensors").is_file()
    assert check_folder(folder) == []


def test_exporting_twice_changes_nothing_and_leaves_other_things_alone(tmp_path: Path) -> None:
    folder = export(tiny_vae(), tmp_path / "vae")
    for name in ("checkpoint-4/optimizer.bin", "logs/events", "samples/0000004.png", "mine.txt"):
        (folder / name).parent.mkdir(exist_ok=True)
        (folder / name).write_text("kept", encoding="utf-8")
    before = tree(folder)
    export(load(folder), folder)
    assert tree(folder) == before
    published = {path.as_posix() for path in belonging_files(folder, read_index(folder))}
    assert published == {"README.md", "model_index.json"} | {
        name for name in before if name.startswith(("vae/", "pipe"))
    }


def test_files_of_an_earlier_export_go(tmp_path: Path) -> None:
    folder = export(tiny_points(), tmp_path / "model")
    (folder / "samples").mkdir()
    export(tiny_vae(), folder)
    assert not (folder / "net_g").exists()
    assert (folder / "samples").is_dir()
    clean = tree(export(tiny_vae(), tmp_path / "clean"))
    assert set(tree(folder)) == set(clean)


def test_no_local_path_is_written(tmp_path: Path) -> None:
    first = export(tiny_vae(), tmp_path / "private_name")
    second = export(load(first), tmp_path / "second")
    assert not [name for name, data in tree(second).items() if b"private_name" in data]


def test_family_must_be_known(tmp_path: Path) -> None:
    class Unknown(DiffusionPipeline):
        pass

    with pytest.raises(ValueError, match=r"cannot tell the family of a Unknown; pass family=.*vae"):
        export(Unknown(), tmp_path / "x")
    with pytest.raises(ValueError, match="unknown family 'vqvae'"):
        export(tiny_vae(), tmp_path / "x", family="vqvae")
    assert not (tmp_path / "x").exists()


# Interruptions


def fail_at(monkeypatch: pytest.MonkeyPatch, number: int) -> None:
    """Let the number-th move of the next export fail like a full disk."""
    real, calls = os.replace, iter(range(10_000))

    def replace(source: Path, target: Path) -> None:
        if STAGING in str(source) and next(calls) == number:
            raise OSError(28, "No space left on device")
        real(source, target)

    monkeypatch.setattr("hf_genzoo.hub.exporter.os.replace", replace)


@pytest.mark.parametrize("number", range(6))
def test_a_torn_export_still_loads_and_the_next_one_repairs_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: int
) -> None:
    old, new = tiny_vae(seed=1), tiny_vae(seed=2)
    clean = tree(export(new, tmp_path / "vae"))
    shutil.rmtree(tmp_path / "vae")
    folder = export(old, tmp_path / "vae")
    other_code(folder, ("class VAEPipeline", "# an older version\nclass VAEPipeline"))
    with monkeypatch.context() as patch:
        fail_at(patch, number)
        if number < len(clean):
            with pytest.raises(OSError, match="No space left"):
                export(new, folder)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        seen = draw(load(folder))
    assert any(np.array_equal(seen, draw(pipeline)) for pipeline in (old, new))
    export(new, folder)
    assert tree(folder) == clean


@pytest.mark.parametrize("number", range(4))
def test_a_torn_change_of_family_is_repaired(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: int) -> None:
    folder = export(tiny_points(), tmp_path / "model")
    with monkeypatch.context() as patch:
        fail_at(patch, number)
        with pytest.raises(OSError, match="No space left"):
            export(tiny_vae(), folder)
    points = tiny_points(seed=3)
    export(points, folder)
    assert set(tree(folder)) == set(tree(export(points, tmp_path / "clean")))
    np.testing.assert_array_equal(draw(load(folder)), draw(points))


def test_a_failure_while_writing_changes_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = export(tiny_vae(), tmp_path / "vae")
    before = tree(folder)
    monkeypatch.setattr("hf_genzoo.hub.exporter.render_card", lambda *a, **k: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        export(tiny_vae(seed=5), folder)
    assert tree(folder) == before


# Loading


def test_load_gives_installed_classes_without_running_the_folders_code(tmp_path: Path) -> None:
    from hf_genzoo.models.vae import ConvVAE
    from hf_genzoo.pipelines.vae import VAEPipeline

    source = tiny_vae()
    folder = export(source, tmp_path / "vae")
    for path in folder.rglob("*.py"):
        path.write_text("raise SystemExit('ran code of the folder')", encoding="utf-8")
    for pipeline in (load(folder), VAEPipeline.from_pretrained(folder), VAEPipeline.from_pretrained(str(folder))):
        assert type(pipeline) is VAEPipeline
        assert type(pipeline.vae) is ConvVAE
        assert pipeline.config["_name_or_path"] == str(folder)
        assert pipeline.vae.config["_name_or_path"] == str(folder / "vae")
        np.testing.assert_array_equal(draw(pipeline), draw(source))


def test_load_options(tmp_path: Path) -> None:
    folder = export(tiny_vae(), tmp_path / "vae")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert load(folder, torch_dtype=torch.bfloat16).vae.dtype == torch.bfloat16
        assert load(folder, device_map="cpu").vae.device.type == "cpu"
    tiny_vae(seed=9).vae.half().save_pretrained(folder / "vae", variant="fp16")
    other = load(folder, variant="fp16")
    assert not torch.equal(
        other.vae.state_dict()["decoder.0.weight"], load(folder).vae.state_dict()["decoder.0.weight"]
    )
    with pytest.raises(ValueError, match="bf16"):
        load(folder, variant="bf16")


def test_plain_save_pretrained_loads_too(tmp_path: Path) -> None:
    source = tiny_vae()
    source.save_pretrained(tmp_path / "plain")
    np.testing.assert_array_equal(draw(load(tmp_path / "plain")), draw(source))
    np.testing.assert_array_equal(draw(type(source).from_pretrained(tmp_path / "plain")), draw(source))


def test_a_components_own_from_pretrained_works(tmp_path: Path) -> None:
    from hf_genzoo.models.vae import ConvVAE

    folder = export(tiny_vae(), tmp_path / "vae")
    assert type(ConvVAE.from_pretrained(folder, subfolder="vae")) is ConvVAE


def test_family_class_opens_its_stock_repository(tmp_path: Path) -> None:
    from hf_genzoo.pipelines import DenoisingDiffusionPipeline

    folder = export(tiny_ddpm(), tmp_path / "ddpm")
    assert type(DenoisingDiffusionPipeline.from_pretrained(folder)) is DenoisingDiffusionPipeline


def test_errors_of_load(tmp_path: Path) -> None:
    with pytest.raises(LayoutError, match="is no folder here"):
        load(tmp_path / "nowhere" / "at" / "all")
    with pytest.raises(LayoutError, match=r"'me/nowhere' is no folder here"):
        load("me/nowhere")
    with pytest.raises(LayoutError, match=r"holds no model_index\.json"):
        load(tmp_path)
    folder = export(tiny_vae(), tmp_path / "vae")
    index = json.loads((folder / "model_index.json").read_text())

    def write(**changes: object) -> None:
        (folder / "model_index.json").write_text(json.dumps({**index, **changes}))

    write(vae=["vqvae_0123456789", "VQVAE"])
    with pytest.raises(LayoutError, match=r"component 'vae' is vqvae_0123456789\.VQVAE, which this version"):
        load(folder)
    write(vae=["os", "system"])
    with pytest.raises(LayoutError, match=r"component 'vae' is os\.system"):
        load(folder)
    write(_class_name=["pipeline_vqvae_0123456789", "VQPipeline"])
    with pytest.raises(LayoutError, match=r"not one of hf_genzoo's families \(.*ddpm, .*vae"):
        load(folder)
    write(_class_name=["pipeline", "TheirPipeline"], vae=["diffusers", "AutoencoderKL"])
    with pytest.raises(LayoutError, match="was not exported by hf_genzoo"):
        load(folder)
    write(_class_name=7)
    with pytest.raises(LayoutError, match='"_class_name": 7'):
        load(folder)
    write()
    shutil.rmtree(folder / "vae")
    with pytest.raises(LayoutError, match="holds no folder 'vae'"):
        load(folder)
    from hf_genzoo.pipelines import WGANPipeline

    with pytest.raises(LayoutError, match="holds a VAEPipeline, not a WGANPipeline"):
        WGANPipeline.from_pretrained(export(tiny_vae(), tmp_path / "vae"))


def test_another_versions_repository_loads_with_a_warning(tmp_path: Path) -> None:
    folder = export(tiny_vae(), tmp_path / "vae")
    other_code(folder, ("class VAEPipeline", "# another version\nclass VAEPipeline"))
    with pytest.warns(UserWarning, match=r"another version of hf_genzoo\.pipelines\.vae"):
        pipeline = load(folder)
    np.testing.assert_array_equal(draw(pipeline), draw(tiny_vae()))


@pytest.mark.usefixtures("remote_code")
@pytest.mark.parametrize("newest_first", [False, True])
def test_two_versions_in_one_process_do_not_disturb_each_other(tmp_path: Path, newest_first: bool) -> None:
    first = export(tiny_vae(), tmp_path / "first")
    second = Path(shutil.copytree(first, tmp_path / "second"))
    other_code(second, ("dtype=self.vae.dtype)", "dtype=self.vae.dtype) * 0"))
    expected = draw(tiny_vae())
    zeros = tiny_vae()(latents=torch.zeros(2, 3), output_type="np")[0]
    order = [second, first] if newest_first else [first, second]
    pipelines = {folder: by_trust(folder) for folder in order}
    np.testing.assert_array_equal(draw(pipelines[first]), expected)
    np.testing.assert_array_equal(draw(pipelines[second]), zeros)
    np.testing.assert_array_equal(draw(load(first)), expected)
    np.testing.assert_array_equal(draw(pipelines[second]), zeros)


@pytest.mark.usefixtures("remote_code")
def test_a_remotely_loaded_pipeline_exports_to_the_same_folder(tmp_path: Path) -> None:
    folder = export(tiny_vae(), tmp_path / "vae")
    before = tree(folder)
    pipeline = by_trust(folder)
    assert type(pipeline).__module__.startswith("diffusers_modules.")
    export(pipeline, folder)
    assert tree(folder) == before
    np.testing.assert_array_equal(draw(by_trust(folder)), draw(tiny_vae()))


# The import rule


GOOD = """import math
import numpy as np
import torch.nn.functional as F
from PIL import Image
from diffusers import UNet2DModel
import transformers
"""


def test_import_rule_accepts_what_everybody_has(tmp_path: Path) -> None:
    (tmp_path / "good.py").write_text(GOOD, encoding="utf-8")
    check_published_file(tmp_path / "good.py")


@pytest.mark.parametrize(
    ("line", "named"),
    [
        ("import hf_genzoo.losses", "'hf_genzoo'"),
        ("def f():\n    from hf_genzoo import losses", "'hf_genzoo'"),
        ("import torchvision.transforms as T", "'torchvision'"),
        ("from . import helpers", "relative import"),
        ("from .helpers import f", "relative import"),
        ("import importlib\nm = importlib.import_module('hf_genzoo.models.vae')", "'hf_genzoo'"),
        ("m = __import__('scipy')", "'scipy'"),
        ('"""Usage:\n    from hf_genzoo import load\n"""', "'hf_genzoo'"),
        ("def f(:", "not valid Python"),
    ],
)
def test_import_rule_names_file_and_line(tmp_path: Path, line: str, named: str) -> None:
    path = tmp_path / "bad.py"
    path.write_text(f"{GOOD}{line}\n", encoding="utf-8")
    number = 7 + ("\n" in line)
    with pytest.raises(PublishedFileError, match=f"bad.py:{number}: .*{named}"):
        check_published_file(path)


def test_published_files_of_every_family_obey_the_rule() -> None:
    package = Path(__file__).parent.parent
    files = [path for path in (package / "pipelines").glob("*.py") if path.name != "__init__.py"]
    assert files
    for path in files:
        check_published_file(path)


def test_a_name_that_diffusers_would_take_for_its_own_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "zoo" / "ddim").mkdir(parents=True)
    (tmp_path / "zoo" / "ddim" / "net.py").write_text("class Net:\n    pass\n", encoding="utf-8")
    monkeypatch.syspath_prepend(tmp_path)
    from zoo.ddim.net import Net  # pyright: ignore[reportMissingImports]

    assert hasattr(diffusers.pipelines, "ddim")
    with pytest.raises(PublishedFileError, match=r"diffusers\.pipelines has a module 'ddim'"):
        code_file(Net)


def test_code_that_was_edited_after_its_import_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "edited_net.py"
    path.write_text("class Net:\n    def size(self):\n        return 1\n", encoding="utf-8")
    monkeypatch.syspath_prepend(tmp_path)
    from edited_net import Net  # pyright: ignore[reportMissingImports]

    path.write_text("# more words\n\nclass Net:\n    def size(self):\n        return 1\n", encoding="utf-8")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        code_file(Net)
    path.write_text("class Net:\n    def size(self):\n        return 2\n", encoding="utf-8")
    with pytest.warns(UserWarning, match=r"was edited after it was imported \(Net\.size"):
        code_file(Net)


# Light


def test_importing_the_package_costs_no_torch() -> None:
    code = "import sys, hf_genzoo.hub, hf_genzoo.pipelines; print(sorted({'torch', 'diffusers'} & set(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_unknown_names() -> None:
    import hf_genzoo.hub
    import hf_genzoo.pipelines

    for module in (hf_genzoo.hub, hf_genzoo.pipelines):
        with pytest.raises(AttributeError, match="no attribute 'nothing'"):
            _ = module.nothing
    assert "VAEPipeline" in dir(hf_genzoo.pipelines)
