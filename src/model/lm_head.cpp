// Logits in chunks of rows, summed up in one parallel pass; whatever the caller asked for is then
// found from the blocks' sums and few blocks' logits.
#include "model/lm_head.hpp"

#include <algorithm>
#include <atomic>
#include <bit>
#include <cmath>
#include <limits>

#include "exec/grain.hpp"

namespace pali {
namespace {

// Rows whose logits are held at once: 32 x 250112 floats are 32 MB.
constexpr int64_t kChunk = 32;
// Logits of one block: 16 KB, so that three passes find them in the cache.
constexpr int64_t kBlock = 4096;

// True where every value is finite: an integer test, so that the compiler may vectorise it.
bool all_finite(const float* x, int64_t n) {
  uint32_t bad = 0;
  for (int64_t i = 0; i < n; ++i) {
    bad |= (std::bit_cast<uint32_t>(x[i]) & 0x7f800000u) == 0x7f800000u ? 1u : 0u;
  }
  return bad == 0;
}

// Over a set of ids.
double log_sum_exp(const float* x, std::span<const int32_t> ids) {
  float shift = -std::numeric_limits<float>::infinity();
  for (const int32_t id : ids) shift = std::max(shift, x[id]);
  double sum = 0;
  for (const int32_t id : ids) sum += std::exp(static_cast<double>(x[id]) - shift);
  return shift + std::log(sum);
}

// Better first; ties to the lower id.
bool better(const ScoredToken& a, const ScoredToken& b) {
  return a.logprob > b.logprob || (a.logprob == b.logprob && a.id < b.id);
}

// The best of `out.size()` tokens so far, as a heap whose front is the worst kept.
class BestTokens {
 public:
  explicit BestTokens(std::span<ScoredToken> out) : out_(out) {}
  // False where no such logit, of a higher id than all so far, would be kept.
  bool wants(float logit) const { return count_ < out_.size() || logit > out_[0].logprob; }
  void offer(int32_t id, float logit) {
    if (count_ < out_.size()) {
      out_[count_++] = {id, logit};
      std::push_heap(out_.begin(), kept_end(), better);
    } else if (wants(logit)) {
      std::pop_heap(out_.begin(), out_.end(), better);
      out_.back() = {id, logit};
      std::push_heap(out_.begin(), out_.end(), better);
    }
  }
  // Sorts them and turns logits into log-probabilities.
  void finish(double log_sum) {
    std::sort_heap(out_.begin(), kept_end(), better);
    for (ScoredToken& token : out_.first(count_)) {
      token.logprob = static_cast<float>(token.logprob - log_sum);
    }
    std::fill(kept_end(), out_.end(), ScoredToken{0, -std::numeric_limits<float>::infinity()});
  }

