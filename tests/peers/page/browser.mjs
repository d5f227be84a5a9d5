// A browser that is driven by lines: each is a JSON command, and each is answered with one JSON line.
//
//   {"op": "open", "url": ...}         also "scheme": "light|dark", "width", "height", "user", "password"; a context of its own;
//                                      "live": a state that the page gets in place of the daemon's
//   {"op": "evaluate", "script": ...}  an expression in the page; "value" is what it gives
//   {"op": "wait", "script": ...}      the same, again and again until it is true
//   {"op": "click", "selector": ...}
//   {"op": "press", "key": ...}
//   {"op": "axe"}                      "value" lists what axe-core finds against the page as it is
//   {"op": "report"}                   what went on since it was opened: "foreign" requests, "errors", and for how many seconds the
//                                      page's thread had the processor
//   {"op": "trace"}                    from now on, every task of the page's thread is noted
//   {"op": "longest_task"}             "value" is for how many seconds the longest of those has had the processor; ends the trace
//   {"op": "screenshot", "path": ...}
//
// An answer has "ok": true, or "ok": false and "error". It is started with the folder in which its packages are.

import { readFileSync } from "node:fs";
import { createRequire } from "node:module";
import { createInterface } from "node:readline";

const require = createRequire(`${process.argv[2]}/`);
const { chromium } = require("playwright-core");
const axe = readFileSync(require.resolve("axe-core/axe.min.js"), "utf8");

/** Beyond what anything here takes. */
const PATIENCE_MS = 30_000;
/** Between two looks at something that is awaited. */
const LOOK_INTERVAL_MS = 20;

const browser = await chromium.launch({
  executablePath: process.env.TTMEM_TEST_CHROMIUM ?? "/usr/bin/chromium",
  // The tests may run as root, and in a container without a graphics card or much /dev/shm.
  args: ["--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage", "--no-first-run", "--disable-background-networking"],
});
let page;
let seen;
let protocol;

async function open({ url, scheme = "light", width = 1280, height = 900, user, password, live }) {
  await page?.context().close();
  const credentials = user ? { httpCredentials: { username: user, password } } : {};
  const context = await browser.newContext({ viewport: { width, height }, colorScheme: scheme, ...credentials });
  context.setDefaultTimeout(PATIENCE_MS);
  page = await context.newPage();
  seen = { foreign: [], errors: [] };
  const [{ origin }, own] = [new URL(url), seen];
  page.on("request", (request) => {
    const asked = new URL(request.url());
    if (asked.protocol !== "data:" && asked.origin !== origin) own.foreign.push(request.url());
  });
  page.on("pageerror", (error) => own.errors.push(String(error)));
  page.on("console", (message) => message.type() === "error" && own.errors.push(message.text()));
  protocol = await context.newCDPSession(page);
  // The processor's time, not the clock's: the machine may be busy with something else.
  await protocol.send("Performance.enable", { timeDomain: "threadTicks" });
  if (live) {
    const body = `event: state\ndata: ${JSON.stringify(live)}\n\n`;
    await page.route("**/api/v1/live", (route) => route.fulfill({ contentType: "text/event-stream", body }));
  }
  const response = await page.goto(url);
  return response.status();
}

const OPERATIONS = {
  open,
  evaluate: ({ script }) => page.evaluate(script),
  wait: async ({ script }) => {
    const deadline = Date.now() + PATIENCE_MS;
    for (;;) {
      // Between two pages there is nobody to answer.
      const found = await page.evaluate(script).catch(() => false);
      if (found) return found;
      if (Date.now() > deadline) throw new Error(`waited for ${script}; there is ${await page.evaluate("document.body.innerText")}`);
      await new Promise((resolve) => setTimeout(resolve, LOOK_INTERVAL_MS));
    }
  },
  click: ({ selector }) => page.click(selector),
  press: ({ key }) => page.keyboard.press(key),
  axe: async () => {
    await page.evaluate(axe);
    return page.evaluate(async () => {
      const { violations } = await axe.run();
      return violations.map(({ id, nodes }) => `${id}: ${nodes.map((node) => node.html).join(" ")}`);
    });
  },
  report: async () => {
    const { metrics } = await protocol.send("Performance.getMetrics");
    return { ...seen, busy_seconds: metrics.find(({ name }) => name === "TaskDuration").value };
  },
  trace: () => browser.startTracing(page, { categories: ["toplevel", "__metadata"] }),
  longest_task: async () => {
    const { traceEvents } = JSON.parse((await browser.stopTracing()).toString());
    const threads = traceEvents.filter(({ name, args }) => name === "thread_name" && args.name === "CrRendererMain");
    const isOfAPage = ({ pid, tid }) => threads.some((thread) => thread.pid === pid && thread.tid === tid);
    const tasks = traceEvents.filter((event) => event.tdur !== undefined && isOfAPage(event));
    if (tasks.length === 0) throw new Error("there is no task in the trace");
    return Math.max(...tasks.map(({ tdur }) => tdur)) / 1e6;
  },
  screenshot: ({ path }) => page.screenshot({ path }),
};

for await (const line of createInterface({ input: process.stdin })) {
  let answer;
  try {
    const command = JSON.parse(line);
    answer = { ok: true, value: (await OPERATIONS[command.op](command)) ?? null };
  } catch (error) {
    answer = { ok: false, error: String(error) };
  }
  process.stdout.write(`${JSON.stringify(answer)}\n`);
}
await browser.close();
