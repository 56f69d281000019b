# SPDX-License-Identifier: GPL-2.0-or-later
"""Faults while the VM is handed from the old root to the new one. Pure: a list."""

from __future__ import annotations

from dataclasses import replace

from multiroot.failpoints import ANSWERS, CALLS, Action, FailPoint, Order
from multiroot.faults import strikes
from multiroot.faults.fault import GIVER, TAKER, Aimed, During, Fate, Fault, Strike, pause, side
from multiroot.faults.strikes import AGENT, KEEPER, VMM
from multiroot.handoff.terms import USUAL
from multiroot.phase_names import PhaseName

P = FailPoint
STAYS, GOES, LOST = Fate.STAYS, Fate.GOES, Fate.LOST

# Points on the way of a handoff that nothing else disturbs, in the order in which they are reached.
WAY = (
    P.GIVER_PREPARE, P.TAKER_PREPARE, P.TAKER_PREPARED, P.GIVER_PREPARED, P.GIVER_WIRE, P.GIVER_STREAM,
    P.GIVER_TRANSFER,
    P.TAKER_READY, P.GIVER_READY, P.GIVER_SENDING, P.TAKER_LOADED, P.TAKER_OWNED, P.TAKER_RESUMED,
    P.TAKER_TAKEN, P.GIVER_TAKEN,
)  # fmt: skip
# Only reached when something else has gone wrong: the state does not load.
AFTER_A_FAILURE = (P.GIVER_SETTLE, P.GIVER_ABORT)
_OWNED = (P.TAKER_RESUMED, P.TAKER_TAKEN, P.GIVER_TAKEN)  # the guest runs in the taker, whatever fails here
_SHORT = ("giver.sending/exit", "taker.owned/exit", "taker.loaded/raise", "giver.transfer/drop")


def all_faults() -> list[Fault]:
    """Those that end no root come first."""
    return [*_orders(), *_killed(), *_others(), *_link(), *_new_root_ends()]


def old_root_ends() -> list[Fault]:
    """The old root panics; the machine has to be booted again after each of them."""
    faults = []
    for point in (P.TAKER_LOADED, P.TAKER_OWNED):
        faults.append(_old_root_panics(f"{point}/old root panics", point, pause(TAKER, point, seconds=10)))
    after_commit = pause(GIVER, P.STEP_DONE, PhaseName.COMMIT)
    last = _old_root_panics("commit/old root panics", PhaseName.COMMIT, after_commit)
    return [*faults, replace(last, during=During.UPDATE)]


def _old_root_panics(name: str, step: str, order: Aimed) -> Fault:
    panic = strikes.sysrq(GIVER, "c")
    what = "sysrq-c in the old root"
    return Fault(name, step, what, (GOES,), orders=(order,), strike=panic, ends=frozenset({"old"}))


def _orders() -> list[Fault]:
    faults = [_ordered(point, Action.EXIT, "the agent crashes", _after_crash(point)) for point in WAY]
    for point in WAY:
        fates = (GOES,) if point in _OWNED else (STAYS,)
        faults.append(_ordered(point, Action.RAISE, "what is done there fails", fates))
        if point in (*CALLS, *ANSWERS):
            fates = (GOES,) if point is P.TAKER_TAKEN else (STAYS,)
            faults.append(_ordered(point, Action.DROP, "the message is lost", fates))
    refusal = Aimed(TAKER, Order(P.TAKER_LOADED, Action.RAISE))
    for point in AFTER_A_FAILURE:
        crash = Aimed(GIVER, Order(point, Action.EXIT))
        what = "the taker refuses the state, then the giver's agent crashes"
        faults.append(Fault(f"{point}/exit", point, what, (STAYS,), orders=(crash, refusal)))
    return faults


def _after_crash(point: FailPoint) -> tuple[Fate, ...]:
    if point is P.GIVER_SENDING:
        return (STAYS, GOES)
    return (GOES,) if point in (*_OWNED, P.TAKER_OWNED) else (STAYS,)


def _ordered(point: FailPoint, action: Action, what: str, fates: tuple[Fate, ...]) -> Fault:
    name = f"{point}/{action}"
    orders = (Aimed(side(point), Order(point, action)),)
    return Fault(name, point, what, fates, orders=orders, short=name in _SHORT)


def _killed() -> list[Fault]:
    """kill -9 of each process at each step."""
    steps = (P.GIVER_TRANSFER, P.GIVER_READY, P.TAKER_LOADED, P.TAKER_OWNED, P.TAKER_RESUMED)
    before, after = steps[:3], steps[3:]
    faults = []
    for point in steps:
        for root, process, who, fates in (
            (GIVER, AGENT, "the giver's agent", (STAYS,) if point in before else (GOES,)),
            (TAKER, AGENT, "the taker's agent", (STAYS,) if point in before else (GOES,)),
            (GIVER, VMM, "the giver's VMM", (LOST,) if point in steps[:2] else (GOES, LOST)),
            (TAKER, VMM, "the taker's VMM", (LOST,) if point is P.TAKER_RESUMED else (STAYS,)),
        ):
            if point is P.TAKER_LOADED and (root, process) == (GIVER, AGENT):
                fates = (STAYS, GOES)
            if point in after and (root, process) == (GIVER, VMM):
                fates = (GOES,)
            name = f"{point}/kill {root} {'agent' if process == AGENT else 'vmm'}"
            faults.append(_struck(name, point, f"kill -9 of {who}", strikes.kill(root, process), fates))
    for root, who in ((GIVER, "giver's"), (TAKER, "taker's")):
        what = f"kill -9 of the {who} console keeper"
        strike = strikes.kill(root, KEEPER)
        name = f"{P.GIVER_TRANSFER}/kill {root} keeper"
        faults.append(_struck(name, P.GIVER_TRANSFER, what, strike, (GOES,), blind=True))
    return faults


