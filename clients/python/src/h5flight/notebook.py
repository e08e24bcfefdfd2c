"""How things look in a notebook: trees of names, and cards of datasets with a small picture.

Everything that comes from a server is escaped: names and attributes are data. Listing is bounded (`_ROWS`), and so is
what is read for a picture: `_PICTURE_POINTS` values of one frame or trace, by a step; a few KB travel, while the
server decodes the chunks that lie there. Pictures are SVG and PNG made here, without matplotlib. What goes wrong while
something is shown becomes a line of text: a notebook must not fail because a server is away.
"""

from __future__ import annotations

import base64
import html
import itertools
import struct
import zlib
from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

import numpy as np

from .arrays import Array
from .errors import H5FlightError

if TYPE_CHECKING:
    from .client import Animal, Client, Experiment, Group
    from .dataset import Dataset

_ROWS = 50
"""Names that are listed of one level; the others are told by their number where it is known."""

_PICTURE_POINTS = 4096
"""Values that are read for a picture, about: 64 by 64 of a frame, 512 of each of at most 8 traces."""

_PICTURE_CHUNK_BYTES = 64 << 20
"""A dataset whose chunks are larger has no picture: the server would decode one for a glance."""

_STYLE = "font-family:monospace;font-size:90%;line-height:1.4"


def text(value: Any, limit: int = 200) -> str:
    """Text of a value, safe inside HTML, of at most so many letters."""
    words = value if isinstance(value, str) else str(value)
    return html.escape(words if len(words) <= limit else words[: limit - 1] + "…")


def _tree(title: str, lines: Iterable[str], more: str = "") -> str:
    items = "".join(f"<li>{line}</li>" for line in lines) + (f"<li><i>{text(more)}</i></li>" if more else "")
    listing = f'<ul style="margin:0;padding-left:1.5em">{items}</ul>' if items else ""
    return f'<div style="{_STYLE}"><b>{title}</b>{listing}</div>'


def _first(entries: Iterable[Any]) -> tuple[list[Any], str]:
    found = list(itertools.islice(entries, _ROWS + 1))
    return found[:_ROWS], "more …" if len(found) > _ROWS else ""


def client_html(client: Client) -> str:
    """The animals of a server."""
    try:
        animals, more = _first(client._entries(_ROWS + 1))
    except H5FlightError as error:
        return _tree(f"h5flight at {text(client.url)}: {text(error, 400)}", [])
    lines = (f"{text(one.name)} <i>{text(_animal_words(one.facts))}</i>" for one in animals)
    return _tree(f"h5flight at {text(client.url)}", lines, more)


def _animal_words(facts: dict[str, Any]) -> str:
    parts = [str(facts.get("species") or ""), f"{facts.get('experiments', 0)} experiments"]
    return ", ".join(part for part in parts if part)


def animal_html(animal: Animal) -> str:
    """The experiments of an animal."""
    try:
        experiments, more = _first(animal._entries(_ROWS + 1))
    except H5FlightError as error:
        return _tree(f"animal {text(animal.name)}: {text(error, 400)}", [])
    lines = (
        f"{text(one.name)} <i>{text(one.facts.get('start_time') or '')} "
        f"{text(one.facts.get('datasets', 0))} datasets</i>"
        for one in experiments
    )
    return _tree(f"animal {text(animal.name)}", lines, more)


def experiment_html(experiment: Experiment) -> str:
    """The datasets of an experiment, as a tree of its groups."""
    title = f"experiment {text(experiment.animal)}/{text(experiment.name)}"
    try:
        datasets, more = _first(experiment._entries(_ROWS + 1))
    except H5FlightError as error:
        return _tree(f"{title}: {text(error, 400)}", [])
    lines: list[str] = []
    above: list[str] = []
    for dataset in datasets:
        *groups, name = dataset.name.split("/")
        shared = sum(1 for _ in itertools.takewhile(lambda pair: pair[0] == pair[1], zip(above, groups, strict=False)))
        lines += [_indented(depth, f"{text(groups[depth])}/") for depth in range(shared, len(groups))]
        lines.append(_indented(len(groups), f"<b>{text(name)}</b> <i>{_form(dataset)}</i>"))
        above = groups
    return f'<div style="{_STYLE}"><b>{title}</b>{"".join(lines)}{f"<div><i>{more}</i></div>" if more else ""}</div>'


def _indented(depth: int, line: str) -> str:
    return f'<div style="padding-left:{1.5 * (depth + 1)}em">{line}</div>'


def _form(dataset: Dataset) -> str:
    return text(f"{dataset.shape} {dataset._describe().get('dtype', '')}")


def group_html(group: Group) -> str:
    """The members and attributes of a group."""
    lines = [f"{text(name)} <i>{text(kind.replace('_', ' '))}</i>" for name, kind in group.kinds.items()]
    attributes = [f"@{text(name)} = {text(value)}" for name, value in group.attrs.items()]
    more = f"{len(lines) - _ROWS} more …" if len(lines) > _ROWS else ""
    return _tree(f"{text(group.kind)} /{text(group.name)}", lines[:_ROWS] + attributes[:_ROWS], more)


