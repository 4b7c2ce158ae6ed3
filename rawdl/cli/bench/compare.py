"""``rawdl bench compare A.json B.json``: which of two runs is the faster, and whether that is more than chance."""

from __future__ import annotations

import errno
from argparse import SUPPRESS, ArgumentTypeError
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from math import comb, isfinite
from textwrap import wrap
from typing import Any, Final, NamedTuple

from rawdl.cli.bench.figures import Comparison, compare
from rawdl.cli.bench.units import digits_text, rate_text, time_text
from rawdl.cli.grammar import Parser
from rawdl.cli.meter import cells, elided, size_text
from rawdl.cli.readout import Output
from rawdl.cli.report import USAGE, Unusable, complain, exit_code, ndjson
from rawdl.errors import StorageError
from rawdl.proto.fields import escape

SCHEMA: Final = "rawdl-bench-1"
_ALPHA: Final = 0.01  # three tests are made at once: together they cry wolf in one of thirty comparisons of equals
_SAME: Final = 0.005  # what three digits do not show
_WIDTH: Final = 79

_DESCRIPTION: Final = """\
Hold one run of rawdl bench against another, by what each has written with
--json: how many times as fast B is, and whether chance explains it. Two runs of
the same may differ by more than the samples of either show: repeat them."""
_EPILOG: Final = """\
exit status: 0 compared, 1 slower (--fail-if-slower), 2 no such document"""


class Run(NamedTuple):
    """What a document says of a run, as far as it can be compared; times in seconds, in the order of the transfers."""

    path: str
    about: Mapping[str, Any]  # what else tells of it: when it began, by which version
    settings: Mapping[str, Any]
    environment: Mapping[str, Any]
    warnings: Sequence[str]
    transfers: int
    speeds: Sequence[float]  # bytes a second of each transfer that succeeded
    totals: Sequence[float]
    first_bytes: Sequence[float]
    cpu: float | None  # seconds for each GiB
    memory: float | None


class Measure(NamedTuple):
    """One thing that is compared: its name, how its values are spelled, and what is said of their ratio."""

    name: str
    key: str
    spell: Callable[[float], str]
    says: str
    values: Callable[[Run], Sequence[float]]


class Finding(NamedTuple):
    """A measure of both runs; ``found`` is None where each has one value, of which no test can say anything."""

    measure: Measure
    a: float
    b: float
    found: Comparison | None
    least_p: float  # that so few values could give

    @property
    def ratio(self) -> float | None:
        if self.found is not None:
            return self.found.ratio
        return self.b / self.a if self.a > 0 else None

    @property
    def significant(self) -> bool:
        return self.found is not None and self.found.p_value < _ALPHA


_TESTED: Final = (
    Measure("throughput", "bytes_per_second", rate_text, "B is {} × as fast", lambda run: run.speeds),
    Measure("total time", "total", time_text, "B takes {} × the time", lambda run: run.totals),
    Measure("first byte", "first_byte", time_text, "B waits {} × as long", lambda run: run.first_bytes),
)
_SINGLE: Final = (
    Measure(
        "CPU time",
        "cpu_seconds_per_gib",
        lambda value: f"{digits_text(value)} s/GiB",
        "B needs {} × the CPU time",
        lambda run: [] if run.cpu is None else [run.cpu],
    ),
    Measure(
        "peak memory",
        "peak_rss",
        size_text,
        "B needs {} × the memory",
        lambda run: [] if run.memory is None else [run.memory],
    ),
)


def main(arguments: list[str]) -> int:
    """Compare two documents, tell of it, and return the exit status."""
    given = _parser().parse_intermixed_args(arguments)
    try:
        a, b = (read(path) for path in given.files)
    except Unusable as exc:
        complain(f"rawdl: {exc}")
        return exc.code
    findings = list(find(a, b))
    slower = given.fail_if_slower is not None and is_slower(findings, given.fail_if_slower / 100)
    out = Output()
    try:
        if given.json:
            out.write(ndjson(_told(a, b, findings, slower)))
        for line in () if given.json else lines(a, b, findings):
            out.line(line)
        out.flush()
    except StorageError as exc:
        if exc.errno != errno.EPIPE:
            complain(f"rawdl: {exc}")
        return exit_code(exc)
    return int(slower)


