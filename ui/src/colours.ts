// Which of the few colours a process has. The largest have one each; all others share grey.

import { store } from "./store";

/** As many as people tell apart, also those who do not see all of them: page.css has them, for light and for dark. */
export const COLOURS = 8;

const given = new Map<string, number>();
let largest: string[] = [];
let lookedAt = 0;

/** A process keeps its colour for as long as it is among the largest, so that bars do not change colour as others grow. */
function look(): void {
  if (lookedAt === store.timestampSeconds) return;
  lookedAt = store.timestampSeconds;
  const living = [...store.processes.values()].filter((process) => process.device_usage_bytes > 0);
  living.sort((left, right) => right.device_usage_bytes - left.device_usage_bytes);
  largest = living.slice(0, COLOURS).map((process) => process.span_id);
  for (const span of given.keys()) {
    if (!largest.includes(span)) given.delete(span);
  }
  const used = new Set(given.values());
  for (const span of largest) {
    if (given.has(span)) continue;
    let colour = 0;
    while (used.has(colour)) colour += 1;
    used.add(colour);
    given.set(span, colour);
  }
}

/** The class of a process's colour. */
export function colourOf(span: string): string {
  look();
  const colour = given.get(span);
  return colour === undefined ? "rest" : `c${colour}`;
}

/** The processes that have a colour of their own, the largest first. */
export function coloured(): string[] {
  look();
  return largest;
}

/** A colour of the style sheet, for what is drawn. */
export function drawn(name: string): string {
  return getComputedStyle(document.documentElement).getPropertyValue(`--${name}`).trim();
}
