"""Publishing to a Hub on loopback with the real clients: whole or not at all, whatever goes wrong on the way."""

import contextlib
import io
import json
import os
import re
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import redirect_stderr, redirect_stdout
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pytest
from contract import ROOT
from hub_server import TOKEN, HubServer, blob_id
from hub_store import Repo
from hub_toys import TRAINING, draw, tiny_vae, tree

from hf_genzoo.cli import main
from hf_genzoo.hub import HubError, client, export, load, publish, publisher, verifier
from hf_genzoo.hub.card import unpinned
from hf_genzoo.hub.layout import LayoutError

REPO = "tester/vae-digits"
HURRY = client.Patience(tries=3, first=0.0)
STAYS_HOME = ("checkpoint-4/optimizer.bin", "logs/events", "samples/0000004.png", "optimizer.bin", ".cache/x.json")


def in_process(repo_or_folder, *, revision=None, ways=None, token=None) -> list[verifier.Result]:
    """The check of `verify` without its clean interpreters, for the many runs of the fault list: it loads for real."""
    cache = Path(os.environ["GENZOO_TEST_CACHE"]) / os.urandom(4).hex()
    try:
        pipeline = load(repo_or_folder, revision=revision, cache_dir=cache, token=token)
        result = verifier.Result("in this process", True, "", 0.0, [draw(pipeline)])
    except Exception as error:  # as there: whatever goes wrong is a result
        result = verifier.Result("in this process", False, str(error), 0.0)
    shutil.rmtree(cache, ignore_errors=True)
    return [result]


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("GENZOO_TEST_CACHE", str(tmp_path / "caches"))
    monkeypatch.setattr(publisher.verifier, "verify", in_process)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    folder = export(tiny_vae(), tmp_path / "a vae", training=TRAINING)
    for name in STAYS_HOME:
        (folder / name).parent.mkdir(exist_ok=True)
        (folder / name).write_text("stays at home", encoding="utf-8")
    return folder


def head(server: HubServer, key: str = REPO) -> dict[str, bytes]:
    return server.repos[key].commits[-1].files


