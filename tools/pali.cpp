// The command line: verbs live in tools/pali/, one file each. Here words become verbs, and errors
// become one line and an exit status.
#include <signal.h>

#include <algorithm>
#include <cstdio>
#include <new>

#include "pali/bench.hpp"
#include "pali/error.hpp"
#include "pali/interrupt.hpp"
#include "pali/output.hpp"
#include "pali/usage.hpp"
#include "pali/verbs.hpp"
#include "pali/version.hpp"

namespace {

constexpr int kFailed = 1, kUsage = 2, kInterrupted = 130;

void add_verbs(CLI::App& app) {
  app.require_subcommand(1);
  app.formatter(pali::cli::help_formatter());
  app.set_help_flag("-h,--help", "Print this help and exit");
  app.set_version_flag("--version", "pali " PALI_VERSION, "Print the version and exit");
  pali::cli::add_generate(app);
  pali::cli::add_score(app);
  pali::cli::add_classify(app);
  pali::cli::add_embed(app);
  pali::cli::add_batch(app);
  pali::cli::add_convert(app);
  pali::cli::add_inspect(app);
  add_bench(app);
  pali::cli::add_doctor(app);
  for (CLI::App* verb : app.get_subcommands({})) verb->group("Verbs");
  pali::cli::take_words(app);
  app.footer(
      "Examples:\n"
      "  pali caption photo.jpg\n"
      "  pali vqa photo.jpg \"What is on the table?\"\n"
      "  pali detect photo.jpg \"cat ; dog\" --draw found.png\n"
      "  pali VERB --help\n"
      "Without -m the built-in model answers.");
}

int run(int argc, char** argv) {
  CLI::App app("pali: captions, answers, text and boxes out of images", "pali");
  add_verbs(app);
  std::vector<std::string> arguments = pali::cli::normalise(argc, argv);
  try {
    pali::cli::check_verb(app, arguments);
    std::reverse(arguments.begin(), arguments.end());  // as CLI11 wants them
    app.parse(std::move(arguments));
  } catch (const CLI::Success& request) {
    app.exit(request);  // --help, --version
    pali::cli::Output("-").finish();
    return 0;
  } catch (const CLI::ParseError& error) {
    pali::cli::print_error(pali::cli::explain(app, error));
    return kUsage;
  } catch (const pali::cli::UsageError& error) {
    pali::cli::print_error(pali::cli::explain(app, error.what()));
    return kUsage;
  }
  return 0;
}

}  // namespace

int main(int argc, char** argv) {
  // `pali ... | head` ends quietly, whatever the caller made of the signal.
  ::signal(SIGPIPE, SIG_DFL);
  pali::cli::watch_interrupts();
  try {
    return run(argc, argv);
  } catch (const pali::Error& error) {
    if (pali::cli::interrupted()) return kInterrupted;
    pali::cli::print_error(error.what());
  } catch (const std::bad_alloc&) {
    pali::cli::print_error("out of memory; use a smaller model, image or batch, and no --prepack");
  } catch (const std::exception& error) {
    pali::cli::print_error(std::string("internal error: ") + error.what() + "; please report this");
  }
  return pali::cli::interrupted() ? kInterrupted : kFailed;
}
