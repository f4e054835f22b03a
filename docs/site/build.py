"""Build the documentation site from the Markdown files of the checkout.

    make docs         builds the site and serves it on http://127.0.0.1:8000/
    make docs-site    builds the site only; a part of .ci/run

The site has the pages in `docs/`, the Markdown files at the top of the checkout, and every file that a page links to.
They are copied to a folder that mirrors the checkout, so a link works on the site as it does in an editor.
The options of the commands are written into the copy of `docs/reference/cli.md`, so that they are those of the code.
The build fails when a link or an anchor leads nowhere, and when a page would load something from another host.
"""

import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

from commands import reference

from destination.command_line import main as destination

SITE = Path(__file__).parent
ROOT = SITE.parent.parent
BUILD = ROOT / "build"
STAGED = BUILD / "pages"
OUTPUT = BUILD / "site"
ZENSICAL = ROOT / ".venv-docs" / "bin" / "zensical"
MERMAID = BUILD / "mermaid" / "node_modules" / "@mermaid-js" / "tiny" / "dist" / "mermaid.tiny.js"
MARK = "<!-- the commands -->"
"""Where the reference of the commands is inserted."""
LINK = re.compile(r"\]\((?!\w+:)([^)#\s]+)")
LOADED = re.compile(
    r"<(?:script|img|iframe|source)\b[^>]*\bsrc=\"?(?:https?:)?//|<link\b(?![^>]*canonical)[^>]*href=\"?https?:"
)


def main() -> None:
    """Stage the files, build the site, and check that pages load nothing from elsewhere."""
    stage()
    command = [ZENSICAL, "build", "--clean", "--strict", "--config-file", BUILD / "zensical.toml"]
    built = subprocess.run(command, cwd=BUILD, capture_output=True, text=True, check=False)
    if built.returncode:
        sys.exit(re.sub(r"\x1b\[[0-9;]*m", "", built.stdout + built.stderr))
    external = sorted(
        str(page.relative_to(OUTPUT)) for page in OUTPUT.rglob("*.html") if LOADED.search(page.read_text())
    )
    if external:
        sys.exit(f"These pages load something from another host: {', '.join(external)}")
    print(f"{len(list(OUTPUT.rglob('*.html')))} pages in {OUTPUT.relative_to(ROOT)}/index.html")


def stage() -> None:
    """Copy what belongs to the site into `build/pages`."""
    shutil.rmtree(STAGED, ignore_errors=True)
    for path in sorted(reachable()):
        copy = STAGED / path.relative_to(ROOT)
        copy.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(path, copy)
    page = STAGED / "docs" / "reference" / "cli.md"
    page.write_text(page.read_text().replace(MARK, reference(destination, "destination")))
    for asset in (SITE / "site.css", MERMAID):
        shutil.copyfile(asset, STAGED / asset.name)
    shutil.copyfile(SITE / "zensical.toml", BUILD / "zensical.toml")


def reachable() -> set[Path]:
    """Return the pages, and every file that they link to."""
    found: set[Path] = set()
    queue = [*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md")]
    while queue:
        path = queue.pop()
        if path not in found:
            found.add(path)
            queue.extend(linked(path))
    return found


def linked(path: Path) -> Iterator[Path]:
    """Yield the files of the checkout that a page links to."""
    if path.suffix == ".md":
        for link in LINK.findall(path.read_text()):
            target = (path.parent / link).resolve()
            if not target.is_file():
                sys.exit(f"{path.relative_to(ROOT)} links to {link}, which is not a file")
            yield target


if __name__ == "__main__":
    main()
