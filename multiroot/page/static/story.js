// SPDX-License-Identifier: GPL-2.0-or-later
// What the facts mean: which kernel is where, what is happening, what held. Pure: a model in, plain data out.

import { continuity, extents, largestGap, list, number, part, text } from "./facts.js";
import { kilobytes, ms, plural } from "./words.js";

const GONE = ["ended", "crashed"];
const OPENING = "One machine. Two Linux kernels.";

// Which side each root is drawn on, by its number. It keeps its side for as long as it is known.
const seats = new Map();

export const sideOf = (root) => seats.get(root) ?? "";

// Give each root a side: across from the one that lives, for that is the one it was started by.
export function seat(document) {
  const known = new Map(roots(document).map((root) => [root.number, root]));
  // CPUs and memory are granted to a root before it is there.
  const owners = ["cpus", "memory"].flatMap((name) =>
    Object.values(part(document, name)).map((each) => number(each?.root)),
  );
  const numbers = [...new Set([...known.keys(), ...owners])].filter((each) => each > 0).sort((a, b) => a - b);
  for (const each of [...seats.keys()]) if (!numbers.includes(each)) seats.delete(each);
  numbers.forEach((each, index) => {
    if (seats.has(each)) return;
    const before = numbers.slice(0, index);
    const parent =
      before.filter((other) => known.has(other) && !GONE.includes(known.get(other).state)).at(-1) ??
      before.at(-1);
    seats.set(each, seats.get(parent) === "left" ? "right" : "left");
  });
}

export function roots(document) {
  return Object.entries(part(document, "roots"))
    .map(([key, root]) => ({ ...root, number: number(root?.number) || Number(key) }))
    .filter((root) => root.number > 0)
    .sort((a, b) => a.number - b.number);
}

// The root that each side shows: the newest one of that side that is not gone, else the newest.
export function sides(document) {
  const found = { left: null, right: null };
  for (const root of roots(document)) {
    const before = found[sideOf(root.number)];
    if (!before || !GONE.includes(root.state) || GONE.includes(before.state))
      found[sideOf(root.number)] = root;
  }
  return found;
}

export function vms(document) {
  return Object.entries(part(document, "vms"))
    .map(([name, vm]) => ({ ...vm, name }))
    .sort((a, b) => a.name.localeCompare(b.name, "en", { numeric: true }));
}

export function handoffs(document) {
  return Object.entries(part(document, "handoffs"))
    .map(([key, handoff]) => ({ ...handoff, key }))
    .sort((a, b) => number(a.began_ns) - number(b.began_ns));
}

// The last handoff, of one VM or of all.
export const lastHandoff = (document, vm = "") =>
  handoffs(document)
    .filter((each) => !vm || each.vm === vm)
    .at(-1) ?? null;

// The newest handoff of a VM that ended with it in the other root.
export const lastDone = (document, vm) =>
  handoffs(document)
    .filter((each) => each.vm === vm && each.stage === "done")
    .at(-1) ?? null;

export const underWay = (handoff) => ["preparing", "frozen"].includes(handoff?.stage);

// What is on its way out of the giver; once the owner word has changed, the VM is the taker's.
export const leaving = (document) =>
  handoffs(document).filter(
    (each) => underWay(each) && part(part(document, "vms"), each.vm).owner !== each.taker,
  );

// The VM that strips and figures are about: the chosen one, else the one that moved last, else the first.
export function subject(document, chosen = "") {
  const all = vms(document);
  const moved = lastHandoff(document)?.vm;
  const names = [chosen, moved, all[0]?.name];
  return (
    all.find((vm) => vm.name === names.find((name) => name && all.some((each) => each.name === name))) ?? null
  );
}

const kernelName = (document, root) => {
  const release = text(part(part(document, "roots"), String(root)).kernel_release);
  return release ? `Linux ${shortRelease(release)}` : `root ${root}`;
};

// Without what a distribution has appended.
export const shortRelease = (release) => release.split(/[+-]/)[0];

const STEP = {
  plan: "The agent works out which CPUs and which memory a second kernel gets.",
  carve: "A piece of memory is taken from the first kernel for the second one.",
  offline: "CPUs leave the first kernel. They are for the second one.",
  load: "The second kernel is copied into its memory. The first one runs on.",
  start: "A CPU starts in the second kernel. The first one runs on.",
  join: "The second kernel boots beside the first.",
  handover: "The VMs are handed to the second kernel, one by one.",
  commit: "The old kernel has no VM left. From here there is no way back.",
  retire: "The old kernel ends. The new one takes its CPUs and its memory.",
};

