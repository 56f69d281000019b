// SPDX-License-Identifier: GPL-2.0-or-later
// The buttons. What one does is asked of the server each time, for it depends on how things stand; a person
// sees the command first, and is asked again where something is lost.

import { el, setText } from "./words.js";

const $ = (id) => document.getElementById(id);
const HEADER = "Multiroot-Token";
const LOOK_MS = 1500;

export class Actions {
  constructor(token) {
    this.token = token;
    this.buttons = new Map();
    this.shown = "";
    this.running = "";
    this.look();
  }

  async look() {
    const found = await this.ask("actions");
    if (found?.actions) this.draw(found);
    setTimeout(() => this.look(), LOOK_MS);
  }

  // What the server answers, or null if it does not.
  async ask(path, body) {
    const headers = { [HEADER]: this.token, ...(body ? { "Content-Type": "application/json" } : {}) };
    try {
      const answer = await fetch(path, {
        method: body ? "POST" : "GET",
        headers,
        body: body && JSON.stringify(body),
      });
      return await answer.json();
    } catch {
      return null;
    }
  }

  draw({ actions, busy, may_act: mayAct }) {
    const state = JSON.stringify([actions, busy, mayAct, this.running]);
    if (state === this.shown) return;
    this.shown = state;
    $("control").hidden = !actions.length;
    setText(
      $("control-text"),
      mayAct
        ? "Each button runs the command that you would type. You see it first; nothing happens until you say so."
        : "This page may only look. To act, open the address that `multiroot lab ui` has printed: it ends in a token.",
    );
    for (const action of actions) {
      const button = this.buttons.get(action.name) ?? this.make(action.name);
      setText(button, action.title);
      button.title = action.text;
      button.className = action.loses ? "risky" : "";
      button.disabled = !mayAct || Boolean(busy || this.running) || !action.possible;
      button.action = action;
    }
    if (busy && !this.running) this.say(`${busy} runs`);
  }

  make(name) {
    const button = el("button", { type: "button", "data-action": name });
    button.addEventListener("click", () => this.confirm(button.action));
    this.buttons.set(name, button);
    $("buttons").append(button);
    return button;
  }

  async confirm(action) {
    const dialog = $("ask");
    setText($("ask-title"), action.title);
    setText($("ask-text"), action.text);
    setText($("ask-loss"), action.loses);
    $("ask-loss").hidden = !action.loses;
    setText($("ask-command"), action.command);
    setText($("ask-yes"), action.loses ? "Do it, and lose that" : "Do it");
    $("ask-dry").hidden = false;
    setText($("ask-dry"), "What it would do is being worked out…");
    dialog.returnValue = "no";
    dialog.showModal();
    dialog.onclose = () => dialog.returnValue === "yes" && this.act(action);
    const tried = await this.ask(`actions/${action.name}`, { dry_run: true });
    // By then it may be another button's turn.
    if ($("ask-title").textContent === action.title)
      setText($("ask-dry"), tried?.said || tried?.error || "The server does not answer.");
  }

  async act(action) {
    this.running = action.name;
    this.say(`$ ${action.command}`);
    for (const button of this.buttons.values()) button.disabled = true;
    const done = await this.ask(`actions/${action.name}`, { confirmed: true });
    this.running = "";
    const ended = done?.error
      ? `${done.error}${done.hint ? ` (${done.hint})` : ""}`
      : done && `${done.said}\nexit code ${done.code}`;
    this.say(`$ ${action.command}\n${ended ?? "The server does not answer."}`);
    this.shown = "";
  }

  say(words) {
    $("said").hidden = false;
    setText($("said"), words);
  }
}
