// The devices: all of them as bars, or one of them with who holds it.

import { Bar, parts } from "./bar";
import { colourOf, COLOURS } from "./colours";
import { RecentEvents } from "./events";
import { bytes, count } from "./format";
import { ProcessTable } from "./processes";
import { adjust, link, type Route } from "./route";
import { MEMORY_TYPES, type Device, type DeviceMemory, type Process } from "./shapes";
import { deviceSeries, processSeries, useStore } from "./store";
import { Timeline } from "./timeline";

/** The highest that any device had, for memory whose limit is not known: bars of one type can then be compared. */
function scales(devices: Device[]): Map<string, number> {
  const highest = new Map<string, number>();
  for (const memory of devices.flatMap((device) => device.memory)) {
    highest.set(memory.memory_type, Math.max(highest.get(memory.memory_type) ?? 0, memory.peak_bytes));
  }
  return highest;
}

/** Memory that has never been used, of which nobody knows how much there is, says nothing. */
function isWorthABar(memory: DeviceMemory): boolean {
  return memory.limit_bytes !== undefined || memory.peak_bytes > 0;
}

function Bars(props: { device: Device; scales: Map<string, number> }) {
  const { device, scales } = props;
  return (
    <div class="bars">
      {device.memory.filter(isWorthABar).map((memory) => (
        <Bar
          key={memory.memory_type}
          memory={memory}
          parts={parts(device.device, memory.memory_type, memory.usage_bytes)}
          scaleBytes={scales.get(memory.memory_type) ?? 0}
        />
      ))}
      {device.memory.length === 0 && <p class="note">Nothing is known about its memory yet.</p>}
    </div>
  );
}

function about(device: Device): string {
  return [device.board, device.arch].filter(Boolean).join(" · ");
}

function holders(device: Device): string {
  const untracked = device.untracked?.processes ?? 0;
  const known = `${count(device.processes)} ${device.processes === 1 ? "process" : "processes"}`;
  return untracked > 0 ? `${known}, ${untracked} not reporting` : known;
}

const largestFirst = (left: Process, right: Process) => right.device_usage_bytes - left.device_usage_bytes;

/** What the colours of the bars stand for, where they stand for one process each. */
function Legend(props: { processes: Process[] }) {
  const holding = props.processes.filter((process) => process.device_usage_bytes > 0);
  const named = holding.filter((process) => colourOf(process.span_id) !== "rest").sort(largestFirst);
  const others = holding.length - named.length;
  if (named.length === 0) return null;
  if (new Set(named.map((process) => colourOf(process.span_id))).size < named.length) {
    return <p class="note">Colours tell the processes on one device apart.</p>;
  }
  return (
    <ul class="legend" aria-label="Colours of the largest processes">
      {named.map((process) => (
        <li key={process.span_id}>
          <a href={link(`processes/${process.pid}`)}>
            <i class={colourOf(process.span_id)} aria-hidden="true" /> <bdi>{process.process}</bdi> <small>{process.pid}</small>
          </a>
        </li>
      ))}
      {others > 0 && (
        <li>
          <i class="rest" aria-hidden="true" /> {others === 1 ? "another one" : `${others} others`}
        </li>
      )}
    </ul>
  );
}

/** Where there are more devices than colours, those come first that have been fullest: by their peaks, which seldom change. */
function fullestFirst(devices: Device[], type: string): Device[] {
  if (devices.length <= COLOURS) return devices;
  const peak = (device: Device) => device.memory.find((memory) => memory.memory_type === type)?.peak_bytes ?? 0;
  return [...devices].sort((left, right) => peak(right) - peak(left));
}

/** Which memory type a timeline shows. */
export function TypeChoice(props: { type: string }) {
  return (
    <label class="choice">
      Memory type{" "}
      <select value={props.type} onChange={(event) => adjust({ type: event.currentTarget.value })}>
        {MEMORY_TYPES.map((type) => (
          <option key={type}>{type}</option>
        ))}
      </select>
    </label>
  );
}