export function runningStep(document) {
  const update = part(document, "update");
  const steps = part(update, "steps");
  return list(update.order).find((name) => ["begin", "undo"].includes(steps[name]?.edge)) ?? "";
}

// The update's steps, each with its edge and whether it can be taken back. Somebody who hands over each VM by
// hand (`multiroot handoff`) has done what the step `handover` does.
export function steps(document) {
  const update = part(document, "update");
  const known = part(update, "steps");
  const newest = roots(document).at(-1)?.number;
  const all = running(document);
  const joined = part(known, "join").edge === "done";
  const crossed = joined && all.length > 0 && all.every((vm) => vm.owner === newest);
  return list(update.order).map((name) => {
    const { edge, undo } = part(known, name);
    const byHand = name === "handover" && !text(edge) && crossed;
    return byHand ? { name, edge: "done", undo: true } : { name, edge: text(edge), undo: Boolean(undo) };
  });
}

const SILENT_NS = 3e9; // a machine that is busy has agents that are silent for a moment: the kernel's box says so

// What nobody wanted to happen, and what it means for the VMs; "" if all is well.
export function alarm(document, at) {
  const all = roots(document);
  const silent = all
    .filter((root) => root.state === "unknown" && at - number(root.heard_ns) > SILENT_NS)
    .at(-1);
  if (silent) return `Root ${silent.number} is not heard. What it does is not known.`;
  const crashed = all.filter((root) => root.state === "crashed").at(-1);
  if (!crashed || crashed.number < Math.max(...all.map((root) => root.number))) return "";
  const lost = vms(document).filter((vm) => vm.state === "lost");
  if (lost.length)
    return `A kernel has crashed. ${names(lost)} ${lost.length === 1 ? "is" : "are"} lost with it.`;
  // Whose agent is silent for a moment has not lost it.
  const going = vms(document).filter((vm) => vm.owner && vm.owner !== crashed.number);
  return going.length
    ? `The new kernel has crashed. ${names(going)} never left the old one.`
    : "The new kernel has crashed. The old one goes on.";
}

const running = (document) =>
  vms(document).filter((vm) => ["running", "frozen", "paused"].includes(vm.state));

// What happens now, in a sentence, from the facts alone.
export function happening(document, at) {
  const all = roots(document);
  if (!all.length) return OPENING;
  const alive = all.filter((root) => !GONE.includes(root.state));
  const moving = leaving(document).at(-1);
  const arriving = handoffs(document).filter(underWay).at(-1);
  if (alarm(document, at)) return alarm(document, at);
  if (moving?.stage === "frozen") {
    return `${moving.vm} stands still for a moment: its device state crosses to root ${moving.taker}. Its memory stays.`;
  }
  if (moving)
    return `${moving.vm} runs on, while a second QEMU in root ${moving.taker} maps the very same memory.`;
  if (arriving)
    return `${arriving.vm} has changed hands: root ${arriving.taker} owns it now. Its memory is where it was.`;
  const step = runningStep(document);
  if (step && part(part(part(document, "update"), "steps"), step).edge === "undo")
    return `Taken back: ${step}.`;
  if (step) return STEP[step] ?? `Step ${step}.`;
  const taking = text(part(document, "update").taking_over);
  if (taking && taking !== "done") return `The old kernel has ended. The new one takes over: ${taking}.`;
  return where(document, alive, running(document));
}

const names = (all) => (all.length > 3 ? plural(all.length, "VM") : all.map((vm) => vm.name).join(", "));

function where(document, alive, going) {
  const parts = alive
    .map((root) => [root, going.filter((vm) => vm.owner === root.number)])
    .filter(([, there]) => there.length)
    .map(
      ([root, there]) =>
        `${names(there)} ${there.length === 1 ? "runs" : "run"} in ${kernelName(document, root.number)}`,
    );
  const told = parts.length ? `${parts.join("; ")}.` : "No VM runs.";
  return alive.length > 1 ? `Two kernels run beside each other. ${told}` : told;
}

// Below the headline: what stayed and what moved, once something has.
export function detail(document, vm) {
  const done = vm && lastDone(document, vm.name);
  if (!done) return "";
  const state = number(done.device_state_bytes);
  const copied = done.ram_bytes_copied;
  return [
    Number.isFinite(copied) ? `${copied} bytes of RAM copied` : "",
    state ? `${kilobytes(state)} of device state crossed` : "",
    blackout(done) ? `${ms(blackout(done))} without a running vCPU` : "",
  ]
    .filter(Boolean)
    .join(" · ");
}

