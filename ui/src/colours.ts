// Which of the few colours a process has: on one device no two have the same one, and a process has one wherever it is.

import { store } from "./store";

/** As many as people tell apart, also those who do not see all of them: page.css has them, for light and for dark. */
export const COLOURS = 8;

interface Candidate {
  span: string;
  devices: number[];
}

let given = new Map<string, number>();
let lookedAt = 0;

/** Those that are among the largest of one of their devices at least, the largest first. */
function candidates(): Candidate[] {
  const living = [...store.processes.values()].filter((process) => process.device_usage_bytes > 0);
  living.sort((left, right) => right.device_usage_bytes - left.device_usage_bytes);
  const counts = new Map<number, number>();
  return living.flatMap((process) => {
    const devices = [...new Set(process.memory.filter((memory) => memory.usage_bytes > 0).map((memory) => memory.device))];
    const hasRoom = devices.some((device) => (counts.get(device) ?? 0) < COLOURS);
    for (const device of devices) counts.set(device, (counts.get(device) ?? 0) + 1);
    return hasRoom ? [{ span: process.span_id, devices }] : [];
  });
}

/** Colours are kept from one moment to the next, so that bars do not change colour as others grow. */
function look(): void {
  if (lookedAt === store.timestampSeconds) return;
  lookedAt = store.timestampSeconds;
  const before = given;
  given = new Map();
  const taken = new Map<number, Set<number>>();
  const uses = new Array<number>(COLOURS).fill(0);
  const isFree = (devices: number[], colour: number) => devices.every((device) => !taken.get(device)?.has(colour));
  const give = ({ span, devices }: Candidate, colour: number) => {
    given.set(span, colour);
    uses[colour] = (uses[colour] ?? 0) + 1;
    for (const device of devices) taken.set(device, (taken.get(device) ?? new Set()).add(colour));
  };
  const all = candidates();
  for (const candidate of all) {
    const colour = before.get(candidate.span);
    if (colour !== undefined && isFree(candidate.devices, colour)) give(candidate, colour);
  }
  for (const candidate of all) {
    if (given.has(candidate.span)) continue;
    const free = uses.map((_, colour) => colour).filter((colour) => isFree(candidate.devices, colour));
    // The one that is used least: as long as there are enough, every process has its own.
    const colour = free.sort((left, right) => (uses[left] ?? 0) - (uses[right] ?? 0))[0];
    if (colour !== undefined) give(candidate, colour);
  }
}

/** The class of a process's colour. */
export function colourOf(span: string): string {
  look();
  const colour = given.get(span);
  return colour === undefined ? "rest" : `c${colour}`;
}

/** A colour of the style sheet, for what is drawn. */
export function drawn(name: string): string {
  return getComputedStyle(document.documentElement).getPropertyValue(`--${name}`).trim();
}
