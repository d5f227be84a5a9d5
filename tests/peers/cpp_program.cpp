// A C++ program that uses libttmem, stepped from outside: a line of words on stdin, one JSON answer on stdout.
//
//     open [PATH]                          allocation DEVICE TYPE ID SIZE
//     move                                 allocations change hands in every way; none is lost, none freed twice
//     drop                                 all allocations go out of scope
//     threads COUNT ROUNDS                 each thread allocates and frees, and hands half of its buffers to the next one to free
//     fork COUNT SIZE                      children allocate over the same client, and live until "end_children"
//     end_children                         statistics                      flush
//     host DEVICE                          what all processes hold there, in DRAM, by the daemon at the client's socket
#include <sys/wait.h>
#include <unistd.h>

#include <condition_variable>
#include <iostream>
#include <mutex>
#include <optional>
#include <queue>
#include <sstream>
#include <string>
#include <thread>
#include <vector>

#include <ttmem.hpp>

namespace {

constexpr auto patience = std::chrono::seconds(20);

ttmem::Client client;
std::vector<ttmem::Allocation> held;
std::string socket_path;
int end_of_children = -1;
std::vector<pid_t> children;

// Hands allocations from one thread to the next.
class Belt {
public:
    void put(std::optional<ttmem::Allocation> allocation) {
        const std::lock_guard<std::mutex> lock(mutex_);
        waiting_.push(std::move(allocation));
        arrived_.notify_one();
    }
    std::optional<ttmem::Allocation> take() {
        std::unique_lock<std::mutex> lock(mutex_);
        arrived_.wait(lock, [this] { return !waiting_.empty(); });
        auto first = std::move(waiting_.front());
        waiting_.pop();
        return first;
    }

private:
    std::mutex mutex_;
    std::condition_variable arrived_;
    std::queue<std::optional<ttmem::Allocation>> waiting_;
};

void threads(std::uint64_t count, std::uint64_t rounds) {
    std::vector<Belt> belts(count);
    std::vector<std::thread> workers;
    for (std::uint64_t worker = 0; worker < count; ++worker) {
        workers.emplace_back([&belts, worker, count, rounds] {
            for (std::uint64_t round = 0; round < rounds; ++round) {
                auto allocation = client.allocation(0, ttmem::MemoryType::L1, ((worker + 1) << 32) + round, 4096);
                if (round % 2 == 0) {
                    belts[(worker + 1) % count].put(std::move(allocation));
                }
                if (round % 100 == 0) {
                    static_cast<void>(client.statistics());
                }
            }
            belts[(worker + 1) % count].put(std::nullopt);
            while (belts[worker].take()) {
            }
        });
    }
    for (std::thread &worker : workers) {
        worker.join();
    }
}

// Leaves one buffer of four allocated, and it is held.
void move() {
    const auto make = [](std::uint64_t id) { return client.allocation(1, ttmem::MemoryType::Dram, id, 100); };
    auto first = make(1);
    auto second = make(2);
    first = std::move(second);
    auto &itself = first;
    first = std::move(itself);
    ttmem::Allocation third(std::move(first));
    auto fourth = make(4);
    fourth.free();
    fourth.free();
    auto given_away = make(5);
    given_away.release();
    client.freed(1, 5);
    held.push_back(std::move(third));
}

std::string fork_off(int count, std::uint64_t size) {
    int told[2];
    int end[2];
    if (pipe(told) != 0 || pipe(end) != 0) {
        return "false";
    }
    for (int child = 0; child < count; ++child) {
        const pid_t pid = fork();
        if (pid == 0) {
            close(end[1]);
            client.allocated(2, ttmem::MemoryType::Dram, 1, size);
            const char outcome = client.flush(patience) ? '+' : '-';
            if (write(told[1], &outcome, 1) == 1) {
                char nothing;
                static_cast<void>(read(end[0], &nothing, 1));
            }
            _exit(0);
        }
        children.push_back(pid);
    }
    close(told[1]);
    close(end[0]);
    end_of_children = end[1];
    std::string pids;
    bool are_told = true;
    for (const pid_t pid : children) {
        char outcome = '-';
        are_told = read(told[0], &outcome, 1) == 1 && outcome == '+' && are_told;
        pids += (pids.empty() ? "" : ", ") + std::to_string(pid);
    }
    close(told[0]);
    return std::string(are_told ? "true" : "false") + ", \"children\": [" + pids + "]";
}

std::string statistics() {
    std::string rows;
    for (const ttmem::Statistic &row : client.statistics()) {
        std::ostringstream text;
        text << (rows.empty() ? "[" : ", [") << row.device << ", " << static_cast<unsigned>(row.memory_type) << ", "
             << row.allocated_bytes << ", " << row.peak_bytes << ", " << row.buffers << ", " << row.largest_bytes << "]";
        rows += text.str();
    }
    return "true, \"rows\": [" + rows + "]";
}

std::string act(std::istream &words) {
    std::string word;
    words >> word;
    const auto number = [&words] {
        std::uint64_t value = 0;
        words >> value;
        return value;
    };
    if (word == "open") {
        ttmem::Options options;
        words >> socket_path;
        options.socket_path = socket_path;
        client = ttmem::Client(options);
        return client ? "true" : "false";
    }
    if (word == "allocation") {
        const auto device = static_cast<std::int32_t>(number());
        const auto type = static_cast<ttmem::MemoryType>(number());
        const auto id = number();
        held.push_back(client.allocation(device, type, id, number()));
        return held.back() ? "true" : "false";
    }
    if (word == "move") {
        move();
    } else if (word == "drop") {
        held.clear();
    } else if (word == "threads") {
        const auto count = number();
        threads(count, number());
    } else if (word == "fork") {
        const auto count = static_cast<int>(number());
        return fork_off(count, number());
    } else if (word == "end_children") {
        close(end_of_children);
        for (const pid_t child : children) {
            waitpid(child, nullptr, 0);
        }
    } else if (word == "host") {
        const ttmem::Monitor monitor(socket_path);
        const auto memory = monitor.device(static_cast<std::int32_t>(number()));
        return memory && monitor.is_connected() ? "true, \"dram\": " + std::to_string(memory->allocated_bytes[TTMEM_DRAM]) : "false";
    } else if (word == "statistics") {
        return statistics();
    } else if (word == "flush") {
        return client.flush(patience) ? "true" : "false";
    } else {
        return "false";
    }
    return "true";
}

} // namespace

int main() {
    std::string line;
    while (std::getline(std::cin, line)) {
        std::istringstream words(line);
        std::cout << "{\"ok\": " << act(words) << "}" << std::endl;
    }
}
