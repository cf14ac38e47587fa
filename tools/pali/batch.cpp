// batch: JSON Lines in, JSON Lines out, in the same order; one bad line never stops the others.
#include <charconv>
#include <memory>
#include <new>
#include <optional>
#include <set>

#include "answers.hpp"
#include "batch_line.hpp"
#include "interrupt.hpp"
#include "json_lines.hpp"
#include "resume.hpp"
#include "usage.hpp"
#include "verbs.hpp"

namespace pali::cli {
namespace {

// Lines read before they are run together: those that can share a decoder do.
constexpr size_t kGroup = 8;

struct Arguments {
  std::string input, image_root, shard;
  bool resume = false;
  ModelArguments model;
  ImageArguments images;
  GenerationArguments generation;
  OutputArguments output;
};

struct Entry {
  BatchLine line;
  bool finished = false;  // by an earlier run
  std::optional<Result> result;
  std::optional<Error> error;
};

// Where answers go: to an output that appears whole, or to that of an earlier run.
struct Answers {
  std::optional<Output> output;
  std::optional<ResumedAnswers> resumed;

  void write(const std::string& line) {
    if (resumed) return resumed->append(line);
    output->write(line);
  }
  void flush() {
    if (resumed) return resumed->flush();
    output->flush();
  }
  void finish() {
    if (resumed) return resumed->finish();
    output->finish();
  }
};

// "1/4": every fourth line, from the second on.
struct Shard {
  size_t first = 0, of = 1;
  bool has(size_t line) const { return line % of == first; }
};

Shard parse_shard(const std::string& text) {
  Shard shard;
  const char* const end = text.data() + text.size();
  const auto [slash, error] = std::from_chars(text.data(), end, shard.first);
  const bool divided = error == std::errc() && slash != end && *slash == '/';
  const auto [rest, wrong] = std::from_chars(divided ? slash + 1 : end, end, shard.of);
  if (!divided || wrong != std::errc() || rest != end || shard.first >= shard.of) {
    throw UsageError("--shard takes I/N, I from 0 to N - 1, found '" + text + "'");
  }
  return shard;
}

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
  Batch(const Arguments& arguments, const Engine& engine, Answers& answers)
      : arguments_(arguments), engine_(engine), answers_(answers) {
    defaults_.generation = arguments.generation;
    defaults_.images = arguments.images.options;
    defaults_.root = arguments.image_root;
    if (arguments.image_root.empty() && arguments.input != "-") {
      defaults_.root = std::filesystem::path(arguments.input).parent_path();
    }
  }

  void add(const std::string& text, size_t number) {
    Entry& entry = group_.emplace_back();
    attempt(entry, [&] { read_words(text, defaults_, entry.line); });
    look_up(entry);
    if (!entry.finished) attempt(entry, [&] { load_images(defaults_, entry.line); });
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
      if (!entry.result && !entry.error && !entry.finished) run_alone(entry);
      if (interrupted()) throw Error(ErrorCode::cancelled, "interrupted");
      write(entry);
    }
    answers_.flush();
    group_.clear();
  }

 private:
  // Work on what has not failed yet.
  template <class Work>
  void attempt(Entry& entry, const Work& work) {
    if (entry.error) return;
    try {
      of_one_line(work);
    } catch (const Error& error) {
      entry.error = error;
    }
  }

  // Finished stays finished, whatever became of the line since.
  void look_up(Entry& entry) {
    const Json& id = entry.line.id;
    if (!answers_.resumed || (entry.error && id.is_null())) return;
    if (const std::string why = answers_.resumed->refuse(id); !why.empty()) {
      entry.error = Error(ErrorCode::invalid_argument, why);
    } else if (answers_.resumed->finished(id)) {
      entry.finished = true;
      entry.error.reset();
    }
  }

  // Fast where all goes well; a request that fails takes the others along, and they run alone.
  void run_together() {
    std::vector<Request> requests;
    std::vector<Entry*> owners;
    for (Entry& entry : group_) {
      if (entry.error || entry.finished) continue;
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
    attempt(entry, [&] { entry.result = engine_.run(entry.line.request); });
  }

  void write(const Entry& entry) {
    if (entry.finished) return answers_.resumed->keep(entry.line.id);
    Json object = {{"id", entry.line.id}};
    if (entry.error) {
      ++failed_;
      object["error"] = {{"code", to_string(entry.error->code())},
                         {"message", entry.error->what()}};
    } else {
      warn(arguments_.output, entry.result->warnings);
      object.update(to_json(entry.line.paths, entry.line.request, *entry.result, engine_.info()));
    }
    answers_.write(to_line(object));
  }

  const Arguments& arguments_;
  const Engine& engine_;
  Answers& answers_;
  BatchDefaults defaults_;
  std::vector<Entry> group_;
  std::set<std::string> warned_;
  size_t failed_ = 0;
};

void run(Arguments& arguments) {
  const Shard shard = arguments.shard.empty() ? Shard() : parse_shard(arguments.shard);
  const std::string& target = arguments.output.path;
  if (arguments.resume && (target.empty() || target == "-")) {
    throw UsageError("--resume without -o: it goes on with a file");
  }
  const bool from_stdin = arguments.input == "-";
  std::error_code ignored;
  if (!from_stdin && std::filesystem::equivalent(arguments.input, target, ignored)) {
    throw UsageError("the input and --output are the same file");
  }
  JsonLines lines(arguments.input);
  const Engine engine = open_engine(arguments.model, arguments.output);
  Answers answers;
  if (arguments.resume) {
    answers.resumed.emplace(target);
  } else {
    answers.output.emplace(target);
  }
  Batch batch(arguments, engine, answers);
  Progress progress(arguments.output, "batch");
  size_t seen = 0, taken = 0;
  for (std::string text; lines.next(text);) {
    if (!shard.has(seen++)) continue;
    ++taken;
    batch.add(text, lines.number());
    // Whoever writes to a pipe may wait for each answer.
    if (from_stdin || arguments.generation.stream || batch.waiting() == kGroup) batch.run();
    progress.update(lines.fraction());
  }
  batch.run();
  if (interrupted()) throw Error(ErrorCode::cancelled, "interrupted");
  progress.clear();
  answers.finish();
  if (batch.failed() > 0) {
    throw Error(ErrorCode::invalid_argument,
                std::to_string(batch.failed()) + " of " + std::to_string(taken) +
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
  verb.add_flag("--resume", arguments->resume,
                "Write to -o's file as answers come; what is finished there, by id, is kept");
  verb.add_option("--shard", arguments->shard, "Every N-th line, from line I (0 to N-1) on")
      ->check(not_empty())
      ->type_name("I/N");
  add_generation_options(verb, arguments->generation, "Write each answer as it comes");
  add_image_options(verb, arguments->images);
  verb.remove_option(verb.get_option("--image"));
  add_model_options(verb, arguments->model);
  add_output_options(verb, arguments->output, "OUT.jsonl");
  verb.footer(
      "Examples:\n  pali batch requests.jsonl -o answers.jsonl\n"
      "  pali batch requests.jsonl -o answers.jsonl --resume    again, until all is done\n"
      "  pali batch requests.jsonl -o part0.jsonl --shard 0/4\n"
      "A line in:  {\"id\": 1, \"image\": \"a.jpg\", \"task\": \"vqa\", \"question\": \"What is "
      "this?\"}\n"
      "A line out: the id and the verb's --json object, or {\"id\", \"error\"}.");
  verb.callback([arguments] { run(*arguments); });
}

}  // namespace pali::cli
