"""Every dataset of every file of the corpus: the right bytes or a clean error, from a server within its means.

The corpus is asked for twice, by servers whose memory is filled with different bytes before use: what is delivered must
not change. That reaches all memory in debug builds, whose allocator is glibc's, and the C libraries in release builds.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import h5flight
import pytest

import corpus
from corpus import Answer, Demand, File, Line, Report, Verdict
from server import Server

CALL_S = 60
"""Seconds that one call may take: a server that hangs is a server that failed."""
FILE_S_MAX = 10
"""Seconds for all of a file: registration, every read, and the question whether the server lives."""
READERS = 4
"""Reads of one file at a time."""
MEMORY_BYTES = 256 << 20
"""What the server is told to use: much less than the corpus holds."""
MEMORY_BYTES_MAX = MEMORY_BYTES + (128 << 20)
"""What its process may have at its peak: beside the budget its code, connections and the index of one file."""
PERTURBATIONS = ("85", "170")
"""Bytes of which glibc makes the content of fresh and freed memory: each is the other's complement."""


class Conformance:
    """Asks one server for everything, and starts it anew should a file end it."""

    def __init__(self, folder: Path, data: Path, perturbation: str) -> None:
        environment = {"MALLOC_PERTURB_": perturbation}
        flags = ("--memory-bytes", str(MEMORY_BYTES))
        self.server = Server(folder, {"corpus": data}, *flags, environment=environment).start()
        # What files do to workers is told in the log; here only our own mistakes matter.
        self.server.expect(r"worker|quarantine")
        self.client = h5flight.connect(self.server.url, timeout_s=CALL_S)
        self.report = Report()

    def check(self, file: File) -> None:
        """Register one file, ask for all its lines, and see that the server still answers."""
        began = time.perf_counter()
        self.report.groups[file.name] = file.group
        refusal = self._register(file)
        if refusal is None:
            with ThreadPoolExecutor(READERS) as pool:
                answers = list(pool.map(self._ask, file.lines))
        else:
            self.report.refused_files.add(file.name)
            answers = [refusal] * len(file.lines)
        self.report.answers += zip(file.lines, answers, strict=True)
        self._health(file)
        self.report.seconds[file.name] = time.perf_counter() - began

    def finish(self) -> None:
        """End the server. What it took at most is known only while it lives."""
        self._note_memory()
        self.client.close()
        self.server.stop()

    def _register(self, file: File) -> Answer | None:
        try:
            (told,) = self.client.register(f"corpus:{file.name}", animal="corpus", experiment=file.name)
        except h5flight.H5FlightError as error:
            return judge_error(error)
        if told["publication"] is None:
            return judge_error(h5flight.H5FlightError(told["message"], told["reason"]))
        return None

    def _ask(self, line: Line) -> Answer:
        dataset = self.client["corpus"][line.file][line.path]
        try:
            return line.judge(dataset[() if line.selection is None else line.selection])
        except h5flight.H5FlightError as error:
            return judge_error(error)

    def _health(self, file: File) -> None:
        try:
            self.client.server_info()
        except h5flight.H5FlightError as error:
            self.report.crashes.append(f"{file.name}: {error}")
            self._note_memory()
            self.server.stop()
            self.server.start()
            self.client = h5flight.connect(self.server.url, timeout_s=CALL_S)

    def _note_memory(self) -> None:
        # Workers are processes of their own, each with a limit of the system.
        self.report.peak_bytes = max(self.report.peak_bytes, self.server.peak_bytes())


def judge_error(error: h5flight.H5FlightError) -> Answer:
    """An error is clean when the server gave it a reason, and the reason is not that it is at fault itself."""
    clean = error.reason not in ("", "internal")
    verdict = Verdict.CLEAN_ERROR if clean else Verdict.DIFFERS
    return Answer(verdict, error.reason or type(error).__name__, str(error), digest=error.reason)