def _struck(
    name: str, point: FailPoint, what: str, strike: Strike, fates: tuple[Fate, ...], *,
    ends: frozenset[str] = frozenset(), blind: bool = False, short: bool = False,
) -> Fault:  # fmt: skip
    """What happens while everything waits at a point."""
    orders = (pause(side(point), point),)
    return Fault(name, point, what, fates, orders=orders, strike=strike, ends=ends, blind=blind, short=short)


def _others() -> list[Fault]:
    garbage = [Aimed(GIVER, Order(point, Action.GARBAGE)) for point in (P.GIVER_STREAM, P.GIVER_WIRE)]
    tear = strikes.tear_record

    def pauses(root: str, point: FailPoint, seconds: float = 0.0) -> tuple[Aimed, ...]:
        return (pause(root, point, seconds=seconds),)

    return [
        Fault(
            "garbage",
            P.GIVER_STREAM,
            "the device state begins with random bytes",
            orders=(garbage[0],),
            short=True,
        ),
        Fault(
            "garbage on the wire",
            P.GIVER_WIRE,
            "random bytes come over the connection before the device state",
            orders=(garbage[1],),
        ),
        Fault(
            "torn record",
            P.GIVER_PREPARE,
            "the VM's record in the arena is damaged",
            orders=pauses(GIVER, P.GIVER_PREPARE),
            strike=tear,
            after=tear,
        ),
        Fault(
            "downtime limit",
            P.TAKER_LOADED,
            f"the taker's agent does nothing for 5 s; the guest may stand still for {USUAL.downtime_ms} ms",
            orders=pauses(TAKER, P.TAKER_LOADED, 5),
            terms=USUAL,
            short=True,
        ),
        Fault(
            "cancelled",
            P.TAKER_LOADED,
            "`multiroot handoff cancel` in the blackout",
            orders=pauses(TAKER, P.TAKER_LOADED),
            strike=strikes.cancel,
            short=True,
        ),
        Fault(
            "taker pauses",
            P.TAKER_LOADED,
            "the taker's agent does nothing for 35 s in the blackout",
            orders=pauses(TAKER, P.TAKER_LOADED, 35),
        ),
        Fault(
            "taker stopped",
            P.TAKER_LOADED,
            "SIGSTOP of the taker's agent for 30 s in the blackout",
            orders=pauses(TAKER, P.TAKER_LOADED, 5),
            strike=strikes.stop_for(TAKER, AGENT, 30),
        ),
        Fault(
            "taker's VMM stopped",
            P.GIVER_READY,
            "SIGSTOP of the taker's VMM for 30 s in the blackout",
            orders=pauses(GIVER, P.GIVER_READY),
            strike=strikes.stop_for(TAKER, VMM, 30),
        ),
        Fault(
            "owner pauses",
            P.TAKER_OWNED,
            "the taker owns the VM and does nothing for 35 s",
            (GOES,),
            orders=pauses(TAKER, P.TAKER_OWNED, 35),
        ),
        Fault(
            "giver stopped",
            P.GIVER_READY,
            "SIGSTOP of the giver's agent for 30 s",
            (STAYS, GOES),
            orders=pauses(GIVER, P.GIVER_READY, 5),
            strike=strikes.stop_for(GIVER, AGENT, 30),
        ),
        Fault(
            "taker's disk full",
            P.TAKER_PREPARE,
            "no room in the new root's /run",
            (STAYS, GOES),
            before=strikes.fill(TAKER, "/run"),
            after=strikes.empty(TAKER, "/run"),
        ),
    ]


def _link() -> list[Fault]:
    faults = [
        Fault(
            f"link {name}",
            "all",
            what,
            (STAYS, GOES),
            before=strikes.disturb_link(how),
            after=strikes.undisturb_link,
        )
        for name, what, how in (
            ("slow", "50 ms more each way on the link", "delay 50ms"),
            ("lossy", "the link loses 10 % of its packets", "loss 10%"),
            ("corrupting", "the link turns a bit over in 5 % of its packets", "corrupt 5%"),
        )
    ]
    for point, fates in (
        (P.GIVER_TRANSFER, (STAYS, GOES)),
        (P.TAKER_LOADED, (STAYS, GOES)),
        (P.TAKER_OWNED, (GOES,)),
    ):
        name, what = f"{point}/link down", "the link is down for 20 s"
        orders = (pause(side(point), point, seconds=2),)
        faults.append(Fault(name, point, what, fates, orders=orders, strike=strikes.link_down(20)))
    return faults


def _new_root_ends() -> list[Fault]:
    """The new root dies while it takes the VM."""
    faults = []
    for point, fates in ((P.GIVER_TRANSFER, (STAYS,)), (P.TAKER_LOADED, (STAYS,)), (P.TAKER_OWNED, (LOST,))):
        for name, what, strike in (
            ("panic", "sysrq-c in the new root", strikes.sysrq(TAKER, "c")),
            ("reset", "sysrq-b in the new root", strikes.sysrq(TAKER, "b")),
            ("INIT", "INIT to all CPUs of the new root", strikes.init_cpus(2, 3)),
        ):
            short = (name, point) in (("panic", P.TAKER_LOADED), ("INIT", P.TAKER_OWNED))
            faults.append(
                _struck(f"{point}/{name}", point, what, strike, fates, ends=frozenset({"new"}), short=short)
            )
    hung = strikes.init_cpus(3)
    what = "one CPU of the new root hangs: it answers nothing, not even an NMI"
    faults.append(
        _struck(f"{P.TAKER_LOADED}/hung CPU", P.TAKER_LOADED, what, hung, (STAYS,), ends=frozenset({"new"}))
    )
    return faults
