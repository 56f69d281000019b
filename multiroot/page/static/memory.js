// SPDX-License-Identifier: GPL-2.0-or-later
// Physical memory as one bar, to scale; where no memory is, the bar is broken. In the arena lie the VMs, and
// above it stand their owner words.

import { extents, number, part, text } from "./facts.js";
import { flip } from "./motion.js";
import { lastDone, sideOf, vms } from "./story.js";
import { el, setText, size } from "./words.js";

const $ = (id) => document.getElementById(id);
const MOST = 400; // ranges that are drawn; a machine has some ten
const blocks = new Map();
const owners = new Map();
let drawn = "";

export const ownerElement = (vm) => owners.get(vm);
export const extentElement = (vm) => blocks.get(vm);

// Ranges in the order of their addresses, without those that are no ranges.
export function ranges(facts) {
  return Object.values(part(facts, "memory"))
    .filter((range) => number(range?.size) > 0 && Number.isFinite(range.start))
    .sort((a, b) => a.start - b.start)
    .slice(0, MOST);
}

const PURPOSE = {
  system: (range) => (range.root ? `RAM of root ${range.root}` : "RAM"),
  carve: (range) => (range.root ? `carved for root ${range.root}` : "carve"),
  arena: () => "arena: VMs' memory",
  image: () => "system image",
  spare: () => "spare RAM",
};

export function drawMemory(facts) {
  const all = ranges(facts);
  const machines = vms(facts);
  const state = JSON.stringify([all, machines.map((vm) => [vm.name, extents(vm)])]);
  if (state !== drawn) {
    drawn = state;
    drawBar(all, machines);
  }
  drawOwners(facts, machines);
}

function drawBar(all, machines) {
  blocks.clear();
  const total = all.reduce((sum, range) => sum + range.size, 0) || 1;
  const bar = [];
  const labels = [];
  merged(all).forEach((range, index, every) => {
    const before = every[index - 1];
    if (before && range.start > before.start + before.size + total / 500) {
      bar.push(el("span", { class: "hole", title: "no memory at these addresses" }));
      labels.push(el("span", { class: "space" }));
    }
    bar.push(rangeElement(range, total, machines));
    labels.push(labelElement(range, total));
  });
  $("memory").replaceChildren(...bar);
  $("memory-labels").replaceChildren(...labels);
  const told = merged(all)
    .map((range) => `${size(range.size)} ${purpose(range)}`)
    .join(", ");
  $("memory").setAttribute("aria-label", `Physical memory, to scale: ${told}`);
}

// Neighbours of one kind are one; what is smaller than a pixel belongs to its neighbour.
function merged(all) {
  const found = [];
  for (const range of all) {
    const before = found.at(-1);
    const same = before && before.kind === range.kind && before.root === range.root;
    if (same && range.start - (before.start + before.size) < 1 << 24)
      before.size = range.start + range.size - before.start;
    else found.push({ ...range });
  }
  return found;
}

const purpose = (range) => (PURPOSE[range.kind] ?? (() => text(range.name) || "memory"))(range);

function rangeElement(range, total, machines) {
  const element = el("span", {
    class: "range",
    "data-kind": text(range.kind),
    title: `${purpose(range)}: ${size(range.size)} at 0x${range.start.toString(16)}`,
  });
  element.style.flex = `${range.size / total} 1 0`;
  if (sideOf(number(range.root))) element.dataset.side = sideOf(range.root);
  for (const vm of machines) {
    for (const extent of extents(vm)) {
      if (extent.start < range.start || extent.start >= range.start + range.size) continue;
      const block = el(
        "span",
        { class: "extent", title: `${vm.name}: ${size(extent.size)} at 0x${extent.start.toString(16)}` },
        vm.name,
      );
      block.style.left = `${((extent.start - range.start) / range.size) * 100}%`;
      block.style.width = `${(extent.size / range.size) * 100}%`;
      block.dataset.extent = vm.name;
      element.append(block);
      if (!blocks.has(vm.name)) blocks.set(vm.name, block);
    }
  }
  return element;
}

function labelElement(range, total) {
  const label = el("span", {}, el("b", {}, size(range.size)), purpose(range));
  label.style.flex = `${range.size / total} 1 0`;
  label.dataset.small = String(range.size / total < 0.12);
  return label;
}

// The sign above a VM's memory: who may run it. It turns once when the word in the arena changes.
function drawOwners(facts, machines) {
  const few = machines.length <= 3;
  const known = new Set(machines.map((vm) => vm.name));
  for (const [name, sign] of owners) {
    if (few && known.has(name)) continue;
    sign.remove();
    owners.delete(name);
  }
  if (!few) return;
  machines.forEach((vm, index) => {
    const block = blocks.get(vm.name);
    if (!block) return;
    const sign =
      owners.get(vm.name) ??
      el(
        "span",
        { class: "owner" },
        el("span", { class: "owner-before" }),
        el("span", { class: "owner-now" }),
      );
    if (!owners.has(vm.name)) $("owners").append(sign);
    owners.set(vm.name, sign);
    const word = vm.owner ? `(root ${vm.owner}, epoch ${vm.epoch})` : `(no owner, epoch ${number(vm.epoch)})`;
    const done = lastDone(facts, vm.name);
    const before =
      done && done.taker === vm.owner && done.epoch === vm.epoch
        ? `(root ${done.giver}, epoch ${done.epoch - 1}) → `
        : "";
    const changed = sign.dataset.word && sign.dataset.word !== word;
    sign.dataset.word = word;
    sign.dataset.side = sideOf(number(vm.owner));
    setText(sign.firstChild, `${machines.length > 1 ? vm.name : "owner"}: ${before}`);
    setText(sign.lastChild, word);
    if (changed) flip(sign);
    place(sign, block, index);
  });
}

// Above its block, and within the bar. Signs of several VMs stand side by side.
function place(sign, block, index) {
  const frame = $("owners").getBoundingClientRect();
  const at = block.getBoundingClientRect();
  const half = sign.offsetWidth / 2;
  const before = [...owners.values()][index - 1];
  const least = (before ? before.offsetLeft + before.offsetWidth / 2 + 8 : 0) + half;
  const wanted = at.left + at.width / 2 - frame.left;
  sign.style.left = `${Math.min(Math.max(wanted, least), Math.max(half, frame.width - half))}px`;
}
