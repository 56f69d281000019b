# SPDX-License-Identifier: GPL-2.0-or-later
"""Kernels given by path: what belongs to each kind of thing that people name, and what is said when it is
missing.
"""

from __future__ import annotations

import bz2
import gzip
import lzma
import struct
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from kexec.x86.bzimage import BzImage

from multiroot.errors import BadRequestError, CommandError
from multiroot.lab import built_in, kernel_config, kernel_file, modules, recipes
from multiroot.lab import lab as labs
from multiroot.lab.build import BootKernel
from multiroot.lab.cache import Cache
from multiroot.lab.kernels import module_artifact, release_of
from multiroot.lab.lab import Options
from multiroot.lab.own_kernel import locate, name_of
from multiroot.phases import Phases
from multiroot.units import parse_size
from multiroot.verdict import elf

RELEASE = "6.12.1-mine"
IMAGE = "arch/x86/boot/bzImage"


def bzimage(release: str = RELEASE, more: bytes = b"", **fields: Any) -> bytes:
    return BzImage(release=release, payload=b"\x90" * 8192 + more, **fields).build()


def packed_image(payload: bytes) -> bytes:
    """Only what tells where in a bzImage the kernel is."""
    image = bytearray(0x4000)
    image[0x1F1] = 0x1F
    struct.pack_into("<II", image, 0x248, 0, len(payload))
    return bytes(image) + payload


def vmlinux(build_id: bytes) -> bytes:
    """An ELF file with a build-id and nothing else."""
    note = struct.pack("<III", 4, len(build_id), 3) + b"GNU\0" + build_id
    names = b"\0.notes\0"
    at = 64 + len(note)
    header = elf.MAGIC + b"\x02\x01\x01" + bytes(9)
    rest = struct.pack("<HHIQQQIHHHHHH", 2, 62, 1, 0, 0, at + len(names), 0, 64, 0, 0, 64, 3, 2)
    sections = bytes(64)
    sections += struct.pack("<IIQQQQIIQQ", 1, 7, 0, 0, 64, len(note), 0, 0, 4, 0)
    sections += struct.pack("<IIQQQQIIQQ", 0, 3, 0, 0, at, len(names), 0, 0, 1, 0)
    return header + rest + note + names + sections


def pe(sections: dict[str, bytes]) -> bytes:
    """A PE file like systemd's stub with a kernel in it."""
    head = bytearray(0x80)
    head[:2] = b"MZ"
    struct.pack_into("<I", head, 0x3C, 0x80)
    table, body = b"", b""
    start = 0x80 + 24 + 40 * len(sections)
    for name, data in sections.items():
        where = start + len(body)
        table += struct.pack("<8sIIII16x", name.encode(), len(data), 0x1000, len(data) + 8, where)
        body += data + bytes(8)
    return (
        bytes(head) + b"PE\0\0" + struct.pack("<HHIIIHH", 0x8664, len(sections), 0, 0, 0, 0, 0) + table + body
    )


def config(**others: str) -> str:
    """A configuration with which a kernel can be a root."""
    features = kernel_config.wishes().feature
    options = {each.name: each.value for one in features.values() for each in one.options} | others
    return "".join(f"CONFIG_{key}={value}\n" for key, value in options.items() if value != "n")


def build(tree: Path, image: bytes | None = None, settings: str | None = None) -> Path:
    """The folder of a kernel with two modules that was built."""
    (tree / IMAGE).parent.mkdir(parents=True)
    (tree / IMAGE).write_bytes(bzimage() if image is None else image)
    (tree / ".config").write_text(config() if settings is None else settings)
    for name in ("Makefile", "modules.builtin", "Module.symvers", "vmlinux", "Kconfig"):
        (tree / name).touch()
    (tree / "fs").mkdir()
    (tree / "fs/a.ko").write_bytes(b"a")
    (tree / "fs/b.ko").write_bytes(b"b")
    (tree / "modules.order").write_text("kernel/fs/a.ko\nfs/b.o\n")
    (tree / "include/config").mkdir(parents=True)
    (tree / "include/config/kernel.release").write_text(f"{RELEASE}\n")
    return tree


def install(folder: Path) -> Path:
    there = folder / RELEASE
    (there / "kernel").mkdir(parents=True)
    (there / "kernel/a.ko.xz").touch()
    (there / "build").mkdir()
    (there / "build/Makefile").touch()
    (there / "build/Module.symvers").touch()
    (there / "build/.config").write_text(config())
    return there


