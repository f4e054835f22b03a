"""The destination on this machine: an embedded AWS, function processes, a gateway before them, and injected faults."""
