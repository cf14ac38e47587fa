#include "exec/memory.hpp"

#include <algorithm>
#include <fstream>
#include <limits>
#include <optional>
#include <sstream>
#include <string>

#include "exec/cgroup.hpp"

namespace pali {
namespace {

namespace fs = std::filesystem;

// The number behind `name` in a file of lines "name number"; nothing where it is not there.
std::optional<int64_t> number_of(const fs::path& path, const std::string& name) {
  std::ifstream file(path);
  for (std::string line; std::getline(file, line);) {
    std::istringstream words(line);
    std::string key;
    int64_t value = 0;
    if (words >> key >> value && key == name && value >= 0) return value;
  }
  return std::nullopt;
}

// What a group may still take; nothing where it has no limit ("max").
std::optional<int64_t> room_in(const fs::path& group, CgroupVersion version) {
  const bool v2 = version == CgroupVersion::v2;
  std::istringstream line(first_line(group / (v2 ? "memory.max" : "memory.limit_in_bytes")));
  int64_t limit = 0;
  if (!(line >> limit) || limit < 0) return std::nullopt;
  const int64_t used = number_of(group / "memory.stat", v2 ? "anon" : "total_rss").value_or(0);
  return std::max<int64_t>(limit - used, 1);
}

}  // namespace

int64_t meminfo_bytes(const fs::path& root, const char* name) {
  const int64_t kilobytes = number_of(root / "proc/meminfo", std::string(name) + ":").value_or(0);
  return std::min(kilobytes, std::numeric_limits<int64_t>::max() / 1024) * 1024;
}

int64_t available_memory_bytes(const fs::path& root) {
  int64_t least = meminfo_bytes(root, "MemAvailable");
  for_each_cgroup(root, "memory", [&](const fs::path& group, CgroupVersion version) {
    const std::optional<int64_t> room = room_in(group, version);
    if (room) least = least == 0 ? *room : std::min(least, *room);
  });
  return least;
}

}  // namespace pali
