"""What this package asks of the Hub, patiently and in plain words.

A call is tried again when the connection breaks, the server is overloaded (429, with its Retry-After) or fails (5xx);
any other refusal becomes one sentence that says what to do. A token never appears in what is said.
"""

import hashlib
import sys
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

from huggingface_hub import CommitOperationAdd, CommitOperationDelete, HfApi, get_token
from huggingface_hub.errors import (
    EntryNotFoundError,
    HFValidationError,
    LocalEntryNotFoundError,
    OfflineModeIsEnabled,
    RepositoryNotFoundError,
)
from huggingface_hub.utils import validate_repo_id

from hf_genzoo.data.fingerprint import cache_root
from hf_genzoo.hub.patience import Patience, is_disk_full, may_pass, status_of
from hf_genzoo.hub.secrets import is_sound, scrub

LOGIN = "run `hf auth login` with a token that may write, or set HF_TOKEN"

_KINDS = {"model": "", "dataset": "datasets/", "space": "spaces/"}
_GIVEN = {".gitattributes", "README.md"}  # what the Hub itself may put into a new repository
_AGAIN = "run the same command again to make it anew"

T = TypeVar("T")
Content = Path | bytes


class HubError(ValueError):
    """The Hub, or what was asked of it, is no good; the message says what to do. Nothing half-done shows there."""


@dataclass(frozen=True)
class Commit:
    """What came of an upload: the commit that holds the content, its page, whether it was made now."""

    sha: str
    url: str
    changed: bool


def check_name(repo_id: str, user: str = "user") -> None:
    """Check the form of a repository's name.

    Args:
        repo_id: "user/name".
        user: Who asks, for the remedy.

    Raises:
        HubError: It is no name of a repository, or lacks its owner.
    """
    try:
        validate_repo_id(repo_id)
    except HFValidationError as error:
        raise HubError(f"{repo_id!r} is not a repository name: {error}") from None
    if "/" not in repo_id:
        raise HubError(f"{repo_id!r} lacks its owner: pass '{user}/{repo_id}'")


