"""Report a run: a table for a terminal, and a report to hand in, as Markdown and HTML."""

import html
import re
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

import click
from rich.console import Group, RenderableType
from rich.text import Text

from destination.certification.findings import Verdict
from destination.certification.points import Finding
from destination.certification.wire import Wire, WireExchange
from destination.console import Rows, printable

SHOWN_EXCHANGES = 4
"""Limit for the exchanges of a point; a dozen similar ones add nothing."""
SHOWN_CHARS = 1200
"""Limit for a body or a header."""
MASKED_CHARS = 100 * SHOWN_CHARS
"""The part of a text in which keys are masked: long enough for any keys in the shown part."""
SHOWN_LINE_CHARS = 300
"""Limit for a request or an answer on a terminal; the report to hand in has more."""
COLOURS = {Verdict.PASS: "green", Verdict.FAIL: "bold red", Verdict.WARNING: "yellow", Verdict.NOT_CHECKED: "dim"}
NOTES = (
    "Not checked means that a point could not be judged here, for the given reason. A warning does not fail the "
    "run. A source that is marked as inferred is not a page of Segment about Direct destinations, but a page "
    "about related destinations."
)


@dataclass(frozen=True, kw_only=True)
class Report:
    """A finished run; `notes` say what it left behind."""

    url: str
    only: Sequence[str]
    name: str
    began_at: datetime
    version: str
    findings: Sequence[Finding]
    notes: Sequence[str]
    wire: Wire

    @property
    def has_failed(self) -> bool:
        """Return whether a point is not met, or none could be checked."""
        verdicts = {finding.verdict for finding in self.findings}
        return Verdict.FAIL in verdicts or verdicts <= {Verdict.NOT_CHECKED}

    @property
    def counts(self) -> dict[str, int]:
        """The number of points by verdict."""
        counts = Counter(finding.verdict for finding in self.findings)
        return {verdict.value: counts[verdict] for verdict in Verdict}

    def _by_group(self) -> dict[str, Counter[Verdict]]:
        """Return the number of points with each verdict by group, which is the first part of a point's id."""
        groups: dict[str, Counter[Verdict]] = {}
        for finding in self.findings:
            groups.setdefault(finding.point.id.partition(".")[0], Counter())[finding.verdict] += 1
        return groups

    @property
    def summary(self) -> str:
        """The counts in a sentence."""
        counts = self.counts
        if counts["not checked"] == len(self.findings):
            return "Nothing could be checked"
        return (
            f"{counts['pass']} passed, {counts['fail']} failed, {counts['warning']} with a warning, "
            f"{counts['not checked']} not checked"
        )

    def to_json(self) -> dict[str, Any]:
        """Return the form for `--json`."""
        return {
            "url": self.url,
            "name": self.name,
            "began_at": self.began_at.isoformat(timespec="seconds"),
            "version": self.version,
            "only": list(self.only),
            "limit_seconds": self.wire.limit_seconds,
            "failed": self.has_failed,
            "counts": self.counts,
            "groups": {
                group: {verdict.value: counts[verdict] for verdict in Verdict}
                for group, counts in self._by_group().items()
            },
            "points": [
                {
                    "id": finding.point.id,
                    "title": finding.point.title,
                    "source": finding.point.source,
                    "verdict": finding.verdict.value,
                    "says": self._says(finding),
                    "mend": _remedy(finding),  # the key was published; language: ok
                    "evidence": [self._exchange_json(exchange) for exchange in _shown(finding)],
                }
                for finding in self.findings
            ],
            "notes": list(self.notes),
        }

    def _exchange_json(self, exchange: WireExchange) -> dict[str, Any]:
        return {
            "sent": self.sent(exchange),
            "received": self.received(exchange),
            "milliseconds": round(exchange.milliseconds, 1),
        }

    def sent(self, exchange: WireExchange) -> str:
        """Return the request as text, without keys."""
        sent = exchange.sent
        head = [f"{sent.method} {sent.target or _path(self.url)} HTTP/1.1", *_header_lines(sent.headers.items())]
        return self._page(head, sent.body)

    def received(self, exchange: WireExchange) -> str:
        """Return the response as text, without keys."""
        if exchange.reply is None:
            return printable(self.wire.masked(exchange.fault or ""))
        head = [f"HTTP/1.1 {exchange.reply.status}", *_header_lines(exchange.reply.headers.items())]
        return self._page(head, exchange.reply.body)

    def _page(self, head: list[str], body: bytes) -> str:
        lines = [self._cut(line) for line in head]
        if body.startswith(b"\x1f\x8b"):
            lines += ["", f"({len(body):,} bytes, compressed by gzip)"]
        elif body:
            lines += ["", self._cut(body.decode("utf-8", "replace"))]
        return "\n".join(printable(line) for text in lines for line in text.split("\n"))

    def _cut(self, text: str) -> str:
        """Return the beginning of a text, without keys."""
        shown = self.wire.masked(text[:MASKED_CHARS])
        return shown if len(shown) <= SHOWN_CHARS else f"{shown[:SHOWN_CHARS]} … ({len(text):,} characters)"

    # For a terminal

    def picture(self, *, all_points: bool = False) -> RenderableType:
        """Return the output for people: counts by group, and the points that failed, have a warning or are unchecked.

        With `all_points` it also lists the points that passed.
        """
        parts: list[RenderableType] = []
        listed = [finding for finding in self.findings if all_points or finding.verdict is not Verdict.PASS]
        if not all_points:
            parts += [self._groups(), ""]
        if listed:
            parts += [self._points(listed), ""]
        for finding in self.findings:
            if finding.verdict in (Verdict.FAIL, Verdict.WARNING):
                parts += [*self._details(finding), ""]
        parts += [Text(note, "yellow") for note in self.notes]
        parts.append(Text(f"{self.summary}.", COLOURS[Verdict.FAIL if self.has_failed else Verdict.PASS]))
        return Group(*parts)

    def _groups(self) -> Rows:
        """Return a table of the number of points with each verdict by group."""
        table = Rows("Group", "Passed", "Failed", "Warning", "Not checked", right=(1, 2, 3, 4))
        for group, counts in self._by_group().items():
            table.add_row(group, *(str(counts[verdict] or "") for verdict in Verdict))
        return table

    def _points(self, findings: Iterable[Finding]) -> Rows:
        table = Rows("", "Point", "Title", "Found", whole=(0, 1), folded=(3,))
        for finding in findings:
            table.add_row(
                Text(finding.verdict, COLOURS[finding.verdict]),
                finding.point.id,
                finding.point.title,
                Text(self._says(finding), "" if finding.verdict is Verdict.FAIL else "dim"),
            )
        return table

    def _details(self, finding: Finding) -> Iterator[Text]:
        colour = COLOURS[finding.verdict]
        yield Text.assemble((f"{finding.verdict} {finding.point.id}", colour), f"  {finding.point.title}")
        yield Text(f"  {self._says(finding)}")
        yield Text(f"  Required by: {finding.point.source}", "dim")
        yield Text(f"  To do: {finding.point.remedy}")
        for exchange in _shown(finding)[:1]:
            yield Text(f"  > {_in_a_line(self.sent(exchange))}", "dim")
            yield Text(f"  < {_in_a_line(self.received(exchange))}", "dim")

    def _says(self, finding: Finding) -> str:
        return printable(self._cut(finding.outcome.says))

    # To hand in

    def markdown(self) -> str:
        """Return the report as Markdown."""
        lines = [
            f"# Certification of {_plain(self.url)}",
            "",
            f"{self._facts()}",
            "",
            f"**{self.summary}.** {NOTES}",
            "",
            *(f"- {_plain(note)}" for note in self.notes),
            *([""] if self.notes else []),
            "| verdict | point | what | found |",
            "|---|---|---|---|",
            *(f"| {' | '.join(self._row(finding))} |" for finding in self.findings),
        ]
        for finding in self.findings:
            lines += [
                "",
                f"## {finding.point.id}: {finding.verdict}",
                "",
                f"{_plain(finding.point.title)}. Required by: {_plain(finding.point.source)}.",
                "",
                f"{_plain(self._says(finding))}.",
            ]
            if finding.verdict in (Verdict.FAIL, Verdict.WARNING):
                lines += ["", f"To do: {_plain(finding.point.remedy)}"]
            for exchange in _shown(finding):
                lines += ["", *_fenced(self.sent(exchange)), "", f"After {exchange.milliseconds:,.0f} ms:", ""]
                lines += _fenced(self.received(exchange))
        return "\n".join(lines) + "\n"

    def _row(self, finding: Finding) -> tuple[str, ...]:
        point = finding.point
        return finding.verdict, f"`{point.id}`", _plain(point.title), _plain(self._says(finding))

    def html(self) -> str:
        """Return the report as one HTML file without external resources."""
        rows = "\n".join(
            f'<tr class="{_class(finding)}"><td>{finding.verdict}</td><td><a href="#{finding.point.id}">'
            f"{finding.point.id}</a></td><td>{html.escape(finding.point.title)}</td>"
            f"<td>{html.escape(self._says(finding))}</td></tr>"
            for finding in self.findings
        )
        details = "\n".join(map(self._html_details, self.findings))
        notes = "".join(f"<li>{html.escape(note)}</li>" for note in self.notes)
        return f"""<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>Certification of {html.escape(self.url)}</title>
<style>{STYLE}</style>
</head>
<body>
<h1>Certification of {html.escape(self.url)}</h1>
<p>{html.escape(self._facts())}</p>
<p><strong>{self.summary}.</strong> {html.escape(NOTES)}</p>
<ul>{notes}</ul>
<table>
<thead><tr><th>verdict</th><th>point</th><th>what</th><th>found</th></tr></thead>
<tbody>
{rows}
</tbody>
</table>
{details}
</body>
</html>
"""

    def _html_details(self, finding: Finding) -> str:
        remedy = ""
        if finding.verdict in (Verdict.FAIL, Verdict.WARNING):
            remedy = f"<p>To do: {html.escape(finding.point.remedy)}</p>"
        exchanges = "".join(
            f"<pre>{html.escape(self.sent(exchange))}</pre><p>After {exchange.milliseconds:,.0f} ms:</p>"
            f"<pre>{html.escape(self.received(exchange))}</pre>"
            for exchange in _shown(finding)
        )
        is_open = " open" if finding.verdict is Verdict.FAIL else ""
        return (
            f'<details id="{finding.point.id}" class="{_class(finding)}"{is_open}><summary>{finding.point.id}: '
            f"{finding.verdict}</summary><p>{html.escape(finding.point.title)}. Required by: "
            f"{html.escape(finding.point.source)}.</p><p>{html.escape(self._says(finding))}.</p>{remedy}{exchanges}</details>"
        )

    def _facts(self) -> str:
        points = f"only {', '.join(self.only)}" if self.only else "all points"
        return (
            f"Run at {self.began_at:%Y-%m-%d %H:%M} UTC by destination certify {self.version}: {points}; an answer may "
            f"take {self.wire.limit_seconds:g} s. Its users' ids start with {self.name}. Keys are not shown."
        )


