// The control groups that limit this process (Linux). `root` is "/" but in tests, which bring a
// small tree of their own.
#pragma once

#include <filesystem>
#include <functional>
#include <string>
#include <string_view>

namespace pali {

enum class CgroupVersion { v1, v2 };

// Calls visit(folder, version) for the process's group under `controller` ("cpu", "memory") and for
// every group above it, up to the mount itself: any of them may hold the tightest limit. Inside a
// container the named group may not be visible; the mount's own limits then still are.
void for_each_cgroup(const std::filesystem::path& root, std::string_view controller,
                     const std::function<void(const std::filesystem::path&, CgroupVersion)>& visit);

// The first line of a small file of the kernel's; empty where it cannot be read.
std::string first_line(const std::filesystem::path& path);

}  // namespace pali
