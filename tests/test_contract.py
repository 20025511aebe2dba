"""Every family keeps the promises of `contract.py`; families broken on purpose do not."""

import re
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType, SimpleNamespace

import card_code
import contract
import numpy as np
import pytest
import torch
from contract import args_of, observed_training
from safetensors.torch import load_file
from toy import ToyData, toy_export
from ways import verify_all

import hf_genzoo
from hf_genzoo.api import script_of
from hf_genzoo.data.args import DataArgs
from hf_genzoo.families import FAMILIES, get_family
from hf_genzoo.hub import PublishedFileError, Result, check_published_file, load, report
from hf_genzoo.training.args import TrainingArgs
from hf_genzoo.training.run import Run

# Families, and the second face of those that have two.
SUBJECTS = {
    **{name: (name, {}) for name in FAMILIES},
    "ddpm-classes": ("ddpm", {"class_column": "label"}),
    "iddpm-classes": ("iddpm", {"class_column": "label", "variance_weighting": "interval"}),
    **{
        f"{name}-points": (name, {"dataset_name": "gaussians2d", "dataset_config_name": "ring"})
        for name in ("wgan_gp", "gan", "cgan", "score_sde")
    },
}


@dataclass
class Trained:
    script: ModuleType
    folder: Path
    seen: contract.Observed


class Trainings(dict[str, Trained]):
    """Subjects trained for four steps, each when it is first asked for."""

    def __init__(self, home: Path) -> None:
        super().__init__()
        self.home = home

    def __missing__(self, subject: str) -> Trained:
        family, changes = SUBJECTS[subject]
        script, folder = script_of(family), self.home / f"{subject} folder"
        with observed_training() as seen:
            assert script.main(args_of(script, output_dir=str(folder), max_train_steps=4, **changes)) == folder
        self[subject] = Trained(script, folder, seen)
        return self[subject]


@pytest.fixture(scope="session")
def trainings(tmp_path_factory: pytest.TempPathFactory) -> Trainings:
    return Trainings(tmp_path_factory.mktemp("trained"))


@pytest.fixture(scope="session")
def trained(trainings: Trainings, request: pytest.FixtureRequest) -> Trained:
    """One subject; parametrised indirectly."""
    return trainings[request.param]


@pytest.fixture(scope="session")
def folders(trainings: Trainings, request: pytest.FixtureRequest) -> dict[str, Path]:
    """The folders of all subjects of this session, for what is done to all of them in one clean interpreter."""
    here = [item for item in request.session.items if item.path == Path(__file__) and hasattr(item, "callspec")]
    asked = [item.callspec.params.get("trained") for item in here]
    return {subject: trainings[subject].folder for subject in SUBJECTS if subject in asked}


