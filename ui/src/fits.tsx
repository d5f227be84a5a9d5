// Whether a buffer of some size would fit.

import { useEffect, useState } from "preact/hooks";

import { ask } from "./api";
import { bytes, duration, parseSize } from "./format";
import { adjust, type Route } from "./route";
import { MEMORY_TYPES, type DeviceFit, type Fits as Answer } from "./shapes";
import { useStore } from "./store";
import { Table, type Column } from "./table";

const COLUMNS: Column<DeviceFit>[] = [
  { name: "device", title: "Device", cell: (fit) => `${fit.device} ${fit.board ?? ""}` },
  { name: "now", title: "Now", cell: (fit) => <span class={`badge ${fit.now === "fits" ? "good" : "warn"}`}>{fit.now}</span> },
  { name: "peak", title: "At the peak", cell: (fit) => <span class={`badge ${fit.at_peak === "fits" ? "good" : "warn"}`}>{fit.at_peak}</span> },
  { name: "takes", title: "Takes", isFigure: true, isMinor: true, cell: (fit) => bytes(fit.needed_bytes) },
  { name: "free", title: "Free now", isFigure: true, cell: (fit) => (fit.free_bytes === undefined ? "–" : bytes(fit.free_bytes)) },
  { name: "free_peak", title: "Free at the peak", isFigure: true, isMinor: true, cell: (fit) => (fit.free_at_peak_bytes === undefined ? "–" : bytes(fit.free_at_peak_bytes)) },
];

export function Fits(props: { route: Route }) {
  const { parameters } = props.route;
  const [size, type] = [parameters.get("size") ?? "1 GiB", parameters.get("type") ?? "dram"];
  const { timestampSeconds } = useStore();
  const [answer, setAnswer] = useState<Answer | null>(null);
  const [problem, setProblem] = useState<string | null>(null);
  const sizeBytes = parseSize(size);
  // Looked at again every few seconds: what is free changes.
  const round = Math.floor(timestampSeconds / 5);
  useEffect(() => {
    if (sizeBytes === null) return;
    const stop = new AbortController();
    ask<Answer>("/api/v1/fits", { size_bytes: sizeBytes, memory_type: type }, stop.signal).then(
      (fits) => {
        setAnswer(fits);
        setProblem(null);
      },
      (error: unknown) => {
        if (!stop.signal.aborted) setProblem((error as Error).message);
      },
    );
    return () => stop.abort();
  }, [sizeBytes, type, round]);
  return (
    <>
      <h1 tabIndex={-1}>What fits</h1>
      <div class="choices">
        <label class="choice">
          Size{" "}
          <input value={size} aria-invalid={sizeBytes === null} aria-describedby="size-help" onInput={(event) => adjust({ size: event.currentTarget.value })} />
        </label>
        <label class="choice">
          Memory type{" "}
          <select value={type} onChange={(event) => adjust({ type: event.currentTarget.value })}>
            {MEMORY_TYPES.filter((known) => known !== "system_memory").map((known) => (
              <option key={known}>{known}</option>
            ))}
          </select>
        </label>
      </div>
      <p id="size-help" class={sizeBytes === null ? "problem" : "note"}>
        {sizeBytes === null
          ? "A size is a number and a unit, such as 512 MiB or 6GiB."
          : `A buffer is spread over all banks and takes the same of each.${answer ? ` The peak is that of the last ${duration(answer.timestamp_seconds - answer.peak_since_timestamp_seconds)}.` : ""}`}
      </p>
      {problem && <p class="problem">{problem}</p>}
      <Table caption="Devices" columns={COLUMNS} rows={sizeBytes === null ? [] : (answer?.devices ?? [])} identity={(fit) => String(fit.device)} empty="No device is known." />
    </>
  );
}
