// Ref: huggingface_hub's constants.py for the folders and file_download.py for what lies in them:
// models--OWNER--NAME/refs/main holds the name of a folder of snapshots/.
#include "model/hub_cache.hpp"

#include <cstdlib>
#include <optional>
#include <system_error>
#include <vector>

#include "base/mapped_file.hpp"
#include "base/quote.hpp"
#include "pali/error.hpp"

namespace pali {
namespace {

namespace fs = std::filesystem;

constexpr std::string_view kPrefix = "models--", kBetween = "--";

fs::path cache_folder() {
  const auto variable = [](const char* name) {
    const char* value = std::getenv(name);
    return fs::path(value == nullptr ? "" : value);
  };
  for (const char* name : {"HF_HUB_CACHE", "HUGGINGFACE_HUB_CACHE"}) {
    if (const fs::path own = variable(name); !own.empty()) return own;
  }
  if (const fs::path home = variable("HF_HOME"); !home.empty()) return home / "hub";
  if (const fs::path cache = variable("XDG_CACHE_HOME"); !cache.empty()) {
    return cache / "huggingface" / "hub";
  }
  return variable("HOME") / ".cache" / "huggingface" / "hub";
}

// "owner/name", in the characters that the hub allows.
bool is_hub_name(const std::string& name) {
  const size_t slash = name.find('/');
  if (slash == std::string::npos || slash == 0 || slash + 1 == name.size()) return false;
  if (name.find('/', slash + 1) != std::string::npos || name[0] == '.' || name[slash + 1] == '.') {
    return false;
  }
  return name.find_first_not_of(
             "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789-_./") ==
         std::string::npos;
}

bool is_folder(const fs::path& path) {
  std::error_code ignored;
  return fs::is_directory(path, ignored);
}

// The snapshot that refs/main names; without that, the only one there is.
std::optional<fs::path> find_snapshot(const fs::path& repository) {
  const fs::path snapshots = repository / "snapshots", main = repository / "refs" / "main";
  std::error_code ignored;
  if (fs::is_regular_file(main, ignored) && fs::file_size(main, ignored) > 0) {
    std::string commit = read_text_file(main, 4096);
    while (!commit.empty() && (commit.back() == '\n' || commit.back() == ' ')) commit.pop_back();
    const bool hexadecimal =
        !commit.empty() && commit.find_first_not_of("0123456789abcdef") == std::string::npos;
    if (!hexadecimal) {
      throw Error(ErrorCode::corrupt_file, "expected the name of a commit, found " + quote(commit) +
                                               " (" + main.string() + "); download it again");
    }
    if (is_folder(snapshots / commit)) return snapshots / commit;
    return std::nullopt;
  }
  std::optional<fs::path> only;
  for (const auto& entry : fs::directory_iterator(snapshots, ignored)) {
    if (only) return std::nullopt;
    if (is_folder(entry.path())) only = entry.path();
  }
  return only;
}

// The checkpoint of a folder as big_vision's are on the hub: a .npz, a tokenizer and no config.
fs::path find_npz(const fs::path& folder) {
  std::error_code ignored;
  if (fs::exists(folder / "config.json", ignored)) return folder;
  std::vector<fs::path> found;
  for (const auto& entry : fs::directory_iterator(folder, ignored)) {
    const fs::path name = entry.path().filename();
    if (name.extension() == ".npz" && name != "vae-oid.npz") found.push_back(entry.path());
  }
  if (found.size() > 1) {
    throw Error(ErrorCode::invalid_argument, "several .npz files and no config.json (" +
                                                 folder.string() + "); name one of them");
  }
  return found.empty() ? folder : found.front();
}

}  // namespace

fs::path find_model(const fs::path& model) {
  std::error_code ignored;
  if (fs::exists(model, ignored)) return is_folder(model) ? find_npz(model) : model;
  const std::string name = model.string();
  if (!is_hub_name(name)) {
    throw Error(ErrorCode::not_found,
                "no such file or folder (" + name + "); check the path of the model");
  }
  std::string folder(kPrefix);
  folder += name;
  folder.replace(folder.find('/'), 1, kBetween);
  const fs::path repository = cache_folder() / folder;
  if (const std::optional<fs::path> snapshot = find_snapshot(repository)) {
    return find_npz(*snapshot);
  }
  throw Error(ErrorCode::not_found, "no such file or folder, and no such model of the hub in " +
                                        cache_folder().string() + " (" + name +
                                        "); check the path of the model, or download it first: hf "
                                        "download " +
                                        name);
}

std::string model_name(const fs::path& path) {
  const fs::path clean = path.has_filename() ? path : path.parent_path();
  const fs::path snapshots = clean.parent_path();
  std::string repository = snapshots.parent_path().filename().string();
  if (snapshots.filename() == "snapshots" && repository.starts_with(kPrefix)) {
    repository.erase(0, kPrefix.size());
    const size_t at = repository.find(kBetween);
    if (at != std::string::npos) repository.replace(at, kBetween.size(), "/");
    return repository;
  }
  return clean.filename().string();
}

}  // namespace pali
