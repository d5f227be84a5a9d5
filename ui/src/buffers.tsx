// A process's buffers, ten thousand at a time: of a million only a page is ever in the browser.

import { useEffect, useState } from "preact/hooks";

import { ask } from "./api";
import { bytes, count, duration } from "./format";
import { adjust, type Route } from "./route";
import type { Buffer, Buffers as Page } from "./shapes";
import { Table, type Column } from "./table";

/** As many as the API gives at once. */
const PAGE_ROWS = 10_000;
/** The first page is small, so that it is there at once. */
const FIRST_ROWS = 500;

const AGES: [seconds: string, text: string][] = [
  ["", "any age"],
  ["60", "a minute and older"],
  ["600", "ten minutes and older"],
  ["3600", "an hour and older"],
];

const COLUMNS: Column<Buffer>[] = [
  { name: "id", title: "Buffer", cell: (buffer) => <code>{buffer.buffer_id}</code> },
  { name: "device", title: "Device", isFigure: true, cell: (buffer) => buffer.device },
  { name: "type", title: "Memory type", cell: (buffer) => buffer.memory_type },
  { name: "size", title: "Size", isFigure: true, cell: (buffer) => bytes(buffer.size_bytes) },
  { name: "age", title: "Age", isFigure: true, cell: (buffer) => duration(buffer.age_seconds) },
  { name: "references", title: "References", isFigure: true, isMinor: true, cell: (buffer) => buffer.references },
];

interface Place {
  /** Where each page begins, up to the one that is shown. */
  cursors: (string | undefined)[];
  rowsBefore: number[];
}

const START: Place = { cursors: [undefined], rowsBefore: [0] };

export function Buffers(props: { route: Route; pid: number; total: number }) {
  const { pid, total } = props;
  const age = props.route.parameters.get("age") ?? "";
  const [place, setPlace] = useState(START);
  const [page, setPage] = useState<Page>({ buffers: [] });
  const [problem, setProblem] = useState<string | null>(null);
  const [isLoading, setLoading] = useState(true);
  const [round, setRound] = useState(0);
  const cursor = place.cursors.at(-1);
  const rowsBefore = place.rowsBefore.at(-1) ?? 0;
  useEffect(() => setPlace(START), [pid, age]);
  useEffect(() => {
    const stop = new AbortController();
    setLoading(true);
    const limit = cursor === undefined ? FIRST_ROWS : PAGE_ROWS;
    ask<Page>("/api/v1/buffers", { pid, min_age_seconds: age, limit, cursor }, stop.signal)
      .then((answer) => {
        setPage(answer);
        setProblem(null);
        setLoading(false);
      })
      .catch((error: unknown) => {
        if (stop.signal.aborted) return;
        setProblem((error as Error).message);
        setLoading(false);
      });
    return () => stop.abort();
  }, [pid, age, cursor, round]);

  const next = () =>
    setPlace({ cursors: [...place.cursors, page.next_cursor], rowsBefore: [...place.rowsBefore, rowsBefore + page.buffers.length] });
  const previous = () => setPlace({ cursors: place.cursors.slice(0, -1), rowsBefore: place.rowsBefore.slice(0, -1) });
  const last = rowsBefore + page.buffers.length;
  return (
    <section aria-label="Single buffers" aria-busy={isLoading}>
      <div class="pager">
        <label class="choice">
          Buffers of{" "}
          <select value={age} onChange={(event) => adjust({ age: event.currentTarget.value })}>
            {AGES.map(([seconds, text]) => (
              <option key={seconds} value={seconds}>
                {text}
              </option>
            ))}
          </select>
        </label>
        <button type="button" disabled={place.cursors.length < 2 || isLoading} onClick={previous}>
          Previous
        </button>
        <button type="button" disabled={!page.next_cursor || isLoading} onClick={next}>
          Next
        </button>
        <button type="button" disabled={isLoading} onClick={() => setRound(round + 1)}>
          Look again
        </button>
        <span role="status">
          {page.buffers.length > 0 && `${count(rowsBefore + 1)} to ${count(last)}${age === "" ? ` of about ${count(Math.max(total, last))}` : ""}`}
        </span>
      </div>
      {problem ? (
        <p class="problem">The buffers could not be loaded: {problem}</p>
      ) : (
        <Table
          caption="Buffers"
          columns={COLUMNS}
          rows={page.buffers}
          identity={(buffer) => `${buffer.device}/${buffer.memory_type}/${buffer.buffer_id}`}
          rowsBefore={rowsBefore}
          rowsTotal={age === "" ? Math.max(total, last) : page.next_cursor ? -1 : last}
          empty={isLoading ? "Loading" : "No buffers of that age. Of a process that is only seen in tt-metal's shared memory, single buffers are not known."}
        />
      )}
    </section>
  );
}
