"""Makes everything that an unmodified ttnn process needs to open a Tenstorrent board that is not there.

The idea is: tt-metal can take its cluster from a description file instead of from the PCI bus, and only has to be
kept from wanting its real RISC-V compiler. Run it with the interpreter that has ttnn, on an empty folder:

    target/peers/ttnn/bin/python tests/peers/mock_cluster.py DIR --board n300 --chip-id 71001 --chip-id 71002

It prints one JSON line: `env` is what the ttnn process must find in its environment, `regions` the shared-memory files
that tt-metal will publish for these chips. tt-metal never deletes those files; the caller does.
"""
import argparse
import importlib.util
import json
import os
import pathlib
import struct
import sys

# Number of chips, which of them sit behind the first one's Ethernet, and the board type's own 20-bit product number,
# which tt-metal looks for at bit 36 of a board's id.
BOARDS = {
    "n150": {"chips": 1, "remote": [], "type": "n150", "product": 0x18},
    "n300": {"chips": 2, "remote": [1], "type": "n300", "product": 0x14},
    "p150": {"chips": 1, "remote": [], "type": "p150", "product": 0x40},
    "2xn150": {"chips": 2, "remote": [], "type": "n150", "product": 0x18},
}

COMPILER = """#!/bin/sh
# Stand-in for the RISC-V compiler: device code never runs on a mock device, so every program may be the same one.
output= compile= depfile=
while [ $# -gt 0 ]; do
    case "$1" in
        --version) echo "riscv-tt-elf-g++ (stand-in) 0"; exit 0 ;;
        -o) output=$2; shift ;;
        -c) compile=1 ;;
        -MF) depfile=$2; shift ;;
    esac
    shift
done
if [ -n "$compile" ]; then
    : > "$output"
    echo "$output: $0" > "${depfile:-${output%.o}.d}"
else
    cp "${0%/*}/program.elf" "$output"
fi
"""


def program_elf():
    """The smallest executable that tt-metal's loader takes: text at the entry point, data behind it, no relocations."""
    text_address, data_address = 0x8000, 0xFFB00000
    text = struct.pack("<2I", 0x00000013, 0x00008067)  # nop; ret
    data = bytes(4)
    names = b"\0.text\0.data\0.rela.text\0.symtab\0.strtab\0.shstrtab\0"
    symbols = bytes(16)

    file, offsets = bytearray(52 + 2 * 32), {}
    contents = {".text": text, ".data": data, ".symtab": symbols, ".strtab": b"\0", ".shstrtab": names}
    for name, content in contents.items():
        file += bytes(-len(file) % 4)
        offsets[name] = len(file)
        file += content
    file += bytes(-len(file) % 4)
    section_table = len(file)

    progbits, symtab, strtab, rela = 1, 2, 3, 4
    write, alloc, execute = 1, 2, 4
    # name, type, flags, address, size, link, info, alignment, entry size
    sections = [
        (".text", progbits, alloc | execute, text_address, len(text), 0, 0, 4, 0),
        (".data", progbits, alloc | write, data_address, len(data), 0, 0, 4, 0),
        (".rela.text", rela, 0, 0, 0, 4, 1, 4, 12),
        (".symtab", symtab, 0, 0, len(symbols), 5, 1, 4, 16),
        (".strtab", strtab, 0, 0, 1, 0, 0, 1, 0),
        (".shstrtab", strtab, 0, 0, len(names), 0, 0, 1, 0),
    ]
    file += bytes(40)
    for name, kind, flags, address, size, link, info, alignment, entry in sections:
        name_offset = names.index(b"\0" + name.encode() + b"\0") + 1
        offset = offsets.get(name, section_table)
        file += struct.pack("<10I", name_offset, kind, flags, address, offset, size, link, info, alignment, entry)

    machine_riscv, kind_executable = 243, 2
    file[:52] = struct.pack(
        "<16sHHIIIIIHHHHHH", b"\x7fELF\x01\x01\x01", kind_executable, machine_riscv, 1, text_address, 52, section_table,
        0, 52, 32, 2, 40, len(sections) + 1, len(sections),
    )
    loadable, readable, writable, executable = 1, 4, 2, 1
    # The data's load address continues the text's: tt-metal puts it there, and start code would copy it in place.
    file[52:84] = struct.pack("<8I", loadable, offsets[".text"], text_address, text_address, len(text), len(text),
                              readable | executable, 4)
    file[84:116] = struct.pack("<8I", loadable, offsets[".data"], data_address, text_address + len(text), len(data),
                               len(data), readable | writable, 4)
    return bytes(file)


