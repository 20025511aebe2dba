"""The app of a pipeline: the tabs that fit what it does, in one look that needs no network."""

from collections.abc import Mapping
from typing import Any

import gradio as gr
from diffusers.pipelines.pipeline_utils import DiffusionPipeline

from .examples import Examples
from .guard import MAX_QUEUE, MAX_UPLOAD
from .image_tab import add_image_tab
from .latent_explorer import add_latent_tabs
from .latent_model import has_vector_latent
from .sampling_tab import add_sampling_tab
from .tasks import task_of

FONTS = ["system-ui", "-apple-system", "Segoe UI", "Roboto", "sans-serif"]
MONO_FONTS = ["ui-monospace", "Consolas", "monospace"]

CSS = """
.gradio-container { width: 100%; max-width: min(1100px, 100vw) !important; margin: 0 auto !important; }
.gradio-container main { width: 100%; }
.prose, .steps { overflow-wrap: anywhere; }
/* As many columns as fit, also on a phone. */
.gallery .grid-wrap, .gallery .gallery-container { max-height: none !important; height: auto !important; }
.gallery .grid-container {
  grid-template-columns: repeat(auto-fit, minmax(max(76px, 15%), 1fr)) !important;
  grid-auto-rows: auto !important;
}
.gallery .thumbnail-item { aspect-ratio: 1; height: auto !important; }
.small-pictures img { image-rendering: pixelated; }
.upload img { width: 100%; height: 100%; object-fit: contain; }
.steps p { margin: 0; }
.steps progress { width: 100%; height: 10px; appearance: none; border: 0; }
.steps progress::-webkit-progress-bar { background: var(--border-color-primary); border-radius: 5px; }
.steps progress::-webkit-progress-value { background: var(--color-accent); border-radius: 5px; }
.steps progress::-moz-progress-bar { background: var(--color-accent); border-radius: 5px; }
.beside { flex-grow: 0 !important; align-self: end; white-space: nowrap; }
"""

_CACHE_CHECK, _CACHE_AGE = 300, 1800  # seconds: results are files on the server, so they are removed again


def build_app(
    pipeline: DiffusionPipeline,
    *,
    title: str,
    examples: Examples | None = None,
    about: str = "",
    card_url: str | None = None,
    defaults: Mapping[str, Any] | None = None,
) -> gr.Blocks:
    """The app of a pipeline. Start it with `start`.

    Args:
        pipeline: Any pipeline that samples, turns an image into another, or paints from a text.
        title: Heading of the page and name of the browser's tab.
        examples: Real pictures to offer.
        about: What the model is, in a sentence or two.
        card_url: Where its card can be read.
        defaults: Settings to begin with, by names of the call's arguments ("num_inference_steps", "guidance_scale").

    Raises:
        ValueError: If no app fits the pipeline.
    """
    task = task_of(pipeline)
    pipeline.set_progress_bar_config(disable=True)
    with gr.Blocks(title=title, analytics_enabled=False, delete_cache=(_CACHE_CHECK, _CACHE_AGE)) as app:
        card = f" [Model card]({card_url})" if card_url else ""
        gr.Markdown(f"# {title}\n\n{about}{card}".rstrip())
        if task.kind == "image to image":
            add_image_tab(pipeline, task, examples, defaults or {})
        elif task.kind == "sampling" and not (task.points or task.classes) and has_vector_latent(pipeline):
            # With classes a latent alone is no picture: each would be of a class drawn anew.
            with gr.Tabs():
                with gr.Tab("Sample"):
                    add_sampling_tab(pipeline, task, defaults or {})
                add_latent_tabs(pipeline, examples)
        else:
            add_sampling_tab(pipeline, task, defaults or {}, _prompts(pipeline))
    # One request at a time: the networks are shared, and two at once would be slower than one after the other.
    return app.queue(max_size=MAX_QUEUE, default_concurrency_limit=1)


def _prompts(pipeline: DiffusionPipeline) -> tuple[str, ...]:
    """Texts that a pipeline of text to image says it can be tried with; captions of its training data, mostly."""
    stored: Any = pipeline.config.get("example_prompts")
    return tuple(stored.values()) if isinstance(stored, Mapping) else ()


def start(app: gr.Blocks, **options: Any) -> str:
    """Start an app in the background, with its look and limits.

    Args:
        app: What `build_app` gives.
        options: As in gradio's `launch` (`server_name`, `server_port`, `share`, `inbrowser`, ...).

    Returns:
        Its address on this machine.
    """
    theme = gr.themes.Default(primary_hue="blue", font=FONTS, font_mono=MONO_FONTS)
    _, url, _ = app.launch(
        theme=theme,
        css=CSS,
        max_file_size=MAX_UPLOAD,
        prevent_thread_lock=True,
        ssr_mode=False,
        quiet=True,
        footer_links=["api", "gradio", "settings"],
        **options,
    )
    return url