def _remedy(finding: Finding) -> str | None:
    return finding.point.remedy if finding.verdict in (Verdict.FAIL, Verdict.WARNING) else None


def shown_url(url: str) -> str:
    """Return a URL without its query, which may contain a secret."""
    url, question_mark, _ = url.partition("?")
    return f"{url}?…" if question_mark else url


def _shown(finding: Finding) -> tuple[WireExchange, ...]:
    return finding.outcome.evidence[:SHOWN_EXCHANGES]


def _in_a_line(page: str) -> str:
    """Return the first line of a request or an answer, and its body."""
    head, _, body = page.partition("\n\n")
    line = f"{head.partition(chr(10))[0]}  {' '.join(body.split())}"
    return line if len(line) <= SHOWN_LINE_CHARS else f"{line[:SHOWN_LINE_CHARS]} …"


def _path(url: str) -> str:
    return "/" + url.split("/", 3)[3]


def _header_lines(headers: Iterable[tuple[str, str]]) -> list[str]:
    """Return headers, with all credentials masked."""
    return [f"{name}: {_credentials(value) if name.lower() == 'authorization' else value}" for name, value in headers]


def _credentials(value: str) -> str:
    scheme, space, rest = value.partition(" ")
    return f"{scheme}{space}{'…' if rest else ''}"


