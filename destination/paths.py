"""The folders and files of the checkout that commands read and write."""

from pathlib import Path

ROOT = Path(__file__).parents[1]
SCHEMAS = ROOT / "schemas"
LOCAL_FOLDER = ROOT / ".local"
"""What a local server leaves for others: the environment for `sam local`, and the authority of its certificate."""
