// Questions to the daemon that this page came from.

export type Parameters = Record<string, string | number | undefined>;

export function address(path: string, parameters: Parameters): string {
  const query = new URLSearchParams();
  for (const [name, value] of Object.entries(parameters)) {
    if (value !== undefined && value !== "") query.set(name, String(value));
  }
  const text = query.toString();
  return text === "" ? path : `${path}?${text}`;
}

export async function ask<T>(path: string, parameters: Parameters = {}, signal?: AbortSignal): Promise<T> {
  const response = await fetch(address(path, parameters), { signal: signal ?? null });
  if (!response.ok) throw new Error(await reason(response));
  return (await response.json()) as T;
}

export async function askText(path: string, signal: AbortSignal): Promise<string> {
  const response = await fetch(path, { signal, headers: { Accept: "text/plain;version=0.0.4" } });
  if (!response.ok) throw new Error(await reason(response));
  return response.text();
}

/** What the daemon says about why it did not answer. */
async function reason(response: Response): Promise<string> {
  try {
    const problem = (await response.json()) as { detail?: string };
    return problem.detail ?? response.statusText;
  } catch {
    return response.statusText;
  }
}
