"""A small Hugging Face Hub on 127.0.0.1, for the real clients: point them at it with `HF_ENDPOINT`.

It speaks what publishing and loading models, data sets and Spaces takes: whoami, create, settings, delete, preupload,
LFS (batch, PUT, verify), commit, repository, refs, tree and path listings, files by revision with ranges, and the
check of a card. It can be told to fail (`HubServer.fail`). `hub_store` has what is stored, `hub_faults` what fails.
"""

import base64
import json
import re
import socket
import threading
import time
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qs, unquote, urlsplit

from hub_faults import Fault
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
        self.requests: list[str] = []
        self.ranges: list[str] = []
        self.faults: list[Fault] = []
        self.lock = threading.Lock()
        handler = type("Handler", (_Handler,), {"hub": self})
        self.server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
        self.server.daemon_threads = True
        self.url = f"http://127.0.0.1:{self.server.server_address[1]}"

    def __enter__(self) -> "HubServer":
        threading.Thread(target=self.server.serve_forever, daemon=True).start()
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
        with self.lock:
            self.faults.append(fault)
        return fault

    def struck(self, request: str) -> Fault | None:
        """The first fault that strikes a request."""
        with self.lock:
            hits = [fault for fault in self.faults if fault.strikes(request)]
        return hits[0] if hits else None


class _CutError(Exception):
    """The connection is to be cut now."""


