"""One table of selections, in all forms, with numpy's results: `tests/selections.jsonl`.

The server's tests read it too. `python test_selections_table.py` writes it anew.
"""

from __future__ import annotations

import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from counterpart import apply

from h5flight import Points, selection

TABLE = Path(__file__).parents[3] / "tests" / "selections.jsonl"

# (shape, text, Python)
SELECTIONS: list[tuple[tuple[int, ...], str, str]] = [
    ((4, 5, 6), "", "()"),
    ((4, 5, 6), "...", "..."),
    ((4, 5, 6), "1", "1"),
    ((4, 5, 6), "-1, 2", "(-1, np.uint8(2))"),
    ((4, 5, 6), "1, 2, 3", "(1, 2, 3)"),
    ((4, 5, 6), "..., -1", "(..., -1)"),
    ((4, 5, 6), "1, ..., ::2", "(1, ..., slice(None, None, 2))"),
    ((4, 5, 6), "1:3, ::-1, 4:0:-2", "np.s_[1:3, ::-1, 4:0:-2]"),
    ((4, 5, 6), ":100, -9:, 3:3", "np.s_[:100, -9:, 3:3]"),
    ((4, 5, 6), ":99999999999999999999", "slice(None, 99999999999999999999)"),
    ((4, 5, 6), "[3, 0, 0]", "[3, 0, 0]"),
    ((4, 5, 6), "[3, 0], :, [-1, 2, 2]", "([3, 0], slice(None), np.array([-1, 2, 2], np.int8))"),
    ((4, 5, 6), "[0, 1, 2], 1", "(range(3), 1)"),
    ((4, 5, 6), "[]", "[]"),
    ((4, 5, 6), "[True, False, False, True]", "[True, False, False, True]"),
    ((4, 5, 6), "..., [false, true, true, false, true, false]", "(..., np.array([0, 1, 1, 0, 1, 0], bool))"),
    ((4, 5, 6), "[False, False, False, False], 0", "(np.zeros(4, bool), 0)"),
    ((4, 5, 6), "points[[0, 0, 0], [3, 4, 5], [-1, -1, -1], [2, 0, 3], [0, 0, 0]]",
     "Points([(0, 0, 0), (3, 4, 5), (-1, -1, -1), (2, 0, 3), (0, 0, 0)])"),
    ((4, 5, 6), "points[]", "Points([])"),
    ((4, 5, 6), "points[[0, 0, 1], [2, 1, 3]]", "np.isin(np.arange(120).reshape(4, 5, 6), [1, 69])"),
    ((3, 2), "points[[0, 1], [1, 1], [2, 0]]", "np.array([[0, 1], [0, 1], [1, 0]], bool)"),
    ((3, 2), "points[[0, 1], [1, 1], [2, 0]]", "[[False, True], [False, True], [True, False]]"),
    ((3, 2), "points[]", "np.zeros((3, 2), bool)"),
    ((7,), "points[[6], [0], [-1]]", "Points([[6], [0], [-1]])"),
    ((7,), "[0, 2, 4, 6]", "np.arange(7) % 2 == 0"),
    ((0, 5), "::-1, 1", "np.s_[::-1, 1]"),
    ((0, 5), "points[]", "np.zeros((0, 5), bool)"),
    ((), "", "()"),
    ((), "...", "..."),
    ((4, 3), "'x', 'y', 1:", "('x', 'y', slice(1, None))"),
    ((4, 3), "1:, 'x', 2", "(slice(1, None), 'x', 2)"),
    ((4, 3), "'x', points[[3, 2]]", "('x', Points([(3, 2)]))"),
    # What does not fit.
    ((4, 5), "0, 7", "(0, 7)"),
    ((4, 5), "-5", "-5"),
    ((4, 5), ":, [0, 5]", "(slice(None), [0, 5])"),
    ((4, 5), "points[[0, 0], [3, 5]]", "Points([(0, 0), (3, 5)])"),
    ((4, 5), "points[[-5, 0]]", "Points([(-5, 0)])"),
    ((4, 5), "points[[1]]", "Points([[1]])"),
    ((4, 5), "points[[0, 0, 0]]", "Points([(0, 0, 0)])"),
    ((4, 5), "0, 0, 0", "(0, 0, 0)"),
    ((4, 5), "[True, False, True]", "[True, False, True]"),
    ((0, 5), "0", "0"),
    ((0, 5), "points[[0, 0]]", "Points([(0, 0)])"),
    ((), "0", "0"),
    ((), ":", "slice(None)"),
]  # fmt: skip


def forms(python: str) -> tuple[selection.Selection, str]:
    """The Python form, and the message that it becomes in hexadecimal digits."""
    parsed = selection.parse(eval(python, {"np": np, "Points": Points}))
    return parsed, (parsed.encode() or b"").hex()


def outer(parsed: selection.Selection, shape: tuple[int, ...]) -> np.ndarray:
    """What numpy selects, as positions in C order; several lists select the outer product."""
    whole = np.arange(int(np.prod(shape))).reshape(shape)
    if isinstance(parsed.elements, selection.ElementMask):
        return whole[parsed.elements.flags]
    if parsed.elements is not None:
        points = parsed.elements.coordinates
        if len(points) and points.shape[1] != len(shape):
            raise IndexError
        return whole[tuple(points.T)] if len(points) else np.zeros(0, int)
    named = sum(axis is not Ellipsis for axis in parsed.axes)
    if named > len(shape):
        raise IndexError
    axes: list[Any] = []
    for axis in (*parsed.axes, *([] if Ellipsis in [a for a in parsed.axes if a is Ellipsis] else [Ellipsis])):
        axes += [slice(None)] * (len(shape) - named) if axis is Ellipsis else [axis]
    at = 0
    for axis in axes:
        whole = whole[(*[slice(None)] * at, axis)]
        at += not isinstance(axis, int)
    return whole


def row(shape: tuple[int, ...], text: str, python: str) -> dict[str, Any]:
    parsed, wire = forms(python)
    entry: dict[str, Any] = {"shape": shape, "text": text, "python": python, "wire": wire}
    try:
        found = outer(parsed, shape)
    except IndexError:
        return {**entry, "refused": True}
    return {**entry, "result": found.shape, "elements": found.reshape(-1).tolist()}


def lines() -> list[str]:
    return [json.dumps(row(*entry)) for entry in SELECTIONS]


def test_the_table_says_what_numpy_selects_and_what_this_client_sends() -> None:
    assert TABLE.read_text().splitlines() == lines()


@pytest.mark.parametrize(("shape", "text", "python"), SELECTIONS, ids=[text for _, text, _ in SELECTIONS])
def test_text_and_message_mean_the_same(
    shape: tuple[int, ...], text: str, python: str, contract: SimpleNamespace
) -> None:
    parsed, wire = forms(python)
    of_text = selection.parse_text(text)
    assert of_text.fields == parsed.fields
    request = contract.data.GetDataRequest(parts=contract.data.Selection.FromString(bytes.fromhex(wire)))
    whole = np.arange(int(np.prod(shape))).reshape(shape)
    results = []
    for select in (lambda: outer(parsed, shape), lambda: outer(of_text, shape)):
        try:
            results.append(select())
        except IndexError:
            results.append(None)
    if results[0] is None:
        assert results[1] is None
        return
    np.testing.assert_array_equal(*results)
    # numpy pairs several lists.
    if sum(isinstance(axis, (list, np.ndarray)) for axis in parsed.axes) < 2:
        np.testing.assert_array_equal(whole[apply(request, shape)], results[0])


if __name__ == "__main__":
    TABLE.write_text("\n".join(lines()) + "\n")
