# SPDX-License-Identifier: GPL-2.0-or-later
"""Generates `multiroot/rpc/v1` from `proto/multiroot/v1`; a test runs it and compares.

protoc names Python modules after the .proto paths (multiroot.v1); they live in multiroot.rpc.v1 so that the
package's folders tell what is generated plumbing, hence the one rewrite of import lines.
"""

from __future__ import annotations

import re
import sys
import tempfile
from pathlib import Path

from multiroot.errors import CommandError
from multiroot.proc import run

REPO = Path(__file__).resolve().parents[2]
PROTO = REPO / "proto"
OUT = REPO / "multiroot" / "rpc" / "v1"

_IMPORT = re.compile(r"\bmultiroot\.v1\b(?=[ .]\w*_pb2| import|\.\w+_pb2)")
_HEADER = "# SPDX-License-Identifier: GPL-2.0-or-later\n"
_FROM = re.compile(r"^from multiroot\.v1 import", re.MULTILINE)


def generate(out: Path) -> None:
    """Write stubs and their types for every .proto into the folder `out`; raises CommandError."""
    protos = sorted(str(path.relative_to(PROTO)) for path in PROTO.rglob("*.proto"))
    with tempfile.TemporaryDirectory() as temp:
        plugins = Path(sys.executable).parent
        run(
            [
                sys.executable, "-m", "grpc_tools.protoc", f"--proto_path={PROTO}",
                f"--plugin=protoc-gen-mypy={plugins / 'protoc-gen-mypy'}",
                f"--plugin=protoc-gen-mypy_grpc={plugins / 'protoc-gen-mypy_grpc'}",
                f"--python_out={temp}", f"--grpc_python_out={temp}",
                f"--mypy_out={temp}", f"--mypy_grpc_out={temp}", *protos,
            ]
        )  # fmt: skip
        made = sorted(Path(temp).rglob("*_pb2*.py*"))
        if not made:
            raise CommandError("protoc wrote no Python files")
        for path in made:
            text = _FROM.sub("from multiroot.rpc.v1 import", path.read_text())
            (out / path.name).write_text(_HEADER + _IMPORT.sub("multiroot.rpc.v1", text))


if __name__ == "__main__":
    generate(OUT)
