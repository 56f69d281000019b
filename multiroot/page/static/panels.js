// SPDX-License-Identifier: GPL-2.0-or-later
// Steps, figures, consoles, the comparison, and the closing panel.

import { list, number, part, text } from "./facts.js";
import { blackout, checks, gapOf, handoffs, lastDone, roots, shortRelease, sideOf, steps } from "./story.js";
import { el, kilobytes, ms, setData, setText } from "./words.js";

const $ = (id) => document.getElementById(id);
const LINES = 8;
const drawn = new Map();

// Draw only what has changed since it was last drawn.
function changed(name, state) {
  const now = JSON.stringify(state);
  if (drawn.get(name) === now) return false;
  drawn.set(name, now);
  return true;
}

const EDGE = {
  "": "",
  begin: "runs",
  done: "done",
  undo: "is taken back",
  undone: "taken back",
  failed: "failed",
};

export function drawSteps(facts) {
  const update = part(facts, "update");
  const all = steps(facts);
  if (!changed("steps", [all, update.no_return, update.error])) return;
  const last = all.find(({ name }) => name === update.no_return);
  const open = !last || ["", "undone"].includes(last.edge);
  const parts = [];
  all.forEach(({ name, edge, undo }) => {
    if (name === update.no_return)
      parts.push(
        el(
          "li",
          { class: "no-return", "data-passed": String(!open) },
          open ? "point of no return" : "no way back from here",
        ),
      );
    const back = open && edge === "done" && undo;
    const failed = edge === "failed" && update.error ? `: ${update.error}` : "";
    const word = el(
      "span",
      { class: "step-word", title: `${EDGE[edge] ?? edge}${failed}` },
      back ? "↩ can be undone" : `${EDGE[edge] ?? edge}${failed}` || "\u00a0",
    );
    const shown = edge === "undone" ? "" : edge;
    parts.push(
      el(
        "li",
        { class: "step", "data-edge": shown, "data-back": String(back) },
        el("span", { class: "step-name" }, name),
        word,
      ),
    );
  });
  $("steps").replaceChildren(...parts);
}

const NONE = "–";

// None as long as nothing has crossed: there is nothing to give figures of.
export function figures(model, vm) {
  const done = vm && lastDone(model.document, vm.name);
  if (!done) return [];
  const points = model.moments.get(done.key)?.points ?? [];
  const copied = done.ram_bytes_copied;
  return [
    ["copied", Number.isFinite(copied) ? `${copied} bytes` : NONE, "of RAM copied: memory stays"],
    [
      "state",
      number(done.device_state_bytes) ? kilobytes(done.device_state_bytes) : NONE,
      "of device state: all that moves",
    ],
    ["blackout", blackout(done) ? ms(blackout(done)) : NONE, "without a vCPU (the VMM's blackout)"],
    ["gap", gapOf(done, points) ? ms(gapOf(done, points)) : NONE, "from tick to tick (the guest's gap)"],
  ];
}

export function drawFigures(model, vm) {
  const all = figures(model, vm);
  if (!changed("figures", all)) return;
  if (!all.length) {
    const coming = "Once a VM has crossed: RAM that was copied, device state that was sent, the VMM's blackout, the guest's gap.";
    $("figures").replaceChildren(el("div", { class: "figure coming" }, el("dt", {}, coming)));
    return;
  }
  $("figures").replaceChildren(
    ...all.map(([name, value, what]) => {
      const [amount, unit = ""] = value.split(" ");
      const shown = el("dd", { "data-fact": name }, amount, unit ? el("small", {}, ` ${unit}`) : "");
      return el(
        "div",
        { class: "figure", "data-known": value === NONE ? "no" : "yes" },
        el("dt", {}, what),
        shown,
      );
    }),
  );
}

export function drawConsoles(facts) {
  const all = roots(facts).filter((root, index, every) => index >= every.length - 2);
  if (
    !changed(
      "consoles",
      all.map((root) => [root.number, root.kernel_release, root.console, root.splats]),
    )
  )
    return;
  $("consoles").replaceChildren(
    ...all.map((root) => {
      const splats = list(root.splats).filter((line) => typeof line === "string");
      const lines = list(root.console)
        .filter((line) => typeof line === "string")
        .slice(-LINES);
      const missing = splats.filter((line) => !lines.includes(line)).slice(-LINES);
      const rows = [...missing, ...lines].map((line) =>
        el("span", { class: splats.includes(line) ? "splat" : "" }, `${line}\n`),
      );
      const title = `root ${root.number}${root.kernel_release ? `, Linux ${root.kernel_release}` : ""}${splats.length ? ` (${splats.length} alarming)` : ""}`;
      return el(
        "article",
        { class: "console", "data-side": sideOf(root.number) },
        el("h3", {}, title),
        el("pre", { tabIndex: 0 }, ...rows),
      );
    }),
  );
}

// When a bench began, as it says itself (ISO 8601, UTC), to the minute.
const measured = (started) => {
  const found = /^(\d{4}-\d\d-\d\d)T(\d\d:\d\d)/.exec(started);
  return found ? ` (${found[1]}, ${found[2]} UTC)` : "";
};

