# SPDX-License-Identifier: GPL-2.0-or-later
"""The whole machine on one screen of a terminal, from 80x24 on. Every colour has a letter beside it."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from itertools import groupby
from typing import TYPE_CHECKING

from multiroot.cli.output import clean
from multiroot.units import format_size
from multiroot.watch.events import Point
from multiroot.watch.facts import CpuState, Facts, MemoryKind, RootState, Stage, StepFacts, VmFacts
from multiroot.watch.lines import about, sizes_of, times_of
from multiroot.watch.view import View

if TYPE_CHECKING:
    from rich.text import Text

WIDTH, HEIGHT = 80, 24  # the least that is drawn for
VMS, HANDOFFS, LINES = 4, 2, 2  # are shown at most
LABEL = 8
SILENT_NS = 2_000_000_000  # after which an answer is no news any more
BIN_NS = 50_000_000  # of a guest's ticks in one column
_COLOURS = ("cyan", "yellow", "green", "magenta")
_CPU_LETTERS = {
    CpuState.ONLINE: "",
    CpuState.OFFLINE: "off",
    CpuState.GRANTED: "granted",
    CpuState.PARKED: "parked",
    CpuState.ADOPTED: "adopted",
}
_KINDS = {MemoryKind.CARVE: "c", MemoryKind.ARENA: "a", MemoryKind.IMAGE: "i", MemoryKind.SPARE: "-"}
_EDGES = {"done": "+", "begin": ">", "undo": "<", "undone": "-", "failed": "!", "": "."}
_BARS = " .:|"


def screen(view: View, width: int, height: int) -> list[Text]:
    """The lines that there is room for; what matters most is left out last."""
    facts = view.facts
    width, height = max(width, 40), max(height, 8)
    must = [*_title(facts, view.said), *_roots(facts, view.at), *_vms(facts)]
    rest = [
        *_update(facts),
        _cpus(facts),
        *_memory(facts, width),
        *_handoffs(facts),
        *_ticks(facts, view.strips, view.at, width),
        *_answers(facts, view.strips, view.at),
        *_running(facts),
        *_consoles(facts),
    ]
    lines = [*must, *rest][: height - 1]
    for line in lines:
        line.truncate(width - 1, overflow="ellipsis")
    return lines


def _text(*parts: str | tuple[str, str]) -> Text:
    from rich.text import Text

    made = Text()
    styled = ((part, "") if isinstance(part, str) else part for part in parts)
    # A bar has one part for each column. A colour is said once for all that have it, not for each.
    for style, alike in groupby(styled, lambda part: part[1]):
        made.append(clean("".join(words for words, _ in alike)), style=style)
    return made


def _labelled(label: str, *parts: str | tuple[str, str]) -> Text:
    return _text((f"{label:<{LABEL}}", "dim"), *parts)


def _colour(root: int | str) -> str:
    number = int(root)
    return _COLOURS[(number - 1) % len(_COLOURS)] if number else "dim"


def _title(facts: Facts, said: str) -> list[Text]:
    machine = facts.machine
    resets = "not known" if machine.resets is None else str(machine.resets)
    style = "bold" if not machine.resets else "bold red"
    size = f"{machine.cpus} CPUs, {about(machine.memory_bytes)}" if machine.cpus else ""
    emulated = ", emulated: compare ratios" if machine.accelerator == "tcg" else ""
    lines = [_text(("ONE MACHINE  ", "bold"), ("resets: " + resets, style), f"  {size}{emulated}")]
    return [*lines, _text((said, "bold italic"))] if said else lines


def _uptime(booted_ns: int, now_ns: int) -> str:
    seconds = max(0, now_ns - booted_ns) // 1_000_000_000 if booted_ns else 0
    return f"up {seconds // 60}:{seconds % 60:02}" if booted_ns else ""


def _roots(facts: Facts, now_ns: int) -> list[Text]:
    lines = []
    for number, root in facts.roots.items():
        colour = _colour(number) if root.state is not RootState.ENDED else "dim"
        alarm = root.state in (RootState.UNKNOWN, RootState.CRASHED)
        alive = root.state in (RootState.ALIVE, RootState.STARTING)
        parts = [root.kernel_release, root.role, _uptime(root.booted_ns, now_ns) if alive else ""]
        if root.image_sha256:
            parts.append(f"image {root.image_sha256[:8]}")
        state = (f"{root.state.value.upper():<9}", "bold red" if alarm else f"bold {colour}")
        lines.append(_labelled(f"root {number}", state, ("  ".join(filter(None, parts)), colour)))
    return lines


def _cpus(facts: Facts) -> Text:
    parts: list[str | tuple[str, str]] = []
    for key, cpu in facts.cpus.items():
        letters = _CPU_LETTERS[cpu.state]
        owner = str(cpu.root) if cpu.root else "-"
        parts.append((f"[{key}:{owner}{' ' + letters if letters else ''}]", _colour(cpu.root)))
    return _labelled("CPUs", *parts)


def _memory(facts: Facts, width: int) -> list[Text]:
    """A bar to scale, without the holes between ranges; one letter says what most of a column is."""
    ranges = sorted(facts.memory.values(), key=lambda each: each.start)
    total = sum(each.size for each in ranges)
    if not total:
        return []
    room = width - LABEL - 2
    bar: list[tuple[str, str]] = []
    for each in ranges:
        columns = max(1, room * each.size // total)
        letter = _KINDS.get(each.kind, str(each.root)[-1])
        for column in range(columns):
            at = each.start + each.size * column // columns
            owner = _owner_at(facts, at) if each.kind is MemoryKind.ARENA else None
            if owner is not None:
                bar.append(("V", f"bold reverse {_colour(owner)}"))
            else:
                bar.append((letter, _colour(each.root)))
    legend = "digit: RAM of that root  c: carve  a: arena  V: VM  i: image  -: spare"
    return [_labelled("memory", *bar[:room]), _labelled("", (legend, "dim"))]


def _owner_at(facts: Facts, address: int) -> int | None:
    for vm in facts.vms.values():
        if any(extent.start <= address < extent.start + extent.size for extent in vm.extents):
            return vm.owner
    return None


def _vms(facts: Facts) -> list[Text]:
    shown = list(facts.vms.items())[:VMS]
    lines = [_vm(name, vm) for name, vm in shown]
    if len(facts.vms) > VMS:
        lines.append(_labelled("", (f"and {len(facts.vms) - VMS} more VMs", "dim")))
    return lines


def _vm(name: str, vm: VmFacts) -> Text:
    owner = f"(root {vm.owner}, epoch {vm.epoch})" if vm.owner else "(no root)"
    tick = f"  tick {vm.ticks.counter}" if vm.ticks else ""
    own = f"  owns {', '.join(vm.functions)}" if vm.functions else ""
    return _labelled(
        f"VM {name}"[: LABEL - 1],
        (f"{vm.state.upper():<9}", f"bold {_colour(vm.owner)}"),
        (owner, _colour(vm.owner)),
        f"  {format_size(vm.memory_bytes)}{tick}{own}",
    )


def _update(facts: Facts) -> list[Text]:
    update = facts.update
    parts: list[str | tuple[str, str]] = []
    for name in update.order:
        step = update.steps.get(name, StepFacts())
        style = {"done": "green", "begin": "bold yellow", "undo": "bold yellow", "failed": "bold red"}
        if name == update.no_return:
            parts.append(("|", "bold red"))
        parts.append((f"{_EDGES.get(step.edge, '?')}{name} ", style.get(step.edge, "dim")))
    lines = [_labelled("update", *parts)] if parts else []
    told = update.error or update.taking_over_error
    if told:
        lines.append(_labelled("", (told, "bold red")))
    taking = f"taking over: {update.taking_over}" if update.taking_over else ""
    if follows := update.next or taking:
        lines.append(_labelled("next" if update.next else "", follows))
    return lines


def _handoffs(facts: Facts) -> list[Text]:
    lines = []
    for each in sorted(facts.handoffs.values(), key=lambda each: each.began_ns)[-HANDOFFS:]:
        way = f"{each.vm}: root {each.giver} -> {each.taker}  "
        if each.stage is Stage.DONE:
            times, sizes = times_of(each), sizes_of(each)
            lines.append(_labelled("handoff", way, (", ".join(times) or "it runs there", "bold")))
            lines += [_labelled("", (", ".join(sizes), "bold"))] if sizes else []
        else:
            lines.append(_labelled("handoff", way, (f"{each.stage} {each.error}", "yellow")))
    return lines


def _ticks(facts: Facts, strips: Mapping[str, Sequence[Point]], now_ns: int, width: int) -> list[Text]:
    """What each guest ticked, a column for 50 ms, the newest at the right."""
    lines = []
    ticking = [(name, stream) for name, stream in facts.streams.items() if stream.kind == "ticks"]
    for name, stream in ticking[:2]:
        points = strips.get(name)
        if not points:
            continue
        room = width - LABEL - 2
        newest = max(now_ns, max(point[0] for point in points)) // BIN_NS
        counts: dict[int, int] = {}
        roots: dict[int, int] = {}
        for point in points:
            column = room - 1 - (newest - point[0] // BIN_NS)
            counts[column] = counts.get(column, 0) + 1
            roots[column] = point[2] if len(point) == 3 else 0
        most = max(counts.values())
        bars = [
            (_BARS[-(-counts.get(column, 0) * (len(_BARS) - 1) // most)], _colour(roots.get(column, 0)))
            for column in range(room)
        ]
        lines.append(_labelled(f"{stream.vm[:2]} tick" if len(facts.vms) > 1 else "ticks", *bars))
    return lines


def _answers(facts: Facts, strips: Mapping[str, Sequence[Point]], now_ns: int) -> list[Text]:
    """How soon those who talk to the guests were answered last, and what guests' own cards have got."""
    told: dict[str, list[str]] = {}
    for name, stream in facts.streams.items():
        points = strips.get(name)
        if stream.unit == "ns" and points:
            at, took = points[-1][:2]
            silent = now_ns - at > SILENT_NS
            word = f"none for {(now_ns - at) / 1e9:.1f} s" if silent else f"{took / 1e6:.1f} ms"
            told.setdefault(stream.vm, []).append(f"{stream.kind} {word}")
    for name, vm in facts.vms.items():
        if vm.frames:
            told.setdefault(name, []).append(f"its card: {vm.frames.count} frames, {vm.frames.lost} lost")
    return [_labelled("answers", f"{name}: {', '.join(said)}") for name, said in list(told.items())[:2]]


def _running(facts: Facts) -> list[Text]:
    names = dict.fromkeys(f"{phase.side}: {phase.name}" for phase in facts.phases.values())
    return [_labelled("now", ", ".join(names))] if names else []


def _consoles(facts: Facts) -> list[Text]:
    lines: list[Text] = []
    for number, root in facts.roots.items():
        if root.state is not RootState.ENDED:
            lines += _console(number, root.console[-LINES:], root.splats)
    return lines


def _console(number: str, last: Iterable[str], splats: Sequence[str]) -> list[Text]:
    shown = list(last)
    # What nobody wants to see stays in sight.
    if splats and splats[-1] not in shown:
        shown = [splats[-1], *shown[1:]]
    return [
        _labelled(f"root {number}:", (line, "bold red" if line in splats else _colour(number)))
        for line in shown
    ]