@pytest.fixture
def kernel(tmp_path: Path) -> Path:
    path = tmp_path / "boot/vmlinuz"
    path.parent.mkdir()
    path.write_bytes(bzimage())
    return path


def refused(says: str, path: Path, given_modules: Path | None = None) -> BadRequestError:
    with pytest.raises(BadRequestError) as caught:
        locate(path, given_modules)
    assert says in str(caught.value), str(caught.value)
    assert "\n" not in str(caught.value)
    return caught.value


def test_a_tree_that_was_built_is_enough(tmp_path: Path) -> None:
    tree = build(tmp_path / "linux")
    for named in (tree, tree / IMAGE):
        source = locate(named)
        assert (source.release, source.build, source.vmlinux) == (RELEASE, tree, tree / "vmlinux")
        assert [(path, str(place)) for path, place in source.modules()] == [
            (tree / "fs/a.ko", "kernel/fs/a.ko"),
            (tree / "fs/b.ko", "kernel/fs/b.ko"),
        ]
        assert name_of(named) == source.name


def test_a_link_to_a_trees_image(tmp_path: Path) -> None:
    tree = build(tmp_path / "linux")
    (tmp_path / "bzImage").symlink_to(tree / IMAGE)
    assert locate(tmp_path / "bzImage").build == tree


def test_an_installed_kernel_and_its_folder(kernel: Path, tmp_path: Path) -> None:
    there = install(tmp_path / "boot/lib/modules")
    for named in (kernel, kernel.parent):
        source = locate(named)
        assert (source.release, source.installed, source.build) == (RELEASE, there, there / "build")
        assert [str(place) for _, place in source.modules()] == ["kernel/a.ko.xz"]


@pytest.mark.parametrize("where", ["lib/modules", "usr/lib/modules", "boot/lib/modules"])
def test_modules_are_found_beside_the_kernel(kernel: Path, tmp_path: Path, where: str) -> None:
    there = install(tmp_path / where)
    assert locate(kernel).installed == there


def test_modules_can_be_named(kernel: Path, tmp_path: Path) -> None:
    there = install(tmp_path / "elsewhere")
    assert locate(kernel, there).installed == there


def test_two_kernels_with_one_release_have_two_names(tmp_path: Path) -> None:
    one, other = build(tmp_path / "one"), build(tmp_path / "other", bzimage(more=b"x"))
    assert name_of(one) != name_of(other)
    assert name_of(one).startswith(f"{RELEASE}-")
    assert len({each.name for each in labs.own_kernels(Options(kernel=str(one), kernels=(str(other),)))}) == 2


def test_one_image_with_other_modules_is_not_taken_for_the_same(tmp_path: Path) -> None:
    one, other = build(tmp_path / "one"), build(tmp_path / "other")
    with pytest.raises(BadRequestError, match="one kernel image with different modules"):
        labs.own_kernels(Options(kernel=str(one), kernels=(str(other),)))


def test_a_rebuilt_module_is_another_build(tmp_path: Path) -> None:
    tree = build(tmp_path / "linux")
    before = locate(tree).stamp()
    (tree / "fs/a.ko").write_bytes(b"another")
    assert locate(tree).stamp() != before


def test_a_package_is_unpacked_with_its_headers(tmp_path: Path) -> None:
    """The tool that unpacks is not at issue: what is in the packages is."""
    packages = {
        f"linux-image-{RELEASE}_1_amd64.deb": tmp_path / "image",
        f"linux-headers-{RELEASE}_1_amd64.deb": tmp_path / "headers",
    }
    for name in packages:
        (tmp_path / name).write_bytes(name.encode())
    (tmp_path / "image/boot").mkdir(parents=True)
    (tmp_path / f"image/boot/vmlinuz-{RELEASE}").write_bytes(bzimage())
    (tmp_path / f"image/lib/modules/{RELEASE}/kernel").mkdir(parents=True)
    headers = tmp_path / f"headers/usr/src/linux-headers-{RELEASE}"
    headers.mkdir(parents=True)
    (headers / "Makefile").touch()
    (headers / ".config").write_text(config())
    path = tmp_path / f"linux-image-{RELEASE}_1_amd64.deb"
    source = locate(path, None, lambda package, sha256: packages[package.name])
    assert source.build == headers
    assert source.installed == tmp_path / f"image/lib/modules/{RELEASE}"
    (tmp_path / f"linux-headers-{RELEASE}_1_amd64.deb").unlink()
    with pytest.raises(BadRequestError, match=r"or linux-headers-6\.12\.1-mine_\*\.deb beside"):
        locate(path, None, lambda package, sha256: packages[package.name])


