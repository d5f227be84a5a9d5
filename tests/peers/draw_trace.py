"""Draws the trace of one process as an SVG, from the requests that a collector has received.

    draw_trace.py REQUESTS.json OUT.svg

The requests are those of otlp_collector.py: OTLP in the JSON of the official classes. Each span is a bar between its start and its end,
the process's own on top and its children below in the order of their starts; events are marks on the process's bar.
"""
import base64
import json
import sys
from html import escape

WIDTH, LABEL, RIGHT = 1000, 330, 30
ROW, BAR, TOP, BOTTOM = 26, 16, 64, 40
COLOURS = {"process": "#3b5b92", "buffer dram": "#5b8c5a", "buffer l1": "#c88a2d", "buffer l1_small": "#8f6bb0",
           "buffer trace": "#4b9aa8", "interval": "#9aa5b1"}
OTHER, ERROR, INK, FAINT = "#7d7d7d", "#b83232", "#22272e", "#d0d7de"
TICKS = 6


def spans_of(requests):
    for request in requests:
        for resource in request["body"].get("resourceSpans", []):
            for scope in resource["scopeSpans"]:
                yield from scope["spans"]


def attributes_of(item):
    return {each["key"]: next(iter(each["value"].values())) for each in item.get("attributes", [])}


def size(number):
    number = float(number)
    for unit in ("B", "KiB", "MiB"):
        if number < 1024:
            return f"{number:.4g} {unit}"
        number /= 1024
    return f"{number:.4g} GiB"


def duration(nanoseconds):
    return f"{nanoseconds / 1e9:.2f} s" if nanoseconds >= 1e9 else f"{nanoseconds / 1e6:.1f} ms"


def label_of(span):
    attributes = attributes_of(span)
    parts = [span["name"]]
    if "tenstorrent.buffer.size" in attributes:
        parts += [size(attributes["tenstorrent.buffer.size"]), "at " + attributes["tenstorrent.buffer.id"]]
    return " · ".join(parts)


def draw(spans):
    root = next(span for span in spans if span["name"].startswith("process "))
    children = [span for span in spans if span.get("parentSpanId") == root["spanId"]]
    children.sort(key=lambda span: int(span["startTimeUnixNano"]))
    rows = [root, *children]
    begin, end = int(root["startTimeUnixNano"]), int(root["endTimeUnixNano"])
    scale = (WIDTH - LABEL - RIGHT) / (end - begin)
    x = lambda time: LABEL + (int(time) - begin) * scale
    height = TOP + ROW * len(rows) + BOTTOM
    trace_id = base64.b64decode(root["traceId"]).hex()
    out = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {height}" font-family="sans-serif" font-size="12">',
        f'<rect width="{WIDTH}" height="{height}" fill="#ffffff"/>',
        f'<text x="16" y="24" font-size="15" font-weight="bold" fill="{INK}">{escape(root["name"])}</text>',
        f'<text x="16" y="42" fill="{INK}">trace {trace_id}, {duration(end - begin)}</text>',
    ]
    for tick in range(TICKS + 1):
        at = begin + (end - begin) * tick // TICKS
        out.append(f'<line x1="{x(at):.1f}" x2="{x(at):.1f}" y1="{TOP - 6}" y2="{height - BOTTOM + 4}" stroke="{FAINT}"/>')
        out.append(f'<text x="{x(at):.1f}" y="{height - BOTTOM + 20}" text-anchor="middle" fill="{INK}">{duration(at - begin)}</text>')
    for row, span in enumerate(rows):
        top = TOP + ROW * row
        kind = "process" if span is root else span["name"]
        left, right = x(span["startTimeUnixNano"]), x(span["endTimeUnixNano"])
        failed = span.get("status", {}).get("code") == "STATUS_CODE_ERROR"
        stroke = f' stroke="{ERROR}" stroke-width="2"' if failed else ""
        out.append(f'<text x="16" y="{top + BAR - 3}" fill="{INK}">{escape(label_of(span))}</text>')
        out.append(
            f'<rect x="{left:.1f}" y="{top}" width="{max(right - left, 2):.1f}" height="{BAR}" rx="2" '
            f'fill="{COLOURS.get(kind, OTHER)}"{stroke}><title>{escape(label_of(span))}</title></rect>'
        )
    for event in root.get("events", []):
        at = x(event["timeUnixNano"])
        colour = ERROR if "fail" in event["name"] else INK
        out.append(f'<path d="M{at:.1f} {TOP - 2} l-5 -9 h10 z" fill="{colour}"><title>{escape(event["name"])}</title></path>')
    failed = [event for event in root.get("events", []) if "fail" in event["name"]]
    for event in failed:
        attributes = attributes_of(event)
        words = f'{event["name"]}: {size(attributes["tenstorrent.memory.requested"])} of {attributes["tenstorrent.memory.type"]}'
        out.append(
            f'<text x="{x(event["timeUnixNano"]):.1f}" y="{TOP - 16}" text-anchor="middle" fill="{ERROR}">{escape(words)}</text>'
        )
    out.append("</svg>")
    return "\n".join(out) + "\n"


def main():
    source, target = sys.argv[1:]
    with open(source) as requests:
        picture = draw(list(spans_of(json.load(requests))))
    with open(target, "w") as out:
        out.write(picture)


main()
