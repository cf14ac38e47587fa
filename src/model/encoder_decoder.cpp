// T5, mT5, umT5, UL2, the language half of PaLI-3, T5Gemma 2.
// Ref: T5ForConditionalGeneration, MT5..., UMT5..., T5Gemma2... in transformers.
#include "model/encoder_decoder.hpp"

#include <algorithm>
#include <new>
#include <numeric>
#include <utility>
#include <vector>

#include "model/decoder_stack.hpp"
#include "model/language_stack.hpp"
#include "model/token_table.hpp"

namespace pali {
namespace {

// One run of the decoder stack: R requests' memories, up to max_sequences sequences over them.
class EncoderDecoderRun final : public Decoder {
 public:
  EncoderDecoderRun(const DecoderStack& stack, const TokenTable& tokens, LmHead head,
                    SelfCache cache, StackRun run, std::vector<CrossCache> memories,
                    int64_t requests)
      : stack_(stack),
        tokens_(tokens),
        head_(std::move(head)),
        memories_(std::move(memories)),
        cache_(std::move(cache)),
        run_(std::move(run)),
        scratch_(stack.spec(), cache_.capacity()),
        hidden_(cache_.capacity(), stack.spec().block.width),
        requests_(requests),
        batch_(requests),
        place_(static_cast<size_t>(cache_.capacity())),
        memory_of_(place_.size()),
        memory_swapped_(place_.size()) {
    begin();
  }

  int64_t batch() const override { return batch_; }
  const LmHead& head() const override { return head_; }

  ConstMat step(const Context& context, std::span<const int32_t> ids) override {
    PALI_ASSERT(static_cast<int64_t>(ids.size()) == batch_);
    const Mat x = hidden_.top(batch_);  // [B, D]
    tokens_.embed(ids, x);
    const auto batch = static_cast<size_t>(batch_);
    std::fill_n(place_.begin(), batch, static_cast<int32_t>(cache_.position()));
    stack_.step(context, x, run_, {{place_.data(), batch}, memories_, {memory_of_.data(), batch}},
                cache_, scratch_);
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

  void restart() override {
    cache_.restart();
    begin();
  }

 private:
  // A sequence a request.
  void begin() {
    batch_ = requests_;
    std::iota(memory_of_.begin(), memory_of_.begin() + batch_, 0);
  }

  const DecoderStack& stack_;
  const TokenTable& tokens_;
  LmHead head_;
  std::vector<CrossCache> memories_;  // a request; none where the cache holds them
  SelfCache cache_;
  StackRun run_;
  DecoderStack::StepScratch scratch_;
  Tensor hidden_;  // [max_sequences, D]
  int64_t requests_, batch_;
  std::vector<int32_t> place_;                       // sequence -> position
  std::vector<int32_t> memory_of_, memory_swapped_;  // sequence -> request
};

class EncoderDecoder final : public LanguageModel {
 public:
  EncoderDecoder(const LanguageConfig& config, const TensorTable& table, const MatmulPolicy& policy)
      : config_(config),
        tokens_(config, table),
        encoder_(language_stack(config, config.encoder_layers, CrossAttention::none,
                                config.encoder_modes),
                 table, "lm.encoder", policy),
        decoder_(
            language_stack(config, config.decoder_layers,
                           config.merged_cross ? CrossAttention::merged : CrossAttention::separate,
                           config.decoder_modes),
            table, "lm.decoder", policy),
        head_(pack_head(config, table, policy)) {}

  int64_t width() const override { return config_.width; }
  int64_t vocab() const override { return config_.vocab; }
  int32_t start_token() const override { return config_.start_token; }
  int32_t end_token() const override { return config_.end_token; }

  void embed(std::span<const int32_t> ids, Mat out) const override { tokens_.embed(ids, out); }

  std::unique_ptr<Decoder> start(const Context& context, std::span<const ConstMat> prefixes,
                                 const DecoderLimits& limits) const override {
    check_limits(prefixes, limits);
    const bool merged = config_.merged_cross;
    std::vector<CrossCache> memories;
    std::vector<Tensor> merging;
    SelfCacheShape shape;
    for (size_t r = 0; r < prefixes.size(); ++r) {
      // Only the first request of a batch is traced.
      const Context untraced{context.pool, context.kernels, nullptr};
      Tensor memory = encode(r == 0 ? context : untraced, prefixes[r]);
      if (!merged) {
        memories.push_back(decoder_.cross_cache(context, memory.view()));
        continue;
      }
      shape.prefix_rows += memory.rows();
      shape.longest_prefix = std::max(shape.longest_prefix, memory.rows());
      merging.push_back(std::move(memory));
    }
    shape.layers = config_.decoder_layers;
    shape.kv_width = decoder_.spec().block.kv_width();
    shape.capacity = limits.max_sequences;
    shape.steps = limits.max_steps;
    shape.window = window_of(decoder_.spec());
    try {
      SelfCache cache(shape);
      int64_t first = 0;
      for (size_t r = 0; r < merging.size(); ++r) {
        const int64_t rows = merging[r].rows();
        decoder_.merge_memory(context, merging[r].view(), cache, first);
        cache.begin(static_cast<int64_t>(r), first, rows, SelfCache::Prefix::pinned);
        first += rows;
      }
      return std::make_unique<EncoderDecoderRun>(
          decoder_, tokens_, make_head(config_, head_), std::move(cache),
          decoder_.start(limits.max_steps, config_.first_position, limits.max_steps),
          std::move(memories), static_cast<int64_t>(prefixes.size()));
    } catch (const std::bad_alloc&) {
      throw_no_cache(limits);
    }
  }

 private:
  // prefix [S, D] -> the encoder's output.
  Tensor encode(const Context& context, ConstMat prefix) const {
    PALI_ASSERT(prefix.rows >= 1 && prefix.cols == config_.width);
    Tensor x(prefix.rows, prefix.cols);
    for (int64_t i = 0; i < prefix.rows; ++i) {
      std::copy_n(prefix.row(i), prefix.cols, x.row(i));
    }
    context.trace("encoder.input", x.view());
    encoder_.run(context, x.view(), "encoder");
    context.trace("encoder.memory", x.view());
    return x;
  }

  LanguageConfig config_;
  TokenTable tokens_;
  EncoderStack encoder_;
  DecoderStack decoder_;
  std::shared_ptr<const PackedLinear> head_;
};

}  // namespace

std::unique_ptr<LanguageModel> make_encoder_decoder(const LanguageConfig& config,
                                                    const TensorTable& table,
                                                    const MatmulPolicy& policy) {
  return std::make_unique<EncoderDecoder>(config, table, policy);
}

}  // namespace pali
