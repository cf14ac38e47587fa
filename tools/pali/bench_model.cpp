#include "bench_model.hpp"

#include <algorithm>
#include <chrono>
#include <utility>

#include "kernels/isa.hpp"
#include "model/assemble.hpp"

namespace pali::bench {
namespace {

using Clock = std::chrono::steady_clock;
double ms_between(Clock::time_point from, Clock::time_point to) {
  return std::chrono::duration<double, std::milli>(to - from).count();
}

std::string by(std::initializer_list<int64_t> sizes) {
  std::string text;
  for (const int64_t size : sizes) text += (text.empty() ? "" : "x") + std::to_string(size);
  return text;
}

Cost vision_cost(const VisionConfig& c, double n, double bytes_per_weight) {
  const double width = static_cast<double>(c.width), mlp = static_cast<double>(c.mlp);
  const double layers = static_cast<double>(c.layers);
  const double weights = layers * (4 * width * width + 2 * width * mlp) +
                         width * 3.0 * static_cast<double>(c.patch * c.patch);
  return {2 * n * weights + layers * 4 * n * n * width, weights * bytes_per_weight};
}

struct LanguageCosts {
  Cost encode, prefill, step;
};

LanguageCosts language_costs(const EncoderDecoderConfig& c, double s, double beams,
                             double bytes_per_weight) {
  const double width = static_cast<double>(c.width);
  const double inner = static_cast<double>(c.heads * c.inner_head);
  const double mlp = (c.gated ? 3 : 2) * width * static_cast<double>(c.mlp);
  const double attention = 4 * width * inner;
  const double encoder = static_cast<double>(c.encoder_layers) * (attention + mlp);
  const double cross = static_cast<double>(c.decoder_layers) * 2 * width * inner;
  const double decoder = static_cast<double>(c.decoder_layers) * (attention + attention / 2 + mlp) +
                         width * static_cast<double>(c.vocab);
  const double cache = static_cast<double>(c.decoder_layers) * 2 * s * inner;  // f32
  return {{2 * s * encoder + static_cast<double>(c.encoder_layers) * 4 * s * s * inner,
           encoder * bytes_per_weight},
          {2 * s * cross, cross * bytes_per_weight},
          {2 * beams * (decoder + cache), decoder * bytes_per_weight + cache * 4}};
}

MatmulPolicy policy_of(const EngineOptions& options, const KernelTable& kernels, Isa isa,
                       DType dtype) {
  ComputeType compute = options.compute;
  if (compute == ComputeType::automatic) {
    compute = dtype == DType::bf16 && kernels.gemm_bf16.multiply != nullptr ? ComputeType::bf16
                                                                            : ComputeType::f32;
  }
  return {options.matmul, compute, isa};
}

// One pass from pixels to the last token, its stages timed.
class Pass {
 public:
  Pass(const Model& model, const Context& context, const ModelBench& bench)
      : model_(model), context_(context), bench_(bench) {}

  bool sees() const {
    return model_.vision && bench_.stage != "encode" && bench_.stage != "decode";
  }
  bool writes() const { return model_.language && bench_.stage != "vision"; }
  int64_t visual_tokens() const { return model_.vision ? model_.vision->tokens() : 0; }
  int64_t prefix_tokens() const { return visual_tokens() + bench_.prompt_tokens; }

  void run() {
    const Clock::time_point start = Clock::now();
    Tensor visual;
    if (sees()) {
      Tensor pixels(3, model_.vision->image_size() * model_.vision->image_size());
      fill(pixels.view());
      visual = model_.vision->run(context_, pixels.view());
      if (model_.projector) visual = model_.projector->run(context_, visual.view());
      vision_ms.push_back(ms_between(start, Clock::now()));
    }
    if (writes()) write(visual.view());
    total_ms.push_back(ms_between(start, Clock::now()));
  }

  std::vector<double> vision_ms, encode_ms, prefill_ms, step_ms, total_ms;

 private:
  static void fill(Mat values) {
    uint32_t state = 1;
    for (int64_t i = 0; i < values.rows; ++i) {
      for (float& value : values.row_span(i)) {
        state = state * 1664525u + 1013904223u;
        value = static_cast<float>(state >> 8) * 0x1p-23f - 1.0f;
      }
    }
  }