@pytest.fixture(scope="module")
def reports(
    tmp_path_factory: pytest.TempPathFactory, pytestconfig: pytest.Config, say: Callable[[str], None]
) -> Iterator[list[Report]]:
    """The whole corpus, asked for with each of the perturbations."""
    folder = corpus.find()
    if folder is None:
        reason = "THE CORPUS WAS NOT READ: no ../shared/corpus beside the checkout; set H5FLIGHT_CORPUS to its folder"
        say(reason)
        pytest.skip(reason)
    files = corpus.load(folder, pytestconfig.getoption("--corpus-only"))
    runs = []
    for perturbation in PERTURBATIONS:
        run = Conformance(tmp_path_factory.mktemp("corpus"), folder, perturbation)
        runs.append(run)
        for file in files:
            run.check(file)
        run.finish()
    first = runs[0].report
    for row in [*first.table(), f"slowest file: {first.slowest()[1]}", first.summary(MEMORY_BYTES_MAX)]:
        say(row)
    if pytestconfig.getoption("--write-support") and not pytestconfig.getoption("--corpus-only"):
        table = corpus.exceptions_table(first.failures(Demand.STRICT))
        corpus.rewrite(corpus.EXCEPTIONS_PAGE, corpus.EXCEPTIONS, table)
    if out := pytestconfig.getoption("--corpus-report"):
        Path(out).write_text(first.as_json())
    yield [run.report for run in runs]
    loud = [line for run in runs for line in run.server.unexpected()]
    assert not loud, "unexpected lines in the log:\n" + "\n".join(loud[:20])


@pytest.fixture(scope="module")
def report(reports: list[Report]) -> Report:
    """What the first run found."""
    return reports[0]


def show(failures: list[tuple[Line, Answer]]) -> str:
    """The first of some failures."""
    told = [f"{line.file} | {line.path} | {answer.reason} {answer.message}" for line, answer in failures]
    return f"{len(told)} lines:\n" + "\n".join(told[:40])


def test_every_strict_line_is_equal_but_those_listed_with_their_reason(report: Report) -> None:
    listed = corpus.exceptions()
    failed = report.failures(Demand.STRICT)
    wrong = [(line, answer) for line, answer in failed if listed.get((line.file, line.path)) != answer.reason]
    assert not wrong, show(wrong)


def test_exceptions_are_rare(report: Report, pytestconfig: pytest.Config) -> None:
    if pytestconfig.getoption("--corpus-only"):
        pytest.skip("a part of the corpus says nothing about the share of the whole")
    assert len(report.failures(Demand.STRICT)) <= corpus.EXCEPTIONS_SHARE_MAX * report.count(Demand.STRICT)


def test_every_listed_exception_still_fails(report: Report) -> None:
    failed = {(line.file, line.path) for line, _ in report.failures(Demand.STRICT)}
    asked = {(line.file, line.path) for line, _ in report.answers if line.demand is Demand.STRICT}
    stale = [name for name in corpus.exceptions() if name in asked and name not in failed]
    assert not stale, "these are read now, take them from docs/support.md:\n" + "\n".join(map(" | ".join, stale))


def test_what_may_fail_is_equal_or_a_clean_error(report: Report) -> None:
    failed = report.failures(Demand.OR_ERROR, Demand.CLEAN)
    assert not failed, show(failed)


def test_what_must_be_refused_is_refused(report: Report) -> None:
    failed = report.failures(Demand.REFUSED)
    assert not failed, show(failed)


def test_no_file_ends_the_server(reports: list[Report]) -> None:
    assert not [crash for report in reports for crash in report.crashes]


def test_every_file_is_answered_in_time(reports: list[Report]) -> None:
    late = {name: s for report in reports for name, s in report.seconds.items() if s > FILE_S_MAX}
    assert not late, f"these files took more than {FILE_S_MAX} s: {late}"


def test_the_server_stays_within_its_memory(reports: list[Report]) -> None:
    for report in reports:
        assert report.peak_bytes <= MEMORY_BYTES_MAX


def test_what_memory_held_before_is_never_delivered(reports: list[Report]) -> None:
    first, second = (report.answers for report in reports)
    pairs = zip(first, second, strict=True)
    different = [
        f"{line.file} | {line.path}: {one.verdict.value} {one.reason}, then {other.verdict.value} {other.reason}"
        for (line, one), (_, other) in pairs
        if one.digest != other.digest
    ]
    assert not different, "answers depend on what memory held before:\n" + "\n".join(different[:40])