def test_a_unified_kernel_image_holds_a_kernel(kernel: Path, tmp_path: Path) -> None:
    install(tmp_path / "boot/lib/modules")
    kernel.write_bytes(pe({".osrel": b"ID=debian", ".linux": bzimage(), ".initrd": b"070701"}))
    source = locate(kernel)
    assert source.image == bzimage()
    assert source.release == RELEASE


@pytest.mark.parametrize(
    ("content", "says"),
    [
        (b"", "not a bzImage"),
        (elf.MAGIC + b"\x02" + bytes(0x4000), "it is an ELF file, such as vmlinux (give the bzImage"),
        (elf.MAGIC + b"\x01" + bytes(0x4000), "it is a 32-bit ELF file"),
        (b"MZ\0\0zimg" + bytes(0x4000), "it is an EFI zboot image"),
        (gzip.compress(bytes(64), mtime=0), "it is a gzip file"),
        (lzma.compress(bytes(64)), "it is an xz file"),
        (b"070701" + bytes(64), "it is a cpio archive"),
        (b"\xed\xab\xee\xdb" + bytes(64), "it is an RPM package (unpack it"),
        (b"#!/bin/sh\n", "it is a script"),
        (pe({".text": b"x"}), "not a bzImage"),
        (bytes(0x202) + b"HdrS" + bytes(0x4000), "does not tell its kernel release"),
    ],
)
def test_what_is_no_kernel(tmp_path: Path, content: bytes, says: str) -> None:
    path = tmp_path / "vmlinuz"
    path.write_bytes(content)
    refused(says, path)


def test_vmlinux_with_its_bzimage_near(tmp_path: Path) -> None:
    tree = build(tmp_path / "linux")
    (tree / "vmlinux").write_bytes(elf.MAGIC + b"\x02" + bytes(64))
    refused(f"(give {tree / IMAGE})", tree / "vmlinux")


def test_what_is_missing(kernel: Path, tmp_path: Path) -> None:
    refused("No such file", tmp_path / "none")
    (tmp_path / "empty").mkdir()
    refused("holds no kernel", tmp_path / "empty")
    refused(f"no modules of kernel {RELEASE}", kernel)
    refused("no modules", kernel, tmp_path)
    (kernel.parent / "vmlinuz-2").write_bytes(bzimage("6.1.0"))
    refused("holds 2 kernels (name one of them, such as", kernel.parent)
    there = install(tmp_path / "lib/modules")
    (there / "build/Makefile").unlink()
    refused(f"no build tree of kernel {RELEASE}", kernel)
    refused("there is no file", tmp_path / "linux.deb")
    (tmp_path / "linux.deb").touch()
    with pytest.raises(BadRequestError, match="is a package"):
        locate(tmp_path / "linux.deb")


@pytest.mark.parametrize(
    ("gone", "says"),
    [
        (".config", "was never configured (`multiroot kernel build"),
        (IMAGE, f"is not built: there is no {IMAGE} (`make -C"),
        ("modules.order", "is not built: there is no modules.order"),
        ("Module.symvers", "there is no Module.symvers"),
    ],
)
def test_a_tree_that_is_half_built(tmp_path: Path, gone: str, says: str) -> None:
    tree = build(tmp_path / "linux")
    (tree / gone).unlink()
    refused(says, tree)


def test_a_tree_whose_module_is_gone_or_whose_image_is_old(tmp_path: Path) -> None:
    tree = build(tmp_path / "linux")
    (tree / "fs/b.ko").unlink()
    with pytest.raises(BadRequestError, match=r"fs/b\.ko is missing"):
        locate(tree).stamp()
    (tree / "include/config/kernel.release").write_text("6.12.2-mine\n")
    refused("is not built: its arch/x86/boot/bzImage is 6.12.1-mine, and it is now 6.12.2-mine", tree)


def test_kernels_that_cannot_be_roots(tmp_path: Path) -> None:
    one = build(tmp_path / "one", settings=config(MODULES="n"))
    refused("was built without CONFIG_MODULES, and without multiroot's modules in it (`multiroot kernel", one)
    other = build(tmp_path / "other", settings=config(ZONE_DEVICE="n", FS_DAX="n"))
    refused(
        "cannot be a root: CONFIG_ZONE_DEVICE=y is n: the arena's memory has no struct pages: no arena", other
    )
    refused("and 1 more (see `multiroot kernel config check", other)


