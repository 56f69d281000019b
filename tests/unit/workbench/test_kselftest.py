# SPDX-License-Identifier: GPL-2.0-or-later
"""Suites of kselftest: what is asked for, how they are built from a tree, and what their ends mean.

The tree is a small one of this test's, with the targets of a kernel's that are used.
"""

from __future__ import annotations

import platform
import shutil
from pathlib import Path

import pytest

from multiroot.errors import BadRequestError, CommandError
from multiroot.lab import paths
from multiroot.phases import Phases
from multiroot.verdict.points import Outcome
from multiroot.workbench import kselftest, kselftest_run
from multiroot.workbench.kselftest import SELFTESTS, Suite, Trees, Wish, wishes
from multiroot.workbench.kselftest_run import Runner, claims, judged

PHASES = Phases("workstation")
_TOP = "headers:\n\tmkdir -p $(O)/usr/include\n"
# As tools/testing/selftests/Makefile: each suite is installed, and its tests are listed.
_TESTS = """
install:
	mkdir -p $(KSFT_INSTALL_PATH)/kselftest $(KSFT_INSTALL_PATH)/$(TARGETS)
	echo helper >$(KSFT_INSTALL_PATH)/kselftest/ktap_helpers.sh
	$(MAKE) -C $(TARGETS) OUTPUT=$(O)/kselftest/$(TARGETS)
	cp $(TARGETS)/* $(KSFT_INSTALL_PATH)/$(TARGETS)/
	rm -f $(KSFT_INSTALL_PATH)/$(TARGETS)/Makefile
	for test in $(TARGETS)/*.test; do echo $(TARGETS):$$(basename $$test); done \\
		>$(KSFT_INSTALL_PATH)/kselftest-list.txt
"""


