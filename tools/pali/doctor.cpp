// doctor: what this machine and this build can do, and what is missing.
#include <memory>

#include "arguments.hpp"
#include "verbs.hpp"

namespace pali::cli {
namespace {

constexpr double kGiB = 1024.0 * 1024.0 * 1024.0;

// Path of the built-in model, or what is wrong with it.
struct Builtin {
  std::string path, problem;
};

Builtin find_builtin() {
  try {
    const std::string path = model_path({});
    inspect(path);
    return {path, ""};
  } catch (const Error& error) {
    return {"", error.what()};
  }
}

Json to_json(const SystemInfo& info, const Builtin& builtin) {
  Json object = {{"version", PALI_VERSION},
                 {"cpu", info.cpu},
                 {"logical_cpus", info.logical_cpus},
                 {"usable_cpus", info.usable_cpus},
                 {"default_threads", info.default_threads},
                 {"memory_bytes", info.memory_bytes},
                 {"memory_available_bytes", info.memory_available_bytes},
                 {"l1d_bytes", info.l1d_bytes},
                 {"l2_bytes", info.l2_bytes},
                 {"l3_bytes", info.l3_bytes}};
  object["tiers"] = Json::array();
  for (const TierInfo& tier : info.tiers) {
    object["tiers"].push_back({{"name", tier.name},
                               {"built", tier.built},
                               {"available", tier.available},
                               {"reason", tier.reason}});
  }
  object["dependencies"] = Json::array();
  for (const DependencyInfo& dependency : info.dependencies) {
    object["dependencies"].push_back({{"name", dependency.name},
                                      {"version", dependency.version},
                                      {"present", dependency.present},
                                      {"note", dependency.note}});
  }
  object["model"] = {{"path", builtin.path.empty() ? Json(nullptr) : Json(builtin.path)},
                     {"problem", builtin.problem}};
  return object;
}

std::string padded(const std::string& name) {
  return "  " + name + std::string(name.size() < 16 ? 16 - name.size() : 1, ' ');
}

std::string to_text(const SystemInfo& info, const Builtin& builtin) {
  std::string text = "pali " PALI_VERSION "\ncpu               " + info.cpu + "\n";
  text += "cpus              " + std::to_string(info.usable_cpus) + " of " +
          std::to_string(info.logical_cpus) + " usable, " + std::to_string(info.default_threads) +
          " threads by default\n";
  text += "memory            " + format("%.1f GiB", static_cast<double>(info.memory_bytes) / kGiB) +
          format(", %.1f GiB available\n", static_cast<double>(info.memory_available_bytes) / kGiB);
  text += "caches            L1d " + std::to_string(info.l1d_bytes / 1024) + " KiB, L2 " +
          std::to_string(info.l2_bytes / 1024) + " KiB, L3 " +
          std::to_string(info.l3_bytes / 1024) + " KiB\nkernel tiers\n";
  for (const TierInfo& tier : info.tiers) {
    text +=
        padded(tier.name) + (tier.available ? "available" : "not available: " + tier.reason) + "\n";
  }
  text += "libraries\n";
  for (const DependencyInfo& dependency : info.dependencies) {
    text += padded(dependency.name) + (dependency.present ? dependency.version : "missing") +
            (dependency.note.empty() ? "" : "  " + dependency.note) + "\n";
  }
  return text + "model             " +
         (builtin.problem.empty() ? builtin.path : "missing: " + one_line(builtin.problem)) + "\n";
}

}  // namespace

void add_doctor(CLI::App& app) {
  struct Arguments {
    EngineOptions machine;
    OutputArguments output;
  };
  const auto arguments = std::make_shared<Arguments>();
  CLI::App& verb = *app.add_subcommand("doctor", "What this machine and this build can do");
  accept_machine_options(verb, arguments->machine);
  add_output_options(verb, arguments->output);
  verb.footer("Example:\n  pali doctor");
  verb.callback([arguments] {
    const SystemInfo info = system_info();
    const Builtin builtin = find_builtin();
    Output output(arguments->output.path);
    output.write(arguments->output.json ? to_line(to_json(info, builtin)) : to_text(info, builtin));
    output.finish();
  });
}

}  // namespace pali::cli
