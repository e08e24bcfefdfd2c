"""How things look in a notebook: escaped, bounded, with a picture, and never an error."""

from __future__ import annotations

import base64
import io
import re
import warnings
from xml.etree import ElementTree

import numpy as np
import pytest
from counterpart import OneDatasetServer

import h5flight
from h5flight import client as clients
from h5flight import notebook

EVIL = "<script>alert('&')</script>"


def well_formed(shown: str) -> ElementTree.Element:
    assert "<script" not in shown
    return ElementTree.fromstring(shown)


@pytest.fixture
def evil(contract: object):
    frame = np.arange(3 * 90 * 120, dtype=np.int16).reshape(3, 90, 120)
    with OneDatasetServer(contract, {f"a/{EVIL}": frame, "a/trace": np.sin(np.linspace(0, 9, 5000))}) as running:
        yield running


def test_names_are_data_and_a_card_has_a_picture_of_a_few_kilobytes(evil: OneDatasetServer) -> None:
    with h5flight.connect(f"grpc://127.0.0.1:{evil.port}") as client:
        tree = client["a"]["e"]._repr_html_()
        words = "".join(well_formed(tree).itertext())
        assert EVIL in words
        assert "trace" in words
        card = client["a"]["e"][f"a/{EVIL}"]._repr_html_()
        words = "".join(well_formed(card).itertext())
        assert "(3, 90, 120)" in words
        assert "mV" in words
        picture = base64.b64decode(re.search(r"base64,([^\"]+)", card)[1])
        image = pytest.importorskip("PIL.Image").open(io.BytesIO(picture))
        assert image.size == (120, 90)
        shown = np.asarray(image)
        assert shown[0, 0] == 0
        assert shown[-1, -1] == 255
        assert (np.diff(shown[:, 5].astype(int)) >= 0).all()
        lines = client["a"]["e"]["a/trace"]._repr_html_()
        (line,) = well_formed(lines).iter("{http://www.w3.org/2000/svg}polyline")
        assert len(line.get("points").split()) == 512
    assert len(card) < 40_000
    assert len(lines) < 20_000
    assert [request.parts.axes[-1].slice.stop for request in evil.requests] == [0, 512]


def test_a_server_that_is_away_is_a_line_of_text() -> None:
    client = h5flight.Client("grpc://127.0.0.1:1", timeout_s=5)
    for shown in (client, client["<m>"], client["m"]["d"], client["m"]["d"]["<x>"]):
        words = "".join(well_formed(shown._repr_html_()).itertext())
        assert "no h5flight server answers at grpc://127.0.0.1:1" in words


def test_a_picture_of_nothing_is_none_and_infinities_are_left_out() -> None:
    assert notebook.svg_lines(np.full(3, np.nan)) == ""
    assert notebook.svg_lines(np.array([1.0, np.inf, 2.0])).count(",") >= 2
    assert "inf" not in notebook.svg_lines(np.array([1.0, np.inf, 2.0]))
    assert notebook.png_image(np.full((4, 4), np.nan)).startswith("<img")


def test_another_version_of_the_server_is_told_once() -> None:
    clients._compare_versions.cache_clear()
    with pytest.warns(UserWarning, match=r"the server is h5flight 7\.3\.1, this package is"):
        clients._compare_versions("7.3.1")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        clients._compare_versions("7.3.1")
        clients._compare_versions(h5flight.__version__)
