"""A connection to the loopback Hub: requests read whole, faults applied, answers sent, whatever they are about."""

import json
import socket
import threading
from http.server import BaseHTTPRequestHandler
from typing import Any
from urllib.parse import parse_qs, urlsplit

from hub_faults import Fault, Faults


class _CutError(Exception):
    """The connection is to be cut now."""


class Connection(BaseHTTPRequestHandler):
    """Subclasses answer in `dispatch`, with `send`, `json` or `error`; `body` and `query` are what was sent."""

    faults: Faults
    protocol_version = "HTTP/1.1"

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

    def dispatch(self, method: str, path: str) -> None:
        """Answer one request; HEAD comes as GET, the path as it was sent (a branch may hold an escaped slash)."""
        raise NotImplementedError

    def send(self, content: bytes, status: int = 200, **headers: str) -> None:
        """Answer, unless a fault has lost the answer. Underscores in names of headers stand for hyphens."""
        if self.answer_is_lost:
            raise _CutError
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name.replace("_", "-"), value)
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(content)

    def json(self, value: Any, status: int = 200, **headers: str) -> None:
        """Answer with JSON."""
        self.send(json.dumps(value).encode(), status, Content_Type="application/json", **headers)

    def error(self, status: int, code: str, message: str) -> None:
        """Answer with an error as the Hub words it: its code, if it has one, and its message are headers."""
        codes = {"X_Error_Code": code} if code else {}
        self.json({"error": message}, status, X_Error_Message=" ".join(message.split()), **codes)

    def _serve(self, method: str) -> None:
        url = urlsplit(self.path)
        fault = self.faults.meet(f"{self.command} {url.path}")
        self.answer_is_lost = False
        try:
            self.body = self._read_body(fault)
            self.query = {name: values[0] for name, values in parse_qs(url.query).items()}
            if fault and fault.delay:
                threading.Event().wait(fault.delay)  # the tests take the time out of time.sleep
            if fault and fault.status:
                self.json({"error": f"ordered to fail: {fault.status}"}, fault.status, **(fault.headers or {}))
            else:
                self.dispatch(method, url.path)
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
