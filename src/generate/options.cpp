// Checking generation options before anything is computed.
#include <cmath>
#include <string>

#include "generate/generate.hpp"
#include "pali/error.hpp"

namespace pali {
namespace {

// More beams than this is a mistake, and memory is asked for by this number.
constexpr int kMaxBeams = 1024;
constexpr int kMaxTokens = 1 << 20;

[[noreturn]] void refuse(const std::string& what, const char* option, const char* advice) {
  throw Error(ErrorCode::invalid_argument, what + " (" + option + "); " + advice);
}

std::string show(double value) {
  std::string text = std::to_string(value);
  while (text.find('.') != std::string::npos && text.back() == '0') text.pop_back();
  if (text.back() == '.') text.pop_back();
  return text;
}

}  // namespace

void check_options(const GenerationOptions& options) {
  if (options.max_tokens < 1 || options.max_tokens > kMaxTokens) {
    refuse("max_tokens is " + std::to_string(options.max_tokens), "--max-tokens",
           "give a number from 1 to 1048576");
  }
  if (options.beams < 1 || options.beams > kMaxBeams) {
    refuse("beams is " + std::to_string(options.beams), "--beams", "give a number from 1 to 1024");
  }
  if (options.n_best < 1 || options.n_best > options.beams) {
    refuse("n_best is " + std::to_string(options.n_best) + " with " +
               std::to_string(options.beams) + " beams",
           "--n-best", "give a number from 1 to the number of beams");
  }
  if (!std::isfinite(options.length_penalty)) {
    refuse("length_penalty is " + show(options.length_penalty), "--length-penalty",
           "give a finite number");
  }
  if (!std::isfinite(options.temperature) || options.temperature < 0) {
    refuse("temperature is " + show(options.temperature), "--temp",
           "give 0 (no sampling) or a positive number");
  }
  if (options.top_k < 0) {
    refuse("top_k is " + std::to_string(options.top_k), "--top-k", "give 0 (off) or more");
  }
  // Written so that NaN fails.
  if (!(options.top_p > 0 && options.top_p <= 1)) {
    refuse("top_p is " + show(options.top_p), "--top-p", "give a number above 0, at most 1");
  }
  if (options.beams > 1 && options.temperature > 0) {
    refuse("beams with a temperature", "--beams, --temp",
           "beam search takes no chances: leave one of the two out");
  }
}

}  // namespace pali
