// libttmem for C++17: a client that closes itself, a report that takes itself back, statistics as a vector. See ttmem.h.
#ifndef TTMEM_HPP
#define TTMEM_HPP

#include <chrono>
#include <cstdint>
#include <limits>
#include <memory>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "ttmem.h"

namespace ttmem {

enum class MemoryType : std::uint32_t {
    Dram = TTMEM_DRAM,
    L1 = TTMEM_L1,
    SystemMemory = TTMEM_SYSTEM_MEMORY,
    L1Small = TTMEM_L1_SMALL,
    Trace = TTMEM_TRACE,
    CircularBuffer = TTMEM_CIRCULAR_BUFFER,
    Kernel = TTMEM_KERNEL,
};

enum class KernelKind : std::uint32_t {
    Application = TTMEM_KERNEL_APPLICATION,
    Fabric = TTMEM_KERNEL_FABRIC,
    Dispatch = TTMEM_KERNEL_DISPATCH,
};

// What a call gives; it may be ignored.
class Status {
public:
    constexpr Status(ttmem_status value) noexcept : value_(value) {}
    constexpr explicit operator bool() const noexcept { return value_ == TTMEM_OK; }
    constexpr ttmem_status value() const noexcept { return value_; }
    const char *text() const noexcept { return ttmem_status_text(value_); }

private:
    ttmem_status value_;
};

struct Options {
    std::string socket_path; // empty: $TTMEM_SOCKET, or else /tmp/tt_allocation_server.sock
    bool drop_when_full = false;
    bool uses_rings = true;
    std::uint32_t rings = 0;        // 0: the library's own choice
    std::uint32_t ring_records = 0; // likewise
};

struct Statistic {
    std::int32_t device;
    MemoryType memory_type;
    std::uint64_t allocated_bytes;
    std::uint64_t peak_bytes;
    std::uint64_t buffers;
    std::uint64_t largest_bytes;
};

class Client;

// A buffer that is reported as allocated as long as this lives.
class Allocation {
public:
    Allocation() noexcept = default;
    Allocation(Allocation &&other) noexcept
        : client_(std::exchange(other.client_, nullptr)), device_(other.device_), buffer_id_(other.buffer_id_) {}
    Allocation &operator=(Allocation &&other) noexcept {
        if (this != &other) {
            free();
            client_ = std::exchange(other.client_, nullptr);
            device_ = other.device_;
            buffer_id_ = other.buffer_id_;
        }
        return *this;
    }
    ~Allocation() { free(); }

    // Whether it is reported at all.
    explicit operator bool() const noexcept { return client_ != nullptr; }
    std::uint64_t buffer_id() const noexcept { return buffer_id_; }

    // Reports the free now.
    void free() noexcept { ttmem_freed(std::exchange(client_, nullptr), device_, buffer_id_); }

    // Leaves the buffer allocated; its free is to be reported by somebody else.
    void release() noexcept { client_ = nullptr; }

private:
    friend class Client;
    Allocation(ttmem_client *client, std::int32_t device, std::uint64_t buffer_id) noexcept
        : client_(client), device_(device), buffer_id_(buffer_id) {}

    ttmem_client *client_ = nullptr;
    std::int32_t device_ = 0;
    std::uint64_t buffer_id_ = 0;
};

// A client; it outlives the allocations that it has given.
class Client {
public:
    // With the default options.
    Client() noexcept : Client(static_cast<const ttmem_options *>(nullptr)) {}

    explicit Client(const Options &options) noexcept {
        ttmem_options wanted = TTMEM_OPTIONS_INIT;
        wanted.flags = (options.drop_when_full ? TTMEM_DROP_WHEN_FULL : 0u) | (options.uses_rings ? 0u : TTMEM_WITHOUT_RINGS);
        wanted.socket_path = options.socket_path.empty() ? nullptr : options.socket_path.c_str();
        wanted.rings = options.rings;
        wanted.ring_records = options.ring_records;
        open(&wanted);
    }

    explicit Client(const ttmem_options *options) noexcept { open(options); }

    // The one that everything in the process may share.
    static Client of_process() noexcept { return Client(ttmem_process_client(), TTMEM_OK); }

    // Whether there is a client, and why not. Without one every call is harmless.
    Status status() const noexcept { return opened_; }
    explicit operator bool() const noexcept { return client_ != nullptr; }
    ttmem_client *get() const noexcept { return client_.get(); }

    // To be called after the memory was allocated.
    Status allocated(std::int32_t device, MemoryType type, std::uint64_t buffer_id, std::uint64_t size_bytes) noexcept {
        return ttmem_allocated(get(), device, static_cast<std::uint32_t>(type), buffer_id, size_bytes);
    }
    // To be called before the memory is freed.
    Status freed(std::int32_t device, std::uint64_t buffer_id) noexcept { return ttmem_freed(get(), device, buffer_id); }

