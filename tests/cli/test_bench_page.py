"""The page of a bench: well-formed, harmless whatever a server says, within its frames, and a browser shows it."""

from __future__ import annotations

import os
import re
import shutil
import signal
import struct
import subprocess
import zlib
from collections.abc import Callable, Iterator
from html.parser import HTMLParser
from pathlib import Path
from typing import NamedTuple
from xml.etree import ElementTree

import pytest

from rawdl.cli.bench.figures import describe, histogram
from rawdl.cli.bench.page import page
from rawdl.cli.bench.units import digits_text, rate_text, tick_text, ticks, time_text
from tests.cli.bench_documents import Document, document

HOSTILE = "http://x/<script>alert(1)</script>\"'&\x1b[2J\x00\u202e\n</style><img src=//evil>"
VOID = {"meta", "link", "br", "img", "input", "hr"}
PATIENCE = 60.0  # seconds for a browser; it takes two


def unknown() -> Document:
    """Return a document in which all is null that may be."""
    made = document(3)
    made["phases"] |= dict.fromkeys(made["phases"])
    made["settings"] |= dict.fromkeys(("size", "transfers", "duration", "rate"))
    made["environment"] |= dict.fromkeys(made["environment"])
    made["system"] |= dict.fromkeys(made["system"])
    made["cpu"]["seconds_per_gib"] = made["throughput"] = made["memory"]["peak_rss"] = None
    return made


def tailed() -> Document:
    made = document(300)
    for at in (140, 230):
        made["samples"][at]["ended"] += 2.5
    times = [each["ended"] - each["intended"] for each in made["samples"]]
    made["phases"] |= {"total": describe(times).to_dict(), "wait": describe([0.0]).to_dict()}
    made["histogram"] = [each._asdict() for each in histogram(times)]
    return made


def hostile() -> Document:
    made = document(9, url=HOSTILE, fails=lambda at: at == 4, warnings=[HOSTILE])
    made["failures"] = [{"kind": HOSTILE, "count": 1, "example": HOSTILE}]
    made["environment"] = {**dict.fromkeys(made["environment"], HOSTILE), "load": None}
    made["began"] = made["rawdl"] = HOSTILE
    return made


DOCUMENTS: dict[str, Callable[[], Document]] = {
    "usual": lambda: document(200, spread=0.3, fails=lambda at: at % 50 == 9, warnings=["runs vary"]),
    "one": lambda: document(1, intervals=1),
    "equal": lambda: document(4, spread=0.0),
    "all failed": lambda: document(7, fails=lambda at: True),
    "an hour": lambda: document(4000, intervals=3600),
    "a long tail": tailed,
    "slow": lambda: document(20, size=1000, pace=90_000.0),
    "unknown": unknown,
    "hostile": hostile,
}


@pytest.fixture(params=DOCUMENTS)
def made(request: pytest.FixtureRequest) -> str:
    return page(DOCUMENTS[request.param]())


