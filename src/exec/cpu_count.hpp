// What the operating system says about the CPUs this process may use. `root` is "/" but in tests,
// which bring a small tree of their own.
#pragma once

#include <filesystem>
#include <span>

namespace pali {

// Physical cores among the logical `cpus`: hyper-threads of one core count once. A CPU whose
// topology cannot be read counts as a core.
int physical_cores(std::span<const int> cpus, const std::filesystem::path& root);

// Whole CPUs granted by the cgroup quota (v2 cpu.max, v1 cpu.cfs_quota_us), the tightest on the way
// up to the root group, at least 1; 0 where there is no quota.
int cgroup_cpu_limit(const std::filesystem::path& root);

}  // namespace pali
