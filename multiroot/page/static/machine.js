// SPDX-License-Identifier: GPL-2.0-or-later
// The machine's outline: two kernels, their CPUs, the VMs, and the lines from the VMs to their memory. A VM's
// card slides from kernel to kernel; its memory, at the other end of its line, stays.

import { list, number, part, text } from "./facts.js";
import { extentElement, ownerElement } from "./memory.js";
import { moves, slide } from "./motion.js";
import { leaving, shortRelease, sideOf, sides, vms } from "./story.js";
import { duration, el, plural, setData, setText, size, svg } from "./words.js";

const $ = (id) => document.getElementById(id);
const STATES = {
  alive: "runs",
  starting: "boots",
  unknown: "is not heard",
  ended: "has ended",
  crashed: "has crashed",
  none: "not there yet",
};
const CPU_WORDS = {
  online: "",
  adopted: "adopted",
  granted: "granted",
  parked: "parked",
  offline: "offline",
};

export class Machine {
  constructor(onChoose) {
    this.onChoose = onChoose;
    this.cards = new Map();
    this.ghosts = new Map();
    this.cpus = new Map();
    this.boxes = {};
    for (const side of ["left", "right"]) this.boxes[side] = makeBox($(`kernel-${side}`));
  }

  draw(facts, now, chosen) {
    const machine = part(facts, "machine");
    setText($("machine-name"), machineName(machine));
    setText($("resets"), Number.isFinite(machine.resets) ? String(machine.resets) : "?");
    const shown = sides(facts);
    for (const side of ["left", "right"]) drawBox(this.boxes[side], shown[side], now);
    const moving = [...this.cards.values(), ...this.cpus.values()];
    slide(moving, () => {
      this.placeCpus(facts, shown);
      this.placeVms(facts, shown, chosen);
    });
  }

  placeCpus(facts, shown) {
    const all = part(facts, "cpus");
    for (const [id, cpu] of Object.entries(all)) {
      const tile = this.cpus.get(id) ?? el("div", { class: "cpu" }, el("span"), el("small"));
      this.cpus.set(id, tile);
      const side = sideOf(number(cpu?.root));
      const state = text(cpu?.state) || "offline";
      setData(tile, "state", state);
      setText(tile.firstChild, id);
      setText(tile.lastChild, CPU_WORDS[state] ?? state);
      tile.title = `CPU with hardware id ${id}: ${state}${cpu?.root ? `, root ${cpu.root}` : ""}`;
      // A CPU that is granted is the new root's before that root is there.
      const home = side && number(shown[side]?.number) <= cpu.root ? this.boxes[side].tiles : $("park-tiles");
      insertSorted(home, tile, Number(id));
    }
    for (const [id, tile] of this.cpus) {
      if (id in all) continue;
      tile.remove();
      this.cpus.delete(id);
    }
    for (const box of Object.values(this.boxes))
      setData(box.tiles, "many", String(box.tiles.childElementCount > 5));
    setData($("park"), "used", String(Boolean($("park-tiles").childElementCount)));
  }

  placeVms(facts, shown, chosen) {
    const all = vms(facts);
    const known = new Set(all.map((vm) => vm.name));
    const taking = new Map(leaving(facts).map((handoff) => [handoff.vm, handoff]));
    all.forEach((vm, index) => {
      const card = this.cards.get(vm.name) ?? this.makeCard(vm.name);
      this.cards.set(vm.name, card);
      drawCard(card, vm, taking.get(vm.name), all.length > 1 && vm.name === chosen);
      const side = sideOf(number(vm.owner)) || card.dataset.side || "left";
      card.dataset.side = side;
      insertSorted(this.boxes[side].vms, card, index);
      this.placeGhost(vm, taking.get(vm.name), index);
    });
    for (const [name, card] of this.cards) {
      if (known.has(name)) continue;
      card.remove();
      this.cards.delete(name);
      this.placeGhost({ name }, null, 0);
    }
    for (const box of Object.values(this.boxes)) setData(box.vms, "many", String(all.length > 3));
    setData($("tethers"), "many", String(all.length > 3));
  }

  makeCard(name) {
    const card = cardOf("button", "vm");
    card.type = "button";
    card.dataset.vm = name;
    card.addEventListener("click", () => this.onChoose(name));
    return card;
  }

  // While a VM is handed over, a second QEMU waits for it in the other kernel, on the same memory.
  placeGhost(vm, handoff, index) {
    const old = this.ghosts.get(vm.name);
    if (!handoff) {
      old?.remove();
      this.ghosts.delete(vm.name);
      return;
    }
    const ghost = old ?? cardOf("div", "vm ghost");
    setText(ghost.firstChild, vm.name);
    setText(ghost.children[1], "a second QEMU waits");
    setText(ghost.children[2], "on the very same memory");
    this.ghosts.set(vm.name, ghost);
    insertSorted(this.boxes[sideOf(handoff.taker)].vms, ghost, index);
  }

