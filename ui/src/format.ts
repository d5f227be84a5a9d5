// How figures are written: binary units, durations, times of day.

const UNITS = ["B", "KiB", "MiB", "GiB", "TiB", "PiB"];

/** Three digits at least, and as many as a device has kibibytes at most. */
export function bytes(value: number): string {
  let unit = 0;
  let rest = Math.abs(value);
  while (rest >= 1024 && unit < UNITS.length - 1) {
    rest /= 1024;
    unit += 1;
  }
  // 1023.96 would otherwise be written as 1024.0.
  if (rest >= 999.95 && unit < UNITS.length - 1 && unit > 0) {
    rest /= 1024;
    unit += 1;
  }
  const sign = value < 0 ? "−" : "";
  return `${sign}${unit === 0 ? rest.toFixed(0) : rest.toFixed(rest < 10 ? 2 : 1)} ${UNITS[unit]}`;
}

/** Bytes by the minute, with their direction. */
export function growth(bytesPerMinute: number | null): string {
  if (bytesPerMinute === null) return "…";
  if (Math.abs(bytesPerMinute) < 1) return "steady";
  return `${bytesPerMinute > 0 ? "+" : ""}${bytes(bytesPerMinute)}/min`;
}

export function count(value: number): string {
  return Math.round(value).toLocaleString("en-US");
}

export function percent(share: number): string {
  return `${(share * 100).toFixed(share < 0.0995 ? 1 : 0)} %`;
}

/** The two largest units. */
export function duration(seconds: number): string {
  if (!Number.isFinite(seconds)) return "–";
  const whole = Math.max(0, Math.round(seconds));
  if (whole < 60) return `${whole} s`;
  if (whole < 3600) return `${Math.floor(whole / 60)} min ${whole % 60} s`;
  if (whole < 86_400) return `${Math.floor(whole / 3600)} h ${Math.floor((whole % 3600) / 60)} min`;
  return `${Math.floor(whole / 86_400)} d ${Math.floor((whole % 86_400) / 3600)} h`;
}

/** The time of day, and the date where it is not today's. */
export function moment(unixSeconds: number): string {
  const time = new Date(unixSeconds * 1000);
  const clock = time.toLocaleTimeString(undefined, { hour12: false });
  const isToday = time.toDateString() === new Date().toDateString();
  return isToday ? clock : `${time.toLocaleDateString()} ${clock}`;
}

const SIZE = /^\s*([0-9]+(?:\.[0-9]+)?)\s*([kmgt]?i?b?)\s*$/i;

/** The size that a text such as 6GiB stands for; null if it stands for none. */
export function parseSize(text: string): number | null {
  const match = SIZE.exec(text);
  if (!match) return null;
  const power = "kmgt".indexOf((match[2] ?? "").charAt(0).toLowerCase()) + 1;
  const value = Number(match[1]) * 1024 ** (match[2] ? power : 0);
  return value >= 1 && Number.isSafeInteger(Math.round(value)) ? Math.round(value) : null;
}
