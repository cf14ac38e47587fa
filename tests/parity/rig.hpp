// One way of computing (tier, backend) and what a run through the inner layers needs.
#pragma once

#include <gtest/gtest.h>

#include <map>
#include <memory>
#include <ostream>
#include <string>
#include <vector>

#include "exec/context.hpp"
#include "exec/thread_pool.hpp"
#include "kernels/isa.hpp"
#include "kernels/kernel_table.hpp"
#include "model/assemble.hpp"
#include "pali/engine.hpp"

namespace pali::parity {

struct Way {
  Isa isa = Isa::scalar;
  MatmulBackend backend = MatmulBackend::native;
  ComputeType compute = ComputeType::f32;
};

// "avx2", "reference", "onednn".
std::string way_name(const Way& way);
// Every tier natively, Eigen on the scalar tier, oneDNN and the automatic choice on the best: also
// those that this machine lacks, so that what did not run is seen as skipped.
std::vector<Way> all_ways();
// Empty, or why this machine or build cannot go this way.
std::string why_not(const Way& way);

// Stages as a run reported them, flattened.
using Stages = std::map<std::string, std::vector<float>>;

// A model ready to run, and the context to run it in.
class Rig {
 public:
  // Loads a folder or a file; `threads` >= 1; resolution 0: the model's own.
  Rig(const std::filesystem::path& model, const Way& way, int threads, int64_t resolution = 0);

  const Model& model() const { return model_; }
  const Tokenizer& tokenizer() const { return *model_.checkpoint.tokenizer; }
  const LanguageModel& language() const { return *model_.language; }
  const Context& context() const { return context_; }

  // Prefixes the names of the stages that follow ("image0/").
  void set_prefix(std::string prefix) { prefix_ = std::move(prefix); }
  Stages take_stages();

 private:
  KernelTable kernels_;
  ThreadPool pool_;
  Model model_;
  std::string prefix_;
  Stages stages_;
  Tracer tracer_;
  Context context_;
};

// The same way for the public face.
EngineOptions engine_options(const Way& way, int threads);

// Parameters of the tests: a model folder and a way.
struct Run {
  std::string model;
  Way way;
};
std::vector<Run> runs_of(const std::vector<std::string>& models);
std::string run_name(const ::testing::TestParamInfo<Run>& info);
void PrintTo(const Run& run, std::ostream* out);  // found by GoogleTest

// The first statement of a test: skips ways that this machine cannot go.
#define PALI_PARITY_REQUIRE(way)                                                \
  if (const std::string reason = ::pali::parity::why_not(way); !reason.empty()) \
  GTEST_SKIP() << reason

}  // namespace pali::parity
