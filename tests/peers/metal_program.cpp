// What instrumented tt-metal trees call, stepped from outside: a line of words on stdin, one JSON answer on stdout.
//
// It includes the header by tt-metal's own path, and calls it as the trees do, the older ones with fewer arguments.
//
//     allocation DEVICE SIZE TYPE ID           deallocation DEVICE ID           deallocation_by_id ID
//     cb_allocation DEVICE SIZE ID             cb_deallocation DEVICE SIZE ID   cb_deallocation_by_id DEVICE ID
//     kernel_load DEVICE SIZE ID KIND          kernel_unload DEVICE SIZE ID     kernel_unload_by_id DEVICE ID
//     kernel_load_application DEVICE SIZE ID   is_enabled
#include <cstdint>
#include <iostream>
#include <sstream>
#include <string>

#include "tt_metal/impl/allocator/allocation_client.hpp"

using tt::tt_metal::AllocationClient;

namespace {

// tt-metal's allocator hands these types over.
using DeviceAddr = std::uint64_t;

bool act(std::istream &words) {
    std::string word;
    std::uint64_t number[4] = {};
    words >> word >> number[0] >> number[1] >> number[2] >> number[3];
    const int device = static_cast<int>(number[0]);
    const DeviceAddr second = number[1];
    const DeviceAddr third = number[2];
    if (word == "allocation") {
        if (AllocationClient::is_enabled()) {
            AllocationClient::report_allocation(device, second, static_cast<std::uint8_t>(third), number[3]);
        }
    } else if (word == "deallocation") {
        AllocationClient::report_deallocation(device, second);
    } else if (word == "deallocation_by_id") {
        AllocationClient::report_deallocation(number[0]);
    } else if (word == "cb_allocation") {
        AllocationClient::report_cb_allocation(device, second, third);
    } else if (word == "cb_deallocation") {
        AllocationClient::report_cb_deallocation(device, second, third);
    } else if (word == "cb_deallocation_by_id") {
        AllocationClient::report_cb_deallocation(device, second);
    } else if (word == "kernel_load") {
        AllocationClient::report_kernel_load(device, second, third, static_cast<std::uint8_t>(number[3]));
    } else if (word == "kernel_load_application") {
        AllocationClient::report_kernel_load(device, second, third);
    } else if (word == "kernel_unload") {
        AllocationClient::report_kernel_unload(device, second, third);
    } else if (word == "kernel_unload_by_id") {
        AllocationClient::report_kernel_unload(device, second);
    } else if (word == "is_enabled") {
        return AllocationClient::is_enabled();
    } else {
        return false;
    }
    return true;
}

} // namespace

int main() {
    std::string line;
    while (std::getline(std::cin, line)) {
        std::istringstream words(line);
        std::cout << "{\"ok\": " << (act(words) ? "true" : "false") << "}" << std::endl;
    }
}