  void write(ConstMat visual) {
    const LanguageModel& language = *model_.language;
    Tensor prefix(prefix_tokens(), language.width());
    fill(prefix.view());
    for (int64_t i = 0; i < visual.rows; ++i) {
      std::copy_n(visual.row(i), visual.cols, prefix.row(i));
    }
    Clock::time_point encoded = Clock::now();
    const Tracer stamp = [&](std::string_view name, ConstMat) {
      if (name == "encoder.memory") encoded = Clock::now();
    };
    Context traced = context_;
    traced.tracer = &stamp;
    const Clock::time_point start = Clock::now();
    const ConstMat prefixes[] = {prefix.view()};
    const std::unique_ptr<Decoder> decoder =
        language.start(traced, prefixes, {bench_.tokens + 1, bench_.beams});
    const Clock::time_point ready = Clock::now();
    encode_ms.push_back(ms_between(start, encoded));
    prefill_ms.push_back(ms_between(encoded, ready));

    std::vector<int32_t> ids(static_cast<size_t>(bench_.beams), language.start_token());
    std::vector<ScoredToken> best(ids.size());
    decoder->reorder(std::vector<int32_t>(ids.size(), 0));
    for (int t = 0; t < bench_.tokens; ++t) {
      const Clock::time_point step = Clock::now();
      const ConstMat hidden = decoder->step(context_, ids);
      decoder->head().argmax(context_, hidden, best);
      for (size_t b = 0; b < ids.size(); ++b) ids[b] = best[b].id;
      step_ms.push_back(ms_between(step, Clock::now()));
    }
  }

  const Model& model_;
  const Context& context_;
  const ModelBench& bench_;
};

}  // namespace

std::vector<Row> bench_model(const ModelBench& bench) {
  const auto say = [&](const std::string& what) {
    if (bench.on_progress) bench.on_progress(what);
  };
  const Isa isa = resolve_isa(bench.options.isa);
  const KernelTable kernels = kernel_table(isa);
  ThreadPool pool(bench.options.threads == 0 ? default_thread_count() : bench.options.threads);
  const Context context{pool, kernels, nullptr};
  if (bench.options.dtype == WeightType::int8 || bench.options.dtype == WeightType::int4) {
    throw Error(ErrorCode::unsupported,
                "int8 and int4 weights are not in this version (--dtype); use f32 or bf16");
  }
  const DType dtype = bench.options.dtype == WeightType::f32 ? DType::f32 : DType::bf16;

  say("measuring the peaks");
  const Peaks peaks = measure_peaks(pool, kernels);
  say("making random weights");
  ModelOptions build;
  build.policy = policy_of(bench.options, kernels, isa, dtype);
  build.resolution = bench.resolution;
  const Model model = build_model(random_checkpoint(bench.config, dtype, /*seed=*/1), build);

  Pass pass(model, context, bench);
  for (int run = 0; run < bench.runs; ++run) {
    say("run " + std::to_string(run + 1) + " of " + std::to_string(bench.runs));
    pass.run();
  }

  std::vector<Row> rows;
  const auto add = [&](const char* name, std::string shape, std::vector<double> times, Cost cost) {
    if (times.empty()) return;
    Row row;
    row.name = name;
    row.shape = std::move(shape);
    row.dtype = dtype_name(dtype);
    row.isa = isa_name(isa);
    row.backend = bench.options.matmul == MatmulBackend::onednn      ? "onednn"
                  : bench.options.matmul == MatmulBackend::reference ? "reference"
                  : bench.options.matmul == MatmulBackend::native    ? "native"
                                                                     : "auto";
    row.threads = pool.size();
    row.times_ms = std::move(times);
    row.cost = cost;
    row.peak_gflops =
        build.policy.compute == ComputeType::bf16 ? peaks.gflops_bf16 : peaks.gflops_f32;
    row.peak_gbps = peaks.read_gbps;
    rows.push_back(std::move(row));
  };
  const double weight_bytes = static_cast<double>(dtype_bytes(dtype));
  const ModelConfig& config = model.checkpoint.config;
  Cost total;
  if (pass.sees()) {
    const Cost cost =
        vision_cost(*config.vision, static_cast<double>(pass.visual_tokens()), weight_bytes);
    total.flops += cost.flops;
    add("vision", by({pass.visual_tokens(), config.vision->width, config.vision->layers}),
        pass.vision_ms, cost);
  }
  if (pass.writes()) {
    const EncoderDecoderConfig& c = *config.language;
    const LanguageCosts costs =
        language_costs(c, static_cast<double>(pass.prefix_tokens()), bench.beams, weight_bytes);
    if (bench.stage != "decode") {
      add("encode", by({pass.prefix_tokens(), c.width, c.encoder_layers}), pass.encode_ms,
          costs.encode);
      add("prefill", by({pass.prefix_tokens(), c.width, c.decoder_layers}), pass.prefill_ms,
          costs.prefill);
    }
    if (bench.stage != "encode") {
      add("decode_step", by({bench.beams, c.width, c.decoder_layers, c.vocab}), pass.step_ms,
          costs.step);
    }
    total.flops += costs.encode.flops + costs.prefill.flops + bench.tokens * costs.step.flops;
  }
  if (bench.stage == "model") add("total", by({bench.tokens}) + " tokens", pass.total_ms, total);
  return rows;
}

}  // namespace pali::bench
