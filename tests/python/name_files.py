"""Files with names and links of every kind that HDF5 allows, and two that it does not."""

from __future__ import annotations

from pathlib import Path

import h5py
import numpy as np

NAMES = [
    b"..",
    b"...",
    b"100%",
    b"%41",
    b"\xff\xfe",
    b"cut \xe2\x82",
    b"tab\tnewline\nescape\x1b[31m",
    b"\x01\x7f",
    "c1\u0085".encode(),
    "\u202eright to left \u05d0\u05d1".encode(),
    b" spaces at both ends ",
    b" ",
    b"'; DROP TABLE objects; --",
    b'quote " backslash \\',
    "straße/日本".replace("/", " ").encode(),
    b"n" * 2000,
]
LONG = b"l" * 4096


def write_names(path: Path) -> None:
    """Every name for a dataset, and for a group with a dataset that is read by way of its path."""
    with h5py.File(path, "w") as file:
        space = h5py.h5s.create_simple((3,))
        for number, name in enumerate(NAMES):
            dataset = h5py.h5d.create(file.id, name, h5py.h5t.STD_I32LE, space)
            dataset.write(h5py.h5s.ALL, h5py.h5s.ALL, np.arange(3, dtype="<i4") + number)
        groups = h5py.h5g.create(file.id, b"groups")
        for number, name in enumerate(NAMES[:-1]):
            group = h5py.Group(h5py.h5g.create(groups, name))
            # Too much to be kept in the catalogue: the file is asked, by path.
            group["words"] = [f"{number} {'x' * 20}"] * 5000
        h5py.h5d.create(file.id, LONG, h5py.h5t.STD_I32LE, space)
        inside = h5py.Group(h5py.h5g.create(file.id, LONG[:2048]))
        inside["fits not"] = 1


def write_impossible_names(path: Path) -> None:
    """Names that are no component of a path: libhdf5 makes none, a damaged file has them."""
    with h5py.File(path, "w", libver="earliest") as file:
        for name in ("DOTNAME", "a/SLASHNAME", "damaged/EMPTYNAME", "fine"):
            file[name] = np.arange(4)
    raw = path.read_bytes()
    for name, other in {b"EMPTYNAME": b"", b"DOTNAME": b".", b"SLASHNAME": b"x/y"}.items():
        assert raw.count(name) == 1
        raw = raw.replace(name, other.ljust(len(name), b"\0"))
    path.write_bytes(raw)


def write_links(path: Path) -> None:
    """Links of every kind: chains, cycles, dangling ones, through groups, out of the file."""
    with h5py.File(path, "w") as file:
        file["g/data"] = np.arange(6)
        file["g/sub/inner"] = np.arange(2)
        file["hard"] = file["g/data"]
        file["g/sub/up"] = file["g"]
        file["g/self"] = file["g"]
        for name, target in {
            "soft": "/g/data",
            "relative": "g/./data",
            "one": "/two",
            "two": "three",
            "three": "/soft",
            "group": "/g",
            "through": "/group/sub/inner",
            "dangling": "/nowhere/at/all",
            "loop": "/pool",
            "pool": "loop",
            "itself": "itself",
            "deep": "itself/deeper",
            "root": "/",
        }.items():
            file[name] = h5py.SoftLink(target)
        for number in range(20):
            file[f"chain{number}"] = h5py.SoftLink(f"/chain{number + 1}" if number < 19 else "/g/data")
        file["outside"] = h5py.ExternalLink("/secret/place.h5", "/data")
        file["own/own_link"] = h5py.ExternalLink("nothing.h5", "/data")
    raw = bytearray(path.read_bytes())
    # The type of the link stands two or three bytes before its name: 64 is external, 65 one that a program defines.
    at = raw.index(b"own_link")
    kinds = [place for place in range(at - 4, at) if raw[place] == 64]
    assert kinds
    raw[kinds[-1]] = 65
    path.write_bytes(raw)


def write_scales(path: Path) -> None:
    """Dimension scales as h5py makes them, and as netCDF-4 does."""
    with h5py.File(path, "w") as file:
        file["time"], file["frame"] = np.arange(4) / 30, np.arange(4)
        file["time"].make_scale("time in seconds")
        file["frame"].make_scale()
        file["grid/x"] = np.linspace(0, 1, 3)
        file["grid/x"].make_scale("x")
        phony = file.create_dataset("grid/n", (2,), "f4")
        phony.make_scale("This is a netCDF dimension but not a netCDF variable         2")
        file["grid/movie"] = np.zeros((4, 3, 2))
        movie = file["grid/movie"]
        movie.dims[0].label, movie.dims[2].label = "time", "colour ß"
        for axis, scale in [(0, "time"), (0, "frame"), (1, "grid/x"), (2, "grid/n")]:
            movie.dims[axis].attach_scale(file[scale])
        file["labelled"] = np.zeros((2, 2))
        file["labelled"].dims[1].label = "y"
        file["plain"], file["scalar"] = np.zeros(3), 1.5
        for number, name in enumerate(["row", "letter"]):
            file[f"netcdf/{name}"] = np.arange(3) if name == "letter" else np.zeros((2, 3))
            file[f"netcdf/{name}"].attrs["_Netcdf4Dimid"] = np.int32(number)
            file[f"netcdf/{name}"].make_scale(name)
        file["netcdf/row"].attrs["_Netcdf4Coordinates"] = np.array([0, 1], "i4")
        file["alias"] = h5py.SoftLink("/grid/movie")
