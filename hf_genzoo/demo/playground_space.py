"""The GAN playground as a static Space: the page's own files, which compute in the visitor's browser, and a card."""

import re
from collections.abc import Callable, Mapping
from importlib import resources

from huggingface_hub import constants

from hf_genzoo.demo.playground_server import FOLDER, NAME
from hf_genzoo.demo.space import space_card
from hf_genzoo.hub.client import Content, HubClient, HubError, check_name
from hf_genzoo.hub.layout import CARD
from hf_genzoo.hub.patience import Patience
from hf_genzoo.hub.publisher import Published

_COMMAND = f"genzoo publish {NAME}"  # in the card: what tells a playground from somebody else's Space
_TEXT = f"""\
A small GAN ([Generative Adversarial Networks](https://arxiv.org/abs/1406.2661), Goodfellow et al. 2014) learns points
in the plane while you watch: the generated points, how sure the discriminator is of each place, and where its gradient
sends them. Everything is computed in your browser; nothing is sent anywhere. Choose data, loss, learning rates and
penalty, pause, go on step by step, and share what you see as a link.

Published with hf_genzoo, `{_COMMAND}`."""
_OWNED = re.compile(r"[^/]+\.(html|js)")  # what a later publication may remove


def playground_files() -> dict[str, bytes]:
    """Everything that the Space holds: contents by path."""
    card = space_card(
        "GAN playground",
        _TEXT,
        sdk="static",
        app_file="index.html",
        short_description="A small GAN learns in your browser while you watch",
    )
    pages = {page.name: page.read_bytes() for page in (resources.files("hf_genzoo.demo") / FOLDER).iterdir()}
    return {CARD: card.encode(), **pages}


def publish_playground(
    repo_id: str,
    *,
    private: bool = False,
    dry_run: bool = False,
    token: str | None = None,
    say: Callable[[str], None] = print,
    patience: Patience | None = None,
) -> Published:
    """Publish the playground as a static Space: one commit, compared file by file, then shown.

    Args:
        repo_id: "user/name" of the Space; made if it does not exist.
        private: Keep a new Space private. One that exists keeps its visibility.
        dry_run: Say what would go up, and leave the Hub alone.
        token: A token that may write; the one of `hf auth login` if None.
        say: Told what happens, line by line.
        patience: How often a call is tried.

    Raises:
        HubError: The name, the token or the Hub is no good, or the Space holds something else.
    """
    files = playground_files()
    url = f"{constants.ENDPOINT}/spaces/{repo_id}"
    sizes = {path: len(content) for path, content in files.items()}
    if dry_run:
        check_name(repo_id)
        return Published(repo_id, None, url, False, sizes, "")
    client = HubClient(token, patience)
    client.check_private(repo_id, private=private, say=say, repo_type="space")
    _check_ours(client, repo_id)
    say(f"uploading {len(files)} files to the Space {repo_id}")
    commit = client.commit(
        repo_id,
        files,
        message=f"Publish the playground {NAME} with hf_genzoo",
        repo_type="space",
        owned=lambda path: _OWNED.fullmatch(path) is not None,
        sdk="static",
    )
    _check_arrived(client, repo_id, files)
    client.settle(repo_id, private=private, repo_type="space")
    return Published(repo_id, commit.sha, url, commit.changed, sizes, "")


def _check_ours(client: HubClient, repo_id: str) -> None:
    """Nothing of somebody else's is written over.

    Raises:
        HubError: The Space exists and is no playground.
    """
    if client.visibility(repo_id, "space") is None or client.is_unfinished(repo_id, "space"):
        return
    if _COMMAND.encode() not in (client.read(repo_id, CARD, "space") or b""):
        raise HubError(
            f"the Space {repo_id} holds something else already: choose another name, or rename it on the Hub"
        )


def _check_arrived(client: HubClient, repo_id: str, files: Mapping[str, Content]) -> None:
    """The Space holds what was sent.

    Raises:
        HubError: A file is not there, or another.
    """
    wrong = [path for path in client.differing(repo_id, files, "space") if path in files]
    if wrong:
        raise HubError(f"{', '.join(wrong)} did not arrive in the Space {repo_id}; run the same command again")
