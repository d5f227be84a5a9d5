// The state of the daemon as the page knows it, kept up to date by /api/v1/live.

import { useEffect, useReducer } from "preact/hooks";

import { Samples } from "./samples";
import type { Change, Device, Leak, Process, State } from "./shapes";

export type Connection = "connecting" | "live" | "lost" | "paused";

/** The stream speaks every second: one that is silent for so long is dead, whatever the browser thinks. */
const SILENCE_MAX_MS = 8000;
const RETRY_FIRST_MS = 500;
const RETRY_MAX_MS = 8000;

export const deviceSeries = (device: number, type: string) => `d/${device}/${type}`;
export const processSeries = (span: string, device: number, type: string) => `p/${span}/${device}/${type}`;
export const totalSeries = (span: string) => `t/${span}`;

class Store {
  connection: Connection = "connecting";
  timestampSeconds = 0;
  devices: Device[] = [];
  processes = new Map<string, Process>();
  leaks: Leak[] = [];
  /** Not known before the first state. */
  hasHistory: boolean | null = null;
  readonly samples = new Samples();
  /** How often the page had to catch up: what was loaded before may have a hole since. */
  generation = 0;

  private listeners = new Set<() => void>();
  private source: EventSource | null = null;
  private retryMs = RETRY_FIRST_MS;
  private retry: ReturnType<typeof setTimeout> | undefined;
  private silence: ReturnType<typeof setTimeout> | undefined;

  /** Follows the daemon for as long as somebody can see it. */
  start(): void {
    document.addEventListener("visibilitychange", () => (document.hidden ? this.pause() : this.connect()));
    addEventListener("online", () => this.connect());
    this.connect();
  }

  subscribe(listener: () => void): () => void {
    this.listeners.add(listener);
    return () => this.listeners.delete(listener);
  }

  private connect(): void {
    this.close();
    if (this.connection !== "lost") this.become("connecting");
    const source = new EventSource("/api/v1/live");
    this.source = source;
    source.addEventListener("state", (event) => this.replace(JSON.parse(event.data as string) as State));
    source.addEventListener("change", (event) => this.apply(JSON.parse(event.data as string) as Change));
    // The browser's own retries end at an answer that is no stream, such as that of a proxy whose daemon is away.
    source.addEventListener("error", () => this.lose());
    this.listen();
  }

  private pause(): void {
    this.close();
    this.become("paused");
  }

  private lose(): void {
    this.close();
    this.become("lost");
    this.retry = setTimeout(() => this.connect(), this.retryMs);
    this.retryMs = Math.min(this.retryMs * 2, RETRY_MAX_MS);
  }

  private close(): void {
    clearTimeout(this.retry);
    clearTimeout(this.silence);
    this.source?.close();
    this.source = null;
  }

  private listen(): void {
    clearTimeout(this.silence);
    this.silence = setTimeout(() => this.lose(), SILENCE_MAX_MS);
  }

  private replace(state: State): void {
    if (this.connection !== "live" && this.timestampSeconds > 0) {
      this.generation += 1;
      this.samples.interrupt();
    }
    this.devices = state.devices.sort((left, right) => left.device - right.device);
    this.processes = new Map(state.processes.map((process) => [process.span_id, process]));
    this.leaks = state.leaks;
    this.hasHistory = state.has_history;
    this.retryMs = RETRY_FIRST_MS;
    this.connection = "live";
    this.seen(state.timestamp_seconds);
  }

  private apply(change: Change): void {
    for (const device of change.devices) {
      const index = this.devices.findIndex((known) => known.device === device.device);
      if (index >= 0) this.devices[index] = device;
      else this.devices.push(device);
    }
    this.devices.sort((left, right) => left.device - right.device);
    for (const process of change.processes) this.processes.set(process.span_id, process);
    for (const span of change.gone) this.processes.delete(span);
    if (change.leaks) this.leaks = change.leaks;
    this.seen(change.timestamp_seconds);
  }

  private seen(timestampSeconds: number): void {
    this.timestampSeconds = timestampSeconds;
    this.listen();
    const samples = this.samples;
    samples.begin(timestampSeconds);
    for (const device of this.devices) {
      for (const memory of device.memory) {
        samples.put(deviceSeries(device.device, memory.memory_type), memory.usage_bytes);
      }
    }
    for (const [span, process] of this.processes) {
      samples.put(totalSeries(span), process.device_usage_bytes);
      for (const memory of process.memory) {
        samples.put(processSeries(span, memory.device, memory.memory_type), memory.usage_bytes);
      }
    }
    this.tell();
  }

  private become(connection: Connection): void {
    this.connection = connection;
    this.tell();
  }

  private tell(): void {
    for (const listener of this.listeners) listener();
  }
}

export const store = new Store();

/** The store, and another rendering whenever it changes. */
export function useStore(): Store {
  const [, changed] = useReducer((times: number) => times + 1, 0);
  useEffect(() => store.subscribe(() => changed(undefined)), []);
  return store;
}
