/*
 * A C program that uses libttmem, stepped from outside: a line of words on stdin, one JSON answer on stdout.
 *
 *     open [PATH]                              version
 *     allocated DEVICE TYPE ID SIZE COUNT      COUNT buffers with ids from ID on
 *     freed DEVICE ID COUNT                    device_closed DEVICE
 *     cb_allocated DEVICE SIZE                 cb_freed DEVICE SIZE
 *     kernel_loaded DEVICE KIND SIZE           kernel_unloaded DEVICE KIND SIZE
 *     failed DEVICE TYPE REQUESTED FREE LARGEST
 *     flush MILLISECONDS                       statistics ROWS
 *     unknown_options                          what ttmem_open() says of options that it cannot follow
 *     trace TRACEPARENT                        trace_null
 *     monitor [PATH]                           host DEVICE       what all processes hold there
 *     monitor_check                            close
 *
 * An answer has "ok": true, the last status that was not TTMEM_OK, or TTMEM_OK, and its text.
 */
#include <inttypes.h>
#include <stdio.h>
#include <string.h>
#include <ttmem.h>

enum { ROWS_MAX = 16, NUMBERS_MAX = 5 };

static ttmem_client *client;
static ttmem_monitor *monitor;

static void answer(ttmem_status status) {
    printf("{\"ok\": true, \"status\": %" PRId32 ", \"text\": \"%s\"}\n", status, ttmem_status_text(status));
}

static ttmem_status open_at(const char *path) {
    ttmem_options options = TTMEM_OPTIONS_INIT;
    options.socket_path = path;
    return ttmem_open(&options, &client);
}

/* Each reason for which options are refused, and one for which they are not. */
static void unknown_options(void) {
    struct {
        ttmem_options known;
        uint64_t later;
    } grown = {TTMEM_OPTIONS_INIT, 0};
    ttmem_options options = TTMEM_OPTIONS_INIT;
    ttmem_client *opened = NULL;

    grown.known.struct_bytes = (uint32_t)sizeof grown;
    const ttmem_status zero = ttmem_open(&grown.known, &opened);
    ttmem_close(opened);
    grown.later = 1;
    const ttmem_status later = ttmem_open(&grown.known, &opened);
    options.struct_bytes = 8;
    const ttmem_status short_one = ttmem_open(&options, &opened);
    options.struct_bytes = (uint32_t)sizeof options;
    options.flags = 1u << 31;
    const ttmem_status flag = ttmem_open(&options, &opened);
    printf("{\"ok\": true, \"zero\": %" PRId32 ", \"later\": %" PRId32 ", \"short\": %" PRId32 ", \"flag\": %" PRId32
           ", \"nowhere\": %" PRId32 ", \"is_null\": %s}\n",
           zero, later, short_one, flag, ttmem_open(NULL, NULL), opened == NULL ? "true" : "false");
}

static void statistics(size_t rows_max) {
    ttmem_statistic rows[ROWS_MAX];
    size_t count = 0;
    memset(rows, 0xff, sizeof rows);
    const ttmem_status status = ttmem_statistics(client, rows, rows_max, sizeof rows[0], &count);
    printf("{\"ok\": true, \"status\": %" PRId32 ", \"count\": %zu, \"untouched\": %s, \"rows\": [", status, count,
           rows_max < ROWS_MAX && rows[rows_max].device == -1 ? "true" : "false");
    for (size_t index = 0; index < count && index < rows_max; ++index) {
        const ttmem_statistic *row = &rows[index];
        printf("%s[%" PRId32 ", %" PRIu32 ", %" PRIu64 ", %" PRIu64 ", %" PRIu64 ", %" PRIu64 "]", index > 0 ? ", " : "",
               row->device, row->memory_type, row->allocated_bytes, row->peak_bytes, row->buffers, row->largest_bytes);
    }
    printf("]}\n");
}

static void host(int32_t device) {
    ttmem_device_memory memory;
    memset(&memory, 0xff, sizeof memory);
    const ttmem_status status = ttmem_monitor_device(monitor, device, &memory, sizeof memory);
    printf("{\"ok\": true, \"status\": %" PRId32 ", \"memory\": [", status);
    for (int type = TTMEM_DRAM; status == TTMEM_OK && type < TTMEM_MEMORY_TYPES; ++type) {
        printf("%s[%" PRIu64 ", %" PRIu64 ", %" PRIu64 "]", type > 0 ? ", " : "", memory.allocated_bytes[type],
               memory.peak_bytes[type], memory.limit_bytes[type]);
    }
    printf("]}\n");
}

