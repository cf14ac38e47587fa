// What this machine and this build can do.
#include "pali/system.hpp"

#include <unistd.h>

#include <Eigen/Core>
#include <nlohmann/json.hpp>
#include <thread>

#include "exec/memory.hpp"
#include "exec/thread_pool.hpp"
#include "kernels/isa.hpp"
#include "matmul/matmul.hpp"

namespace pali {
namespace {

int64_t cache_bytes(int name) {
  const long bytes = ::sysconf(name);
  return bytes > 0 ? bytes : 0;
}

std::string dotted(int major, int minor, int patch) {
  return std::to_string(major) + "." + std::to_string(minor) + "." + std::to_string(patch);
}

}  // namespace

SystemInfo system_info() {
  SystemInfo info;
  info.cpu = cpu_name();
  info.logical_cpus = static_cast<int>(::sysconf(_SC_NPROCESSORS_ONLN));
  info.usable_cpus = static_cast<int>(std::thread::hardware_concurrency());
  info.default_threads = default_thread_count();
  info.memory_bytes = meminfo_bytes("/", "MemTotal");
  info.memory_available_bytes = available_memory_bytes("/");
  info.l1d_bytes = cache_bytes(_SC_LEVEL1_DCACHE_SIZE);
  info.l2_bytes = cache_bytes(_SC_LEVEL2_CACHE_SIZE);
  info.l3_bytes = cache_bytes(_SC_LEVEL3_CACHE_SIZE);
  for (const IsaTier& tier : isa_tiers()) {
    std::string reason;
    if (!tier.built) {
      reason = "not built: the compiler or the target lacks it";
    } else if (!tier.available) {
      reason = std::string("this CPU lacks ") + tier.missing;
    }
    info.tiers.push_back({tier.name, tier.built, tier.available, reason});
  }
  info.dependencies = {
      {"oneDNN", onednn_version(), onednn_built(),
       onednn_built() ? "" : "--matmul onednn is not available; install libdnnl-dev and rebuild"},
      {"Eigen", dotted(EIGEN_WORLD_VERSION, EIGEN_MAJOR_VERSION, EIGEN_MINOR_VERSION), true, ""},
      {"sentencepiece", PALI_SENTENCEPIECE_VERSION, true, ""},
      {"nlohmann-json",
       dotted(NLOHMANN_JSON_VERSION_MAJOR, NLOHMANN_JSON_VERSION_MINOR,
              NLOHMANN_JSON_VERSION_PATCH),
       true, ""},
      {"stb_image", "", true, "JPEG, PNG, BMP, GIF, PNM; no WebP"},
  };
  return info;
}

}  // namespace pali
