-- A history as version 1 of its tables has it: two samples of a device, and between them one that is missing.
PRAGMA journal_mode = WAL;
CREATE TABLE series (
    id INTEGER PRIMARY KEY, device INTEGER NOT NULL, memory_type TEXT NOT NULL, pid INTEGER, start_ticks INTEGER, boot TEXT,
    process TEXT, start_unix_ms INTEGER, first_unix_ms INTEGER NOT NULL, last_unix_ms INTEGER NOT NULL
);
CREATE INDEX series_of_process ON series (pid, start_ticks) WHERE pid IS NOT NULL;
CREATE TABLE events (
    id INTEGER PRIMARY KEY AUTOINCREMENT, unix_ms INTEGER NOT NULL, kind TEXT NOT NULL, device INTEGER, memory_type TEXT,
    pid INTEGER, process TEXT, figures TEXT NOT NULL
);
CREATE INDEX events_by_time ON events (unix_ms);
CREATE TABLE spans_1s (seq INTEGER PRIMARY KEY, unix_ms INTEGER NOT NULL, covered_ms INTEGER NOT NULL);
CREATE INDEX spans_1s_by_time ON spans_1s (unix_ms, covered_ms);
CREATE TABLE samples_1s (
    id INTEGER PRIMARY KEY,
    usage_bytes INTEGER NOT NULL, usage_bytes_min INTEGER, usage_bytes_max INTEGER, peak_bytes INTEGER NOT NULL,
    buffers INTEGER, buffers_min INTEGER, buffers_max INTEGER,
    allocated_bytes INTEGER, allocated_bytes_min INTEGER, allocated_bytes_max INTEGER,
    freed_bytes INTEGER, freed_bytes_min INTEGER, freed_bytes_max INTEGER,
    allocations INTEGER, allocations_min INTEGER, allocations_max INTEGER,
    frees INTEGER, frees_min INTEGER, frees_max INTEGER
);
CREATE TABLE spans_10s (seq INTEGER PRIMARY KEY, unix_ms INTEGER NOT NULL, covered_ms INTEGER NOT NULL);
CREATE INDEX spans_10s_by_time ON spans_10s (unix_ms, covered_ms);
CREATE TABLE samples_10s (
    id INTEGER PRIMARY KEY,
    usage_bytes INTEGER NOT NULL, usage_bytes_min INTEGER, usage_bytes_max INTEGER, peak_bytes INTEGER NOT NULL,
    buffers INTEGER, buffers_min INTEGER, buffers_max INTEGER,
    allocated_bytes INTEGER, allocated_bytes_min INTEGER, allocated_bytes_max INTEGER,
    freed_bytes INTEGER, freed_bytes_min INTEGER, freed_bytes_max INTEGER,
    allocations INTEGER, allocations_min INTEGER, allocations_max INTEGER,
    frees INTEGER, frees_min INTEGER, frees_max INTEGER
);
CREATE TABLE spans_60s (seq INTEGER PRIMARY KEY, unix_ms INTEGER NOT NULL, covered_ms INTEGER NOT NULL);
CREATE INDEX spans_60s_by_time ON spans_60s (unix_ms, covered_ms);
CREATE TABLE samples_60s (
    id INTEGER PRIMARY KEY,
    usage_bytes INTEGER NOT NULL, usage_bytes_min INTEGER, usage_bytes_max INTEGER, peak_bytes INTEGER NOT NULL,
    buffers INTEGER, buffers_min INTEGER, buffers_max INTEGER,
    allocated_bytes INTEGER, allocated_bytes_min INTEGER, allocated_bytes_max INTEGER,
    freed_bytes INTEGER, freed_bytes_min INTEGER, freed_bytes_max INTEGER,
    allocations INTEGER, allocations_min INTEGER, allocations_max INTEGER,
    frees INTEGER, frees_min INTEGER, frees_max INTEGER
);
INSERT INTO series VALUES (24, 3, 'dram', NULL, NULL, NULL, NULL, NULL, 1795000000500, 1795000002500);
INSERT INTO series VALUES (8192, 3, 'dram', 77, 123456, 'boot', 'a,b', 1794999999000, 1795000002500, 1795000002500);
INSERT INTO spans_1s VALUES (1, 1795000000500, 1000), (2, 1795000002500, 1000);
INSERT INTO samples_1s (id, usage_bytes, usage_bytes_min, usage_bytes_max, peak_bytes) VALUES ((1 << 28) + 24, 150, 100, 200, 200);
INSERT INTO samples_1s (id, usage_bytes, peak_bytes) VALUES ((2 << 28) + 24, 300, 300), ((2 << 28) + 8192, 300, 300);
INSERT INTO events (unix_ms, kind, figures) VALUES (1795000000500, 'daemon_started', '{"version":"0.0.9"}');
PRAGMA user_version = 1;
