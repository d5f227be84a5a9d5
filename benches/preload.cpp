// What an allocation and its free cost over a tt-metal that stands in for the real one and does next to nothing: under
// libttmem_preload.so, what that adds. Prints nanoseconds of the thread's processor time for one of both: the median of many bursts.
#include "../tests/peers/stand_in/metal.hpp"

#include <algorithm>
#include <cstdio>
#include <ctime>
#include <unistd.h>

using namespace tt::tt_metal;

namespace {

class Device : public IDevice {
public:
    int arch() const override { return 2; }
    int id() const override { return 0; }
};

// Less than a ring holds, so that no report waits: a model does something else in between.
constexpr int burst = 1000;
constexpr int bursts = 100;

double now_ns() {
    timespec time{};
    clock_gettime(CLOCK_THREAD_CPUTIME_ID, &time);
    return time.tv_sec * 1e9 + time.tv_nsec;
}

}  // namespace

int main() {
    Device device;
    AllocatorImpl allocator;
    double costs[bursts];
    for (double& cost : costs) {
        const double begin = now_ns();
        for (int round = 0; round < burst; ++round) {
            Buffer buffer(&device, 4096, BufferType::DRAM);
            allocator.allocate_buffer(&buffer);
            allocator.deallocate_buffer(&buffer);
        }
        cost = (now_ns() - begin) / burst;
        usleep(20000);
    }
    // The median: half of the bursts were disturbed less.
    std::nth_element(costs, costs + bursts / 2, costs + bursts);
    std::printf("%.1f\n", costs[bursts / 2]);
}
