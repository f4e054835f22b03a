"""Find the files of an import: named files, files in named folders, and standard input.

Segment's archive is a folder of gzip files: `segment-logs/{source-id}/{received-day}/filename.gz`, JSON Lines with one
message each, as its destinations receive them.
https://www.twilio.com/docs/segment/connections/storage/catalog/aws-s3#data-format
"""

import json
import os
import stat
import sys
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

STANDARD_INPUT = "-"
SUFFIXES = (".gz", ".jsonl", ".ndjson", ".json")
"""In a folder, only files with these suffixes are read."""
REJECT_FIELDS = {"code", "file", "line", "message"}
"""The fields of a line that --rejects writes. A message always has a type and an id, so they differ."""
MAX_REJECT_BYTES = 64 * 1024
STATE_SUFFIX = ".import-state.json"
"""The state of an import is stored next to its input."""


@dataclass(frozen=True, kw_only=True)
class InputFile:
    """A file of messages: its absolute path, or `-`; standard input has no size and no time."""

    name: str
    size: int | None = None
    modified_ns: int | None = None

    @property
    def is_standard_input(self) -> bool:
        """Return whether it is standard input."""
        return self.name == STANDARD_INPUT

    @property
    def is_stream(self) -> bool:
        """Return whether it is standard input or a pipe, which can be read only once and only from the start."""
        return self.size is None

    @contextmanager
    def open(self) -> Iterator[Any]:
        """Open it for reading bytes without a buffer; raises `OSError`."""
        if self.is_standard_input:
            yield getattr(sys.stdin.buffer, "raw", sys.stdin.buffer)
        else:
            with Path(self.name).open("rb", buffering=0) as file:
                yield file


@dataclass(frozen=True, kw_only=True)
class Found:
    """The files to read, in order, and files in folders whose names don't match."""

    sources: list[InputFile]
    passed_over: list[str]
    rejects_files: list[str] = field(default_factory=list)
    """Files in folders that an earlier import wrote with its option --rejects."""


def find_sources(names: Iterable[str]) -> Found:
    """Find the named files, each once, and files in folders in the order of their paths; raises `OSError`."""
    sources: dict[str, InputFile] = {}
    passed_over = []
    rejects_files = []
    for name in names:
        if name == STANDARD_INPUT:
            sources[name] = InputFile(name=name)
            continue
        named = _whole(name)
        for path in _files_in(named) if named.is_dir() else [named]:
            if path.name.endswith(STATE_SUFFIX):
                continue
            if path != named and not path.name.lower().endswith(SUFFIXES):
                passed_over.append(str(path))
                continue
            about = path.stat()
            if not stat.S_ISREG(about.st_mode):
                sources[str(path)] = InputFile(name=str(path))
                continue
            if path != named and _is_rejects_file(path):
                rejects_files.append(str(path))
                continue
            sources[str(path)] = InputFile(name=str(path), size=about.st_size, modified_ns=about.st_mtime_ns)
    return Found(sources=list(sources.values()), passed_over=passed_over, rejects_files=rejects_files)


def is_stream(name: str) -> bool:
    """Return whether a name stands for a stream, which can be read only once: standard input, or a pipe."""
    return name == STANDARD_INPUT or not (Path(name).is_file() or Path(name).is_dir())


def source_name(name: str) -> str:
    """Return the name of the source for a named file."""
    return name if name == STANDARD_INPUT else str(_whole(name))


def _is_rejects_file(path: Path) -> bool:
    """Return whether the first line of a file was written by --rejects."""
    with path.open("rb") as file:
        beginning = file.readline(MAX_REJECT_BYTES)
    try:
        line = json.loads(beginning)
    except (ValueError, RecursionError):
        return False
    return isinstance(line, dict) and line.keys() == REJECT_FIELDS


def default_state_path(name: str) -> Path:
    """Return the path of the state of an import, next to its first file or folder."""
    named = _whole(name)
    return named.with_name(named.name + STATE_SUFFIX)


def _whole(name: str) -> Path:
    """Return the absolute path of a file; a pipe of the shell (`<(…)`) keeps its name."""
    path = Path(name)
    resolved = path.resolve()
    return resolved if resolved.exists() else path.absolute()


def _files_in(folder: Path) -> list[Path]:
    def fail(error: OSError) -> None:
        raise error

    return sorted(Path(path, name) for path, _, names in os.walk(folder, onerror=fail) for name in names)
