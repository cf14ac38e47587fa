// Models by their name on the Hugging Face hub, where that was downloaded before. Nothing here ever
// downloads.
#pragma once

#include <filesystem>
#include <string>

namespace pali {

// Where a model lies: `model` itself where that exists; else, for a name of the hub ("owner/name"),
// the snapshot that the local cache has of it (HF_HUB_CACHE, HF_HOME/hub, XDG_CACHE_HOME,
// ~/.cache); of a folder without config.json and with one .npz (the hub's "...-jax") that file.
// Throws Error: not_found, with the command that downloads it where `model` may be such a name;
// invalid_argument where a folder has several .npz.
std::filesystem::path find_model(const std::filesystem::path& model);

// What a model is called: the last component of its path, "owner/name" for a snapshot of the cache.
std::string model_name(const std::filesystem::path& path);

}  // namespace pali
