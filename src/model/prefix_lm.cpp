// Gemma 1 and 2 as PaliGemma has them.
// Ref: PaliGemmaForConditionalGeneration, GemmaModel and Gemma2Model in transformers.
#include "model/prefix_lm.hpp"

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

// One run: R requests' prefixes in the cache, up to max_sequences sequences that go on from them.
class PrefixLmRun final : public Decoder {
 public:
  PrefixLmRun(const DecoderStack& stack, const TokenTable& tokens, LmHead head, SelfCache cache,
              StackRun run, Tensor prefix_hidden, std::vector<int32_t> prefix_lengths)
      : stack_(stack),
        tokens_(tokens),
        head_(std::move(head)),
        cache_(std::move(cache)),
        run_(std::move(run)),
        scratch_(stack.spec(), cache_.capacity()),
        prefix_hidden_(std::move(prefix_hidden)),
        prefix_lengths_(std::move(prefix_lengths)),
        hidden_(cache_.capacity(), stack.spec().block.width),
        request_(static_cast<size_t>(cache_.capacity())),
        place_(request_.size()),
        swapped_(request_.size()) {
    begin();
  }

  int64_t batch() const override { return batch_; }
  const LmHead& head() const override { return head_; }

  ConstMat step(const Context& context, std::span<const int32_t> ids) override {
    PALI_ASSERT(static_cast<int64_t>(ids.size()) == batch_);
    const Mat x = hidden_.top(batch_);  // [B, D]
    if (!started_) {
      // What follows the prefix is known already: the start token stands for its last position.
      started_ = true;
      for (int64_t b = 0; b < batch_; ++b) {
        std::copy_n(prefix_hidden_.row(request_[static_cast<size_t>(b)]), x.cols, x.row(b));
      }
      return x;
    }
    tokens_.embed(ids, x);
    const std::span<int32_t> places(place_.data(), static_cast<size_t>(batch_));
    stack_.step(context, x, run_, {places, {}, {}}, cache_, scratch_);
    for (int32_t& place : places) ++place;
    return x;
  }

  void reorder(std::span<const int32_t> source) override {
    PALI_ASSERT(static_cast<int64_t>(source.size()) <= cache_.capacity());
    for (std::vector<int32_t>* values : {&request_, &place_}) {
      for (size_t i = 0; i < source.size(); ++i) {
        PALI_ASSERT(source[i] >= 0 && source[i] < batch_);
        swapped_[i] = (*values)[static_cast<size_t>(source[i])];
      }
      values->swap(swapped_);
    }
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
    batch_ = prefix_hidden_.rows();
    started_ = false;
    std::iota(request_.begin(), request_.begin() + batch_, 0);
    std::copy(prefix_lengths_.begin(), prefix_lengths_.end(), place_.begin());
  }

  const DecoderStack& stack_;
  const TokenTable& tokens_;
  LmHead head_;
  SelfCache cache_;
  StackRun run_;
  DecoderStack::StepScratch scratch_;
  Tensor prefix_hidden_;                 // [R, D], of each prefix's last position
  std::vector<int32_t> prefix_lengths_;  // [R]
  Tensor hidden_;                        // [max_sequences, D]
  int64_t batch_ = 0;
  bool started_ = false;
  std::vector<int32_t> request_, place_, swapped_;  // by sequence
};

class PrefixLm final : public LanguageModel {
 public:
  PrefixLm(const LanguageConfig& config, const TensorTable& table, const MatmulPolicy& policy)
      : config_(config),
        tokens_(config, table),
        stack_(language_stack(config, config.decoder_layers, CrossAttention::none,
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
    try {
      return prefilled(context, prefixes, limits);
    } catch (const std::bad_alloc&) {
      throw_no_cache(limits);
    }
  }

 private:
  std::unique_ptr<Decoder> prefilled(const Context& context, std::span<const ConstMat> prefixes,
                                     const DecoderLimits& limits) const {
    SelfCacheShape shape;
    shape.layers = config_.decoder_layers;
    shape.kv_width = stack_.spec().block.kv_width();
    shape.capacity = limits.max_sequences;
    shape.steps = limits.max_steps;
    shape.window = window_of(stack_.spec());
    for (const ConstMat& prefix : prefixes) {
      shape.prefix_rows += prefix.rows;
      shape.longest_prefix = std::max(shape.longest_prefix, prefix.rows);
    }
    SelfCache cache(shape);
    StackRun run = stack_.start(limits.max_steps, config_.first_position,
                                shape.longest_prefix + limits.max_steps);
    Tensor hidden(static_cast<int64_t>(prefixes.size()), config_.width);
    std::vector<int32_t> lengths;
    int64_t first = 0;
    for (size_t r = 0; r < prefixes.size(); ++r) {
      // Only the first request of a batch is traced.
      const Context untraced{context.pool, context.kernels, nullptr};
      const auto b = static_cast<int64_t>(r);
      read(r == 0 ? context : untraced, prefixes[r], run, cache, first,
           hidden.view().rows_from(b, 1));
      cache.begin(b, first, prefixes[r].rows, SelfCache::Prefix::slides);
      lengths.push_back(static_cast<int32_t>(prefixes[r].rows));
      first += prefixes[r].rows;
    }
    return std::make_unique<PrefixLmRun>(stack_, tokens_, make_head(config_, head_),
                                         std::move(cache), std::move(run), std::move(hidden),
                                         std::move(lengths));
  }

  void read(const Context& context, ConstMat prefix, const StackRun& run, SelfCache& cache,
            int64_t first, Mat hidden) const {
    PALI_ASSERT(prefix.rows >= 1 && prefix.cols == config_.width);
    Tensor x(prefix.rows, prefix.cols);
    for (int64_t i = 0; i < prefix.rows; ++i) {
      std::copy_n(prefix.row(i), prefix.cols, x.row(i));
    }
    context.trace("prefix.input", x.view());
    stack_.prefill(context, x.view(), run, cache, first, hidden);
    context.trace("prefix.hidden", hidden);
  }

  LanguageConfig config_;
  TokenTable tokens_;
  DecoderStack stack_;
  std::shared_ptr<const PackedLinear> head_;
};

}  // namespace

std::unique_ptr<LanguageModel> make_prefix_lm(const LanguageConfig& config,
                                              const TensorTable& table,
                                              const MatmulPolicy& policy) {
  return std::make_unique<PrefixLm>(config, table, policy);
}

}  // namespace pali
