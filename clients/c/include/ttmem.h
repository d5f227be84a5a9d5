/*
 * libttmem: tells the ttmem daemon which memory of Tenstorrent devices this program holds.
 *
 * A report is a few stores into memory that the daemon reads: no system call, no lock, no allocation. Nothing here fails in a way that a
 * program has to handle: a report whose arguments make no sense, or that has no client, is not made, and the status says why; it may be
 * ignored. Without a daemon the library remembers what is held, and a daemon that comes later is told all of it.
 *
 *     ttmem_client *client;
 *     ttmem_open(NULL, &client);
 *     ttmem_allocated(client, 0, TTMEM_DRAM, address, size_bytes);     after the memory was allocated
 *     ttmem_freed(client, 0, address);                                 before it is freed
 *     ttmem_close(client);
 *
 * - Every function may be called from any thread at any time, but for ttmem_close(). None may be called from a signal handler.
 * - A fork begins with nothing held and a connection of its own; its parent's client works in it.
 * - There is no thread and no connection before the first report; then there is one thread, which takes no signals.
 * - The library installs no signal handlers, prints nothing and throws nothing.
 * - Sizes and amounts of memory are bytes, times say their unit in their names. Devices are indexes from 0 to 1023.
 * - Programs that are built with one version of this header work with every later libttmem.so.0.
 */
#ifndef TTMEM_H
#define TTMEM_H

#include <stddef.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

/* The version of this header. ttmem_version() gives that of the library, which may be later. */
#define TTMEM_VERSION_MAJOR 0
#define TTMEM_VERSION_MINOR 1
#define TTMEM_VERSION_PATCH 0
#define TTMEM_VERSION_STRING "0.1.0"

/* For comparisons: #if TTMEM_VERSION >= TTMEM_MAKE_VERSION(0, 2, 0) */
#define TTMEM_MAKE_VERSION(major, minor, patch) ((major) * 1000000 + (minor) * 1000 + (patch))
#define TTMEM_VERSION TTMEM_MAKE_VERSION(TTMEM_VERSION_MAJOR, TTMEM_VERSION_MINOR, TTMEM_VERSION_PATCH)

const char *ttmem_version(void);

/* What a call gives. Later versions may add to these; everything but TTMEM_OK is a reason why nothing was done. */
typedef int32_t ttmem_status;
enum {
    TTMEM_OK = 0,
    TTMEM_NO_CLIENT = 1,    /* the client is NULL */
    TTMEM_BAD_DEVICE = 2,
    TTMEM_BAD_MEMORY_TYPE = 3,
    TTMEM_BAD_SIZE = 4,     /* a size is 0, or above TTMEM_SIZE_BYTES_MAX */
    TTMEM_BAD_KERNEL_KIND = 5,
    TTMEM_BAD_OPTIONS = 6,
    TTMEM_BAD_ARGUMENT = 7, /* a pointer is NULL, or does not point to what it must */
    TTMEM_TIMEOUT = 8,
    TTMEM_INTERNAL = 9,     /* a mistake of the library's own */
    TTMEM_NO_DAEMON = 10,   /* for monitors: none answers, or it has no stats pages */
    TTMEM_UNKNOWN_DEVICE = 11
};

/* What a status means and what to do about it, in English. The text is the library's, and stays. */
const char *ttmem_status_text(ttmem_status status);

#define TTMEM_DEVICE_MAX 1023
#define TTMEM_SIZE_BYTES_MAX ((uint64_t)1 << 40)

/* Kinds of memory. Buffers are in one of the first five, whose numbers are those of tt-metal's BufferType. */
enum {
    TTMEM_DRAM = 0,
    TTMEM_L1 = 1,
    TTMEM_SYSTEM_MEMORY = 2, /* of the host, not of the device */
    TTMEM_L1_SMALL = 3,
    TTMEM_TRACE = 4,
    TTMEM_CIRCULAR_BUFFER = 5, /* only in statistics */
    TTMEM_KERNEL = 6           /* only in statistics */
};
#define TTMEM_MEMORY_TYPES 7

/* Whose code a kernel is. */
enum { TTMEM_KERNEL_APPLICATION = 0, TTMEM_KERNEL_FABRIC = 1, TTMEM_KERNEL_DISPATCH = 2 };

/* ---- clients ---- */

