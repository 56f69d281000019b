// SPDX-License-Identifier: GPL-2.0-or-later
// The live stream of the server. When it is silent or gone, the page is told, and it is asked for again until
// it is back; it then begins with the whole document.

const SILENT_MS = 6000; // the server says something at least every 2 s

export class Feed {
  constructor(address, onEvent, onLink) {
    this.address = address;
    this.onEvent = onEvent;
    this.onLink = onLink;
    this.refused = 0;
    this.open();
  }

  open() {
    this.source?.close();
    this.source = new EventSource(this.address);
    this.source.onmessage = (message) => this.heard(message.data);
    this.source.addEventListener("idle", () => this.alive());
    // A browser asks again by itself after most failures, but not after each.
    this.source.onerror = () => {
      this.onLink("lost");
      if (this.source.readyState === EventSource.CLOSED) this.later();
    };
    this.alive(false);
  }

  heard(data) {
    let event;
    try {
      event = JSON.parse(data);
    } catch {
      this.refused += 1;
      return;
    }
    this.onEvent(event);
    this.alive();
  }

  alive(tell = true) {
    if (tell) this.onLink("live");
    clearTimeout(this.timer);
    this.timer = setTimeout(() => {
      this.onLink("lost");
      this.open();
    }, SILENT_MS);
  }

  later() {
    clearTimeout(this.timer);
    this.timer = setTimeout(() => this.open(), 1000);
  }
}
