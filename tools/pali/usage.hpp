// Usage errors: what was wrong with the words of a command line, and what was probably meant.
#pragma once

#include <CLI/CLI.hpp>
#include <memory>
#include <stdexcept>
#include <string>
#include <vector>

namespace pali::cli {

// A command line that cannot be understood: exit status 2.
class UsageError : public std::runtime_error {
 public:
  using std::runtime_error::runtime_error;
};

// `pali help VERB` becomes `pali VERB --help`. Dashes for underscores in the names of long options:
// --max_tokens=8 becomes --max-tokens=8. What stands after "--" is marked as words, which
// take_words() lets every verb's positionals read.
std::vector<std::string> normalise(int argc, const char* const* argv);
void take_words(CLI::App& app);

// Help that begins "Usage: pali VERB ARGUMENTS [OPTIONS]": the positional's name is its synopsis.
std::shared_ptr<CLI::Formatter> help_formatter();

// Throws UsageError where the first word is no verb, naming the one that was probably meant.
void check_verb(const CLI::App& app, const std::vector<std::string>& arguments);

// "WHAT; see 'pali VERB --help'", in one line.
std::string explain(const CLI::App& app, const std::string& what);
std::string explain(const CLI::App& app, const CLI::ParseError& error);

}  // namespace pali::cli