def test_publishing_for_real_is_checked_loaded_back_shown_and_pinned(
    hub: HubServer, tmp_path: Path, folder: Path, monkeypatch
) -> None:
    """The whole command, in a process of its own, with every way of loading in clean interpreters."""
    before = tree(folder)
    running: list[bytes] = []
    hub.fail("GET .*/resolve/", times=10, then=lambda: running.extend(command_lines()))  # while children load it back
    env = {**os.environ, "HF_HOME": str(tmp_path / "home")}
    words = [sys.executable, "-m", "hf_genzoo.cli", "publish", str(folder), "--repo_id", REPO, "--variant", "fp16"]
    done = subprocess.run(words, env=env, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    repo = hub.repos[REPO]
    _, content, pinned = repo.commits
    assert not repo.private
    assert f"Published: {hub.url}/{REPO}" in done.stdout
    assert f'hf_genzoo.load("{REPO}", revision="{content.sha}")' in done.stdout
    card = pinned.files["README.md"].decode()
    calls = re.findall(r'(?:load|from_pretrained)\(\s*"tester/vae-digits",\s*(?:revision="([0-9a-f]{40})")?', card)
    assert len(calls) >= 3
    assert set(calls) == {content.sha}, "each way of loading names the commit that was loaded back"
    assert {**content.files, "README.md": b""} == {**pinned.files, "README.md": b""}
    assert pinned.files["LICENSE"] == (ROOT / "LICENSE").read_bytes()
    local = {name for name in before if not name.startswith(("checkpoint-", "logs", "samples/", "optimizer", "."))}
    added = {"LICENSE", ".gitattributes", "vae/diffusion_pytorch_model.fp16.safetensors"}
    assert set(pinned.files) == local | added
    assert str(folder) not in card
    assert tree(folder) == before
    assert_no_token(done.stdout + done.stderr, hub, tmp_path)
    assert any(b"probe.py" in words for words in running) or not Path("/proc").is_dir()
    assert not [words for words in running if TOKEN.encode() in words]

    monkeypatch.setenv("GENZOO_TEST_CACHE", str(tmp_path / "caches"))
    monkeypatch.setattr(publisher.verifier, "verify", in_process)
    again = publish(folder, REPO, variants=["fp16"], patience=HURRY)
    assert (again.changed, again.revision) == (False, content.sha)
    assert len(repo.commits) == 3


def command_lines() -> list[bytes]:
    """What a list of processes shows of each."""
    found = []
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        with contextlib.suppress(OSError):  # it has ended
            found.append(path.read_bytes())
    return found


def files_with(text: str, *folders: Path) -> list[Path]:
    paths = [path for folder in folders for path in folder.rglob("*") if path.is_file()]
    return [path for path in paths if text.encode() in path.read_bytes()]


@pytest.mark.usefixtures("quick")
class TestWithoutFault:
    def test_dry_run_asks_the_hub_for_nothing(self, hub: HubServer, folder: Path, capsys) -> None:
        assert main(["publish", str(folder), "--repo_id", REPO, "--dry_run"]) == 0
        shown = capsys.readouterr().out
        assert "vae/diffusion_pytorch_model.safetensors" in shown
        assert "nothing was sent" in shown
        assert "checkpoint-4" not in shown
        assert "ok   in this process" in shown
        assert main(["publish", str(folder), "--repo_id", "vae", "--dry_run"]) == 1
        assert hub.requests == []

    def test_private_stays_private_and_is_refused_without_a_token(
        self,
        hub: HubServer,
        folder: Path,
        tmp_path: Path,
    ) -> None:
        publish(folder, REPO, private=True, patience=HURRY)
        publish(folder, REPO, patience=HURRY)  # says nothing of private: an existing repository keeps its visibility
        assert hub.repos[REPO].private
        assert hub.snapshot() == {}
        assert np.array_equal(draw(load(REPO, cache_dir=tmp_path / "a")), draw(load(folder)))
        with pytest.raises(LayoutError, match="hf auth login"):
            load(REPO, token=False, cache_dir=tmp_path / "b")

    def test_an_update_removes_what_it_no_longer_names(self, hub: HubServer, folder: Path) -> None:
        publish(folder, REPO, patience=HURRY)
        hub.repos[REPO].add("by hand", {**head(hub), "vae/old_0123456789.py": b"", "notes.txt": b"mine"})
        export(tiny_vae(seed=1), folder, training=TRAINING)
        done = publish(folder, REPO, patience=HURRY)
        assert done.changed
        assert "vae/old_0123456789.py" not in head(hub)
        assert head(hub)["notes.txt"] == b"mine", "what others put there stays"

    def test_what_can_fail_here_fails_before_the_hub_is_asked(
        self, hub: HubServer, folder: Path, tmp_path, monkeypatch
    ) -> None:
        with pytest.raises(LayoutError, match=r"holds no model_index\.json"):
            publish(tmp_path, REPO)
        (folder / "vae" / "diffusion_pytorch_model.bin").write_bytes(b"\x80\x04.")
        with pytest.raises(HubError, match=r"not fit to be published:\n- vae/diffusion_pytorch_model.bin is a pickle"):
            publish(folder, REPO)
        (folder / "vae" / "diffusion_pytorch_model.bin").unlink()
        monkeypatch.setattr("hf_genzoo.hub.client.get_token", lambda: None)
        with pytest.raises(HubError, match="no access token: run `hf auth login`"):
            publish(folder, REPO)
        assert hub.requests == []

    def test_a_file_with_a_token_stays_here(self, hub: HubServer, folder: Path) -> None:
        (folder / "settings.yaml").write_text(f"push_to_hub: true\nhub_token: {TOKEN}\n")
        with pytest.raises(HubError, match=r"settings\.yaml holds an access token: take it out") as caught:
            publish(folder, REPO, patience=HURRY)
        assert TOKEN not in str(caught.value)
        assert hub.repos == {}

    def test_a_public_repository_is_not_taken_for_private(self, hub: HubServer, folder: Path) -> None:
        publish(folder, REPO, patience=HURRY)
        before = hub.snapshot()
        export(tiny_vae(seed=1), folder, training=TRAINING)
        with pytest.raises(HubError, match=r"is public, so --private cannot be kept: make it private in its settings"):
            publish(folder, REPO, private=True, patience=HURRY)
        assert hub.snapshot() == before

    def test_a_bad_name_or_a_failed_check_makes_nothing(self, hub: HubServer, folder: Path, monkeypatch) -> None:
        with pytest.raises(HubError, match="'vae' lacks its owner: pass 'tester/vae'"):
            publish(folder, "vae")
        with pytest.raises(HubError, match="is not a repository name"):
            publish(folder, "user/vae--..")
        failed = verifier.Result("without hf_genzoo", False, "values differ by up to 0.1", 0.0)
        monkeypatch.setattr(publisher.verifier, "verify", lambda *args, **kwargs: [failed])
        with pytest.raises(HubError, match=r"does not load as it should; nothing was published[\s\S]*differ by up to"):
            publish(folder, REPO)
        assert hub.repos == {}
        assert [request for request in hub.requests if not request.startswith("GET")] == []

    def test_other_samples_from_the_hub_than_from_the_folder_are_not_shown(
        self,
        hub: HubServer,
        folder: Path,
        monkeypatch,
    ) -> None:
        def corrupt() -> None:
            files = dict(head(hub))
            other = export(tiny_vae(seed=9), folder.parent / "other")
            name = "vae/diffusion_pytorch_model.safetensors"
            commit = hub.repos[REPO].commits[-1]
            files[name] = (other / name).read_bytes()
            hub.repos[REPO].commits[-1] = type(commit)(commit.sha, commit.title, files)

        hub.fail(f"POST /api/models/{REPO}/commit", then=corrupt)
        with pytest.raises(HubError, match=r"does not load back[\s\S]*values differ"):
            publish(folder, REPO, patience=HURRY)
        assert hub.snapshot() == {}
        publish(folder, REPO, patience=HURRY)
        assert_complete(hub, folder)


@pytest.mark.skipif(find_spec("gradio") is None, reason="needs gradio, whose version a Space names")
@pytest.mark.usefixtures("quick")
class TestSpace:
    """The demo beside the model; what it does when it runs is tested with the demos."""

    def test_opens_the_commit_that_was_loaded_back(self, hub: HubServer, folder: Path) -> None:
        done = publish(folder, REPO, space=True, patience=HURRY)
        space = hub.repos[f"spaces/{REPO}"]
        assert done.space_url == f"{hub.url}/spaces/{REPO}"
        assert not space.private
        assert space.settings["sdk"] == "gradio"
        files = space.commits[-1].files
        assert f"REVISION = {done.revision!r}" in files["app.py"].decode()
        assert set(files) == {*done.space_files, ".gitattributes"}
        assert publisher.LATER not in files["app.py"].decode()
        again = publish(folder, REPO, space=True, patience=HURRY)
        assert not again.changed
        assert (len(hub.repos[REPO].commits), len(space.commits)) == (3, 2), "unchanged content makes no commit"

    def test_an_update_takes_away_old_modules_and_leaves_what_is_others(self, hub: HubServer, folder: Path) -> None:
        publish(folder, REPO, space=True, patience=HURRY)
        space = hub.repos[f"spaces/{REPO}"]
        space.add("by hand", {**space.commits[-1].files, "demo/old.py": b"", "notes.py": b"mine"})
        export(tiny_vae(seed=1), folder, training=TRAINING)
        done = publish(folder, REPO, space=True, patience=HURRY)
        files = space.commits[-1].files
        assert "demo/old.py" not in files
        assert files["notes.py"] == b"mine"
        assert f"REVISION = {done.revision!r}" in files["app.py"].decode()

    def test_its_fault_leaves_the_model_whole_and_no_half_space(self, hub: HubServer, folder: Path) -> None:
        hub.fail(f"POST /api/spaces/{REPO}/commit", status=500, times=10**6)
        with pytest.raises(HubError, match=f"uploading to spaces/{REPO}: gave up"):
            publish(folder, REPO, space=True, patience=HURRY)
        assert set(hub.repos) == {REPO}
        assert_complete(hub, folder)
        hub.faults.clear()
        publish(folder, REPO, space=True, patience=HURRY)
        assert set(hub.snapshot()) == {REPO, f"spaces/{REPO}"}

    def test_another_app_of_that_name_is_left_alone(self, hub: HubServer, folder: Path) -> None:
        theirs = Repo(private=False)
        theirs.add("an app", {"app.py": b"import streamlit"})
        hub.repos[f"spaces/{REPO}"] = theirs
        with pytest.raises(HubError, match="runs another app already: rename it on the Hub, or leave out --space"):
            publish(folder, REPO, space=True, patience=HURRY)
        assert set(hub.repos) == {f"spaces/{REPO}"}
        assert len(theirs.commits) == 1

    def test_of_a_private_model_is_private(self, hub: HubServer, folder: Path, capsys) -> None:
        publish(folder, REPO, private=True, patience=HURRY)
        publish(folder, REPO, space=True, patience=HURRY)
        assert hub.repos[f"spaces/{REPO}"].private
        assert "secret HF_TOKEN" in capsys.readouterr().out

    def test_is_part_of_the_plan(self, hub: HubServer, folder: Path, capsys) -> None:
        assert main(["publish", str(folder), "--repo_id", REPO, "--space", "--dry_run"]) == 0
        assert re.search(rf"and the Space {REPO}:\n[\s\S]* app\.py\n", capsys.readouterr().out)
        assert hub.requests == []


CUTS = {
    "account": ("GET /api/whoami", {"drop_after": 0}),
    "looking": (f"GET /api/models/{REPO}", {"drop_after": 0}),
    "creating, asked": ("POST /api/repos/create", {"drop_after": 5}),
    "creating, answered": ("POST /api/repos/create", {"drop_after": 10**9}),
    "listing": (f"GET /api/models/{REPO}/tree", {"drop_after": 0}),
    "preupload": ("POST .*/preupload/", {"drop_after": 20}),
    "lfs batch": ("POST .*/lfs/objects/batch", {"drop_after": 10**9}),
    "object, halfway": ("PUT /lfs/upload", {"drop_after": 1000}),
    "object, answered": ("PUT /lfs/upload", {"drop_after": 10**9}),
    "object, checked": ("POST /lfs/verify", {"drop_after": 0}),
    "commit, halfway": ("POST .*/commit/", {"drop_after": 500}),
    "commit, answered": ("POST .*/commit/", {"drop_after": 10**9}),
    "reading back": ("GET .*/resolve/.*safetensors", {"drop_after": 0}),
    "showing": ("PUT .*/settings", {"drop_after": 3}),
    "pinning, halfway": ("POST .*/commit/", {"drop_after": 100, "skip": 1}),
    "pinning, answered": ("POST .*/commit/", {"drop_after": 10**9, "skip": 1}),
    "500 at the commit": ("POST .*/commit/", {"status": 500}),
    "500 anywhere": ("", {"status": 500, "skip": 4}),
    "429 at an object": ("PUT /lfs/upload", {"status": 429, "headers": {"Retry-After": "0"}}),
    "429 anywhere": ("", {"status": 429, "headers": {"Retry-After": "0"}, "skip": 7}),
}
ONLY_NEW = ("creating, asked", "creating, answered", "showing")  # an update neither makes nor shows the repository


@pytest.mark.usefixtures("quick")
@pytest.mark.parametrize(
    ("where", "is_update"),
    [(where, is_update) for where in CUTS for is_update in (False, True) if not (is_update and where in ONLY_NEW)],
)
def test_cut_and_refused_connections(
    where: str, is_update: bool, hub: HubServer, folder: Path, tmp_path: Path
) -> None:
    if is_update:
        publish(folder, REPO, patience=HURRY)
        export(tiny_vae(seed=1), folder, training=TRAINING)
    before = hub.snapshot()
    path, how = CUTS[where]

    fault = hub.fail(path, times=10**6, **how)  # lasting: it gives up, unless a lost answer is all that was lost
    output = io.StringIO()
    with redirect_stdout(output), redirect_stderr(output):
        try:
            publish(folder, REPO, patience=HURRY)
        except HubError as error:
            print(error)
    assert fault.hits > 0
    if hub.snapshot() != before:
        assert_complete(hub, folder, pinned=None)
    hub.faults.clear()
    assert_no_token(output.getvalue(), hub, tmp_path)

    hub.fail(path, times=1, **how)  # passing: the next try heals it, and the rerun repairs what was left
    with redirect_stdout(output), redirect_stderr(output):
        publish(folder, REPO, patience=HURRY)
    assert_complete(hub, folder)
    assert_no_token(output.getvalue(), hub, tmp_path)
    commits = len(hub.repos[REPO].commits)
    assert not publish(folder, REPO, patience=HURRY).changed
    assert len(hub.repos[REPO].commits) == commits


def assert_complete(server: HubServer, folder: Path, pinned: bool | None = True) -> None:
    """A stranger sees the whole of the folder, and nothing of an earlier one."""
    private, _, files = server.snapshot()[REPO]
    assert not private
    wanted = {name: data for name, data in tree(folder).items() if not name.startswith((*STAYS_HOME, "README.md"))}
    assert {name: files.get(name) for name in wanted} == {name: blob_id(data) for name, data in wanted.items()}
    weights = [name for name in files if name.endswith((".py", ".safetensors"))]
    assert set(weights) <= set(wanted)
    card = head(server)["README.md"].decode()
    if pinned:
        assert card != unpinned(card)


def assert_no_token(text: str, server: HubServer, *folders: Path) -> None:
    assert TOKEN not in text
    assert not files_with(TOKEN, *folders)
    stored = [data for repo in server.repos.values() for commit in repo.commits for data in commit.files.values()]
    assert not [data for data in stored if TOKEN.encode() in data]


@pytest.mark.usefixtures("quick")
@pytest.mark.parametrize(
    ("role", "user", "message"),
    [
        ("expired", "tester", r"the Hub does not accept the token: it is wrong or has expired; run `hf auth login`"),
        ("read", "tester", r"the token of 'tester' may only read: run `hf auth login` with a token that may write"),
        ("write", "stranger", r"the token of 'stranger' may not write there .*choose a name of your own"),
    ],
)
def test_tokens_that_do_not_do(role: str, user: str, message: str, hub: HubServer, folder: Path, capsys) -> None:
    hub.add_token("hf_secretword", role, user)
    with pytest.raises(HubError, match=message) as caught:
        publish(folder, REPO, token="hf_secretword", patience=HURRY)
    assert "hf_secretword" not in str(caught.value) + "".join(capsys.readouterr())
    assert hub.snapshot(everything=True) == {}
    publish(folder, REPO, private=True, patience=HURRY)  # with the right token, and out of the others' sight
    before = hub.snapshot(everything=True)
    with pytest.raises(HubError):
        publish(folder, REPO, token="hf_secretword", patience=HURRY)
    assert hub.snapshot(everything=True) == before


@pytest.mark.usefixtures("quick")
def test_a_repository_removed_between_push_and_reload(hub: HubServer, folder: Path) -> None:
    hub.fail(f"POST /api/models/{REPO}/commit", then=lambda: hub.repos.pop(REPO))
    with pytest.raises(HubError, match=r"does not load back from the Hub.*run the same command again"):
        publish(folder, REPO, patience=HURRY)
    assert hub.snapshot(everything=True) == {}
    publish(folder, REPO, patience=HURRY)
    assert_complete(hub, folder)


FULL_DISK = """
import resource, sys
from hf_genzoo.cli import main
resource.setrlimit(resource.RLIMIT_FSIZE, (int(sys.argv[1]), int(sys.argv[1])))  # a write beyond it fails, for real
sys.exit(main(sys.argv[2:]))
"""


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Callable[[int], Path]]:
    """Makes a filesystem of so many bytes."""
    place = tmp_path / "small disk"
    place.mkdir()

    def make(size: int) -> Path:
        words = ["mount", "-t", "tmpfs", "-o", f"size={size}", "tmpfs", str(place)]
        if subprocess.run(words, capture_output=True).returncode != 0:
            pytest.skip("mounting a small filesystem needs rights that this user lacks")
        return place

    yield make
    subprocess.run(["umount", str(place)], capture_output=True)


