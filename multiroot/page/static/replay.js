// SPDX-License-Identifier: GPL-2.0-or-later
// Plays a recording: JSON lines, each an event with its time. To go back it plays from the beginning, unseen.

export const MOST_EVENTS = 300_000;

// The events of a recording, in order; lines that are none are counted.
export function parse(lines) {
  const events = [];
  let header = {};
  let refused = 0;
  for (const line of lines.split("\n")) {
    if (!line.trim()) continue;
    if (events.length >= MOST_EVENTS) {
      refused += 1;
      continue;
    }
    try {
      const event = JSON.parse(line);
      if (event && Number.isInteger(event.mrlog)) header = event;
      else if (event && Number.isFinite(event.at)) events.push(event);
      else refused += 1;
    } catch {
      refused += 1;
    }
  }
  events.sort((a, b) => a.at - b.at);
  return { header, events, refused };
}

export class Player {
  constructor(model, events, onChange) {
    this.model = model;
    this.events = events;
    this.onChange = onChange;
    this.first = events[0]?.at ?? 0;
    this.last = events.at(-1)?.at ?? 0;
    this.speed = 1;
    this.playing = false;
    this.seek(0);
  }

  get length() {
    return this.last - this.first;
  }

  get position() {
    return this.now - this.first;
  }

  get over() {
    return this.now >= this.last;
  }

  // Go to a place, in ns from the beginning.
  seek(position) {
    const target = this.first + Math.min(Math.max(0, position), this.length);
    if (this.now === undefined || target < this.now) {
      this.model.reset();
      this.next = 0;
    }
    this.now = target;
    this.catchUp();
  }

  toggle() {
    if (!this.playing && this.over) this.seek(0);
    this.playing = !this.playing;
    this.onChange();
  }

  // `passed` ms of the viewer's time have gone by.
  advance(passed) {
    if (!this.playing) return;
    this.now = Math.min(this.last, this.now + passed * 1e6 * this.speed);
    this.catchUp();
    if (this.over) this.playing = false;
  }

  catchUp() {
    while (this.next < this.events.length && this.events[this.next].at <= this.now) {
      this.model.take(this.events[this.next]);
      this.next += 1;
    }
    this.onChange();
  }
}
