// SPDX-License-Identifier: GPL-2.0-or-later
// The strips: what the guest and those who talk to it have said, on the machine-wide clock. One goes along with
// the time, one keeps the moment of the last handoff.

import { largestGap, number, part } from "./facts.js";
import { blackout, gapOf, lastDone, lastHandoff, sideOf } from "./story.js";
import { ms, setText, svg } from "./words.js";

const $ = (id) => document.getElementById(id);
const WINDOW = 2e9; // ns that the moving strip shows
const BEHIND = 3e8; // points come in bundles: so far the strip is behind, so that it moves evenly
const ROWS = [
  ["ticks", "ticks"],
  ["ping", "pings"],
  ["web", "web answers"],
  ["frames", "frames of its card"],
];
const BARS = ["ticks", "frames"];
const FEWEST = 0.2; // of a bar's height: frames that came one by one are seen, too

const rem = () => parseFloat(getComputedStyle(document.documentElement).fontSize);

function begin(drawing, label) {
  const { width, height } = drawing.getBoundingClientRect();
  drawing.setAttribute("viewBox", `0 0 ${Math.max(1, width)} ${Math.max(1, height)}`);
  drawing.setAttribute("aria-label", label);
  return { width, height, unit: rem() };
}

const rowsOf = (model, vm) =>
  ROWS.filter(([kind]) => kind === "ticks" || model.strip(`${kind}/${vm}`).length);

export function drawNow(model, time, vm) {
  const now = time - BEHIND;
  const drawing = $("now-svg");
  const place = begin(
    drawing,
    vm ? `What ${vm.name} and those who talk to it said in the last two seconds` : "Nothing yet",
  );
  if (!vm) {
    setText($("now-note"), "");
    return drawing.replaceChildren(inTheMiddle(place, "No guest runs yet."));
  }
  const rows = rowsOf(model, vm.name);
  const x = (at) => ((at - now + WINDOW) / WINDOW) * place.width;
  const parts = [];
  const from = now - WINDOW;
  layout(place, rows).forEach(({ kind, label, top, high }) => {
    const points = between(model.strip(`${kind}/${vm.name}`), from, now);
    parts.push(...marks(kind, points, x, top, high, number(vm.owner)));
    parts.push(labelAt(place, label, top, high));
  });
  const ticks = between(model.strip(`ticks/${vm.name}`), from, now);
  const last = ticks.at(-1);
  const frames = vm.frames ? `; ${framesSeen(vm.frames)}` : "";
  setText(
    $("now-note"),
    `${rows.map(([, label]) => label).join(", ")}; 2 s, seen from outside${last ? `; tick ${last[1]}` : ""}${frames}`,
  );
  const seen = rows.length > 1 || model.strip(`ticks/${vm.name}`).length;
  drawing.replaceChildren(...(seen ? parts : [inTheMiddle(place, "No tick has been seen yet.")]));
  return undefined;
}

function inTheMiddle(place, words) {
  const told = svg("text", {
    class: "beat-empty",
    x: place.width / 2,
    y: place.height / 2,
    "text-anchor": "middle",
    "dominant-baseline": "middle",
  });
  told.textContent = words;
  return told;
}

// The strip's rows; the ticks get the most room.
function layout({ height, unit }, rows) {
  const small = Math.min(unit * 1.25, height / (rows.length + 1));
  const gap = unit * 0.2;
  const first = height - small * (rows.length - 1) - gap;
  return rows.map(([kind, label], index) => ({
    kind,
    label,
    top: index ? first + small * (index - 1) + gap / 2 : gap,
    high: (index ? small : first) - gap,
  }));
}

function labelAt({ unit }, label, top, high) {
  const text = svg("text", {
    class: "beat-label",
    x: unit * 0.4,
    y: top + Math.min(high, unit) - unit * 0.15,
  });
  text.textContent = label;
  text.setAttribute("paint-order", "stroke");
  text.style.stroke = "var(--surface)";
  text.style.strokeWidth = "0.3rem";
  return text;
}

// Points between two moments; they are in order.
export function between(points, from, to) {
  let low = 0;
  let high = points.length;
  while (low < high) {
    const middle = (low + high) >> 1;
    if (points[middle][0] < from) low = middle + 1;
    else high = middle;
  }
  const found = [];
  for (let i = low; i < points.length && points[i][0] <= to; i += 1) found.push(points[i]);
  return found;
}

// What a guest has counted of its own card's frames.
export const framesSeen = (frames) =>
  `${number(frames?.count)} frames, ${number(frames?.lost)} lost${number(frames?.again) ? `, ${frames.again} out of order` : ""}`;

// How high a bar is, from 0 to 1: frames are counted all in all, and a bar is as high as many came since the last.
function heights(kind, points) {
  if (kind !== "frames") return points.map(() => 1);
  const came = points.map((point, index) => (index ? point[1] - points[index - 1][1] : 0));
  const most = Math.max(...came, 1);
  return came.map((each) => FEWEST + (1 - FEWEST) * Math.max(0, each / most));
}