@pytest.mark.usefixtures("quick")
@pytest.mark.parametrize("copies", [0.5, 1.5], ids=["at home", "loading back"])
def test_a_disk_that_is_too_small(
    copies: float, hub: HubServer, folder: Path, small_disk: Callable[[int], Path], tmp_path: Path, monkeypatch
) -> None:
    size = sum(len(data) for name, data in tree(folder).items() if not name.startswith(STAYS_HOME))
    place = small_disk(int(copies * size))
    monkeypatch.setattr("tempfile.tempdir", str(place))
    monkeypatch.setenv("GENZOO_TEST_CACHE", str(place / "caches"))
    message = rf"the disk is full: {re.escape(str(place))} must have room .*\({2 * size:,} bytes\).* set TMPDIR"
    with pytest.raises(HubError, match=message):
        publish(folder, REPO, patience=HURRY)
    assert hub.snapshot() == {}
    assert not list(place.glob("genzoo-*")), "what was copied is cleared away"

    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    monkeypatch.setenv("GENZOO_TEST_CACHE", str(tmp_path / "caches"))
    publish(folder, REPO, patience=HURRY)
    assert_complete(hub, folder)


KILLED = """
import sys
from hf_genzoo.hub import Result, publish, publisher
publisher.verifier.verify = lambda *args, **kwargs: [Result("taken for granted here", True, "", 0.0)]
publish(*sys.argv[1:])
"""