def _plain(text: str) -> str:
    """Escape Markdown and HTML in a text; code in backticks stays code."""
    text = printable(text).replace("&", "&amp;").replace("<", "&lt;")
    return re.sub(r"([\\|*_\[\]])", r"\\\1", text)


def _fenced(text: str) -> list[str]:
    """Return a block of code with a fence that is longer than any fence in it."""
    longest = max(map(len, re.findall("`+", text)), default=0)
    fence = "`" * max(3, longest + 1)
    return [fence, text, fence]


def _class(finding: Finding) -> str:
    return finding.verdict.value.replace(" ", "-")


STYLE = """
:root { color-scheme: light dark; --line: #ccc; --soft: #f5f5f5; --pass: #176d2c; --fail: #b3121d; --warning: #8a5a00; }
@media (prefers-color-scheme: dark) {
  :root { --line: #444; --soft: #1d1d1d; --pass: #6cd088; --fail: #ff8088; --warning: #e5b455; }
}
body { font: 16px/1.5 system-ui, sans-serif; max-width: 70rem; margin: 2rem auto; padding: 0 1rem; }
table { border-collapse: collapse; width: 100%; }
th, td { text-align: left; vertical-align: top; padding: .25rem .75rem .25rem 0; border-bottom: 1px solid var(--line); }
td:nth-child(-n+2) { white-space: nowrap; }
td, p { overflow-wrap: anywhere; }
.pass td:first-child, .pass > summary { color: var(--pass); }
.fail td:first-child, .fail > summary { color: var(--fail); font-weight: bold; }
.warning td:first-child, .warning > summary { color: var(--warning); }
details { border-bottom: 1px solid var(--line); padding: .5rem 0; }
summary { cursor: pointer; }
pre { background: var(--soft); padding: .75rem; white-space: pre-wrap; overflow-wrap: anywhere; }
@media print {
  body { font-size: 10pt; margin: 0; max-width: none; }
  details::details-content { content-visibility: visible; height: auto; }
  tr, summary { break-inside: avoid; }
}
"""


def write_report(report: Report, stem: Path) -> None:
    """Write a report as Markdown and as HTML; `stem` is the path without a suffix."""
    for ending, text in ((".md", report.markdown()), (".html", report.html())):
        file = stem.with_name(stem.name + ending)
        try:
            file.write_text(text, "utf-8")
        except OSError as error:
            raise click.ClickException(f"{file} can't be written: {error.strerror}") from error
        click.echo(f"Written: {file}", err=True)
