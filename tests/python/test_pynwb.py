"""pynwb opens what is served, unchanged, and finds there what it finds in the file."""

from __future__ import annotations

import pickle
import subprocess
import sys
import warnings
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import dask.array as da
import h5flight
import h5py
import numpy as np
import psutil
import pytest
from hdmf.data_utils import DataChunkIterator
from pynwb import NWBHDF5IO, NWBFile, TimeSeries
from pynwb.base import ImageReferences, Images
from pynwb.file import Subject
from pynwb.image import GrayscaleImage
from pynwb.ophys import Fluorescence, ImageSegmentation, OpticalChannel, RoiResponseSeries, TwoPhotonSeries

import corpus
import test_nwb
from files import SEED
from nwb_walk import Walk, attribute_differences, object_ids
from server import Server

START = test_nwb.START


def corpus_files(folder: Path) -> list[Path]:
    """Every file of the corpus that is NWB, whatever its name says; others, made to do harm, are not opened here."""
    files = (path for path in sorted(folder.rglob("*")) if path.suffix in (".nwb", ".h5", ".hdf5"))
    return [path for path in files if path.suffix == ".nwb" or b"nwb_version" in path.read_bytes()]


def write_everything(path: Path) -> None:
    """A recording with what pynwb has of references, compounds, regions, ragged columns, links and images."""
    rng = np.random.default_rng(SEED)
    people = ["A, B.", "Ü, C."]
    nwb = NWBFile(session_description="all", identifier="all-1", session_start_time=START, experimenter=people)
    nwb.subject = Subject(subject_id="m2", species="Mus musculus", age="P90D", sex="F")
    add_imaging(nwb, rng)
    group = nwb.create_electrode_group(
        name="shank", description="d", location="M1", device=nwb.create_device(name="probe")
    )
    for at in range(4):
        nwb.add_electrode(location=f"M{at}", group=group)
    nwb.add_unit_column(name="quality", description="how good")
    for unit in range(5):
        nwb.add_unit(spike_times=np.sort(rng.random(unit)), electrodes=[0, unit % 4], quality="good")
    for trial in range(6):
        movie = nwb.acquisition["movie"]
        nwb.add_trial(start_time=trial / 9, stop_time=trial / 9 + 0.1, timeseries=[movie])
    nwb.add_trial_column(name="marks", description="ragged", data=["a", "b", "c"], index=[0, 1, 1, 2, 3, 3])
    images = [GrayscaleImage(name=f"image{at}", data=rng.random((4, 5))) for at in range(3)]
    order = ImageReferences(name="order_of_images", data=images)
    nwb.add_acquisition(Images(name="images", images=images, order_of_images=order))
    nwb.add_acquisition(TimeSeries(name="words", data=["ä", "", "c"], unit="n.a.", timestamps=[0.0, 1.0, 2.0]))
    nwb.add_acquisition(TimeSeries(name="flags", data=[True, False], unit="n.a.", rate=1.0))
    with NWBHDF5IO(str(path), "w") as out:
        out.write(nwb)


def add_imaging(nwb: NWBFile, rng: np.random.Generator) -> None:
    """A movie, its cells, their traces, and a series that shares data and times with others."""
    plane = nwb.create_imaging_plane(
        name="plane",
        optical_channel=OpticalChannel(name="channel", description="green", emission_lambda=510.0),
        description="d",
        device=nwb.create_device(name="scope"),
        excitation_lambda=920.0,
        indicator="GCaMP6f",
        location="V1",
    )
    frames = rng.integers(0, 900, (40, 16, 16), "u2")
    movie = TwoPhotonSeries(name="movie", data=frames, unit="n.a.", imaging_plane=plane, rate=30.0)
    nwb.add_acquisition(movie)
    module = nwb.create_processing_module(name="ophys", description="what was made of the movie")
    cells = ImageSegmentation()
    module.add(cells)
    table = cells.create_plane_segmentation(
        name="cells", imaging_plane=plane, description="cells", reference_images=movie
    )
    for cell in range(4):
        table.add_roi(pixel_mask=[(cell, pixel, 1.0) for pixel in range(cell + 1)])
    rois = table.create_roi_table_region(region=[0, 2], description="two")
    times = np.arange(40) / 30
    traces = RoiResponseSeries(name="traces", data=rng.random((40, 2)), unit="a.u.", rois=rois, timestamps=times)
    module.add(Fluorescence(roi_response_series=traces))
    nwb.add_acquisition(TimeSeries(name="again", data=movie, unit="m", timestamps=traces))


def compare(client: h5flight.Client, path: Path, animal: str, experiment: str) -> Walk:
    """Reads a file by pynwb directly and through the server, and compares the two."""
    with warnings.catch_warnings(), h5py.File(path) as local, h5flight.File(client, animal, experiment) as served:
        warnings.simplefilter("ignore")
        walk = Walk(object_ids(local))
        with NWBHDF5IO(file=local, mode="r") as mine, NWBHDF5IO(file=served, mode="r") as yours:
            walk.compare(mine.read(), yours.read())
            walk.differences += attribute_differences(local, served)
    return walk


def is_opened_by_pynwb(path: Path) -> bool:
    """Whether pynwb reads the file where it lies."""
    try:
        with warnings.catch_warnings(), NWBHDF5IO(str(path), "r") as io:
            warnings.simplefilter("ignore")
            io.read()
    except Exception:  # whatever is wrong with the file, it is not ours
        return False
    return True


