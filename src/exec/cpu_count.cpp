// Counts usable cores from the affinity mask, /sys topology and cgroup quotas. Whatever cannot be
// read or understood is taken as "no limit": the count is a default, not a promise.
#include "exec/cpu_count.hpp"

#include <algorithm>
#include <set>
#include <sstream>
#include <string>
#include <thread>
#include <vector>

#include "exec/cgroup.hpp"
#include "exec/thread_pool.hpp"

#ifdef __linux__
#include <sched.h>
#endif

namespace pali {
namespace {

namespace fs = std::filesystem;

// Whole CPUs of a quota of `quota` out of `period`; 0 where that is no limit. Rounded down: a
// spinning thread beyond the quota would throttle all of them.
int whole_cpus(double quota, double period) {
  if (!(quota > 0) || !(period > 0)) return 0;
  return static_cast<int>(std::clamp(quota / period, 1.0, 1e6));
}

int v2_limit(const fs::path& group) {
  std::istringstream line(first_line(group / "cpu.max"));  // "max 100000" or "150000 100000"
  double quota = 0, period = 0;
  if (!(line >> quota >> period)) return 0;
  return whole_cpus(quota, period);
}

int v1_limit(const fs::path& group) {
  std::istringstream quota_line(first_line(group / "cpu.cfs_quota_us"));  // -1: no limit
  std::istringstream period_line(first_line(group / "cpu.cfs_period_us"));
  double quota = 0, period = 0;
  if (!(quota_line >> quota) || !(period_line >> period)) return 0;
  return whole_cpus(quota, period);
}

int tighter(int a, int b) {
  if (a == 0) return b;
  return b == 0 ? a : std::min(a, b);
}

std::vector<int> allowed_cpus() {
  std::vector<int> cpus;
#ifdef __linux__
  // The mask of a machine with more CPUs than cpu_set_t holds is refused: ask with larger ones.
  for (int most = CPU_SETSIZE; most <= (1 << 18); most *= 2) {
    cpu_set_t* set = CPU_ALLOC(most);
    if (set == nullptr) break;
    const size_t bytes = CPU_ALLOC_SIZE(most);
    const bool known = sched_getaffinity(0, bytes, set) == 0;
    for (int cpu = 0; known && cpu < most; ++cpu) {
      if (CPU_ISSET_S(static_cast<size_t>(cpu), bytes, set)) cpus.push_back(cpu);
    }
    CPU_FREE(set);
    if (known) break;
  }
#endif
  return cpus;
}

}  // namespace

int physical_cores(std::span<const int> cpus, const fs::path& root) {
  std::set<std::string> cores;
  for (const int cpu : cpus) {
    const std::string name = "cpu" + std::to_string(cpu);
    const fs::path topology = root / "sys/devices/system/cpu" / name / "topology";
    const std::string siblings = first_line(topology / "thread_siblings_list");  // "0,64" or "0-1"
    cores.insert(siblings.empty() ? name : siblings);
  }
  return static_cast<int>(cores.size());
}

int cgroup_cpu_limit(const fs::path& root) {
  int result = 0;
  for_each_cgroup(root, "cpu", [&](const fs::path& group, CgroupVersion version) {
    result = tighter(result, version == CgroupVersion::v2 ? v2_limit(group) : v1_limit(group));
  });
  return result;
}

int default_thread_count() {
  const std::vector<int> cpus = allowed_cpus();
  const int cores = cpus.empty() ? static_cast<int>(std::thread::hardware_concurrency())
                                 : physical_cores(cpus, "/");
  return std::clamp(tighter(cores, cgroup_cpu_limit("/")), 1, 1024);
}

}  // namespace pali
