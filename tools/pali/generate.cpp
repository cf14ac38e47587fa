// caption, vqa, ocr, detect, segment and run: images and words in, text out.
#include <algorithm>
#include <charconv>
#include <filesystem>
#include <memory>

#include "answers.hpp"
#include "arguments.hpp"
#include "image/encode.hpp"
#include "images.hpp"
#include "interrupt.hpp"
#include "tasks/draw.hpp"
#include "tasks/mask.hpp"
#include "usage.hpp"
#include "verbs.hpp"

namespace pali::cli {
namespace {

struct Arguments {
  Task task = Task::run;
  std::vector<std::string> positional;
  std::string prompt, draw, mask, choices, box;
  bool coco = false;
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

bool locates(Task task) { return task == Task::detect || task == Task::segment; }

Region parse_box(const std::string& text) {
  double numbers[4] = {};
  const char* at = text.data();
  const char* const end = at + text.size();
  for (int i = 0; i < 4; ++i) {
    const std::from_chars_result read = std::from_chars(at, end, numbers[i]);
    const bool last = i == 3;
    if (read.ec != std::errc() || (last ? read.ptr != end : read.ptr == end || *read.ptr != ',')) {
      throw UsageError("--box: '" + text + "' is not four numbers X0,Y0,X1,Y1");
    }
    at = last ? end : read.ptr + 1;
  }
  return {numbers[0], numbers[1], numbers[2], numbers[3]};
}

// "a ; b" -> a, b.
std::vector<std::string> parts(const std::string& text) {
  std::vector<std::string> list;
  for (size_t begin = 0; begin <= text.size();) {
    const size_t end = std::min(text.find(';', begin), text.size());
    list.push_back(text.substr(begin, end - begin));
    begin = end + 1;
  }
  return list;
}

// vqa, detect, segment: the image, unless --image has it, then exactly one string of words.
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
  if (!arguments.choices.empty()) job.request.choices = parts(arguments.choices);
  if (!arguments.box.empty()) job.request.region = parse_box(arguments.box);
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

// White where any mask is inside, black elsewhere.
void write_masks(const Arguments& arguments, const Image& image, const Result& result) {
  const size_t pixels = static_cast<size_t>(image.width()) * static_cast<size_t>(image.height());
  ImageU8 canvas{image.width(), image.height(), std::vector<uint8_t>(3 * pixels)};
  for (const Box& box : result.boxes) {
    if (!box.mask) continue;
    for_each_run(*box.mask, [&](int x, int y, int count) {
      for (int i = y; i < y + count; ++i) {
        const size_t at =
            static_cast<size_t>(i) * static_cast<size_t>(image.width()) + static_cast<size_t>(x);
        std::fill_n(canvas.rgb.begin() + static_cast<std::ptrdiff_t>(3 * at), 3, uint8_t{255});
      }
    });
  }
  write_png(arguments.mask, canvas);
}

// Where several images are asked about, lines begin with the path.
void answer(const Arguments& arguments, const Engine& engine, Job& job, bool several,
            Output& output) {
  job.request.images = load_images(job.paths, arguments.images.options);
  bool streamed = false;
  size_t shown = 0;  // bytes of the answer
  const bool text = !arguments.output.json && !locates(arguments.task);
  // With the first token, or with the answer: an error leaves no half line.
  const std::string prefix = several && text ? one_line(job.paths.front()) + "\t" : "";
  if (arguments.generation.stream && text) {
    job.request.on_token = [&](const Token& token) {
      if (!streamed) output.write(prefix);
      streamed = true;
      shown += token.text.size();
      output.write(several ? one_line(token.text) : std::string(token.text));
      output.flush();
      return true;
    };
  }
  const Result result = engine.run(job.request);
  warn(arguments.output, result.warnings);
  if (!arguments.mask.empty()) write_masks(arguments, job.request.images.front(), result);
  if (!arguments.draw.empty()) draw(arguments, job.request.images.front(), result);
  if (arguments.coco) {
    output.write(to_line(to_coco(job.paths.front(), job.request.images.front(), result)));
  } else if (arguments.output.json) {
    output.write(to_line(to_json(job.paths, job.request, result, engine.info())));
  } else if (locates(arguments.task)) {
    output.write(box_lines(result));
  } else {
    // What no token of the stream had: of beams all, else the end of a character that was cut off.
    const std::string rest = result.text.substr(std::min(shown, result.text.size()));
    output.write((streamed ? "" : prefix) + (several ? one_line(rest) : rest) + "\n");
  }
  output.flush();
  if (arguments.output.verbose) print_timing(result);
  job.request.images.clear();
}

// By name: there may be no file yet.
bool same_place(const std::string& a, const std::string& b) {
  const auto place = [](const std::string& path) {
    std::error_code error;
    const std::filesystem::path whole =
        std::filesystem::absolute(OutputFile::place_of(path), error);
    const std::filesystem::path real = std::filesystem::weakly_canonical(whole, error);
    return error ? whole.lexically_normal() : real;
  };
  return !a.empty() && !b.empty() && place(a) == place(b);
}

// A picture that is written besides the answer.
void check_file(const std::string& option, const std::string& path, const Arguments& arguments,
                const std::vector<Job>& jobs) {
  if (path.empty()) return;
  if (jobs.front().paths.empty()) throw UsageError(option + " without an image");
  if (path == "-") throw UsageError(option + " writes a file, not standard output");
  if (same_place(path, arguments.output.path)) {
    throw UsageError(option + " and --output name the same file");
  }
}

void run(Arguments& arguments) {
  if (arguments.task == Task::vqa) take_words(arguments, "question");
  if (locates(arguments.task)) take_words(arguments, "objects to find");
  const GenerationOptions& options = arguments.generation.options;
  if (options.n_best > options.beams) throw UsageError("--n-best is larger than --beams");
  if (options.beams > 1 && options.temperature > 0) {
    throw UsageError("--beams and --temp together: beam search takes no chances");
  }
  if (arguments.generation.stream && arguments.output.json) {
    throw UsageError("--stream and --json together: a JSON object comes whole");
  }
  std::vector<Job> jobs = plan(arguments);
  if (arguments.coco && arguments.output.json) throw UsageError("--coco and --json together");
  if (options.constrain && options.temperature > 0) {
    throw UsageError("--constrain and --temp together: constrained answers are searched");
  }
  check_file("--draw", arguments.draw, arguments, jobs);
  check_file("--mask", arguments.mask, arguments, jobs);
  if (!arguments.mask.empty() && same_place(arguments.mask, arguments.draw)) {
    throw UsageError("--mask and --draw name the same file");
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
      locates(arguments.task) ? "Accepted; boxes come whole" : "Print tokens as they come");
  add_image_options(verb, arguments.images);
  add_model_options(verb, arguments.model);
  add_output_options(verb, arguments.output);
}

void add_locating_options(CLI::App& verb, Arguments& arguments) {
  verb.add_option("IMAGE_OBJECTS", arguments.positional,
                  "An image file, and what to find: \"cat ; dog\"")
      ->type_name("");
  verb.add_option("--draw", arguments.draw, "Draw what is found into a PNG file")
      ->check(not_empty())
      ->type_name("OUT.png");
  verb.add_flag("--coco", arguments.coco, "The answer as one COCO data set (JSON)");
  verb.add_flag("--constrain", arguments.generation.options.constrain,
                "Choose only tokens that keep the boxes well-formed (<loc> models)");
}

void add_image_verb(CLI::App& app, Task task, const char* name, const char* help,
                    const char* footer) {
  const auto arguments = std::make_shared<Arguments>();
  CLI::App& verb = add_verb(app, task, name, help, arguments);
  verb.add_option("IMAGE...", arguments->positional, "Image files, '-' for stdin")->type_name("");
  if (task == Task::caption) {
    verb.add_option("--box", arguments->box, "The part of the image to describe (widgetcap models)")
        ->check(not_empty())
        ->type_name("X0,Y0,X1,Y1");
  }
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
    verb.add_option("--choices", arguments->choices,
                    "Answers to choose from, for models that do: \"a ; b ; c\"")
        ->check(not_empty())
        ->type_name("ANSWERS");
    add_shared(verb, *arguments);
    verb.footer("Example:\n  pali vqa photo.jpg \"How many cats are there?\"");
  }
  add_image_verb(app, Task::ocr, "ocr", "Read the text in images",
                 "Example:\n  pali ocr sign.jpg\nSeveral images: a line each, PATH<TAB>text.");
  {
    const auto arguments = std::make_shared<Arguments>();
    CLI::App& verb = add_verb(app, Task::detect, "detect", "Find objects in an image", arguments);
    add_locating_options(verb, *arguments);
    add_shared(verb, *arguments);
    verb.footer(
        "Example:\n  pali detect photo.jpg \"cat ; dog\" --draw found.png\n"
        "A line a box: label<TAB>x0 y0 x1 y1, in pixels.");
  }
  {
    const auto arguments = std::make_shared<Arguments>();
    CLI::App& verb =
        add_verb(app, Task::segment, "segment", "Find objects and their outlines", arguments);
    add_locating_options(verb, *arguments);
    verb.add_option("--mask", arguments->mask, "Write the masks into one PNG file, white on black")
        ->check(not_empty())
        ->type_name("OUT.png");
    add_shared(verb, *arguments);
    verb.footer(
        "Example:\n  pali segment photo.jpg cat -m paligemma-3b-mix-448 --mask cat.png\n"
        "A line a box, as detect. Needs <seg> tokens (PaliGemma) and vae-oid.npz.");
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