def dataset_html(dataset: Dataset) -> str:
    """A card: what a dataset is, and a picture of its beginning."""
    title = f"{text(dataset._full_name)}"
    try:
        rows = [(name, value) for name, value in _facts(dataset) if value not in (None, "")]
        picture = thumbnail(dataset)
    except H5FlightError as error:
        return _tree(f"dataset {title}: {text(error, 400)}", [])
    cells = "".join(
        f'<tr><td style="text-align:left"><b>{text(name)}</b></td><td style="text-align:left">{text(value)}</td></tr>'
        for name, value in rows
    )
    shown = f'<td style="vertical-align:top">{picture}</td>' if picture else ""
    table = f"<table><tr><td><table>{cells}</table></td>{shown}</tr></table>"
    return f'<div style="{_STYLE}"><b>dataset {title}</b>{table}</div>'


def _facts(dataset: Dataset) -> Iterable[tuple[str, Any]]:
    facts, attributes = dataset._describe(), dataset.attrs
    yield "shape", dataset.shape if not facts.get("is_null") else "no value"
    yield "dtype", facts.get("dtype")
    yield "chunks", f"{dataset.chunks} {', '.join(dataset.filters)}" if dataset.chunks else None
    stored = int(facts.get("stored_bytes", 0))
    yield "size", f"{bytes_text(dataset.nbytes)}, {bytes_text(stored)} in the file" if dataset.nbytes else None
    yield "unit", attributes.get("unit")
    yield "version", dataset.version
    yield "cannot be read", facts.get("problem")
    for name, value in itertools.islice(attributes.items(), 20):
        if name != "unit":
            yield f"@{name}", value


def bytes_text(count: int) -> str:
    """Bytes for people.

    Examples
    --------
    >>> bytes_text(512), bytes_text(3 << 20)
    ('512 B', '3.0 MiB')
    """
    amount, units = float(count), ["B", "KiB", "MiB", "GiB", "TiB"]
    while amount >= 1024 and len(units) > 1:
        amount, units = amount / 1024, units[1:]
    return f"{amount:.0f} B" if units[0] == "B" else f"{amount:.1f} {units[0]}"


def thumbnail(dataset: Dataset) -> str:
    """A small picture of the first frame or of the first traces as HTML; empty where there is nothing to see."""
    shape, kind = dataset.shape, dataset.dtype.kind
    if kind not in "iufb" or not shape or not dataset.size or dataset._describe().get("problem_reason"):
        return ""
    chunk = int(np.prod(dataset.chunks)) * dataset.dtype.itemsize if dataset.chunks else 0
    if chunk > _PICTURE_CHUNK_BYTES:
        return ""
    if len(shape) >= 3 and min(shape[-2:]) >= 4:
        side = int(_PICTURE_POINTS**0.5)
        steps = (slice(None, None, max(1, -(-size // side))) for size in shape[-2:])
        return png_image(np.asarray(dataset[(0,) * (len(shape) - 2) + tuple(steps)]))
    if len(shape) > 2 or shape[0] < 2:
        return ""
    # The beginning, not all of it by a large step: that would have every chunk decoded.
    rows = slice(0, min(shape[0], _PICTURE_POINTS // 8))
    return svg_lines(np.asarray(dataset[(rows, *([slice(0, 8)] if len(shape) == 2 else []))]))


def svg_lines(values: Array, width: int = 240, height: int = 100) -> str:
    """Lines over the first axis, one for each column, as SVG."""
    columns = np.asarray(values, float).reshape(len(values), -1)
    known = columns[np.isfinite(columns)]
    if not known.size:
        return ""
    low, span = known.min(), (known.max() - known.min()) or 1.0
    xs = np.linspace(2, width - 2, len(columns))
    lines = []
    for column in range(columns.shape[1]):
        ys = height - 4 - (columns[:, column] - low) / span * (height - 8)
        points = " ".join(f"{x:.1f},{y:.1f}" for x, y in zip(xs, ys, strict=True) if np.isfinite(y))
        hue = 210 + column * 40
        lines.append(f'<polyline points="{points}" fill="none" stroke="hsl({hue % 360},60%,45%)" stroke-width="1"/>')
    return f'<svg xmlns="http://www.w3.org/2000/svg" width="{width}" height="{height}">{"".join(lines)}</svg>'


def png_image(frame: Array) -> str:
    """A frame in grey, as an inline PNG; from its 1st to its 99th percentile."""
    values = np.nan_to_num(np.asarray(frame, float))
    low, high = np.percentile(values, [1, 99])
    grey = np.clip((values - low) / ((high - low) or 1.0) * 255, 0, 255).astype(np.uint8)
    zoom = max(1, 160 // max(grey.shape))
    data = base64.b64encode(png(np.kron(grey, np.ones((zoom, zoom), np.uint8)))).decode()
    return f'<img alt="first frame" src="data:image/png;base64,{data}"/>'


def png(grey: Array) -> bytes:
    """Encode an image of 8 bits, shape (height, width)."""

    def part(name: bytes, body: bytes) -> bytes:
        return struct.pack(">I", len(body)) + name + body + struct.pack(">I", zlib.crc32(name + body))

    height, width = grey.shape
    lines = np.zeros((height, width + 1), np.uint8)
    lines[:, 1:] = grey
    head = struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, 0)
    body = zlib.compress(lines.tobytes(), 6)
    return b"\x89PNG\r\n\x1a\n" + part(b"IHDR", head) + part(b"IDAT", body) + part(b"IEND", b"")