class Outline(HTMLParser):
    """What a page consists of; it complains of an element that is not closed where it should be."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.text = ""
        self._open: list[str] = []
        self.feed(text)
        self.close()
        assert self._open == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs)))
        if tag not in VOID:
            self._open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs)))

    def handle_endtag(self, tag: str) -> None:
        assert self._open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.text += data

    def all(self, name: str) -> list[dict[str, str | None]]:
        return [attributes for tag, attributes in self.elements if tag == name]


def drawings(text: str) -> list[ElementTree.Element]:
    return [ElementTree.fromstring(found) for found in re.findall(r"<svg.*?</svg>", text, re.S)]


# Whatever the document


def test_every_element_is_closed_and_nothing_is_fetched_or_run(made: str) -> None:
    outline = Outline(made)
    tags = {tag for tag, _ in outline.elements}
    assert not tags & {"script", "img", "link", "iframe", "object", "embed", "base", "form", "a", "image", "use"}
    for _, attributes in outline.elements:
        assert not any(name in ("src", "href", "xlink:href", "style") or name.startswith("on") for name in attributes)
    assert {
        "http-equiv": "Content-Security-Policy",
        "content": "default-src 'none'; style-src 'unsafe-inline'",
    } in outline.all("meta")
    style = re.search(r"<style>(.*?)</style>", made, re.S)
    assert style is not None and "url(" not in style[1] and "@import" not in style[1]
    assert made.count("<style>") == 1


def test_no_control_character_is_left(made: str) -> None:
    assert not re.search(r"[^\n\x20-\x7e\xa0-\uffff]|\u202e", made)
    assert "nan" not in Outline(made).text.lower() and "None" not in Outline(made).text


def test_each_drawing_stays_within_its_frame(made: str) -> None:
    for drawing in drawings(made):
        left, top, width, height = map(float, drawing.attrib["viewBox"].split())
        places = list(coordinates(drawing))
        assert places and (left, top) == (0, 0)
        for x, y in places:
            assert 0 <= x <= width and 0 <= y <= height


def test_letters_do_not_touch_one_another(made: str) -> None:
    """As wide as they are at most: numbers and names of no more than two thirds of the height of a letter."""
    for drawing in drawings(made):
        boxes = [box for each in drawing.iter(f"{SVG}text") for box in [extent(each)]]
        assert all(x1 >= -2 and x2 <= float(drawing.attrib["width"]) + 2 for x1, _, x2, _ in boxes)
        for at, one in enumerate(boxes):
            for other in boxes[:at]:
                apart = one[2] <= other[0] or other[2] <= one[0] or one[3] <= other[1] or other[3] <= one[1]
                assert apart, f"{one} and {other}"


def test_each_drawing_says_what_it_shows(made: str) -> None:
    for drawing in drawings(made):
        title = drawing.find(f"{SVG}title")
        assert drawing.attrib["role"] == "img" and title is not None
        assert drawing.attrib["aria-label"] == title.text and len(title.text) > 10


def test_tables_can_be_read_aloud_and_reached_by_keys(made: str) -> None:
    outline = Outline(made)
    assert all(heading["scope"] in ("row", "col") for heading in outline.all("th"))
    regions = [each for each in outline.all("div") if each.get("role") == "region"]
    assert len(regions) == len(outline.all("table")) >= 3
    assert all(each["tabindex"] == "0" and each["aria-label"] for each in regions)
    assert len(outline.all("h1")) == len(outline.all("main")) == 1
    assert outline.all("html") == [{"lang": "en"}]


SVG = "{http://www.w3.org/2000/svg}"


def coordinates(drawing: ElementTree.Element) -> Iterator[tuple[float, float]]:
    for text in drawing.iter(f"{SVG}text"):
        yield float(text.attrib["x"]), float(text.attrib["y"])
    for path in drawing.iter(f"{SVG}path"):
        yield from walked(path.attrib["d"])


def walked(data: str) -> Iterator[tuple[float, float]]:
    """Yield each place to which a path leads, by the commands that are used here."""
    assert re.fullmatch(r"(?:[MHVhvZ](?:-?[\d.]+(?: -?[\d.]+)?)?)+", data), data
    x = y = 0.0
    for command, numbers in re.findall(r"([A-Za-z])([^A-Za-z]*)", data):
        values = [float(number) for number in numbers.split()]
        if command == "M":
            x, y = values
        elif command in "Hh":
            x = values[0] + (x if command == "h" else 0)
        elif command in "Vv":
            y = values[0] + (y if command == "v" else 0)
        yield x, y


def extent(text: ElementTree.Element) -> tuple[float, float, float, float]:
    x, y, width = float(text.attrib["x"]), float(text.attrib["y"]), 6.6 * len(text.text or "")
    left = x - {"start": 0.0, "middle": 0.5, "end": 1.0}[text.attrib["text-anchor"]] * width
    return left, y - 9, left + width, y + 2


# What it says


def test_the_result_in_three_units() -> None:
    made = document(10)
    made["totals"]["bytes_per_second"] = 125e6
    text = Outline(page(made)).text
    assert "125MB/s" in text and "119 MiB/s · 1,000 Mbit/s" in text


def test_failures_are_told_apart() -> None:
    text = Outline(page(document(20, fails=lambda at: at < 5))).text
    assert "25.0 % of all" in text and "connection refused" in text
    assert "No transfer succeeded" not in text
    assert "No transfer succeeded" in Outline(page(document(3, fails=lambda at: True))).text


def test_what_a_server_says_stays_text() -> None:
    made = page(hostile())
    assert "<script>alert(1)</script>" in Outline(made).text
    assert r"\x1b[2J\x00\u202e\x0a</style><img src=//evil>" in Outline(made).text


def test_every_interval_is_drawn_and_many_are_summed_up() -> None:
    assert 'class="band"' not in page(document(50, intervals=160))
    hour = page(DOCUMENTS["an hour"]())
    assert 'class="band"' in hour and len(hour) < 300_000


def test_what_is_far_out_has_a_place_of_its_own() -> None:
    made = page(tailed())
    assert made.count('class="bar tail"') == 2 and "to 2.51 s" in Outline(made).text
    assert 'class="bar tail"' not in page(document(300))


# How numbers are spelled


@pytest.mark.parametrize(
    ("value", "text"),
    [(0, "0"), (0.0123, "0.0123"), (1.2, "1.20"), (9.996, "10.0"), (81.23, "81.2"), (999.6, "1,000"), (1234, "1,234")],
)
def test_three_digits_tell_enough(value: float, text: str) -> None:
    assert digits_text(value) == text


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(0, "0 s"), (1.23e-5, "12.3 µs"), (9.994e-4, "999 µs"), (9.996e-4, "1.00 ms"), (0.25, "250 ms"), (65, "65.0 s")],
)
def test_a_time_has_the_unit_that_suits_it(seconds: float, text: str) -> None:
    assert time_text(seconds) == text


def test_a_rate_is_in_powers_of_a_thousand() -> None:
    assert [rate_text(value) for value in (12, 1500, 2.5e6, 3e9)] == ["12.0 B/s", "1.50 kB/s", "2.50 MB/s", "3.00 GB/s"]


@pytest.mark.parametrize("high", [0, 1e-9, 0.3, 1, 6, 7.3, 99, 101, 12345, 3.3e9])
@pytest.mark.parametrize("limit", [3, 5, 11])
def test_ticks_are_few_even_and_reach_the_end(high: float, limit: int) -> None:
    found = ticks(high, limit)
    assert 2 <= len(found) <= limit and found[0] == 0 and found[-1] >= high * (1 - 1e-6)
    assert f"{found[1]:e}"[0] in "125" and found[-1] == pytest.approx(found[1] * (len(found) - 1))
    texts = [tick_text(value, found[1]) for value in found]
    if high > 1e-6:
        assert len(set(texts)) == len(texts)


def test_ticks_of_what_is_counted_are_whole() -> None:
    assert ticks(1, 5, whole=True) == [0, 1]


# A real browser


class Picture(NamedTuple):
    width: int
    rows: list[bytes]  # red, green and blue of each pixel

    def pixel(self, x: int, y: int) -> bytes:
        return self.rows[y][3 * x : 3 * x + 3]


@pytest.fixture(scope="session")
def chromium() -> str:
    names = ("chromium", "chromium-browser", "google-chrome")
    found = next(filter(None, map(shutil.which, names)), None)
    if found is None:
        pytest.skip(f"no browser to show the page: {', '.join(names)}")
    return found


def browse(program: str, folder: Path, text: str, *options: str) -> tuple[str, str]:
    """Have a browser open a page; return what it wrote to standard output and error."""
    path = folder / "page.html"
    path.write_text(text, encoding="utf-8")
    fixed = ["--headless=new", "--disable-gpu", "--hide-scrollbars", "--no-first-run", "--enable-logging=stderr"]
    sandbox = ["--no-sandbox"] if os.geteuid() == 0 else []  # it refuses to be root with one
    argv = [program, *fixed, *sandbox, f"--user-data-dir={folder / 'profile'}", *options, path.as_uri()]
    process = subprocess.Popen(
        argv, cwd=folder, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, start_new_session=True
    )
    try:
        return process.communicate(timeout=PATIENCE)
    finally:
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGKILL)
            process.communicate()


def complaints(log: str) -> list[str]:
    return [line for line in log.splitlines() if "CONSOLE" in line]


def decode(data: bytes) -> Picture:
    """Read a PNG of 8 bits a colour, RGB or RGBA, not interlaced, as browsers write it."""
    assert data.startswith(b"\x89PNG\r\n\x1a\n")
    at, packed, header = 8, b"", b""
    while at < len(data):
        (size,), kind = struct.unpack(">I", data[at : at + 4]), data[at + 4 : at + 8]
        body = data[at + 8 : at + 8 + size]
        header, packed = (body, packed) if kind == b"IHDR" else (header, packed + body * (kind == b"IDAT"))
        at += size + 12
    width, height, bits, colours, *_, interlaced = struct.unpack(">IIBBBBB", header)
    assert bits == 8 and colours in (2, 6) and not interlaced
    step = 3 if colours == 2 else 4
    raw, rows = zlib.decompress(packed), [bytes(width * step)]
    for row in range(height):
        begin = row * (width * step + 1)
        rows.append(unfiltered(raw[begin], raw[begin + 1 : begin + 1 + width * step], rows[-1], step))
    channels = [b"".join(rows[1:])[colour::step] for colour in range(3)]
    pixels = bytes(byte for pixel in zip(*channels, strict=True) for byte in pixel)
    return Picture(width, [pixels[3 * width * row : 3 * width * (row + 1)] for row in range(height)])


def unfiltered(kind: int, line: bytes, above: bytes, step: int) -> bytes:
    """Add to each byte what the filter has taken away (PNG, section 9)."""
    found = bytearray(line)
    for at in range(len(found)) if kind else ():
        left, upper, corner = (found[at - step], above[at], above[at - step]) if at >= step else (0, above[at], 0)
        guesses = (left, upper, (left + upper) // 2)
        found[at] = (found[at] + (guesses[kind - 1] if kind < 4 else paeth(left, upper, corner))) & 255
    return bytes(found)


def paeth(left: int, upper: int, corner: int) -> int:
    estimate = left + upper - corner
    return min((left, upper, corner), key=lambda value: abs(estimate - value))


def longest_run(picture: Picture, colour: bytes) -> int:
    runs = re.compile(rb"(?:" + re.escape(colour) + rb")+")
    return max((len(run) // 3 for row in picture.rows for run in runs.findall(row)), default=0)


@pytest.mark.parametrize(("scheme", "ground", "accent"), [("light", "f5f6f8", "1a5fd0"), ("dark", "0d1015", "6fa8ff")])
@pytest.mark.one_version
def test_a_browser_shows_the_plots(chromium: str, tmp_path: Path, scheme: str, ground: str, accent: str) -> None:
    shot = tmp_path / "shot.png"
    preferred = f"--blink-settings=preferredColorScheme={int(scheme == 'light')}"
    size = ["--window-size=1200,2100", "--force-device-scale-factor=0.5"]
    _, log = browse(chromium, tmp_path, page(document(200)), *size, preferred, f"--screenshot={shot}")
    assert complaints(log) == []
    picture = decode(shot.read_bytes())
    assert picture.width in (600, 1200)
    assert picture.pixel(2, 2) == bytes.fromhex(ground)
    assert len({picture.pixel(x, y) for y in range(0, len(picture.rows), 3) for x in range(0, picture.width, 3)}) > 50
    # No letter is so broad: it is the bar of the whole time.
    assert longest_run(picture, bytes.fromhex(accent)) > picture.width * 0.4


@pytest.mark.parametrize("name", ["usual", "all failed", "hostile"])
@pytest.mark.one_version
def test_a_browser_has_nothing_to_complain_of(chromium: str, tmp_path: Path, name: str) -> None:
    text = page(DOCUMENTS[name]())
    dumped, log = browse(chromium, tmp_path, text, "--dump-dom")
    assert complaints(log) == []
    assert dumped.count("<svg") == text.count("<svg") and "<script" not in dumped


@pytest.mark.one_version
def test_a_browser_would_complain(chromium: str, tmp_path: Path) -> None:
    """What the last two tests rely on: the policy forbids a script and an image, and the log tells."""
    planted = '<img src="data:image/gif;base64,R0lGODlhAQABAAAAACw="><script>document.title = "ran"</script></body>'
    dumped, log = browse(chromium, tmp_path, page(document(3)).replace("</body>", planted), "--dump-dom")
    assert len(complaints(log)) >= 2
    assert "<title>ran</title>" not in dumped
