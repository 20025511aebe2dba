"""The GAN playground on a Hub on loopback: a static Space whose files alone are the whole page."""

import re
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
import yaml
from browser import PHONE, overflow
from contract import ROOT
from hub_server import TOKEN, USER, HubServer
from hub_store import Repo

from hf_genzoo import publish
from hf_genzoo.cli import main
from hf_genzoo.demo.playground_space import playground_files
from hf_genzoo.hub.client import HubError
from hf_genzoo.hub.patience import Patience

REPO = f"{USER}/gan-playground"
SPACE = f"spaces/{REPO}"
HURRY = Patience(tries=3, first=0.0)
PAGES = {path.name: path.read_bytes() for path in (ROOT / "hf_genzoo" / "demo" / "playground").iterdir()}


def put(**how: Any) -> Any:
    return publish("gan2d", REPO, patience=HURRY, say=lambda line: None, **how)


def held(hub: HubServer) -> dict[str, bytes]:
    """What the Space holds, but for what the Hub itself puts there."""
    files = dict(hub.repos[SPACE].commits[-1].files)
    files.pop(".gitattributes")
    return files


def test_one_command_makes_a_static_space(hub: HubServer, capsys: pytest.CaptureFixture) -> None:
    assert main(["publish", "gan2d", "--repo_id", REPO]) == 0
    shown = "".join(capsys.readouterr())
    assert f"Published: {hub.url}/{SPACE}\n" in shown
    assert "hf_genzoo.load" not in shown, "it is no model"
    assert TOKEN not in shown
    space, files = hub.repos[SPACE], held(hub)
    assert set(hub.repos) == {SPACE}
    assert not space.private
    assert space.settings["sdk"] == "static"
    assert {path: files[path] for path in PAGES} == PAGES
    assert set(files) == {*PAGES, "README.md"}
    front = yaml.safe_load(files["README.md"].decode().split("---\n")[1])
    assert (front["sdk"], front["app_file"], front["license"]) == ("static", "index.html", "apache-2.0")
    assert front["title"] in files["index.html"].decode()
    assert len(space.commits) == 2, "made, and filled at once"
    assert main(["publish", "gan2d", "--repo_id", REPO]) == 0
    assert f"Unchanged: {hub.url}/{SPACE}\n" in capsys.readouterr().out
    assert len(space.commits) == 2, "unchanged content makes no commit"


def test_the_page_asks_for_its_own_files_only() -> None:
    files = playground_files()
    page = files["index.html"].decode()
    named = set(re.findall(r'(?:src|href)="([^"]+)"', page)) - {"data:,"}
    assert named == set(files) - {"index.html", "README.md"}
    for text in (content.decode() for path, content in files.items() if path != "README.md"):
        assert not re.search(r"https?://|//\w+\.\w+/|fetch\(|import\(|XMLHttpRequest|@import|url\(", text)


def test_a_dry_run_asks_the_hub_for_nothing(hub: HubServer, capsys: pytest.CaptureFixture) -> None:
    assert main(["publish", "gan2d", "--repo_id", REPO, "--dry_run"]) == 0
    shown = capsys.readouterr().out
    assert all(f"{len(content):,}  {path}\n" in shown for path, content in playground_files().items())
    assert "nothing was sent" in shown
    assert main(["publish", "gan2d", "--repo_id", "playground", "--dry_run"]) == 1
    assert main(["publish", "gan2d", "--repo_id", REPO, "--space"]) == 1
    assert "takes neither --space nor --variant" in capsys.readouterr().err
    assert hub.requests == []


@pytest.mark.parametrize(
    ("role", "user", "message"),
    [
        ("expired", USER, "the Hub does not accept the token"),
        ("read", USER, "may only read"),
        ("write", "stranger", "may not write there"),
    ],
)
def test_tokens_that_do_not_do(role: str, user: str, message: str, hub: HubServer, capsys) -> None:
    hub.add_token("hf_secretword", role, user)
    with pytest.raises(HubError, match=message) as caught:
        put(token="hf_secretword")
    assert "hf_secretword" not in str(caught.value) + "".join(capsys.readouterr())
    assert hub.snapshot(everything=True) == {}


