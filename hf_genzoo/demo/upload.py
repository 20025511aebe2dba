"""A picture that someone uploads, left alone until it has been looked at."""

from typing import Any

import gradio as gr


def upload(**options: Any) -> gr.Image:
    """A `gr.Image` that hands over the path of the file: gradio's own decodes it before any limit can be checked.

    Its value is what `guard.check_upload` takes.
    """
    image = gr.Image(type="filepath", **options)

    def path(payload: Any) -> str | None:
        return None if payload is None else payload.path

    image.preprocess = path  # type: ignore[method-assign]  # a subclass would make gradio write stubs beside this file
    return image
