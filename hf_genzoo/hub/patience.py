"""Which failures of a call may pass, and how long to wait before the next try."""

import errno
import os
import random
import re
import time
from dataclasses import dataclass
from email.utils import parsedate_to_datetime

from huggingface_hub.errors import HfHubHTTPError, LocalEntryNotFoundError, OfflineModeIsEnabled

DISK_FULL = (errno.ENOSPC, errno.EFBIG, errno.EDQUOT)

_NETWORK = ("httpx", "httpx2", "httpcore", "requests", "urllib3")  # libraries of the client, by version
_RESET = re.compile(r"\bt=(\d+)")  # the Hub's `ratelimit: "api";r=0;t=55`: 55 seconds to the next window


@dataclass(frozen=True)
class Patience:
    """How often a call is tried, and how long is waited in between.

    Args:
        tries: How often in all.
        first: Seconds before the second try; twice as long before each further one.
        longest: At most so many seconds.
        longest_asked: At most so many where the server itself says how long; the Hub counts in windows of 300 s.
    """

    tries: int = 6
    first: float = 1.0
    longest: float = 60.0
    longest_asked: float = 330.0

    def pause(self, attempt: int, error: BaseException) -> float:
        """Seconds to wait after the given attempt (from 0), as the server asks or with jitter, so that many waiting
        clients do not come back at once."""
        asked = _asked(error)
        if asked is not None:
            return min(asked, self.longest_asked)
        return min(self.first * 2**attempt, self.longest) * random.uniform(0.8, 1.0)


def status_of(error: BaseException) -> int | None:
    """The HTTP status an error is about, if any."""
    return getattr(getattr(error, "response", None), "status_code", None)


def may_pass(error: BaseException) -> bool:
    """Whether the same call may go through later."""
    if isinstance(error, OfflineModeIsEnabled):
        return False
    if isinstance(error, HfHubHTTPError):
        status = status_of(error)
        return status is None or status in (408, 429) or status >= 500
    is_network = type(error).__module__.split(".")[0] in _NETWORK
    return is_network or isinstance(error, ConnectionError | TimeoutError | LocalEntryNotFoundError)


def is_disk_full(error: BaseException) -> bool:
    """Whether an error says that there is no room to write."""
    return isinstance(error, OSError) and error.errno in DISK_FULL


def full_disk_in(text: str) -> int | None:
    """The error number, if a message (of another process) says that there is no room to write."""
    return next((number for number in DISK_FULL if os.strerror(number) in text), None)


def _asked(error: BaseException) -> float | None:
    """Seconds that a server asks to wait: Retry-After in seconds or as a date, or the end of the Hub's window."""
    headers = getattr(getattr(error, "response", None), "headers", {})
    wanted = str(headers.get("retry-after", "")).strip()
    if wanted.isdecimal():
        return float(wanted)
    try:
        return max(0.0, parsedate_to_datetime(wanted).timestamp() - time.time())
    except (TypeError, ValueError):
        reset = _RESET.search(str(headers.get("ratelimit", "")))
        return float(reset[1]) if reset else None
