// The state of the daemon itself: its own metrics, as Prometheus sees them.

import { useEffect, useState } from "preact/hooks";

import { askText } from "./api";
import { bytes, count, duration, moment } from "./format";

const FAMILIES: [title: string, names: string[]][] = [
  ["The daemon", ["ttmem_build_info", "process_start_time_seconds", "process_resident_memory_bytes", "process_cpu_seconds_total", "process_open_fds", "ttmem_config_last_reload_successful", "ttmem_config_last_reload_success_timestamp_seconds"]],
  ["Reports", ["ttmem_events_total", "ttmem_events_rejected_total", "ttmem_events_lost_total", "ttmem_client_connections"]],
  ["Readers", ["ttmem_scrape_duration_seconds", "ttmem_otlp_exported_total", "ttmem_otlp_dropped_total", "ttmem_otlp_export_failures_total", "ttmem_otlp_queue_items", "ttmem_spans_omitted_total"]],
  ["History", ["ttmem_history_size_bytes", "ttmem_history_samples_total", "ttmem_history_events_total", "ttmem_history_dropped_total", "ttmem_history_errors_total", "ttmem_history_queue_items", "ttmem_history_last_write_timestamp_seconds"]],
];
const REFRESH_MS = 3000;

interface Sample {
  name: string;
  labels: string;
  value: number;
}

const LINE = /^([a-zA-Z_:][\w:]*)(?:\{(.*)\})? (\S+)/;

/** The samples and the help texts of an exposition. */
export function read(text: string): { samples: Sample[]; help: Map<string, string> } {
  const samples: Sample[] = [];
  const help = new Map<string, string>();
  for (const line of text.split("\n")) {
    if (line.startsWith("# HELP ")) {
      const [name = "", ...rest] = line.slice(7).split(" ");
      help.set(name, rest.join(" "));
    }
    const match = LINE.exec(line);
    if (match) samples.push({ name: match[1] ?? "", labels: match[2] ?? "", value: Number(match[3]) });
  }
  return { samples, help };
}

function written(sample: Sample): string {
  if (sample.name.endsWith("_timestamp_seconds") || sample.name === "process_start_time_seconds") {
    return sample.value > 0 ? moment(sample.value) : "never";
  }
  if (sample.name.endsWith("_bytes")) return bytes(sample.value);
  if (sample.name.includes("_seconds")) return sample.value < 1 ? `${(sample.value * 1000).toFixed(1)} ms` : duration(sample.value);
  return count(sample.value);
}

/** Of a family that has a sample for each kind of thing, those of which there are some; one that says 0 where there are none. */
function worthTelling(samples: Sample[]): Sample[] {
  const some = new Set(samples.filter((sample) => sample.value !== 0).map((sample) => sample.name));
  return samples.flatMap((sample, index) => {
    if (sample.value !== 0 || sample.labels === "") return sample;
    const isFirst = samples[index - 1]?.name !== sample.name;
    return isFirst && !some.has(sample.name) ? { ...sample, labels: "" } : [];
  });
}

export function Daemon() {
  const [text, setText] = useState("");
  const [problem, setProblem] = useState<string | null>(null);
  useEffect(() => {
    const stop = new AbortController();
    let timer: ReturnType<typeof setTimeout> | undefined;
    const names = FAMILIES.flatMap(([, all]) => all).map((name) => `name[]=${name}`);
    const look = async () => {
      try {
        setText(await askText(`/metrics?${names.join("&")}`, stop.signal));
        setProblem(null);
      } catch (error) {
        if (stop.signal.aborted) return;
        setProblem((error as Error).message);
      }
      timer = setTimeout(() => void look(), REFRESH_MS);
    };
    void look();
    return () => {
      stop.abort();
      clearTimeout(timer);
    };
  }, []);
  const { samples, help } = read(text);
  return (
    <>
      <h1 tabIndex={-1}>The daemon</h1>
      {problem && <p class="problem">Its metrics could not be loaded: {problem}</p>}
      <div class="wall">
        {FAMILIES.map(([title, names]) => {
          const own = worthTelling(samples.filter((sample) => names.includes(sample.name)));
          if (own.length === 0) return null;
          return (
            <section key={title} class="card" aria-label={title}>
              <h2>{title}</h2>
              <dl class="figures">
                {own.map((sample) => (
                  <div key={sample.name + sample.labels} title={help.get(sample.name)}>
                    <dt>
                      {sample.name.replace(/^ttmem_/, "")} {sample.labels && <small>{sample.labels.replaceAll('"', "")}</small>}
                    </dt>
                    <dd>{sample.name === "ttmem_build_info" ? "" : written(sample)}</dd>
                  </div>
                ))}
              </dl>
            </section>
          );
        })}
      </div>
    </>
  );
}
