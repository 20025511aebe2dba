"""A small Hugging Face Hub on 127.0.0.1, for the real clients: point them at it with `HF_ENDPOINT`.

It speaks what publishing and loading models, data sets and Spaces takes: whoami, create, settings, delete, branches,
tags, preupload, LFS (batch, PUT, verify), commit, repository, refs, tree and path listings, files by revision with
ranges, and the check of a card. It can be told to fail (`HubServer.fail`). What is stored is in `hub_store`, what
fails in `hub_faults`, and a connection in `hub_http`.
"""

import base64
import json
import re
import threading
from collections.abc import Callable
from http.server import ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qs, unquote, urlsplit

from hub_faults import Fault, Faults
from hub_http import Connection
from hub_store import TOKEN, USER, Access, Commit, Repo, Store, blob_id, object_id
from hub_validation import problems

__all__ = ["TOKEN", "USER", "HubServer", "blob_id"]

KINDS = {"models": "", "datasets": "datasets/", "spaces": "spaces/"}
PAGE = 50  # entries of a listing at a time, few enough that tests meet a second page
_REPO = r"(?P<kind>models|datasets|spaces)/(?P<repo>[^/]+/[^/]+)"
_FILES = r"/(?P<prefix>datasets/|spaces/)?(?P<repo>(?!api/)[^/]+/[^/]+?)"


class HubServer(Store):
    """`with HubServer() as hub:` serves at `hub.url`; `hub.repos` is what is stored, `hub.requests` what was asked."""

    def __init__(self) -> None:
        super().__init__()
        self.ranges: list[str] = []
        self.faults = Faults()
        self.lock = threading.Lock()
        handler = type("Handler", (_Handler,), {"hub": self, "faults": self.faults})
        self.server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
        self.server.daemon_threads = True
        self.url = f"http://127.0.0.1:{self.server.server_address[1]}"

    @property
    def requests(self) -> list[str]:
        """What was asked, as "METHOD /path"."""
        return self.faults.requests

    def __enter__(self) -> "HubServer":
        threading.Thread(target=self.server.serve_forever, args=(0.02,), daemon=True).start()  # soon shut down again
        return self

    def __exit__(self, *_: object) -> None:
        self.server.shutdown()
        self.server.server_close()

    def environment(self, token: str | None = TOKEN) -> dict[str, str]:
        """What a client needs in its environment; without a token where it is None."""
        env = {"HF_ENDPOINT": self.url, "HF_HUB_DISABLE_XET": "1"}
        return env if token is None else {**env, "HF_TOKEN": token}

    def fail(self, path: str, **how: Any) -> Fault:
        """Order a fault (`hub_faults.Fault`) for the next requests whose "METHOD /path" matches."""
        fault = Fault(path, **how)
        self.faults.append(fault)
        return fault