typedef struct ttmem_client ttmem_client;

/* A full ring drops a report, and counts it, where it otherwise waits: two seconds at most, and only if nothing moves. */
#define TTMEM_DROP_WHEN_FULL 1u
/* The daemon is not asked for rings: reports go over the socket, many at a time. */
#define TTMEM_WITHOUT_RINGS 2u

/* Begin one with TTMEM_OPTIONS_INIT: later versions of this header may append fields, for which zero is the default. */
typedef struct ttmem_options {
    uint32_t struct_bytes;   /* sizeof(ttmem_options) */
    uint32_t flags;          /* TTMEM_DROP_WHEN_FULL, TTMEM_WITHOUT_RINGS */
    const char *socket_path; /* where the daemon listens; NULL: $TTMEM_SOCKET, or else /tmp/tt_allocation_server.sock */
    uint32_t rings;          /* how many threads have a ring of their own, 1 to 64; the others share the last one. 0: 64 */
    uint32_t ring_records;   /* reports that a ring holds; the nearest power of two below is taken. 0: 4096 */
} ttmem_options;

#define TTMEM_OPTIONS_INIT { (uint32_t)sizeof(ttmem_options), 0u, NULL, 0u, 0u }

/*
 * Makes a client; NULL options are the defaults. On any status but TTMEM_OK *client is NULL, with which every call is harmless.
 * One client is enough for a process, and ttmem_process_client() for most.
 */
ttmem_status ttmem_open(const ttmem_options *options, ttmem_client **client);

/* The client that everything in this process may share, with the default options. It is made at the first call and never closed. */
ttmem_client *ttmem_process_client(void);

/*
 * Ends a client that ttmem_open() made. What was reported is still sent, in the background; wait for it with ttmem_flush(). What is held stays
 * held until the process ends. No other call may be using the client. NULL and the process's own client are left alone.
 */
void ttmem_close(ttmem_client *client);

/* ---- reports ---- */

/*
 * Report an allocation after it was made and a free before it is made: then no other thread can have the memory in between.
 * A buffer's id is anything that is unique among the live buffers of its device, such as its address.
 */
ttmem_status ttmem_allocated(
    ttmem_client *client, int32_t device, uint32_t memory_type, uint64_t buffer_id, uint64_t size_bytes);
ttmem_status ttmem_freed(ttmem_client *client, int32_t device, uint64_t buffer_id);

/* The device is about to be closed: everything that this client has reported on it goes with it. */
ttmem_status ttmem_device_closed(ttmem_client *client, int32_t device);

/* Circular buffers and kernels in L1 are known by their sizes alone. */
ttmem_status ttmem_circular_buffer_allocated(ttmem_client *client, int32_t device, uint64_t size_bytes);
ttmem_status ttmem_circular_buffer_freed(ttmem_client *client, int32_t device, uint64_t size_bytes);
ttmem_status ttmem_kernel_loaded(ttmem_client *client, int32_t device, uint32_t kernel_kind, uint64_t size_bytes);
ttmem_status ttmem_kernel_unloaded(ttmem_client *client, int32_t device, uint32_t kernel_kind, uint64_t size_bytes);

/* An allocator had no room: what was asked for, all that was free, and the largest block of it. */
ttmem_status ttmem_allocation_failed(
    ttmem_client *client,
    int32_t device,
    uint32_t memory_type,
    uint64_t requested_bytes,
    uint64_t free_bytes,
    uint64_t largest_free_block_bytes);

/*
 * This process belongs to a trace: a W3C traceparent, such as "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01". What the environment
 * variable TRACEPARENT says is told by itself. The first who says so is heard. TTMEM_BAD_ARGUMENT if it is no valid one.
 */
ttmem_status ttmem_trace_context(ttmem_client *client, const char *traceparent);

/* ---- questions ---- */

/* Waits until the daemon has taken all that was reported before. TTMEM_TIMEOUT if it has not in time. */
ttmem_status ttmem_flush(ttmem_client *client, uint32_t timeout_milliseconds);

/* What this process holds on one device in one kind of memory, by its own reports. */
typedef struct ttmem_statistic {
    int32_t device;
    uint32_t memory_type;     /* TTMEM_DRAM to TTMEM_KERNEL */
    uint64_t allocated_bytes; /* now */
    uint64_t peak_bytes;      /* the most at once */
    uint64_t buffers;         /* now */
    uint64_t largest_bytes;   /* the largest buffer that there ever was */
} ttmem_statistic;

