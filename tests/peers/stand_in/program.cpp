// A program whose threads allocate, fail and free over a tt-metal that stands in for the real one, until its standard input ends.
//
// usage: program THREADS ROUNDS      each thread keeps one buffer of 4096 bytes and says so by the end of its rounds
#include "metal.hpp"

#include <atomic>
#include <cstdio>
#include <cstdlib>
#include <stdexcept>
#include <string>
#include <thread>
#include <vector>

using namespace tt::tt_metal;

namespace {

class Device : public IDevice {
public:
    int arch() const override { return 2; }
    int id() const override { return 3; }
};

constexpr std::uint64_t size = 4096;
std::atomic<int> unwound{0};

struct Unwinding {
    ~Unwinding() { ++unwound; }
};

#ifdef WITHOUT_ALLOCATOR
GraphTracker tracker;

void take(Buffer* buffer) { tracker.track_allocate(buffer); }
void give_back(Buffer* buffer) { tracker.track_deallocate(buffer); }
void fail(Device*) { ++unwound; }
#else
AllocatorImpl allocator;

void take(Buffer* buffer) { allocator.allocate_buffer(buffer); }
void give_back(Buffer* buffer) { allocator.deallocate_buffer(buffer); }

// An allocation that finds no room: what it throws has to arrive whole, and all between has to be unwound.
void fail(Device* device) {
    try {
        Unwinding unwinding;
        Buffer buffer(device, size_max + 1, BufferType::L1);
        allocator.allocate_buffer(&buffer);
        std::abort();
    } catch (const std::runtime_error& error) {
        if (error.what() != "Out of Memory: " + std::to_string(size_max + 1)) {
            std::abort();
        }
    }
}
#endif

}  // namespace

int main(int, char** arguments) {
    const int threads = std::atoi(arguments[1]);
    const int rounds = std::atoi(arguments[2]);
    Device device;
    std::vector<Buffer> kept(threads, Buffer(&device, size, BufferType::DRAM));
    std::vector<std::thread> workers;
    for (int thread = 0; thread < threads; ++thread) {
        workers.emplace_back([&, thread] {
            for (int round = 0; round < rounds; ++round) {
                Buffer buffer(&device, size, BufferType::L1);
                take(&buffer);
                fail(&device);
                give_back(&buffer);
            }
            kept[thread] = Buffer(&device, size, BufferType::DRAM);
            take(&kept[thread]);
        });
    }
    for (auto& worker : workers) {
        worker.join();
    }
    std::printf("%d unwound\n", unwound.load());
    std::fflush(stdout);
    while (std::getchar() != EOF) {
    }
}
