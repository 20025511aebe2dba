"""From a trained folder to a repository that strangers can load: checked here, one commit, loaded back, then shown.

The order is what makes it safe. The whole repository is built in a temporary folder and every way of loading it is
tried before the Hub is asked to change. A new repository stays private until its commit was loaded back from the Hub,
by its hash, in clean interpreters, with the same samples. Killed anywhere, a stranger sees what was there before or
all of the new, and the same command goes on from there.
"""

import json
import os
import re
import shutil
import tempfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from importlib import resources
from pathlib import Path
from typing import Any

from huggingface_hub import constants

from hf_genzoo.demo.playground_server import NAME as PLAYGROUND
from hf_genzoo.hub import verifier
from hf_genzoo.hub.card import LICENSE, pin, relocate, unpinned
from hf_genzoo.hub.card_data import public_name
from hf_genzoo.hub.check_folder import check_folder
from hf_genzoo.hub.client import Commit, Content, HubClient, HubError, check_name
from hf_genzoo.hub.layout import CARD, belonging_files, read_index
from hf_genzoo.hub.patience import Patience, full_disk_in, is_disk_full
from hf_genzoo.hub.secrets import scrub
from hf_genzoo.hub.variants import add_variant

APP = "app.py"
LATER = "0" * 40  # stands for the commit that a Space will open, before there is one
LICENCE_FILE = "LICENSE"
RECORDS = ("training.json", "results.json")

_ABSOLUTE = re.compile(r"(?<![\w.:/-])/[\w.-][^\s'\",:]*")
_OWNED = re.compile(r".*(\.py|\.safetensors(\.index(\.[^.]+)?\.json)?)")  # what a later publication may remove
_OWNED_SPACE = re.compile(r"app\.py|demo/.*")
_PINNED = re.compile(r'revision="([0-9a-f]{40})"')

_NOT_BACK = "{} does not load back from the Hub as it should; run the same command again to repair it"

Say = Callable[[str], None]


@dataclass(frozen=True)
class Published:
    """What was published.

    Args:
        repo_id: The repository.
        revision: The commit that was compared with what was sent; None on a dry run.
        url: Its page.
        changed: Whether anything had to be uploaded.
        files: What the repository holds, with sizes in bytes.
        report: What was tried and seen, line by line.
        space_url: The Space's page, if one was asked for.
        space_files: What the Space holds, with sizes in bytes.
    """

    repo_id: str
    revision: str | None
    url: str
    changed: bool
    files: dict[str, int]
    report: str
    space_url: str | None = None
    space_files: dict[str, int] = field(default_factory=dict)


def publish(
    folder: str | Path,
    repo_id: str,
    *,
    private: bool = False,
    space: bool = False,
    dry_run: bool = False,
    variants: Sequence[str] = (),
    token: str | None = None,
    say: Say = print,
    patience: Patience | None = None,
) -> Published:
    """Publish an exported folder on the Hub: weights, code, card, sample grid, results and licence.

    Checkpoints, logs, optimiser state and hidden files stay at home. Code and weights of an earlier publication that
    this one does not name are removed in the same commit; unchanged content makes no commit.

    Args:
        folder: An exported folder; or "gan2d", the playground, which becomes a Space by itself.
        repo_id: "user/name" or "organisation/name"; made if it does not exist.
        private: Keep a new repository private. One that exists keeps its visibility.
        space: Publish the demo as well, as a Space of the same name.
        dry_run: Build and check everything, and leave the Hub alone.
        variants: Weights to add in lower precision: "fp16", "bf16".
        token: A token that may write; the one of `hf auth login` if None.
        say: Told what happens, line by line.
        patience: How often a call is tried.

    Raises:
        HubError: The folder, the name, the token or the Hub is no good; a stranger sees nothing half-done.
        LayoutError: The folder is not an exported pipeline.
    """
    if folder == PLAYGROUND:
        if space or variants:
            raise HubError(f"{PLAYGROUND} is a page of its own: it takes neither --space nor --variant")
        from hf_genzoo.demo.playground_space import publish_playground

        return publish_playground(repo_id, private=private, dry_run=dry_run, token=token, say=say, patience=patience)
    folder = Path(folder)
    problems = check_folder(folder)  # the quick checks first: most mistakes need no network
    if problems:
        raise HubError(f"{folder} is not fit to be published:\n- " + "\n- ".join(problems))
    client = None
    if dry_run:
        check_name(repo_id)
    else:
        client = HubClient(token, patience)
        _check_hub(client, repo_id, private, space, say)
    try:
        with tempfile.TemporaryDirectory(prefix="genzoo-publish-") as name:
            stage = _stage(folder, Path(name), repo_id, variants)
            _refuse_tokens(stage, folder, client.token if client else token)
            say(f"checking {folder} in every way it must load")
            local = _checked(verifier.verify(stage), f"{folder} does not load as it should; nothing was published")
            plan = _plan(stage, repo_id, local, space)
            return plan if client is None else _carry_out(plan, client, stage, local, private, say)
    except OSError as error:
        if not is_disk_full(error):
            raise
        raise HubError(_disk_message(folder, error)) from error


