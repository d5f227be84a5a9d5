"""The stats pages of pages.txt, from the tables of PROTOCOL.md and Python's struct: generate.py writes them."""

import struct

MEMORY_TYPES = ["dram", "l1", "l1_small", "trace", "cb", "kernel", "system_memory"]

HEADER = [
    ("magic", "8s"),
    ("version", "I"),
    ("kind", "I"),
    ("header_bytes", "I"),
    ("row_bytes", "I"),
    ("rows_max", "Q"),
    ("rows_used", "Q"),
    ("rows_missing", "Q"),
    (None, "16x"),
]
DEVICE = (
    [("sequence", "Q"), ("is_known", "B"), ("arch", "B"), ("board_bytes", "B"), (None, "5x")]
    + [(f"{name}_usage_bytes", "Q") for name in MEMORY_TYPES]
    + [(f"{name}_peak_bytes", "Q") for name in MEMORY_TYPES]
    + [(f"{name}_limit_bytes", "Q") for name in MEMORY_TYPES]
    + [("untracked_plus_one", "Q"), ("board", "32s"), (None, "32x")]
)
FIGURES = [
    "reported_bytes", "region_bytes", "is_reported", "is_in_region", "peak_bytes", "buffers", "allocations", "frees",
    "allocated_bytes", "freed_bytes", "orphaned_buffers", "orphaned_bytes", "oldest_ns_plus_one",
]
HOLDER = (
    [("sequence", "Q"), ("start_ticks", "Q"), ("pid", "I"), ("uid", "I")]
    + [("device", "H"), ("memory_type", "B"), ("state", "B"), ("name_bytes", "B"), ("user_bytes", "B"), (None, "2x")]
    + [("start_unix_ns", "Q")]
    + [(name, "Q") for name in FIGURES]
    + [(None, "88x"), ("name", "64s"), ("user", "24s")]
)
KINDS = {"devices": (1, DEVICE), "processes": (2, HOLDER)}

# A row is described and then published once: two publications.
SEQUENCE = 2 << 16

# (name of the vector, kind, rows there is room for, rows_missing, {index: row})
PAGES = [
    ("empty", "devices", 1, 0, {}),
    ("two_devices", "devices", 3, 0, {
        0: dict(sequence=SEQUENCE, is_known=1, dram_usage_bytes=1 << 20, dram_peak_bytes=3 << 20),
        2: dict(
            dict(zip((name for name, _ in DEVICE if name and name.endswith("usage_bytes")), range(0x1122_3344_0101, 0x1122_3344_0108))),
            **dict(zip((name for name, _ in DEVICE if name and name.endswith("peak_bytes")), range(0x2233_4455_0201, 0x2233_4455_0208))),
            sequence=SEQUENCE, is_known=1, arch=3, board_bytes=5, board=b"p150b",
            untracked_plus_one=3, dram_limit_bytes=34_087_108_608, l1_limit_bytes=196_490_240,
        ),
    }),
    ("a_holder", "processes", 2, 4, {
        1: dict(
            dict(zip(FIGURES, range(0x7766_5544_0301, 0x7766_5544_0301 + len(FIGURES)))),
            sequence=SEQUENCE, start_ticks=0x0001_0203_0405, pid=4_194_303, uid=65_534, device=1023, memory_type=6, state=1,
            name_bytes=13, user_bytes=2, start_unix_ns=1_764_547_200_123_456_789, name=b"llama-serving", user=b"ml",
        ),
    }),
]

INTRODUCTION = """\
# Byte vectors of the stats pages, made by generate.py. PROTOCOL.md explains the fields.
#
# A vector is a run of lines; an empty line ends it; a line that begins with # is a comment. Its lines are
#   page NAME, kind KIND, and the fields of the header, as decimal numbers
#   row INDEX, and behind it the fields of that row that are not zero, for each row that is not zero
#   hex      the page, two digits a byte
"""


def pack(table, fields):
    """The bytes of a header or a row, and its fields that are not zero."""
    rest = dict(fields)
    values = [rest.pop(name, b"" if code.endswith("s") else 0) for name, code in table if name]
    assert not rest, f"no fields are called {list(rest)}"
    data = struct.pack("<" + "".join(code for _, code in table), *values)
    named = zip((name for name, _ in table if name), values)
    return data, [(name, value.decode() if isinstance(value, bytes) else value) for name, value in named if value]


def vector(name, kind, rows_max, rows_missing, rows):
    number, table = KINDS[kind]
    row_bytes = struct.calcsize("<" + "".join(code for _, code in table))
    header, values = pack(HEADER, dict(
        magic=b"ttmempag", version=1, kind=number, header_bytes=64, row_bytes=row_bytes,
        rows_max=rows_max, rows_used=max(rows, default=-1) + 1, rows_missing=rows_missing,
    ))
    lines = [("page", name), *values]
    data = header
    for index in range(rows_max):
        row, values = pack(table, rows.get(index, {}))
        data += row
        lines += [("row", index), *values] if values else []
    lines.append(("hex", data.hex()))
    return "".join(f"{key} {value}\n" for key, value in lines)


def text():
    return "\n".join([INTRODUCTION] + [vector(*page) for page in PAGES])
