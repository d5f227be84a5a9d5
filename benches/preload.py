"""What libttmem_preload.so costs an unmodified ttnn: the same workload with it and without, in turns, with a daemon and with none.

    cargo build --release && cargo build --profile preload --package ttmem-preload
    tests/peers/install target/peers ttnn
    python3 benches/preload.py [--rounds N] [--target DIR] [--peers DIR]

The board is a mock, so device code does not run: what remains is the host's work, of which an allocation is a part. A real board would
make a run longer and the cost the same. Times are processor time, which other work on the machine does not lengthen:

    stand-in   a tt-metal that does next to nothing (preload.cpp): what is added to an allocation and its free, by itself
    churn      allocates and frees one tensor, 20,000 times, in time of its thread: the same on the real allocator
    run        a whole process: imports ttnn, opens the device, ten times makes a hundred tensors in DRAM, adds them in L1 two by two and
               frees everything, and closes the device; in time of all its threads

Medians of the differences, round by round, and the lowest and the highest. A run varies by more than the library can cost where the machine
does other work too; so it is also compared by the rounds that were disturbed least, the first quartile of each way.
"""

import argparse
import json
import os
import pathlib
import statistics
import subprocess
import sys
import tempfile

ROOT = pathlib.Path(__file__).resolve().parent.parent
CHURNS = 20_000
#: No factory's chip has it.
CHIP_ID = 0x7E57_BE4C << 16
LIMITS = {
    "stand-in": ("ns an allocation and its free", 500.0),
    "churn": ("ns an allocation and its free", 500.0),
    "run": ("% of the run", 1.0),
}

WORKLOAD = """
import sys, time
import ttnn
device = ttnn.open_device(device_id=0)
dram, l1 = ttnn.DRAM_MEMORY_CONFIG, ttnn.L1_MEMORY_CONFIG

def empty(shape, memory):
    return ttnn.empty(shape, ttnn.bfloat16, ttnn.TILE_LAYOUT, device, memory)

def churn(times):
    for _ in range(times):
        ttnn.deallocate(empty([32, 32], dram))

def model(times):
    for _ in range(times):
        weights = [empty([256, 256], dram) for _ in range(100)]
        sums = [ttnn.add(left, right, memory_config=l1) for left, right in zip(weights, weights[1:])]
        for tensor in weights + sums:
            ttnn.deallocate(tensor)

times = int(sys.argv[1])
if times:
    # Whatever is done once is done before the clock starts.
    churn(100)
    begin = time.thread_time_ns()
    churn(times)
    cost = (time.thread_time_ns() - begin) / times
else:
    model(10)
ttnn.close_device(device)
print(cost if times else time.process_time_ns(), file=sys.stderr)
"""


def outcome(command, environment):
    run = subprocess.run([str(word) for word in command], env=environment, capture_output=True, text=True)
    if run.returncode != 0:
        sys.exit(f"preload.py: the workload ended with {run.returncode}:\n{run.stderr}")
    return run


def nanoseconds(python, stand_in, environment):
    """What each part takes in an environment."""

    def ttnn(churns):
        return float(outcome([python, "-c", WORKLOAD, churns], environment).stderr.split()[-1])

    return {"stand-in": float(outcome([stand_in], environment).stdout), "churn": ttnn(CHURNS), "run": ttnn(0)}


def build_stand_in(folder):
    """The stand-in for tt-metal, and the program on top of it."""
    compiler = ["g++", "-std=c++17", "-O2", f"-L{folder}", f"-Wl,-rpath,{folder}"]
    library, program = f"{folder}/libtt_metal.so", f"{folder}/churn"
    source = ROOT / "tests/peers/stand_in/library.cpp"
    subprocess.run([*compiler, "-shared", "-fPIC", "-o", library, source], check=True)
    subprocess.run([*compiler, "-o", program, ROOT / "benches/preload.cpp", "-ltt_metal"], check=True)
    return program


def spread(values):
    return f"{statistics.median(values):9.2f}  ({min(values):.2f} to {max(values):.2f})"


def main():
    arguments = argparse.ArgumentParser(description=__doc__.split("\n", 1)[0])
    arguments.add_argument("--rounds", type=int, default=11)
    arguments.add_argument("--target", type=pathlib.Path, default=ROOT / "target")
    arguments.add_argument("--peers", type=pathlib.Path, default=ROOT / "target/peers")
    given = arguments.parse_args()
    ttmem = given.target.resolve() / "release/ttmem"
    library = given.target.resolve() / "preload/libttmem_preload.so"
    python = given.peers.resolve() / "ttnn/bin/python"
    for needed in (ttmem, library, python):
        if not needed.exists():
            sys.exit(f"preload.py: {needed} is missing: the first lines of this file say how it is made")

    with tempfile.TemporaryDirectory() as folder:
        made = subprocess.run(
            [python, ROOT / "tests/peers/mock_cluster.py", f"{folder}/board", "--chip-id", str(CHIP_ID)],
            check=True, capture_output=True, text=True,
        )
        board = json.loads(made.stdout)
        stand_in = build_stand_in(folder)
        environment = {**os.environ, **board["env"], "LOGURU_LEVEL": "WARNING"}
        socket = f"{folder}/socket"
        serve = [ttmem, "serve", "--socket", socket, "--listen", "127.0.0.1:0", "--shm-dir", f"{folder}"]
        with open(f"{folder}/log", "w") as log:
            daemon = subprocess.Popen(serve, stderr=log)
        try:
            # As `ttmem run` sets them.
            ways = {
                "none": {},
                "daemon": {"LD_PRELOAD": str(library), "TTMEM_SOCKET": socket},
                "no daemon": {"LD_PRELOAD": str(library), "TTMEM_SOCKET": f"{folder}/nobody"},
            }
            times = {way: [] for way in ways}
            for _ in range(given.rounds):
                for way, preloaded in ways.items():
                    times[way].append(nanoseconds(python, stand_in, {**environment, **preloaded}))
        finally:
            daemon.terminate()
            daemon.wait()
            for region in board["regions"]:
                pathlib.Path(region).unlink(missing_ok=True)

    plain = times.pop("none")
    for part, (unit, limit) in LIMITS.items():
        print(f"{part}: without it {spread([each[part] for each in plain])} ns, {given.rounds} rounds")
        for way, runs in times.items():
            pairs = [(mine[part], base[part]) for mine, base in zip(runs, plain)]
            differences = [(mine / base - 1) * 100 if part == "run" else mine - base for mine, base in pairs]
            print(f"  with it, {way:<10} {spread(differences)} {unit}, goal: at most {limit:g}")
            if part == "run" and given.rounds > 1:
                mine, base = (statistics.quantiles(values, n=4)[0] for values in zip(*pairs))
                print(f"           by first quartiles {(mine / base - 1) * 100:5.2f} {unit}")


if __name__ == "__main__":
    main()
