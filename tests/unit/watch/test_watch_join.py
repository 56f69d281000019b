# SPDX-License-Identifier: GPL-2.0-or-later
"""Whatever agents tell, it is joined: facts of one machine, in bounded memory, and each VM has one owner."""

from __future__ import annotations

from hypothesis import given, settings
from hypothesis import strategies as st

from multiroot.watch.decode import from_json, to_json
from multiroot.watch.facts import (
    CpuFacts,
    Facts,
    HandoffFacts,
    MemoryKind,
    PhaseFacts,
    RangeFacts,
    RootFacts,
    RootState,
    Stage,
    StepFacts,
    UpdateFacts,
    VmFacts,
)
from multiroot.watch.join import KEPT_ENDED, KEPT_HANDOFFS, OVER, Memory, Telling, join

ROOTS = st.integers(0, 9)
NUMBERS = st.integers(1, 9).map(str)
NAMES = st.sampled_from(("vm0", "vm1", "vm2"))
TIMES = st.integers(0, 99)


def some(
    keys: st.SearchStrategy[str], values: st.SearchStrategy[object]
) -> st.SearchStrategy[dict[str, object]]:
    return st.dictionaries(keys, values, max_size=4)


FACTS = st.builds(
    Facts,
    cpus=some(NUMBERS, st.builds(CpuFacts, ROOTS, st.none() | TIMES)),
    memory=some(NUMBERS, st.builds(RangeFacts, TIMES, TIMES, st.sampled_from(MemoryKind), ROOTS)),
    roots=some(NUMBERS, st.builds(RootFacts, ROOTS, st.just("old"), st.sampled_from(RootState))),
    vms=some(NAMES, st.builds(VmFacts, st.sampled_from(("running", "handed")), ROOTS, TIMES)),
    update=st.builds(
        UpdateFacts,
        ROOTS,
        st.sampled_from(("idle", "joined", "retiring")),
        steps=some(
            st.sampled_from(("plan", "retire")), st.builds(StepFacts, st.sampled_from(("", "begin", "done")))
        ),
    ),
    phases=some(NUMBERS, st.builds(PhaseFacts)),
    handoffs=some(
        st.tuples(NAMES, TIMES).map(lambda key: f"{key[0]}/{key[1]}"),
        st.builds(HandoffFacts, NAMES, ROOTS, ROOTS, TIMES, st.sampled_from(Stage), TIMES),
    ),
)
TELLINGS = st.lists(
    st.builds(Telling, st.integers(1, 9), FACTS, st.booleans(), TIMES),
    max_size=3,
    unique_by=lambda each: each.root,
)


@settings(max_examples=25)
@given(st.lists(TELLINGS, min_size=1, max_size=8))
def test_anything_is_joined(rounds: list[list[Telling]]) -> None:
    memory = Memory()
    for tellings in rounds:
        facts = join(tellings, memory)
        assert from_json(to_json(facts)) == facts
        assert len(facts.handoffs) <= KEPT_HANDOFFS
        assert len(memory.roots) <= KEPT_ENDED
        told = [each for each in tellings if each.fresh]
        for telling in told:
            own = telling.facts.roots.get(str(telling.root))
            if own is not None:
                assert facts.roots[str(telling.root)].state is own.state
        for name, vm in facts.vms.items():
            epochs = [each.facts.vms[name].epoch for each in told if name in each.facts.vms]
            assert not epochs or vm.epoch >= max(epochs)


def retired(number: int, state: RootState) -> dict[str, RootFacts]:
    return {str(number): RootFacts(number, "", state), "2": RootFacts(2, "old", RootState.ALIVE)}


def test_the_steps_of_an_update_are_told_until_the_next_one_begins() -> None:
    memory = Memory()
    steps = {"plan": StepFacts("done", 1, 2), "retire": StepFacts("begin", 3)}
    old = Facts(
        roots={"1": RootFacts(1, "old", RootState.ALIVE)},
        update=UpdateFacts(1, "retiring", "retire", steps=steps),
    )
    join([Telling(1, old, True)], memory)
    # It falls silent. That it has retired nobody has said yet.
    seen = join([Telling(1, old, False, 5)], memory)
    assert seen.update.state == "retiring"
    assert seen.roots["1"].state is RootState.UNKNOWN
    new = Facts(
        roots=retired(1, RootState.ENDED), update=UpdateFacts(2, "idle", taking_over="adopting memory")
    )
    for _ in range(2):
        seen = join([Telling(1, old, False, 5), Telling(2, new, True)], memory)
        assert seen.roots["1"].state in OVER
        assert (seen.update.root, seen.update.taking_over) == (2, "adopting memory")
        assert {name: step.edge for name, step in seen.update.steps.items()} == {
            "plan": "done",
            "retire": "done",
        }
    begun = Facts(roots=new.roots, update=UpdateFacts(2, "planned", steps={"plan": StepFacts("begin", 9)}))
    seen = join([Telling(2, begun, True)], memory)
    assert list(seen.update.steps) == ["plan"]


