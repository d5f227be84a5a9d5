// The address of a view: what stands behind # is all that a view depends on, so every one can be kept, sent and gone back to.

import { useEffect, useState } from "preact/hooks";

export interface Route {
  /** The parts of the path: ["devices", "3"]. */
  path: string[];
  parameters: URLSearchParams;
}

export function parse(hash: string): Route {
  const [path = "", query = ""] = hash.replace(/^#?\/?/, "").split("?", 2);
  return { path: path.split("/").filter((part) => part !== ""), parameters: new URLSearchParams(query) };
}

/** The link to a view. */
export function link(path: string, parameters: Record<string, string | undefined> = {}): string {
  const query = new URLSearchParams();
  for (const [name, value] of Object.entries(parameters)) {
    if (value) query.set(name, value);
  }
  const text = query.toString();
  return `#/${path}${text === "" ? "" : `?${text}`}`;
}

/** Changes parameters of the view that is shown, without a step in the browser's history: it is still the same view. */
export function adjust(changes: Record<string, string | undefined>): void {
  const { path, parameters } = parse(location.hash);
  const merged = { ...Object.fromEntries(parameters), ...changes } as Record<string, string | undefined>;
  history.replaceState(null, "", link(path.join("/"), merged));
  dispatchEvent(new HashChangeEvent("hashchange"));
}

export function useRoute(): Route {
  const [hash, setHash] = useState(location.hash);
  useEffect(() => {
    const changed = () => setHash(location.hash);
    addEventListener("hashchange", changed);
    return () => removeEventListener("hashchange", changed);
  }, []);
  return parse(hash);
}