def find(a: Run, b: Run) -> Iterator[Finding]:
    """Yield what comes of each measure that both runs have."""
    for measure in _TESTED:
        first, second = measure.values(a), measure.values(b)
        if first and second:
            found = compare(first, second)
            fewer = min(len(first), len(second))
            least = 2 / comb(len(first) + len(second), fewer) if fewer < 10 else 0.0
            yield Finding(measure, found.first, found.second, found, min(1.0, least))
    for measure in _SINGLE:
        first, second = measure.values(a), measure.values(b)
        if first and second:
            yield Finding(measure, first[0], second[0], None, 1.0)


def is_slower(findings: Sequence[Finding], share: float) -> bool:
    """Whether B is surely slower by more than that share: the whole interval lies beyond, of the speed or the time."""
    for finding in findings:
        found = finding.found
        if found is None or not finding.significant or found.low is None or found.high is None:
            continue
        if finding.measure.key == "bytes_per_second" and found.high < 1 - share:
            return True
        if finding.measure.key == "total" and found.low * (1 - share) > 1:
            return True
    return False


# Reading


def read(path: str) -> Run:
    """Read a document; Unusable says why it is none, or has nothing to compare."""
    try:
        with open(path, "rb") as file:
            data = file.read()
    except OSError as exc:
        raise Unusable(f"{path}: {exc.strerror or exc}", USAGE) from exc
    return _run(path, _parsed(path, data))


def _parsed(path: str, data: bytes) -> Any:
    from json import loads

    try:
        document = loads(data, parse_constant=_number)
    except (ValueError, RecursionError) as exc:
        raise Unusable(f"{path} is not JSON", USAGE) from exc
    schema = document.get("schema") if isinstance(document, dict) else None
    if schema != SCHEMA:
        told = f"its schema is {elided(schema, 40)}, not {SCHEMA}" if isinstance(schema, str) else "it has no schema"
        raise Unusable(f"{path} is no document of rawdl bench: {told}", USAGE)
    return document


def _run(path: str, document: Mapping[str, Any]) -> Run:
    try:
        run = _taken(path, document)
    except (KeyError, TypeError, ValueError, AttributeError, OverflowError) as exc:
        raise Unusable(f"{path} is no document of rawdl bench: it is incomplete, or has been changed", USAGE) from exc
    if not run.totals:
        raise Unusable(f"{path} has no transfer that succeeded, so that there is nothing to compare", USAGE)
    return run


def _taken(path: str, document: Mapping[str, Any]) -> Run:
    good = [each for each in document["samples"] if each["error"] is None]
    spans = [(_number(each["bytes"]), _number(each["ended"]) - _number(each["started"])) for each in good]
    cpu, memory = document["cpu"]["seconds_per_gib"], document["memory"]["peak_rss"]
    return Run(
        path,
        {name: str(document[name]) for name in ("began", "rawdl")},
        dict(document["settings"].items()),
        dict(document["environment"].items()),
        [str(warning) for warning in document["warnings"]],
        len(document["samples"]),
        [size / seconds for size, seconds in spans if seconds > 0],
        [_number(each["ended"]) - _number(each["intended"]) for each in good],
        [_number(each["first_byte"]) for each in good if each["first_byte"] is not None],
        None if cpu is None else _number(cpu),
        None if memory is None else _number(memory),
    )


def _number(value: Any) -> float:
    number = float(value)
    if not isfinite(number):
        raise ValueError("not a number to compute with")
    return number


# What is said


def cautions(a: Run, b: Run) -> list[str]:
    """Say what makes the comparison mean less than it seems to."""
    found = [f"{what} is {_brief(one)} in A, {_brief(other)} in B" for what, one, other in differences(a, b)]
    for name, run in (("A", a), ("B", b)):
        failed = run.transfers - len(run.totals)
        found += [f"{failed} of {run.transfers} transfers of {name} failed, and count nowhere"] if failed else []
        found += [f"of {name}: {warning}" for warning in run.warnings]
    return found


def differences(a: Run, b: Run) -> list[tuple[str, Any, Any]]:
    """Return each setting, and each part of the environment, that is not the same in both."""
    # An origin of our own has another port each time, no machine has the same load twice, and into which intervals the
    # bytes were counted changes no transfer.
    own = a.settings.get("origin") == b.settings.get("origin") == "embedded"
    ignored = {"load", "interval", "began"} | ({"url"} if own else set())
    pairs = [(a.settings, b.settings), (a.environment, b.environment), (a.about, b.about)]
    return [
        (name, one.get(name), other.get(name))
        for one, other in pairs
        for name in dict.fromkeys([*one, *other])
        if name not in ignored and one.get(name) != other.get(name)
    ]