/*
 * Writes the first rows_max rows, ordered by device, and says in *count how many there are, which may be more. No daemon is asked.
 * row_bytes is sizeof(ttmem_statistic); rows may be NULL if rows_max is 0.
 */
ttmem_status ttmem_statistics(
    ttmem_client *client, ttmem_statistic *rows, size_t rows_max, size_t row_bytes, size_t *count);

/* ---- all processes of the host ---- */

/* Reads what the daemon publishes in shared memory. It needs no client, starts no thread, and a reading makes no system call. */
typedef struct ttmem_monitor ttmem_monitor;

/* What all processes hold on a device; the numbers of the kinds of memory, TTMEM_DRAM to TTMEM_KERNEL, are the indexes. */
typedef struct ttmem_device_memory {
    uint64_t allocated_bytes[TTMEM_MEMORY_TYPES];
    uint64_t peak_bytes[TTMEM_MEMORY_TYPES];  /* the most at once since the daemon started */
    uint64_t limit_bytes[TTMEM_MEMORY_TYPES]; /* what there is; 0 where that is not known */
} ttmem_device_memory;

/* A NULL path is the default one, as for clients. On any status but TTMEM_OK *monitor is NULL. Waits half a second at most. */
ttmem_status ttmem_monitor_open(const char *socket_path, ttmem_monitor **monitor);
void ttmem_monitor_close(ttmem_monitor *monitor);

/* TTMEM_NO_DAEMON if the daemon has ended: then its figures stay as they were, and a new monitor finds the next one. One system call. */
ttmem_status ttmem_monitor_check(ttmem_monitor *monitor);

/* memory_bytes is sizeof(ttmem_device_memory). TTMEM_UNKNOWN_DEVICE if the daemon has never heard of the device. */
ttmem_status ttmem_monitor_device(
    ttmem_monitor *monitor, int32_t device, ttmem_device_memory *memory, size_t memory_bytes);

#ifdef __cplusplus
}
#endif

/* What the library was built with is what this compiler makes of it. */
#if defined(__cplusplus)
#define TTMEM_ASSERT_LAYOUT(holds) static_assert(holds, "ttmem.h: this compiler lays structs out in another way than libttmem")
#elif defined(__STDC_VERSION__) && __STDC_VERSION__ >= 201112L
#define TTMEM_ASSERT_LAYOUT(holds) _Static_assert(holds, "ttmem.h: this compiler lays structs out in another way than libttmem")
#endif
#ifdef TTMEM_ASSERT_LAYOUT
TTMEM_ASSERT_LAYOUT(sizeof(void *) == 8);
TTMEM_ASSERT_LAYOUT(sizeof(ttmem_options) == 24);
TTMEM_ASSERT_LAYOUT(offsetof(ttmem_options, flags) == 4);
TTMEM_ASSERT_LAYOUT(offsetof(ttmem_options, socket_path) == 8);
TTMEM_ASSERT_LAYOUT(offsetof(ttmem_options, rings) == 16);
TTMEM_ASSERT_LAYOUT(offsetof(ttmem_options, ring_records) == 20);
TTMEM_ASSERT_LAYOUT(sizeof(ttmem_statistic) == 40);
TTMEM_ASSERT_LAYOUT(offsetof(ttmem_statistic, memory_type) == 4);
TTMEM_ASSERT_LAYOUT(offsetof(ttmem_statistic, allocated_bytes) == 8);
TTMEM_ASSERT_LAYOUT(offsetof(ttmem_statistic, peak_bytes) == 16);
TTMEM_ASSERT_LAYOUT(offsetof(ttmem_statistic, buffers) == 24);
TTMEM_ASSERT_LAYOUT(offsetof(ttmem_statistic, largest_bytes) == 32);
TTMEM_ASSERT_LAYOUT(sizeof(ttmem_device_memory) == 168);
TTMEM_ASSERT_LAYOUT(offsetof(ttmem_device_memory, peak_bytes) == 56);
TTMEM_ASSERT_LAYOUT(offsetof(ttmem_device_memory, limit_bytes) == 112);
#undef TTMEM_ASSERT_LAYOUT
#endif

#endif
