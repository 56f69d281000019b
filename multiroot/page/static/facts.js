// SPDX-License-Identifier: GPL-2.0-or-later
// The facts as a browser keeps them: one document, strips of points, what is said. All of it is bounded, and
// whatever does not look like an event is counted and left out.

export const STRIP = 6000; // points of a strip: a minute of ticks
export const STRIPS = 64;
const MOMENTS = 32;
const AROUND = 1_500_000_000; // ns of points that are kept on both sides of a handoff

const isObject = (value) => typeof value === "object" && value !== null && !Array.isArray(value);

// JSON merge patch, RFC 7386. Shares what has not changed with the old document.
export function applied(document, patch) {
  const result = { ...document };
  for (const [name, value] of Object.entries(patch)) {
    if (name === "__proto__") continue;
    if (value === null) delete result[name];
    else if (isObject(value)) result[name] = applied(isObject(result[name]) ? result[name] : {}, value);
    else result[name] = value;
  }
  return result;
}

// The object of that name if it is one; else an empty one.
export const part = (document, name) => (isObject(document?.[name]) ? document[name] : {});
export const text = (value) => (typeof value === "string" ? value : "");
export const number = (value) => (Number.isFinite(value) ? value : 0);
export const list = (value) => (Array.isArray(value) ? value : []);

const isPoint = (point) =>
  Array.isArray(point) && point.length >= 2 && point.length <= 3 && point.every(Number.isFinite);

export class Model {
  constructor() {
    this.reset();
    this.refused = 0;
  }

  reset() {
    this.document = {};
    this.strips = new Map();
    this.moments = new Map(); // of handoffs: ticks, a card's frames, pings and web answers around them
    this.places = new Map(); // of VMs: where their memory was when they were first seen
    this.said = "";
    this.saidAt = 0;
    this.alarmedAt = 0; // when a kernel was last seen to have crashed, or to be silent
    this.troubled = new Set();
    this.at = 0;
    this.first = 0;
    this.events = 0;
  }

  // Take one event; false if it is none.
  take(event) {
    if (!isObject(event) || !Number.isFinite(event.at)) return this.refuse();
    if (isObject(event.state)) {
      this.document = event.state;
      this.strips.clear();
    } else if (isObject(event.patch)) this.document = applied(this.document, event.patch);
    else if (isObject(event.points)) this.addPoints(event.points);
    else if (typeof event.say === "string") [this.said, this.saidAt] = [event.say, event.at];
    else return this.refuse();
    this.first ||= event.at;
    // A whole document may be of another machine, whose clock began anew.
    this.at = event.state ? event.at : Math.max(this.at, event.at);
    this.events += 1;
    if (!event.points) {
      this.notePlaces();
      this.noteTrouble();
    }
    this.keepMoments();
    return true;
  }

  refuse() {
    this.refused += 1;
    return false;
  }

  addPoints(strips) {
    for (const [name, points] of Object.entries(strips)) {
      const good = list(points).filter(isPoint);
      if (!this.strips.has(name)) {
        if (this.strips.size >= STRIPS) this.strips.delete(this.strips.keys().next().value);
        this.strips.set(name, []);
      }
      const strip = this.strips.get(name);
      const ordered = !strip.length || !good.length || good[0][0] >= strip[strip.length - 1][0];
      strip.push(...good.slice(-STRIP));
      // Two roots tell of one guest, and the one's last points can come after the other's first.
      if (!ordered) strip.sort((a, b) => a[0] - b[0]);
      if (strip.length > STRIP) strip.splice(0, strip.length - STRIP);
    }
  }

  notePlaces() {
    const vms = part(this.document, "vms");
    for (const [name, vm] of Object.entries(vms)) {
      const where = extents(vm)
        .map((each) => `${each.start}+${each.size}`)
        .join(" ");
      if (where && !this.places.has(name)) this.places.set(name, where);
    }
    for (const name of this.places.keys()) if (!(name in vms)) this.places.delete(name);
  }

  noteTrouble() {
    const now = new Set(
      Object.entries(part(this.document, "roots"))
        .filter(([, root]) => ["crashed", "unknown"].includes(root?.state))
        .map(([key, root]) => `${key} ${root.state}`),
    );
    if ([...now].some((each) => !this.troubled.has(each))) this.alarmedAt = this.at;
    this.troubled = now;
  }

  keepMoments() {
    for (const [key, handoff] of Object.entries(part(this.document, "handoffs"))) {
      const middle = number(handoff?.stopped_ns);
      const known = this.moments.get(key);
      if (!middle || known?.full) continue;
      const end = number(handoff.resumed_ns) + AROUND;
      const around = (kind) =>
        this.strip(`${kind}/${handoff.vm}`).filter((p) => p[0] > middle - AROUND && p[0] < end);
      const points = around("ticks");
      if (known && points.length < known.points.length) continue;
      const kept = { points, frames: around("frames"), pings: around("ping"), web: around("web") };
      this.moments.set(key, { ...kept, full: this.at > end + 1e9 });
      if (this.moments.size > MOMENTS) this.moments.delete(this.moments.keys().next().value);
    }
  }

  strip(name) {
    return this.strips.get(name) ?? [];
  }
}

export const extents = (vm) =>
  list(vm?.extents).filter((each) => isObject(each) && Number.isFinite(each.start));

// Of a guest's ticks: how many were seen, how many numbers are missing among them, how many came twice.
export function continuity(points) {
  const counters = points.map((point) => point[1]);
  const distinct = new Set(counters);
  if (!distinct.size) return { seen: 0, missing: 0, repeated: 0 };
  let least = Infinity;
  let most = -Infinity;
  for (const counter of distinct) {
    least = Math.min(least, counter);
    most = Math.max(most, counter);
  }
  return {
    seen: distinct.size,
    missing: most - least + 1 - distinct.size,
    repeated: counters.length - distinct.size,
  };
}

// The largest distance of two neighbouring ticks: {from, to} in ns, or null.
export function largestGap(points) {
  let found = null;
  for (let i = 1; i < points.length; i += 1) {
    if (!found || points[i][0] - points[i - 1][0] > found.to - found.from) {
      found = { from: points[i - 1][0], to: points[i][0] };
    }
  }
  return found;
}