@pytest.mark.filterwarnings("ignore::UserWarning")
@pytest.mark.parametrize("write", [test_nwb.write_recording, write_everything])
def test_pynwb_finds_in_what_is_served_what_it_finds_in_the_file(
    write: Callable[[Path], None], server: Server, client: h5flight.Client
) -> None:
    path = Path(server.roots["lab"]) / f"{write.__name__}.nwb"
    write(path)
    (report,) = client.register(path, animal="pynwb", experiment=write.__name__)
    assert report["publication"], report
    walk = compare(client, path, "pynwb", write.__name__)
    assert walk.differences == []
    assert walk.containers > 20
    assert walk.lazy > 15
    assert walk.elements > 500


def test_every_nwb_file_of_the_corpus_is_the_same_to_pynwb(
    start: Callable[..., Server], say: Callable[[str], None]
) -> None:
    folder = corpus.find()
    if folder is None:
        pytest.skip(
            "the corpus was not read: no ../shared/corpus beside the checkout; set H5FLIGHT_CORPUS to its folder"
        )
    files = [path for path in corpus_files(folder) if is_opened_by_pynwb(path)]
    assert len(files) >= 13
    containers = values = 0
    with h5flight.connect(start({"corpus": folder}).url, timeout_s=120) as client:
        for number, path in enumerate(files):
            (report,) = client.register(path, animal="corpus", experiment=f"file-{number}")
            assert report["publication"], report
            walk = compare(client, path, "corpus", f"file-{number}")
            assert walk.differences == [], path.name
            containers, values = containers + walk.containers, values + walk.values
    say(f"pynwb: {len(files)} files of the corpus equal, {containers} containers, {values} values")


def test_a_recording_stays_unread_until_it_is_sliced(server: Server, client: h5flight.Client) -> None:
    path, megabytes = Path(server.roots["lab"]) / "large.nwb", 128
    nwb = NWBFile(session_description="large", identifier="large-1", session_start_time=START)
    frame = np.random.default_rng(SEED).integers(0, 900, (1, 512, 512), "u2")
    data = DataChunkIterator((frame[0] for _ in range(2 * megabytes)), maxshape=(None, 512, 512), dtype=frame.dtype)
    nwb.add_acquisition(TimeSeries(name="movie", data=data, unit="n.a.", rate=30.0))
    with NWBHDF5IO(str(path), "w") as out:
        out.write(nwb)
    client.register(path, animal="pynwb", experiment="large")
    before, server_before = psutil.Process().memory_info().rss, server.peak_bytes()
    with h5flight.File(client, "pynwb", "large") as file, NWBHDF5IO(file=file, mode="r") as io:
        movie = io.read().acquisition["movie"].data
        assert movie.shape == (2 * megabytes, 512, 512)
        np.testing.assert_array_equal(movie[7:9, 100], np.repeat(frame[:, 100], 2, axis=0))
        grown = psutil.Process().memory_info().rss - before
    assert grown < 32 << 20
    assert server.peak_bytes() - server_before < 64 << 20


def test_a_file_is_pickled_and_shared_by_threads(server: Server, client: h5flight.Client) -> None:
    path = Path(server.roots["lab"]) / "shared.nwb"
    test_nwb.write_recording(path)
    client.register(path, animal="pynwb", experiment="shared")
    file = pickle.loads(pickle.dumps(h5flight.File(client, "pynwb", "shared")))
    raw = pickle.loads(pickle.dumps(file["acquisition/raw/data"]))
    blocks = da.from_array(raw, chunks=raw.chunks)
    with h5py.File(path) as local:
        whole = local["acquisition/raw/data"][...]
    np.testing.assert_array_equal(blocks.compute(scheduler="threads", num_workers=8), whole)
    with ThreadPoolExecutor(8) as pool:
        firsts = list(pool.map(lambda row: int(file["acquisition/raw/data"][row, 0]), range(64)))
    assert firsts == whole[:64, 0].tolist()


def test_what_would_write_says_that_it_is_read_only(server: Server, client: h5flight.Client) -> None:
    path = Path(server.roots["lab"]) / "readonly.nwb"
    test_nwb.write_recording(path)
    client.register(path, animal="pynwb", experiment="readonly")
    with h5flight.File(client, "pynwb", "readonly") as file:
        with pytest.raises(NotImplementedError, match="read-only"):
            file.create_group("more")
        with pytest.raises(KeyError, match="nothing/here"):
            file["nothing/here"]
        assert file.get("nothing") is None
        assert file["units"].parent == file
        link = file["general/extracellular_ephys/shank0"].get("device", getlink=True)
        assert link.path == "/general/devices/probe"
        assert file["identifier"].asstr()[()] == "session-0017-1"
    with pytest.raises(ValueError, match="closed"):
        file["units"]


def test_a_file_is_as_useful_without_h5py(server: Server, client: h5flight.Client) -> None:
    path = Path(server.roots["lab"]) / "without.nwb"
    test_nwb.write_recording(path)
    client.register(path, animal="pynwb", experiment="without")
    script = (
        "import sys; sys.modules['h5py'] = None\n"
        "import h5flight\n"
        f"file = h5flight.File(h5flight.connect({server.url!r}), 'pynwb', 'without')\n"
        "group = file[file['general/extracellular_ephys/electrodes/group'][0]]\n"
        "print(sorted(file)[0], group.name, file['acquisition/raw/data'][5:7].shape, file['identifier'][()])\n"
    )
    told = subprocess.run([sys.executable, "-c", script], check=True, capture_output=True, text=True).stdout
    assert told.split() == [
        "acquisition",
        "/general/extracellular_ephys/shank0",
        "(2,",
        "8)",
        "b'session-0017-1'",
    ]
