#include "parity/rig.hpp"

#include "matmul/matmul.hpp"
#include "parity/golden.hpp"

namespace pali::parity {
namespace {

MatmulPolicy policy_of(const Way& way) {
  MatmulPolicy policy;
  policy.backend = way.backend;
  policy.compute = ComputeType::f32;
  policy.isa = way.isa;
  return policy;
}

ModelOptions model_options(const Way& way) {
  ModelOptions options;
  options.policy = policy_of(way);
  return options;
}

Isa best_tier() {
  Isa best = Isa::scalar;
  for (const IsaTier& tier : isa_tiers()) {
    if (tier.available) best = tier.isa;
  }
  return best;
}

}  // namespace

std::string way_name(const Way& way) {
  if (way.backend == MatmulBackend::onednn) return "onednn";
  if (way.backend == MatmulBackend::reference) return "reference";
  return isa_name(way.isa);
}

std::vector<Way> all_ways() {
  std::vector<Way> ways;
  for (const IsaTier& tier : isa_tiers()) ways.push_back({tier.isa, MatmulBackend::native});
  ways.push_back({Isa::scalar, MatmulBackend::reference});
  ways.push_back({best_tier(), MatmulBackend::onednn});
  return ways;
}

std::string why_not(const Way& way) {
  if (way.backend == MatmulBackend::onednn && !onednn_built()) return "built without oneDNN";
  for (const IsaTier& tier : isa_tiers()) {
    if (tier.isa != way.isa) continue;
    if (!tier.built) return std::string(tier.name) + " is not built";
    if (!tier.available) return std::string(tier.name) + " needs " + tier.missing;
  }
  return "";
}

Rig::Rig(const std::filesystem::path& model, const Way& way, int threads)
    : Rig(open_checkpoint(model), way, threads) {}

Rig::Rig(Checkpoint checkpoint, const Way& way, int threads)
    : kernels_(kernel_table(way.isa)),
      pool_(threads),
      model_(build_model(std::move(checkpoint), model_options(way))),
      tracer_([this](std::string_view name, ConstMat values) {
        stages_[prefix_ + std::string(name)] = flat(values);
      }),
      context_{pool_, kernels_, &tracer_} {}

Stages Rig::take_stages() {
  Stages out;
  out.swap(stages_);
  return out;
}

EngineOptions engine_options(const Way& way, int threads) {
  EngineOptions options;
  options.threads = threads;
  options.isa = way.isa;
  options.matmul = way.backend;
  options.compute = ComputeType::f32;
  return options;
}

std::vector<Run> runs_of(const std::vector<std::string>& models) {
  std::vector<Run> runs;
  for (const std::string& model : models) {
    for (const Way& way : all_ways()) runs.push_back({model, way});
  }
  return runs;
}

void PrintTo(const Run& run, std::ostream* out) {
  *out << run.model << " on " << way_name(run.way);
}

std::string run_name(const ::testing::TestParamInfo<Run>& info) {
  return info.param.model + "_" + way_name(info.param.way);
}

}  // namespace pali::parity
