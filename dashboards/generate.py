#!/usr/bin/env python3
"""Writes the boards' JSON beside this file from source/; with --check only says whether it is up to date."""

import json
import pathlib
import sys

FOLDER = pathlib.Path(__file__).resolve().parent

sys.dont_write_bytecode = True
sys.path.insert(0, str(FOLDER / "source"))

import device  # noqa: E402
import exporter  # noqa: E402
import fleet  # noqa: E402
import grafana  # noqa: E402
import leaks  # noqa: E402
import process  # noqa: E402


def main():
    if sys.argv[1:] not in ([], ["--check"]):
        sys.exit("usage: generate.py [--check]")
    boards = [fleet.BOARD, device.BOARD, process.BOARD, leaks.BOARD, exporter.BOARD]
    grafana.connect(boards)
    files = {FOLDER / (board["uid"] + ".json"): json.dumps(board, indent=2) + "\n" for board in boards}
    stale = [path for path, text in files.items() if not path.exists() or path.read_text() != text]
    strays = [path for path in FOLDER.glob("*.json") if path not in files]
    if sys.argv[1:]:
        for path in stale + strays:
            print("%s is not what source/ says: run dashboards/generate.py" % path.name, file=sys.stderr)
        sys.exit(bool(stale or strays))
    for path in strays:
        path.unlink()
    for path in stale:
        path.write_text(files[path])


main()