@pytest.mark.usefixtures("quick")
@pytest.mark.parametrize("where", ["POST /api/repos/create", "POST .*/commit/", "PUT .*/settings"])
def test_killed_on_the_way(where: str, hub: HubServer, folder: Path) -> None:
    words = [sys.executable, "-c", KILLED, str(folder), REPO]
    process = subprocess.Popen(words, env={**os.environ, **hub.environment()})
    hub.fail(where, then=process.kill)
    assert process.wait(timeout=120) == -signal.SIGKILL
    if where.startswith("PUT"):
        assert_complete(hub, folder, pinned=None)
    else:
        assert hub.snapshot() == {}
    publish(folder, REPO, patience=HURRY)
    assert_complete(hub, folder)
    assert len(hub.repos[REPO].commits) == 3, "made, filled once, pinned"


def test_a_full_disk(tmp_path: Path, folder: Path) -> None:
    largest = max(path.stat().st_size for path in folder.rglob("*.safetensors"))
    with HubServer() as server:
        env = {**os.environ, "HF_HOME": str(tmp_path / "home"), "HF_HUB_OFFLINE": "0", **server.environment()}
        words = [sys.executable, "-c", FULL_DISK, str(largest - 1), "publish", str(folder), "--repo_id", REPO]
        done = subprocess.run(words, env=env, capture_output=True, text=True)
        assert done.returncode == 1, done.stdout + done.stderr
        assert re.search(r"genzoo: the disk is full: .* must have room .* set TMPDIR", done.stderr), done.stderr
        assert server.repos == {}
        assert TOKEN not in done.stdout + done.stderr


