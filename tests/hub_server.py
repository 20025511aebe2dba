"""A small Hugging Face Hub on 127.0.0.1, for the real clients: point them at it with `HF_ENDPOINT`.

It speaks what pushing and loading a model repository takes: whoami, create, preupload, commit, repository and tree
listings, and files by revision. Everything lives in memory. A commit becomes visible by one assignment of a new list,
so nobody ever sees half of one. Files are always sent inside the commit ("regular"), never as LFS objects.
"""

import base64
import hashlib
import json
import re
import threading
from collections.abc import Callable
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import parse_qs, unquote, urlsplit

USER = "tester"
TOKEN = "hf_loopback"


def blob_id(content: bytes) -> str:
    """git's name for a file's content."""
    return hashlib.sha1(b"blob %d\0" % len(content) + content).hexdigest()


@dataclass(frozen=True)
class Commit:
    sha: str
    title: str
    files: dict[str, bytes]


@dataclass
class Repo:
    private: bool
    commits: list[Commit] = field(default_factory=list)

    def at(self, revision: str) -> Commit | None:
        commits = self.commits
        if revision == "main":
            return commits[-1]
        return next((commit for commit in commits if commit.sha == revision), None)

    def add(self, title: str, files: dict[str, bytes]) -> Commit:
        text = json.dumps([len(self.commits), title, {name: blob_id(data) for name, data in files.items()}])
        commit = Commit(hashlib.sha1(text.encode()).hexdigest(), title, files)
        self.commits = [*self.commits, commit]
        return commit


class HubServer:
    """`with HubServer() as hub:` serves at `hub.url`; `hub.repos` is what is stored, `hub.requests` what was asked."""

    def __init__(self) -> None:
        self.repos: dict[str, Repo] = {}
        self.requests: list[str] = []
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

    def environment(self) -> dict[str, str]:
        """What a client needs in its environment."""
        return {"HF_ENDPOINT": self.url, "HF_HUB_DISABLE_XET": "1", "HF_TOKEN": TOKEN}