class _Handler(Connection):
    hub: HubServer

    routes: tuple[tuple[str, str, str], ...] = (
        ("GET", r"/api/whoami-v2", "whoami"),
        ("POST", r"/api/repos/create", "create"),
        ("DELETE", r"/api/repos/delete", "delete"),
        ("POST", r"/api/validate-yaml", "validate"),
        ("PUT", rf"/api/{_REPO}/settings", "settings"),
        ("POST", rf"/api/{_REPO}/preupload/(?P<revision>.+)", "preupload"),
        ("POST", rf"/api/{_REPO}/commit/(?P<revision>.+)", "commit"),
        ("POST", rf"/api/{_REPO}/branch/(?P<branch>.+)", "branch"),
        ("DELETE", rf"/api/{_REPO}/branch/(?P<branch>.+)", "remove_branch"),
        ("POST", rf"/api/{_REPO}/tag/(?P<revision>.+)", "tag"),
        ("POST", rf"/api/{_REPO}/paths-info/(?P<revision>.+)", "paths_info"),
        ("GET", rf"/api/{_REPO}/auth-check(?P<write>/write)?", "auth_check"),
        ("GET", rf"/api/{_REPO}/refs", "refs"),
        ("GET", rf"/api/{_REPO}/tree/(?P<revision>[^/]+)(/(?P<folder>.+))?", "tree"),
        ("GET", rf"/api/{_REPO}(/revision/(?P<revision>.+))?", "info"),
        ("POST", rf"{_FILES}\.git/info/lfs/objects/batch", "lfs_batch"),
        ("PUT", r"/lfs/upload/(?P<oid>[0-9a-f]{64})", "lfs_put"),
        ("POST", r"/lfs/verify", "lfs_verify"),
        ("GET", rf"{_FILES}/resolve/(?P<revision>[^/]+)/(?P<path>.+)", "resolve"),
    )

    # Who may do what

    def dispatch(self, method: str, path: str) -> None:
        access = self._access()
        if access is not None and access.role == "expired":
            return self.error(401, "", "Invalid credentials: the token has expired")
        for allowed, pattern, name in self.routes:
            match = re.fullmatch(pattern, path) if method == allowed else None
            if match is None:
                continue
            call: Callable[..., None] = getattr(self, name)
            parts = {key: unquote(value) for key, value in match.groupdict().items() if value is not None}
            if "repo" not in parts:
                return call(**parts)
            self.kind = parts.pop("kind", (parts.pop("prefix", "models/")).rstrip("/"))
            self.key = KINDS[self.kind] + parts.pop("repo")
            return self._on_repository(call, method, parts)
        return self.error(404, "", f"no such address: {method} {path}")

    def _on_repository(self, call: Callable[..., None], method: str, parts: dict[str, str]) -> None:
        access, repo = self._access(), self.hub.repos.get(self.key)
        is_owner = access is not None and repo is not None and access.user == repo.owner
        if repo is None or (repo.private and not is_owner):
            return self.error(404 if access else 401, "RepoNotFound", "Repository not found")
        is_reading = (method == "GET" and "write" not in parts) or call.__name__ == "paths_info"
        if not is_reading and access is None:
            return self.error(401, "", "Invalid username or password.")
        if not is_reading and not (is_owner and access is not None and access.role == "write"):
            return self.error(403, "", "Forbidden: the token lacks the right to write here")
        return call(**parts)

    def _access(self) -> Access | None:
        return self.hub.tokens.get((self.headers.get("Authorization") or "").removeprefix("Bearer "))

    @property
    def repo(self) -> Repo:
        return self.hub.repos[self.key]

    def _commit(self, revision: str) -> Commit | None:
        commit = self.repo.at(revision)
        if commit is None:
            self.error(404, "RevisionNotFound", f"Invalid rev id: {revision}")
        return commit

    # Account and repositories

    def whoami(self) -> None:
        access = self._access()
        if access is None:
            return self.error(401, "", "Invalid username or password.")
        token = {"role": access.role, "displayName": "loopback"}
        return self.json({"type": "user", "name": access.user, "orgs": [], "auth": {"accessToken": token}})

    def create(self) -> None:
        access = self._access()
        if access is None:
            return self.error(401, "", "Invalid username or password.")
        asked = json.loads(self.body)
        owner, kind = asked.get("organization") or access.user, asked.get("type") or "model"
        name = f"{owner}/{asked['name']}"
        key = KINDS[f"{kind}s"] + name
        answer = {"url": f"{self.hub.url}/{key}", "name": name, "id": name}
        if access.role != "write" or owner != access.user:
            return self.error(403, "", f"You don't have the rights to create a {kind} under the namespace {owner!r}")
        with self.hub.lock:
            if key in self.hub.repos:
                return self.json({**answer, "error": f"You already created this {kind} repo"}, 409)
            is_private = bool(asked.get("private")) or asked.get("visibility") == "private"
            repo = Repo(is_private, owner, {"sdk": asked.get("sdk")} if asked.get("sdk") else {})
            repo.add("initial commit", {".gitattributes": b"*.safetensors filter=lfs diff=lfs merge=lfs -text\n"})
            self.hub.repos[key] = repo
        return self.json(answer)

    def delete(self) -> None:
        asked, access = json.loads(self.body), self._access()
        owner = asked.get("organization") or (access.user if access else USER)
        self.key = f"{KINDS[(asked.get('type') or 'model') + 's']}{owner}/{asked['name']}"
        return self._on_repository(self._delete, "DELETE", {})

    def _delete(self) -> None:
        with self.hub.lock:
            del self.hub.repos[self.key]
        self.json({})

    def settings(self) -> None:
        asked = json.loads(self.body)
        if "private" in asked or "visibility" in asked:
            self.repo.private = bool(asked.get("private")) or asked.get("visibility") == "private"
        self.repo.settings = {**self.repo.settings, **asked}
        self.json({})

    def auth_check(self, write: str = "") -> None:
        self.json({})

    def branch(self, branch: str) -> None:
        start = self._commit(json.loads(self.body or b"{}").get("startingPoint") or "main")
        if start is not None and (branch == "main" or branch in self.repo.branches):
            self.error(409, "", f"Reference already exists: {branch}")
        elif start is not None:
            self.repo.branches[branch] = start.sha
            self.json({})

    def remove_branch(self, branch: str) -> None:
        if self.repo.branches.pop(branch, None) is None:
            return self.error(404, "RevisionNotFound", f"Invalid rev id: {branch}")
        return self.json({})

    def tag(self, revision: str) -> None:
        commit, name = self._commit(revision), json.loads(self.body)["tag"]
        if commit is not None and name in self.repo.tags:
            self.error(409, "", f"Tag already exists: {name}")
        elif commit is not None:
            self.repo.tags[name] = commit.sha
            self.json({})

    def validate(self) -> None:
        asked = json.loads(self.body)
        found = problems(asked["content"], asked["repoType"])
        errors = [{"message": message} for message in found]
        self.json({"errors": errors, "warnings": []}, 400 if errors else 200)

    # Uploading

    def preupload(self, revision: str) -> None:
        head = self._commit(revision)
        if head is None:
            return
        files = head.files
        answer = []
        for asked in json.loads(self.body)["files"]:
            name = asked["path"]
            mode = "lfs" if self.hub.is_large(name, asked["size"]) else "regular"
            oid = None
            if name in files:
                oid = object_id(files[name]) if mode == "lfs" else blob_id(files[name])
            answer.append({"path": name, "uploadMode": mode, "shouldIgnore": False, "oid": oid})
        self.json({"files": answer, "commitOid": head.sha})

    def lfs_batch(self) -> None:
        objects = []
        for asked in json.loads(self.body)["objects"]:
            upload = {"href": f"{self.hub.url}/lfs/upload/{asked['oid']}"}
            verify = {"href": f"{self.hub.url}/lfs/verify"}
            actions = {} if asked["oid"] in self.hub.objects else {"actions": {"upload": upload, "verify": verify}}
            objects.append({**asked, **actions})
        self.json({"transfer": "basic", "objects": objects})

    def lfs_put(self, oid: str) -> None:
        if object_id(self.body) != oid:
            return self.error(400, "", "the content does not have the hash it was announced with")
        self.hub.objects[oid] = self.body
        return self.send(b"")

    def lfs_verify(self) -> None:
        asked = json.loads(self.body)
        if len(self.hub.objects.get(asked["oid"], b"")) != asked["size"]:
            return self.error(404, "", "the object was not uploaded")
        return self.json({})

    def commit(self, revision: str) -> None:
        if self.query.get("create_pr"):
            return self.error(400, "", "pull requests are not served here")
        items = [json.loads(line) for line in self.body.splitlines()]
        header = next(item["value"] for item in items if item["key"] == "header")
        with self.hub.lock:
            if self.key not in self.hub.repos:
                return self.error(404, "RepoNotFound", "Repository not found")
            head = self._commit(revision)
            if head is None:
                return None
            if header.get("parentCommit") not in (None, head.sha):
                return self.error(412, "", "A commit has happened since. Please refresh and try again.")
            files = dict(head.files)
            problem = next(filter(None, (self._apply(item, files) for item in items)), "") or self._card_problem(files)
            if problem:
                return self.error(400, "", problem)
            sha = self.repo.add(header["summary"], files, revision).sha
        url = f"{self.hub.url}/{self.key}/commit/{sha}"
        return self.json({"success": True, "commitOid": sha, "commitUrl": url, "hookOutput": ""})

    def _apply(self, item: dict[str, Any], files: dict[str, bytes]) -> str:
        """Carry out one operation of a commit on a copy of the files; what is wrong with it, or ""."""
        kind, value = item["key"], item["value"]
        if kind == "file":
            files[value["path"]] = base64.b64decode(value["content"])
        elif kind == "lfsFile":
            if value["oid"] not in self.hub.objects:
                return f"LFS object of {value['path']} was not uploaded"
            files[value["path"]] = self.hub.objects[value["oid"]]
        elif kind == "deletedFile":
            if files.pop(value["path"], None) is None:
                return f"{value['path']} is to be deleted but does not exist"
        elif kind == "deletedFolder":
            for path in [path for path in files if path.startswith(value["path"].rstrip("/") + "/")]:
                del files[path]
        elif kind != "header":
            return f"unknown operation {kind}"
        return ""

    def _card_problem(self, files: dict[str, bytes]) -> str:
        card = files.get("README.md", b"").decode()
        found = problems(card, self.kind.removesuffix("s")) if card.startswith("---") else []
        return f"Invalid metadata in README.md: {'; '.join(found)}" if found else ""

    # Reading

    def info(self, revision: str = "main") -> None:
        commit = self._commit(revision)
        if commit is None:
            return
        name = self.key.removeprefix(KINDS[self.kind])
        siblings: list[dict[str, Any]] = [{"rfilename": path} for path in sorted(commit.files)]
        if self.query.get("blobs", "").lower() == "true":
            for sibling in siblings:
                entry = self.hub.entry(commit, sibling["rfilename"]) or {}
                lfs = {"sha256": entry["lfs"]["oid"], **entry["lfs"]} if "lfs" in entry else None
                sibling |= {"size": entry["size"], "blobId": entry["oid"], **({"lfs": lfs} if lfs else {})}
        sdk = {"sdk": self.repo.settings["sdk"]} if "sdk" in self.repo.settings else {}
        facts = {"id": name, "sha": commit.sha, "private": self.repo.private, "siblings": siblings, "tags": [], **sdk}
        self.json({**facts, "author": self.repo.owner, "disabled": False, "gated": False, "downloads": 0, "likes": 0})

    def refs(self) -> None:
        named = {"main": self.repo.commits[-1].sha, **self.repo.branches}
        branches = [{"name": n, "ref": f"refs/heads/{n}", "targetCommit": sha} for n, sha in named.items()]
        tags = [{"name": n, "ref": f"refs/tags/{n}", "targetCommit": sha} for n, sha in self.repo.tags.items()]
        self.json({"branches": branches, "converts": [], "tags": tags})

    def tree(self, revision: str, folder: str = "") -> None:
        commit = self._commit(revision)
        if commit is None:
            return
        recursive, expand = (self.query.get(name, "").lower() == "true" for name in ("recursive", "expand"))
        entries = self.hub.listing(commit, folder.strip("/"), recursive, expand)
        if folder and not entries:
            return self.error(404, "EntryNotFound", f"{folder} does not exist on {revision}")
        start = int(self.query.get("cursor", 0))
        more = {}
        if start + PAGE < len(entries):
            query = "&".join(f"{name}={value}" for name, value in {**self.query, "cursor": start + PAGE}.items())
            more["Link"] = f'<{self.hub.url}{urlsplit(self.path).path}?{query}>; rel="next"'
        return self.json(entries[start : start + PAGE], **more)

    def paths_info(self, revision: str) -> None:
        commit = self._commit(revision)
        if commit is None:
            return
        if "json" in (self.headers.get("Content-Type") or ""):
            asked = json.loads(self.body)
            paths, expand = asked["paths"], bool(asked.get("expand"))
        else:
            form = parse_qs(self.body.decode())
            paths, expand = form["paths"], form.get("expand", [""])[0].lower() == "true"
        found = [self.hub.entry(commit, path.strip("/"), expand) for path in paths]
        self.json([entry for entry in found if entry is not None])

    def resolve(self, revision: str, path: str) -> None:
        commit = self._commit(revision)
        if commit is None:
            return
        if path not in commit.files:
            return self.error(404, "EntryNotFound", "Entry not found")
        data = commit.files[path]
        headers: dict[str, Any] = {"ETag": f'"{blob_id(data)}"', "X_Repo_Commit": commit.sha, "Accept_Ranges": "bytes"}
        if self.hub.is_large(path, len(data)):
            headers |= {"X_Linked_ETag": f'"{object_id(data)}"', "X_Linked_Size": str(len(data))}
            headers["ETag"] = headers["X_Linked_ETag"]
        asked = re.fullmatch(r"bytes=(\d+)-(\d*)", self.headers.get("Range") or "")
        if asked is None or int(asked[1]) >= max(1, len(data)):
            return self.send(data, **headers)
        start, end = int(asked[1]), min(int(asked[2] or len(data) - 1), len(data) - 1)
        self.hub.ranges.append(f"{path} {start}-{end}")
        return self.send(data[start : end + 1], 206, Content_Range=f"bytes {start}-{end}/{len(data)}", **headers)
