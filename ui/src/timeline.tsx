// Usage over time: what the daemon remembers, continued by what the page itself has seen.

import { useLayoutEffect, useRef, useState } from "preact/hooks";
import uPlot from "uplot";
import "uplot/dist/uPlot.min.css";

import { drawn } from "./colours";
import { bytes, moment } from "./format";
import { SPAN_DEFAULT, SPANS, spanSeconds, usePast, type Wanted } from "./past";
import { adjust } from "./route";
import type { RangeSeries } from "./shapes";
import { store } from "./store";

/** One line. */
export interface Line {
  name: string;
  /** A class of page.css: c0 to c7, or rest. */
  colour: string;
  /** The name of the page's own samples of it. */
  samples: string;
  /** Whether a series of the past is its past. */
  isOf: (series: RangeSeries) => boolean;
}

type Column = (number | null)[];

const HEIGHT_PIXELS = 220;
/** Lines in the legend; the others are in the tables. */
const LEGEND_MAX = 8;

export function Timeline(props: { title: string; wanted: Wanted; lines: Line[]; span: string | null; limitBytes?: number | undefined }) {
  const { title, wanted, lines, limitBytes } = props;
  const span = props.span ?? SPAN_DEFAULT;
  const seconds = spanSeconds(span);
  const past = usePast(wanted, seconds);
  const [pointed, setPointed] = useState<number | null>(null);
  const end = store.timestampSeconds;
  const columns = assemble(past.range, lines, end - seconds, end);
  const at = pointed ?? columns[0].length - 1;
  const highest = Math.max(0, ...columns.slice(1).flatMap((column) => column.map((value) => value ?? 0)));
  return (
    <figure class="timeline">
      <figcaption>
        <h2>{title}</h2>
        <div class="choices" role="group" aria-label="Time shown">
          {SPANS.map(([name, , text]) => (
            <button key={name} type="button" aria-pressed={name === span} onClick={() => adjust({ span: name })}>
              {text}
            </button>
          ))}
        </div>
      </figcaption>
      <Chart
        columns={columns}
        colours={lines.map((line) => line.colour)}
        start={end - seconds}
        end={end}
        limitBytes={limitBytes !== undefined && highest > limitBytes / 4 ? limitBytes : undefined}
        label={`${title}: highest ${bytes(highest)} since ${moment(end - seconds)}`}
        onPoint={setPointed}
      />
      <p class="legend">
        <span class="when">{columns[0][at] ? moment(columns[0][at] ?? 0) : ""}</span>
        {lines.slice(0, LEGEND_MAX).map((line, index) => (
          <span key={line.samples}>
            <i class={line.colour} aria-hidden="true" /> <bdi>{line.name}</bdi> <b>{figure(columns[index + 1]?.[at])}</b>
          </span>
        ))}
        {lines.length > LEGEND_MAX && <span>and {lines.length - LEGEND_MAX} more</span>}
        {past.absence && <span class="note">Since this page was opened: {past.absence}</span>}
      </p>
    </figure>
  );
}

function figure(value: number | null | undefined): string {
  return value === null || value === undefined ? "–" : bytes(value);
}

/** Times, and a column for each line: the past as far as it was loaded, then the page's own samples. */
function assemble(range: ReturnType<typeof usePast>["range"], lines: Line[], start: number, end: number): [number[], ...Column[]] {
  const times: number[] = [];
  const columns: Column[] = lines.map(() => []);
  if (range) {
    const found = lines.map((line) => range.results.filter(line.isOf));
    const length = Math.max(0, ...range.results.map((series) => series.points.length));
    const step = range.step_seconds;
    for (let index = 0; index < length; index += 1) {
      // A point stands for its step; the last one may not have been over.
      const time = range.start_seconds + (index + 0.5) * step;
      if (time < start || time > end) continue;
      const values = found.map((all) => sum(all.map((series) => series.points[index]?.[1])));
      // What is not known at the end is known to the page.
      if (values.every((value) => value === null) && time > end - 2 * step - 10) continue;
      times.push(time);
      values.forEach((value, line) => columns[line]?.push(value));
    }
  }
  const samples = store.samples;
  const known = times.at(-1) ?? start;
  samples.times.forEach((time, index) => {
    if (time <= known || time < start) return;
    times.push(time);
    lines.forEach((line, column) => columns[column]?.push(samples.at(line.samples, index) ?? null));
  });
  return [times, ...columns];
}

/** Several series are one process's under several starts. */
function sum(values: (number | undefined)[]): number | null {
  const known = values.filter((value) => value !== undefined);
  return known.length === 0 ? null : known.reduce((left, right) => left + right, 0);
}

