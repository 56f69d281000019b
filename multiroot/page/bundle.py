# SPDX-License-Identifier: GPL-2.0-or-later
"""Makes one HTML file of the page and a recording: it needs no server, no network and no other file.

python -m multiroot.page.bundle run.mrlog run.html
"""

from __future__ import annotations

import base64
import json
import re
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from multiroot.errors import BadRequestError
from multiroot.page.server import STATIC
from multiroot.watch.recording import Recording

MOST = 64 << 20  # bytes of a recording; a browser takes in no more than this with ease
_IMPORT = re.compile(r'from "\./(\w+)\.js"')
_STYLE = re.compile(r'<link rel="stylesheet" href="static/(\w+\.css)">\n')
_SCRIPT = '<script type="module" src="static/main.js"></script>\n'


def bundle(recording: Recording, bench: Mapping[str, Any] | None = None) -> str:
    """The file's text. Raises BadRequestError for a recording that is damaged or too long."""
    if recording.path.stat().st_size > MOST:
        raise BadRequestError(f"{recording.path} is too long for a page of its own", "record less of the run")
    recording.check()
    lines = recording.path.read_text(encoding="utf-8")
    page = _STYLE.sub(lambda found: _style(found[1]), (STATIC / "index.html").read_text())
    data = [_data("recording", lines), _data("bench-data", dict(bench or {}))]
    return page.replace(_SCRIPT, _scripts() + "".join(data))


def _style(name: str) -> str:
    return f"<style>\n{(STATIC / name).read_text()}</style>\n"


def _data(name: str, value: object) -> str:
    """A value for the page's scripts. Nothing in it can end the element that it is in."""
    text = json.dumps(value).replace("<", "\\u003c")
    return f'<script type="application/json" id="{name}">{text}</script>\n'


def _scripts() -> str:
    """All modules, each found by the name `page/NAME`: a module out of a data: URL has no neighbours."""
    modules = {f"page/{path.stem}": _url(path) for path in sorted(STATIC.glob("*.js"))}
    imports = json.dumps({"imports": modules})
    return (
        f'<script type="importmap">{imports}</script>\n<script type="module">import "page/main";</script>\n'
    )


def _url(path: Path) -> str:
    text = _IMPORT.sub(r'from "page/\1"', path.read_text())
    return "data:text/javascript;base64," + base64.b64encode(text.encode()).decode()


def write(recording: Recording, out: Path, bench: Mapping[str, Any] | None = None) -> None:
    """Write that file. Raises BadRequestError, also when it cannot be written."""
    text = bundle(recording, bench)
    try:
        out.write_text(text, encoding="utf-8")
    except OSError as error:
        raise BadRequestError(f"cannot write {out}: {error.strerror}") from error


if __name__ == "__main__":
    write(Recording(Path(sys.argv[1])), Path(sys.argv[2]))
