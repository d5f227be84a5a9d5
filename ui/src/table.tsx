// A table of many rows, of which only those in sight are in the document.

import type { ComponentChildren } from "preact";
import { useEffect, useLayoutEffect, useRef, useState } from "preact/hooks";

export interface Column<Row> {
  name: string;
  title: string;
  /** Figures stand on the right. */
  isFigure?: boolean;
  /** Left out where there is little room. */
  isMinor?: boolean;
  /** Heads of columns that can be sorted by. */
  sort?: string;
  cell: (row: Row) => ComponentChildren;
}

interface Properties<Row> {
  caption: string;
  columns: Column<Row>[];
  rows: Row[];
  identity: (row: Row) => string;
  /** Rows before these: of earlier pages. */
  rowsBefore?: number;
  rowsTotal?: number;
  sortedBy?: string;
  onSort?: (sort: string) => void;
  /** Shown in place of no rows. */
  empty: string;
}

/** As page.css has it: rows out of sight have to be counted without being drawn. */
const ROW_PIXELS = 34;
/** Rows that are there before they come into sight. */
const MARGIN_ROWS = 8;

export function Table<Row>(properties: Properties<Row>) {
  const { caption, columns, rows, identity, rowsBefore = 0, rowsTotal = rows.length, sortedBy, onSort } = properties;
  const frame = useRef<HTMLDivElement>(null);
  const [first, setFirst] = useState(0);
  const [inSight, setInSight] = useState(30);

  useLayoutEffect(() => {
    const element = frame.current;
    if (!element) return;
    const measure = () => setInSight(Math.ceil(element.clientHeight / ROW_PIXELS));
    const observer = new ResizeObserver(measure);
    observer.observe(element);
    return () => observer.disconnect();
  }, []);
  // Another page begins at its top.
  useEffect(() => frame.current?.scrollTo(0, 0), [rowsBefore]);

  const begin = Math.max(0, Math.min(first, rows.length - inSight) - MARGIN_ROWS);
  const end = Math.min(rows.length, begin + inSight + 2 * MARGIN_ROWS);
  const scrolled = () => setFirst(Math.floor((frame.current?.scrollTop ?? 0) / ROW_PIXELS));
  return (
    // It can be scrolled by keyboard.
    <div class="frame" ref={frame} onScroll={scrolled} tabIndex={0} role="region" aria-label={caption}>
      <table aria-rowcount={rowsTotal + 1}>
        <caption>{caption}</caption>
        <thead>
          <tr aria-rowindex={1}>
            {columns.map((column) => (
              <th
                key={column.name}
                scope="col"
                class={classes(column)}
                {...(column.sort && column.sort === sortedBy ? { "aria-sort": "descending" as const } : {})}
              >
                {column.sort && onSort ? (
                  <button type="button" onClick={() => onSort(column.sort ?? "")}>
                    {column.title}
                    <span aria-hidden="true">{column.sort === sortedBy ? " ▾" : ""}</span>
                  </button>
                ) : (
                  column.title
                )}
              </th>
            ))}
          </tr>
        </thead>
        <tbody>
          {begin > 0 && <Space rows={begin} columns={columns.length} />}
          {rows.slice(begin, end).map((row, index) => (
            <tr key={identity(row)} aria-rowindex={rowsBefore + begin + index + 2}>
              {columns.map((column) => (
                <td key={column.name} class={classes(column)}>
                  {column.cell(row)}
                </td>
              ))}
            </tr>
          ))}
          {end < rows.length && <Space rows={rows.length - end} columns={columns.length} />}
          {rows.length === 0 && (
            <tr>
              <td class="empty" colSpan={columns.length}>
                {properties.empty}
              </td>
            </tr>
          )}
        </tbody>
      </table>
    </div>
  );
}

function Space(props: { rows: number; columns: number }) {
  return (
    <tr aria-hidden="true" class="space">
      <td colSpan={props.columns} style={{ height: `${props.rows * ROW_PIXELS}px` }} />
    </tr>
  );
}

function classes<Row>(column: Column<Row>): string {
  return [column.isFigure ? "figure" : "", column.isMinor ? "minor" : ""].join(" ").trim();
}
