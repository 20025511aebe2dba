"""Point the real Hub clients of this process at the loopback Hub, which otherwise read their address when imported."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from hub_server import TOKEN, HubServer


@pytest.fixture
def hub(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[HubServer]:
    """A running Hub that this process talks to, with the token of its user, a cache of its own and no waiting."""
    with HubServer() as server:
        talk_to(server, monkeypatch, tmp_path / "hub cache")
        yield server


def talk_to(server: HubServer, patch: pytest.MonkeyPatch, cache: Path) -> None:
    """Let the clients of this process talk to a Hub until the patch is undone; they do not sleep between tries."""
    from huggingface_hub import constants, hf_api

    patch.setattr(constants, "ENDPOINT", server.url)
    patch.setattr(constants, "HUGGINGFACE_CO_URL_TEMPLATE", server.url + "/{repo_id}/resolve/{revision}/{filename}")
    patch.setattr(hf_api.api, "endpoint", server.url)  # that of `huggingface_hub.model_info`, which diffusers asks
    patch.setattr(constants, "HF_HUB_OFFLINE", False)
    patch.setattr(constants, "HF_HUB_DISABLE_XET", True)
    patch.setattr(constants, "HF_HUB_CACHE", str(cache))
    patch.setattr("huggingface_hub.utils._http.time.sleep", lambda seconds: None)
    patch.setenv("HF_TOKEN", TOKEN)
    patch.setenv("HF_ENDPOINT", server.url)
    patch.setenv("HF_HUB_OFFLINE", "0")
    patch.setenv("HF_HUB_DISABLE_XET", "1")
