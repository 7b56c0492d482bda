"""Names beside points: as many as there is room for, none over another.

Knows matplotlib's axes, not which chart is drawn.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from qnb.display.style import INK, PAPER

if TYPE_CHECKING:
    from matplotlib.axes import Axes

__all__ = ["label_points"]

# Right, left, above and below of the point; offsets in points.
_PLACES: tuple[tuple[float, float, str, str], ...] = (
    (7, 0, "left", "center"),
    (-7, 0, "right", "center"),
    (0, 7, "center", "bottom"),
    (0, -7, "center", "top"),
    (6, 6, "left", "bottom"),
    (-6, 6, "right", "bottom"),
    (6, -6, "left", "top"),
    (-6, -6, "right", "top"),
)


_STYLE: dict[str, Any] = {"fontsize": 7.5, "color": INK, "zorder": 5}
_DENSE = 60
"""With more points than this a label may lie over points that have none: there would be no room for any."""


def label_points(
    ax: Axes,
    points: Sequence[tuple[float, float]],
    labels: Sequence[str],
    *,
    below: bool = False,
    settled: bool = False,
    **style: Any,
) -> int:
    """Write labels beside points, the first ones first, and leave out those for which there is no room.

    Call it last: limits and everything else of the figure must stand.

    Parameters
    ----------
    ax : matplotlib.axes.Axes
    points : sequence of (float, float)
        In data coordinates.
    labels : sequence of str
        For the first points; there may be fewer labels than points.
    below : bool
        Whether the place to the right and below is the first choice, as beside a rising line.
    settled : bool
        Whether the figure was laid out already, by labels in another of its axes.
    **style
        As for `matplotlib.axes.Axes.annotate`.

    Returns
    -------
    int
        How many were written.
    """
    from matplotlib.transforms import Bbox

    figure = ax.figure.get_figure(root=True)
    assert figure is not None
    if not settled:
        figure.draw_without_rendering()
    frame = ax.get_window_extent()
    kept_free = points if len(points) <= _DENSE else points[: len(labels)]
    pixels: Any = ax.transData.transform(list(kept_free)) if kept_free else []
    behind = {"facecolor": PAPER, "edgecolor": "none", "pad": 0.6, "alpha": 0.9}
    places = sorted(_PLACES, key=lambda place: place != (6, -6, "left", "top")) if below else _PLACES
    half = 3.0 * figure.dpi / 72
    taken = [Bbox.from_extents(x - half, y - half, x + half, y + half) for x, y in pixels]
    taken += [text.get_window_extent().padded(2) for text in ax.texts if text.get_text()]
    written = 0
    for number, (point, label) in enumerate(zip(points, labels, strict=False)):
        text = ax.annotate(label, point, (0, 0), textcoords="offset points", **(_STYLE | {"bbox": behind} | style))
        for x, y, horizontal, vertical in places:
            text.set(position=(x, y), horizontalalignment=horizontal, verticalalignment=vertical)
            box = text.get_window_extent()
            inside = frame.x0 <= box.x0 and box.x1 <= frame.x1 and frame.y0 <= box.y0 and box.y1 <= frame.y1
            if inside and not any(box.overlaps(other) for other in (*taken[:number], *taken[number + 1 :])):
                taken.append(box.padded(2))
                written += 1
                break
        else:
            text.remove()
    return written
