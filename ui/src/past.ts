// What was before the page was opened, where the daemon keeps it: /api/v1/range.

import { useEffect, useState } from "preact/hooks";

import { ask } from "./api";
import type { Range } from "./shapes";
import { store } from "./store";

/** What a timeline shows. */
export interface Wanted {
  by: "device" | "process";
  device?: number;
  memory_type: string;
  pid?: number;
}

export const SPANS: [name: string, seconds: number, title: string][] = [
  ["5m", 300, "5 min"],
  ["15m", 900, "15 min"],
  ["1h", 3600, "1 h"],
  ["6h", 21_600, "6 h"],
  ["1d", 86_400, "1 d"],
  ["7d", 604_800, "7 d"],
];
export const SPAN_DEFAULT = "15m";

/** Points in a line: more than a chart has pixels for two of. */
const POINTS = 400;
/** The page's own samples go on where what was loaded ends; they last for ten minutes. */
const REFRESH_MS = 240_000;

export interface Past {
  range: Range | null;
  /** Why there is none. */
  absence: string | null;
}

export function spanSeconds(name: string): number {
  return SPANS.find(([known]) => known === name)?.[1] ?? 900;
}

/** The past of what is wanted, loaded again when the page had to catch up. */
export function usePast(wanted: Wanted, seconds: number): Past {
  const [past, setPast] = useState<Past>({ range: null, absence: null });
  const [round, setRound] = useState(0);
  const { generation, hasHistory } = store;
  const { by, device, memory_type, pid } = wanted;
  useEffect(() => {
    if (!hasHistory) {
      setPast({ range: null, absence: hasHistory === false ? "no history is kept (--state-dir)" : null });
      return;
    }
    const stop = new AbortController();
    const end = Math.ceil(Date.now() / 1000);
    const parameters = { by, device, memory_type, pid, start: end - seconds, end, step: Math.ceil(seconds / POINTS) };
    ask<Range>("/api/v1/range", parameters, stop.signal).then(
      (range) => setPast({ range, absence: null }),
      (error: unknown) => {
        if (!stop.signal.aborted) setPast({ range: null, absence: (error as Error).message });
      },
    );
    const timer = setTimeout(() => setRound((before) => before + 1), REFRESH_MS);
    return () => {
      stop.abort();
      clearTimeout(timer);
    };
  }, [by, device, memory_type, pid, seconds, generation, hasHistory, round]);
  return past;
}
