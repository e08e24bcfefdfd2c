"""Every dataset of every file of the corpus: the right bytes or a clean error, and a server that lives."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import h5flight
import pytest

import corpus
from corpus import File, Line, Report, Verdict
from server import Server

CALL_S = 60
"""Seconds that one call may take: a server that hangs is a server that failed."""
READERS = 4
"""Reads of one file at a time."""
NEURO_STRICT_SHARE = 0.95


class Conformance:
    """Asks one server for everything, and starts it anew should a file end it."""

    def __init__(self, folder: Path, data: Path) -> None:
        self.server = Server(folder, {"corpus": data}).start()
        # What files do to workers is told in the log; here only our own mistakes matter.
        self.server.expect(r"worker|quarantine")
        self.client = h5flight.connect(self.server.url, timeout_s=CALL_S)
        self.report = Report()

    def check(self, file: File) -> None:
        """Register one file, ask for all its lines, and see that the server still answers."""
        began = time.perf_counter()
        self.report.files[file.group] += 1
        refusal = self._register(file)
        if refusal is None:
            with ThreadPoolExecutor(READERS) as pool:
                answers = list(pool.map(self._ask, file.lines))
        else:
            self.report.refused_files[file.group] += 1
            answers = [refusal] * len(file.lines)
        for line, (verdict, reason, message) in zip(file.lines, answers, strict=True):
            self.report.add(file, line, verdict, reason, message)
        self._health(file)
        self.report.slowest = max(self.report.slowest, (time.perf_counter() - began, file.name))

    def _register(self, file: File) -> tuple[Verdict, str, str] | None:
        try:
            (told,) = self.client.register(f"corpus:{file.name}", animal="corpus", experiment=file.name)
        except h5flight.H5FlightError as error:
            return judge_error(error)
        if told["publication"] is None:
            return judge_error(h5flight.H5FlightError(told["message"], told["reason"]))
        return None

    def _ask(self, line: Line) -> tuple[Verdict, str, str]:
        dataset = self.client["corpus"][line.file][line.path]
        try:
            values = dataset[() if line.selection is None else line.selection]
        except h5flight.H5FlightError as error:
            return judge_error(error)
        verdict, message = line.judge(values, references=line.kind == "refs")
        return verdict, "", message

    def _health(self, file: File) -> None:
        try:
            self.client.server_info()
        except h5flight.H5FlightError as error:
            self.report.crashes.append(f"{file.name}: {error}")
            self.server.stop()
            self.server.start()
            self.client = h5flight.connect(self.server.url, timeout_s=CALL_S)


def judge_error(error: h5flight.H5FlightError) -> tuple[Verdict, str, str]:
    """An error is clean when the server gave it a reason, and the reason is not that it is at fault itself."""
    clean = error.reason not in ("", "internal")
    return Verdict.CLEAN_ERROR if clean else Verdict.DIFFERS, error.reason or type(error).__name__, str(error)


@pytest.fixture(scope="module")
def report(
    tmp_path_factory: pytest.TempPathFactory, pytestconfig: pytest.Config, say: Callable[[str], None]
) -> Iterator[Report]:
    """The whole corpus, asked for once."""
    folder = corpus.find()
    if folder is None:
        reason = "THE CORPUS WAS NOT READ: no ../shared/corpus beside the checkout; set H5FLIGHT_CORPUS to its folder"
        say(reason)
        pytest.skip(reason)
    run = Conformance(tmp_path_factory.mktemp("corpus"), folder)
    for file in corpus.load(folder, pytestconfig.getoption("--corpus-only")):
        run.check(file)
    for row in run.report.table():
        say(row)
    if out := pytestconfig.getoption("--corpus-report"):
        Path(out).write_text(run.report.as_json())
    yield run.report
    run.server.stop()
    assert not run.server.unexpected(), "unexpected lines in the log:\n" + "\n".join(run.server.unexpected()[:20])


def test_no_answer_differs_from_the_file(report: Report) -> None:
    shown = "\n".join(f"{f['file']} {f['path']}: {f['reason']} {f['message']}" for f in report.differing()[:20])
    assert not report.differing(), shown


def test_no_file_ends_the_server(report: Report) -> None:
    assert not report.crashes


def test_neuroscience_files_are_read(report: Report) -> None:
    assert report.strict_share("neuro") >= NEURO_STRICT_SHARE