// Ticks are bars in the colour of the kernel that ran the guest; answers are dots, higher when they took longer.
function marks(kind, points, x, top, high, owner) {
  if (!BARS.includes(kind)) {
    const most = Math.max(...points.map((point) => point[1]), 1);
    return points.map(([at, value]) =>
      svg("circle", {
        class: "answer",
        cx: x(at),
        cy: top + high - (value / most) * high * 0.7 - high * 0.1,
        r: Math.max(1.5, high / 7),
      }),
    );
  }
  const bars = { left: "", right: "", none: "" };
  const tall = heights(kind, points);
  points.forEach(([at, , root], index) => {
    const side = sideOf(root ?? owner) || "none";
    bars[side] += `M${x(at).toFixed(1)} ${(top + high).toFixed(1)}v${(-high * tall[index]).toFixed(1)}`;
  });
  return Object.entries(bars)
    .filter(([, d]) => d)
    .map(([side, d]) => svg("path", { class: `tick-${side}`, d, "stroke-width": Math.max(1, rem() / 11) }));
}

// The last handoff of this VM, with the guest's gap and the VMM's blackout measured out.
export function drawMoment(model, vm) {
  const drawing = $("moment-svg");
  const handoff = vm && lastDone(model.document, vm.name);
  const kept = handoff && model.moments.get(handoff.key);
  const place = begin(drawing, handoff ? `The handoff of ${vm.name}` : "No handoff yet");
  if (!kept?.points.length || !blackout(handoff)) {
    const crossed = vm && lastHandoff(model.document, vm.name)?.taker === vm.owner;
    const told = handoff
      ? "This guest prints no ticks."
      : crossed
        ? "It has crossed; the figures are on their way."
        : "Nothing has crossed yet.";
    setText($("moment-note"), "");
    return drawing.replaceChildren(inTheMiddle(place, told));
  }
  const gap = largestGap(
    kept.points.filter(([at]) => at > handoff.stopped_ns - 1e9 && at < handoff.resumed_ns + 1e9),
  ) ?? {
    from: handoff.stopped_ns,
    to: handoff.resumed_ns,
  };
  const told = gapOf(handoff, kept.points);
  const wide = Math.max(6 * (gap.to - gap.from), 6 * blackout(handoff), 5e8);
  const middle = (gap.from + gap.to) / 2;
  const x = (at) => ((at - middle) / wide + 0.5) * place.width;
  setText($("moment-note"), `root ${handoff.giver} → root ${handoff.taker}; ${ms(wide)} wide`);
  const seen = { from: middle - wide / 2, to: middle + wide / 2 };
  const cut = (points) => between(points, seen.from, seen.to);
  const frames = cut(kept.frames);
  drawing.replaceChildren(
    ...momentParts(place, x, gap, told, handoff, cut(kept.points), frames),
    ...answers(place, x, [...cut(kept.pings), ...cut(kept.web)]),
  );
  return undefined;
}

// What the guest answered meanwhile, to pings and to web requests: in the row of the blackout's line.
function answers({ height, unit }, x, points) {
  if (!points.length) return [];
  const row = belowTicks(height, unit);
  return [
    ...points.map(([at]) =>
      svg("circle", { class: "answer", cx: x(at), cy: row, r: Math.max(1.5, unit / 7) }),
    ),
    labelAt({ unit }, "answers", row - unit * 0.55, unit),
  ];
}

const ticksHigh = (height, unit) => height - unit * 2.3;
const belowTicks = (height, unit) => ticksHigh(height, unit) + unit * 0.55;

function momentParts({ width, height, unit }, x, gap, told, handoff, points, frames) {
  const high = ticksHigh(height, unit);
  const above = frames.length ? high * 0.62 : high; // what the ticks get; the card's frames have the rest
  const [left, right] = [x(gap.from), x(gap.to)];
  const middle = (left + right) / 2;
  const text = (kind, at, y, words) => {
    const element = svg("text", { class: kind, x: at, y, "text-anchor": "middle" });
    element.textContent = words;
    return element;
  };
  const [stopped, resumed] = [x(handoff.stopped_ns), x(handoff.resumed_ns)];
  const below = belowTicks(height, unit);
  return [
    svg("rect", { class: "beat-gap", x: left, y: 0, width: Math.max(1, right - left), height: high }),
    ...marks("ticks", points, x, unit * 0.25, above - unit * 0.25, handoff.taker),
    ...(frames.length ? frameRow(frames, x, above, high, unit, handoff) : []),
    ...(frames.length
      ? [text("beat-gap-text", middle, above / 2 + unit * 0.4, ms(told))]
      : [
          text("beat-gap-text", middle, above / 2 + unit * 0.15, ms(told)),
          text("beat-note", middle, above / 2 + unit * 1.15, "no tick"),
        ]),
    svg("path", {
      class: "beat-gap-line",
      d: `M${stopped} ${below - unit * 0.3}v${unit * 0.6}M${resumed} ${below - unit * 0.3}v${unit * 0.6}M${stopped} ${below}H${resumed}`,
    }),
    text(
      "beat-note",
      Math.min(Math.max((stopped + resumed) / 2, unit * 6), width - unit * 6),
      height - unit * 0.45,
      `no vCPU ran: ${ms(blackout(handoff))}`,
    ),
  ];
}

// What the card got meanwhile: it filled its ring while the guest stood still.
function frameRow(frames, x, top, bottom, unit, handoff) {
  return [
    ...marks("frames", frames, x, top + unit * 0.2, bottom - top - unit * 0.2, handoff.taker),
    labelAt({ unit }, "frames of its card", top + unit * 0.2, bottom - top),
  ];
}

// Whether the moving strip shows points of that kind at all.
export const hasStream = (facts, kind) =>
  Object.values(part(facts, "streams")).some((stream) => stream?.kind === kind);
