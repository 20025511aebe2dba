"""What every app has: Sample and Stop, how far a request has come, and the wiring between them."""

import html
import inspect
import tempfile
import threading
from collections.abc import Callable, Generator, Sequence
from pathlib import Path
from typing import Any

import gradio as gr

from .form import Form, Request
from .guard import friendly
from .pictures import write_files
from .runs import Step, stream

Show = Callable[[list[Path], Request], list[Any]]


class Stops:
    """For each browser session, the event that stops the request it has asked for, be it running or waiting."""

    def __init__(self) -> None:
        self._events: dict[str, threading.Event] = {}

    def ask(self, session: str) -> None:
        """A session asks for something and may have to wait for its turn."""
        earlier = self._events.get(session)
        if earlier is None or earlier.is_set():  # asked twice, the first one is still what Stop is about
            self._events[session] = threading.Event()

    def begin(self, session: str) -> threading.Event:
        """The event of a request that begins; programs come without having asked."""
        return self._events.setdefault(session, threading.Event())

    def stop(self, session: str) -> bool:
        """Stop a session's request; whether there was one."""
        event = self._events.get(session)
        if event is not None:
            event.set()
        return event is not None

    def end(self, session: str, event: threading.Event | None = None) -> None:
        """Forget a request that has ended; whichever it is, without an event."""
        if event is None or self._events.get(session) is event:
            self._events.pop(session, None)


class Panel:
    """Sample and Stop, the status, an unfinished picture, and files to download.

    Args:
        action: What the button says.
    """

    def __init__(self, form: Form, action: str):
        self.form, self.action, self.stops = form, action, Stops()

    def add_buttons(self) -> None:
        """Put the buttons into the page."""
        with gr.Row():
            self.go = gr.Button(self.action, variant="primary", min_width=100, elem_id="go")
            self.halt = gr.Button("Stop", variant="stop", min_width=100, elem_id="stop")

    def add_status(self) -> None:
        """Put the status and the preview into the page."""
        self.status = gr.HTML(status(f"Press {self.action}."), label="Status", elem_classes="steps", elem_id="status")
        self.preview = gr.Image(label="On the way", visible=False, interactive=False, buttons=[], elem_id="preview")

    def add_downloads(self) -> None:
        """Put the download buttons into the page."""
        with gr.Row(visible=False) as self.downloads:
            self.picture = gr.DownloadButton("Download picture (PNG)", size="sm", min_width=150)
            self.archive = gr.DownloadButton("Download all (ZIP)", size="sm", min_width=150)

    def wire(self, outputs: Sequence[Any], show: Show, api_name: str) -> None:
        """Connect the buttons.

        Args:
            outputs: Components that show the result.
            show: Their values from the files of the finished pictures and what was asked for.
            api_name: Name of the function for programs.
        """
        function = friendly(self._function(len(outputs), show))
        every = [self.status, self.preview, *outputs, self.picture, self.archive, self.downloads]
        asked = self.go.click(self._ask, outputs=self.status, queue=False, api_visibility="private")
        called = asked.then(
            function,
            list(self.form.fields.values()),
            every,
            api_name=api_name,
            trigger_mode="once",
            show_progress="minimal",
            show_progress_on=self.status,
            concurrency_id="model",
        )
        called.failure(self._fail, outputs=[self.status, self.preview], queue=False, api_visibility="private")
        # Not gradio's `cancels`: that drops the stream without a last word, and the page may then wait for ever.
        self.halt.click(self._halt, outputs=self.status, queue=False, api_visibility="private")

    def _ask(self, request: gr.Request) -> str:
        self.stops.ask(str(request.session_hash))
        return status("Waiting for its turn ...")

    def _fail(self, request: gr.Request) -> tuple[str, Any]:
        self.stops.end(str(request.session_hash))
        return status("This did not work: see the message."), gr.update(visible=False)

    def _halt(self, request: gr.Request) -> str:
        stopped = self.stops.stop(str(request.session_hash))
        return status("Stopping ..." if stopped else "Nothing is running.")

    def _function(self, shown: int, show: Show) -> Callable[..., Any]:
        names = list(self.form.fields)

        def sample(request: gr.Request, *given: Any) -> Generator[list[Any], None, None]:
            asked = self.form.request(dict(zip(names, given, strict=True)))
            session = str(request.session_hash)
            stop = self.stops.begin(session)
            skip = [gr.skip()] * (shown + 3)
            with tempfile.TemporaryDirectory(prefix="genzoo-demo-") as folder:
                try:
                    yield [status("Starting ..."), gr.skip(), *skip]
                    for event in stream(asked.pipeline, asked.call, stop):
                        if isinstance(event, Step):
                            yield [progress(event), _on_the_way(event, Path(folder)), *skip]
                        elif event.images is None:
                            yield [status("Stopped."), gr.update(visible=False), *skip]
                        else:
                            files = write_files(list(event.images), asked.settings, Path(folder))
                            done = [status("Done."), gr.update(value=None, visible=False)]
                            # gradio copies the files before it asks for more, so they can go afterwards.
                            yield [*done, *show(files.pictures, asked), *files.downloads, gr.update(visible=True)]
                finally:
                    self.stops.end(session, stop)

        return _with_parameters(sample, names)


def _on_the_way(step: Step, folder: Path) -> Any:
    """The update that shows an unfinished picture, where there is a new one."""
    if step.picture is None:
        return gr.skip()
    path = folder / f"step-{step.done}.webp"
    step.picture.save(path)
    return gr.update(value=str(path), visible=True)


def status(message: str) -> str:
    """A line of text that screen readers announce."""
    return f'<p role="status">{html.escape(message)}</p>'


def progress(step: Step) -> str:
    """How far a request has come."""
    total = max(step.total, 1)
    bar = f'<progress max="{total}" value="{step.done}" aria-label="Steps done"></progress>'
    return f"<p>Step {step.done} of {total}</p>{bar}"


def _with_parameters(function: Callable[..., Any], names: Sequence[str]) -> Callable[..., Any]:
    """A function of (request, *values) under the names of the controls, by which programs can call it."""
    kind = inspect.Parameter.POSITIONAL_OR_KEYWORD
    request = inspect.Parameter("request", kind, annotation=gr.Request)
    function.__signature__ = inspect.Signature(  # type: ignore[attr-defined]
        [request, *(inspect.Parameter(name, kind) for name in names)]
    )
    return function
