"""Names and links of every kind: listed, described, read; nothing is lost silently."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import h5flight
import h5py
import numpy as np
import pytest

import attribute_files
import name_files
from server import Server

escaped = attribute_files.escaped


@pytest.fixture(scope="module")
def names(server: Server, client: h5flight.Client) -> tuple[h5flight.Experiment, dict]:
    path = Path(server.roots["lab"]) / "names.h5"
    name_files.write_names(path)
    (report,) = client.register(path, animal="m01", experiment="names")
    return client["m01"]["names"], report


@pytest.mark.parametrize("number", range(len(name_files.NAMES)))
def test_a_name_is_listed_described_and_read(
    names: tuple[h5flight.Experiment, dict], server: Server, number: int
) -> None:
    experiment, _ = names
    shown = escaped(name_files.NAMES[number])
    assert experiment.group().kinds[shown] == "dataset"
    assert experiment[shown][...].tolist() == [number, number + 1, number + 2]
    assert experiment.describe(shown)["path"] == shown
    assert shown in experiment
    said = server.command("ls", "m01", "names", shown, "--json")
    assert said.returncode == 0, said.stderr
    assert json.loads(said.stdout)["path"] == shown
    people = server.command("ls", "m01", "names", "/")
    assert not any(letter < " " for letter in people.stdout.replace("\n", ""))
    assert "\u202e" not in people.stdout


@pytest.mark.parametrize("number", range(len(name_files.NAMES) - 1))
def test_a_dataset_below_a_strange_name_is_read_from_the_file(
    names: tuple[h5flight.Experiment, dict], number: int
) -> None:
    experiment, _ = names
    path = f"groups/{escaped(name_files.NAMES[number])}/words"
    found = experiment[path][4990:]
    assert found.tolist() == [f"{number} {'x' * 20}"] * 10
    assert path in {dataset.name for dataset in experiment.datasets()}


def test_what_has_too_long_a_name_is_counted_and_told(
    names: tuple[h5flight.Experiment, dict], client: h5flight.Client, server: Server
) -> None:
    experiment, report = names
    # The dataset whose name has 4,096 bytes, and what is in the group whose name has 2,048.
    assert report["publication"]["left_out"] == 2
    assert "left out: 2 objects or links" in report["message"]
    group = escaped(name_files.LONG[:2048])
    assert experiment.group().kinds[group] == "group"
    assert len(experiment.group(group)) == 0
    said = server.command("register", "lab:names.h5", "--animal", "m01", "--experiment", "names")
    assert "already there" in said.stdout and "left out: 2" in said.stdout  # noqa: PT018
    (report,) = client.register("lab:names.h5", animal="m01", experiment="names")
    assert (report["publication"]["already"], report["publication"]["left_out"]) == (True, 2)


def test_names_that_no_file_should_have_do_not_hide_the_others(server: Server, client: h5flight.Client) -> None:
    path = Path(server.roots["lab"]) / "impossible.h5"
    name_files.write_impossible_names(path)
    (report,) = client.register(path, animal="m01", experiment="impossible")
    experiment = client["m01"]["impossible"]
    assert {dataset.name for dataset in experiment.datasets()} == {"%2E", "a/x%2Fy", "fine"}
    for name in experiment:
        assert experiment[name][...].tolist() == [0, 1, 2, 3], name
    # libhdf5 does not get past the empty name, and that is told.
    assert (report["publication"]["left_out"], report["message"]) == (1, "left out: members of 1 damaged groups")


@pytest.fixture(scope="module")
def links(server: Server, publish: Callable[..., h5flight.Experiment]) -> h5flight.Experiment:
    path = Path(server.roots["lab"]) / "links.h5"
    name_files.write_links(path)
    return publish(path)


@pytest.mark.parametrize(
    ("path", "leads_to"),
    [
        ("hard", "g/data"),
        ("soft", "g/data"),
        ("relative", "g/data"),
        ("one", "g/data"),
        ("group/data", "g/data"),
        ("through", "g/sub/inner"),
        ("g/sub/up/sub/up/data", "g/data"),
        ("g/self/self/self/data", "g/data"),
        ("root/group/sub/inner", "g/sub/inner"),
        ("chain4", "g/data"),
        ("//g/./data/", "g/data"),
    ],
)
def test_a_link_leads_to_the_same_data(links: h5flight.Experiment, path: str, leads_to: str) -> None:
    assert links.describe(path)["path"] == leads_to
    np.testing.assert_array_equal(links[path][...], np.arange(6 if leads_to == "g/data" else 2))


@pytest.mark.parametrize(
    ("path", "reason", "words"),
    [
        ("dangling", "dataset_not_found", "is a link to"),
        ("loop", "dataset_not_found", "in circles"),
        ("itself", "dataset_not_found", "in circles"),
        ("deep", "dataset_not_found", "in circles"),
        ("chain0", "dataset_not_found", "more than 16 links"),
        ("outside", "external_link_refused", "out of its file"),
        ("outside/below", "external_link_refused", "out of its file"),
        ("own/own_link", "external_link_refused", "out of its file"),
    ],
)
def test_a_link_that_leads_nowhere_says_why(
    links: h5flight.Experiment, server: Server, path: str, reason: str, words: str
) -> None:
    for ask in (lambda: links.describe(path), lambda: links[path][...], lambda: links.group(path)):
        with pytest.raises(h5flight.H5FlightError, match=words) as caught:
            ask()
        assert caught.value.reason == reason
        assert "secret" not in str(caught.value)
    assert reason in server.command("ls", "m01", "links", path, "--json").stderr


def test_links_are_members_of_their_group(links: h5flight.Experiment) -> None:
    kinds = links.group().kinds
    expected = {
        "hard": "dataset", "soft": "dataset", "one": "dataset", "through": "dataset", "group": "group",
        "root": "group", "dangling": "soft_link", "loop": "soft_link", "chain0": "soft_link",
        "outside": "external_link",
    }  # fmt: skip
    assert {name: kinds[name] for name in expected} == expected
    told = {child["name"]: child["problem_reason"] for child in links.describe()["children"]}
    assert (told["hard"], told["dangling"], told["outside"]) == (
        "", "dataset_not_found", "external_link_refused"
    )  # fmt: skip
    assert links.group("own").kinds == {"own_link": "user_link"}
    assert "secret" not in json.dumps(links.describe())
    assert links.describe("g/data")["aliases"] == ["chain19", "hard", "relative", "soft"]
    assert links.group("g").kinds == {"data": "dataset", "self": "group", "sub": "group"}
    assert isinstance(links.group()["group"], h5flight.Group)
    with pytest.raises(h5flight.FileStateError):
        links.group()["outside"]


def test_links_between_experiments_are_told(server: Server, client: h5flight.Client) -> None:
    path = Path(server.roots["lab"]) / "hierarchy.h5"
    with h5py.File(path, "w") as file:
        file["animals/a/experiments/e/data"] = np.arange(3)
        file["animals/a/experiments/f/own"] = np.arange(2)
        file["animals/a/experiments/f/theirs"] = file["animals/a/experiments/e/data"]
        file["animals/a/experiments/f/soft"] = h5py.SoftLink("/animals/a/experiments/e/data")
        file["animals/a/experiments/e/same"] = h5py.SoftLink("data")
    (report,) = client.register("lab:hierarchy.h5")
    assert report["publication"]["left_out"] == 2
    assert "2 links from one experiment into another" in report["message"]
    assert client["a"]["e"]["same"][...].tolist() == [0, 1, 2]
