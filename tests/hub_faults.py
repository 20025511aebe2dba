"""Faults that a test orders from the loopback Hub: errors, cut connections, slowness."""

import re
import threading
from collections.abc import Callable
from dataclasses import dataclass


@dataclass
class Fault:
    """What the next matching requests meet.

    Args:
        path: Regular expression searched in "METHOD /path".
        status: Answer with this status instead of serving.
        times: How many requests it strikes.
        skip: How many matching requests it lets pass first.
        headers: Added to the error's answer, such as {"Retry-After": "1"}.
        drop_after: Cut the connection after this many bytes of the request's body; where the body is shorter, after
            the request was carried out and before the answer, so the client cannot know whether it was.
        delay: Seconds to wait before serving.
        then: Called after the request was handled, such as to delete a repository.
    """

    path: str
    status: int | None = None
    times: int = 1
    skip: int = 0
    headers: dict[str, str] | None = None
    drop_after: int | None = None
    delay: float = 0.0
    then: Callable[[], object] | None = None
    seen: int = 0

    @property
    def hits(self) -> int:
        """How many requests it has struck."""
        return min(max(0, self.seen - self.skip), self.times)

    def strikes(self, request: str) -> bool:
        """Whether it strikes this request; counts it."""
        if not re.search(self.path, request):
            return False
        self.seen += 1
        return self.skip < self.seen <= self.skip + self.times


class Faults(list[Fault]):
    """The faults ordered so far, and every request that was met, as "METHOD /path"."""

    def __init__(self) -> None:
        super().__init__()
        self.requests: list[str] = []
        self.lock = threading.Lock()

    def meet(self, request: str) -> Fault | None:
        """The first fault that strikes a request."""
        self.requests.append(request)
        with self.lock:
            hits = [fault for fault in self if fault.strikes(request)]
        return hits[0] if hits else None