class _Handler(BaseHTTPRequestHandler):
    hub: HubServer
    protocol_version = "HTTP/1.1"

    routes: tuple[tuple[str, str, str], ...] = (
        ("GET", r"/api/whoami-v2", "whoami"),
        ("POST", r"/api/repos/create", "create"),
        ("POST", r"/api/validate-yaml", "validate"),
        ("POST", r"/api/models/(?P<repo>[^/]+/[^/]+)/preupload/(?P<revision>[^/]+)", "preupload"),
        ("POST", r"/api/models/(?P<repo>[^/]+/[^/]+)/commit/(?P<revision>[^/]+)", "commit"),
        ("GET", r"/api/models/(?P<repo>[^/]+/[^/]+)/tree/(?P<revision>[^/]+)", "tree"),
        ("GET", r"/api/models/(?P<repo>[^/]+/[^/]+)(/revision/(?P<revision>[^/]+))?", "info"),
        ("GET", r"/(?P<repo>[^/]+/[^/]+)/resolve/(?P<revision>[^/]+)/(?P<path>.+)", "resolve"),
    )

    def do_GET(self) -> None:
        self._dispatch("GET")

    def do_HEAD(self) -> None:
        self._dispatch("GET")

    def do_POST(self) -> None:
        self._dispatch("POST")

    def log_message(self, format: str, *args: object) -> None:
        """Keep the test's output clean."""

    def _dispatch(self, method: str) -> None:
        url = urlsplit(self.path)
        self.body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        self.query = {name: values[0] for name, values in parse_qs(url.query).items()}
        self.hub.requests.append(f"{self.command} {url.path}")
        for allowed, pattern, name in self.routes:
            match = re.fullmatch(pattern, unquote(url.path))
            if match and method == allowed:
                call: Callable[..., None] = getattr(self, name)
                parts = {key: value for key, value in match.groupdict().items() if value is not None}
                if "repo" in parts:
                    repo = self.hub.repos.get(parts["repo"])
                    if repo is None or (repo.private and not self._authorised()):
                        return self._error(404 if self._authorised() else 401, "RepoNotFound", "Repository not found")
                return call(**parts)
        return self._error(404, "NotFound", f"no such address: {method} {url.path}")

    def _authorised(self) -> bool:
        return self.headers.get("Authorization") == f"Bearer {TOKEN}"

    def _send(self, content: bytes, status: int = 200, **headers: str) -> None:
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
        self._json({"error": message}, status, X_Error_Code=code, X_Error_Message=message)

    def whoami(self) -> None:
        if not self._authorised():
            return self._error(401, "Unauthorized", "Invalid username or password.")
        role = {"role": "write", "displayName": "loopback"}
        return self._json({"type": "user", "name": USER, "orgs": [], "auth": {"accessToken": role}})

    def create(self) -> None:
        if not self._authorised():
            return self._error(401, "Unauthorized", "Invalid username or password.")
        asked = json.loads(self.body)
        name = f"{asked.get('organization') or USER}/{asked['name']}"
        answer = {"url": f"{self.hub.url}/{name}", "name": name, "id": name}
        with self.hub.lock:
            if name in self.hub.repos:
                return self._json({**answer, "error": "You already created this model repo"}, 409)
            repo = Repo(private=bool(asked.get("private")) or asked.get("visibility") == "private")
            repo.add("initial commit", {".gitattributes": b""})
            self.hub.repos[name] = repo
        return self._json(answer)

    def validate(self) -> None:
        self._json({"errors": [], "warnings": []})

    def preupload(self, repo: str, revision: str) -> None:
        files = self.hub.repos[repo].commits[-1].files
        answer = []
        for asked in json.loads(self.body)["files"]:
            name = asked["path"]
            oid = blob_id(files[name]) if name in files else None
            answer.append({"path": name, "uploadMode": "regular", "shouldIgnore": False, "oid": oid})
        self._json({"files": answer})

    def commit(self, repo: str, revision: str) -> None:
        if not self._authorised():
            return self._error(401, "Unauthorized", "Invalid username or password.")
        title = ""
        with self.hub.lock:
            files = dict(self.hub.repos[repo].commits[-1].files)
            for line in self.body.splitlines():
                item = json.loads(line)
                value = item["value"]
                if item["key"] == "header":
                    title = value["summary"]
                elif item["key"] == "file":
                    files[value["path"]] = base64.b64decode(value["content"])
                elif item["key"] == "deletedFile":
                    del files[value["path"]]
                else:
                    return self._error(400, "BadRequest", f"unknown operation {item['key']}")
            sha = self.hub.repos[repo].add(title, files).sha
        url = f"{self.hub.url}/{repo}/commit/{sha}"
        return self._json({"success": True, "commitOid": sha, "commitUrl": url, "hookOutput": ""})

    def info(self, repo: str, revision: str = "main") -> None:
        commit = self.hub.repos[repo].at(revision)
        if commit is None:
            return self._error(404, "RevisionNotFound", f"Invalid rev id: {revision}")
        siblings = [{"rfilename": name} for name in sorted(commit.files)]
        private = self.hub.repos[repo].private
        return self._json({"id": repo, "modelId": repo, "sha": commit.sha, "private": private, "siblings": siblings})

    def tree(self, repo: str, revision: str) -> None:
        commit = self.hub.repos[repo].at(revision)
        if commit is None:
            return self._error(404, "RevisionNotFound", f"Invalid rev id: {revision}")
        entries = sorted(commit.files.items())
        return self._json(
            [{"type": "file", "path": name, "size": len(data), "oid": blob_id(data)} for name, data in entries]
        )

    def resolve(self, repo: str, revision: str, path: str) -> None:
        commit = self.hub.repos[repo].at(revision)
        if commit is None:
            return self._error(404, "RevisionNotFound", f"Invalid rev id: {revision}")
        if path not in commit.files:
            return self._error(404, "EntryNotFound", "Entry not found")
        data = commit.files[path]
        headers = {"ETag": f'"{blob_id(data)}"', "X_Repo_Commit": commit.sha, "Accept_Ranges": "bytes"}
        asked = re.fullmatch(r"bytes=(\d+)-", self.headers.get("Range") or "")
        if asked and 0 < int(asked[1]) < len(data):
            start = int(asked[1])
            span = f"bytes {start}-{len(data) - 1}/{len(data)}"
            return self._send(data[start:], 206, Content_Range=span, **headers)
        return self._send(data, **headers)
