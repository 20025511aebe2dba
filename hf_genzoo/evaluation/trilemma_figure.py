"""The figure of a comparison: quality and coverage against time per image, labelled directly, as a PNG.

matplotlib is imported where it is used, and without pyplot: nobody's figures, styles or backend are touched.
"""

import io
import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Literal

from hf_genzoo.evaluation.trilemma import Comparison, Measured, Row, quantity

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure
    from matplotlib.transforms import Bbox

WIDTH, HEIGHT = 1600, 800
# After Okabe & Ito and Tol: told apart with every common colour blindness, and dark enough on white.
COLOURS = ("#0072B2", "#D55E00", "#00815F", "#AA3377", "#8A6D00", "#332288", "#4D4D4D")
MARKERS = "osD^vPX<"  # one more than colours, so that the two together repeat late
GREY, INK = "#5F5F5F", "#1A1A1A"
DPI = 125


def shorten(name: str, longest: int = 26) -> str:
    """A name with its middle left out where it is long: beginnings and ends of model names tell them apart."""
    name = " ".join(name.encode("utf-8", "replace").decode().split())  # a folder's name need not be text
    if len(name) <= longest:
        return name
    return f"{name[: longest // 2]}…{name[-(longest - longest // 2 - 1) :]}"


def draw_figure(comparison: Comparison) -> bytes:
    """A PNG of WIDTH x HEIGHT pixels.

    A row that was timed is a point with its intervals; one that was not is a dashed line across. An axis is
    logarithmic only where every value on it is positive.

    Raises:
        ImportError: if matplotlib is not installed.
    """
    try:
        from matplotlib.backends.backend_agg import FigureCanvasAgg
        from matplotlib.figure import Figure
    except ImportError as error:
        raise ImportError('the figure needs matplotlib: pip install "hf_genzoo[evaluation]"') from error

    figure = Figure(figsize=(WIDTH / DPI, HEIGHT / DPI), dpi=DPI, facecolor="white")
    FigureCanvasAgg(figure)
    figure.suptitle(
        shorten(comparison.title(), 90), x=0.06, y=0.97, ha="left", fontsize=15, color=INK, parse_math=False
    )
    panels = figure.subplots(1, 2)
    figure.subplots_adjust(left=0.06, right=0.99, top=0.885, bottom=0.16, wspace=0.13)
    titles = ("Quality", "Coverage")
    for panel, title, key in zip(panels, titles, comparison.headlines, strict=False):
        panel.set_title(f"{title} against speed", loc="left", fontsize=12, color=INK)
        _draw_panel(figure, panel, comparison, key)
    about = f"{comparison.dataset}, split {comparison.split}, {comparison.num_samples:,} samples, "
    about += f"features: {comparison.extractors[0] if comparison.extractors else 'none'}, "
    about += f"timed on {comparison.device}. Bars: 95 % intervals, hidden where shorter than the marker. "
    about += "Dashed: not timed."
    figure.text(0.06, 0.025, shorten(about, 190), fontsize=9.5, color=GREY, parse_math=False)
    stream = io.BytesIO()
    figure.savefig(stream, format="png", dpi=DPI)
    return stream.getvalue()


def _draw_panel(figure: "Figure", panel: "Axes", comparison: Comparison, key: str) -> None:
    rows = comparison.rows
    _scale(panel, "x", [row.measured("ms_per_image") for row in rows if row.measured(key)], "ms_per_image")
    _scale(panel, "y", [row.measured(key) for row in rows], key)
    panel.grid(color="#E4E4E4", linewidth=0.8)
    panel.set_axisbelow(True)
    panel.tick_params(labelsize=10.5, colors=INK)
    for side in ("top", "right"):
        panel.spines[side].set_visible(False)
    left, right = panel.get_xlim()
    bottom, top = panel.get_ylim()

    models = {row.name: number for number, row in enumerate(comparison.models)}
    points: list[tuple[Row, float, float]] = []
    lines: list[tuple[Row, float]] = []
    taken: list[Bbox] = []
    for row in rows:
        x, y = row.measured("ms_per_image"), row.measured(key)
        if y is None:
            continue
        number = models.get(row.name)
        colour = GREY if number is None else COLOURS[number % len(COLOURS)]
        if x is None:
            panel.axhline(y.value, color=colour, linewidth=1.2, linestyle=(0, (5, 4)))
            ends = panel.transData.transform([(left, y.value), (right, y.value)])
            lines.append((row, ends[0][1]))
            taken.append(_box(ends, 1))
            continue
        marker = "o" if number is None else MARKERS[number % len(MARKERS)]
        # Clipped by hand: on a logarithmic axis an end at or below zero would take the whole bar with it.
        if x.interval:
            ends = [min(max(end, left), right) for end in x.interval]
            panel.hlines(y.value, ends[0], ends[1], color=colour, linewidth=1.8)
            taken.append(_box(panel.transData.transform([(end, y.value) for end in ends]), 3))
        if y.interval:
            ends = [min(max(end, bottom), top) for end in y.interval]
            panel.vlines(x.value, ends[0], ends[1], color=colour, linewidth=1.8)
            taken.append(_box(panel.transData.transform([(x.value, end) for end in ends]), 3))
        panel.plot(x.value, y.value, marker, color=colour, markersize=9, markeredgecolor="white", zorder=3)
        centre = panel.transData.transform((x.value, y.value))
        points.append((row, *centre))
        taken.append(_box([centre], 9))

    limits = _box(panel.transData.transform([(left, bottom), (right, top)]), 0)
    for row, x, y in points:
        _label(figure, shorten(row.name), _around(x, y), taken, limits, (x, y))
    for row, y in lines:
        ink = INK if row.kind == "model" else GREY
        _label(figure, shorten(row.name), _along(y, limits), taken, limits, None, color=ink, style="italic")
    if missing := [row.name for row in rows if row.measured(key) is None]:
        note = shorten(f"Not measured: {', '.join(missing)}", 80)
        panel.text(1, 1.015, note, transform=panel.transAxes, ha="right", color=GREY, parse_math=False)


