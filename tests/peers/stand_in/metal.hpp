// As much of tt-metal's interface as libttmem_preload.so looks at, for programs that cannot have the real one: those that run under a
// sanitizer, and those whose tt-metal lacks something.
#pragma once

#include <cstdint>
#include <vector>

namespace tt::tt_metal {

enum class BufferType : std::uint32_t { DRAM, L1, SYSTEM_MEMORY, L1_SMALL, TRACE };

class IDevice {
public:
    virtual ~IDevice() = default;
    virtual int arch() const = 0;
    // The fourth virtual function, as in tt-metal.
    virtual int id() const = 0;
};

class Buffer {
public:
    Buffer(IDevice* device, std::uint64_t size, BufferType type);
    std::uint64_t size() const;
    std::uint64_t unique_id() const;
    std::uint64_t address() const;
    std::uint64_t aligned_size_per_bank() const;
    BufferType buffer_type() const;
    IDevice* device() const;

private:
    std::uint64_t unique_id_;
    std::uint64_t address_ = 0x1000;
    // Versions that export no functions for these have them here: at bytes 16, 24 and 32.
    IDevice* device_;
    std::uint64_t size_;
    BufferType type_;
};

struct Statistics {
    std::uint64_t total_allocatable_size_bytes;
    std::uint64_t total_allocated_bytes;
    std::uint64_t total_free_bytes;
    std::uint64_t largest_free_block_bytes;
    std::vector<std::uint32_t> largest_free_block_addrs;
};

class AllocatorImpl {
public:
    std::uint64_t allocate_buffer(Buffer* buffer);
    void deallocate_buffer(Buffer* buffer);
    void deallocate_buffers();
    std::uint32_t get_num_banks(const BufferType& type) const;
    Statistics get_statistics(const BufferType& type) const;
};

class GraphTracker {
public:
    void track_allocate(const Buffer* buffer);
    void track_deallocate(Buffer* buffer);
};

constexpr std::uint32_t banks = 4;
constexpr std::uint64_t bank_bytes = 1 << 20;
// Sizes above this find no room.
constexpr std::uint64_t size_max = bank_bytes / 2;

}  // namespace tt::tt_metal