def test_a_kernel_that_loads_no_modules(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It can be a root with ours built in, of the state that we have now."""
    tree = build(tmp_path / "one", settings=config(MODULES="n", MULTIROOT="y"))
    for name in ("modules.order", "Module.symvers"):
        (tree / name).unlink()
    refused("without multiroot's modules in it", tree)
    built_in.note(tree, tmp_path / "linux")
    image = (tree / IMAGE).read_bytes()
    (tree / IMAGE).unlink()
    assert refused("is not built", tree).hint.endswith(" bzImage`")
    (tree / IMAGE).write_bytes(image)
    source = locate(tree)
    assert list(source.modules()) == []
    assert not source.loads_modules
    assert str(tree / ".config") in source.stamp()
    cache = Cache(tmp_path / "cache", Phases("workstation"))
    assert list(cache.ensure(module_artifact("one", source, cache)).glob("*.ko")) == []
    monkeypatch.setattr(built_in, "digest", lambda: "another")
    says = refused("has multiroot's modules of another state built in", tree)
    assert f"`multiroot kernel build {tmp_path / 'linux'} --out {tree} --no-modules`" in says.hint


@pytest.mark.parametrize(
    ("fields", "says"),
    [
        ({"relocatable": 0}, "not relocatable, it runs at one fixed address only (build it with"),
        ({"xloadflags": 0}, "32-bit kernel"),
        ({"protocol": 0x0206}, "is too old"),
    ],
)
def test_images_that_no_carve_can_take(tmp_path: Path, fields: dict[str, int], says: str) -> None:
    refused(says, build(tmp_path / "linux", bzimage(**fields)))


def test_a_carve_that_is_too_small_says_which_would_do(tmp_path: Path) -> None:
    (tmp_path / "vmlinuz").write_bytes(bzimage())
    (tmp_path / "initrd").write_bytes(bytes(1 << 20))
    kernel = BootKernel("mine", RELEASE, tmp_path / "vmlinuz", tmp_path / "initrd")
    recipe = recipes.machine("default")
    labs.check_carve([kernel], recipe)
    with (tmp_path / "initrd").open("ab") as file:
        file.truncate(2 * recipe.carve)
    with pytest.raises(BadRequestError, match="does not come up in a carve of") as caught:
        labs.check_carve([kernel], recipe)
    least = parse_size(caught.value.hint.partition(" will do")[0].replace(" ", "").replace("iB", ""))
    labs.check_carve([kernel], recipe.model_copy(update={"carve": least}))


def test_a_name_that_is_a_file_here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "bzImage").write_bytes(bzimage())
    known = [each.name for each in recipes.kernels().kernel]
    with pytest.raises(
        BadRequestError, match=rf"no kernel called 'bzImage' .*{known[0]}.*there is a file .*\./bzImage"
    ):
        labs.check_names(Options(kernel="bzImage"))


def packed(data: bytes) -> list[bytes]:
    return [
        data,
        gzip.compress(data),
        lzma.compress(data),
        bz2.compress(data),
        lzma.compress(data, lzma.FORMAT_ALONE),
    ]


def test_the_build_id_of_a_packed_kernel() -> None:
    inner = vmlinux(bytes(range(20)))
    assert elf.build_id(inner) == bytes(range(20)).hex()
    for payload in packed(inner):
        # The build puts the size behind it.
        assert kernel_file.build_id(packed_image(payload + b"\0\0\1\0")) == bytes(range(20)).hex()
    assert kernel_file.build_id(packed_image(b"\x1f\x8bnonsense")) == ""
    assert kernel_file.build_id(b"") == ""


@given(st.binary(max_size=200))
def test_any_payload_can_be_looked_at(payload: bytes) -> None:
    assert kernel_file.build_id(packed_image(payload)) == ""
    kernel_file.pe_section(b"MZ" + payload, ".linux")


def test_modules_in_every_packing(tmp_path: Path) -> None:
    for name, pack in (("a.ko.gz", gzip.compress), ("b.ko.xz", lzma.compress), ("c.ko", bytes)):
        (tmp_path / name).write_bytes(pack(b"module"))
        assert modules.read_module(tmp_path / name, ["zstd"]) == b"module"
    (tmp_path / "d.ko.gz").write_bytes(b"nonsense")
    with pytest.raises(CommandError, match="cannot unpack module"):
        modules.read_module(tmp_path / "d.ko.gz", ["zstd"])


def test_the_release_is_in_the_header(kernel: Path) -> None:
    assert release_of(kernel) == RELEASE