def training(folder: Path, *words: str) -> list[str]:
    flags = ["--preset", "tiny", "--max_train_steps", "2", "--output_dir", str(folder)]
    return ["train", "vae", *flags, "--push_to_hub", "--hub_model_id", REPO, *words]


@pytest.mark.usefixtures("quick")
def test_a_training_pushes_when_asked(hub: HubServer, tmp_path: Path, capsys) -> None:
    assert main(training(tmp_path / "trained")) == 0
    shown = "".join(capsys.readouterr())
    repo = hub.repos[REPO]
    files = head(hub)
    assert not repo.private
    assert f"Published: {hub.url}/{REPO} at {repo.commits[1].sha}" in shown
    assert {"README.md", "model_index.json", "samples.png", "training.json"} <= set(files)
    assert not [name for name in files if name.startswith(("checkpoint-", "logs", "samples/"))]
    assert "hub_token" not in json.loads(files["training.json"])["args"]
    assert_no_token(shown, hub, tmp_path)


@pytest.mark.usefixtures("quick")
def test_a_training_that_cannot_publish_is_kept(hub: HubServer, tmp_path: Path, capsys) -> None:
    """--push_to_hub with a token that may not write: the folder stays, and the message holds the command to go on."""
    folder = tmp_path / "trained"
    hub.add_token("hf_secretword", "read")
    assert main(training(folder, "--hub_token", "hf_secretword")) == 1
    shown = capsys.readouterr()
    assert f"genzoo publish {folder} --repo_id {REPO}" in shown.err
    assert "may only read" in shown.err
    assert json.loads((folder / "model_index.json").read_text())
    assert "hf_secretword" not in "".join(shown)
    assert not files_with("hf_secretword", tmp_path)
    assert hub.snapshot(everything=True) == {}