// The same run's kexec + PMEM, if a bench has measured it: to scale, so that it leaves the screen.
export function drawCompare(bench, model) {
  const ours = number(bench?.ours_ns);
  const kexec = number(bench?.kexec_ns);
  $("compare").hidden = !(ours && kexec);
  if (!ours || !kexec || !changed("compare", [bench, model.first])) return;
  setText(
    $("compare-text"),
    `Both in one run of the bench, on one machine, with the same VM${measured(text(bench.started))}. ` +
      `A VM that is kept in memory while the kernel is replaced by kexec stands ${Math.round(kexec / ours)} times as long.`,
  );
  const row = (title, kind, width) => {
    const bar = el("div", { class: `compare-bar ${kind}` });
    if (width) bar.style.width = width;
    return el("div", { class: "compare-row" }, el("span", {}, title), bar);
  };
  const scale = 3; // rem for our blackout
  $("compare-bars").replaceChildren(
    row(`handed over: ${ms(ours)}`, "", `${scale}rem`),
    row(`kexec + PMEM: ${ms(kexec)}`, "off", ""),
    el(
      "p",
      { class: "compare-note" },
      `To this scale the second bar is ${Math.round((scale * kexec) / ours / 80)} screens long. It leaves yours at the right.`,
    ),
  );
}

// The board that a guest keeps; its frame says which kernel serves it. It is asked of the guest only when shown.
export function drawBoard(facts, board) {
  const vm = part(part(facts, "vms"), text(board?.vm));
  $("board").hidden = !number(board?.port);
  if ($("board").hidden) return;
  const root = part(part(facts, "roots"), String(vm.owner));
  $("board-frame").dataset.side = sideOf(number(vm.owner));
  const kernel = text(root.kernel_release)
    ? `Linux ${shortRelease(root.kernel_release)} (root ${vm.owner})`
    : `root ${number(vm.owner)}`;
  setText(
    $("board-text"),
    `This board is in the memory of ${board.vm} and nowhere else. ` +
      `All browsers see the same one. ${board.vm} runs in ${kernel}, so that kernel serves it now.`,
  );
}

export function showBoard(board) {
  const frame = $("board-frame");
  frame.hidden = !frame.hidden;
  setText($("board-show"), frame.hidden ? "Show the board" : "Hide the board");
  frame.src = frame.hidden ? "about:blank" : `http://127.0.0.1:${board.port}/`;
}

const WORD = { true: "held", false: "did not hold", "": "not seen yet" };

export function drawClosing(model, lab) {
  const found = checks(model);
  const shown = handoffs(model.document).map((each) => [
    each,
    model.moments.get(each.key)?.points.length ?? 0,
  ]);
  if (!changed("closing", [found, shown, lab])) return;
  const bad = found.filter((each) => each.held === false).length;
  const open = found.filter((each) => each.held === "").length;
  const verdict = bad
    ? `${bad} of ${found.length} claims did not hold.`
    : open || !shown.length
      ? "So far everything held."
      : "Everything held.";
  setText($("verdict"), found.length > 3 ? verdict : "Nothing to judge yet.");
  $("held").replaceChildren(
    ...found.map((each) =>
      el(
        "li",
        { "data-held": each.held === "" ? "open" : each.held ? "yes" : "no" },
        el("span", { class: "word" }, WORD[String(each.held)]),
        el("span", {}, el("b", {}, each.claim), el("small", {}, each.seen)),
      ),
    ),
  );
  drawReport(model);
  setText($("commands"), commands(model.document, lab).join("\n"));
}

function drawReport(model) {
  const head = [
    "VM",
    "from",
    "to",
    "epoch",
    "RAM copied",
    "device state",
    "blackout",
    "guest's gap",
    "how it ended",
  ];
  const rows = handoffs(model.document).map((each) => [
    each.vm,
    `root ${each.giver}`,
    `root ${each.taker}`,
    String(each.epoch),
    Number.isFinite(each.ram_bytes_copied) ? `${each.ram_bytes_copied} B` : NONE,
    number(each.device_state_bytes) ? `${each.device_state_bytes} B` : NONE,
    blackout(each) ? ms(blackout(each)) : NONE,
    gapOf(each, model.moments.get(each.key)?.points ?? [])
      ? ms(gapOf(each, model.moments.get(each.key)?.points ?? []))
      : NONE,
    text(each.error) || text(each.stage),
  ]);
  $("report").replaceChildren(
    el("thead", {}, el("tr", {}, ...head.map((word) => el("th", { scope: "col" }, word)))),
    el(
      "tbody",
      {},
      ...(rows.length ? rows : [["none yet"]]).map((row) =>
        el("tr", {}, ...row.map((word) => el("td", {}, word))),
      ),
    ),
  );
}

// What a person types to see all this again, with the kernels that were seen.
export function commands(facts, lab) {
  const [first, second] = roots(facts).filter((root) => text(root.kernel_release));
  const name = text(lab) || text(part(facts, "machine").name);
  const named = name && name !== "default" ? ` --name ${name}` : "";
  const vm = Object.keys(part(facts, "vms"))[0] ?? "vm0";
  const memory = number(part(part(facts, "vms"), vm).memory_bytes);
  return [
    `multiroot lab up${named} --kernel ${labKernel(first)}`,
    `multiroot lab ui${named} &`,
    `multiroot vm run ${vm}${memory ? ` --memory ${memory / 2 ** 20}M` : ""}`,
    `multiroot root launch --kernel ${labKernel(second)}`,
    `multiroot handoff ${vm}`,
    "multiroot update resume --until retire",
  ];
}

// The lab's name for a kernel of that release (qemu-lab/kernels.toml).
function labKernel(root) {
  const [major, minor] = text(root?.kernel_release)
    .split(".")
    .map((word) => parseInt(word, 10));
  if (major === 6 && (minor === 1 || minor === 12)) return `${major}.${minor}`;
  return major ? "newest" : "6.12";
}

export function setLink(state, words) {
  setData($("link"), "state", state);
  setText($("link"), words);
}
