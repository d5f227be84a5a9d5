// Stands in for the AllocationClient of instrumented tt-metal trees: the same calls, in the same namespace, made with libttmem.
//
// As there, nothing at all happens unless TT_ALLOC_TRACKING_ENABLED is 1 when the first call is made. What differs: no call ever blocks on a
// socket or prints, a daemon that comes late or comes again is told everything, and an unload that says no size or not whose
// kernel it was is still the unload of the kernel that was loaded. The calls of older trees, with fewer arguments, are here too.
#pragma once

#include <pthread.h>

#include <cstdint>
#include <cstdlib>
#include <cstring>
#include <map>
#include <mutex>
#include <tuple>

#include "../ttmem.h"

namespace tt::tt_metal {

class AllocationClient {
public:
    // The number is that of tt-metal's BufferType.
    static void report_allocation(int device_id, uint64_t size, uint8_t buffer_type, uint64_t buffer_id) {
        ttmem_allocated(client(), device_id, buffer_type, buffer_id, size);
    }

    static void report_deallocation(int device_id, uint64_t buffer_id) { ttmem_freed(client(), device_id, buffer_id); }

    // Without its device a buffer is found by its id, if only one has it.
    static void report_deallocation(uint64_t buffer_id) { report_deallocation(0, buffer_id); }

    static void report_cb_allocation(int device_id, uint64_t size, uint64_t cb_id) {
        if (ttmem_circular_buffer_allocated(client(), device_id, size) == TTMEM_OK) {
            remember(circular_buffer, device_id, cb_id, {size, 0});
        }
    }

    static void report_cb_deallocation(int device_id, uint64_t size, uint64_t cb_id) {
        if (is_enabled()) {
            ttmem_circular_buffer_freed(client(), device_id, recall(circular_buffer, device_id, cb_id, size).size);
        }
    }

    static void report_cb_deallocation(int device_id, uint64_t cb_id) { report_cb_deallocation(device_id, 0, cb_id); }

    // kernel_type: 0 application, 1 fabric, 2 dispatch.
    static void report_kernel_load(int device_id, uint64_t size, uint64_t kernel_id, uint8_t kernel_type = 0) {
        if (ttmem_kernel_loaded(client(), device_id, kernel_type, size) == TTMEM_OK) {
            remember(kernel, device_id, kernel_id, {size, kernel_type});
        }
    }

    static void report_kernel_unload(int device_id, uint64_t size, uint64_t kernel_id) {
        if (is_enabled()) {
            const Block block = recall(kernel, device_id, kernel_id, size);
            ttmem_kernel_unloaded(client(), device_id, block.kernel_type, block.size);
        }
    }

    static void report_kernel_unload(int device_id, uint64_t kernel_id) { report_kernel_unload(device_id, 0, kernel_id); }

    static bool is_enabled() {
        static const bool is_wanted = [] {
            const char *value = std::getenv("TT_ALLOC_TRACKING_ENABLED");
            return value != nullptr && std::strcmp(value, "1") == 0;
        }();
        return is_wanted;
    }

    AllocationClient() = delete;

private:
    enum Kind { circular_buffer, kernel };

    // What the report of a block's end has to say, which not every caller knows any more.
    struct Block {
        uint64_t size;
        uint8_t kernel_type;
    };

    // Programs are cached, so several blocks may have one id.
    struct Blocks {
        std::mutex mutex;
        std::multimap<std::tuple<Kind, int, uint64_t>, Block> live;
    };

    // Null, with which every call does nothing, unless tracking is wanted.
    static ttmem_client *client() { return is_enabled() ? ttmem_process_client() : nullptr; }

    // Never destroyed: buffers of static objects are freed after main().
    static Blocks &blocks() {
        static Blocks &blocks = *make_blocks();
        return blocks;
    }

    // A fork finds the lock free, and holds nothing.
    static Blocks *make_blocks() {
        const auto lock = [] { blocks().mutex.lock(); };
        const auto unlock = [] { blocks().mutex.unlock(); };
        const auto begin_anew = [] {
            blocks().live.clear();
            blocks().mutex.unlock();
        };
        pthread_atfork(lock, unlock, begin_anew);
        return new Blocks;
    }

    static void remember(Kind kind, int device_id, uint64_t id, Block block) {
        Blocks &known = blocks();
        const std::lock_guard<std::mutex> lock(known.mutex);
        known.live.emplace(std::make_tuple(kind, device_id, id), block);
    }

    // Takes out the block of that id and size; of any size if the size is 0 or none has it. One that is not known is as it is said to be.
    static Block recall(Kind kind, int device_id, uint64_t id, uint64_t size) {
        Blocks &known = blocks();
        const std::lock_guard<std::mutex> lock(known.mutex);
        const auto [first, end] = known.live.equal_range(std::make_tuple(kind, device_id, id));
        if (first == end) {
            return {size, 0};
        }
        auto found = first;
        while (found != end && found->second.size != size) {
            ++found;
        }
        if (found == end) {
            found = first;
        }
        const Block block = found->second;
        known.live.erase(found);
        return block;
    }
};

} // namespace tt::tt_metal
