# SPDX-License-Identifier: GPL-2.0-or-later
"""Global machine state on real kernels, by QEMU's trace: who touches what is another's is found."""

from __future__ import annotations

from pathlib import Path

from lab_factory import Labs

from multiroot.audit.judge import NOBODY
from multiroot.audit.rows import Phase, Role
from multiroot.audit.run import Run
from multiroot.demo import scenario
from multiroot.lab import boot
from multiroot.lab.lab import kernel_name
from multiroot.phases import Phases
from multiroot.units import MIB

TOUCH = Path(__file__).parent / "guest/touch_ports.py"


def test_roots_touch_only_what_is_theirs_and_who_does_not_is_found(labs_factory: Labs) -> None:
    """Proves every row of docs/global-state.md for an update, from launch to the new root having all of it.
    And that it can fail: a new root that programs the PIT and writes to CMOS memory is found. In the end the
    new root, which is the last then, resets the machine.
    """
    lab = labs_factory.fresh(kernel="6.1", vms=1)
    options = scenario.Options(
        lab=scenario.lab.Options(name=lab.state.machine.name),
        new_kernel=kernel_name("6.12"),
        vm_memory=256 * MIB,
    )
    run = Run(lab, options, Phases("test"))
    run.play()
    audit = run.audit()
    assert audit.violations == ()
    assert audit.failed == ()
    rows = {row.id: row for row in audit.rows.row}
    # Of what it allows each was really seen; and CPUs between two roots did nothing.
    for name in ("pit", "port61", "rtc", "pciconf", "pic", "nmi", "lapic", "ipi", "uart1"):
        assert sum(audit.counts(rows[name], "new", [Phase.LAUNCH])) > 0, name
    for name in ("ioapic", "hpet", "pmtimer", "sci", "ecam", "devices", "iommu", "smi", "reset", "other"):
        assert audit.counts(rows[name], "new") == (0, 0), name
    assert not [seen for seen in audit.seen if seen.who == NOBODY]
    assert sum(audit.counts(rows["interrupts"], "devices")) > 0
    assert audit.rings > 0
    assert all(audit.msr_writes[role] > 0 for role in Role)

    with run.watch(Phase.BOTH) as judge:
        done = lab.run(["python3", "-c", TOUCH.read_text(), "43=34", "70=10", "71=0"], root="new")
    assert done.returncode == 0, done.stderr
    found = [(each.row, each.who, each.count) for each in judge.violations(run.doorbells)]
    assert sorted(found) == [("pit", "new", 1), ("rtc", "new", 1), ("rtc", "new", 1)]

    run.retire()
    whole = run.audit()
    assert whole.violations == ()
    assert not [seen for seen in whole.seen if seen.who == NOBODY]
    assert not [seen for seen in whole.seen if (seen.who, seen.phase) == ("old", Phase.AFTER)]
    assert set(run.owners.role.values()) == {Role.NEW}
    for name in ("ioapic", "ecam", "devices"):
        assert sum(whole.counts(rows[name], "new", [Phase.AFTER])) > 0, name
    assert sum(whole.counts(rows["interrupts"], "devices", [Phase.AFTER])) > 0

    # Alone now: the restart of this root is the machine's.
    assert lab.state.resets() == 0
    lab.run(["sh", "-c", "(sleep 1; busybox reboot -f) >/dev/null 2>&1 &"])
    boot.wait_end(lab.state, 60)
    assert lab.state.resets() == 1
    labs_factory.discard(lab)