export function Devices(props: { route: Route }) {
  const { devices, processes, connection, timestampSeconds } = useStore();
  const type = props.route.parameters.get("type") ?? "dram";
  const highest = scales(devices);
  const lines = fullestFirst(devices, type).map((device, index) => ({
    name: `device ${device.device}`,
    colour: index < COLOURS ? `c${index}` : "rest",
    samples: deviceSeries(device.device, type),
    isOf: (series: { device: number }) => series.device === device.device,
  }));
  if (devices.length === 0 && timestampSeconds > 0) return <NoDevices />;
  return (
    <>
      <h1 tabIndex={-1}>Devices</h1>
      <Legend processes={[...processes.values()]} />
      <div class="wall" aria-busy={connection === "connecting" && timestampSeconds === 0}>
        {devices.map((device) => (
          <section key={device.device} class="card" aria-labelledby={`device-${device.device}`}>
            <header>
              <h2 id={`device-${device.device}`}>
                <a href={link(`devices/${device.device}`)}>Device {device.device}</a>
              </h2>
              <span>{about(device)}</span>
              <span class="holders">{holders(device)}</span>
            </header>
            <Bars device={device} scales={highest} />
          </section>
        ))}
      </div>
      <TypeChoice type={type} />
      <Timeline title={`${type} in use, by device`} wanted={{ by: "device", memory_type: type }} lines={lines} span={props.route.parameters.get("span")} />
      <RecentEvents />
    </>
  );
}

function NoDevices() {
  return (
    <>
      <h1 tabIndex={-1}>Devices</h1>
      <p>
        No device is known yet. One appears with the first report about it, with the kernel driver, or when it is described: <code>ttmem serve --device 0=n150</code>.
      </p>
    </>
  );
}

export function DevicePage(props: { route: Route; index: number }) {
  const { devices, processes } = useStore();
  const { parameters } = props.route;
  const device = devices.find((known) => known.device === props.index);
  const type = parameters.get("type") ?? "dram";
  if (!device) {
    return <h1 tabIndex={-1}>Device {props.index} is not known</h1>;
  }
  const memory = device.memory.find((known) => known.memory_type === type);
  const holding = [...processes.values()].filter((process) => process.memory.some((held) => held.device === device.device));
  const here = holding.filter((process) => colourOf(process.span_id) !== "rest");
  here.sort((left, right) => colourOf(left.span_id).localeCompare(colourOf(right.span_id)));
  const lines = here.map((process) => ({
    name: process.process,
    colour: colourOf(process.span_id),
    samples: processSeries(process.span_id, device.device, type),
    isOf: (series: { pid?: number; start_time_seconds?: number }) => series.pid === process.pid,
  }));
  const facts: [string, string | undefined][] = [
    ["Board", device.board],
    ["Architecture", device.arch],
    ["Serial number", device.serial],
    ["ASIC", device.asic_id],
    ["PCI", device.pci_bus_id],
    ["Firmware", device.firmware],
    ["Capacity from", device.capacity_source?.replaceAll("_", " ")],
    ["In use", memory && `${bytes(memory.usage_bytes)} of ${type}, peak ${bytes(memory.peak_bytes)}`],
  ];
  return (
    <>
      <h1 tabIndex={-1}>Device {device.device}</h1>
      <dl class="facts">
        {facts.map(([name, value]) =>
          value ? (
            <div key={name}>
              <dt>{name}</dt>
              <dd>{value}</dd>
            </div>
          ) : null,
        )}
      </dl>
      <Legend processes={holding} />
      <section class="card wide" aria-label="What fills it">
        <Bars device={device} scales={scales(devices)} />
      </section>
      <TypeChoice type={type} />
      <Timeline
        title={`${type} in use, by process`}
        wanted={{ by: "process", device: device.device, memory_type: type }}
        lines={lines}
        span={parameters.get("span")}
        limitBytes={memory?.limit_bytes}
      />
      <ProcessTable processes={holding} route={props.route} device={device.device} />
      {device.untracked && device.untracked.processes > 0 && (
        <p class="note">
          {device.untracked.processes} processes hold it open and report nothing:{" "}
          {device.untracked.named.map((process) => `${process.process} (${process.pid}, ${process.user})`).join(", ")}
        </p>
      )}
    </>
  );
}
