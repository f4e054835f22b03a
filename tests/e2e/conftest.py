"""Show the tables that tests measure at the end of the report."""

import pytest

TABLE = pytest.StashKey[list[str]]()


@pytest.fixture(scope="session")
def report(request):
    """Return a list for lines that are shown at the end."""
    return request.config.stash.setdefault(TABLE, [])


def pytest_terminal_summary(terminalreporter, config):
    if lines := config.stash.get(TABLE, []):
        terminalreporter.section("what was measured")
        for line in lines:
            terminalreporter.write_line(line)
