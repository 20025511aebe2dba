"""Access tokens stay out of everything that is shown or written. Only the standard library is imported here."""

import os
import re

_TOKEN = re.compile(r"\bhf_[A-Za-z0-9]{16,}")  # the Hub's are longer; names such as hf_genzoo or hf_hub are shorter
_VARIABLES = ("HF_TOKEN", "HUGGING_FACE_HUB_TOKEN")
_HIDDEN = "hf_***"


def scrub(text: object, *tokens: str | None) -> str:
    """A text without access tokens: the ones given, the environment's, and whatever looks like one.

    Args:
        text: A message, or an exception.
        tokens: Tokens in use, whatever they look like.
    """
    plain = str(text)
    known = {token for token in (*tokens, *map(os.environ.get, _VARIABLES)) if token and len(token) > 3}
    for token in sorted(known, key=len, reverse=True):  # a token may be part of another
        plain = plain.replace(token, _HIDDEN)
    return _TOKEN.sub(_HIDDEN, plain)


def is_sound(token: str) -> bool:
    """Whether a token can be sent: what HTTP libraries say of characters that cannot be sent, shows them."""
    return re.fullmatch(r"[\x21-\x7e]+", token) is not None
