// Core counting over small trees that look like /sys and /proc.
#include "exec/cpu_count.hpp"

#include <gtest/gtest.h>

#include <string>
#include <vector>

#include "exec/thread_pool.hpp"
#include "unit/exec/system_tree.hpp"

namespace pali {
namespace {

using CpuCount = test::SystemTree;

TEST_F(CpuCount, HyperThreadsCountOnce) {
  for (int cpu = 0; cpu < 8; ++cpu) {
    const int core = cpu % 4;
    put("sys/devices/system/cpu/cpu" + std::to_string(cpu) + "/topology/thread_siblings_list",
        std::to_string(core) + "," + std::to_string(core + 4) + "\n");
  }
  EXPECT_EQ(physical_cores(std::vector<int>{0, 1, 2, 3, 4, 5, 6, 7}, root_), 4);
  EXPECT_EQ(physical_cores(std::vector<int>{0, 4}, root_), 1);
  EXPECT_EQ(physical_cores(std::vector<int>{0, 5}, root_), 2);
  EXPECT_EQ(physical_cores(std::vector<int>{0, 8, 9}, root_), 3);  // 8 and 9 have no topology
}

TEST_F(CpuCount, NoCgroupMeansNoLimit) { EXPECT_EQ(cgroup_cpu_limit(root_), 0); }

TEST_F(CpuCount, Version2TakesTheTightestOnTheWayUp) {
  put("proc/self/cgroup", "0::/a.slice/b.scope\n");
  put("sys/fs/cgroup/a.slice/cpu.max", "350000 100000\n");
  put("sys/fs/cgroup/a.slice/b.scope/cpu.max", "max 100000\n");
  EXPECT_EQ(cgroup_cpu_limit(root_), 3);
  put("sys/fs/cgroup/a.slice/b.scope/cpu.max", "200000 100000\n");
  EXPECT_EQ(cgroup_cpu_limit(root_), 2);
  put("sys/fs/cgroup/cpu.max", "50000 100000\n");  // half a CPU is still one thread
  EXPECT_EQ(cgroup_cpu_limit(root_), 1);
}

TEST_F(CpuCount, Version2InsideAContainer) {
  put("proc/self/cgroup", "0::/../../elsewhere\n");  // a group outside of what is mounted
  put("sys/fs/cgroup/cpu.max", "400000 100000\n");
  EXPECT_EQ(cgroup_cpu_limit(root_), 4);
}

TEST_F(CpuCount, Version1) {
  put("proc/self/cgroup", "12:memory:/m\n4:cpu,cpuacct:/docker/x\n1:cpuset:/\n");
  put("sys/fs/cgroup/cpu,cpuacct/docker/x/cpu.cfs_quota_us", "-1\n");
  put("sys/fs/cgroup/cpu,cpuacct/docker/x/cpu.cfs_period_us", "100000\n");
  EXPECT_EQ(cgroup_cpu_limit(root_), 0);
  put("sys/fs/cgroup/cpu,cpuacct/docker/x/cpu.cfs_quota_us", "250000\n");
  EXPECT_EQ(cgroup_cpu_limit(root_), 2);
}

TEST_F(CpuCount, NonsenseIsNoLimit) {
  put("proc/self/cgroup", "\n:\n::\n0:x\n0::\nnothing at all\n0::/../..\n");
  for (const char* text : {"", "max", "x y", "-5 100000", "100000 0", "100000", "nan 1"}) {
    put("sys/fs/cgroup/cpu.max", text);
    EXPECT_EQ(cgroup_cpu_limit(root_), 0) << text;
  }
}

TEST_F(CpuCount, ThisMachineHasAtLeastOne) {
  EXPECT_GE(default_thread_count(), 1);
  EXPECT_LE(default_thread_count(), 1024);
}

}  // namespace
}  // namespace pali