export const blackout = (handoff) =>
  number(handoff?.resumed_ns) && number(handoff?.stopped_ns) ? handoff.resumed_ns - handoff.stopped_ns : 0;

// The guest's gap: as the agents say it, else as the ticks on this page show it.
export function gapOf(handoff, points) {
  if (number(handoff?.gap_ns)) return handoff.gap_ns;
  const gap = largestGap(points);
  return gap ? gap.to - gap.from : 0;
}

const check = (claim, held, seen) => ({ claim, held, seen });

// Every claim of a demo, and whether the facts on this page bear it out. "" is: not seen yet.
export function checks(model) {
  const { document } = model;
  const resets = part(document, "machine").resets;
  const all = roots(document);
  const kernels = all.filter((root) => text(root.boot_id));
  const found = [
    check(
      "The machine was never reset",
      Number.isFinite(resets) ? resets === 0 : "",
      Number.isFinite(resets) ? plural(resets, "reset") : "nobody counts them here",
    ),
    check(
      "More than one kernel has run in it",
      kernels.length > 1 ? new Set(kernels.map((r) => r.boot_id)).size === kernels.length : "",
      kernels.map((root) => `root ${root.number}: Linux ${root.kernel_release}`).join(", ") ||
        "no kernel has said what it is",
    ),
    check(
      "No CPU has two owners",
      Object.keys(part(document, "cpus")).length ? noSharedCpu(document) : "",
      cpusByRoot(document),
    ),
  ];
  for (const vm of vms(document)) found.push(...vmChecks(model, vm));
  return found;
}

function noSharedCpu(document) {
  const taken = Object.values(part(document, "cpus")).filter(
    (cpu) => cpu?.root && Number.isFinite(cpu.number),
  );
  return new Set(taken.map((cpu) => `${cpu.root}/${cpu.number}`)).size === taken.length;
}

function cpusByRoot(document) {
  const ids = new Map();
  for (const [id, cpu] of Object.entries(part(document, "cpus"))) {
    ids.set(number(cpu?.root), [...(ids.get(number(cpu?.root)) ?? []), id]);
  }
  return [...ids]
    .sort((a, b) => a[0] - b[0])
    .map(([root, cpus]) => `${root ? `root ${root}` : "nobody"}: ${cpus.join(", ")}`)
    .join("; ");
}

function vmChecks(model, vm) {
  const { document } = model;
  const done = lastDone(document, vm.name);
  const now = extents(vm)
    .map((each) => `${each.start}+${each.size}`)
    .join(" ");
  const counted = continuity(model.strip(`ticks/${vm.name}`));
  const found = [];
  if (done) {
    const copied = done.ram_bytes_copied;
    found.push(
      check(
        `${vm.name} is owned by one kernel alone`,
        vm.owner === done.taker || number(vm.epoch) > number(done.epoch),
        `root ${vm.owner}, epoch ${vm.epoch}`,
      ),
      check(
        `${vm.name}'s memory stayed where it is`,
        Number.isFinite(copied) ? copied === 0 && model.places.get(vm.name) === now : "",
        `${Number.isFinite(copied) ? copied : "?"} bytes of RAM copied, ${number(done.device_state_bytes)} bytes of device state; at ${addresses(vm)} as before`,
      ),
    );
  }
  if (counted.seen) {
    found.push(
      check(
        `${vm.name} lost no tick and repeated none`,
        counted.missing === 0 && counted.repeated === 0,
        `the last ${counted.seen} ticks: ${counted.missing} missing, ${counted.repeated} twice`,
      ),
    );
  }
  const stream = part(part(document, "streams"), `ping/${vm.name}`);
  if (done && number(stream.since_ns) && stream.since_ns < number(done.stopped_ns)) {
    const later = model.strip(`ping/${vm.name}`).filter(([at]) => at > number(done.resumed_ns)).length;
    found.push(
      check(
        `A TCP connection to ${vm.name} went along`,
        later > 0 || "",
        `one from outside the machine, open since before: ${plural(later, "answer")} on it since`,
      ),
    );
  }
  if (vm.frames) {
    const { count, lost, again } = vm.frames;
    found.push(
      check(
        `${vm.name}'s own card lost no frame`,
        number(lost) === 0 && number(again) === 0,
        `the guest has counted ${number(count)}: ${number(lost)} lost, ${number(again)} out of order`,
      ),
    );
  }
  return found;
}

export const addresses = (vm) =>
  extents(vm)
    .map((each) => `0x${each.start.toString(16)}`)
    .join(", ") || "?";
