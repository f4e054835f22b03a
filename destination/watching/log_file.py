"""Write the request lines of a local server to a file, which other processes read meanwhile.

A full file becomes the older one, which replaces the previous older one. So the two never take more than twice the size
limit.
"""

import io
import re
from pathlib import Path

import click

from destination.paths import LOCAL_FOLDER

MAX_FILE_BYTES = 100 * 1024 * 1024
USUAL_HOST = "127.0.0.1"
"""The default address of a server, which is not part of its file's name."""


def file_of(host: str, port: int) -> Path:
    """Return the file of the server with this address; only one server can have it at a time."""
    address = str(port) if host == USUAL_HOST else f"{re.sub(r'[^0-9A-Za-z.]', '-', host)}-{port}"
    return LOCAL_FOLDER / f"requests-{address}.jsonl"


def older(path: Path) -> Path:
    """Return the path of the file with earlier lines."""
    return path.with_name(f"{path.name}.1")


class RequestLogFile:
    """Writes lines of JSON to a file that is replaced when full. A failure is reported once: the requests go on."""

    def __init__(self, path: Path, *, max_bytes: int = MAX_FILE_BYTES) -> None:
        path.parent.mkdir(exist_ok=True)
        for earlier in (path, older(path)):
            earlier.unlink(missing_ok=True)
        self.path = path
        self._max_bytes = max_bytes
        self._size = 0
        self._file: io.FileIO | None = self._open()
        self._is_broken = False

    def _open(self) -> io.FileIO:
        return io.FileIO(self.path, "a")

    def write(self, line: str) -> None:
        """Write a line, which readers can see at once."""
        octets = f"{line}\n".encode("utf-8", "backslashreplace")
        try:
            if self._size and self._size + len(octets) > self._max_bytes:
                self._start_new_file()
            self._file = self._file or self._open()
            self._file.write(octets)
            self._size += len(octets)
        except OSError as error:
            if not self._is_broken:
                click.echo(f"The request log can't be written: {error}", err=True)
            self._is_broken = True

    def _start_new_file(self) -> None:
        """Make the full file the older one."""
        self.close()
        self.path.replace(older(self.path))
        self._size = 0

    def close(self) -> None:
        """Close the file, which stays for readers."""
        if self._file is not None:
            self._file.close()
            self._file = None