    // Both: it is freed with what this gives.
    [[nodiscard]] Allocation allocation(
        std::int32_t device, MemoryType type, std::uint64_t buffer_id, std::uint64_t size_bytes) noexcept {
        const bool is_reported = static_cast<bool>(allocated(device, type, buffer_id, size_bytes));
        return Allocation(is_reported ? get() : nullptr, device, buffer_id);
    }

    Status device_closed(std::int32_t device) noexcept { return ttmem_device_closed(get(), device); }

    Status circular_buffer_allocated(std::int32_t device, std::uint64_t size_bytes) noexcept {
        return ttmem_circular_buffer_allocated(get(), device, size_bytes);
    }
    Status circular_buffer_freed(std::int32_t device, std::uint64_t size_bytes) noexcept {
        return ttmem_circular_buffer_freed(get(), device, size_bytes);
    }
    Status kernel_loaded(std::int32_t device, KernelKind kind, std::uint64_t size_bytes) noexcept {
        return ttmem_kernel_loaded(get(), device, static_cast<std::uint32_t>(kind), size_bytes);
    }
    Status kernel_unloaded(std::int32_t device, KernelKind kind, std::uint64_t size_bytes) noexcept {
        return ttmem_kernel_unloaded(get(), device, static_cast<std::uint32_t>(kind), size_bytes);
    }

    Status allocation_failed(
        std::int32_t device,
        MemoryType type,
        std::uint64_t requested_bytes,
        std::uint64_t free_bytes,
        std::uint64_t largest_free_block_bytes) noexcept {
        return ttmem_allocation_failed(
            get(), device, static_cast<std::uint32_t>(type), requested_bytes, free_bytes, largest_free_block_bytes);
    }

    Status trace_context(const std::string &traceparent) noexcept { return ttmem_trace_context(get(), traceparent.c_str()); }

    // Waits until the daemon has taken all that was reported before.
    Status flush(std::chrono::milliseconds timeout) noexcept {
        constexpr std::chrono::milliseconds::rep most = std::numeric_limits<std::uint32_t>::max();
        const auto milliseconds = timeout.count() < 0 ? 0 : timeout.count() > most ? most : timeout.count();
        return ttmem_flush(get(), static_cast<std::uint32_t>(milliseconds));
    }

    // What this process holds, by its own reports, ordered by device; empty without a client.
    std::vector<Statistic> statistics() const {
        std::vector<ttmem_statistic> rows;
        std::size_t count = 0;
        // Other threads may add rows while this one makes room for them.
        do {
            rows.resize(count);
            if (ttmem_statistics(get(), rows.data(), rows.size(), sizeof(ttmem_statistic), &count) != TTMEM_OK) {
                return {};
            }
        } while (count > rows.size());
        std::vector<Statistic> statistics;
        statistics.reserve(count);
        for (const ttmem_statistic &row : rows) {
            statistics.push_back(
                {row.device,
                 static_cast<MemoryType>(row.memory_type),
                 row.allocated_bytes,
                 row.peak_bytes,
                 row.buffers,
                 row.largest_bytes});
        }
        return statistics;
    }

private:
    struct Close {
        void operator()(ttmem_client *client) const noexcept { ttmem_close(client); }
    };

    Client(ttmem_client *client, Status opened) noexcept : client_(client), opened_(opened) {}

    void open(const ttmem_options *options) noexcept {
        ttmem_client *client = nullptr;
        opened_ = ttmem_open(options, &client);
        client_.reset(client);
    }

    std::unique_ptr<ttmem_client, Close> client_;
    Status opened_ = TTMEM_NO_CLIENT;
};

// What all processes of the host hold, as the daemon publishes it in shared memory.
class Monitor {
public:
    // An empty path is the default one.
    explicit Monitor(const std::string &socket_path = {}) noexcept {
        ttmem_monitor *monitor = nullptr;
        opened_ = ttmem_monitor_open(socket_path.empty() ? nullptr : socket_path.c_str(), &monitor);
        monitor_.reset(monitor);
    }

    // Whether there is one, and why not.
    Status status() const noexcept { return opened_; }
    explicit operator bool() const noexcept { return monitor_ != nullptr; }

    // Whether the daemon still runs.
    bool is_connected() const noexcept { return ttmem_monitor_check(monitor_.get()) == TTMEM_OK; }

    // Nothing if the daemon does not know the device, or there is none.
    std::optional<ttmem_device_memory> device(std::int32_t device) const noexcept {
        ttmem_device_memory memory;
        const ttmem_status status = ttmem_monitor_device(monitor_.get(), device, &memory, sizeof memory);
        return status == TTMEM_OK ? std::optional(memory) : std::nullopt;
    }

private:
    struct Close {
        void operator()(ttmem_monitor *monitor) const noexcept { ttmem_monitor_close(monitor); }
    };

    std::unique_ptr<ttmem_monitor, Close> monitor_;
    Status opened_ = TTMEM_NO_DAEMON;
};

} // namespace ttmem

#endif
