// One memory type of one device as a bar: what fills it, by process, out of what there is.

import { colourOf } from "./colours";
import { bytes, percent } from "./format";
import type { DeviceMemory } from "./shapes";
import { store } from "./store";

interface Part {
  span: string;
  name: string;
  bytes: number;
}

/** Who holds what, by device and memory type: looked up once for a moment, however many bars there are. */
let holders = new Map<string, Map<string, Part>>();
let lookedAt = 0;

function holdersOf(device: number, type: string): Map<string, Part> {
  if (lookedAt !== store.timestampSeconds) {
    lookedAt = store.timestampSeconds;
    holders = new Map();
    for (const [span, process] of store.processes) {
      for (const memory of process.memory) {
        if (memory.usage_bytes === 0) continue;
        const place = `${memory.device}/${memory.memory_type}`;
        let here = holders.get(place);
        if (!here) holders.set(place, (here = new Map()));
        here.set(span, { span, name: process.process, bytes: memory.usage_bytes });
      }
    }
  }
  return holders.get(`${device}/${type}`) ?? new Map<string, Part>();
}

/** What each process holds of it: those that have a colour, in the order of the colours so that they keep their places, then the sum of
 * the others. */
export function parts(device: number, type: string, usageBytes: number): Part[] {
  const held = holdersOf(device, type);
  const colour = new Map([...held.keys()].map((span) => [span, colourOf(span)]));
  const own = [...held.values()].filter((part) => colour.get(part.span) !== "rest");
  own.sort((left, right) => (colour.get(left.span) ?? "").localeCompare(colour.get(right.span) ?? ""));
  const shown = own.reduce((sum, part) => sum + part.bytes, 0);
  const others = held.size - own.length;
  const rest = Math.max(0, usageBytes - shown);
  if (rest > 0) own.push({ span: "", name: others === 1 ? "another process" : `${others} others`, bytes: rest });
  return own;
}

/** `scaleBytes` is what the whole width stands for where the memory's limit is not known. */
export function Bar(props: { memory: DeviceMemory; parts: Part[]; scaleBytes: number }) {
  const { memory, parts, scaleBytes } = props;
  const limit = memory.limit_bytes;
  const whole = Math.max(limit ?? scaleBytes, memory.usage_bytes, 1);
  const width = (value: number) => `${(value / whole) * 100}%`;
  const said = parts.map((part) => `${part.name} ${bytes(part.bytes)}`).join(", ");
  const share = limit ? memory.usage_bytes / limit : null;
  return (
    <div class={`memory${share !== null && share >= 0.9 ? " nearly-full" : ""}`}>
      <span class="type">{memory.memory_type}</span>
      <div
        class={`bar${limit ? "" : " without-limit"}`}
        role="img"
        aria-label={`${memory.memory_type}: ${bytes(memory.usage_bytes)}${limit ? ` of ${bytes(limit)}` : ""}${said ? `; ${said}` : ""}`}
      >
        {parts.map((part) => (
          <i key={part.span} class={part.span ? colourOf(part.span) : "rest"} style={{ width: width(part.bytes) }} title={`${part.name}: ${bytes(part.bytes)}`} />
        ))}
        {memory.peak_bytes > memory.usage_bytes && (
          <b style={{ left: width(Math.min(memory.peak_bytes, whole)) }} title={`peak ${bytes(memory.peak_bytes)}`} />
        )}
      </div>
      <span class="figure">
        {bytes(memory.usage_bytes)}
        {limit ? <small> / {bytes(limit)}</small> : null}
      </span>
      <span class="share">{share === null ? "" : percent(share)}</span>
    </div>
  );
}
