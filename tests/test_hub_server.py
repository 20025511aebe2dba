"""The loopback Hub itself, asked by the real client: what it stores, shows, refuses, and how it fails when told to."""

import base64
import json
import time
from pathlib import Path

import httpx
import pytest
from hub_server import TOKEN, USER, HubServer, blob_id
from hub_store import object_id
from huggingface_hub import CommitOperationAdd, CommitOperationDelete, HfApi, hf_hub_download, snapshot_download
from huggingface_hub.errors import (
    EntryNotFoundError,
    HfHubHTTPError,
    LocalEntryNotFoundError,
    RepositoryNotFoundError,
    RevisionNotFoundError,
)

REPO = f"{USER}/net"
KINDS = {"model": REPO, "dataset": f"datasets/{REPO}", "space": f"spaces/{REPO}"}


@pytest.fixture
def api(hub: HubServer) -> HfApi:
    """A client that finds a repository with one file of each sort: small, large by size, large by name."""
    hub.lfs_threshold = 1000
    api = HfApi(endpoint=hub.url, token=TOKEN)
    api.create_repo(REPO)
    add(api, {"notes.txt": b"small", "big.txt": b"x" * 2000, "net/weights.safetensors": b"12345"})
    return api


def add(api: HfApi, files: dict[str, bytes], repo: str = REPO) -> str:
    """The commit that puts files into a repository."""
    return api.create_commit(
        repo, [CommitOperationAdd(path, data) for path, data in files.items()], commit_message="add"
    ).oid


# Storing


@pytest.mark.parametrize("kind", KINDS)
def test_each_kind_of_repository_is_made_filled_read_and_deleted(kind: str, hub: HubServer, tmp_path: Path) -> None:
    api = HfApi(endpoint=hub.url, token=TOKEN)
    extra = {"space_sdk": "gradio"} if kind == "space" else {}
    api.create_repo(REPO, repo_type=kind, private=True, **extra)
    with pytest.raises(HfHubHTTPError, match="409"):
        api.create_repo(REPO, repo_type=kind, **extra)
    api.create_repo(REPO, repo_type=kind, exist_ok=True, **extra)
    (tmp_path / "folder" / "inside").mkdir(parents=True)
    (tmp_path / "folder" / "inside" / "a b.txt").write_bytes(b"text")
    done = api.upload_folder(repo_id=REPO, folder_path=tmp_path / "folder", repo_type=kind)
    assert set(hub.repos) == {KINDS[kind]}
    info = api.repo_info(REPO, repo_type=kind)
    assert (info.sha, info.private) == (done.oid, True)
    got = hf_hub_download(REPO, "inside/a b.txt", repo_type=kind)
    assert Path(got).read_bytes() == b"text"
    if kind == "space":
        assert api.space_info(REPO).sdk == "gradio"
    api.delete_repo(REPO, repo_type=kind)
    assert hub.repos == {}
    assert not api.repo_exists(REPO, repo_type=kind)


def test_large_files_go_through_lfs_and_are_sent_once(hub: HubServer, api: HfApi) -> None:
    uploads = [request for request in hub.requests if request.startswith("PUT /lfs/")]
    assert sorted(uploads) == sorted(f"PUT /lfs/upload/{object_id(data)}" for data in (b"x" * 2000, b"12345"))
    assert hub.requests.count("POST /lfs/verify") == 2
    big, notes = api.get_paths_info(REPO, ["big.txt", "notes.txt"])
    assert (big.size, big.lfs.sha256, notes.lfs) == (2000, object_id(b"x" * 2000), None)
    assert notes.blob_id == blob_id(b"small")
    add(api, {"copy.txt": b"x" * 2000})
    assert len([request for request in hub.requests if request.startswith("PUT /lfs/")]) == 2
    assert hub.repos[REPO].commits[-1].files["copy.txt"] == b"x" * 2000


def test_an_object_that_arrives_changed_is_refused(hub: HubServer, api: HfApi) -> None:
    answer = httpx.put(f"{hub.url}/lfs/upload/{object_id(b'right')}", content=b"wrong")
    assert answer.status_code == 400
    assert object_id(b"right") not in hub.objects


def test_unchanged_files_and_deletions(hub: HubServer, api: HfApi) -> None:
    before = api.repo_info(REPO).sha
    assert add(api, {"notes.txt": b"small", "big.txt": b"x" * 2000}) == before, "an empty commit is not made"
    api.create_commit(
        REPO,
        [CommitOperationDelete("big.txt"), CommitOperationDelete("net/")],
        commit_message="remove",
    )
    assert sorted(hub.repos[REPO].commits[-1].files) == [".gitattributes", "notes.txt"]
    with pytest.raises(HfHubHTTPError, match=r"gone\.txt is to be deleted but does not exist"):
        api.create_commit(REPO, [CommitOperationDelete("gone.txt")], commit_message="x")


