// What this machine and this build can do: for `pali doctor` and for programs that choose.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "pali/export.hpp"

namespace pali {

struct TierInfo {
  std::string name;  // "scalar", "avx2", ...
  bool built = false;
  bool available = false;
  std::string reason;  // why not; empty where available
};

struct DependencyInfo {
  std::string name, version;
  bool present = false;
  std::string note;
};

struct SystemInfo {
  std::string cpu;
  int logical_cpus = 0, usable_cpus = 0, default_threads = 0;
  int64_t memory_bytes = 0, memory_available_bytes = 0;
  int64_t l1d_bytes = 0, l2_bytes = 0, l3_bytes = 0;
  std::vector<TierInfo> tiers;
  std::vector<DependencyInfo> dependencies;
};

PALI_API SystemInfo system_info();

}  // namespace pali