def statement(finding: Finding) -> str:
    """Say in one sentence what comes of a measure."""
    says = "B differs" if finding.ratio is None else finding.measure.says.format(digits_text(finding.ratio))
    if finding.found is None:
        same = finding.ratio is not None and abs(finding.ratio - 1) < _SAME
        return "the same, by one value of each" if same else f"{says}, by one value of each: chance may explain it"
    chance = _chance(finding.found.p_value)
    if not finding.significant:
        few = finding.least_p >= _ALPHA
        samples = "samples as few as these" if few else "these samples"
        return f"no difference that {samples} can show ({chance})"
    low, high = finding.found.low, finding.found.high
    interval = "" if low is None or high is None else f"95 % interval {digits_text(low)} … {digits_text(high)}; "
    return f"{says} ({interval}{chance}): a {finding.found.effect} difference"


def lines(a: Run, b: Run, findings: Sequence[Finding]) -> Iterator[str]:
    """Yield the report for people, in lines of less than 80 columns."""
    for name, run in (("A", a), ("B", b)):
        told = (
            f", {escape(run.about['began'])}, {len(run.totals)} {'transfer' if len(run.totals) == 1 else 'transfers'}"
        )
        yield elided(f"{name}  {elided(escape(run.path), max(8, _WIDTH - 3 - cells(told)))}{told}", _WIDTH)
    yield ""
    cautioned = cautions(a, b)
    for caution in cautioned:
        yield from wrap(f"caution: {escape(caution)}", _WIDTH, subsequent_indent="  ")
    if cautioned:
        yield ""
    yield f"{'':<12}{'A':>14}{'B':>14}{'B / A':>9}{'delta':>9}"
    for finding in findings:
        measure, found = finding.measure, finding.found
        ratio = "–" if finding.ratio is None else digits_text(finding.ratio)
        delta = "" if found is None else f"{found.delta:+.2f}  {found.effect}"
        spelled = f"{measure.spell(finding.a):>14}{measure.spell(finding.b):>14}{ratio:>9}"
        yield f"{measure.name:<12}{spelled}{'' if found is None else '    '}{delta}".rstrip()
        yield from wrap(statement(finding), _WIDTH, initial_indent="  ", subsequent_indent="    ")


def _chance(p_value: float) -> str:
    return "p < 0.001" if p_value < 0.001 else f"p = {p_value:.{3 if p_value < 0.1 else 2}f}"


def _brief(value: object) -> str:
    told = "unknown" if value is None else f"{value:g}" if isinstance(value, float) else str(value)
    return elided(told, 40)


def _told(a: Run, b: Run, findings: Sequence[Finding], slower: bool) -> dict[str, object]:
    return {
        "schema": "rawdl-bench-comparison-1",
        "a": {"file": a.path, **a.about, "transfers": a.transfers, "succeeded": len(a.totals)},
        "b": {"file": b.path, **b.about, "transfers": b.transfers, "succeeded": len(b.totals)},
        "differences": [{"name": name, "a": one, "b": other} for name, one, other in differences(a, b)],
        "cautions": cautions(a, b),
        "figures": [_told_of(finding) for finding in findings],
        "slower": slower,
    }


def _told_of(finding: Finding) -> dict[str, object]:
    found = finding.found
    return {
        "name": finding.measure.key,
        "a": finding.a,
        "b": finding.b,
        "ratio": finding.ratio,
        "interval": None if found is None or found.low is None else [found.low, found.high],
        "p_value": found and found.p_value,
        "delta": found and found.delta,
        "effect": found and found.effect,
        "significant": finding.significant,
        "statement": statement(finding),
    }


# The grammar


def _parser() -> Parser:
    usage = "rawdl bench compare A.json B.json [options]"
    parser = Parser("rawdl bench compare", _DESCRIPTION, usage, _EPILOG)
    add = parser.add_argument
    add("files", nargs=2, metavar="FILE", help=SUPPRESS)
    add("--json", action="store_true", help="print one line of JSON")
    slower_help = "fail (1) if B is surely slower by more than that: all of the 95 %% interval"
    add("--fail-if-slower", metavar="PERCENT", type=_percent, help=slower_help)
    add("-h", "--help", action="help", help="print this")
    return parser


def _percent(text: str) -> float:
    with suppress(ValueError):
        number = float(text.removesuffix("%"))
        if 0 <= number < 100:
            return number
    raise ArgumentTypeError(f"{text} is not a percentage from 0 on and below 100")
