"""What the loopback Hub stores: repositories as rows of whole commits, large objects, access tokens. All in memory."""

import fnmatch
import hashlib
import json
from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import datetime, timezone
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
    parent: "Commit | None" = None
    date: str = field(
        default_factory=lambda: datetime.now(timezone.utc).isoformat(timespec="milliseconds").replace("+00:00", "Z")
    )

    def last_change(self, path: str) -> "Commit":
        """The commit that gave a file its present content."""
        last = self
        while last.parent is not None and last.parent.files.get(path) == self.files[path]:
            last = last.parent
        return last


@dataclass
class Repo:
    """One repository. `add` shows a commit by a single assignment, so nobody ever sees half of one.

    `commits` are those of the branch "main"; the commits that other branches add to it are in `others`.
    """

    private: bool
    owner: str = USER
    settings: dict[str, Any] = field(default_factory=dict)
    commits: list[Commit] = field(default_factory=list)
    others: list[Commit] = field(default_factory=list)
    branches: dict[str, str] = field(default_factory=dict)
    tags: dict[str, str] = field(default_factory=dict)

    def at(self, revision: str) -> Commit | None:
        """The commit of a branch, a tag or a hash."""
        commits = self.commits
        name = revision.removeprefix("refs/heads/")
        if name in ("main", "HEAD"):
            return commits[-1]
        sha = self.branches.get(name) or self.tags.get(name) or name
        return next((commit for commit in (*commits, *self.others) if commit.sha == sha), None)

    def add(self, title: str, files: dict[str, bytes], branch: str = "main") -> Commit:
        """Put a commit onto a branch that exists."""
        parent = self.at(branch) if self.commits else None
        named = {name: blob_id(data) for name, data in files.items()}
        text = json.dumps([len(self.commits) + len(self.others), title, named])
        commit = Commit(hashlib.sha1(text.encode()).hexdigest(), title, files, parent)
        if branch == "main":
            self.commits = [*self.commits, commit]
        else:
            self.others = [*self.others, commit]
            self.branches[branch] = commit.sha
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

    def entry(self, commit: Commit, path: str, expand: bool = False) -> dict[str, Any] | None:
        """What a listing says of a file or folder; None if there is none."""
        if path not in commit.files:
            is_folder = any(name.startswith(f"{path}/") for name in commit.files)
            return {"type": "directory", "path": path, "oid": blob_id(path.encode()), "size": 0} if is_folder else None
        data = commit.files[path]
        found: dict[str, Any] = {"type": "file", "path": path, "size": len(data), "oid": blob_id(data)}
        if self.is_large(path, len(data)):
            found["lfs"] = {"oid": object_id(data), "size": len(data), "pointerSize": 128}
        if expand:
            last = commit.last_change(path)
            found["lastCommit"] = {"id": last.sha, "title": last.title, "date": last.date}
        return found

    def listing(self, commit: Commit, folder: str, recursive: bool, expand: bool = False) -> list[dict[str, Any]]:
        """The folders, then the files below a folder ("" for the root), all of them or its own only."""
        inside = f"{folder}/" if folder else ""
        below = [path for path in sorted(commit.files) if path.startswith(inside)]
        folders = dict.fromkeys(parent for path in below for parent in _parents(path, inside))
        files = [path for path in below if recursive or "/" not in path.removeprefix(inside)]
        shown = [path for path in folders if recursive or "/" not in path.removeprefix(inside)]
        return [found for path in (*shown, *files) if (found := self.entry(commit, path, expand))]


def _parents(path: str, inside: str) -> Iterator[str]:
    """The folders between a folder and a file in it, outermost first."""
    parts = path.removeprefix(inside).split("/")[:-1]
    for i in range(len(parts)):
        yield inside + "/".join(parts[: i + 1])
