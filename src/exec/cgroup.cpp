#include "exec/cgroup.hpp"

#include <fstream>
#include <sstream>

namespace pali {
namespace {

namespace fs = std::filesystem;

using Visit = std::function<void(const fs::path&, CgroupVersion)>;

// `group` as /proc/self/cgroup names it, below `mount`.
void climb(const fs::path& mount, const std::string& group, CgroupVersion version,
           const Visit& visit) {
  fs::path relative = fs::path(group).relative_path().lexically_normal();
  if (!relative.empty() && *relative.begin() == "..") relative.clear();
  visit(mount, version);
  for (; !relative.empty() && relative != "."; relative = relative.parent_path()) {
    visit(mount / relative, version);
  }
}

bool names_controller(const std::string& controllers, std::string_view wanted) {
  std::istringstream list(controllers);
  for (std::string name; std::getline(list, name, ',');) {
    if (name == wanted) return true;
  }
  return false;
}

}  // namespace

std::string first_line(const fs::path& path) {
  std::ifstream file(path);
  std::string line;
  std::getline(file, line);
  return line;
}

void for_each_cgroup(const fs::path& root, std::string_view controller, const Visit& visit) {
  const fs::path mount = root / "sys/fs/cgroup";
  std::ifstream groups(root / "proc/self/cgroup");
  for (std::string line; std::getline(groups, line);) {  // "0::/user.slice" or "4:cpu,cpuacct:/a"
    const size_t first = line.find(':');
    const size_t second = first == std::string::npos ? first : line.find(':', first + 1);
    if (second == std::string::npos) continue;
    const std::string controllers = line.substr(first + 1, second - first - 1);
    const std::string group = line.substr(second + 1);
    if (controllers.empty()) {
      climb(mount, group, CgroupVersion::v2, visit);
    } else if (names_controller(controllers, controller)) {
      climb(mount / controllers, group, CgroupVersion::v1, visit);
      if (controllers != controller) climb(mount / controller, group, CgroupVersion::v1, visit);
    }
  }
}

}  // namespace pali
