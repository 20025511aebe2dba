"""Upload an exported folder in one commit."""

from pathlib import Path

from huggingface_hub import CommitOperationAdd, CommitOperationDelete, HfApi, get_token
from huggingface_hub.errors import HFValidationError
from huggingface_hub.utils import validate_repo_id

from hf_genzoo.hub.card import relocate
from hf_genzoo.hub.check_folder import check_folder
from hf_genzoo.hub.layout import CARD, belonging_files, read_index

OWNED_SUFFIXES = (".py", ".safetensors", ".safetensors.index.json")  # what a later push may remove from a repository


class PushError(ValueError):
    """The folder or the request cannot be pushed; nothing was created or changed on the Hub."""


def push(folder: str | Path, repo_id: str, *, private: bool | None = None, token: str | None = None) -> str:
    """Upload an exported folder to the Hub: weights, code, card and pictures in one commit.

    Only what belongs to the repository goes up (`hf_genzoo.hub.layout.belonging_files`): checkpoints, logs, sample
    folders, optimiser state and hidden files stay. Code and weights of an earlier push that this one does not name are
    removed in the same commit; an unchanged folder makes no commit. In the card, the repository's name takes the place
    of the folder's.

    Args:
        folder: An exported folder.
        repo_id: "user/name" or "organisation/name"; made if it does not exist.
        private: Make a new repository private; the account's default if None.
        token: A token that may write; the one of `hf auth login` if None.

    Returns:
        The commit's address.

    Raises:
        PushError: The name, the token or the folder is no good; nothing was created on the Hub.
        LayoutError: The folder is not an exported pipeline.
        huggingface_hub.errors.HfHubHTTPError: The Hub refused; before the commit nothing of the folder is visible.
    """
    folder = Path(folder)
    index = read_index(folder)
    problems = check_folder(folder)
    if problems:
        raise PushError(f"{folder} is not fit to be published:\n- " + "\n- ".join(problems))
    try:
        validate_repo_id(repo_id)
    except HFValidationError as error:
        raise PushError(f"{repo_id!r} is not a repository name: {error}") from error
    if "/" not in repo_id:
        raise PushError(f"{repo_id!r} lacks its owner: pass 'user/{repo_id}'")
    if not (token or get_token()):
        raise PushError("no access token: run `hf auth login` with a token that may write, or set HF_TOKEN")
    api = HfApi(token=token, library_name="hf_genzoo")
    additions = _additions(folder, [*belonging_files(folder, index)], repo_id, api)
    api.create_repo(repo_id, private=private, exist_ok=True)
    local = {addition.path_in_repo for addition in additions}
    stale = [
        CommitOperationDelete(name)
        for name in api.list_repo_files(repo_id)
        if name.endswith(OWNED_SUFFIXES) and name not in local
    ]
    message = f"Publish {index.pipeline[1]} with hf_genzoo"
    return api.create_commit(repo_id, [*additions, *stale], commit_message=message).commit_url


def _additions(folder: Path, files: list[Path], repo_id: str, api: HfApi) -> list[CommitOperationAdd]:
    """The files as upload operations; each is read and hashed here, before anything exists on the Hub."""
    additions = []
    for path in files:
        content: str | bytes = str(folder / path)
        if path.as_posix() == CARD:
            card = (folder / path).read_text(encoding="utf-8")
            content = relocate(card, repo_id, f"{api.endpoint}/{repo_id}/resolve/main").encode("utf-8")
        additions.append(CommitOperationAdd(path.as_posix(), content))
    return additions