interface ChartProperties {
  columns: [number[], ...Column[]];
  colours: string[];
  start: number;
  end: number;
  limitBytes: number | undefined;
  label: string;
  onPoint: (index: number | null) => void;
}

function Chart(properties: ChartProperties) {
  const { columns, colours, start, end, limitBytes, label, onPoint } = properties;
  const frame = useRef<HTMLDivElement>(null);
  const plot = useRef<uPlot | null>(null);
  const bounds = useRef({ start, end, limitBytes });
  bounds.current = { start, end, limitBytes };
  const look = colours.join();

  // Another number of lines, or other colours, is another chart; new figures are not.
  useLayoutEffect(() => {
    const element = frame.current;
    if (!element) return;
    const make = () => {
      plot.current?.destroy();
      plot.current = new uPlot(options(element.clientWidth, colours, bounds, onPoint), columns as uPlot.AlignedData, element);
    };
    make();
    const observer = new ResizeObserver(() => plot.current?.setSize({ width: element.clientWidth, height: HEIGHT_PIXELS }));
    observer.observe(element);
    const scheme = matchMedia("(prefers-color-scheme: dark)");
    scheme.addEventListener("change", make);
    return () => {
      observer.disconnect();
      scheme.removeEventListener("change", make);
      plot.current?.destroy();
      plot.current = null;
    };
  }, [look]);
  useLayoutEffect(() => plot.current?.setData(columns as uPlot.AlignedData), [columns]);
  return <div class="chart" ref={frame} role="img" aria-label={label} />;
}

type Bounds = { current: { start: number; end: number; limitBytes: number | undefined } };

function options(width: number, colours: string[], bounds: Bounds, onPoint: (index: number | null) => void): uPlot.Options {
  const axis = { stroke: drawn("dim"), grid: { stroke: drawn("line"), width: 1 }, ticks: { show: false }, font: "12px system-ui, sans-serif" };
  const minute = { hour: "2-digit", minute: "2-digit", hour12: false } as const;
  const second = new Intl.DateTimeFormat(undefined, { ...minute, second: "2-digit" });
  const clock = new Intl.DateTimeFormat(undefined, minute);
  const day = new Intl.DateTimeFormat(undefined, { day: "numeric", month: "short" });
  const written = (seconds: number) => (seconds >= 86_400 ? day : seconds < 60 ? second : clock);
  return {
    width,
    height: HEIGHT_PIXELS,
    legend: { show: false },
    cursor: { y: false, drag: { x: false, y: false }, points: { size: 6 } },
    scales: {
      x: { time: true, range: () => [bounds.current.start, bounds.current.end] },
      y: { range: (_plot, _low, high) => [0, Math.max(bounds.current.limitBytes ?? 0, high ?? 0, 1024) * 1.06] },
    },
    axes: [
      { ...axis, size: 30, space: 70, values: (_plot, splits, _axis, _space, step) => splits.map((time) => written(step).format(time * 1000)) },
      { ...axis, size: 76, splits: (_plot, _axis, _low, high) => steps(high), values: (_plot, splits) => splits.map((value) => (value === 0 ? "0" : bytes(value).replace(/\.0+ /, " "))) },
    ],
    series: [
      {},
      ...colours.map((colour) => ({
        stroke: drawn(colour),
        width: colour === "rest" ? 1 : 2,
        points: { show: false },
        ...(colours.length === 1 ? { fill: `${drawn(colour)}22` } : {}),
      })),
    ],
    hooks: {
      setCursor: [(plot) => onPoint(plot.cursor.idx ?? null)],
      draw: [(plot) => drawLimit(plot, bounds.current.limitBytes)],
    },
  };
}

/** Marks of an axis at whole powers of two, or halves of them. */
function steps(high: number): number[] {
  let step = 2 ** Math.floor(Math.log2(Math.max(high, 1024) / 3));
  if (high / step > 6) step *= 2;
  const marks = [];
  for (let value = 0; value <= high; value += step) marks.push(value);
  return marks;
}

function drawLimit(plot: uPlot, limitBytes: number | undefined): void {
  if (limitBytes === undefined) return;
  const { ctx: context, bbox: box } = plot;
  const height = Math.round(plot.valToPos(limitBytes, "y", true));
  context.save();
  context.strokeStyle = drawn("warn");
  context.setLineDash([6, 4]);
  context.beginPath();
  context.moveTo(box.left, height);
  context.lineTo(box.left + box.width, height);
  context.stroke();
  context.restore();
}
