"""The results of an import: counts, a few examples of rejects, and optionally a file with all rejects."""

import json
import time
from collections import Counter
from dataclasses import asdict, dataclass, field
from typing import TextIO

from destination.importing.batches import ImportBatch, RejectedLine
from destination.importing.deliver import Delivered

EXAMPLES = 3
"""Examples of each code; the other rejects are counted, and written to the file of --rejects."""
CODES = 50
"""Limit for codes, so that an endpoint that invents codes can't fill the memory."""


@dataclass(kw_only=True)
class ImportTally:
    """The results of this run: messages by outcome, and the file to which all rejects are written."""

    lines: int = 0
    blank: int = 0
    accepted: int = 0
    duplicates: int = 0
    rejected: Counter[str] = field(default_factory=Counter)
    examples: dict[str, list[RejectedLine]] = field(default_factory=dict)
    unreadable: dict[str, str] = field(default_factory=dict)
    rewritten: int = 0
    rewritten_examples: list[str] = field(default_factory=list)
    undated: int = 0
    undated_examples: list[str] = field(default_factory=list)
    rejects_file: TextIO | None = None
    began: float = field(default_factory=time.monotonic)

    @property
    def messages(self) -> int:
        """The number of messages with a result."""
        return self.accepted + self.duplicates + self.rejected.total()

    @property
    def seconds(self) -> float:
        """The duration so far."""
        return time.monotonic() - self.began

    @property
    def rate(self) -> float:
        """Messages per second."""
        return self.messages / max(self.seconds, 0.001)

    def add(self, batch: ImportBatch, delivered: Delivered) -> None:
        """Add the results of a batch."""
        self.blank += batch.blank
        self.accepted += delivered.accepted
        self.duplicates += delivered.duplicates
        self.unreadable |= batch.unreadable
        for message in batch.messages:
            place = f"{message.file}:{message.line}"
            if message.rewritten is not None:
                self.rewritten += 1
                self.rewritten_examples += [f"{place}: {message.rewritten}"][: EXAMPLES - len(self.rewritten_examples)]
            if not message.is_dated:
                self.undated += 1
                self.undated_examples += [place][: EXAMPLES - len(self.undated_examples)]
        for reject in sorted((*batch.rejects, *delivered.rejects), key=lambda reject: (reject.file, reject.line)):
            self._add_reject(reject)

    def _add_reject(self, reject: RejectedLine) -> None:
        self.rejected[reject.code] += 1
        if len(self.examples) < CODES:
            examples = self.examples.setdefault(reject.code, [])
            if len(examples) < EXAMPLES:
                examples.append(reject)
        if self.rejects_file is not None:
            self.rejects_file.write(json.dumps(asdict(reject)) + "\n")
