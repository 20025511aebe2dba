"""A picture that someone uploads, left alone until it has been looked at."""

from typing import Any

import gradio as gr


def upload(**options: Any) -> gr.Image:
    """A `gr.Image` that hands over the path of the file: gradio's own decodes it before any limit can be checked.

    Its value is what `guard.check_upload` takes. No event may update it (`gr.update`): gradio then makes a new one, of
    its own kind. To hide it, hide a column around it.
    """
    image = gr.Image(type="filepath", elem_classes="upload", **options)

    def path(payload: Any) -> str | None:
        return None if payload is None else payload.path

    image.preprocess = path  # type: ignore[method-assign]  # a subclass would make gradio write stubs beside this file
    return image
