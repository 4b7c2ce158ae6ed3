"""The document of a bench as one HTML file: nothing to fetch, nothing to run, and no text that could become either."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, Final

from rawdl.cli.bench import plots
from rawdl.cli.bench.plots import safe
from rawdl.cli.bench.units import count_text, digits_text, rate_text, rates_of, time_text
from rawdl.cli.meter import size_text

Document = Mapping[str, Any]

_UNKNOWN: Final = "–"
_SIZES: Final = (800, 400)  # of the plots: for a desk, and for a hand

# The names of the phases, in the order in which they happen.
_PHASES: Final = {
    "wait": "Wait for a free place",
    "dns": "Look-up of the host",
    "connect": "Connect",
    "tls": "TLS handshake",
    "first_byte": "Request to first byte",
    "transfer": "Transfer of the body",
    "total": "Total",
}
_FIGURES: Final = {"min": "min", "p50": "median", "p90": "p90", "p95": "p95", "p99": "p99", "max": "max"}


def page(document: Document) -> str:
    """Return the file, as text that is to be written in UTF-8."""
    url = safe(document["settings"]["url"])
    sections = [
        _headline(document),
        _warnings(document),
        *_figures(document),
        _phase_table(document),
        _failure_table(document),
        '<div class="columns">',
        _settings_table(document),
        _cost_table(document),
        _environment_table(document),
        "</div>",
    ]
    body = "\n".join(section for section in sections if section)
    return _PAGE.format(url=url, style=_STYLE, about=_about(document), body=body)


def _about(document: Document) -> str:
    environment = document["environment"]
    python = f"{_told(environment['implementation'])} {_told(environment['python'])}"
    where = f"{python} on {_told(environment['platform'])}"
    return safe(f"rawdl {document['rawdl']} · {str(document['began']).replace('T', ' ')} · {where}")


# What matters


def _headline(document: Document) -> str:
    totals, memory = document["totals"], document["memory"]
    tiles = [
        ("Transfers", count_text(totals["transfers"]), _pace(totals)),
        ("Failures", count_text(totals["failed"]), _share(totals)),
        ("Time of a transfer", *_usual_time(document["phases"]["total"])),
        ("CPU", *_cpu(document["cpu"])),
        ("Peak memory", _or_unknown(memory["peak_rss"], size_text), "resident, of the process"),
    ]
    told = "".join(
        f"<div{' class=bad' if name == 'Failures' and totals['failed'] else ''}><dt>{name}</dt>"
        f"<dd>{safe(value)}<small>{safe(note)}</small></dd></div>"
        for name, value, note in tiles
    )
    return f'<section class="headline" aria-label="Result">{_rate(totals)}<dl>{told}</dl></section>'


def _rate(totals: Document) -> str:
    speed = totals["bytes_per_second"]
    if not totals["succeeded"] or speed is None:
        return '<p class="rate none"><b>No transfer succeeded</b></p>'
    (unit, value), *others = rates_of(speed).items()
    also = " · ".join(f"{number} {name}" for name, number in others)
    return f'<p class="rate"><b>{value}<i>{unit}</i></b><span>{also}</span></p>'


def _pace(totals: Document) -> str:
    pace = _or_unknown(totals["transfers_per_second"], digits_text)
    omitted = f", {count_text(totals['omitted'])} more omitted" if totals["omitted"] else ""
    return f"{pace} a second for {time_text(totals['seconds'])}{omitted}"


def _share(totals: Document) -> str:
    if not totals["failed"]:
        return "none"
    return f"{digits_text(100 * totals['failed'] / totals['transfers'])} % of all"


def _usual_time(total: Document | None) -> tuple[str, str]:
    if total is None:
        return _UNKNOWN, "nothing to measure"
    return time_text(total["p50"]), f"median; p99 {time_text(total['p99'])}"


def _cpu(cpu: Document) -> tuple[str, str]:
    split = f"user {_or_unknown(cpu['user'], time_text)}, system {_or_unknown(cpu['system'], time_text)}"
    return _or_unknown(cpu["seconds_per_gib"], lambda value: f"{digits_text(value)} s/GiB"), split


def _warnings(document: Document) -> str:
    if not document["warnings"]:
        return ""
    lines = "".join(f"<li>{safe(warning)}</li>" for warning in document["warnings"])
    return f'<section class="warnings"><h2>Read with care</h2><ul>{lines}</ul></section>'


# Plots


def _figures(document: Document) -> Iterable[str]:
    if document["intervals"] and document["totals"]["succeeded"]:
        mean = document["totals"]["bytes_per_second"]
        legend = _legend(("line", "each interval"), ("mean", f"mean: {_or_unknown(mean, rate_text)}"))
        if len(document["intervals"]) > plots.STRETCHES:
            legend += _legend(("band", "slowest to fastest, where several share a spot"))
        yield _figure("Throughput", legend, lambda width: plots.throughput(document["intervals"], mean, width))
    if document["histogram"]:
        total = document["phases"]["total"]
        yield _figure(
            "Times of the transfers", "", lambda width: plots.distribution(document["histogram"], total, width)
        )
    spans = {_PHASES[name]: each for name in _PHASES if (each := document["phases"][name]) is not None}
    if spans:
        yield _figure("Phases", "", lambda width: plots.phases(spans, width))
    if any(each["error"] is None for each in document["samples"]):
        failed = _legend(("failed", "failed")) if document["totals"]["failed"] else ""
        legend = _legend(("dots", "a transfer, by when it ended")) + failed
        yield _figure("Each transfer", legend, lambda width: plots.scatter(document["samples"], width))


def _legend(*entries: tuple[str, str]) -> str:
    return "".join(f'<span class="key"><i class="{kind}"></i>{safe(text)}</span>' for kind, text in entries)


def _figure(title: str, legend: str, draw: Callable[[int], str]) -> str:
    drawings = "".join(
        f'<div class="{kind}">{draw(width)}</div>' for kind, width in zip(("wide", "narrow"), _SIZES, strict=True)
    )
    return f"<figure><figcaption><h2>{title}</h2>{legend}</figcaption>{drawings}</figure>"


# Tables


def _phase_table(document: Document) -> str:
    heads = ["", "transfers", *_FIGURES.values(), "sd"]
    rows = [
        [text, count_text(each["count"]), *(time_text(each[name]) for name in (*_FIGURES, "sd"))]
        for name, text in _PHASES.items()
        if (each := document["phases"][name]) is not None
    ]
    speed = document["throughput"]
    if speed is not None:
        told = (rate_text(speed[name]) for name in (*_FIGURES, "sd"))
        rows.append(["Speed of a transfer", count_text(speed["count"]), *told])
    return _table("Figures", rows, heads) if rows else ""


def _failure_table(document: Document) -> str:
    rows = [[each["kind"], count_text(each["count"]), each["example"]] for each in document["failures"]]
    return _table("Failures", rows, ["kind", "transfers", "an example"], "texts") if rows else ""


def _cost_table(document: Document) -> str:
    cpu, system = document["cpu"], document["system"]
    times = {"CPU time, user": cpu["user"], "CPU time, system": cpu["system"], "CPU time": cpu["seconds"]}
    counts = {
        "Turns of the loop": system["wake_ups"],
        "Reads": system["reads"],
        "Writes": system["writes"],
        "Voluntary switches": system["voluntary_switches"],
        "Involuntary switches": system["involuntary_switches"],
    }
    rows = [[name, _or_unknown(value, time_text)] for name, value in times.items()]
    rows += [[name, _or_unknown(value, count_text)] for name, value in counts.items()]
    rows.append(["Bytes", size_text(document["totals"]["bytes"])])
    return _table("What it cost", rows)


def _settings_table(document: Document) -> str:
    shown = {"size": size_text, "duration": time_text, "omit": time_text, "interval": time_text}
    rows = [[name.replace("_", "-"), _told(value, shown.get(name))] for name, value in document["settings"].items()]
    return _table("Settings", rows, kind="texts")


def _environment_table(document: Document) -> str:
    return _table(
        "Environment", [[name, _told(value)] for name, value in document["environment"].items()], kind="texts"
    )


def _table(title: str, rows: Sequence[Sequence[str]], heads: Sequence[str] = (), kind: str = "numbers") -> str:
    """Return a table with a heading for each row; a wide one scrolls by itself, by keys as well."""
    top = "".join(f'<th scope="col">{safe(head)}</th>' if head else "<td></td>" for head in heads)
    lines = "".join(
        f'<tr><th scope="row">{safe(row[0])}</th>{"".join(f"<td>{safe(cell)}</td>" for cell in row[1:])}</tr>'
        for row in rows
    )
    head = f"<thead><tr>{top}</tr></thead>" if top else ""
    scroller = f'<div class="scroll" tabindex="0" role="region" aria-label="{title}">'
    table = f'<table class="{kind}">{head}<tbody>{lines}</tbody></table>'
    return f"<section><h2>{title}</h2>{scroller}{table}</div></section>"


def _told(value: object, spell: Callable[[float], str] | None = None) -> str:
    """Spell a value of whatever kind."""
    if value is None:
        return _UNKNOWN
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, int | float):
        usual = count_text if isinstance(value, int) else digits_text
        return (spell or usual)(value)
    return ", ".join(map(_told, value)) if isinstance(value, list | tuple) else str(value)


def _or_unknown(value: float | None, spell: Callable[[float], str]) -> str:
    return _UNKNOWN if value is None else spell(value)


# The policy has the browser itself hold what this module promises.
_PAGE: Final = """\
<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta http-equiv="Content-Security-Policy" content="default-src 'none'; style-src 'unsafe-inline'">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta name="color-scheme" content="light dark">
<title>rawdl bench: {url}</title>
<style>
{style}</style>
</head>
<body>
<main>
<header><p class="brand">rawdl bench</p><h1>{url}</h1><p>{about}</p></header>
{body}
</main>
</body>
</html>
"""

# On their ground, letters have a contrast of 4.5 or more, and the lines of plots of 3 (WCAG 2.2, 1.4.3 and 1.4.11).
_STYLE: Final = """\
:root{--ground:#f5f6f8;--card:#fff;--ink:#151a21;--soft:#566070;--line:#e2e6eb;--accent:#1a5fd0;--tint:#1a5fd022;
--warn:#7a4d00;--warn-ground:#fff6e0;--bad:#b42318}
@media (prefers-color-scheme:dark){:root{--ground:#0d1015;--card:#161b22;--ink:#e7ebf0;--soft:#9ba6b4;--line:#2a323d;
--accent:#6fa8ff;--tint:#6fa8ff2e;--warn:#f2bf5e;--warn-ground:#292110;--bad:#ff8f85}}
*{box-sizing:border-box}
body{margin:0;background:var(--ground);color:var(--ink);
font:16px/1.5 system-ui,-apple-system,"Segoe UI",Roboto,"Helvetica Neue",Arial,sans-serif}
main{max-width:944px;margin:0 auto;padding:48px 16px 64px}
header{margin:0 4px 28px}
header p{margin:0;color:var(--soft);font-size:14px;overflow-wrap:anywhere}
header .brand{color:var(--accent);font-weight:650;letter-spacing:.02em}
h1{margin:4px 0 6px;font-size:clamp(20px,3.2vw,27px);line-height:1.25;font-weight:650;letter-spacing:-.01em;
overflow-wrap:anywhere}
h2{margin:0;font-size:17px;line-height:1.3;font-weight:650}
section,figure{margin:0 0 20px;padding:24px 32px;background:var(--card);border:1px solid var(--line);border-radius:14px}
.headline{padding:28px 32px}
.rate{margin:0 0 24px;line-height:1.1}
.rate b{display:block;font-size:clamp(34px,9vw,64px);font-weight:700;letter-spacing:-.03em;color:var(--accent)}
.rate i{font-style:normal;font-weight:500;font-size:.42em;letter-spacing:0;margin-left:.35em}
.rate.none b{font-size:28px;letter-spacing:-.01em;color:var(--bad)}
.rate span{display:block;margin-top:8px;color:var(--soft);font-size:17px}
dl{display:grid;grid-template-columns:repeat(auto-fit,minmax(136px,1fr));gap:20px 18px;margin:0;padding-top:22px;
border-top:1px solid var(--line)}
dt{color:var(--soft);font-size:14px}
dd{margin:2px 0 0;font-size:22px;font-weight:650;line-height:1.25;letter-spacing:-.01em;white-space:nowrap}
dd small{display:block;margin-top:4px;color:var(--soft);font-size:13px;font-weight:400;line-height:1.4;
letter-spacing:0;white-space:normal;text-wrap:balance}
.bad dd{color:var(--bad)}
.warnings{background:var(--warn-ground);border-color:var(--warn)}
.warnings h2{color:var(--warn)}
.warnings ul{margin:8px 0 0;padding-left:20px}
.warnings li{overflow-wrap:anywhere}
figcaption{display:flex;flex-wrap:wrap;align-items:baseline;gap:4px 20px;margin-bottom:16px}
figcaption h2{margin-right:auto}
.key{color:var(--soft);font-size:13px}
.key i{display:inline-block;width:18px;margin-right:7px;vertical-align:middle;border-top:2px solid var(--accent)}
.key .mean{border-top:2px dashed var(--ink)}
.key .band{border-top:10px solid var(--tint)}
.key .dots{width:7px;height:7px;border:0;border-radius:50%;background:var(--accent)}
.key .failed{width:2px;height:12px;border:0;background:var(--bad)}
svg{display:block;width:100%;height:auto;font-family:inherit;font-size:12.5px;font-variant-numeric:tabular-nums}
.narrow{display:none;max-width:520px;margin:0 auto}
.note{fill:var(--soft)}
.value{fill:var(--ink);font-weight:600;stroke:var(--card);stroke-width:4px;stroke-linejoin:round;paint-order:stroke}
.grid{stroke:var(--line);fill:none}
.axis{stroke:var(--soft);fill:none}
.area,.band{fill:var(--tint)}
.line{fill:none;stroke:var(--accent);stroke-width:2;stroke-linejoin:round}
.mean{fill:none;stroke:var(--ink);stroke-width:1.5;stroke-dasharray:6 5}
.bar{fill:var(--accent)}
.tail{fill-opacity:.55}
.track{fill:var(--line);fill-opacity:.5}
.mark{stroke:var(--ink);stroke-width:1.5;fill:none}
.whisker{stroke:var(--ink);stroke-width:1.5;fill:none}
.dots{stroke:var(--accent);stroke-width:5;stroke-linecap:round;stroke-opacity:.6;fill:none}
.failed{stroke:var(--bad);stroke-width:2;fill:none}
.scroll{margin-top:12px;overflow-x:auto}
.scroll:focus-visible{outline:2px solid var(--accent);outline-offset:4px;border-radius:4px}
table{width:100%;border-collapse:collapse;font-size:14px;font-variant-numeric:tabular-nums}
th,td{padding:8px 0 8px 14px;border-bottom:1px solid var(--line);text-align:right;white-space:nowrap}
tbody tr:last-child>*{border-bottom:0}
th:first-child,td:first-child{padding-left:0;text-align:left}
th{font-weight:500;color:var(--soft)}
tbody th{color:var(--ink)}
.texts th,.texts td{text-align:left;vertical-align:top}
.texts td{white-space:normal;overflow-wrap:anywhere}
@media (min-width:701px){.columns{columns:2;column-gap:20px}.columns section{break-inside:avoid}}
@media (max-width:700px){main{padding:28px 12px 40px}section,figure,.headline{padding:20px 16px}.wide{display:none}
.narrow{display:block}}
@media print{:root{--ground:#fff;--card:#fff;--ink:#000;--soft:#444;--line:#ccc;--accent:#1a5fd0;--tint:#1a5fd022;
--warn:#7a4d00;--warn-ground:#fff;--bad:#b42318}
body{font-size:13px;print-color-adjust:exact;-webkit-print-color-adjust:exact}main{max-width:none;padding:0}
section,figure{padding:16px;break-inside:avoid}.wide{display:block}.narrow{display:none}.scroll{overflow:visible}}
"""
