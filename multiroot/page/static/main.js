// SPDX-License-Identifier: GPL-2.0-or-later
// Puts the page together: where facts come from (a lab, or a recording), and what is drawn when.

import { Actions } from "./actions.js";
import { Model, part } from "./facts.js";
import { Feed } from "./feed.js";
import { Machine } from "./machine.js";
import { drawMemory } from "./memory.js";
import { setPace } from "./motion.js";
import {
  drawBoard,
  drawClosing,
  drawCompare,
  drawConsoles,
  drawFigures,
  drawSteps,
  setLink,
  showBoard,
} from "./panels.js";
import { parse, Player } from "./replay.js";
import { alarm, detail, happening, seat, subject } from "./story.js";
import { drawMoment, drawNow } from "./strips.js";
import { setText } from "./words.js";

const $ = (id) => document.getElementById(id);
const FRAME_MS = 33;
const AHEAD_NS = 1.5e9; // so far the clock is run on when nothing new comes

const model = new Model();
const place = { chosen: "", lab: "", bench: {}, lost: 0 };
const machine = new Machine((name) => {
  place.chosen = name === place.chosen ? "" : name;
  dirty = true;
});
let dirty = true;
let player = null;
let heardAt = performance.now();

function now() {
  if (player) return player.now;
  return model.at + Math.min((performance.now() - heardAt) * 1e6, AHEAD_NS);
}

function drawAll() {
  const facts = model.document;
  seat(facts);
  const vm = subject(facts, place.chosen);
  const told = happening(facts, now());
  const trouble = model.alarmedAt > model.saidAt ? alarm(facts, now()) : "";
  const headline = trouble || model.said || told;
  setText($("headline"), headline);
  $("headline").classList.toggle("long", headline.length > 62);
  setText($("subline"), [headline === told ? "" : told, detail(facts, vm)].filter(Boolean).join(" "));
  const shown = part(facts, "machine");
  setText($("subject"), shown.name ? `lab ${shown.name}` : "");
  $("emulated").hidden = shown.accelerator !== "tcg";
  drawMemory(facts);
  machine.draw(facts, now(), vm?.name ?? "");
  drawMemory(facts);
  drawSteps(facts);
  drawFigures(model, vm);
  drawMoment(model, vm);
  drawConsoles(facts);
  drawCompare(place.bench, model);
  drawBoard(facts, place.board);
  drawClosing(model, place.lab);
  document.body.dataset.events = String(model.events);
  document.body.dataset.refused = String(model.refused + (place.feed?.refused ?? 0) + (place.refused ?? 0));
}

let before = performance.now();
let drawnAt = 0;

function frame(time) {
  requestAnimationFrame(frame);
  if (time - drawnAt < FRAME_MS) return;
  player?.advance(time - before);
  before = time;
  drawnAt = time;
  if (dirty) {
    dirty = false;
    drawAll();
  }
  drawNow(model, now(), subject(model.document, place.chosen));
  machine.drawTethers();
  if (player) drawPlayer();
}

// The lab

function live() {
  place.feed = new Feed(
    "facts",
    (event) => {
      heardAt = performance.now();
      dirty = model.take(event) || dirty;
    },
    (state) => {
      if (state === "lost" && !place.lost) place.lost = Date.now();
      if (state === "live") place.lost = 0;
      setLink(state, state === "live" ? "live" : "no connection");
      $("banner").hidden = state !== "lost";
      if (state === "lost") {
        const since = new Date(place.lost).toLocaleTimeString();
        setText(
          $("banner"),
          `The server does not answer. What you see is as it was at ${since}. The page goes on by itself when the server is back.`,
        );
      }
    },
  );
  // Uptimes go on though nothing changes.
  setInterval(() => {
    dirty = true;
  }, 1000);
  $("board-show").addEventListener("click", () => showBoard(place.board));
  lookForBoard();
}

// A guest that keeps a board may come later, or be another one.
async function lookForBoard() {
  try {
    place.board = await fetched("board", "json");
  } catch {
    // The server is away; the banner says so.
  }
  setTimeout(lookForBoard, 3000);
}

// A recording

function replay(lines) {
  const { header, events, refused } = parse(lines);
  place.refused = refused;
  setLink("recording", header.title ? `recording: ${header.title}` : "recording");
  player = new Player(model, events, () => {
    dirty = true;
  });
  $("player").hidden = false;
  $("play").addEventListener("click", () => player.toggle());
  $("seek").addEventListener("input", (event) => seek((Number(event.target.value) / 1000) * player.length));
  $("speed").addEventListener("change", (event) => setSpeed(Number(event.target.value)));
  const wanted = new URLSearchParams(location.hash.slice(1));
  if (wanted.has("speed")) setSpeed(Number(wanted.get("speed")) || 1);
  seek((Number(wanted.get("at")) || 0) * 1e9);
  if (!wanted.has("paused")) player.toggle();
}

