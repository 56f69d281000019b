// SPDX-License-Identifier: GPL-2.0-or-later
// Things that go from one place to another are seen to go: they are moved in the document, drawn where they
// were, and slid to where they are. Who asked the system for less motion sees them change places at once.

const calm = matchMedia("(prefers-reduced-motion: reduce)");
let scale = 1;

// In a slowed replay the slide is slowed, too; `factor` 0 stops all motion (for pictures of a moment).
export function setPace(factor) {
  scale = factor;
}

export const still = () => calm.matches || scale === 0;

// Do `change`, which moves `elements` about, and slide those that have come to another place.
export function slide(elements, change, took = 1100) {
  const before = new Map(
    elements.map((element) => [element, element.isConnected ? element.getBoundingClientRect() : null]),
  );
  change();
  if (still()) return;
  for (const [element, from] of before) {
    if (!from || !element.isConnected || !from.width) continue;
    const to = element.getBoundingClientRect();
    const [x, y] = [from.left - to.left, from.top - to.top];
    if (Math.abs(x) < 2 && Math.abs(y) < 2) continue;
    element.animate([{ transform: `translate(${x}px, ${y}px)` }, { transform: "none" }], {
      duration: took * scale,
      easing: "cubic-bezier(.5, 0, .2, 1)",
    });
  }
}

// Turn a sign over once.
export function flip(element) {
  if (still()) return;
  element.animate(
    [
      { transform: "translateX(-50%) rotateX(0)" },
      { transform: "translateX(-50%) rotateX(90deg)" },
      { transform: "translateX(-50%) rotateX(0)" },
    ],
    { duration: 700 * scale, easing: "ease-in-out" },
  );
}

export const moves = (element) =>
  element.getAnimations().some((animation) => animation.playState === "running");
