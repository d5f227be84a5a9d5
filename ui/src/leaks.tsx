// What is suspected of leaking, and why.

import { bytes, duration, moment } from "./format";
import { link } from "./route";
import type { Leak } from "./shapes";
import { useStore } from "./store";

export const SUSPECTED = 0.5;
/** From here on the alert TtmemLeakLikely tells of it. */
const LIKELY = 0.7;

export function LeakList(props: { leaks: Leak[] }) {
  if (props.leaks.length === 0) return null;
  return (
    <ul class="leaks" aria-label="Suspected leaks">
      {props.leaks.map((leak) => (
        <li key={`${leak.pid}/${leak.device}/${leak.memory_type}/${leak.evidence.slice(0, 40)}`} class={leak.score >= SUSPECTED ? "card suspected" : "card"}>
          <h2>
            <a href={link(`processes/${leak.pid}`, { type: leak.memory_type })}>
              <bdi>{leak.process}</bdi>
            </a>{" "}
            <small>
              {leak.pid}, {leak.memory_type} of device {leak.device}
            </small>
          </h2>
          <p class="score">
            <meter min={0} max={1} low={SUSPECTED} high={LIKELY} optimum={0} value={leak.score} aria-label="Score" /> {leak.score.toFixed(2)},{" "}
            {leak.suspected_timestamp_seconds === undefined ? "watched" : `suspected since ${moment(leak.suspected_timestamp_seconds)}`}
          </p>
          <p>{leak.evidence}</p>
          <p class="note">
            {bytes(leak.bytes_per_second * 60)} a minute{leak.full_in_seconds === undefined ? "" : `; the device is full in ${duration(leak.full_in_seconds)} at this rate`}
          </p>
        </li>
      ))}
    </ul>
  );
}

export function Leaks() {
  const { leaks, timestampSeconds } = useStore();
  return (
    <>
      <h1 tabIndex={-1}>Leaks</h1>
      {leaks.length === 0 && timestampSeconds > 0 && <p>Nothing looks like a leak. It takes some minutes of growth before anything does.</p>}
      <LeakList leaks={leaks} />
    </>
  );
}