def cluster_yaml(board, chip_ids):
    """The cluster description for one of BOARDS, written by hand so that no YAML library is needed."""
    chips = range(board["chips"])
    boards = [[c] for c in chips] if not board["remote"] else [list(chips)]
    is_blackhole = board["type"].startswith("p")
    lines = ["arch:"] + [f"  {c}: {'blackhole' if is_blackhole else 'wormhole_b0'}" for c in chips]
    lines += ["chips:"] + [f"  {c}: [{c}, 0, 0, 0]" for c in chips]
    lines += ["chip_unique_ids:"] + [f"  {c}: {chip_ids[c]}" for c in chips]
    lines += ["chips_with_mmio:"] + [f"  - {c}: {c}" for c in chips if c not in board["remote"]]
    # The two chips of an N300 are joined by channels 8 and 9 of the first to 0 and 1 of the second.
    links = [(8, c, 0) for c in board["remote"]] + [(9, c, 1) for c in board["remote"]]
    lines += ["ethernet_connections:"] if links else ["ethernet_connections: []"]
    for near, chip, far in links:
        lines.append(f"  - [{{chip: 0, chan: {near}}}, {{chip: {chip}, chan: {far}}}]")
    rows = 1 if board["type"] == "n150" else 2
    lines += ["harvesting:"]
    for c in chips:
        # Blackhole boards wire one of the chip's two PCIe cores and twelve of its fourteen Ethernet cores.
        others = ", eth_harvesting_mask: 288, pcie_harvesting_mask: 2" if is_blackhole else ""
        harvested = 0 if is_blackhole else (1 << rows) - 1
        lines.append(f"  {c}: {{noc_translation: true, harvest_mask: {harvested}{others}}}")
    lines += ["boards:"]
    for serial, members in enumerate(boards):
        board_id = (1 << 56) | (board["product"] << 36) | (serial + 1)
        lines.append(f"  - [{{board_id: {board_id}}}, {{board_type: {board['type']}}}, {{chips: {members}}}]")
    return "\n".join(lines) + "\n"


def wheel_folder():
    """Where the running interpreter keeps ttnn's own files."""
    found = importlib.util.find_spec("ttnn")
    if found is None:
        sys.exit(
            f"mock_cluster.py: {sys.executable} has no ttnn: run `tests/peers/install target/peers ttnn` and use "
            "target/peers/ttnn/bin/python"
        )
    return pathlib.Path(found.origin).parent


def make(folder, board_name, chip_ids):
    """Fills `folder` and returns the environment for the ttnn process."""
    board = BOARDS[board_name]
    if len(chip_ids) != board["chips"] or len(set(chip_ids)) != len(chip_ids):
        sys.exit(f"mock_cluster.py: a {board_name} has {board['chips']} chips: give as many --chip-id, all different")
    wheel = wheel_folder()
    folder.mkdir(parents=True, exist_ok=True)
    if any(folder.iterdir()):
        sys.exit(f"mock_cluster.py: {folder} is not empty: give an empty folder for each mock cluster")

    cluster = folder / "cluster.yaml"
    cluster.write_text(cluster_yaml(board, chip_ids))

    root = folder / "root"
    binaries = root / "runtime/sfpi/compiler/bin"
    binaries.mkdir(parents=True)
    (root / "tt_metal").symlink_to(wheel / "tt_metal")
    (root / "ttnn").symlink_to(wheel / "ttnn")
    (root / "runtime/hw").symlink_to(wheel / "runtime/hw")
    (binaries / "program.elf").write_bytes(program_elf())
    compiler = binaries / "riscv-tt-elf-g++"
    compiler.write_text(COMPILER)
    compiler.chmod(0o755)

    for name in ("cache", "home", "tmp"):
        (folder / name).mkdir()
    return {
        "TT_METAL_MOCK_CLUSTER_DESC_PATH": str(cluster),
        "TT_METAL_SLOW_DISPATCH_MODE": "1",
        "TT_METAL_RUNTIME_ROOT": str(root),
        "TT_METAL_CACHE": str(folder / "cache"),
        "TT_METAL_LOGS_PATH": str(folder / "home"),
        "HOME": str(folder / "home"),
        "TMPDIR": str(folder / "tmp"),
        "OMPI_MCA_btl": "self",
        "TT_LOGGER_LEVEL": "error",
    }


def main():
    arguments = argparse.ArgumentParser(description=__doc__.split("\n", 1)[0])
    arguments.add_argument("folder", type=pathlib.Path)
    arguments.add_argument("--board", choices=BOARDS, default="n150")
    arguments.add_argument("--chip-id", type=int, action="append", required=True, help="unique id, once per chip")
    given = arguments.parse_args()
    environment = make(given.folder.resolve(), given.board, given.chip_id)
    regions = [f"/dev/shm/tt_device_{chip}_memory" for chip in given.chip_id]
    print(json.dumps({"env": environment, "regions": regions}))


if __name__ == "__main__":
    main()