def _check_hub(client: HubClient, repo_id: str, private: bool, space: bool, say: Say) -> None:
    """What can be seen of the Hub to be in the way, before the long check of the folder."""
    for repo_type in ("model", "space") if space else ("model",):
        client.check_private(repo_id, private=private, say=say, repo_type=repo_type)
    app = client.read(repo_id, APP, "space") if space else None
    if app is not None and b"hf_genzoo" not in app:
        raise HubError(f"the Space {repo_id} runs another app already: rename it on the Hub, or leave out --space")


def _stage(folder: Path, stage: Path, repo_id: str, variants: Sequence[str]) -> Path:
    """The whole repository as it will be, apart from the folder, which a training may still write to."""
    for path in belonging_files(folder, read_index(folder)):
        (stage / path).parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(folder / path, stage / path)
    for variant in variants:
        add_variant(stage, variant)
    for name in RECORDS:
        if (stage / name).is_file():
            record = json.loads((stage / name).read_text(encoding="utf-8"))
            (stage / name).write_text(json.dumps(_without_paths(record), indent=1), encoding="utf-8")
    card = (stage / CARD).read_text(encoding="utf-8")
    url = f"{constants.ENDPOINT}/{repo_id}/resolve/main"
    (stage / CARD).write_text(relocate(card, repo_id, url), encoding="utf-8")
    if not (stage / LICENCE_FILE).exists():
        (stage / LICENCE_FILE).write_text(_licence(), encoding="utf-8")
    return stage


def _refuse_tokens(stage: Path, folder: Path, token: str | None) -> None:
    """No file with an access token goes up: settings that lie in the folder may hold one.

    Raises:
        HubError: A file holds one; the message names the file.
    """
    for path in _files(stage):
        if path.endswith(".safetensors"):
            continue
        text = (stage / path).read_bytes().decode("utf-8", errors="replace")
        if scrub(text, token) != text:
            raise HubError(f"{folder / path} holds an access token: take it out of the file, or the file away")


def _plan(stage: Path, repo_id: str, local: list[verifier.Result], space: bool) -> Published:
    """What will be, before the Hub is asked for anything; the demo is built too, so that what can fail fails here."""
    sizes = {path: (stage / path).stat().st_size for path in _files(stage)}
    demo = {path: len(data) for path, data in _space_files(stage, repo_id, LATER).items()} if space else {}
    url = f"{constants.ENDPOINT}/{repo_id}"
    return Published(repo_id, None, url, False, sizes, verifier.report(local), None, demo)


def _carry_out(
    plan: Published, client: HubClient, stage: Path, local: list[verifier.Result], private: bool, say: Say
) -> Published:
    files: dict[str, Content] = {path: stage / path for path in plan.files}
    commit = _publish_model(client, plan.repo_id, files, local, private, say)
    done = replace(plan, revision=commit.sha, changed=commit.changed)
    if plan.space_files:
        done = replace(done, space_url=_publish_space(client, stage, plan.repo_id, commit.sha, private, say))
    return done


def _licence() -> str:
    """The text of the licence that the card names (`hf_genzoo.hub.card.LICENSE`)."""
    return (resources.files("hf_genzoo.model_cards") / f"{LICENSE}.txt").read_text(encoding="utf-8")


