// One memory type of one device as a bar: what fills it, by process, out of what there is.

import { colourOf, coloured } from "./colours";
import { bytes, percent } from "./format";
import type { DeviceMemory, Process } from "./shapes";

interface Part {
  span: string;
  name: string;
  bytes: number;
}

/** What each process holds of it: the coloured ones in their order, then the sum of the others. */
export function parts(processes: Process[], device: number, type: string, usageBytes: number): Part[] {
  const held = new Map<string, Part>();
  for (const process of processes) {
    for (const memory of process.memory) {
      if (memory.device === device && memory.memory_type === type && memory.usage_bytes > 0) {
        held.set(process.span_id, { span: process.span_id, name: process.process, bytes: memory.usage_bytes });
      }
    }
  }
  const own = coloured().flatMap((span) => held.get(span) ?? []);
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
