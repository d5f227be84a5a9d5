// The same in C++: the weights are reported as freed when they go out of scope.
#include <cstdint>
#include <iostream>
#include <vector>

#include <ttmem.hpp>

int main() {
    constexpr std::uint64_t mib = 1 << 20;
    ttmem::Client client;
    if (!client) {
        std::cerr << "no memory is tracked: " << client.status().text() << "\n";
    }
    std::vector<ttmem::Allocation> weights;
    for (std::uint64_t layer = 0; layer < 4; ++layer) {
        weights.push_back(client.allocation(0, ttmem::MemoryType::Dram, 0x1000 + layer, 64 * mib));
    }
    { const auto activation = client.allocation(0, ttmem::MemoryType::L1, 0x2000, mib); }
    for (const ttmem::Statistic &row : client.statistics()) {
        std::cout << "device " << row.device << " memory type " << static_cast<unsigned>(row.memory_type) << ": "
                  << row.allocated_bytes << " bytes in " << row.buffers << " buffers, at most " << row.peak_bytes << "\n";
    }
    std::cout.flush();
    while (std::cin.get() != std::istream::traits_type::eof()) {
    }
    weights.clear();
    client.flush(std::chrono::seconds(1));
}
