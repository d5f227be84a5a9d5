// Stands in for libtt_metal.so. Built WITHOUT_ALLOCATOR it is like a version of which nothing but the tracker is to be had.
#include "metal.hpp"

#include <atomic>
#include <stdexcept>

namespace tt::tt_metal {

static std::atomic<std::uint64_t> ids{1};

Buffer::Buffer(IDevice* device, std::uint64_t size, BufferType type)
    : unique_id_(ids++), device_(device), size_(size), type_(type) {}

#ifndef WITHOUT_ALLOCATOR
std::uint64_t Buffer::size() const { return size_; }
std::uint64_t Buffer::unique_id() const { return unique_id_; }
std::uint64_t Buffer::address() const { return address_; }
std::uint64_t Buffer::aligned_size_per_bank() const { return size_ / banks; }
BufferType Buffer::buffer_type() const { return type_; }
IDevice* Buffer::device() const { return device_; }

std::uint64_t AllocatorImpl::allocate_buffer(Buffer* buffer) {
    if (buffer->size() > size_max) {
        throw std::runtime_error("Out of Memory: " + std::to_string(buffer->size()));
    }
    return buffer->address();
}
void AllocatorImpl::deallocate_buffer(Buffer*) {}
void AllocatorImpl::deallocate_buffers() {}
std::uint32_t AllocatorImpl::get_num_banks(const BufferType&) const { return banks; }
Statistics AllocatorImpl::get_statistics(const BufferType&) const { return {bank_bytes, 0, bank_bytes, bank_bytes, {}}; }
#endif

void GraphTracker::track_allocate(const Buffer*) {}
void GraphTracker::track_deallocate(Buffer*) {}

}  // namespace tt::tt_metal
