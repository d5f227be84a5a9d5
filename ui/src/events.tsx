// What has happened: processes, leaks, failed allocations, the daemon itself.

import { useEffect, useState } from "preact/hooks";

import { ask } from "./api";
import { bytes, count, duration, moment } from "./format";
import { adjust, link, type Route } from "./route";
import type { Event } from "./shapes";
import { useStore } from "./store";
import { Table, type Column } from "./table";

const KINDS = [
  "process_started",
  "process_ended",
  "memory_orphaned",
  "out_of_memory",
  "leak_suspected",
  "source_appeared",
  "daemon_started",
  "daemon_stopped",
];
const SHOWN_MAX = 2000;
const RECENT = 6;
const REFRESH_MS = 3000;

function words(kind: string): string {
  const text = kind.replaceAll("_", " ");
  return text.charAt(0).toUpperCase() + text.slice(1);
}

/** A figure in words, by the unit that its name ends with. */
function told(name: string, value: unknown): string {
  if (name === "evidence") return String(value);
  const unit = /_?(bytes|seconds)$/.exec(name)?.[1];
  const title = name.replace(/_?(bytes|seconds)$/, "").replaceAll("_", " ");
  const text =
    typeof value !== "number" ? String(value) : unit === "bytes" ? bytes(value) : unit === "seconds" ? duration(value) : Number.isInteger(value) ? count(value) : value.toFixed(2);
  return title === "" ? text : `${title} ${text}`;
}

const COLUMNS: Column<Event>[] = [
  { name: "time", title: "Time", cell: (event) => <time dateTime={new Date(event.timestamp_seconds * 1000).toISOString()}>{moment(event.timestamp_seconds)}</time> },
  { name: "kind", title: "What", cell: (event) => <span class={event.kind === "leak_suspected" || event.kind === "out_of_memory" ? "badge warn" : ""}>{words(event.kind)}</span> },
  {
    name: "process",
    title: "Process",
    cell: (event) =>
      event.pid === undefined ? "" : (
        <a class="name" href={link(`processes/${event.pid}`)} title={event.process ?? ""}>
          <bdi>{event.process}</bdi> <small>{event.pid}</small>
        </a>
      ),
  },
  { name: "device", title: "Device", isMinor: true, cell: (event) => (event.device === undefined ? "" : `${event.device} ${event.memory_type ?? ""}`) },
  { name: "figures", title: "More", isMinor: true, cell: (event) => <span class="more">{Object.entries(event.figures).map(([name, value]) => told(name, value)).join(", ")}</span> },
];

/** The newest events, looked for again every few seconds. */
function useEvents(parameters: Record<string, string | number | undefined>): { events: Event[]; absence: string | null } {
  const [answer, setAnswer] = useState<{ events: Event[]; absence: string | null }>({ events: [], absence: null });
  const { generation, connection, hasHistory } = useStore();
  const key = JSON.stringify(parameters);
  useEffect(() => {
    if (hasHistory === false) setAnswer({ events: [], absence: "No events are kept: start the daemon with --state-dir." });
    if (connection !== "live" || !hasHistory) return;
    const stop = new AbortController();
    let timer: ReturnType<typeof setTimeout> | undefined;
    const look = async () => {
      try {
        const { events } = await ask<{ events: Event[] }>("/api/v1/events", { order: "newest", ...parameters }, stop.signal);
        setAnswer({ events, absence: null });
      } catch (error) {
        if (stop.signal.aborted) return;
        setAnswer({ events: [], absence: (error as Error).message });
      }
      timer = setTimeout(() => void look(), REFRESH_MS);
    };
    void look();
    return () => {
      stop.abort();
      clearTimeout(timer);
    };
  }, [key, generation, connection, hasHistory]);
  return answer;
}

export function Events(props: { route: Route }) {
  const { parameters } = props.route;
  const [kind, pid] = [parameters.get("kind") ?? "", parameters.get("pid") ?? ""];
  const { events, absence } = useEvents({ kind, pid: /^\d+$/.test(pid) ? pid : undefined, limit: SHOWN_MAX });
  return (
    <>
      <h1 tabIndex={-1}>Events{pid && ` of process ${pid}`}</h1>
      <label class="choice">
        What{" "}
        <select value={kind} onChange={(event) => adjust({ kind: event.currentTarget.value })}>
          <option value="">everything</option>
          {KINDS.map((known) => (
            <option key={known} value={known}>
              {words(known)}
            </option>
          ))}
        </select>
      </label>
      {pid && <a href={link("events", { kind })}>of all processes</a>}
      <Table caption="Events" columns={COLUMNS} rows={events} identity={(event) => String(event.id)} empty={absence ?? "Nothing has happened."} />
    </>
  );
}

export function RecentEvents() {
  const { events, absence } = useEvents({ limit: RECENT });
  if (absence) return null;
  return (
    <section class="recent" aria-labelledby="recent">
      <h2 id="recent">Last events</h2>
      <ol>
        {events.map((event) => (
          <li key={event.id}>
            <time dateTime={new Date(event.timestamp_seconds * 1000).toISOString()}>{moment(event.timestamp_seconds)}</time> {words(event.kind)}{" "}
            {event.pid !== undefined && (
              <a href={link(`processes/${event.pid}`)}>
                <bdi>{event.process}</bdi>
              </a>
            )}
            {event.device !== undefined && ` on device ${event.device}`}
          </li>
        ))}
      </ol>
      <a href={link("events")}>All events</a>
    </section>
  );
}
