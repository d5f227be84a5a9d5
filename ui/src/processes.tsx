// The processes: all of them in a table, or one of them with what it holds.

import { Buffers } from "./buffers";
import { colourOf } from "./colours";
import { bytes, count, duration, growth } from "./format";
import { LeakList } from "./leaks";
import { adjust, link, type Route } from "./route";
import type { HeldMemory, Process } from "./shapes";
import { processSeries, store, totalSeries, useStore } from "./store";
import { Table, type Column } from "./table";
import { Timeline } from "./timeline";
import { TypeChoice } from "./devices";

type Sort = "bytes" | "growth" | "age" | "buffers" | "name";

function held(process: Process, type: string, device?: number): number {
  const wanted = process.memory.filter((memory) => memory.memory_type === type && (device === undefined || memory.device === device));
  return wanted.reduce((sum, memory) => sum + memory.usage_bytes, 0);
}

function onDevice(process: Process, device?: number): number {
  if (device === undefined) return process.device_usage_bytes;
  const here = process.memory.filter((memory) => memory.device === device && memory.memory_type !== "system_memory");
  return here.reduce((sum, memory) => sum + memory.usage_bytes, 0);
}

const buffers = (process: Process) => process.memory.reduce((sum, memory) => sum + (memory.buffers ?? 0), 0);
const leakScore = (process: Process) => Math.max(0, ...process.memory.map((memory) => memory.leak_score ?? 0));
/** Of a name in the address there may be no order. */
const SORTS = new Set<string>(["bytes", "growth", "age", "buffers", "name"] satisfies Sort[]);
const growthOf = (process: Process) => store.samples.growth(totalSeries(process.span_id));

function order(sort: Sort, device?: number): (left: Process, right: Process) => number {
  const start = (process: Process) => process.start_time_seconds ?? 0;
  switch (sort) {
    case "growth":
      return (left, right) => (growthOf(right) ?? -Infinity) - (growthOf(left) ?? -Infinity) || 0;
    case "age":
      return (left, right) => start(left) - start(right);
    case "buffers":
      return (left, right) => buffers(right) - buffers(left);
    case "name":
      return (left, right) => left.process.localeCompare(right.process) || left.pid - right.pid;
    case "bytes":
      return (left, right) => onDevice(right, device) - onDevice(left, device);
  }
}

function columns(device?: number): Column<Process>[] {
  const isFigure = true;
  return [
    {
      name: "process",
      title: "Process",
      sort: "name",
      cell: (process) => (
        <a class="name" href={link(`processes/${process.pid}`)} title={process.process}>
          <i class={colourOf(process.span_id)} aria-hidden="true" /> <bdi>{process.process}</bdi>
        </a>
      ),
    },
    { name: "pid", title: "PID", isFigure, isMinor: true, cell: (process) => process.pid },
    { name: "user", title: "User", isMinor: true, cell: (process) => <bdi>{process.user}</bdi> },
    {
      name: "devices",
      title: "Devices",
      isMinor: true,
      cell: (process) => [...new Set(process.memory.map((memory) => memory.device))].sort((left, right) => left - right).join(", "),
    },
    { name: "bytes", title: "On device", isFigure, sort: "bytes", cell: (process) => bytes(onDevice(process, device)) },
    { name: "dram", title: "DRAM", isFigure, isMinor: true, cell: (process) => bytes(held(process, "dram", device)) },
    { name: "l1", title: "L1", isFigure, isMinor: true, cell: (process) => bytes(held(process, "l1", device)) },
    { name: "growth", title: "Growth", isFigure, sort: "growth", cell: (process) => growth(growthOf(process)) },
    { name: "buffers", title: "Buffers", isFigure, isMinor: true, sort: "buffers", cell: (process) => count(buffers(process)) },
    {
      name: "age",
      title: "Age",
      isFigure,
      sort: "age",
      cell: (process) =>
        process.ended ? "ended" : process.start_time_seconds === undefined ? "–" : duration(store.timestampSeconds - process.start_time_seconds),
    },
    {
      name: "leak",
      title: "Leak",
      isMinor: true,
      cell: (process) => {
        const score = leakScore(process);
        return score === 0 ? "" : <span class={score >= 0.5 ? "badge warn" : "badge"}>{score >= 0.5 ? "suspected" : "watched"}</span>;
      },
    },
  ];
}

export function ProcessTable(props: { processes: Process[]; route: Route; device?: number }) {
  const asked = props.route.parameters.get("sort") ?? "";
  const sort = SORTS.has(asked) ? (asked as Sort) : "bytes";
  const withEnded = props.route.parameters.get("ended") === "shown";
  const ended = props.processes.filter((process) => process.ended).length;
  const shown = props.processes.filter((process) => withEnded || !process.ended);
  const sorted = shown.sort(order(sort, props.device));
  return (
    <>
    {(ended > 0 || withEnded) && (
      <label class="choice">
        <input type="checkbox" checked={withEnded} onChange={() => adjust({ ended: withEnded ? undefined : "shown" })} /> Show {ended} that ended a short while ago
      </label>
    )}
    <Table
      caption="Processes"
      columns={columns(props.device)}
      rows={sorted}
      identity={(process) => process.span_id}
      sortedBy={sort}
      onSort={(chosen) => adjust({ sort: chosen })}
      empty="No process holds anything."
    />
    </>
  );
}

