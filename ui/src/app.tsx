// What is around every view: the way to the others, and whether what is seen is live.

import { useEffect, useRef } from "preact/hooks";

import { Daemon } from "./daemon";
import { DevicePage, Devices } from "./devices";
import { Events } from "./events";
import { Fits } from "./fits";
import { moment } from "./format";
import { Leaks, SUSPECTED } from "./leaks";
import { ProcessPage, Processes } from "./processes";
import { link, useRoute, type Route } from "./route";
import { useStore, type Connection } from "./store";

const VIEWS: [path: string, title: string][] = [
  ["devices", "Devices"],
  ["processes", "Processes"],
  ["leaks", "Leaks"],
  ["events", "Events"],
  ["fits", "What fits"],
  ["daemon", "Daemon"],
];

function View(props: { route: Route }) {
  const { route } = props;
  const [view = "devices", number] = route.path;
  const index = number === undefined ? null : Number(number);
  if (view === "devices") return index === null ? <Devices route={route} /> : <DevicePage route={route} index={index} />;
  if (view === "processes") return index === null ? <Processes route={route} /> : <ProcessPage key={index} route={route} pid={index} />;
  if (view === "leaks") return <Leaks />;
  if (view === "events") return <Events route={route} />;
  if (view === "fits") return <Fits route={route} />;
  if (view === "daemon") return <Daemon />;
  return (
    <>
      <h1 tabIndex={-1}>There is no such view</h1>
      <p>
        <a href={link("devices")}>Devices</a>
      </p>
    </>
  );
}

function said(connection: Connection, timestampSeconds: number): string {
  switch (connection) {
    case "live":
      return "Live";
    case "connecting":
      return "Connecting";
    case "paused":
      return "Paused";
    case "lost":
      return timestampSeconds > 0 ? `Connection lost; as of ${moment(timestampSeconds)}` : "The daemon does not answer; trying again";
  }
}

export function App() {
  const route = useRoute();
  const { connection, timestampSeconds, leaks } = useStore();
  const main = useRef<HTMLElement>(null);
  const place = route.path.join("/");
  const isFirst = useRef(true);
  const suspected = leaks.filter((leak) => leak.score >= SUSPECTED).length;
  useEffect(() => {
    const heading = main.current?.querySelector("h1");
    document.title = `${heading?.textContent ?? "Devices"} · ttmem`;
    // Whoever came here by a link goes on reading where the new view begins.
    if (!isFirst.current) {
      heading?.focus();
      scrollTo(0, 0);
    }
    isFirst.current = false;
  }, [place]);
  return (
    <>
      <header class="top">
        <a class="home" href={link("devices")}>
          ttmem
        </a>
        <nav aria-label="Views">
          {VIEWS.map(([path, title]) => (
            <a key={path} href={link(path)} {...((route.path[0] ?? "devices") === path ? { "aria-current": "page" as const } : {})}>
              {title}
              {path === "leaks" && suspected > 0 && <span class="badge warn">{suspected}</span>}
            </a>
          ))}
        </nav>
        <p class={`connection ${connection}`} role="status">
          {said(connection, timestampSeconds)}
        </p>
      </header>
      <main id="main" ref={main}>
        <View route={route} />
      </main>
    </>
  );
}
