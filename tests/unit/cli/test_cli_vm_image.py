# SPDX-License-Identifier: GPL-2.0-or-later
"""`multiroot vm image`: what its commands print and how they end. Nothing is built, qemu-img is not run."""

from __future__ import annotations

import importlib.util
import json
import os
from pathlib import Path

import pytest
from cli.conftest import Run

from multiroot.lab import disk_image, disk_import, seed
from multiroot.lab.cache import Cache
from multiroot.lab.disk_import import DiskInfo
from multiroot.phases import Phases


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Cache and data of nobody else."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path / "data"))
    return tmp_path


@pytest.fixture
def disk(home: Path) -> Path:
    """A disk as if debian-13 had been built."""
    cache = Cache(home / "cache/multiroot/lab", Phases("workstation"))
    folder = cache.path(disk_image.artifact("debian-13", cache))
    folder.mkdir()
    (folder / disk_image.DISK).write_bytes(b"disk")
    return folder / disk_image.DISK


@pytest.fixture
def imported(home: Path) -> Path:
    path = home / "data/multiroot/images/fedora.raw"
    path.parent.mkdir(parents=True)
    path.write_bytes(b"f" * 8192)
    return path


def test_nothing_is_there_yet(run: Run) -> None:
    done = run("vm", "image", "list", "--json")
    assert (done.code, done.err) == (0, "")
    assert json.loads(done.out) == [
        {"name": "debian-13", "kind": "not built", "size": None, "used": None, "path": None}
    ]
    done = run("vm", "image", "path", "debian-13")
    assert (done.code, done.out) == (2, "")
    assert (
        done.err == "multiroot: debian-13 is not built yet (build it: multiroot vm image build debian-13)\n"
    )


def test_building_needs_root(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    done = run("vm", "image", "build", "debian-13")
    assert (done.code, done.out) == (2, "")
    assert done.err.startswith("multiroot: building a disk image needs root (")


def test_images_that_are_there(run: Run, disk: Path, imported: Path) -> None:
    built, other = json.loads(run("vm", "image", "list", "--json").out)
    assert (built["kind"], built["size"], built["path"]) == ("built", 4, str(disk))
    assert (other["name"], other["kind"], other["size"], other["used"]) == ("fedora", "imported", 8192, 8192)
    lines = run("vm", "image", "list").out.splitlines()
    assert any(line.split()[:4] == ["fedora", "imported", "8", "KiB"] for line in lines)
    assert run("vm", "image", "path", "debian-13").out == f"{disk}\n"
    assert run("vm", "image", "path", "fedora").out == f"{imported}\n"


def test_a_built_disk_is_copied(run: Run, disk: Path, home: Path) -> None:
    output = home / "mine.raw"
    done = run("vm", "image", "build", "debian-13", "--output", output)
    assert (done.code, done.out) == (0, f"{output}\n")
    assert "copy the image" in done.err
    assert output.read_bytes() == disk.read_bytes()
    done = run("vm", "image", "build", "debian-13", "--output", output)
    assert (done.code, done.err.count("\n")) == (3, 1)
    assert json.loads(run("vm", "image", "build", "debian-13", "--json").out)["path"] == str(disk)


@pytest.mark.parametrize(
    ("words", "line"),
    [
        (("build", "debian-1"), "no disk image called 'debian-1' (there is debian-13)"),
        (("path", "suse"), "no disk image called 'suse' (there is debian-13, fedora)"),
        (("rm", "suse"), "no disk image called 'suse' (there is debian-13, fedora)"),
        (("rm", "debian-13"), "debian-13 was not imported but is built (it is in the cache"),
        (("import", "none.qcow2"), "no file none.qcow2"),
        (("import", "a b.qcow2"), "not a name for an image: 'a b' ("),
        (
            ("import", "x", "--name", "debian-13"),
            "debian-13 is what 'multiroot vm image build debian-13' makes",
        ),
        (
            ("import", "fedora.vmdk"),
            "there is an image called fedora (remove it: multiroot vm image rm fedora)",
        ),
    ],
)
@pytest.mark.usefixtures("imported")
def test_requests_that_are_refused(run: Run, words: tuple[str, ...], line: str) -> None:
    done = run("vm", "image", *words)
    assert (done.code, done.out) == (3 if "rm fedora" in line else 2, "")
    assert done.err.startswith(f"multiroot: {line}")
    assert done.err.count("\n") == 1


def test_an_image_is_imported_and_removed(run: Run, home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(disk_import, "_qemu_img", lambda _: ["sh", "-c", 'cp "$5" "$6"'])
    monkeypatch.setattr(disk_import, "inspect", lambda *_: DiskInfo("qcow2", 3))
    file = home / "suse.qcow2"
    file.write_bytes(b"\0" * 510 + b"\x55\xaa")
    done = run("vm", "image", "import", file, "--json")
    data = json.loads(done.out)
    assert (done.code, data["name"], data["kind"], data["size"]) == (0, "suse", "imported", 512)
    assert "convert the image" in done.err
    assert Path(data["path"]).read_bytes() == file.read_bytes()
    assert run("vm", "image", "rm", "suse").out == "suse removed\n"
    assert not Path(data["path"]).exists()


def test_a_root_has_none(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda _: None)
    done = run("vm", "image", "list")
    assert (done.code, done.out) == (2, "")
    assert done.err.startswith("multiroot: disk images are made and kept on the workstation (")


KEY = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIAABAgMEBQYHCAkKCwwNDg8QERITFBUWFxgZGhscHR4f me@here\n"


def test_a_seed_says_what_the_options_say(run: Run, home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    written: dict[Path, seed.Seed] = {}
    monkeypatch.setattr(disk_image, "tools", lambda cache: home)
    monkeypatch.setattr(seed, "write_image", lambda made, out: written.update({out: made}))
    (home / "key.pub").write_text(KEY)
    (home / "user").write_text("#cloud-config\npackages: [htop]\n")
    words = ("--key", home / "key.pub", "--user-data", home / "user", "--output", home / "seed.raw")
    done = run("vm", "image", "seed", "web", *words)
    assert (done.code, done.out, done.err) == (0, f"{home / 'seed.raw'}\n", "")
    made = written[home / "seed.raw"]
    assert "local-hostname: web" in made.meta_data
    assert KEY.strip() in made.meta_data
    assert "htop" in made.user_data


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (("web", "--key", "none.pub"), "cannot read none.pub: No such file"),
        (("web_1",), "not a host name: 'web_1'"),
        (("web", "--user-data", "broken"), "multiroot: broken: user-data is not valid YAML: "),
        (("web", "--key", "broken"), "multiroot: broken: not a public SSH key"),
        (("web", "--key", "binary"), "binary is not UTF-8: line 1 has the byte 0xff"),
        (("web", "--user-data", "broken"), "in line 2: 'a: ['"),
        (("web", "--network-config", "broken"), "broken: network-config is not valid YAML"),
        (("web", "--output", "broken"), "broken is there already"),
    ],
)
def test_a_seed_that_cannot_be(
    run: Run, home: Path, monkeypatch: pytest.MonkeyPatch, words: tuple[str, ...], says: str
) -> None:
    monkeypatch.chdir(home)
    (home / "broken").write_text("#cloud-config\na: [\n")
    (home / "binary").write_bytes(b"\xff\xfe")
    done = run("vm", "image", "seed", "--output", "seed.raw", *words)
    assert done.code in (2, 3)
    assert says in done.err
    assert len(done.err.splitlines()) == 1
    assert not (home / "seed.raw").exists()