export function Processes(props: { route: Route }) {
  const { processes } = useStore();
  const wanted = props.route.parameters.get("find") ?? "";
  const isWanted = (process: Process) =>
    [process.process, process.user, String(process.pid), process.container?.k8s_pod_name ?? ""].some((text) => text.toLowerCase().includes(wanted.toLowerCase()));
  const found = [...processes.values()].filter(isWanted);
  return (
    <>
      <h1 tabIndex={-1}>Processes</h1>
      <label class="choice">
        Name, user, PID or pod{" "}
        <input type="search" value={wanted} onInput={(event) => adjust({ find: event.currentTarget.value })} />
      </label>
      <ProcessTable processes={found} route={props.route} />
    </>
  );
}

export function ProcessPage(props: { route: Route; pid: number }) {
  const { processes, leaks, devices } = useStore();
  const { parameters } = props.route;
  const named = [...processes.values()].filter((process) => process.pid === props.pid);
  const process = named.find((candidate) => !candidate.ended) ?? named.at(-1);
  if (!process) {
    return (
      <>
        <h1 tabIndex={-1}>Process {props.pid} is not known</h1>
        <p>
          It holds nothing, or has ended. <a href={link("events", { pid: String(props.pid) })}>What happened to it</a>
        </p>
      </>
    );
  }
  const type = parameters.get("type") ?? "dram";
  const { container } = process;
  const lines = [...new Set(process.memory.filter((memory) => memory.memory_type === type).map((memory) => memory.device))].map((device, index) => ({
    name: `device ${device}`,
    colour: devices.length <= 8 ? `c${devices.findIndex((known) => known.device === device)}` : `c${index % 8}`,
    samples: processSeries(process.span_id, device, type),
    isOf: (series: { device: number; start_time_seconds?: number }) => series.device === device,
  }));
  const facts: [string, string | undefined][] = [
    ["PID", String(process.pid)],
    ["User", process.user],
    ["On devices", bytes(process.device_usage_bytes)],
    ["Growth", growth(growthOf(process))],
    ["Age", process.start_time_seconds === undefined ? undefined : duration(store.timestampSeconds - process.start_time_seconds)],
    ["Known from", process.source === "shm" ? "tt-metal's shared memory" : "its reports"],
    ["Pod", container?.k8s_pod_name && `${container.k8s_namespace_name} / ${container.k8s_pod_name} / ${container.k8s_container_name}`],
    ["Container", container?.container_id.slice(0, 12)],
    ["Trace", process.trace_id],
  ];
  return (
    <>
      <h1 tabIndex={-1}>
        <bdi>{process.process}</bdi> {process.ended && <span class="badge">ended</span>}
      </h1>
      <dl class="facts">
        {facts.map(([name, value]) =>
          value ? (
            <div key={name}>
              <dt>{name}</dt>
              <dd>
                <bdi>{value}</bdi>
              </dd>
            </div>
          ) : null,
        )}
      </dl>
      <LeakList leaks={leaks.filter((leak) => leak.pid === process.pid)} />
      <TypeChoice type={type} />
      <Timeline title={`${type} it holds, by device`} wanted={{ by: "process", memory_type: type, pid: process.pid }} lines={lines} span={parameters.get("span")} />
      <Held memory={process.memory} />
      <Buffers route={props.route} pid={process.pid} total={buffers(process)} />
      <p>
        <a href={link("events", { pid: String(process.pid) })}>What happened to it</a>
      </p>
    </>
  );
}

function Held(props: { memory: HeldMemory[] }) {
  return (
    <div class="frame short" tabIndex={0} role="region" aria-label="What it holds">
      <table>
        <caption>What it holds</caption>
        <thead>
          <tr>
            <th scope="col">Device</th>
            <th scope="col">Memory type</th>
            <th scope="col" class="figure">In use</th>
            <th scope="col" class="figure">Peak</th>
            <th scope="col" class="figure">Buffers</th>
          </tr>
        </thead>
        <tbody>
          {props.memory.map((memory) => (
            <tr key={`${memory.device}/${memory.memory_type}`}>
              <td>
                <a href={link(`devices/${memory.device}`, { type: memory.memory_type })}>{memory.device}</a>
              </td>
              <td>{memory.memory_type}</td>
              <td class="figure">{bytes(memory.usage_bytes)}</td>
              <td class="figure">{bytes(memory.peak_bytes)}</td>
              <td class="figure">{memory.buffers === undefined ? "–" : count(memory.buffers)}</td>
            </tr>
          ))}
        </tbody>
      </table>
    </div>
  );
}
