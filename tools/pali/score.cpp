// score: how probable given texts are as answers.
#include <algorithm>
#include <memory>
#include <numeric>

#include "answers.hpp"
#include "arguments.hpp"
#include "images.hpp"
#include "interrupt.hpp"
#include "score_drift.hpp"
#include "usage.hpp"
#include "verbs.hpp"

namespace pali::cli {
namespace {

struct Arguments {
  std::vector<std::string> positional;
  std::string prompt;
  std::string drift_from, tasks;
  bool no_eos = false;
  ModelArguments model;
  ImageArguments images;
  OutputArguments output;
};

void run_drift(const Arguments& arguments) {
  if (arguments.drift_from.empty()) throw UsageError("--tasks without --drift-from");
  if (arguments.tasks.empty()) throw UsageError("--drift-from without --tasks");
  if (!arguments.positional.empty() || !arguments.images.named.empty()) {
    throw UsageError("--drift-from with an image or a text; what is asked is in --tasks");
  }
  ModelArguments reference = arguments.model;
  reference.path = arguments.drift_from;
  reference.engine.dtype = WeightType::f32;
  reference.engine.compute = ComputeType::f32;
  const Engine from = open_engine(reference, arguments.output);
  const Engine engine = open_engine(arguments.model, arguments.output);
  Output output(arguments.output.path);
  BatchDefaults defaults;
  defaults.images = arguments.images.options;
  defaults.root = std::filesystem::path(arguments.tasks).parent_path();
  const DriftByTask drifts = drift_over(from, engine, arguments.tasks, defaults);
  if (interrupted()) throw Error(ErrorCode::cancelled, "interrupted");
  output.write(arguments.output.json ? to_line(to_json(drifts)) : to_text(drifts));
  output.finish();
}

void run(Arguments& arguments) {
  if (!arguments.drift_from.empty() || !arguments.tasks.empty()) return run_drift(arguments);
  std::vector<std::string> paths = arguments.images.named;
  std::vector<std::string> texts = arguments.positional;
  if (paths.empty() && !texts.empty() && names_an_image(texts.front())) {
    paths.push_back(texts.front());
    texts.erase(texts.begin());
  }
  if (texts.empty()) throw UsageError("no text to score");
  const Engine engine = open_engine(arguments.model, arguments.output);
  Output output(arguments.output.path);
  Request request;
  request.images = load_images(paths, arguments.images.options);
  request.prompt = arguments.prompt;
  ScoreOptions options;
  options.end_token = !arguments.no_eos;
  const std::vector<Score> scores = engine.score(request, texts, options);
  if (interrupted()) throw Error(ErrorCode::cancelled, "interrupted");
  if (arguments.output.json) {
    Json object = {{"image", image_field(paths)}, {"prompt", arguments.prompt}};
    object["candidates"] = Json::array();
    for (const Score& score : scores) {
      object["candidates"].push_back({{"text", score.text},
                                      {"tokens", score.tokens},
                                      {"token_logprobs", shortest(score.token_logprobs)},
                                      {"logprob", rounded(score.logprob)}});
    }
    echo_settings(object, engine.info());
    output.write(to_line(object));
  } else {
    std::vector<size_t> order(scores.size());
    std::iota(order.begin(), order.end(), size_t{0});
    std::stable_sort(order.begin(), order.end(),
                     [&](size_t a, size_t b) { return scores[a].logprob > scores[b].logprob; });
    for (const size_t i : order) {
      output.write(format("%.4f", scores[i].logprob) + "\t" + one_line(scores[i].text) + "\n");
    }
  }
  output.finish();
}

}  // namespace

void add_score(CLI::App& app) {
  const auto arguments = std::make_shared<Arguments>();
  CLI::App& verb = *app.add_subcommand("score", "Log-probability of given texts");
  verb.add_option("[IMAGE]_TEXT...", arguments->positional, "An image file, then the texts")
      ->type_name("");
  verb.add_option("-p,--prompt", arguments->prompt, "The prompt, without any template")
      ->type_name("PROMPT");
  verb.add_flag("--no-eos", arguments->no_eos, "Leave the closing end token out of the score");
  verb.add_option("--drift-from", arguments->drift_from,
                  "Report how far -m is from this model in f32, over --tasks")
      ->check(not_empty())
      ->type_name("MODEL");
  verb.add_option("--tasks", arguments->tasks, "Requests as of `pali batch`, a line each")
      ->check(not_empty())
      ->type_name("FILE.jsonl");
  add_image_options(verb, arguments->images);
  add_model_options(verb, arguments->model);
  add_output_options(verb, arguments->output);
  verb.footer(
      "Examples:\n  pali score photo.jpg -p \"caption en\" \"a cat\" \"a dog\"\n"
      "A line a text, best first: logprob<TAB>text. With --json in the order given.\n"
      "  pali score -m int8.safetensors --drift-from models/pali-mini --tasks scenes/tasks.jsonl\n"
      "How far rounding moves a model: the first in f32 answers greedily, both read its answers; "
      "by\n"
      "task: equal answers, steps that choose the same token, KL(f32 || other) a step in nats.");
  verb.callback([arguments] { run(*arguments); });
}

}  // namespace pali::cli