 private:
  std::span<ScoredToken>::iterator kept_end() const {
    return out_.begin() + static_cast<std::ptrdiff_t>(count_);
  }
  std::span<ScoredToken> out_;
  size_t count_ = 0;
};

// Over all, from blocks of them.
template <class Block>
double log_sum_exp(std::span<const Block> blocks) {
  float shift = blocks.front().highest;
  for (const Block& block : blocks) shift = std::max(shift, block.highest);
  double sum = 0;
  for (const Block& block : blocks) {
    sum += block.sum * std::exp(static_cast<double>(block.highest) - shift);
  }
  return shift + std::log(sum);
}

}  // namespace

LmHead::LmHead(std::shared_ptr<const PackedLinear> table, float scale, float cap)
    : table_(std::move(table)), scale_(scale), cap_(cap) {}

int64_t LmHead::vocab() const { return table_->out(); }

template <class Body>
void LmHead::for_each_row(const Context& context, ConstMat hidden, const Body& body) const {
  const int64_t capacity = std::min(kChunk, hidden.rows);
  if (logits_.rows() < capacity) {
    logits_ = Tensor(capacity, vocab());
    scaled_ = Tensor(capacity, table_->in());
  }
  const auto blocks = static_cast<size_t>((vocab() + kBlock - 1) / kBlock);
  for (int64_t first = 0; first < hidden.rows; first += kChunk) {
    const int64_t count = std::min(kChunk, hidden.rows - first);
    const Mat logits = logits_.top(count);
    full(context, hidden.rows_from(first, count), logits);
    for (int64_t i = 0; i < count; ++i) {
      body(first + i, logits.row(i),
           std::span<const Block>(blocks_).subspan(static_cast<size_t>(i) * blocks, blocks));
    }
  }
}

void LmHead::scan(const Context& context, Mat logits) const {
  const int64_t blocks = (vocab() + kBlock - 1) / kBlock;
  blocks_.resize(std::max(blocks_.size(), static_cast<size_t>(logits.rows * blocks)));
  std::atomic<bool> finite{true};
  context.pool.parallel_for(logits.rows * blocks, 2, [&](int64_t begin, int64_t end, int) {
    for (int64_t index = begin; index < end; ++index) {
      const int64_t first = index % blocks * kBlock;
      float* part = logits.row(index / blocks) + first;
      const int64_t count = std::min(kBlock, vocab() - first);
      if (!all_finite(part, count)) finite.store(false, std::memory_order_relaxed);
      // Gemma2ForCausalLM: tanh(logits / cap) * cap
      if (cap_ > 0) context.kernels.soft_cap(part, cap_, count, part);
      const float highest = context.kernels.max(part, count);
      blocks_[static_cast<size_t>(index)] = {highest,
                                             context.kernels.sum_exp(part, highest, count)};
    }
  });
  if (!finite) {
    throw Error(ErrorCode::corrupt_file,
                "the model's weights give logits that are not finite (language model); the "
                "checkpoint is damaged: fetch or convert it again");
  }
}

void LmHead::full(const Context& context, ConstMat hidden, Mat logits) const {
  PALI_ASSERT(hidden.cols == table_->in() && logits.cols == vocab() && logits.rows == hidden.rows);
  ConstMat x = hidden;
  if (scale_ != 1.0f) {
    // T5ForConditionalGeneration: sequence_output * d_model**-0.5 where the head is the embedding
    if (scaled_.rows() < hidden.rows) scaled_ = Tensor(hidden.rows, hidden.cols);
    const Mat scaled = scaled_.top(hidden.rows);
    for (int64_t i = 0; i < hidden.rows; ++i) {
      for (int64_t j = 0; j < hidden.cols; ++j) scaled.row(i)[j] = hidden.row(i)[j] * scale_;
    }
    x = scaled;
  }
  table_->run(context, x, logits);
  scan(context, logits);
}

void LmHead::argmax(const Context& context, ConstMat hidden, std::span<ScoredToken> best,
                    std::span<const int32_t> allowed) const {
  PALI_ASSERT(static_cast<int64_t>(best.size()) == hidden.rows);
  if (!allowed.empty()) return top_k(context, hidden, 1, best, allowed);
  for_each_row(context, hidden, [&](int64_t b, const float* logits, auto blocks) {
    // The first of the highest: ties go to the lower id.
    const auto block = std::max_element(
        blocks.begin(), blocks.end(),
        [](const Block& a, const Block& other) { return a.highest < other.highest; });
    const float* first = logits + (block - blocks.begin()) * kBlock;
    const float* at = std::find(first, logits + vocab(), block->highest);
    best[static_cast<size_t>(b)] = {static_cast<int32_t>(at - logits),
                                    static_cast<float>(block->highest - log_sum_exp(blocks))};
  });
}

void LmHead::top_k(const Context& context, ConstMat hidden, int64_t k, std::span<ScoredToken> out,
                   std::span<const int32_t> allowed) const {
  PALI_ASSERT(k >= 1 && static_cast<int64_t>(out.size()) == hidden.rows * k);
  PALI_ASSERT(allowed.empty() || (allowed.front() >= 0 && allowed.back() < vocab()));
  for_each_row(context, hidden, [&](int64_t b, const float* logits, auto blocks) {
    BestTokens best(out.subspan(static_cast<size_t>(b * k), static_cast<size_t>(k)));
    if (!allowed.empty()) {
      for (const int32_t id : allowed) best.offer(id, logits[id]);
      return best.finish(log_sum_exp(logits, allowed));
    }
    for (size_t i = 0; i < blocks.size(); ++i) {
      if (!best.wants(blocks[i].highest)) continue;
      const int64_t first = static_cast<int64_t>(i) * kBlock;
      for (int64_t id = first; id < std::min(first + kBlock, vocab()); ++id) {
        best.offer(static_cast<int32_t>(id), logits[id]);
      }
    }
    best.finish(log_sum_exp(blocks));
  });
}

void LmHead::logprob(const Context& context, ConstMat hidden, std::span<const int32_t> ids,
                     std::span<float> out, const SeeLogits& see) const {
  PALI_ASSERT(static_cast<int64_t>(ids.size()) == hidden.rows && out.size() == ids.size());
  for_each_row(context, hidden, [&](int64_t b, const float* logits, auto blocks) {
    const auto i = static_cast<size_t>(b);
    PALI_ASSERT(ids[i] >= 0 && ids[i] < vocab());
    out[i] = static_cast<float>(logits[ids[i]] - log_sum_exp(blocks));
    if (see) see(i, {logits, static_cast<size_t>(vocab())});
  });
}

}  // namespace pali