def _scale(panel: "Axes", side: str, values: Sequence[Measured | None], key: str) -> None:
    """Limits, scale and label of an axis; values without any spread get room around them."""
    from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter

    found = [value for value in values if value]
    about = quantity(key)
    log = about.log and all(value.value > 0 for value in found)
    ends = [end for value in found for end in (value.value, *(value.interval or ())) if end > 0 or not log]
    low, high = (min(ends), max(ends)) if ends else (1.0, 1.0)
    axis = panel.xaxis if side == "x" else panel.yaxis
    set_limits: Any = panel.set_xlim if side == "x" else panel.set_ylim
    if log:
        (panel.set_xscale if side == "x" else panel.set_yscale)("log")
        room = max(0.12 * math.log10(high / low), 0.25 if side == "x" else 0.1)
        set_limits(low / 10**room, high * 10**room)
        near = high / low < 100
        axis.set_major_locator(LogLocator(subs=(1, 2, 5) if near else (1,)))
        axis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
        axis.set_minor_formatter(NullFormatter())
    else:
        room = 0.1 * (high - low) or 0.1 * abs(high) or 1.0
        set_limits(low - room, high + room)
    name = about.title + (f", {about.unit}" if about.unit else "")
    if not found:
        axis.set_ticks([])
        name += ": not measured"
    name += f" ({about.direction}{', log scale' if log else ''})"
    axis.set_label_text(name, fontsize=11.5 if len(name) < 60 else 9, color=INK, parse_math=False)


# A place for a label: its anchor in pixels, and which of its sides lies there.
Place = tuple[float, float, str, str]


def _around(x: float, y: float) -> list[Place]:
    """Places around a point, the nearest first."""
    places: list[Place] = []
    for away in (13, 30, 52, 80, 120):
        slant = 0.75 * away
        places += [(x + away, y, "left", "center"), (x - away, y, "right", "center")]
        places += [(x, y + away, "center", "bottom"), (x, y - away, "center", "top")]
        for up, vertical in ((slant, "bottom"), (-slant, "top")):
            places += [(x + slant, y + up, "left", vertical), (x - slant, y + up, "right", vertical)]
    return places


def _along(y: float, limits: "Bbox") -> list[Place]:
    """Places on a line across, above it and below it, from its right end on."""
    width = limits.x1 - limits.x0
    return [
        (limits.x1 - 4 - share * width, y + up, "right", vertical)
        for share in (0, 0.25, 0.5, 0.7)
        for up, vertical in ((3, "bottom"), (-3, "top"))
    ]


def _label(
    figure: "Figure",
    text: str,
    places: Sequence[Place],
    taken: "list[Bbox]",
    limits: "Bbox",
    point: tuple[float, float] | None,
    color: str = INK,
    style: Literal["normal", "italic"] = "normal",
) -> None:
    """Write a label at the first place where it covers nothing, else where it covers least; far ones get a leader."""
    from matplotlib.lines import Line2D
    from matplotlib.transforms import Bbox, IdentityTransform

    def leader(x: float, y: float) -> list[Bbox]:
        """Small boxes along the line from the point's rim to a label that is far from it."""
        if point is None or max(abs(x - point[0]), abs(y - point[1])) <= 20:
            return []
        steps = [step / 20 for step in range(5, 20)]
        return [_box([(point[0] + t * (x - point[0]), point[1] + t * (y - point[1]))], 4) for t in steps]

    label = figure.text(0, 0, text, transform=IdentityTransform(), fontsize=11, color=color, parse_math=False)
    label.set_fontstyle(style)

    def put(place: Place) -> list[Bbox]:
        x, y, horizontal, vertical = place
        label.set(x=x, y=y, horizontalalignment=horizontal, verticalalignment=vertical)
        return [label.get_window_extent(), *leader(x, y)]

    def covered(boxes: list[Bbox]) -> float:
        hidden = sum(_common(boxes[0], other) for other in taken)
        crossed = sum(_common(box, other) for box in boxes[1:] for other in taken)
        return hidden + 5 * crossed + 2 * (boxes[0].width * boxes[0].height - _common(boxes[0], limits))

    chosen = min(places, key=lambda place: round(covered(put(place))))
    boxes = put(chosen)
    taken.extend(boxes)
    if point and len(boxes) > 1:
        ends = [(point[0], chosen[0]), (point[1], chosen[1])]
        figure.add_artist(Line2D(*ends, transform=IdentityTransform(), color=GREY, linewidth=0.7))


def _box(corners: Any, margin: float) -> "Bbox":
    from matplotlib.transforms import Bbox

    xs, ys = [float(x) for x, _ in corners], [float(y) for _, y in corners]
    return Bbox([(min(xs) - margin, min(ys) - margin), (max(xs) + margin, max(ys) + margin)])


def _common(a: "Bbox", b: "Bbox") -> float:
    """Area that two boxes share."""
    return max(0.0, min(a.x1, b.x1) - max(a.x0, b.x0)) * max(0.0, min(a.y1, b.y1) - max(a.y0, b.y0))
