// What the page itself has seen, second by second: the end of every timeline, and all of it where the daemon keeps no history.

/** Ten minutes. At 32 devices and 500 processes these are some megabytes. */
const TICKS_MAX = 600;
/** How much longer than that the oldest may stay: taking one away at a time would move all the others every second. */
const SLACK = 60;

/** Figures at common times. Each series is as long as the times, and undefined where it had none. */
export class Samples {
  readonly times: number[] = [];
  private readonly series = new Map<string, (number | undefined)[]>();

  /** Begins a moment; figures are then put into it. */
  begin(time: number): void {
    const last = this.times.at(-1);
    // The clock was set back: what comes cannot be drawn behind what is there.
    if (last !== undefined && time <= last) this.clear();
    this.times.push(time);
    if (this.times.length > TICKS_MAX + SLACK) {
      this.times.splice(0, SLACK);
      for (const [name, values] of this.series) {
        values.splice(0, SLACK);
        if (values.length === 0) this.series.delete(name);
      }
    }
  }

  put(name: string, value: number): void {
    let values = this.series.get(name);
    if (!values) this.series.set(name, (values = []));
    while (values.length < this.times.length - 1) values.push(undefined);
    values[this.times.length - 1] = value;
  }

  /** Nothing was seen for a while: lines are not to be drawn across it. */
  interrupt(): void {
    const last = this.times.at(-1);
    if (last !== undefined) this.begin(last + 0.5);
  }

  at(name: string, index: number): number | undefined {
    return this.series.get(name)?.[index];
  }

  /** Change by the minute over the last one, or over as much as was seen of it; null while that is too little to tell. */
  growth(name: string): number | null {
    const values = this.series.get(name);
    const last = values?.at(-1);
    if (!values || last === undefined) return null;
    const now = this.times[values.length - 1] ?? 0;
    for (let index = Math.max(0, values.length - 61); index < values.length; index += 1) {
      const value = values[index];
      const seconds = now - (this.times[index] ?? now);
      if (value !== undefined && seconds <= 61) return seconds < 5 ? null : ((last - value) / seconds) * 60;
    }
    return null;
  }

  private clear(): void {
    this.times.length = 0;
    this.series.clear();
  }
}