def _without_paths(value: Any) -> Any:
    """A record without the absolute paths of the machine that wrote it: they tell more than one wants."""
    if isinstance(value, dict):
        return {name: _without_paths(item) for name, item in value.items()}
    if isinstance(value, list):
        return [_without_paths(item) for item in value]
    if not isinstance(value, str):
        return value
    return _ABSOLUTE.sub(lambda match: public_name(match[0]), value)


def _files(stage: Path) -> list[str]:
    return sorted(path.as_posix() for path in belonging_files(stage, read_index(stage)))


def _checked(results: list[verifier.Result], otherwise: str, token: str | None = None) -> list[verifier.Result]:
    failed = [result for result in results if not result.ok]
    if failed:
        reasons = verifier.report(failed)
        if (number := full_disk_in(reasons)) is not None:  # met by one of the clean interpreters
            raise OSError(number, os.strerror(number))
        raise HubError(f"{otherwise}:\n{scrub(reasons, token)}")
    return results


def _publish_model(
    client: HubClient,
    repo_id: str,
    files: Mapping[str, Content],
    local: list[verifier.Result],
    private: bool,
    say: Say,
) -> Commit:
    """One commit, loaded back and compared; then the card names it, and a new repository is shown."""
    card = _text(files[CARD])
    there = (client.read(repo_id, CARD) or b"").decode("utf-8")
    pinned = _PINNED.search(there)
    if pinned and not client.is_unfinished(repo_id) and unpinned(there) == card:
        differing = client.differing(repo_id, {**files, CARD: there.encode("utf-8")})
        if not any(path in files or _OWNED.fullmatch(path) for path in differing):
            say(f"{repo_id} holds all of this already")
            return Commit(pinned[1], f"{client.api.endpoint}/{repo_id}/commit/{pinned[1]}", False)
    say(f"uploading {len(files)} files to {repo_id}")
    commit = client.commit(
        repo_id,
        files,
        message="Publish with hf_genzoo",
        owned=lambda path: _OWNED.fullmatch(path) is not None,
    )
    say(f"loading {repo_id} back from the Hub at {commit.sha}")
    _checked(_loaded_back(client, repo_id, commit.sha, local), _NOT_BACK.format(repo_id), client.token)
    client.settle(repo_id, private=private)
    client.commit(
        repo_id, {CARD: pin(card, commit.sha).encode("utf-8")}, message="Name the checked commit in the card"
    )
    return commit


def _loaded_back(client: HubClient, repo_id: str, sha: str, local: list[verifier.Result]) -> list[verifier.Result]:
    """The check of what lies on the Hub; once more if it fails, since a connection may have broken."""
    results: list[verifier.Result] = []
    for _ in range(2):
        back = verifier.verify(repo_id, revision=sha, token=client.token)
        results = [*back, verifier.same_samples(local, back)]
        if all(result.ok for result in results):
            break
    return results


def _space_files(stage: Path, repo_id: str, revision: str) -> Mapping[str, bytes]:
    from hf_genzoo.demo.space import space_files

    return space_files(stage, repo_id, revision)


def _publish_space(client: HubClient, stage: Path, repo_id: str, revision: str, private: bool, say: Say) -> str:
    """The demo as a Space that runs the published commit."""
    say(f"publishing the demo as the Space {repo_id}")
    commit = client.commit(
        repo_id,
        _space_files(stage, repo_id, revision),
        message=f"Demo of {repo_id} at {revision[:10]}",
        repo_type="space",
        owned=lambda path: _OWNED_SPACE.fullmatch(path) is not None,
        sdk="gradio",
    )
    is_private = private or client.visibility(repo_id) == "private"
    client.settle(repo_id, private=is_private, repo_type="space")
    if is_private:
        say("the model is private, so the Space is, too: it needs a token that may read it, as secret HF_TOKEN")
    return commit.url.partition("/commit/")[0]


def _text(content: Content) -> str:
    return (content if isinstance(content, bytes) else content.read_bytes()).decode("utf-8")


def _disk_message(folder: Path, error: OSError) -> str:
    needed = sum((folder / path).stat().st_size for path in belonging_files(folder, read_index(folder)))
    return (
        f"the disk is full: {tempfile.gettempdir()} must have room for two copies of {folder} ({2 * needed:,} bytes)."
        f" Free some, or set TMPDIR to a folder that has it, and run the same command again. ({error.strerror})"
    )
