// batch: JSON Lines in, JSON Lines out, in the same order; one bad line never stops the others.
#include <fstream>
#include <iostream>
#include <memory>
#include <new>
#include <optional>
#include <set>

#include "answers.hpp"
#include "batch_line.hpp"
#include "interrupt.hpp"
#include "usage.hpp"
#include "verbs.hpp"

namespace pali::cli {
namespace {

// Lines read before they are run together: those that can share a decoder do.
constexpr size_t kGroup = 8;

struct Arguments {
  std::string input, image_root;
  ModelArguments model;
  ImageArguments images;
  GenerationArguments generation;
  OutputArguments output;
};

struct Entry {
  BatchLine line;
  std::optional<Result> result;
  std::optional<Error> error;
};

// Work of one line, whose failures are that line's alone: memory that it asks for in vain too.
template <class Work>
auto of_one_line(const Work& work) {
  try {
    return work();
  } catch (const std::bad_alloc&) {
    throw Error(ErrorCode::out_of_memory,
                "not enough memory for this line; scale its images down, or give fewer of them");
  }
}

class Batch {
 public:
  Batch(const Arguments& arguments, const Engine& engine, Output& output)
      : arguments_(arguments), engine_(engine), output_(output) {
    defaults_.generation = arguments.generation;
    defaults_.images = arguments.images.options;
    defaults_.root = arguments.image_root;
    if (arguments.image_root.empty() && arguments.input != "-") {
      defaults_.root = std::filesystem::path(arguments.input).parent_path();
    }
  }

  void add(const std::string& text, size_t number) {
    Entry& entry = group_.emplace_back();
    try {
      of_one_line([&] { read_line(text, defaults_, entry.line); });
    } catch (const Error& error) {
      entry.error = error;
    }
    for (const std::string& field : entry.line.unknown) {
      if (!warned_.insert(field).second) continue;
      warn(arguments_.output, "field '" + field + "' is not used (" + arguments_.input + ", line " +
                                  std::to_string(number) + "); left aside");
    }
  }

  size_t waiting() const { return group_.size(); }
  size_t failed() const { return failed_; }

  void run() {
    run_together();
    for (Entry& entry : group_) {
      if (!entry.result && !entry.error) run_alone(entry);
      if (interrupted()) throw Error(ErrorCode::cancelled, "interrupted");
      write(entry);
    }
    output_.flush();
    group_.clear();
  }

 private:
  // Fast where all goes well; a request that fails takes the others along, and they run alone.
  void run_together() {
    std::vector<Request> requests;
    std::vector<Entry*> owners;
    for (Entry& entry : group_) {
      if (entry.error) continue;
      requests.push_back(entry.line.request);
      owners.push_back(&entry);
    }
    if (requests.size() < 2) return;
    try {
      std::vector<Result> results = of_one_line([&] { return engine_.run(requests); });
      for (size_t i = 0; i < results.size(); ++i) owners[i]->result = std::move(results[i]);
    } catch (const Error&) {
      // Each says for itself what is wrong.
    }
  }

  void run_alone(Entry& entry) {
    try {
      entry.result = of_one_line([&] { return engine_.run(entry.line.request); });
    } catch (const Error& error) {
      entry.error = error;
    }
  }

  void write(const Entry& entry) {
    Json object = {{"id", entry.line.id}};
    if (entry.error) {
      ++failed_;
      object["error"] = {{"code", to_string(entry.error->code())},
                         {"message", entry.error->what()}};
    } else {
      warn(arguments_.output, entry.result->warnings);
      object.update(to_json(entry.line.paths, entry.line.request, *entry.result, engine_.info()));
    }
    output_.write(to_line(object));
  }

  const Arguments& arguments_;
  const Engine& engine_;
  Output& output_;
  BatchDefaults defaults_;
  std::vector<Entry> group_;
  std::set<std::string> warned_;
  size_t failed_ = 0;
};

void run(Arguments& arguments) {
  const bool from_stdin = arguments.input == "-";
  std::error_code ignored;
  if (!from_stdin && !std::filesystem::exists(arguments.input, ignored)) {
    throw Error(ErrorCode::not_found,
                "no such file (" + arguments.input + "); give a file of JSON Lines, or -");
  }
  if (std::filesystem::is_directory(arguments.input, ignored)) {
    throw Error(ErrorCode::invalid_argument,
                "a folder (" + arguments.input + "); give a file of JSON Lines, or -");
  }
  if (!from_stdin && std::filesystem::equivalent(arguments.input, arguments.output.path, ignored)) {
    throw UsageError("the input and --output are the same file");
  }
  std::ifstream file;
  if (!from_stdin) {
    file.open(arguments.input, std::ios::binary);
    if (!file) {
      throw Error(ErrorCode::invalid_argument,
                  "cannot be opened (" + arguments.input + "); check its permissions");
    }
  }
  std::istream& input = from_stdin ? std::cin : file;
  const double size =
      from_stdin ? 0 : static_cast<double>(std::filesystem::file_size(arguments.input, ignored));
  const Engine engine = open_engine(arguments.model, arguments.output);
  Output output(arguments.output.path);
  Batch batch(arguments, engine, output);
  Progress progress(arguments.output, "batch");
  size_t number = 0;
  double read = 0;
  for (std::string text; std::getline(input, text);) {
    ++number;
    read += static_cast<double>(text.size()) + 1;
    if (text.find_first_not_of(" \t\r") == std::string::npos) continue;
    batch.add(text, number);
    // Whoever writes to a pipe may wait for each answer.
    if (from_stdin || arguments.generation.stream || batch.waiting() == kGroup) batch.run();
    if (size > 0) progress.update(read / size);
  }
  batch.run();
  if (interrupted()) throw Error(ErrorCode::cancelled, "interrupted");
  progress.clear();
  output.finish();
  if (batch.failed() > 0) {
    throw Error(ErrorCode::invalid_argument,
                std::to_string(batch.failed()) + " of " + std::to_string(number) +
                    " lines failed (" + arguments.input + "); see \"error\" in their answers");
  }
}

}  // namespace

void add_batch(CLI::App& app) {
  const auto arguments = std::make_shared<Arguments>();
  CLI::App& verb = *app.add_subcommand("batch", "Many requests: JSON Lines in, JSON Lines out");
  verb.add_option("IN.jsonl", arguments->input, "A file of JSON Lines, '-' for stdin")
      ->type_name("")
      ->required();
  verb.add_option("--image-root", arguments->image_root,
                  "Folder of relative image paths; else the input's own")
      ->type_name("DIR");
  add_generation_options(verb, arguments->generation, "Write each answer as it comes");
  add_image_options(verb, arguments->images);
  verb.remove_option(verb.get_option("--image"));
  add_model_options(verb, arguments->model);
  add_output_options(verb, arguments->output, "OUT.jsonl");
  verb.footer(
      "Example:\n  pali batch requests.jsonl -o answers.jsonl\n"
      "A line in:  {\"id\": 1, \"image\": \"a.jpg\", \"task\": \"vqa\", \"question\": \"What is "
      "this?\"}\n"
      "A line out: the id and the verb's --json object, or {\"id\", \"error\"}.");
  verb.callback([arguments] { run(*arguments); });
}

}  // namespace pali::cli