def test_a_handoff_whose_giver_ended_is_judged_by_the_owner_word() -> None:
    memory = Memory()
    going = HandoffFacts("vm0", 1, 2, 2, Stage.PREPARING, 1)
    old = Facts(
        roots={"1": RootFacts(1, "old", RootState.ALIVE)},
        vms={"vm0": VmFacts("running", 1, 1)},
        handoffs={"vm0/2": going},
    )
    join([Telling(1, old, True)], memory)
    new = Facts(roots=retired(1, RootState.CRASHED), vms={"vm0": VmFacts("running", 2, 2)})
    seen = join([Telling(1, old, False), Telling(2, new, True)], memory)
    assert seen.handoffs["vm0/2"].stage is Stage.DONE
    assert seen.vms["vm0"].state == "running"


M = 1 << 20


def ram(start: int, size: int, kind: MemoryKind, root: int) -> dict[str, RangeFacts]:
    """A range in MiB, by its key."""
    return {f"{start * M:#x}": RangeFacts(start * M, size * M, kind, root)}


def test_memory_keeps_its_scale_while_a_root_ends_and_its_memory_is_adopted() -> None:
    """The bar is drawn to scale: a VM's block stands still only if all that is told covers the same."""
    system, carve, spare = MemoryKind.SYSTEM, MemoryKind.CARVE, MemoryKind.SPARE
    arena = ram(4096, 512, MemoryKind.ARENA, 0)
    one = {"1": RootFacts(1, "old", RootState.ALIVE)}
    two = {"2": RootFacts(2, "new", RootState.ALIVE)}
    old_memory = ram(1, 2047, system, 1) | arena
    # The new root does not know what its parent has. Its boot area it does not list as RAM.
    new_memory = ram(4612, 1020, system, 2) | ram(4608, 4, spare, 0) | arena
    alone = Facts(roots=one, memory=old_memory | ram(4608, 1024, spare, 0))
    beside = Facts(roots=one | two, memory=old_memory | ram(4608, 1024, carve, 2))
    new = Facts(roots=one | two, memory=new_memory | ram(1, 2047, spare, 0))
    left = Facts(roots=retired(1, RootState.ENDED), memory=new.memory)
    adopting = Facts(roots=left.roots, memory=new_memory | ram(1, 127, spare, 0) | ram(128, 1920, system, 2))
    adopted = Facts(roots=left.roots, memory=new_memory | ram(1, 2047, system, 2))
    memory = Memory()
    told = [
        join([Telling(1, alone, True)], memory).memory,
        join([Telling(1, beside, True), Telling(2, new, True)], memory).memory,
        join([Telling(1, beside, False), Telling(2, new, True)], memory).memory,
        join([Telling(1, beside, False), Telling(2, left, True)], memory).memory,
        join([Telling(2, adopting, True)], memory).memory,
        join([Telling(2, adopted, True)], memory).memory,
    ]
    seen = [[(r.start // M, r.size // M, r.kind, r.root) for r in each.values()] for each in told]
    guests = (4096, 512, MemoryKind.ARENA, 0)
    assert seen == [
        [(1, 2047, system, 1), guests, (4608, 1024, spare, 0)],
        [(1, 2047, system, 1), guests, (4608, 1024, carve, 2)],
        [(1, 2047, system, 1), guests, (4608, 1024, carve, 2)],
        [(1, 2047, spare, 0), guests, (4608, 1024, system, 2)],
        [(1, 127, spare, 0), (128, 1920, system, 2), guests, (4608, 1024, system, 2)],
        [(1, 2047, system, 2), guests, (4608, 1024, system, 2)],
    ]
    # As long as only the new root is heard, nobody knows what the old one has.
    just_begun = join([Telling(2, new, True)], Memory()).memory
    assert {each.kind for each in just_begun.values()} == {system, MemoryKind.ARENA}
