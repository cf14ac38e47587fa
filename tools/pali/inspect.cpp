// inspect: what a checkpoint holds, without running it.
#include <memory>

#include "arguments.hpp"
#include "usage.hpp"
#include "verbs.hpp"

namespace pali::cli {
namespace {

struct Arguments {
  std::string path;
  bool tensors = false;
  ModelArguments model;
  OutputArguments output;
};

std::string shape_text(const std::vector<int64_t>& shape) {
  std::string text = "[";
  for (const int64_t size : shape) {
    text += (text.size() > 1 ? ", " : "") + std::to_string(size);
  }
  return text + "]";
}

std::string tensor_lines(const CheckpointInfo& info, bool json) {
  std::string lines;
  for (const TensorSummary& tensor : info.tensors) {
    if (json) {
      lines += to_line({{"name", tensor.name},
                        {"dtype", tensor.dtype},
                        {"shape", tensor.shape},
                        {"bytes", tensor.bytes}});
    } else {
      lines += one_line(tensor.name) + "\t" + tensor.dtype + "\t" + shape_text(tensor.shape) +
               "\t" + std::to_string(tensor.bytes) + "\n";
    }
  }
  return lines;
}

std::string summary(const CheckpointInfo& info) {
  std::string text = "format      " + info.format + "\nfamily      " + info.family +
                     "\nparameters  " + std::to_string(info.parameters) + "\n";
  for (const auto& [name, count] : info.dtypes) {
    text += "  " + name + std::string(name.size() < 10 ? 10 - name.size() : 1, ' ') +
            std::to_string(count) + "\n";
  }
  text += "bytes\n";
  for (const auto& [name, bytes] : info.memory_bytes) {
    text += "  " + name + std::string(name.size() < 10 ? 10 - name.size() : 1, ' ') +
            std::to_string(bytes) + "\n";
  }
  if (!info.prompts.empty()) {
    text += "tasks" + (info.task_style.empty() ? "" : " (" + info.task_style + ")") + "\n";
  }
  for (const auto& [task, prompt] : info.prompts) {
    text += "  " + task + std::string(10 - task.size(), ' ') + one_line(prompt) + "\n";
  }
  const Json config = Json::parse(info.config_json, nullptr, /*allow_exceptions=*/false);
  return text + "config\n" + config.dump(2, ' ', false, Json::error_handler_t::replace) + "\n";
}

void run(const Arguments& arguments) {
  if (!arguments.path.empty() && !arguments.model.path.empty()) {
    throw UsageError("a path and -m together");
  }
  const CheckpointInfo info =
      inspect(arguments.path.empty() ? model_path(arguments.model) : arguments.path,
              arguments.model.engine.task_style);
  warn(arguments.output, info.warnings);
  Output output(arguments.output.path);
  if (arguments.tensors) {
    output.write(tensor_lines(info, arguments.output.json));
  } else if (arguments.output.json) {
    Json object = {{"format", info.format},
                   {"family", info.family},
                   {"parameters", info.parameters},
                   {"dtypes", info.dtypes}};
    object["config"] = Json::parse(info.config_json, nullptr, /*allow_exceptions=*/false);
    object["memory_bytes"] = info.memory_bytes;
    object["task_style"] = info.task_style.empty() ? Json(nullptr) : Json(info.task_style);
    object["prompts"] = info.prompts;
    output.write(to_line(object));
  } else {
    output.write(summary(info));
  }
  output.finish();
}

}  // namespace

void add_inspect(CLI::App& app) {
  const auto arguments = std::make_shared<Arguments>();
  CLI::App& verb = *app.add_subcommand("inspect", "Show what a model holds, without running it");
  verb.add_option("[PATH]", arguments->path, "Model folder or pali checkpoint")->type_name("");
  verb.add_option("-m,--model", arguments->model.path, "The same")
      ->check(not_empty())
      ->type_name("PATH");
  add_task_style_option(verb, arguments->model.engine.task_style);
  verb.add_flag("--tensors", arguments->tensors, "A line a tensor: name, dtype, shape, bytes");
  accept_machine_options(verb, arguments->model.engine);
  add_output_options(verb, arguments->output);
  verb.footer("Examples:\n  pali inspect\n  pali inspect t5-folder --tensors");
  verb.callback([arguments] { run(*arguments); });
}

}  // namespace pali::cli
