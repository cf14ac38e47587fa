#include "bench_model.hpp"

#include <algorithm>
#include <chrono>
#include <map>
#include <utility>

#include "kernels/isa.hpp"
#include "model/assemble.hpp"
#include "ops/attention.hpp"

namespace pali::bench {
namespace {

// Before the runs and again after them; products, which need no memory, also beside each run.
constexpr int kPeakSamples = 3;
constexpr int kProductSamples = 5;

using Clock = std::chrono::steady_clock;
double ms_between(Clock::time_point from, Clock::time_point to) {
  return std::chrono::duration<double, std::milli>(to - from).count();
}

DType storage_of(WeightType type) {
  switch (type) {
    case WeightType::f32:
      return DType::f32;
    case WeightType::int8:
      return DType::i8;
    case WeightType::int4:
      return DType::i4;
    default:
      return DType::bf16;
  }
}

double weight_bytes(DType type) {
  // int4: half a byte, and a scale of two for a group of 32.
  return type == DType::i4 ? 0.5 + 2.0 / 32 : static_cast<double>(dtype_bytes(type));
}

Cost vision_cost(const VisionConfig& c, double n, double bytes_per_weight) {
  const double width = static_cast<double>(c.width), mlp = static_cast<double>(c.mlp);
  const double layers = static_cast<double>(c.layers);
  const double weights = layers * (4 * width * width + 2 * width * mlp) +
                         width * 3.0 * static_cast<double>(c.patch * c.patch);
  return stage_cost(2 * n * weights, layers * 4 * n * n * width, n, weights * bytes_per_weight);
}

struct LanguageCosts {
  Cost encode, prefill, step;
};

// memory_bytes: of one number of an encoder output's keys and values, where they are kept apart.
LanguageCosts language_costs(const LanguageConfig& c, double s, double beams, DType dtype,
                             double memory_bytes) {
  const double bytes_per_weight = weight_bytes(dtype);
  // Embeddings, which are the output head as well, stop at int8.
  const double head_bytes = dtype == DType::i4 ? 1 : bytes_per_weight;
  const double width = static_cast<double>(c.width);
  const double inner = static_cast<double>(c.heads * c.head_dim);
  const double kv = static_cast<double>(c.kv_heads * c.head_dim);
  const double mlp = (c.gated ? 3 : 2) * width * static_cast<double>(c.mlp);
  const double attention = 2 * width * (inner + kv);
  const double layers = static_cast<double>(c.decoder_layers);
  const double head = width * static_cast<double>(c.vocab);
  const double looked_at = layers * 2 * s * inner;  // multiply-adds of one position's attention
  // How many numbers; in a sequence's own cache they are f32.
  const double cache = layers * 2 * s * kv;
  if (c.encoder_layers == 0) {
    const double stack = layers * (attention + mlp);
    return {{},
            stage_cost(2 * s * stack, 2 * s * looked_at, s, stack * bytes_per_weight),
            {2 * beams * (stack + head + looked_at),
             stack * bytes_per_weight + head * head_bytes + cache * 4}};
  }
  const double encoder = static_cast<double>(c.encoder_layers) * (attention + mlp);
  const double cross = layers * 2 * width * kv;
  // A merged cross-attention has no projections of its own.
  const double decoder = layers * (attention + (c.merged_cross ? 0 : 2 * width * inner) + mlp);
  return {
      stage_cost(2 * s * encoder, static_cast<double>(c.encoder_layers) * 4 * s * s * inner, s,
                 encoder * bytes_per_weight),
      stage_cost(2 * s * cross, 0, s, cross * bytes_per_weight),
      {2 * beams * (decoder + head + looked_at), decoder * bytes_per_weight + head * head_bytes +
                                                     cache * (c.merged_cross ? 4 : memory_bytes)}};
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
  int64_t prefix_tokens() const {
    const int64_t visual = visual_tokens();
    const int64_t read = model_.projector ? model_.projector->tokens(visual) : visual;
    return read + bench_.prompt_tokens;
  }

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
    Clock::time_point encoded;  // stays zero where there is no encoder
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
    const bool encodes = encoded != Clock::time_point();
    if (encodes) encode_ms.push_back(ms_between(start, encoded));
    prefill_ms.push_back(ms_between(encodes ? encoded : start, ready));

    std::vector<int32_t> ids(static_cast<size_t>(bench_.beams), language.start_token());
    std::vector<ScoredToken> best(ids.size());
    decoder->reorder(std::vector<int32_t>(ids.size(), 0));
    // A prefix-LM has its first hidden states from the prefix: no step to time.
    if (!encodes) decoder->step(context_, ids);
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

std::vector<Row> bench_model(ModelBench& bench, int64_t& rss_bytes) {
  const auto say = [&](const std::string& what) {
    if (bench.on_progress) bench.on_progress(what);
  };
  Setup setup(bench.options);
  const Context context = setup.context();
  const DType dtype = storage_of(bench.options.dtype);
  const MatmulBackend backend = bench.options.matmul;
  const ComputeType compute = compute_for(bench.options, backend, dtype, setup.isa);

  PeakMeter peaks(setup.pool, setup.isa);
  const auto measure_peaks = [&] {
    say("measuring the peaks");
    for (int i = 0; i < kPeakSamples; ++i) peaks.sample_reads();
    peaks.drop_memory();
  };
  measure_peaks();
  restart_peak_rss();
  say("making random weights");
  ModelOptions build;
  std::map<std::string, int64_t> declined;
  build.policy = {backend, compute, setup.isa, nullptr, bench.options.prepack, &declined};
  build.resolution = bench.resolution;
  const Model model = build_model(random_checkpoint(bench.config, dtype, /*seed=*/1), build);
  bench.remarks = declined_remarks(declined);

  Pass pass(model, context, bench);
  if (!pass.sees() && !pass.writes()) {
    throw Error(ErrorCode::invalid_argument,
                "a " + model.checkpoint.config.family + " has no stage " + bench.stage + " (" +
                    bench.config.string() + "); name another stage or --config");
  }
  const auto measure_products = [&] {
    for (int i = 0; i < kProductSamples; ++i) peaks.sample_products();
  };
  measure_products();
  for (int run = 0; run < bench.runs; ++run) {
    say("run " + std::to_string(run + 1) + " of " + std::to_string(bench.runs));
    pass.run();
    measure_products();
  }
  rss_bytes = peak_rss_bytes();
  measure_peaks();

  std::vector<Row> rows;
  const auto add = [&](const char* name, std::string shape, std::vector<double> times, Cost cost) {
    if (times.empty()) return;
    Row row;
    row.name = name;
    row.shape = std::move(shape);
    row.dtype = weight_name(dtype);
    row.isa = isa_name(setup.isa);
    row.backend = backend_name(backend);
    row.threads = setup.pool.size();
    row.times_ms = std::move(times);
    row.cost = cost;
    const Operands operands = operands_of(compute, dtype);
    const bool narrow = attends_in_bf16(compute, setup.kernels);
    row.peak_gflops = peaks.gflops(operands, on_amx(backend, compute, setup.isa));
    row.attention_gflops =
        peaks.gflops(narrow ? Operands::bf16 : Operands::f32, narrow && setup.isa == Isa::amx);
    if (operands >= Operands::int16) row.product_share = 0.80;
    row.peak_gbps = peaks.gbps();
    rows.push_back(std::move(row));
  };
  const ModelConfig& config = model.checkpoint.config;
  std::vector<Cost> stages;
  if (pass.sees()) {
    const Cost cost =
        vision_cost(*config.vision, static_cast<double>(pass.visual_tokens()), weight_bytes(dtype));
    stages.push_back(cost);
    add("vision", by({pass.visual_tokens(), config.vision->width, config.vision->layers}),
        pass.vision_ms, cost);
  }
  if (pass.writes()) {
    const LanguageConfig& c = *config.language;
    const bool narrow = stored_type(compute, setup.kernels) == KernelType::bf16;
    const LanguageCosts costs = language_costs(c, static_cast<double>(pass.prefix_tokens()),
                                               bench.beams, dtype, narrow ? 2 : 4);
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
    stages.insert(stages.end(), {costs.encode, costs.prefill});
    stages.insert(stages.end(), static_cast<size_t>(bench.tokens), costs.step);
  }
  if (bench.stage == "model") {
    Cost sum;
    for (const Cost& stage : stages) {
      sum.flops += stage.flops, sum.bytes += stage.bytes;
      sum.attention_flops += stage.attention_flops;
    }
    add("total", by({bench.tokens}) + " tokens", pass.total_ms, sum);
    rows.back().stages = std::move(stages);
  }
  return rows;
}

}  // namespace pali::bench