class _Handler(BaseHTTPRequestHandler):
    hub: HubServer
    protocol_version = "HTTP/1.1"

    routes: tuple[tuple[str, str, str], ...] = (
        ("GET", r"/api/whoami-v2", "whoami"),
        ("POST", r"/api/repos/create", "create"),
        ("DELETE", r"/api/repos/delete", "delete"),
        ("POST", r"/api/validate-yaml", "validate"),
        ("PUT", rf"/api/{_REPO}/settings", "settings"),
        ("POST", rf"/api/{_REPO}/preupload/(?P<revision>.+)", "preupload"),
        ("POST", rf"/api/{_REPO}/commit/(?P<revision>.+)", "commit"),
        ("POST", rf"/api/{_REPO}/branch/(?P<branch>.+)", "branch"),
        ("POST", rf"/api/{_REPO}/paths-info/(?P<revision>.+)", "paths_info"),
        ("GET", rf"/api/{_REPO}/auth-check", "auth_check"),
        ("GET", rf"/api/{_REPO}/refs", "refs"),
        ("GET", rf"/api/{_REPO}/tree/(?P<revision>[^/]+)(/(?P<folder>.+))?", "tree"),
        ("GET", rf"/api/{_REPO}(/revision/(?P<revision>.+))?", "info"),
        ("POST", rf"{_FILES}\.git/info/lfs/objects/batch", "lfs_batch"),
        ("PUT", r"/lfs/upload/(?P<oid>[0-9a-f]{64})", "lfs_put"),
        ("POST", r"/lfs/verify", "lfs_verify"),
        ("GET", rf"{_FILES}/resolve/(?P<revision>[^/]+)/(?P<path>.+)", "resolve"),
    )

    def do_GET(self) -> None:
        self._serve("GET")

    def do_HEAD(self) -> None:
        self._serve("GET")

    def do_POST(self) -> None:
        self._serve("POST")

    def do_PUT(self) -> None:
        self._serve("PUT")

    def do_DELETE(self) -> None:
        self._serve("DELETE")

    def log_message(self, format: str, *args: object) -> None:
        """Keep the test's output clean."""

    # What happens to every request

    def _serve(self, method: str) -> None:
        url = urlsplit(self.path)
        request = f"{self.command} {url.path}"
        self.hub.requests.append(request)
        fault = self.hub.struck(request)
        self.answer_is_lost = False
        try:
            self.body = self._read_body(fault)
            self.query = {name: values[0] for name, values in parse_qs(url.query).items()}
            if fault and fault.delay:
                time.sleep(fault.delay)
            if fault and fault.status:
                self._json({"error": f"ordered to fail: {fault.status}"}, fault.status, **(fault.headers or {}))
            else:
                self._dispatch(method, unquote(url.path))
        except (_CutError, BrokenPipeError, ConnectionResetError):
            self.close_connection = True
            self.connection.shutdown(socket.SHUT_RDWR)
        finally:
            if fault and fault.then:
                fault.then()

    def _read_body(self, fault: Fault | None) -> bytes:
        length = int(self.headers.get("Content-Length") or 0)
        if fault and fault.drop_after is not None:
            if fault.drop_after < length:
                self.rfile.read(fault.drop_after)
                raise _CutError
            self.answer_is_lost = True
        if self.headers.get("Transfer-Encoding") != "chunked":
            return self.rfile.read(length)
        parts = []
        while size := int(self.rfile.readline().split(b";")[0], 16):
            parts.append(self.rfile.read(size))
            self.rfile.readline()
        self.rfile.readline()
        return b"".join(parts)

    def _dispatch(self, method: str, path: str) -> None:
        access = self._access()
        if access is not None and access.role == "expired":
            return self._error(401, "", "Invalid credentials: the token has expired")
        for allowed, pattern, name in self.routes:
            match = re.fullmatch(pattern, path) if method == allowed else None
            if match is None:
                continue
            call: Callable[..., None] = getattr(self, name)
            parts = {key: value for key, value in match.groupdict().items() if value is not None}
            if "repo" not in parts:
                return call(**parts)
            self.kind = parts.pop("kind", (parts.pop("prefix", "models/")).rstrip("/"))
            self.key = KINDS[self.kind] + parts.pop("repo")
            return self._on_repository(call, method, parts)
        return self._error(404, "", f"no such address: {method} {path}")

    def _on_repository(self, call: Callable[..., None], method: str, parts: dict[str, str]) -> None:
        access, repo = self._access(), self.hub.repos.get(self.key)
        is_owner = access is not None and repo is not None and access.user == repo.owner
        if repo is None or (repo.private and not is_owner):
            return self._error(404 if access else 401, "RepoNotFound", "Repository not found")
        is_reading = method == "GET" or call.__name__ == "paths_info"
        if not is_reading and access is None:
            return self._error(401, "", "Invalid username or password.")
        if not is_reading and not (is_owner and access is not None and access.role == "write"):
            return self._error(403, "", "Forbidden: the token lacks the right to write here")
        return call(**parts)

    def _access(self) -> Access | None:
        return self.hub.tokens.get((self.headers.get("Authorization") or "").removeprefix("Bearer "))

    def _send(self, content: bytes, status: int = 200, **headers: str) -> None:
        if self.answer_is_lost:
            raise _CutError
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name.replace("_", "-"), value)
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(content)

    def _json(self, value: object, status: int = 200, **headers: str) -> None:
        self._send(json.dumps(value).encode(), status, Content_Type="application/json", **headers)

    def _error(self, status: int, code: str, message: str) -> None:
        codes = {"X_Error_Code": code} if code else {}
        self._json({"error": message}, status, X_Error_Message=message, **codes)

    @property
    def repo(self) -> Repo:
        return self.hub.repos[self.key]

    def _commit(self, revision: str) -> Commit | None:
        commit = self.repo.at(revision)
        if commit is None:
            self._error(404, "RevisionNotFound", f"Invalid rev id: {revision}")
        return commit

    # Account and repositories

    def whoami(self) -> None:
        access = self._access()
        if access is None:
            return self._error(401, "", "Invalid username or password.")
        token = {"role": access.role, "displayName": "loopback"}
        return self._json({"type": "user", "name": access.user, "orgs": [], "auth": {"accessToken": token}})

    def create(self) -> None:
        access = self._access()
        if access is None:
            return self._error(401, "", "Invalid username or password.")
        asked = json.loads(self.body)
        owner, kind = asked.get("organization") or access.user, asked.get("type") or "model"
        name = f"{owner}/{asked['name']}"
        key = KINDS[f"{kind}s"] + name
        answer = {"url": f"{self.hub.url}/{key}", "name": name, "id": name}
        if access.role != "write" or owner != access.user:
            return self._error(403, "", f"You don't have the rights to create a {kind} under the namespace {owner!r}")
        with self.hub.lock:
            if key in self.hub.repos:
                return self._json({**answer, "error": f"You already created this {kind} repo"}, 409)
            is_private = bool(asked.get("private")) or asked.get("visibility") == "private"
            repo = Repo(is_private, owner, {"sdk": asked.get("sdk")} if asked.get("sdk") else {})
            repo.add("initial commit", {".gitattributes": b"*.safetensors filter=lfs diff=lfs merge=lfs -text\n"})
            self.hub.repos[key] = repo
        return self._json(answer)

    def delete(self) -> None:
        asked, access = json.loads(self.body), self._access()
        owner = asked.get("organization") or (access.user if access else USER)
        self.key = f"{KINDS[(asked.get('type') or 'model') + 's']}{owner}/{asked['name']}"
        return self._on_repository(self._delete, "DELETE", {})

    def _delete(self) -> None:
        with self.hub.lock:
            del self.hub.repos[self.key]
        self._json({})

    def settings(self) -> None:
        asked = json.loads(self.body)
        if "private" in asked or "visibility" in asked:
            self.repo.private = bool(asked.get("private")) or asked.get("visibility") == "private"
        self.repo.settings = {**self.repo.settings, **asked}
        self._json({})

    def auth_check(self) -> None:
        self._json({})

    def branch(self, branch: str) -> None:
        start = self._commit(json.loads(self.body or b"{}").get("startingPoint") or "main")
        if start is not None:
            self.repo.branches[branch] = start.sha
            self._json({})

    def validate(self) -> None:
        asked = json.loads(self.body)
        found = problems(asked["content"], asked["repoType"])
        errors = [{"message": message} for message in found]
        self._json({"errors": errors, "warnings": []}, 400 if errors else 200)

    # Uploading

    def preupload(self, revision: str) -> None:
        files = self.repo.commits[-1].files
        answer = []
        for asked in json.loads(self.body)["files"]:
            name = asked["path"]
            mode = "lfs" if self.hub.is_large(name, asked["size"]) else "regular"
            oid = None
            if name in files:
                oid = object_id(files[name]) if mode == "lfs" else blob_id(files[name])
            answer.append({"path": name, "uploadMode": mode, "shouldIgnore": False, "oid": oid})
        self._json({"files": answer, "commitOid": self.repo.commits[-1].sha})

    def lfs_batch(self) -> None:
        objects = []
        for asked in json.loads(self.body)["objects"]:
            upload = {"href": f"{self.hub.url}/lfs/upload/{asked['oid']}"}
            verify = {"href": f"{self.hub.url}/lfs/verify"}
            actions = {} if asked["oid"] in self.hub.objects else {"actions": {"upload": upload, "verify": verify}}
            objects.append({**asked, **actions})
        self._json({"transfer": "basic", "objects": objects})

    def lfs_put(self, oid: str) -> None:
        if object_id(self.body) != oid:
            return self._error(400, "", "the content does not have the hash it was announced with")
        self.hub.objects[oid] = self.body
        return self._send(b"")

    def lfs_verify(self) -> None:
        asked = json.loads(self.body)
        if len(self.hub.objects.get(asked["oid"], b"")) != asked["size"]:
            return self._error(404, "", "the object was not uploaded")
        return self._json({})

    def commit(self, revision: str) -> None:
        title, parent = "", None
        with self.hub.lock:
            if self.key not in self.hub.repos:
                return self._error(404, "RepoNotFound", "Repository not found")
            files = dict(self.repo.commits[-1].files)
            for line in self.body.splitlines():
                item = json.loads(line)
                value = item["value"]
                if item["key"] == "header":
                    title, parent = value["summary"], value.get("parentCommit")
                elif item["key"] == "file":
                    files[value["path"]] = base64.b64decode(value["content"])
                elif item["key"] == "lfsFile":
                    if value["oid"] not in self.hub.objects:
                        return self._error(400, "", f"LFS object of {value['path']} was not uploaded")
                    files[value["path"]] = self.hub.objects[value["oid"]]
                elif item["key"] == "deletedFile":
                    files.pop(value["path"], None)
                else:
                    return self._error(400, "", f"unknown operation {item['key']}")
            if parent and parent != self.repo.commits[-1].sha:
                return self._error(412, "", "A commit has happened since. Please refresh and try again.")
            card = files.get("README.md", b"").decode()
            found = problems(card, self.kind.removesuffix("s")) if card.startswith("---") else []
            if found:
                return self._error(400, "", f"Invalid metadata in README.md: {'; '.join(found)}")
            sha = self.repo.add(title, files).sha
        url = f"{self.hub.url}/{self.key}/commit/{sha}"
        return self._json({"success": True, "commitOid": sha, "commitUrl": url, "hookOutput": ""})

    # Reading

    def info(self, revision: str = "main") -> None:
        commit = self._commit(revision)
        if commit is None:
            return
        name = self.key.removeprefix(KINDS[self.kind])
        siblings = [{"rfilename": path} for path in sorted(commit.files)]
        sdk = {"sdk": self.repo.settings["sdk"]} if "sdk" in self.repo.settings else {}
        facts = {"id": name, "sha": commit.sha, "private": self.repo.private, "siblings": siblings, "tags": [], **sdk}
        self._json({**facts, "author": self.repo.owner, "disabled": False, "gated": False, "downloads": 0, "likes": 0})

    def refs(self) -> None:
        named = {"main": self.repo.commits[-1].sha, **self.repo.branches}
        branches = [{"name": n, "ref": f"refs/heads/{n}", "targetCommit": sha} for n, sha in named.items()]
        self._json({"branches": branches, "converts": [], "tags": []})

    def tree(self, revision: str, folder: str = "") -> None:
        commit = self._commit(revision)
        if commit is None:
            return
        inside = folder.rstrip("/") + "/" if folder else ""
        paths = [path for path in commit.files if path.startswith(inside)]
        if folder and not paths:
            return self._error(404, "EntryNotFound", f"{folder} does not exist on {revision}")
        entries = _entries(commit, paths, inside, self.query.get("recursive", "").lower() == "true", self.hub)
        start = int(self.query.get("cursor", 0))
        more = {}
        if start + PAGE < len(entries):
            query = "&".join(f"{name}={value}" for name, value in {**self.query, "cursor": start + PAGE}.items())
            more["Link"] = f'<{self.hub.url}{urlsplit(self.path).path}?{query}>; rel="next"'
        return self._json(entries[start : start + PAGE], **more)

    def paths_info(self, revision: str) -> None:
        commit = self._commit(revision)
        if commit is None:
            return
        if "json" in (self.headers.get("Content-Type") or ""):
            asked = json.loads(self.body)["paths"]
        else:
            asked = parse_qs(self.body.decode())["paths"]
        found = []
        for path in [name.strip("/") for name in asked]:
            if path in commit.files:
                found.append(_file_entry(path, commit.files[path], self.hub))
            elif any(name.startswith(f"{path}/") for name in commit.files):
                found.append({"type": "directory", "path": path, "oid": blob_id(path.encode()), "size": 0})
        self._json(found)

    def resolve(self, revision: str, path: str) -> None:
        commit = self._commit(revision)
        if commit is None:
            return
        if path not in commit.files:
            return self._error(404, "EntryNotFound", "Entry not found")
        data = commit.files[path]
        headers = {"ETag": f'"{blob_id(data)}"', "X_Repo_Commit": commit.sha, "Accept_Ranges": "bytes"}
        if self.hub.is_large(path, len(data)):
            headers |= {"X_Linked_ETag": f'"{object_id(data)}"', "X_Linked_Size": str(len(data))}
            headers["ETag"] = headers["X_Linked_ETag"]
        asked = re.fullmatch(r"bytes=(\d+)-(\d*)", self.headers.get("Range") or "")
        if asked is None or int(asked[1]) >= max(1, len(data)):
            return self._send(data, **headers)
        start, end = int(asked[1]), min(int(asked[2] or len(data) - 1), len(data) - 1)
        self.hub.ranges.append(f"{path} {start}-{end}")
        return self._send(data[start : end + 1], 206, Content_Range=f"bytes {start}-{end}/{len(data)}", **headers)


def _file_entry(path: str, data: bytes, store: Store) -> dict[str, Any]:
    entry: dict[str, Any] = {"type": "file", "path": path, "size": len(data), "oid": blob_id(data)}
    if store.is_large(path, len(data)):
        entry["lfs"] = {"oid": object_id(data), "size": len(data), "pointerSize": 128}
    return entry


def _entries(commit: Commit, paths: list[str], inside: str, recursive: bool, store: Store) -> list[dict[str, Any]]:
    """Files and folders below a folder, all of them or its own only."""
    folders, files = set(), []
    for path in sorted(paths):
        parents = path[len(inside) :].split("/")[:-1]
        depth = len(parents) if recursive else min(1, len(parents))
        folders |= {inside + "/".join(parents[: i + 1]) for i in range(depth)}
        if recursive or not parents:
            files.append(_file_entry(path, commit.files[path], store))
    shown = [{"type": "directory", "path": path, "oid": blob_id(path.encode()), "size": 0} for path in sorted(folders)]
    return shown + files
