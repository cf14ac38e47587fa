#include "usage.hpp"

#include <algorithm>
#include <map>
#include <numeric>
#include <utility>

namespace pali::cli {
namespace {

// Marks an argument that stands after "--". CLI11 2.1 gives up a verb's optional positionals there,
// so that words which begin with a dash are handed to it with this in front.
constexpr char kWord = '\x01';

// Levenshtein distance.
size_t distance(const std::string& a, const std::string& b) {
  std::vector<size_t> row(b.size() + 1);
  std::iota(row.begin(), row.end(), size_t{0});
  for (size_t i = 0; i < a.size(); ++i) {
    size_t diagonal = row[0];
    row[0] = i + 1;
    for (size_t j = 0; j < b.size(); ++j) {
      const size_t above = row[j + 1];
      row[j + 1] = std::min({above + 1, row[j] + 1, diagonal + (a[i] == b[j] ? 0 : 1)});
      diagonal = above;
    }
  }
  return row.back();
}

std::string nearest(const std::string& word, const std::vector<std::string>& known) {
  std::string best;
  size_t least = 3;  // two slips at most
  for (const std::string& candidate : known) {
    const size_t d = distance(word, candidate);
    if (d < least && d < candidate.size()) {
      least = d;
      best = candidate;
    }
  }
  return best;
}

const CLI::App* verb_of(const CLI::App& app) {
  const auto verbs = app.get_subcommands();
  return verbs.empty() ? nullptr : verbs.front();
}

std::string without_line_breaks(std::string text) {
  std::replace(text.begin(), text.end(), '\n', ' ');
  while (!text.empty() && (text.back() == ' ' || text.back() == '.')) text.pop_back();
  return text;
}

// What other programs of the field call it.
const char* our_name(const std::string& option) {
  static const std::map<std::string, const char*> kNames = {{"--temperature", "--temp"},
                                                            {"--num-beams", "--beams"},
                                                            {"--beam-size", "--beams"},
                                                            {"--max-new-tokens", "--max-tokens"},
                                                            {"--max-length", "--max-tokens"},
                                                            {"--n-predict", "--max-tokens"},
                                                            {"--num-return-sequences", "--n-best"},
                                                            {"--do-sample", "--temp"},
                                                            {"--language", "--lang"},
                                                            {"--num-threads", "--threads"},
                                                            {"--model-path", "--model"},
                                                            {"--torch-dtype", "--dtype"},
                                                            {"--out", "--output"},
                                                            {"--image-size", "--resolution"}};
  const auto found = kNames.find(option);
  return found == kNames.end() ? nullptr : found->second;
}

std::string about_extra(const CLI::App* verb, const std::string& word) {
  if (word.size() < 2 || word[0] != '-') {
    return "one argument too many ('" + word + "'); put words that belong together into quotes";
  }
  std::string what = "unknown option " + word;
  if (verb == nullptr) return what;
  std::vector<std::string> known;
  for (const CLI::Option* option : verb->get_options()) {
    for (const std::string& name : option->get_lnames()) known.push_back("--" + name);
  }
  const std::string given = word.substr(0, word.find('='));
  const char* const ours = our_name(given);
  if (ours != nullptr && std::find(known.begin(), known.end(), ours) != known.end()) {
    return what + "; did you mean " + ours + "?";
  }
  if (const std::string meant = nearest(given, known); !meant.empty()) {
    return what + "; did you mean " + meant + "?";
  }
  for (const CLI::App* other : verb->get_parent()->get_subcommands({})) {
    if (other->get_option_no_throw(given) == nullptr) continue;
    return what + ": it belongs to 'pali " + other->get_name() + "'";
  }
  return what;
}

class HelpFormatter : public CLI::Formatter {
 public:
  std::string make_usage(const CLI::App* app, std::string name) const override {
    std::string usage = "Usage: " + (name.empty() ? app->get_name() : name);
    if (app->get_parent() == nullptr) return usage + " VERB [ARGUMENTS] [OPTIONS]\n";
    for (const CLI::Option* option : app->get_options()) {
      if (option->get_positional()) usage += " " + make_option_name(option, true);
    }
    return usage + " [OPTIONS]\n";
  }
  // CLI11 takes no blank in a name: IMAGE_QUESTION stands for two arguments.
  std::string make_option_name(const CLI::Option* option, bool positional) const override {
    std::string name = option->get_name(positional, /*all_options=*/!positional);
    if (positional) std::replace(name.begin(), name.end(), '_', ' ');
    return name;
  }
  std::string make_help(const CLI::App* app, std::string name,
                        CLI::AppFormatMode mode) const override {
    std::string text = CLI::Formatter::make_help(app, std::move(name), mode);
    while (text.find("\n\n\n") != std::string::npos) text.erase(text.find("\n\n\n"), 1);
    return text;
  }
  std::string make_option_opts(const CLI::Option* option) const override {
    return option->get_positional() ? "" : CLI::Formatter::make_option_opts(option);
  }
};

}  // namespace

std::shared_ptr<CLI::Formatter> help_formatter() {
  auto formatter = std::make_shared<HelpFormatter>();
  formatter->column_width(34);
  formatter->label("Positionals", "Arguments");
  return formatter;
}

std::vector<std::string> normalise(int argc, const char* const* argv) {
  std::vector<std::string> arguments(argv + 1, argv + argc);
  bool words = false;  // after "--"
  for (std::string& argument : arguments) {
    if (words) argument.insert(0, 1, kWord);
    words = words || argument == "--";
    if (words || !argument.starts_with("--")) continue;
    const auto end = argument.begin() +
                     static_cast<std::ptrdiff_t>(std::min(argument.find('='), argument.size()));
    std::replace(argument.begin(), end, '_', '-');
  }
  std::erase(arguments, "--");
  if (!arguments.empty() && arguments[0] == "help") {
    arguments.erase(arguments.begin());
    arguments.push_back("--help");
  }
  return arguments;
}

void take_words(CLI::App& app) {
  const auto unmarked = [](const std::string& word) {
    return word.starts_with(kWord) ? word.substr(1) : word;
  };
  for (CLI::App* verb : app.get_subcommands({})) {
    for (CLI::Option* option : verb->get_options()) {
      if (option->get_positional()) option->transform(unmarked);
    }
  }
}

void check_verb(const CLI::App& app, const std::vector<std::string>& arguments) {
  if (arguments.empty()) return;
  const std::string& word = arguments[0];
  if (word.starts_with("-")) {
    if (word == "-h" || word == "--help" || word == "--version") return;
    throw UsageError("option " + word + " before the verb: options stand behind it");
  }
  std::vector<std::string> verbs;
  for (const CLI::App* verb : app.get_subcommands({})) verbs.push_back(verb->get_name());
  if (std::find(verbs.begin(), verbs.end(), word) != verbs.end()) return;
  const std::string meant = nearest(word, verbs);
  throw UsageError("unknown verb '" + word + "'" +
                   (meant.empty() ? "" : "; did you mean '" + meant + "'?"));
}

std::string explain(const CLI::App& app, const std::string& what) {
  const CLI::App* verb = verb_of(app);
  const std::string said = without_line_breaks(what);
  const bool asks = said.find("; did you mean") != std::string::npos;
  return said + (asks ? " See" : "; see") + " 'pali " +
         (verb == nullptr ? "" : verb->get_name() + " ") + "--help'";
}

std::string explain(const CLI::App& app, const CLI::ParseError& error) {
  const CLI::App* verb = verb_of(app);
  if (dynamic_cast<const CLI::ExtrasError*>(&error) != nullptr && verb != nullptr) {
    const std::vector<std::string> extras = verb->remaining();
    if (!extras.empty()) return explain(app, about_extra(verb, extras.front()));
  }
  if (verb == nullptr && dynamic_cast<const CLI::RequiredError*>(&error) != nullptr) {
    return explain(app, "no verb");
  }
  return explain(app, error.what());
}

}  // namespace pali::cli