def test_a_commit_onto_an_outdated_parent_is_refused(hub: HubServer, api: HfApi) -> None:
    old = api.repo_info(REPO).sha
    add(api, {"new.txt": b"1"})
    with pytest.raises(HfHubHTTPError, match="412"):
        api.create_commit(REPO, [CommitOperationAdd("x", b"1")], commit_message="late", parent_commit=old)
    with pytest.raises(HfHubHTTPError, match="pull requests are not served here"):
        api.create_commit(REPO, [CommitOperationAdd("x", b"1")], commit_message="x", create_pr=True)
    assert "x" not in hub.repos[REPO].commits[-1].files


def test_branches_and_tags_keep_to_themselves(hub: HubServer, api: HfApi) -> None:
    first = api.repo_info(REPO).sha
    api.create_branch(REPO, branch="try/out")
    api.create_tag(REPO, tag="v1")
    done = api.create_commit(REPO, [CommitOperationAdd("b.txt", b"b")], commit_message="b", revision="try/out")
    main = add(api, {"m.txt": b"m"})
    refs = api.list_repo_refs(REPO)
    assert {ref.name: ref.target_commit for ref in refs.branches} == {"main": main, "try/out": done.oid}
    assert [(ref.name, ref.target_commit) for ref in refs.tags] == [("v1", first)]
    assert {"b.txt", "notes.txt"} <= set(api.list_repo_files(REPO, revision="try/out"))
    for revision, present, absent in (
        ("main", "m.txt", "b.txt"),
        ("try/out", "b.txt", "m.txt"),
        ("v1", "big.txt", "m.txt"),
    ):
        assert Path(hf_hub_download(REPO, present, revision=revision)).is_file()
        with pytest.raises(EntryNotFoundError):
            hf_hub_download(REPO, absent, revision=revision)
    with pytest.raises(HfHubHTTPError, match="409"):
        api.create_branch(REPO, branch="try/out")
    api.delete_branch(REPO, branch="try/out")
    with pytest.raises(RevisionNotFoundError):
        api.repo_info(REPO, revision="try/out")


# Reading


def test_listings_come_in_pages_with_folders_and_last_commits(hub: HubServer, api: HfApi) -> None:
    many = {f"many/{i:03d}/f.txt": b"%d" % i for i in range(60)}
    last = add(api, many)
    paths = [entry.path for entry in api.list_repo_tree(REPO, recursive=True)]
    assert len(paths) == len(set(paths)) == 2 + 60 + 60 + 4, "folders, then files"
    assert len([r for r in hub.requests if "/tree/" in r]) == 3, "pages of 50"
    assert {entry.path for entry in api.list_repo_tree(REPO)} == {
        ".gitattributes",
        "big.txt",
        "many",
        "net",
        "notes.txt",
    }
    (folder,) = [entry.path for entry in api.list_repo_tree(REPO, "many/007")]
    assert folder == "many/007/f.txt"
    with pytest.raises(EntryNotFoundError):
        list(api.list_repo_tree(REPO, "nowhere"))
    expanded = {
        e.path: e.last_commit.oid for e in api.get_paths_info(REPO, ["notes.txt", "many/001/f.txt"], expand=True)
    }
    assert expanded["many/001/f.txt"] == last
    assert expanded["notes.txt"] == hub.repos[REPO].commits[1].sha
    (weights,) = [s for s in api.model_info(REPO, files_metadata=True).siblings if s.rfilename.endswith("safetensors")]
    assert (weights.size, weights.blob_id, weights.lfs.sha256) == (5, blob_id(b"12345"), object_id(b"12345"))
    assert api.model_info(REPO, expand=["private", "sha"]).private is False


def test_downloads_use_the_cache_and_go_on_where_they_broke(hub: HubServer, api: HfApi, tmp_path: Path) -> None:
    folder = Path(snapshot_download(REPO))
    assert (folder / "net" / "weights.safetensors").read_bytes() == b"12345"
    asked = len(hub.requests)
    assert Path(snapshot_download(REPO, revision=folder.name)) == folder
    assert not [r for r in hub.requests[asked:] if r.startswith("GET") and "/resolve/" in r]
    answer = httpx.get(f"{hub.url}/{REPO}/resolve/main/big.txt", headers={"Range": "bytes=1990-"})
    assert (answer.status_code, answer.content) == (206, b"x" * 10)
    assert answer.headers["Content-Range"] == "bytes 1990-1999/2000"
    assert hub.ranges == ["big.txt 1990-1999"]


# Refusing


