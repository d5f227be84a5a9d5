/* A model's weights and one activation, as a C program reports them: it holds the weights until its input ends. */
#include <stdio.h>
#include <ttmem.h>

static const uint64_t MIB = 1 << 20;

int main(void) {
    ttmem_client *client;
    const ttmem_status opened = ttmem_open(NULL, &client);
    if (opened != TTMEM_OK) {
        fprintf(stderr, "no memory is tracked: %s\n", ttmem_status_text(opened));
    }
    for (uint64_t layer = 0; layer < 4; ++layer) {
        ttmem_allocated(client, 0, TTMEM_DRAM, 0x1000 + layer, 64 * MIB);
    }
    ttmem_allocated(client, 0, TTMEM_L1, 0x2000, MIB);
    ttmem_freed(client, 0, 0x2000);

    ttmem_statistic rows[16];
    size_t count = 0;
    ttmem_statistics(client, rows, sizeof rows / sizeof rows[0], sizeof rows[0], &count);
    for (size_t index = 0; index < count && index < sizeof rows / sizeof rows[0]; ++index) {
        printf("device %d memory type %u: %llu bytes in %llu buffers, at most %llu\n",
               (int)rows[index].device, (unsigned)rows[index].memory_type, (unsigned long long)rows[index].allocated_bytes,
               (unsigned long long)rows[index].buffers, (unsigned long long)rows[index].peak_bytes);
    }
    fflush(stdout);
    while (getchar() != EOF) {
    }
    for (uint64_t layer = 0; layer < 4; ++layer) {
        ttmem_freed(client, 0, 0x1000 + layer);
    }
    ttmem_flush(client, 1000);
    ttmem_close(client);
    return 0;
}
