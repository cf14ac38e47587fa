#include "parity/rig.hpp"

#include "matmul/matmul.hpp"
#include "parity/golden.hpp"

namespace pali::parity {
namespace {

MatmulPolicy policy_of(const Way& way) {
  MatmulPolicy policy;
  policy.backend = way.backend;
  policy.compute = way.compute;
  policy.isa = way.isa;
  return policy;
}

ModelOptions model_options(const Way& way, int64_t resolution) {
  ModelOptions options;
  options.resolution = resolution;
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
  std::string name = isa_name(way.isa);
  if (way.backend == MatmulBackend::onednn) name = "onednn";
  if (way.backend == MatmulBackend::reference) name = "reference";
  if (way.backend == MatmulBackend::automatic) name = "automatic";
  return way.compute == ComputeType::bf16 ? name + "_in_bf16" : name;
}

std::vector<Way> all_ways() {
  std::vector<Way> ways;
  for (const IsaTier& tier : isa_tiers()) ways.push_back({tier.isa, MatmulBackend::native});
  ways.push_back({Isa::scalar, MatmulBackend::reference});
  ways.push_back({best_tier(), MatmulBackend::onednn});
  ways.push_back({best_tier(), MatmulBackend::automatic});
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

Rig::Rig(const std::filesystem::path& model, const Way& way, int threads, int64_t resolution)
    : kernels_(kernel_table(way.isa)),
      pool_(threads),
      model_(build_model(open_checkpoint(model), model_options(way, resolution))),
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
  options.compute = way.compute;
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