def test_tokens(hub: HubServer, api: HfApi) -> None:
    hub.add_token("hf_reader", "read")
    hub.add_token("hf_old", "expired")
    hub.add_token("hf_other", "write", "stranger")
    with pytest.raises(ValueError, match="unknown role 'admin'"):
        hub.add_token("hf_x", "admin")
    assert api.whoami()["auth"]["accessToken"]["role"] == "write"
    api.update_repo_settings(REPO, private=True)
    for token, error in (
        (False, RepositoryNotFoundError),
        ("hf_other", RepositoryNotFoundError),
        ("hf_old", HfHubHTTPError),
    ):
        with pytest.raises(error):
            api.repo_info(REPO, token=token)
        with pytest.raises(error):
            api.create_commit(REPO, [CommitOperationAdd("x", b"1")], commit_message="x", token=token)
    assert api.repo_info(REPO, token="hf_reader").private
    api.auth_check(REPO, token="hf_reader")
    with pytest.raises(HfHubHTTPError, match="403"):
        api.auth_check(REPO, write=True, token="hf_reader")
    for token, call in (
        ("hf_reader", lambda token: api.delete_repo(REPO, token=token)),
        ("hf_reader", lambda token: api.create_repo(f"{USER}/second", token=token)),
        ("hf_reader", lambda token: api.update_repo_settings(REPO, private=False, token=token)),
        ("hf_other", lambda token: api.create_repo(f"{USER}/second", token=token)),
        ("hf_old", lambda token: api.whoami(token=token)),
    ):
        with pytest.raises(HfHubHTTPError) as caught:
            call(token)
        assert caught.value.response.status_code == (401 if token == "hf_old" else 403)
    assert set(hub.repos) == {REPO}
    assert hub.repos[REPO].private


@pytest.mark.parametrize(
    ("card", "wrong"),
    [
        ("license: mit\npipeline_tag: unconditional-image-generation\n", ""),
        ("license: my-own\n", r'"license" must be one of'),
        ("pipeline_tag: dreaming\n", r"'dreaming' is no task"),
        ("model-index:\n- name: x\n  results:\n  - task:\n      type: other\n", r"dataset\.type"),
        ("a: [b\n", "no YAML"),
    ],
)
def test_a_card_is_checked_before_and_at_the_commit(card: str, wrong: str, hub: HubServer, api: HfApi) -> None:
    text = f"---\n{card}---\n# A model\n".encode()
    if not wrong:
        add(api, {"README.md": text})
        return
    with pytest.raises(ValueError, match=wrong):  # the client asks /api/validate-yaml
        add(api, {"README.md": text})
    lines = [
        {"key": "header", "value": {"summary": "past the client"}},
        {"key": "file", "value": {"path": "README.md", "content": base64.b64encode(text).decode()}},
    ]
    answer = httpx.post(
        f"{hub.url}/api/models/{REPO}/commit/main",
        content="\n".join(map(json.dumps, lines)),
        headers={"Authorization": f"Bearer {TOKEN}"},
    )
    assert answer.status_code == 400
    assert "README.md" not in hub.repos[REPO].commits[-1].files


# Failing when told to


def test_errors_to_order(hub: HubServer, api: HfApi) -> None:
    fault = hub.fail(f"GET /api/models/{REPO}$", status=503, times=2, skip=1, headers={"X-Mine": "yes"})
    assert api.repo_exists(REPO)
    assert fault.hits == 0
    for _ in range(2):
        with pytest.raises(HfHubHTTPError, match="503") as caught:
            api.repo_info(REPO)
        assert caught.value.response.headers["X-Mine"] == "yes"
    assert api.repo_exists(REPO)
    assert fault.hits == 2


@pytest.mark.parametrize(("drop_after", "is_made"), [(10, False), (10**9, True)], ids=["body cut", "answer lost"])
def test_cut_connections(drop_after: int, is_made: bool, hub: HubServer, api: HfApi) -> None:
    fault = hub.fail("POST .*/commit/", drop_after=drop_after, times=100)
    with pytest.raises(Exception, match=r"disconnected|reset|closed"):
        add(api, {"x.txt": b"1"})
    assert fault.hits >= 1
    assert ("x.txt" in hub.repos[REPO].commits[-1].files) == is_made


def test_slowness_and_what_happens_next(hub: HubServer, api: HfApi) -> None:
    hub.fail(f"GET /api/models/{REPO}$", delay=0.3, then=lambda: hub.repos.pop(REPO))
    start = time.perf_counter()
    assert api.repo_info(REPO).id == REPO
    assert time.perf_counter() - start >= 0.3
    with pytest.raises(RepositoryNotFoundError):
        api.repo_info(REPO)
    with pytest.raises((LocalEntryNotFoundError, RepositoryNotFoundError)):
        hf_hub_download(REPO, "notes.txt")


def test_a_stranger_sees_public_repositories_with_content_only(hub: HubServer, api: HfApi) -> None:
    api.create_repo(f"{USER}/empty")
    api.create_repo(f"{USER}/hidden", private=True)
    add(api, {"x": b"1"}, f"{USER}/hidden")
    assert set(hub.snapshot()) == {REPO}
    assert set(hub.snapshot(everything=True)) == {REPO, f"{USER}/empty", f"{USER}/hidden"}
    private, head, files = hub.snapshot()[REPO]
    assert (private, head) == (False, api.repo_info(REPO).sha)
    assert files["notes.txt"] == blob_id(b"small")
