"""What the loopback Hub stores: repositories as rows of whole commits, large objects, access tokens. All in memory."""

import fnmatch
import hashlib
import json
from dataclasses import dataclass, field
from typing import Any

USER = "tester"
TOKEN = "hf_loopback"

# As in the .gitattributes that the Hub gives a new repository: these go through LFS whatever their size.
LFS_PATTERNS = ("*.safetensors", "*.parquet", "*.png", "*.gif", "*.npz", "*.zip", "*.bin", "*.arrow")


def blob_id(content: bytes) -> str:
    """git's name for a file's content."""
    return hashlib.sha1(b"blob %d\0" % len(content) + content).hexdigest()


def object_id(content: bytes) -> str:
    """LFS's name for a file's content."""
    return hashlib.sha256(content).hexdigest()


@dataclass(frozen=True)
class Commit:
    """The whole repository at one moment."""

    sha: str
    title: str
    files: dict[str, bytes]


@dataclass
class Repo:
    """One repository. `add` shows a commit by a single assignment, so nobody ever sees half of one."""

    private: bool
    owner: str = USER
    settings: dict[str, Any] = field(default_factory=dict)
    commits: list[Commit] = field(default_factory=list)
    branches: dict[str, str] = field(default_factory=dict)

    def at(self, revision: str) -> Commit | None:
        commits = self.commits
        if revision in ("main", "HEAD", "refs/heads/main"):
            return commits[-1]
        sha = self.branches.get(revision, revision)
        return next((commit for commit in commits if commit.sha == sha), None)

    def add(self, title: str, files: dict[str, bytes]) -> Commit:
        text = json.dumps([len(self.commits), title, {name: blob_id(data) for name, data in files.items()}])
        commit = Commit(hashlib.sha1(text.encode()).hexdigest(), title, files)
        self.commits = [*self.commits, commit]
        return commit


@dataclass(frozen=True)
class Access:
    """What a token may do: role "write", "read" or "expired"."""

    user: str
    role: str


class Store:
    """Repositories by key ("user/name", "datasets/user/name", "spaces/user/name"), large objects, tokens."""

    def __init__(self) -> None:
        self.repos: dict[str, Repo] = {}
        self.objects: dict[str, bytes] = {}
        self.tokens = {TOKEN: Access(USER, "write")}
        self.lfs_threshold = 10_000_000

    def add_token(self, token: str, role: str, user: str = USER) -> None:
        """Make a token known.

        Raises:
            ValueError: Unknown role.
        """
        if role not in ("write", "read", "expired"):
            raise ValueError(f"unknown role {role!r}; choose write, read or expired")
        self.tokens[token] = Access(user, role)

    def is_large(self, path: str, size: int) -> bool:
        """Whether the Hub would have a file sent as an LFS object."""
        return size >= self.lfs_threshold or any(fnmatch.fnmatch(path, pattern) for pattern in LFS_PATTERNS)

    def snapshot(self, everything: bool = False) -> dict[str, tuple[bool, str, dict[str, str]]]:
        """What a stranger sees, {key: (private, head, {path: blob id})}: public repositories that hold more than their
        initial commit; with `everything`, all."""
        return {
            key: (repo.private, repo.commits[-1].sha, {p: blob_id(data) for p, data in repo.commits[-1].files.items()})
            for key, repo in sorted(self.repos.items())
            if everything or (not repo.private and len(repo.commits) > 1)
        }