@pytest.fixture(scope="session")
def cards(folders: dict[str, Path], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder for each subject, where its card's code was run, and its training command for two steps."""
    home = tmp_path_factory.mktemp("cards")
    for subject, folder in folders.items():
        card = (folder / "README.md").read_text(encoding="utf-8")
        assert card_code.write_python(card, home / subject) >= 3
        again = str(home / subject / "again")
        card_code.write_training(card, home / subject, "--max_train_steps", "2", "--output_dir", again)
    card_code.run(*(home / subject for subject in folders), home=home / "hf_home")
    return home


@pytest.fixture(scope="session")
def verified(folders: dict[str, Path], tmp_path_factory: pytest.TempPathFactory) -> dict[str, list[Result]]:
    return verify_all(folders, tmp_path_factory.mktemp("verified"))


each_subject = pytest.mark.parametrize("trained", list(SUBJECTS), indirect=True, scope="session")
each_family = pytest.mark.parametrize("family", sorted(FAMILIES))


@each_family
def test_files_and_flags(family: str) -> None:
    contract.check_files(get_family(family))
    contract.check_flags(script_of(family))


def test_no_orphans_and_one_way_dependencies() -> None:
    contract.check_no_orphans()
    contract.check_dependencies()
    for path in [*(contract.ROOT / "pipelines").glob("[!_]*.py")]:
        check_published_file(path)


@each_subject
def test_each_optimiser_moves_its_own(trained: Trained) -> None:
    contract.check_ownership(trained.seen)


@each_subject
def test_sampling(trained: Trained) -> None:
    contract.check_sampling(load(trained.folder))


@each_subject
def test_bad_arguments(trained: Trained) -> None:
    pipeline = load(trained.folder)
    if type(pipeline).__module__.startswith("hf_genzoo"):  # stock pipelines refuse what diffusers refuses
        contract.check_bad_arguments(pipeline)


@each_subject
def test_exported_folder_is_complete(trained: Trained) -> None:
    present = {path.name for path in trained.folder.iterdir()}
    assert {"README.md", "model_index.json", "training.json", "samples.png", "checkpoint-4", "logs"} <= present
    info = hf_genzoo.info(trained.folder)
    assert info["training"]["steps"] == 4
    assert info["training"]["args"]["max_train_steps"] == 4
    assert info["training"]["versions"]["torch"] == torch.__version__
    assert re.match(r"genzoo train \w+ --", info["training"]["command"])


@each_subject
def test_card_code_runs(trained: Trained, cards: Path, request: pytest.FixtureRequest) -> None:
    place = cards / request.node.callspec.params["trained"]
    assert card_code.outcome(place)[-1] == "command"
    assert hf_genzoo.info(place / "again")["training"]["steps"] == 2


@each_subject
def test_loads_in_every_way(
    trained: Trained, verified: dict[str, list[Result]], request: pytest.FixtureRequest
) -> None:
    results = verified[request.node.callspec.params["trained"]]
    assert all(result.ok for result in results), report(results)
    assert len(results) == 4  # files, two ways, their agreement


@each_family
def test_two_seeds_differ_and_one_does_not(family: str, tmp_path: Path) -> None:
    weights = []
    for number, seed in enumerate((0, 0, 1)):
        folder = tmp_path / str(number)
        script_of(family).main(args_of(script_of(family), output_dir=str(folder), max_train_steps=2, seed=seed))
        weights.append(load_file(next(folder.glob("*/diffusion_pytorch_model.safetensors"))))
    same, other = (all(torch.equal(weights[0][k], w[k]) for k in w) for w in weights[1:])
    assert same
    assert not other


def test_sample_grid_and_folder_of_pictures(tmp_path: Path) -> None:
    folder = tmp_path / "vae"
    hf_genzoo.train("vae", preset="tiny", output_dir=str(folder), max_train_steps=2)
    hf_genzoo.sample(folder, tmp_path / "pictures", num_images=3, batch_size=2)
    hf_genzoo.sample(folder, tmp_path / "more", num_images=4, batch_size=4)
    files = sorted((tmp_path / "pictures").iterdir())
    assert [f.name for f in files] == ["00000.png", "00001.png", "00002.png"]
    assert all(f.read_bytes() == (tmp_path / "more" / f.name).read_bytes() for f in files)
    assert hf_genzoo.sample(folder, tmp_path / "grid.png", num_images=5).is_file()
    with pytest.raises(ValueError, match="VAEPipeline has no num_inference_steps"):
        hf_genzoo.sample(folder, tmp_path / "x.png", num_inference_steps=5)
    with pytest.raises(ValueError, match="num_images is 0"):
        hf_genzoo.sample(folder, tmp_path / "x.png", num_images=0)


# Broken on purpose --------------------------------------------------------------------------------------------------


def broken_run(folder: Path, **optimizers: torch.optim.Optimizer) -> Run:
    nets = {"g": torch.nn.Linear(2, 2), "d": torch.nn.Linear(2, 1)}
    args = TrainingArgs(output_dir=str(folder), max_train_steps=2, train_batch_size=2, lr_warmup_steps=0)
    sgd = {name: torch.optim.SGD(net.parameters(), lr=0.1) for name, net in nets.items()}
    return Run(args, nets=nets, optimizers=sgd, data=ToyData(), export=toy_export, ema=[])


def test_contract_sees_a_parameter_moved_by_the_wrong_optimiser(tmp_path: Path) -> None:
    with observed_training() as seen:
        run = broken_run(tmp_path)
        g, d = run.nets["g"], run.nets["d"]
        for batch in run.update("d"):
            run.backward(d(g(batch["points"])).mean())
            with torch.no_grad():
                g.bias.add_(1.0)  # the discriminator's phase reaches into the generator
        for batch in run.update("g"):
            run.backward(d(g(batch["points"])).mean())
    with pytest.raises(AssertionError, match=r"wrong optimiser: \[\"g.bias moved while 'd' learnt\"\]"):
        contract.check_ownership(seen)


def test_contract_sees_a_shared_parameter(tmp_path: Path) -> None:
    shared = torch.nn.Linear(2, 1)
    args = TrainingArgs(output_dir=str(tmp_path), max_train_steps=1)
    sgd = {name: torch.optim.SGD(shared.parameters(), lr=0.1) for name in ("g", "d")}
    with pytest.raises(ValueError, match="belongs to optimisers 'g' and 'd'"):
        Run(args, nets={"net": shared}, optimizers=sgd, data=ToyData(), export=toy_export)


def test_contract_sees_an_idle_parameter(tmp_path: Path) -> None:
    with observed_training() as seen:
        run = broken_run(tmp_path)
        for batch in run.update("d"):
            run.backward((run.nets["d"].weight * batch["points"]).mean())  # the bias is left out
    with pytest.raises(AssertionError, match=r"without a gradient: \['d.bias'\]"):
        contract.check_ownership(seen)


def test_contract_sees_a_flag_without_help_or_with_another_type() -> None:
    @dataclass
    class NoHelp(TrainingArgs):
        temperature: float = 1.0

    @dataclass
    class OtherType(TrainingArgs):
        resolution: float = DataArgs.__dataclass_fields__["resolution"]

    for args, expected in ((NoHelp, "--temperature has no help"), (OtherType, "--resolution is")):
        script = SimpleNamespace(
            Args=args, TINY={}, PRESETS={"tiny": {}, "small": {}}, __doc__="https://arxiv.org/abs/0"
        )
        with pytest.raises(AssertionError, match=expected):
            contract.check_flags(script)


def test_contract_sees_a_pipeline_that_imports_the_package(tmp_path: Path) -> None:
    source = (contract.ROOT / "pipelines" / "vae.py").read_text()
    broken = tmp_path / "broken.py"
    broken.write_text(
        source.replace("import math\n", "import math\nfrom hf_genzoo.losses import kl_standard_normal\n", 1)
    )
    with pytest.raises(PublishedFileError, match=r"broken\.py.*hf_genzoo"):
        check_published_file(broken)


def test_contract_sees_missing_files_and_orphans(tmp_path: Path) -> None:
    with pytest.raises(AssertionError, match=r"vae lacks training_scripts/train_vae\.py"):
        contract.check_files(get_family("vae"), tmp_path)
    (tmp_path / "pipelines").mkdir()
    (tmp_path / "pipelines" / "stray.py").touch()
    with pytest.raises(AssertionError, match="not in the table of families: stray"):
        contract.check_no_orphans(tmp_path)


class Unrepeatable:
    """A pipeline that ignores its generator."""

    def set_progress_bar_config(self, disable: bool) -> None: ...

    def __call__(self, batch_size=1, generator=None, output_type="np", return_dict=True):
        return SimpleNamespace(images=torch.rand(batch_size, 2, 2, 1).numpy())


class Careless(Unrepeatable):
    """One that swallows every argument."""

    def __call__(self, batch_size=1, generator=None, output_type="np", return_dict=True):
        return SimpleNamespace(images=np.zeros((1, 2, 2, 1)))


def test_contract_sees_careless_pipelines() -> None:
    with pytest.raises(AssertionError, match="the same generator gives other samples"):
        contract.check_sampling(Unrepeatable())
    with pytest.raises(AssertionError, match="the generator has no effect"):
        contract.check_sampling(Careless())
    with pytest.raises(AssertionError, match="is not refused"):
        contract.check_bad_arguments(Careless())
