// T5, mT5, umT5, UL2 and the language half of PaLI-3.
// Ref: T5ForConditionalGeneration, MT5..., UMT5... in transformers.
#include "model/encoder_decoder.hpp"

#include <algorithm>
#include <cmath>
#include <limits>
#include <new>
#include <numeric>
#include <utility>
#include <vector>

#include "model/decoder_stack.hpp"
#include "ops/embedding.hpp"

namespace pali {
namespace {

StackSpec stack_spec(const EncoderDecoderConfig& config, int64_t layers, CrossAttention cross) {
  StackSpec spec;
  spec.block.width = config.width;
  spec.block.heads = spec.block.kv_heads = config.heads;
  spec.block.head_dim = config.inner_head;
  // T5Attention.scaling = 1.0: the 1/sqrt(d_kv) is folded into the initialisation of q.
  spec.block.attention_scale = 1.0f;
  spec.block.norm = NormKind::rms;
  spec.block.eps = config.eps;
  spec.block.mlp_width = config.mlp;
  spec.block.mlp = config.gated ? MlpKind::gated : MlpKind::plain;
  spec.block.activation = config.activation;
  spec.block.cross = cross;
  spec.layers = layers;
  spec.bias = config.bias_per_layer ? PositionBias::per_layer : PositionBias::shared;
  spec.max_distance = config.max_distance;
  return spec;
}

// One run of the decoder stack: R requests' memories, up to max_sequences sequences over them.
class EncoderDecoderRun final : public Decoder {
 public:
  EncoderDecoderRun(const DecoderStack& stack, const WeightRef& embedding, LmHead head,
                    std::vector<CrossCache> memories, const DecoderLimits& limits)
      : stack_(stack),
        embedding_(embedding),
        head_(std::move(head)),
        memories_(std::move(memories)),
        cache_(stack.spec().layers, stack.spec().block.kv_width(), limits.max_sequences,
               limits.max_steps),
        biases_(stack.step_biases(limits.max_steps)),
        scratch_(stack.spec(), limits.max_sequences),
        hidden_(limits.max_sequences, stack.spec().block.width),
        batch_(static_cast<int64_t>(memories_.size())),
        memory_of_(static_cast<size_t>(limits.max_sequences)),
        memory_swapped_(memory_of_.size()) {
    std::iota(memory_of_.begin(), memory_of_.begin() + batch_, 0);
    for (int64_t i = 0; i < stack.spec().layers; ++i) {
      bias_of_layer_.push_back(BiasTables::of_layer(biases_, static_cast<size_t>(i)));
    }
  }

  int64_t batch() const override { return batch_; }
  const LmHead& head() const override { return head_; }

  ConstMat step(const Context& context, std::span<const int32_t> ids) override {
    PALI_ASSERT(static_cast<int64_t>(ids.size()) == batch_);
    const Mat x = hidden_.top(batch_);  // [B, D]
    // hidden_states = shared(ids): T5 does not scale its embeddings
    embed_tokens(embedding_, ids, x);
    stack_.step(context, x, cache_, bias_of_layer_, memories_,
                {memory_of_.data(), static_cast<size_t>(batch_)}, scratch_);
    return x;
  }

  void reorder(std::span<const int32_t> source) override {
    PALI_ASSERT(static_cast<int64_t>(source.size()) <= cache_.capacity());
    for (size_t i = 0; i < source.size(); ++i) {
      PALI_ASSERT(source[i] >= 0 && source[i] < batch_);
      memory_swapped_[i] = memory_of_[static_cast<size_t>(source[i])];
    }
    memory_of_.swap(memory_swapped_);
    cache_.reorder(source);
    batch_ = static_cast<int64_t>(source.size());
  }