  // The lines from cards to memory; to be drawn again for as long as something moves.
  drawTethers() {
    const frame = $("tethers").getBoundingClientRect();
    const lines = [];
    for (const [name, card] of this.cards) lines.push(tether(frame, card, name, "tether"));
    for (const [name, ghost] of this.ghosts) lines.push(tether(frame, ghost, name, "tether ghosted"));
    $("tethers").replaceChildren(...lines.filter(Boolean));
    return [...this.cards.values(), ...this.cpus.values()].some(moves);
  }
}

function cardOf(tag, kind) {
  return el(
    tag,
    { class: kind },
    el("span", { class: "vm-name" }),
    el("span", { class: "vm-line" }),
    el("span", { class: "vm-line" }),
  );
}

function makeBox(box) {
  const parts = {
    box,
    name: el("h2", { class: "kernel-name" }),
    facts: el("p", { class: "kernel-facts" }),
    tiles: el("div", { class: "tiles" }),
    vms: el("div", { class: "vms" }),
  };
  box.append(el("div", { class: "kernel-title" }, parts.name, parts.tiles), parts.facts, parts.vms);
  return parts;
}

function drawBox(box, root, now) {
  const state = root ? text(root.state) || "unknown" : "none";
  setData(box.box, "state", state);
  const empty = box.box.dataset.side === "left" ? "no kernel here yet" : "room for a second kernel";
  const release = text(root?.kernel_release);
  setText(box.name, root ? (release ? `Linux ${shortRelease(release)}` : "a second kernel") : empty);
  box.name.title = release;
  setText(box.facts, root ? facts(root, state, now).filter(Boolean).join(" · ") : "\u00a0");
}

// What is told below a kernel's name.
function facts(root, state, now) {
  const role = root.role ? `, the ${root.role} kernel,` : "";
  const lives = ["alive", "starting"].includes(state);
  const release = text(root.kernel_release);
  return [
    `root ${root.number}${role} ${STATES[state] ?? state}`,
    lives && number(root.booted_ns) ? `up ${duration(now - root.booted_ns)}` : "",
    state === "unknown" && number(root.heard_ns) ? `last heard ${duration(now - root.heard_ns)} ago` : "",
    text(root.image_sha256) ? `image ${text(root.image_sha256).slice(0, 8)}` : "",
    /[+-]/.test(release) ? release : "",
  ];
}

function machineName(machine) {
  const parts = [
    machine.cpus ? plural(machine.cpus, "CPU") : "",
    machine.memory_bytes ? size(machine.memory_bytes) : "",
  ].filter(Boolean);
  return `One machine${parts.length ? `: ${parts.join(", ")}` : ""}`;
}

const VM_STATES = {
  running: "runs",
  frozen: "stands still",
  paused: "is paused",
  stopped: "is stopped",
  unknown: "is not heard",
};

function drawCard(card, vm, handoff, chosen) {
  const [name, what, more] = card.children;
  setData(card, "state", text(vm.state) || "unknown");
  setText(name, vm.name);
  setText(
    what,
    handoff?.stage === "preparing" ? "runs, and is about to cross" : (VM_STATES[vm.state] ?? text(vm.state)),
  );
  const state = [
    size(number(vm.memory_bytes)),
    plural(number(vm.cpus), "vCPU"),
    ...list(vm.functions).map((each) => `PCI ${each}`),
  ];
  setText(more, text(vm.error) || state.join(" · "));
  card.setAttribute("aria-pressed", String(chosen));
  card.title = list(vm.addresses).join(", ");
}

function insertSorted(parent, element, order) {
  element.dataset.order = String(order);
  const after =
    [...parent.children].find((each) => each !== element && Number(each.dataset.order) > order) ?? null;
  if (element.parentElement !== parent || element.nextElementSibling !== after) {
    if (element.parentElement === parent && !after && parent.lastElementChild === element) return;
    const focused = document.activeElement === element;
    parent.insertBefore(element, after);
    if (focused) element.focus();
  }
}

function tether(frame, card, name, kind) {
  const block = extentElement(name);
  if (!block || !card.isConnected) return null;
  const from = card.getBoundingClientRect();
  const sign = ownerElement(name)?.getBoundingClientRect();
  const to = block.getBoundingClientRect();
  // The line goes to the owner's sign, and from there to the memory.
  const end = sign ?? to;
  const [x1, y1] = [from.left + from.width / 2 - frame.left, from.bottom - frame.top];
  const [x2, y2] = [end.left + end.width / 2 - frame.left, end.top - frame.top];
  const [x3, y3] = [to.left + to.width / 2 - frame.left, to.top - frame.top];
  const bend = Math.max(20, (y2 - y1) * 0.9);
  const stub = sign ? `M${x3} ${sign.bottom - frame.top}V${y3 + 2}` : "";
  return svg("path", {
    class: kind,
    d: `M${x1} ${y1 - 2}C${x1} ${y1 + bend} ${x2} ${y2 - bend} ${x2} ${y2 + 1}${stub}`,
  });
}
