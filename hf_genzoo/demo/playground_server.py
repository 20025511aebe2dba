"""The GAN playground, a page that computes in the browser: it only has to be handed out."""

import functools
import threading
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from importlib import resources
from typing import Any

NAME = "gan2d"
FOLDER = "playground"  # beside this file


class _Quiet(SimpleHTTPRequestHandler):
    def log_message(self, format: str, *args: Any) -> None:
        """Keep requests out of the terminal."""


def serve(host: str = "127.0.0.1", port: int | None = None) -> tuple[ThreadingHTTPServer, str]:
    """Hand the page out from a thread; the server and the page's address.

    Args:
        host: Address to listen on.
        port: Port; a free one if None.
    """
    folder = str(resources.files("hf_genzoo.demo") / FOLDER)
    server = ThreadingHTTPServer((host, port or 0), functools.partial(_Quiet, directory=folder))
    threading.Thread(target=server.serve_forever, name="playground", daemon=True).start()
    return server, f"http://{host}:{server.server_address[1]}/"
