/* Preloaded: somebody has set the time of day by as many seconds as the file SET_CLOCK says, from the moment at which it says so.
 *
 * The file is mapped when the program starts, so that a sandbox does not matter, and holds one little-endian 64-bit number. */

#define _GNU_SOURCE
#include <dlfcn.h>
#include <fcntl.h>
#include <stdint.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <time.h>
#include <unistd.h>

static const volatile int64_t *ahead_seconds;
static int (*real_clock_gettime)(clockid_t, struct timespec *);

__attribute__((constructor)) static void begin(void) {
    real_clock_gettime = (int (*)(clockid_t, struct timespec *))dlsym(RTLD_NEXT, "clock_gettime");
    const char *path = getenv("SET_CLOCK");
    int file = path ? open(path, O_RDONLY | O_CLOEXEC) : -1;
    if (file < 0)
        return;
    void *memory = mmap(NULL, sizeof *ahead_seconds, PROT_READ, MAP_SHARED, file, 0);
    close(file);
    if (memory != MAP_FAILED)
        ahead_seconds = memory;
}

int clock_gettime(clockid_t clock, struct timespec *time) {
    if (!real_clock_gettime)
        begin();
    int outcome = real_clock_gettime(clock, time);
    if (outcome == 0 && clock == CLOCK_REALTIME && ahead_seconds)
        time->tv_sec += *ahead_seconds;
    return outcome;
}
