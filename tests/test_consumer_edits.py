"""Test the copies of `consumer/` that the functions of a local server load."""

import pytest

from destination.local.consumer_edits import ConsumerEdits


class Sources:
    def __init__(self):
        self.checkouts = []

    def use(self, checkout):
        self.checkouts.append(checkout)


@pytest.mark.parametrize("name", [".#handle.py", "old.py"])  # Emacs locks a file with the first one
def test_broken_links_are_not_copied(tmp_path, name):
    consumer = tmp_path / "consumer"
    consumer.mkdir()
    (consumer / "handle.py").write_text("")
    (consumer / name).symlink_to("someone@host.1234:99")
    sources = Sources()
    ConsumerEdits(consumer, tmp_path, sources, tell=print).begin()
    [checkout] = sources.checkouts
    assert [path.name for path in (checkout / "consumer").iterdir()] == ["handle.py"]
