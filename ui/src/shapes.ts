// What the API answers, as far as the page uses it. Absent means not known.

export interface DeviceMemory {
  memory_type: string;
  usage_bytes: number;
  peak_bytes: number;
  limit_bytes?: number;
  buffers?: number;
}

export interface Device {
  device: number;
  arch?: string;
  board?: string;
  asic_id?: string;
  pci_bus_id?: string;
  serial?: string;
  firmware?: string;
  capacity_source?: string;
  processes: number;
  untracked?: { processes: number; named: { pid: number; process: string; user: string }[] };
  memory: DeviceMemory[];
}

export interface HeldMemory {
  device: number;
  memory_type: string;
  usage_bytes: number;
  peak_bytes: number;
  buffers?: number;
  leak_score?: number;
}

export interface Container {
  container_id: string;
  k8s_namespace_name?: string;
  k8s_pod_name?: string;
  k8s_container_name?: string;
}

export interface Process {
  pid: number;
  process: string;
  user: string;
  source: string;
  container?: Container;
  start_time_seconds?: number;
  trace_id: string;
  span_id: string;
  ended: boolean;
  device_usage_bytes: number;
  memory: HeldMemory[];
}

export interface Leak {
  pid: number;
  process: string;
  user: string;
  device: number;
  memory_type: string;
  score: number;
  suspected_timestamp_seconds?: number;
  growth_bytes: number;
  growth_seconds: number;
  bytes_per_second: number;
  full_in_seconds?: number;
  evidence: string;
}

/** The first event of /api/v1/live: everything. */
export interface State {
  timestamp_seconds: number;
  /** Whether /api/v1/range and /api/v1/events have anything to tell. */
  has_history: boolean;
  devices: Device[];
  processes: Process[];
  leaks: Leak[];
}

/** Each later one: what has changed. */
export interface Change {
  timestamp_seconds: number;
  devices: Device[];
  processes: Process[];
  /** Span ids of processes that are no longer shown. */
  gone: string[];
  leaks?: Leak[];
}

export interface Buffer {
  pid: number;
  device: number;
  memory_type: string;
  buffer_id: string;
  size_bytes: number;
  references: number;
  age_seconds: number;
}

export interface Buffers {
  buffers: Buffer[];
  next_cursor?: string;
}

export interface RangeSeries {
  device: number;
  memory_type: string;
  pid?: number;
  process?: string;
  start_time_seconds?: number;
  /** Lowest, mean and highest of each step; null where nothing is known. */
  points: ([number, number, number] | null)[];
}

export interface Range {
  start_seconds: number;
  step_seconds: number;
  results: RangeSeries[];
}

export interface Event {
  id: number;
  timestamp_seconds: number;
  kind: string;
  device?: number;
  memory_type?: string;
  pid?: number;
  process?: string;
  figures: Record<string, unknown>;
}

export interface DeviceFit {
  device: number;
  board?: string;
  needed_bytes: number;
  free_bytes?: number;
  free_at_peak_bytes?: number;
  now: string;
  at_peak: string;
}

export interface Fits {
  timestamp_seconds: number;
  /** Of which time on the peak is. */
  peak_since_timestamp_seconds: number;
  size_bytes: number;
  memory_type: string;
  devices: DeviceFit[];
}

/** All memory types, in the order in which they are shown. */
export const MEMORY_TYPES = ["dram", "l1", "l1_small", "trace", "cb", "kernel", "system_memory"] as const;