function setSpeed(speed) {
  player.speed = Math.min(64, Math.max(0.01, speed));
  setPace(Math.min(4, Math.max(0.1, 1 / player.speed)));
  $("speed").value = String(player.speed);
}

function seek(position) {
  player.seek(position);
}

function drawPlayer() {
  setText($("play"), player.playing ? "pause" : player.over ? "again" : "play");
  setText($("time"), `${(player.position / 1e9).toFixed(1)} of ${(player.length / 1e9).toFixed(1)} s`);
  if (document.activeElement !== $("seek") || player.playing)
    $("seek").value = String((player.position / (player.length || 1)) * 1000);
}

// Keys: t changes the theme; in a recording, space plays and arrows go to and fro.

function onKey(event) {
  const typing = event.target.closest("input, select, textarea, dialog, button, a, pre");
  if (event.ctrlKey || event.altKey || event.metaKey) return;
  if (event.key === "t" && !event.target.closest("input, select, textarea")) changeTheme();
  if (!player || typing) return;
  const jump = { ArrowLeft: -1e9, ArrowRight: 1e9, ",": -5e7, ".": 5e7 }[event.key];
  if (event.key === " ") player.toggle();
  else if (jump) seek(player.position + jump);
  else return;
  event.preventDefault();
}

// The theme: as the system has it, until somebody says otherwise.

const dark = matchMedia("(prefers-color-scheme: dark)");
const THEMES = ["system", "light", "dark"];
let theme = "system";

function applyTheme() {
  const shown = theme === "system" ? (dark.matches ? "dark" : "light") : theme;
  document.documentElement.dataset.theme = shown;
  // Colours change at once; only what happens in the machine is seen to happen.
  for (const each of document.getAnimations()) if (each instanceof CSSTransition) each.finish();
  setText($("theme"), `theme: ${theme}`);
}

function changeTheme() {
  theme = THEMES[(THEMES.indexOf(theme) + 1) % THEMES.length];
  try {
    localStorage.setItem("theme", theme);
  } catch {
    // A page from a file may have no storage; the theme is then for this time only.
  }
  applyTheme();
}

function startTheme() {
  try {
    const kept = localStorage.getItem("theme");
    if (THEMES.includes(kept)) theme = kept;
  } catch {
    // As above.
  }
  dark.addEventListener("change", applyTheme);
  $("theme").addEventListener("click", changeTheme);
  applyTheme();
}

const fetched = async (path, kind) => {
  const answer = await fetch(path);
  if (!answer.ok) throw new Error(`${path}: ${answer.status}`);
  return answer[kind]();
};

async function start() {
  startTheme();
  document.addEventListener("keydown", onKey);
  addEventListener("resize", () => {
    dirty = true;
  });
  requestAnimationFrame(frame);
  const inlined = $("recording");
  const extras = $("bench-data");
  if (extras) place.bench = JSON.parse(extras.textContent);
  if (inlined) return replay(JSON.parse(inlined.textContent));
  const mode = await fetched("mode", "json");
  place.lab = mode.lab ?? "";
  place.bench = await fetched("bench", "json");
  if (mode.replay) return replay(await fetched("recording", "text"));
  live();
  place.actions = new Actions(location.hash.match(/token=([\w-]+)/)?.[1] ?? "");
  return undefined;
}

// For scripts that make pictures, and for tests: what the page knows, and a way to a moment.
window.multiroot = {
  model,
  seek: (seconds) => {
    player.playing = false;
    player.seek(seconds * 1e9);
  },
  settle: () => {
    setPace(0);
    dirty = true;
  },
  // Stops everything that moves at a moment of its motion, in ms; whether anything moves.
  hold: (at) =>
    document.getAnimations().map((each) => {
      each.pause();
      each.currentTime = at;
    }).length > 0 && (machine.drawTethers(), true),
  finish: () => {
    document.getAnimations().forEach((each) => each.finish());
    machine.drawTethers();
  },
  draw: () => {
    drawAll();
    drawNow(model, now(), subject(model.document, place.chosen));
    machine.drawTethers();
  },
  get player() {
    return player;
  },
};

start()
  .then(() => {
    document.body.dataset.ready = "true";
  })
  .catch((error) => {
    $("banner").hidden = false;
    setText($("banner"), `The page cannot get its data: ${error.message}`);
  });
