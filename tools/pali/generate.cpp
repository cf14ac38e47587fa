// caption, vqa, ocr, detect and run: images and words in, text out.
#include <algorithm>
#include <filesystem>
#include <memory>

#include "answers.hpp"
#include "arguments.hpp"
#include "image/encode.hpp"
#include "images.hpp"
#include "interrupt.hpp"
#include "tasks/draw.hpp"
#include "usage.hpp"
#include "verbs.hpp"

namespace pali::cli {
namespace {

struct Arguments {
  Task task = Task::run;
  std::vector<std::string> positional;
  std::string prompt, draw;
  ModelArguments model;
  ImageArguments images;
  GenerationArguments generation;
  OutputArguments output;
};

// Images of one request, by the names they were given.
struct Job {
  std::vector<std::string> paths;
  Request request;
};

// vqa, detect: the image, unless --image has it, then exactly one string of words.
void take_words(Arguments& arguments, const char* words) {
  std::vector<std::string>& given = arguments.positional;
  const bool named = !arguments.images.named.empty();
  const size_t expected = named ? 1 : 2;
  if (given.size() < expected) {
    throw UsageError(given.empty() && !named ? "no image and no " + std::string(words)
                                             : "no " + std::string(words));
  }
  if (given.size() > expected) {
    throw UsageError("one argument too many ('" + given[expected] + "'); put the " + words +
                     " into quotes");
  }
  std::error_code ignored;
  if (!named && std::filesystem::is_regular_file(given[1], ignored) && given[0] != "-" &&
      !std::filesystem::exists(given[0], ignored)) {
    throw UsageError("the image stands before the " + std::string(words));
  }
  arguments.prompt = given.back();
  given.pop_back();
}

// caption and ocr: a request an image; the others: one request with all images.
std::vector<Job> plan(const Arguments& arguments) {
  std::vector<std::string> paths = arguments.images.named;
  paths.insert(paths.end(), arguments.positional.begin(), arguments.positional.end());
  Job job;
  job.request.task = arguments.task;
  job.request.prompt = arguments.prompt;
  job.request.lang = arguments.generation.lang;
  job.request.generation = arguments.generation.options;
  job.request.stop = stop_token();
  if (arguments.task != Task::caption && arguments.task != Task::ocr) {
    job.paths = std::move(paths);
    return {std::move(job)};
  }
  if (paths.empty()) throw UsageError("no image");
  std::vector<Job> jobs;
  for (std::string& path : paths) {
    jobs.push_back(job);
    jobs.back().paths = {std::move(path)};
  }
  return jobs;
}

void draw(const Arguments& arguments, const Image& image, const Result& result) {
  ImageU8 canvas{image.width(), image.height(), {image.rgb().begin(), image.rgb().end()}};
  draw_boxes(canvas, result.boxes);
  write_png(arguments.draw, canvas);
}

// Where several images are asked about, lines begin with the path.
void answer(const Arguments& arguments, const Engine& engine, Job& job, bool several,
            Output& output) {
  job.request.images = load_images(job.paths, arguments.images.options);
  bool streamed = false;
  const bool text = !arguments.output.json && arguments.task != Task::detect;
  // With the first token, or with the answer: an error leaves no half line.
  const std::string prefix = several && text ? one_line(job.paths.front()) + "\t" : "";
  if (arguments.generation.stream && text) {
    job.request.on_token = [&](const Token& token) {
      if (!streamed) output.write(prefix);
      streamed = true;
      output.write(several ? one_line(token.text) : std::string(token.text));
      output.flush();
      return true;
    };
  }
  const Result result = engine.run(job.request);
  warn(arguments.output, result.warnings);
  if (!arguments.draw.empty()) draw(arguments, job.request.images.front(), result);
  if (arguments.output.json) {
    output.write(to_line(to_json(job.paths, job.request, result, engine.info())));
  } else if (arguments.task == Task::detect) {
    output.write(box_lines(result));
  } else {
    if (!streamed) output.write(prefix + (several ? one_line(result.text) : result.text));
    output.write("\n");
  }
  output.flush();
  if (arguments.output.verbose) print_timing(result);
  job.request.images.clear();
}

void run(Arguments& arguments) {
  if (arguments.task == Task::vqa) take_words(arguments, "question");
  if (arguments.task == Task::detect) take_words(arguments, "objects to find");
  const GenerationOptions& options = arguments.generation.options;
  if (options.n_best > options.beams) throw UsageError("--n-best is larger than --beams");
  if (options.beams > 1 && options.temperature > 0) {
    throw UsageError("--beams and --temp together: beam search takes no chances");
  }
  if (arguments.generation.stream && arguments.output.json) {
    throw UsageError("--stream and --json together: a JSON object comes whole");
  }
  std::vector<Job> jobs = plan(arguments);
  if (!arguments.draw.empty() && jobs.front().paths.empty()) {
    throw UsageError("--draw without an image");
  }
  if (arguments.draw == "-") throw UsageError("--draw writes a file, not standard output");
  if (!arguments.draw.empty() && arguments.draw == arguments.output.path) {
    throw UsageError("--draw and --output name the same file");
  }
  size_t from_stdin = 0;
  for (const Job& job : jobs) from_stdin += std::count(job.paths.begin(), job.paths.end(), "-");
  if (from_stdin > 1) throw UsageError("'-' (stdin) can be one image only");
  const Engine engine = open_engine(arguments.model, arguments.output);
  Output output(arguments.output.path);
  for (Job& job : jobs) {
    answer(arguments, engine, job, jobs.size() > 1, output);
    if (interrupted()) throw Error(ErrorCode::cancelled, "interrupted");
  }
  output.finish();
}

CLI::App& add_verb(CLI::App& app, Task task, const char* name, const char* help,
                   const std::shared_ptr<Arguments>& arguments) {
  CLI::App& verb = *app.add_subcommand(name, help);
  arguments->task = task;
  verb.callback([arguments] { run(*arguments); });
  return verb;
}

void add_shared(CLI::App& verb, Arguments& arguments) {
  add_generation_options(
      verb, arguments.generation,
      arguments.task == Task::detect ? "Accepted; boxes come whole" : "Print tokens as they come");
  add_image_options(verb, arguments.images);
  add_model_options(verb, arguments.model);
  add_output_options(verb, arguments.output);
}

void add_image_verb(CLI::App& app, Task task, const char* name, const char* help,
                    const char* footer) {
  const auto arguments = std::make_shared<Arguments>();
  CLI::App& verb = add_verb(app, task, name, help, arguments);
  verb.add_option("IMAGE...", arguments->positional, "Image files, '-' for stdin")->type_name("");
  add_shared(verb, *arguments);
  verb.footer(footer);
}

}  // namespace

void add_generate(CLI::App& app) {
  add_image_verb(
      app, Task::caption, "caption", "Describe images",
      "Examples:\n  pali caption photo.jpg\n  pali caption --json *.jpg > captions.jsonl\n"
      "Several images: a line each, PATH<TAB>caption.");
  {
    const auto arguments = std::make_shared<Arguments>();
    CLI::App& verb = add_verb(app, Task::vqa, "vqa", "Answer a question about an image", arguments);
    verb.add_option("IMAGE_QUESTION", arguments->positional, "An image file, and a question")
        ->type_name("");
    add_shared(verb, *arguments);
    verb.footer("Example:\n  pali vqa photo.jpg \"How many cats are there?\"");
  }
  add_image_verb(app, Task::ocr, "ocr", "Read the text in images",
                 "Example:\n  pali ocr sign.jpg\nSeveral images: a line each, PATH<TAB>text.");
  {
    const auto arguments = std::make_shared<Arguments>();
    CLI::App& verb = add_verb(app, Task::detect, "detect", "Find objects in an image", arguments);
    verb.add_option("IMAGE_OBJECTS", arguments->positional,
                    "An image file, and what to find: \"cat ; dog\"")
        ->type_name("");
    verb.add_option("--draw", arguments->draw, "Draw the boxes into a PNG file")
        ->check(not_empty())
        ->type_name("OUT.png");
    add_shared(verb, *arguments);
    verb.footer(
        "Example:\n  pali detect photo.jpg \"cat ; dog\" --draw found.png\n"
        "A line a box: label<TAB>x0 y0 x1 y1, in pixels.");
  }
  {
    const auto arguments = std::make_shared<Arguments>();
    CLI::App& verb = add_verb(app, Task::run, "run",
                              "Give a prompt as it is, with or without images", arguments);
    verb.add_option("[IMAGE...]", arguments->positional, "Image files of the one request")
        ->type_name("");
    verb.add_option("-p,--prompt", arguments->prompt, "The prompt, without any template")
        ->type_name("PROMPT");
    add_shared(verb, *arguments);
    verb.footer(
        "Examples:\n  pali run photo.jpg -p \"caption en\"\n"
        "  pali run -m t5-folder -p \"translate English to German: Good day.\"");
  }
}

}  // namespace pali::cli
