// classify: which of given labels fits an image.
#include <algorithm>
#include <memory>

#include "answers.hpp"
#include "arguments.hpp"
#include "images.hpp"
#include "interrupt.hpp"
#include "usage.hpp"
#include "verbs.hpp"

namespace pali::cli {
namespace {

struct Arguments {
  std::vector<std::string> positional;
  std::string wrap = "{}";
  ModelArguments model;
  ImageArguments images;
  OutputArguments output;
};

std::string wrapped(const std::string& wrap, const std::string& label) {
  std::string text;
  size_t from = 0;
  for (size_t at = 0; (at = wrap.find("{}", from)) != std::string::npos; from = at + 2) {
    text += wrap.substr(from, at - from) + label;
  }
  return text + wrap.substr(from);
}

void run(Arguments& arguments) {
  if (arguments.wrap.find("{}") == std::string::npos) {
    throw UsageError("--template without {}, the place of the label");
  }
  std::vector<std::string> paths = arguments.images.named, labels = arguments.positional;
  if (paths.empty()) {
    if (labels.empty()) throw UsageError("no image and no labels");
    paths.push_back(labels.front());
    labels.erase(labels.begin());
  }
  if (paths.size() > 1) throw UsageError("several images: classify takes one");
  if (labels.empty()) throw UsageError("no labels");
  const Engine engine = open_engine(arguments.model, arguments.output);
  Output output(arguments.output.path);
  const Image image = load_image(paths.front(), arguments.images.options);
  std::vector<std::string> texts;
  for (const std::string& label : labels) texts.push_back(wrapped(arguments.wrap, label));
  std::vector<LabelScore> scores = engine.classify(image, texts);
  for (size_t i = 0; i < scores.size(); ++i) scores[i].label = labels[i];
  if (interrupted()) throw Error(ErrorCode::cancelled, "interrupted");
  if (arguments.output.json) {
    Json object = {{"image", image_field(paths)}, {"labels", Json::array()}};
    for (const LabelScore& score : scores) {
      object["labels"].push_back({{"label", score.label},
                                  {"probability", score.probability},
                                  {"logit", rounded(score.logit)}});
    }
    echo_settings(object, engine.info());
    output.write(to_line(object));
  } else {
    std::stable_sort(scores.begin(), scores.end(), [](const LabelScore& a, const LabelScore& b) {
      return a.probability > b.probability;
    });
    for (const LabelScore& score : scores) {
      output.write(format("%.4g", score.probability) + "\t" + one_line(score.label) + "\n");
    }
  }
  output.finish();
}

}  // namespace

void add_classify(CLI::App& app) {
  const auto arguments = std::make_shared<Arguments>();
  CLI::App& verb = *app.add_subcommand("classify", "Which of given labels fits an image");
  verb.add_option("IMAGE_LABEL...", arguments->positional, "An image file, then the labels")
      ->type_name("");
  verb.add_option("--template", arguments->wrap, "What stands around a label: \"a photo of {}\"")
      ->type_name("TEXT")
      ->capture_default_str();
  add_image_options(verb, arguments->images);
  add_model_options(verb, arguments->model);
  add_output_options(verb, arguments->output);
  verb.footer(
      "Example:\n  pali classify photo.jpg cat dog --template \"a photo of a {}\"\n"
      "A line a label, best first: probability<TAB>label. SigLIP judges each label for itself,\n"
      "a language model shares the probability out among them.");
  verb.callback([arguments] { run(*arguments); });
}

}  // namespace pali::cli
