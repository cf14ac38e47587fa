// Memory limits over small trees that look like /proc and /sys/fs/cgroup.
#include "exec/memory.hpp"

#include <gtest/gtest.h>

#include "exec/cgroup.hpp"
#include "unit/exec/system_tree.hpp"

namespace pali {
namespace {

using Memory = test::SystemTree;

constexpr int64_t kMega = 1 << 20;

TEST_F(Memory, NothingKnownIsZero) {
  EXPECT_EQ(available_memory_bytes(root_), 0);
  EXPECT_EQ(meminfo_bytes(root_, "MemTotal"), 0);
}

TEST_F(Memory, MeminfoCountsInKilobytes) {
  put("proc/meminfo", "MemTotal:       2048 kB\nMemFree: 1 kB\nMemAvailable:    1024 kB\n");
  EXPECT_EQ(meminfo_bytes(root_, "MemTotal"), 2 * kMega);
  EXPECT_EQ(available_memory_bytes(root_), kMega);
  put("proc/meminfo", "MemAvailable: 9223372036854775807 kB\n");
  EXPECT_GT(available_memory_bytes(root_), 0);
  put("proc/meminfo", "MemAvailable: -5 kB\nMemAvailable: lots\n");
  EXPECT_EQ(available_memory_bytes(root_), 0);
}

TEST_F(Memory, Version2LimitsLessAnonymousMemory) {
  put("proc/meminfo", "MemAvailable: 102400 kB\n");
  put("proc/self/cgroup", "0::/a.slice/b.scope\n");
  put("sys/fs/cgroup/a.slice/b.scope/memory.max", "max\n");
  EXPECT_EQ(available_memory_bytes(root_), 100 * kMega);
  put("sys/fs/cgroup/a.slice/memory.max", std::to_string(50 * kMega) + "\n");
  put("sys/fs/cgroup/a.slice/memory.stat",
      "anon " + std::to_string(20 * kMega) + "\nfile 4096\nanon_thp 8\n");
  EXPECT_EQ(available_memory_bytes(root_), 30 * kMega);
  put("sys/fs/cgroup/memory.max", std::to_string(10 * kMega) + "\n");  // of a container
  EXPECT_EQ(available_memory_bytes(root_), 10 * kMega);
  put("sys/fs/cgroup/memory.stat", "anon " + std::to_string(10 * kMega) + "\n");
  EXPECT_EQ(available_memory_bytes(root_), 1);  // full, which is not "unknown"
}

TEST_F(Memory, Version1LimitsLessResidentMemory) {
  put("proc/meminfo", "MemAvailable: 102400 kB\n");
  put("proc/self/cgroup", "9:memory:/docker/x\n4:cpu,cpuacct:/docker/x\n");
  put("sys/fs/cgroup/memory/docker/x/memory.limit_in_bytes", std::to_string(40 * kMega) + "\n");
  put("sys/fs/cgroup/memory/docker/x/memory.stat",
      "rss 1\ntotal_rss " + std::to_string(8 * kMega) + "\n");
  put("sys/fs/cgroup/cpu/docker/x/memory.limit_in_bytes", "1\n");  // another controller's
  EXPECT_EQ(available_memory_bytes(root_), 32 * kMega);
}

}  // namespace
}  // namespace pali
