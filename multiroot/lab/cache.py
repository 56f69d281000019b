# SPDX-License-Identifier: GPL-2.0-or-later
"""Where artifacts live: one folder per content hash, complete or absent, safe for builds running at once."""

from __future__ import annotations

import fcntl
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from multiroot import phase_names
from multiroot.lab import mounts, paths
from multiroot.lab.artifacts import Artifact
from multiroot.phases import Phases


class Cache:
    """Artifacts below one folder; `phases` gets a phase for each one that had to be built."""

    def __init__(self, root: Path, phases: Phases) -> None:
        self.root = paths.make_dir(root)
        self.phases = phases
        paths.make_dir(root / "locks")

    def path(self, artifact: Artifact) -> Path:
        """The artifact's folder, there or not."""
        return self.root / artifact.key

    def has(self, artifact: Artifact) -> bool:
        return self.path(artifact).is_dir()

    def ensure(self, artifact: Artifact) -> Path:
        """The artifact's folder, built first when it is not there yet."""
        final = self.path(artifact)
        if final.is_dir():
            return final
        with self._lock(artifact.key):
            if final.is_dir():
                return final
            with self.phases.phase(phase_names.build(artifact.name)):
                self._build(artifact, final)
        return final

    def forget(self, artifact: Artifact) -> None:
        """Drop the artifact, so that the next `ensure` builds it again."""
        with self._lock(artifact.key):
            self._remove(self.path(artifact))

    def prune(self, name: str, keep: int) -> list[Path]:
        """Remove all but the `keep` most recently used folders of artifacts called `name`; returns what
        went.
        """
        old = sorted(self._versions(name), key=_last_use, reverse=True)[keep:]
        for path in old:
            self._remove(path)
        return old

    def touch(self, artifact: Artifact) -> None:
        """Mark the artifact as used now, for `prune`; a cache of another owner is left as it is."""
        if os.access(self.path(artifact), os.W_OK):
            os.utime(self.path(artifact))

    def _versions(self, name: str) -> list[Path]:
        digest_length = 16
        return [
            path for path in self.root.glob(f"{name}-*") if len(path.name) == len(name) + 1 + digest_length
        ]

    def _build(self, artifact: Artifact, final: Path) -> None:
        partial = self.root / f".{artifact.key}.partial"
        self._remove(partial)  # of a build that was interrupted; we hold its lock
        partial.mkdir()
        artifact.build(partial)
        partial.chmod(0o755)
        partial.rename(final)

    def _remove(self, path: Path) -> None:
        """Rename first: whoever looks meanwhile sees a whole artifact or none. Another one may be faster."""
        if not path.exists():
            return
        mounts.detach(path)
        doomed = path.with_name(f".{path.name.lstrip('.')}.{os.getpid()}.doomed")
        try:
            path.rename(doomed)
        except FileNotFoundError:
            return
        shutil.rmtree(doomed)

    @contextmanager
    def _lock(self, key: str) -> Iterator[None]:
        with (self.root / "locks" / key).open("w") as file:
            fcntl.flock(file, fcntl.LOCK_EX)
            yield


def _last_use(path: Path) -> float:
    """When the folder was last used; 0 for one that another command has just removed."""
    try:
        return path.stat().st_mtime
    except FileNotFoundError:
        return 0.0