 private:
  const DecoderStack& stack_;
  const WeightRef& embedding_;
  LmHead head_;
  std::vector<CrossCache> memories_;  // a request
  SelfCache cache_;
  std::vector<DistanceBias> biases_;
  std::vector<const DistanceBias*> bias_of_layer_;
  DecoderStack::StepScratch scratch_;
  Tensor hidden_;  // [max_sequences, D]
  int64_t batch_;
  std::vector<int32_t> memory_of_, memory_swapped_;  // sequence -> request
};

class EncoderDecoder final : public LanguageModel {
 public:
  EncoderDecoder(const EncoderDecoderConfig& config, const TensorTable& table,
                 const MatmulPolicy& policy)
      : config_(config),
        embedding_(table.matrix("lm.embed")),
        encoder_(stack_spec(config, config.encoder_layers, CrossAttention::none), table,
                 "lm.encoder", policy),
        decoder_(stack_spec(config, config.decoder_layers, CrossAttention::separate), table,
                 "lm.decoder", policy),
        head_(pack_linear(table.matrix(config.separate_head ? "lm.head.weight" : "lm.embed"),
                          policy)) {}

  int64_t width() const override { return config_.width; }
  int64_t vocab() const override { return config_.vocab; }
  int32_t start_token() const override { return config_.start_token; }
  int32_t end_token() const override { return config_.end_token; }

  void embed(std::span<const int32_t> ids, Mat out) const override {
    embed_tokens(embedding_, ids, out);
  }

  std::unique_ptr<Decoder> start(const Context& context, std::span<const ConstMat> prefixes,
                                 const DecoderLimits& limits) const override {
    check(prefixes, limits);
    std::vector<CrossCache> memories;
    for (size_t r = 0; r < prefixes.size(); ++r) {
      // Only the first request of a batch is traced.
      const Context untraced{context.pool, context.kernels, nullptr};
      memories.push_back(encode(r == 0 ? context : untraced, prefixes[r]));
    }
    const float scale =
        config_.scale_head ? 1.0f / std::sqrt(static_cast<float>(config_.width)) : 1.0f;
    try {
      return std::make_unique<EncoderDecoderRun>(decoder_, embedding_, LmHead(head_, scale),
                                                 std::move(memories), limits);
    } catch (const std::bad_alloc&) {
      throw Error(ErrorCode::out_of_memory,
                  "no memory for the decoder's cache of " + std::to_string(limits.max_steps) +
                      " tokens x " + std::to_string(limits.max_sequences) +
                      " sequences (--max-tokens, --beams); ask for fewer");
    }
  }

 private:
  void check(std::span<const ConstMat> prefixes, const DecoderLimits& limits) const {
    PALI_ASSERT(!prefixes.empty() && limits.max_steps >= 1);
    PALI_ASSERT(limits.max_sequences >= static_cast<int64_t>(prefixes.size()));
    // Row numbers of the cache are 32 bits wide.
    if (limits.max_steps > std::numeric_limits<int32_t>::max() / limits.max_sequences) {
      throw Error(ErrorCode::invalid_argument,
                  std::to_string(limits.max_steps) + " tokens x " +
                      std::to_string(limits.max_sequences) +
                      " sequences are too many (--max-tokens, --beams); ask for fewer");
    }
  }

  // prefix [S, D] -> the decoder's cross keys and values.
  CrossCache encode(const Context& context, ConstMat prefix) const {
    PALI_ASSERT(prefix.rows >= 1 && prefix.cols == config_.width);
    Tensor x(prefix.rows, prefix.cols);
    for (int64_t i = 0; i < prefix.rows; ++i) {
      std::copy_n(prefix.row(i), prefix.cols, x.row(i));
    }
    context.trace("encoder.input", x.view());
    encoder_.run(context, x.view(), "encoder");
    context.trace("encoder.memory", x.view());
    return decoder_.cross_cache(context, x.view());
  }

  EncoderDecoderConfig config_;
  WeightRef embedding_;  // [V, D]
  EncoderStack encoder_;
  DecoderStack decoder_;
  std::shared_ptr<const PackedLinear> head_;
};

}  // namespace

std::unique_ptr<LanguageModel> make_encoder_decoder(const EncoderDecoderConfig& config,
                                                    const TensorTable& table,
                                                    const MatmulPolicy& policy) {
  return std::make_unique<EncoderDecoder>(config, table, policy);
}

}  // namespace pali
