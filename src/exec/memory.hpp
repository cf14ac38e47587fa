// What the operating system says about the memory this process may still use. `root` is "/" but in
// tests, which bring a small tree of their own.
#pragma once

#include <cstdint>
#include <filesystem>

namespace pali {

// Bytes of a line of /proc/meminfo ("MemTotal", "MemAvailable"); 0 where it cannot be read.
int64_t meminfo_bytes(const std::filesystem::path& root, const char* name);

// Bytes that may be allocated and written before something is killed: the machine's MemAvailable,
// or what the tightest cgroup limit (v2 memory.max, v1 memory.limit_in_bytes) leaves beside the
// group's anonymous memory (its page cache gives way). Swap is not counted. 0 where nothing is
// known.
int64_t available_memory_bytes(const std::filesystem::path& root);

}  // namespace pali
