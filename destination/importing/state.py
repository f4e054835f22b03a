"""Keep the progress of an import in a file that is replaced atomically, so that another run continues from there.

Everything in the state is durable. Messages that were sent after the last save are sent again after an interruption,
and are duplicates then.
"""

import hashlib
import json
import os
import time
from collections import Counter
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import click

from destination.importing.lines import Position
from destination.importing.sources import InputFile

KIND = "destination import 1"
KEY_HASH_CHARS = 12
SAVED_EVERY_SECONDS = 1.0
SHARE_OF_TIME = 0.05
"""The state of an archive with very many files is large: it is saved less often, to take at most this share of the
time."""


@dataclass(frozen=True, kw_only=True)
class Recipient:
    """The recipient of messages: the deployment's URL, a hash of the API key, and a local server's stores."""

    url: str
    key_hash: str
    stores: str | None = None

    @classmethod
    def of(cls, url: str, api_key: str, stores: str | None) -> "Recipient":
        """Return the recipient for an API key."""
        return cls(url=url, key_hash=hashlib.sha256(api_key.encode()).hexdigest()[:KEY_HASH_CHARS], stores=stores)


@dataclass(kw_only=True)
class FileProgress:
    """The place reached in a file; size and time are from the start of reading."""

    size: int | None
    modified_ns: int | None
    mark: Position = field(default_factory=Position)
    is_whole: bool = False


@dataclass(kw_only=True)
class ImportState:
    """The progress of an import, over all its runs.

    `unaccounted` is the number of lines that were read, are not blank, and have no result. It is more than 0 only if
    the import itself has a bug.
    """

    path: Path | None
    recipient: Recipient
    accepted: int = 0
    duplicates: int = 0
    rejected: Counter[str] = field(default_factory=Counter)
    unaccounted: int = 0
    files: dict[str, FileProgress] = field(default_factory=dict)
    _save_at: float = 0.0

    @classmethod
    def load(cls, path: Path, recipient: Recipient, *, restart: bool) -> "ImportState":
        """Read the state of an import, or create one; raises `click.ClickException` if it belongs to another import."""
        try:
            text = path.read_text("utf-8")
        except FileNotFoundError:
            return cls(path=path, recipient=recipient)
        except (OSError, ValueError) as error:
            raise click.ClickException(f"The state {path} can't be read: {error}") from error
        try:
            state = cls._of(path, **json.loads(text))
        except (ValueError, LookupError, TypeError, AttributeError, RecursionError) as error:
            raise click.ClickException(
                f"{path} is not the state of an import: name another file with --state, or remove it"
            ) from error
        if restart:
            return cls(path=path, recipient=recipient)
        if state.recipient != recipient:
            raise click.ClickException(
                f"The state {path} is of an import {_difference(state.recipient, recipient)}: name another file with "
                "--state, or send all of it again with --restart"
            )
        return state

    @classmethod
    def _of(
        cls,
        path: Path,
        *,
        kind: str,
        recipient: dict[str, Any],
        accepted: int,
        duplicates: int,
        rejected: dict[str, int],
        files: dict[str, dict[str, Any]],
        unaccounted: int = 0,
    ) -> "ImportState":
        places = [progress[name] for progress in files.values() for name in ("offset", "line", "position")]
        numbers = [accepted, duplicates, unaccounted, *rejected.values(), *places]
        if kind != KIND or not all(isinstance(number, int) and number >= 0 for number in numbers):
            raise ValueError(kind)
        return cls(
            path=path,
            recipient=Recipient(**recipient),
            accepted=accepted,
            duplicates=duplicates,
            rejected=Counter(rejected),
            unaccounted=unaccounted,
            files={name: _progress(**progress) for name, progress in files.items()},
        )

    def progress_of(self, source: InputFile) -> FileProgress:
        """Return the place reached in a file; raises `click.ClickException` if the file has changed."""
        unread = FileProgress(size=source.size, modified_ns=source.modified_ns)
        progress = self.files.setdefault(source.name, unread)
        if not progress.mark.offset and not progress.is_whole:  # it may have been corrected
            progress = self.files[source.name] = unread
        if (progress.size, progress.modified_ns) != (source.size, source.modified_ns):
            raise click.ClickException(
                f"{source.name} was changed since the import began: import new messages from a separate file. If "
                "you corrected the file, send all of it again with --restart. No message is stored twice"
            )
        return progress

    @property
    def is_empty(self) -> bool:
        """Return whether there is no progress yet."""
        begun = any(progress.mark.offset or progress.is_whole for progress in self.files.values())
        return not (begun or self.accepted or self.duplicates or self.rejected)

    def remove(self) -> None:
        """Remove the file if it has no progress, so that the next run may use another recipient."""
        if self.path is not None:
            self.path.unlink(missing_ok=True)

    @property
    def is_due(self) -> bool:
        """Return whether it is time to save."""
        return time.monotonic() >= self._save_at

    def save(self) -> None:
        """Replace the file; raises `click.ClickException`."""
        if self.path is None:
            return
        began = time.monotonic()
        temporary = self.path.with_name(f"{self.path.name}.{os.getpid()}.new")
        try:
            with temporary.open("w", encoding="utf-8") as file:
                json.dump(self._to_json(), file, indent=1)
                file.flush()
                os.fsync(file.fileno())
            temporary.replace(self.path)
        except OSError as error:
            raise click.ClickException(
                f"The state can't be written to {self.path}: {error}. Name another file with --state"
            ) from error
        now = time.monotonic()
        self._save_at = now + max(SAVED_EVERY_SECONDS, (now - began) / SHARE_OF_TIME)

    def _to_json(self) -> dict[str, Any]:
        return {
            "kind": KIND,
            "recipient": asdict(self.recipient),
            "accepted": self.accepted,
            "duplicates": self.duplicates,
            "rejected": self.rejected,
            "unaccounted": self.unaccounted,
            "files": {
                name: {"size": progress.size, "modified_ns": progress.modified_ns, "is_whole": progress.is_whole}
                | progress.mark._asdict()
                for name, progress in self.files.items()
            },
        }


def _progress(*, size: int | None, modified_ns: int | None, is_whole: bool, **mark: Any) -> FileProgress:  # noqa: ANN401 -- of a Mark
    return FileProgress(size=size, modified_ns=modified_ns, is_whole=is_whole, mark=Position(**mark))


def _difference(was: Recipient, wanted: Recipient) -> str:
    if was.url != wanted.url:
        return f"to {was.url}"
    if was.key_hash != wanted.key_hash:
        return "with another API key"
    return "to a local server that has ended, and its stores with it"