static ttmem_status act(const char *word, const int64_t *number) {
    ttmem_status status = TTMEM_OK;
    const int32_t device = (int32_t)number[0];
    const uint64_t second = (uint64_t)number[1];
    if (strcmp(word, "allocated") == 0) {
        for (int64_t index = 0; index < number[4]; ++index) {
            const ttmem_status one =
                ttmem_allocated(client, device, (uint32_t)second, (uint64_t)(number[2] + index), (uint64_t)number[3]);
            status = one == TTMEM_OK ? status : one;
        }
    } else if (strcmp(word, "freed") == 0) {
        for (int64_t index = 0; index < number[2]; ++index) {
            const ttmem_status one = ttmem_freed(client, device, (uint64_t)(number[1] + index));
            status = one == TTMEM_OK ? status : one;
        }
    } else if (strcmp(word, "device_closed") == 0) {
        status = ttmem_device_closed(client, device);
    } else if (strcmp(word, "cb_allocated") == 0) {
        status = ttmem_circular_buffer_allocated(client, device, second);
    } else if (strcmp(word, "cb_freed") == 0) {
        status = ttmem_circular_buffer_freed(client, device, second);
    } else if (strcmp(word, "kernel_loaded") == 0) {
        status = ttmem_kernel_loaded(client, device, (uint32_t)second, (uint64_t)number[2]);
    } else if (strcmp(word, "kernel_unloaded") == 0) {
        status = ttmem_kernel_unloaded(client, device, (uint32_t)second, (uint64_t)number[2]);
    } else if (strcmp(word, "failed") == 0) {
        status = ttmem_allocation_failed(
            client, device, (uint32_t)second, (uint64_t)number[2], (uint64_t)number[3], (uint64_t)number[4]);
    } else if (strcmp(word, "flush") == 0) {
        status = ttmem_flush(client, (uint32_t)number[0]);
    } else if (strcmp(word, "trace_null") == 0) {
        status = ttmem_trace_context(client, NULL);
    } else if (strcmp(word, "monitor_check") == 0) {
        status = ttmem_monitor_check(monitor);
    } else if (strcmp(word, "close") == 0) {
        ttmem_close(client);
        client = NULL;
    } else {
        status = -1;
    }
    return status;
}

int main(void) {
    char line[4096];
    setvbuf(stdout, NULL, _IOLBF, 0);
    while (fgets(line, sizeof line, stdin) != NULL) {
        char word[64] = "";
        char path[4000] = "";
        int64_t number[NUMBERS_MAX] = {0};
        sscanf(line, "%63s %" SCNd64 " %" SCNd64 " %" SCNd64 " %" SCNd64 " %" SCNd64, word, &number[0], &number[1], &number[2],
               &number[3], &number[4]);
        if (strcmp(word, "open") == 0) {
            answer(open_at(sscanf(line, "%*s %3999s", path) == 1 ? path : NULL));
        } else if (strcmp(word, "trace") == 0) {
            sscanf(line, "%*s %3999s", path);
            answer(ttmem_trace_context(client, path));
        } else if (strcmp(word, "monitor") == 0) {
            ttmem_monitor_close(monitor);
            answer(ttmem_monitor_open(sscanf(line, "%*s %3999s", path) == 1 ? path : NULL, &monitor));
        } else if (strcmp(word, "host") == 0) {
            host((int32_t)number[0]);
        } else if (strcmp(word, "version") == 0) {
            printf("{\"ok\": true, \"header\": \"%s\", \"library\": \"%s\", \"number\": %d}\n", TTMEM_VERSION_STRING,
                   ttmem_version(), TTMEM_VERSION);
        } else if (strcmp(word, "statistics") == 0) {
            statistics((size_t)number[0]);
        } else if (strcmp(word, "unknown_options") == 0) {
            unknown_options();
        } else {
            answer(act(word, number));
        }
    }
    ttmem_close(client);
    ttmem_monitor_close(monitor);
    return 0;
}
