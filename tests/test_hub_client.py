"""The client of the Hub against a Hub on loopback: patience, plain words, no token shown, others' work kept."""

import errno
import os
import time
from email.utils import formatdate
from pathlib import Path
from types import SimpleNamespace

import pytest
from hub_server import TOKEN, USER, HubServer
from hub_store import Repo

from hf_genzoo.cli import main
from hf_genzoo.hub.client import HubClient, HubError
from hf_genzoo.hub.patience import Patience
from hf_genzoo.hub.secrets import scrub

REPO = f"{USER}/a"
HURRY = Patience(tries=3, first=0.0)


def answer(**headers: str) -> Exception:
    error = RuntimeError("refused")
    error.response = SimpleNamespace(headers={name.replace("_", "-"): text for name, text in headers.items()})  # type: ignore[attr-defined]
    return error


def test_waits_as_long_as_the_server_asks_else_twice_as_long_each_time() -> None:
    patience = Patience(first=1.0, longest=10.0, longest_asked=300.0)
    assert patience.pause(0, answer(retry_after="7")) == 7
    assert patience.pause(0, answer(retry_after=formatdate(time.time() + 50, usegmt=True))) == pytest.approx(50, abs=2)
    assert patience.pause(0, answer(retry_after=formatdate(time.time() - 50, usegmt=True))) == 0
    assert patience.pause(0, answer(ratelimit='"api";r=0;t=55')) == 55
    assert patience.pause(0, answer(retry_after="99999")) == 300, "bounded"
    for attempt, seconds in enumerate([1, 2, 4, 8, 10, 10]):
        pauses = {patience.pause(attempt, RuntimeError()) for _ in range(20)}
        assert all(0.8 * seconds <= pause <= seconds for pause in pauses)
        assert len(pauses) > 1, "with jitter"


def test_a_busy_hub_is_asked_again_with_a_line_for_each_try(hub: HubServer, monkeypatch, capsys) -> None:
    pauses: list[float] = []
    client = HubClient(patience=Patience(tries=3, first=5.0))
    hub.fail("POST /api/repos/create", status=429, headers={"Retry-After": "12"}, times=2)
    monkeypatch.setattr(time, "sleep", pauses.append)
    assert client.commit(REPO, {"x.txt": b"1"}, message="first").changed
    assert pauses == [12, 12]
    assert (
        capsys.readouterr().err.splitlines()
        == [f"making {REPO}: the Hub asks for fewer requests (429); trying again in 12 s"] * 2
    )
    hub.fail(f"GET /api/models/{REPO}", status=503, times=100)
    with pytest.raises(HubError, match=r"gave up after 3 tries \(the Hub has a fault of its own \(503\)\)"):
        client.visibility(REPO)


def test_what_cannot_pass_is_not_tried_again(hub: HubServer, monkeypatch) -> None:
    client = HubClient(patience=HURRY)
    fault = hub.fail(f"GET /api/models/{REPO}", status=400, times=100)
    with pytest.raises(HubError, match="looking for tester/a"):
        client.visibility(REPO)
    assert fault.hits == 1
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    with pytest.raises(HubError, match=r"HF_HUB_OFFLINE is set.*; unset it"):
        HubClient(patience=HURRY)


def test_a_full_disk_is_no_fault_of_the_hub(hub: HubServer) -> None:
    client = HubClient(patience=HURRY)

    def write() -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    with pytest.raises(OSError, match="No space left on device"):
        client.ask("reading", write)


def test_no_token_is_shown(hub: HubServer, monkeypatch) -> None:
    real = "hf_" + "aB3" * 11
    monkeypatch.setenv("HF_TOKEN", "an-unusual-token")
    text = f"without hf_genzoo (hf_hub_download): Bearer {real}, an-unusual-token, my-own"
    assert scrub(text, "my-own", None) == "without hf_genzoo (hf_hub_download): Bearer hf_***, hf_***, hf_***"
    for unsound in (f"{real}\nX-Header: 1", f"{real}\u2026"):
        with pytest.raises(HubError, match="characters that no token has") as caught:
            HubClient(unsound)
        assert real not in str(caught.value)
    assert HubClient(f" {TOKEN}\n").user == USER, "blanks around it come from copying"


def test_no_token_is_repeated_by_the_command_line(tmp_path: Path, capsys) -> None:
    real = "hf_" + "aB3" * 11
    settings = tmp_path / "settings.yaml"
    settings.write_text(f"push_to_hub: true\nhub_token: {real}: mistyped\n")
    for words in (
        ["publish", "somewhere", "--repo_id", REPO, "--token", real],
        ["verify", "somewhere", "--token", real],
        ["train", "vae", "--hub_tokn", real],
        ["train", "vae", "--config", str(settings)],
    ):
        with pytest.raises(SystemExit):
            main(words)
        shown = "".join(capsys.readouterr())
        assert "error" in shown
        assert real not in shown


def test_only_an_empty_repository_of_its_own_is_removed_again(hub: HubServer) -> None:
    client = HubClient(patience=HURRY)
    hub.fail("POST .*/commit/", status=500, times=10**6)

    with pytest.raises(HubError):
        client.commit(REPO, {"x.txt": b"1"}, message="fails")
    assert hub.repos == {}
    assert not client.is_unfinished(REPO)

    theirs = Repo(private=True)
    theirs.add("initial commit", {})
    theirs.add("work", {"weights.safetensors": b"precious"})
    look = {"status": 404, "headers": {"X-Error-Code": "RepoNotFound"}}
    hub.fail(f"GET /api/models/{REPO}", **look, then=lambda: hub.repos.update({REPO: theirs}))
    with pytest.raises(HubError):  # made by another machine between the look and the making
        client.commit(REPO, {"x.txt": b"1"}, message="fails")
    assert hub.repos[REPO] is theirs
    hub.faults.clear()
    client.commit(REPO, {"x.txt": b"1"}, message="works")
    client.settle(REPO, private=False)
    assert theirs.private, "its visibility is its owner's"


def test_a_refused_name_leaves_no_trace(hub: HubServer, capsys) -> None:
    client = HubClient(patience=HURRY)
    with pytest.raises(HubError, match="may not write there"):
        client.commit("other/a", {"x.txt": b"1"}, message="refused")
    assert not client.is_unfinished("other/a")
    assert "may stay" not in capsys.readouterr().err


def test_an_upload_whose_answer_was_lost_is_gone_on_with(hub: HubServer) -> None:
    client = HubClient(patience=HURRY)
    hub.fail("POST .*/commit/", drop_after=10**9)
    hub.fail(f"GET /api/models/{REPO}/tree", status=500, times=10**6, skip=2)
    with pytest.raises(HubError):
        client.commit(REPO, {"x.txt": b"1"}, message="once")
    hub.faults.clear()
    assert hub.repos[REPO].private
    assert not client.commit(REPO, {"x.txt": b"1"}, message="once").changed, "it had arrived"
    client.settle(REPO, private=False)
    assert not hub.repos[REPO].private