class HubClient:
    """One account's view of the Hub.

    Args:
        token: A token that may write; the one of `hf auth login` or HF_TOKEN if None.
        patience: How often to try.

    Raises:
        HubError: There is no token, the Hub does not take it, or it may only read.
    """

    def __init__(self, token: str | None = None, patience: Patience | None = None) -> None:
        self.token = (token or get_token() or "").strip()
        self.patience = patience or Patience()
        if not self.token:
            raise HubError(f"no access token: {LOGIN}")
        if not is_sound(self.token):
            raise HubError(f"the access token holds characters that no token has: {LOGIN}")
        self.api = HfApi(token=self.token, library_name="hf_genzoo")
        account: dict[str, Any] = self.ask("asking who you are", lambda: self.api.whoami())
        self.user = str(account["name"])
        if account.get("auth", {}).get("accessToken", {}).get("role") == "read":
            raise HubError(f"the token of {self.user!r} may only read: {LOGIN}")

    def ask(self, what: str, call: Callable[[], T]) -> T:
        """Call the Hub, again where that may help.

        Args:
            what: What is being done, for messages: "uploading user/name".
            call: Does it; each try starts from nothing.

        Raises:
            HubError: It did not work out, with the reason and the remedy.
            EntryNotFoundError, RepositoryNotFoundError: As they are; the caller knows what they mean.
            OSError: The disk is full; the caller knows which.
        """
        for attempt in range(self.patience.tries):
            try:
                return call()
            except (EntryNotFoundError, RepositoryNotFoundError) as error:
                if not isinstance(error, LocalEntryNotFoundError) and status_of(error) != 401:
                    raise
                reason: Exception = error
            except Exception as error:
                if is_disk_full(error):
                    raise
                reason = error
            # Outside the handler: what is raised from here shows no client error, whose text may hold what was sent.
            if not may_pass(reason):
                raise HubError(f"{what}: {self._explained(reason)}") from None
            if attempt + 1 < self.patience.tries:
                pause = self.patience.pause(attempt, reason)
                print(f"{what}: {_short(reason, self.token)}; trying again in {pause:.0f} s", file=sys.stderr)
                time.sleep(pause)
        raise HubError(
            f"{what}: gave up after {self.patience.tries} tries ({_short(reason, self.token)}). Nothing half-done is"
            " visible on the Hub; run the same command again when the connection is back"
        )

    def _explained(self, error: Exception) -> str:
        status = status_of(error)
        if isinstance(error, OfflineModeIsEnabled):
            return "HF_HUB_OFFLINE is set, which forbids all calls of the Hub; unset it"
        if status == 401:
            return f"the Hub does not accept the token: it is wrong or has expired; {LOGIN}"
        if status == 403:
            return (
                f"the token of {getattr(self, 'user', 'this account')!r} may not write there (another's name, or a"
                " token without the right): choose a name of your own, or make a token that may write and log in with"
                " it (`hf auth login`)"
            )
        return _short(error, self.token)

    def key(self, repo_id: str, repo_type: str = "model") -> str:
        """The path of a repository's page, after checking its name.

        Raises:
            HubError: It is no name of a repository, or lacks its owner.
        """
        check_name(repo_id, self.user)
        return f"{_KINDS[repo_type]}{repo_id}"

    def visibility(self, repo_id: str, repo_type: str = "model") -> str | None:
        """ "public" or "private"; None where there is no such repository that this token can see."""
        key = self.key(repo_id, repo_type)
        try:
            facts: Any = self.ask(f"looking for {key}", lambda: self.api.repo_info(repo_id, repo_type=repo_type))
        except RepositoryNotFoundError:
            return None
        return "private" if facts.private else "public"

    def check_private(
        self, repo_id: str, *, private: bool, say: Callable[[str], None], repo_type: str = "model"
    ) -> None:
        """A repository that exists keeps its visibility: refuse what that would expose, say what stays hidden.

        Raises:
            HubError: What is to be private would go into a public repository.
        """
        key, before = self.key(repo_id, repo_type), self.visibility(repo_id, repo_type)
        if private and before == "public":
            raise HubError(
                f"{key} is public, so --private cannot be kept: make it private in its settings on the Hub first, or"
                " choose another name. Nothing was sent"
            )
        if not private and before == "private" and not self.is_unfinished(repo_id, repo_type):
            say(f"{key} is private and stays so; its settings on the Hub make it public")

    def read(self, repo_id: str, path: str, repo_type: str = "model") -> bytes | None:
        """A file of the repository as it is now, or None where there is none; nothing is cached."""
        import tempfile

        def download() -> bytes:
            with tempfile.TemporaryDirectory(prefix="genzoo-read-") as folder:
                found = self.api.hf_hub_download(repo_id, path, repo_type=repo_type, cache_dir=folder)
                return Path(found).read_bytes()

        try:
            return self.ask(f"reading {path} of {repo_id}", download)
        except (EntryNotFoundError, RepositoryNotFoundError):
            return None

    def differing(self, repo_id: str, files: Mapping[str, Content], repo_type: str = "model") -> list[str]:
        """The paths, among those given and those of the repository, whose content is not the same in both."""

        def listing() -> dict[str, tuple[str, str | None]]:
            entries = self.api.list_repo_tree(repo_id, recursive=True, repo_type=repo_type)
            return {e.path: (e.blob_id, e.lfs.sha256 if e.lfs else None) for e in entries if hasattr(e, "blob_id")}  # type: ignore[union-attr]

        try:
            there = self.ask(f"listing {repo_id}", listing)
        except RepositoryNotFoundError:
            there = {}
        return sorted(
            path
            for path in {*files, *there}
            if path not in there or path not in files or not _is_same(files[path], *there[path])
        )

    def commit(
        self,
        repo_id: str,
        files: Mapping[str, Content],
        *,
        message: str,
        repo_type: str = "model",
        owned: Callable[[str], bool] = lambda path: False,
        sdk: str | None = None,
    ) -> Commit:
        """Put files into a repository by one commit.

        A repository that does not exist is made, private until `settle`; when the upload then fails it is removed,
        if it is still empty.

        Args:
            repo_id: "user/name".
            files: Path in the repository -> local file or content.
            message: Title of the commit.
            repo_type: "model", "dataset" or "space".
            owned: Whether a path of the repository that is not among `files` is to be removed.
            sdk: What runs a Space.

        Returns:
            The commit, or the head where nothing had to change.

        Raises:
            HubError: Nothing was changed on the Hub.
        """
        is_new = self.visibility(repo_id, repo_type) is None
        try:
            if is_new:
                self._make(repo_id, repo_type, sdk)
            return self._upload(repo_id, files, message, repo_type, owned)
        except BaseException:
            if is_new:
                self._remove_again(repo_id, repo_type)
            raise

    def _make(self, repo_id: str, repo_type: str, sdk: str | None) -> None:
        """Make a repository and the mark of it. Where somebody made it just now and put files there, it is theirs."""
        key, mark = self.key(repo_id, repo_type), self._mark(repo_id, repo_type)

        def create() -> object:  # it may exist by now: made by an earlier try, whose answer was lost, or by others
            return self.api.create_repo(repo_id, private=True, exist_ok=True, repo_type=repo_type, space_sdk=sdk)

        mark.parent.mkdir(parents=True, exist_ok=True)
        mark.touch()  # before the repository: a kill in between must not leave one that nobody remembers
        self.ask(f"making {key}", create)
        try:
            is_empty = self.ask(f"making {key}", lambda: self._is_empty(repo_id, repo_type))
        except RepositoryNotFoundError:
            raise HubError(
                f"making {key}: the name is taken by a private repository that this token cannot see; choose another"
            ) from None
        if not is_empty:
            mark.unlink(missing_ok=True)

    def _is_empty(self, repo_id: str, repo_type: str) -> bool:
        return set(self.api.list_repo_files(repo_id, repo_type=repo_type)) <= _GIVEN

    def _upload(
        self, repo_id: str, files: Mapping[str, Content], message: str, repo_type: str, owned: Callable[[str], bool]
    ) -> Commit:
        def head() -> str:
            return str(self.api.repo_info(repo_id, repo_type=repo_type).sha)

        def upload() -> str:
            # Made anew at each try: an operation remembers how far it came.
            operations: list[Any] = [
                CommitOperationAdd(path, content if isinstance(content, bytes) else str(content))
                for path, content in files.items()
            ]
            present = self.api.list_repo_files(repo_id, repo_type=repo_type)
            operations += [CommitOperationDelete(path) for path in present if path not in files and owned(path)]
            return self.api.create_commit(repo_id, operations, commit_message=message, repo_type=repo_type).oid

        what = f"uploading to {_KINDS[repo_type]}{repo_id}"
        try:
            before = self.ask(what, head)
            sha = self.ask(what, upload)
        except (EntryNotFoundError, RepositoryNotFoundError):
            raise HubError(f"{what}: it was removed meanwhile; {_AGAIN}") from None
        return Commit(sha, f"{self.api.endpoint}/{_KINDS[repo_type]}{repo_id}/commit/{sha}", sha != before)

    def _remove_again(self, repo_id: str, repo_type: str) -> None:
        """Delete what `_make` made, if it is empty. One that holds the upload, whose answer was lost, or that cannot
        be reached, stays: private, and marked, so that the next run goes on with it."""
        mark = self._mark(repo_id, repo_type)
        try:
            if mark.exists() and self._is_empty(repo_id, repo_type):
                self.api.delete_repo(repo_id, repo_type=repo_type, missing_ok=True)
                mark.unlink()
        except RepositoryNotFoundError:  # it was never made
            mark.unlink(missing_ok=True)
        except Exception as error:
            print(
                f"an empty private {repo_id} may stay on the Hub ({_short(error, self.token)}); the same command goes"
                " on with it",
                file=sys.stderr,
            )

    def is_unfinished(self, repo_id: str, repo_type: str = "model") -> bool:
        """Whether a repository was made from this machine and not settled yet: it is private only because of that."""
        return self._mark(repo_id, repo_type).exists()

    def settle(self, repo_id: str, *, private: bool, repo_type: str = "model") -> None:
        """Give a repository that `commit` has made its visibility; one that existed before keeps what it has.

        Args:
            repo_id: "user/name", whose content is complete and checked.
            private: Keep it private.
            repo_type: "model", "dataset" or "space".
        """
        if not self.is_unfinished(repo_id, repo_type):
            return
        if not private:
            self.reveal(repo_id, repo_type)
        self._mark(repo_id, repo_type).unlink(missing_ok=True)

    def reveal(self, repo_id: str, repo_type: str = "model") -> None:
        """Make a repository public."""
        what = f"making {_KINDS[repo_type]}{repo_id} public"
        try:
            self.ask(what, lambda: self.api.update_repo_settings(repo_id, private=False, repo_type=repo_type))
        except RepositoryNotFoundError:
            raise HubError(f"{what}: it was removed meanwhile; {_AGAIN}") from None

    def _mark(self, repo_id: str, repo_type: str) -> Path:
        """A file that stands for "made here, not settled yet": it outlives a kill and a Hub out of reach."""
        name = hashlib.sha256(f"{self.api.endpoint}/{_KINDS[repo_type]}{repo_id}".encode()).hexdigest()[:20]
        return cache_root(None) / "unfinished" / name


def _is_same(content: Content, blob_id: str, sha256: str | None) -> bool:
    """Whether local content has the name the Hub gives it: git's, or LFS's for large files."""
    data = content if isinstance(content, bytes) else content.read_bytes()
    if sha256 is not None:
        return hashlib.sha256(data).hexdigest() == sha256
    return hashlib.sha1(b"blob %d\0" % len(data) + data).hexdigest() == blob_id


def _short(error: BaseException, token: str | None) -> str:
    """The first line of an error, with its kind where the text alone says little."""
    status = status_of(error)
    if status == 429:
        return "the Hub asks for fewer requests (429)"
    if status is not None and status >= 500:
        return f"the Hub has a fault of its own ({status})"
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    text = " ".join(lines[:3]) if lines else type(error).__name__
    return scrub(text, token)