@pytest.fixture
def tree(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A source tree with suites `timers` and `broken`."""
    monkeypatch.setattr(paths, "cache_dir", lambda: tmp_path / "cache")
    monkeypatch.setattr(kselftest, "check_tools", lambda more: None)
    tests = tmp_path / "linux" / SELFTESTS
    for suite in ("timers", "broken"):
        (tests / suite).mkdir(parents=True)
    (tmp_path / "linux/Makefile").write_text(_TOP)
    (tests / "lib.mk").write_text("")
    (tests / "Makefile").write_text(_TESTS)
    (tests / "timers/Makefile").write_text("all:\n\techo $(USERLDFLAGS) $(KDIR) >built\n")
    for name in ("one.test", "two.test"):
        (tests / "timers" / name).write_text(f"#!/bin/sh\necho {name}\n")
        (tests / "timers" / name).chmod(0o755)
    (tests / "timers/settings").write_text("# how long\ntimeout=120\n")
    (tests / "kho").mkdir()
    (tests / "kho/vmtest.sh").touch()
    (tests / "broken/Makefile").write_text("all:\n\t@echo 'a.c:1: error: no'; exit 2\n")
    return tmp_path / "linux"


def test_what_is_asked_for() -> None:
    assert wishes("timers, kvm:one,kvm:two") == (Wish("timers"), Wish("kvm", ("one", "two")))
    assert wishes("kvm:one,kvm") == (Wish("kvm"),)
    assert wishes("net/lib") == (Wish("net/lib"),)
    for text in ("", ",", "a b", "kvm:", "../x", "a:b:c", "$(id)"):
        with pytest.raises(BadRequestError):
            wishes(text)


def test_a_suite_is_built_beside_its_tree(tree: Path) -> None:
    before = sorted(tree.rglob("*"))
    asked = (Wish("timers"), Wish("none"), Wish("kho"))
    (suite, none, by_itself) = kselftest.build(Trees(tree, Path("/o")), asked, PHASES)
    assert sorted(tree.rglob("*")) == before
    assert (suite.tests, suite.timeout_s, suite.missing) == (("one.test", "two.test"), 120, "")
    assert (suite.folder / "built").read_text() == f"{kselftest._STATIC} /o O=/o\n"
    assert [str(each) for each in suite.shared()] == [".multiroot-all", "built", "settings"]
    assert none.missing == "the tree has no such suite"
    assert by_itself.missing.endswith("vmtest.sh of the tree starts them in a VM of its own")
    (one,) = kselftest.build(Trees(tree, Path("/o")), (Wish("timers", ("two.test",)),), PHASES)
    assert one.tests == ("two.test",)
    assert "one.test" not in [str(each) for each in one.shared()]


def test_modules_of_a_suite_are_built_for_the_kernel_in_its_own_folder(tree: Path) -> None:
    """The O= of the tests is another folder, and make gives it to every make below."""
    out = tree.parent / "o"
    (out / "include/config").mkdir(parents=True)
    (out / "include/config/kernel.release").write_text("6.12.1+\n")
    (out / "Makefile").write_text("modules:\n\techo $(O) >$(KBUILD_EXTMOD)/mine.ko\n")
    suite = tree / SELFTESTS / "timers"
    (suite / "Makefile").write_text("all:\n\t$(MAKE) -C $(KDIR) modules KBUILD_EXTMOD=$(CURDIR)\n")
    (built,) = kselftest.build(Trees(tree, out), (Wish("timers"),), PHASES)
    assert (built.folder / "mine.ko").read_text() == f"{out}\n"
    assert built.modules_of == "6.12.1+"


def test_what_cannot_be_built(tree: Path) -> None:
    found = Trees(tree, tree.parent / "o")
    with pytest.raises(CommandError, match=r"kselftest broken does not build: a\.c:1: error: no"):
        kselftest.build(found, (Wish("broken"),), PHASES)
    with pytest.raises(BadRequestError, match=r"kselftest timers has no test 'three' \(there is one\.test, "):
        kselftest.build(found, (Wish("timers", ("three",)),), PHASES)


def test_the_tree_is_that_of_a_kernel(tree: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    out = tmp_path / "o"
    out.mkdir()

    class Own:
        def __init__(self, text: str) -> None:
            self.build = Path(text)

    monkeypatch.setattr(kselftest.lab, "own", Own)
    assert kselftest.trees(("6.12", str(tree)), None) == Trees(tree, tree)
    with pytest.raises(BadRequestError, match="no source tree to build kselftests from"):
        kselftest.trees(("6.12", str(out)), None)
    (out / "source").symlink_to(tree)
    assert kselftest.trees((str(out),), None) == Trees(tree, out)
    assert kselftest.trees((str(out),), tree) == Trees(tree, out)
    with pytest.raises(BadRequestError, match="holds no tools/testing/selftests"):
        kselftest.trees((), tmp_path)


@pytest.mark.parametrize(
    ("code", "output", "late", "outcome", "seen"),
    [
        (0, "", "", Outcome.HELD, ""),
        (0, "1..2\nok 1 a\nok 2 b # SKIP no\n", "", Outcome.HELD, "1 of 1 parts held"),
        (4, "1..0 # SKIP no /dev/kvm\n", "", Outcome.SKIPPED, "no /dev/kvm"),
        (4, "1..0 # SKIP - Requirement not met: VMX\n", "", Outcome.SKIPPED, "Requirement not met: VMX"),
        (1, "ok 1 a\nnot ok 2 b\n", "", Outcome.FAILED, "exited with 1; 1 of 2 parts held"),
        (0, "1..2\nok 1 a # SKIP no /dev/x\nok 2 b # SKIP\n", "", Outcome.SKIPPED, "no /dev/x"),
        (139, "", "", Outcome.FAILED, "was killed by SIGSEGV"),
        (255, "", "", Outcome.FAILED, "exited with 255"),
        (124, "", "it did not end within 5 s", Outcome.FAILED, "it did not end within 5 s"),
    ],
)
def test_how_a_test_ended(code: int, output: str, late: str, outcome: Outcome, seen: str) -> None:
    found = judged("x", code, output, 1.0, late)
    assert (found.outcome, found.seen) == (outcome, seen)
    assert (found.details == ()) == (outcome is not Outcome.FAILED or not output)


def test_a_failure_says_what_the_kernel_has_not(tmp_path: Path) -> None:
    """The suite's own list of options is compared with the kernel on which it ran."""
    suite = Suite("livepatch", tmp_path, tmp_path)
    assert suite.lacks("CONFIG_A=y\n") == []
    (tmp_path / "config").write_text(
        "CONFIG_A=y\nCONFIG_B=m\nCONFIG_C=y\n# CONFIG_D is not set\nCONFIG_E=5\n"
    )
    assert suite.lacks("CONFIG_A=m\n# CONFIG_C is not set\nCONFIG_D=y\n") == ["CONFIG_B", "CONFIG_C"]
    assert suite.lacks("") == []
    found = judged("x", 1, "no", 1.0, lacks=["CONFIG_C"])
    assert found.seen == "exited with 1; the suite asks for CONFIG_C, which this kernel has not"
    assert judged("x", 0, "", 1.0, lacks=["CONFIG_C"]).outcome is Outcome.HELD


def test_tests_that_load_modules_are_not_for_kernels_that_load_none(tree: Path, tmp_path: Path) -> None:
    (tree / SELFTESTS / "timers/Makefile").write_text("TEST_GEN_MODS_DIR := test_modules\nall:\n\tfalse\n")
    (tmp_path / ".config").write_text("# CONFIG_MODULES is not set\n")
    (suite,) = kselftest.build(Trees(tree, tmp_path), (Wish("timers"),), PHASES)
    assert suite.missing == "it builds modules, and the kernel loads none"


class Here:
    """Runs what a runner sends to a root, on this computer."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, folder: Path) -> None:
        monkeypatch.setattr(kselftest_run, "FOLDER", folder / "there")
        monkeypatch.setattr(kselftest_run, "_READY", 'mkdir -p "$1"')
        monkeypatch.setattr(kselftest_run.execution, "execute", self.execute)
        monkeypatch.setattr(kselftest_run.execution, "run", self.run)
        monkeypatch.setattr(kselftest_run, "put", self.put)

    def close(self) -> None:
        pass

    def put(self, reach: object, path: Path, place: Path) -> None:
        place.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(path, place)

    def execute(self, channel: object, argv: list[str], *, stdout: object, **_: object) -> int:
        from multiroot import proc

        done = proc.run(argv, check=False)
        stdout(done.stdout.encode())  # type: ignore[operator]
        return done.returncode if done.returncode >= 0 else 128 - done.returncode

    def run(self, channel: object, argv: list[str], **_: object) -> object:
        from multiroot import proc

        return proc.run(argv, check=False)


def test_tests_run_where_they_are_wanted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    here = Here(monkeypatch, tmp_path)
    folder = tmp_path / "timers"
    folder.mkdir()
    programs = {
        "good": "#!/bin/sh\ncat data; echo ok 1 part",
        "bad": "#!/bin/sh\necho why; exit 1",
        "slow": "#!/bin/sh\nexec sleep 60",
        "strange": "#!/no/such/shell\n",
        "modules": '#!/bin/sh\n[ -d "$KDIR" ] && echo ok 1 part',
    }
    for name, text in programs.items():
        (folder / name).write_text(text)
        (folder / name).chmod(0o755)
    (folder / "data").write_text("data\n")
    (folder / kselftest.ALL).write_text(" ".join(programs))
    suites = [
        Suite("timers", folder, tmp_path / "none", tuple(programs), timeout_s=1),
        Suite("kho", folder, tmp_path / "none", missing="the tree has no such suite"),
        Suite("livepatch", folder, tmp_path / "none", ("good",), modules_of="1.0+"),
        Suite("kmod", folder, tmp_path / "none", ("modules",), modules_of=platform.release()),
    ]
    heard = bytearray()
    runner = Runner(lambda: here, "new", PHASES, heard=heard.extend)  # type: ignore[arg-type, return-value]
    points = list(runner.play(suites))
    assert [(each.outcome.value, each.seen) for each in points] == [
        ("held", "1 of 1 parts held"),
        ("FAILED", "exited with 1"),
        ("FAILED", "it did not end within 1 s"),
        ("skipped", "there is no /no/such/shell here"),
        ("FAILED", "exited with 1"),
        ("skipped", "the tree has no such suite"),
        ("skipped", f"its modules are for 1.0+, and this is {platform.release()}"),
        ("held", "1 of 1 parts held"),
    ]
    assert [each.claim for each in points] == claims(suites, "new")
    assert points[1].details == ("why",)
    assert heard.startswith(b"# kselftest timers: good (new)\ndata\nok 1 part\n")
    assert sorted(each.name for each in (tmp_path / "there/timers").iterdir()) == [kselftest.ALL, "data"]