def test_an_update_takes_away_old_pages_and_leaves_what_is_others(hub: HubServer) -> None:
    put()
    hub.repos[SPACE].add("by hand", {**hub.repos[SPACE].commits[-1].files, "old.js": b"", "notes.txt": b"mine"})
    assert put().changed
    assert set(held(hub)) == {*PAGES, "README.md", "notes.txt"}


def test_another_space_of_that_name_is_left_alone(hub: HubServer) -> None:
    theirs = Repo(private=False)
    theirs.add("an app", {"README.md": b"---\nsdk: gradio\n---\n", "app.py": b"import gradio"})
    hub.repos[SPACE] = theirs
    with pytest.raises(HubError, match="holds something else already: choose another name"):
        put()
    assert len(theirs.commits) == 1


def test_private_stays_private_and_public_is_not_taken_for_it(hub: HubServer) -> None:
    put(private=True)
    put()
    assert hub.repos[SPACE].private
    hub.repos[SPACE].private = False
    with pytest.raises(HubError, match="is public, so --private cannot be kept"):
        put(private=True)


@pytest.mark.parametrize(
    ("where", "how"),
    [
        ("POST .*/commit/", {"status": 500}),
        ("POST .*/commit/", {"drop_after": 10**9}),  # it arrives, but nobody is told
        ("GET .*/tree/", {"status": 503, "skip": 2}),  # the comparison afterwards
        ("PUT .*/settings", {"status": 500}),
    ],
)
def test_whatever_fails_nobody_sees_half_of_it(where: str, how: dict[str, Any], hub: HubServer) -> None:
    hub.fail(where, times=10**6, **how)
    with suppress(HubError):  # a lost answer is made up for
        put()
    seen = hub.snapshot()
    assert seen == {} or set(seen[SPACE][2]) >= {*PAGES, "README.md"}
    hub.faults.clear()
    put()
    assert not hub.repos[SPACE].private
    assert set(held(hub)) == {*PAGES, "README.md"}
    assert len(hub.repos[SPACE].commits) == 2


def test_what_did_not_arrive_is_told(hub: HubServer) -> None:
    def corrupt() -> None:
        commit = hub.repos[SPACE].commits[-1]
        hub.repos[SPACE].commits[-1] = type(commit)(commit.sha, commit.title, {**commit.files, "page.js": b"?"})

    hub.fail(f"POST /api/{SPACE}/commit", then=corrupt)
    with pytest.raises(HubError, match=r"page\.js did not arrive .*; run the same command again"):
        put()
    assert hub.snapshot() == {}
    put()
    assert {path: held(hub)[path] for path in PAGES} == PAGES


@pytest.mark.browser
def test_the_published_page_learns_at_ten_frames_a_second_and_can_be_paused_and_shared(
    hub: HubServer, browser: Any, tmp_path: Path
) -> None:
    put()
    for path, content in held(hub).items():
        (tmp_path / path).write_bytes(content)
    context = browser.new_context(viewport=PHONE)
    page = context.new_page()
    errors: list[str] = []
    page.on("pageerror", lambda error: errors.append(str(error)))
    page.goto((tmp_path / "index.html").as_uri())
    page.wait_for_timeout(4000)
    facts = page.locator("#facts")
    frames = int(facts.locator("div", has_text="frames a second").locator("b").inner_text())
    assert frames >= 10
    page.keyboard.press("Space")
    page.wait_for_timeout(300)
    before = facts.inner_text()
    page.wait_for_timeout(500)
    assert facts.inner_text() == before, "paused"
    assert "paused" in before
    page.keyboard.press("s")
    assert facts.inner_text() != before, "one step"
    page.keyboard.press("r")
    assert facts.locator("div", has_text="steps of G").locator("b").inner_text() == "0"
    page.get_by_label("Loss", exact=False).first.select_option("hinge")
    page.get_by_role("button", name="Copy link").click()
    shared = context.new_page()
    shared.goto(page.url)
    assert shared.locator("select[name=loss]").input_value() == "hinge"
    shared.locator("input[name=seed]").fill("-1")
    assert "give a whole number from 0" in shared.locator("#message").inner_text()
    assert overflow(page) <= 0
    assert errors == []
    context.close()
