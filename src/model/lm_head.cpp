// Logits in chunks of rows, scanned by what the caller asked for.
#include "model/lm_head.hpp"

#include <algorithm>
#include <bit>
#include <cmath>
#include <limits>

namespace pali {
namespace {

// Rows whose logits are held at once: 32 x 250112 floats are 32 MB.
constexpr int64_t kChunk = 32;

// True where every value is finite: an integer test, so that the compiler may vectorise it.
bool all_finite(const float* x, int64_t n) {
  uint32_t bad = 0;
  for (int64_t i = 0; i < n; ++i) {
    bad |= (std::bit_cast<uint32_t>(x[i]) & 0x7f800000u) == 0x7f800000u ? 1u : 0u;
  }
  return bad == 0;
}

double log_sum_exp(const KernelTable& kernels, const float* x, int64_t n) {
  const float shift = kernels.max(x, n);
  return shift + std::log(static_cast<double>(kernels.sum_exp(x, shift, n)));
}

// The same over a set of ids.
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
  void offer(int32_t id, float logit) {
    if (count_ < out_.size()) {
      out_[count_++] = {id, logit};
      std::push_heap(out_.begin(), kept_end(), better);
    } else if (logit > out_[0].logprob) {  // ids ascend: an equal one is worse
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

// Calls body(b, logits of row b) for every hidden row, chunk by chunk, rows in parallel.
template <class Compute, class Body>
void for_each_row(const Context& context, int64_t rows, const Compute& compute, const Body& body) {
  for (int64_t first = 0; first < rows; first += kChunk) {
    const int64_t count = std::min(kChunk, rows - first);
    const ConstMat logits = compute(first, count);
    context.pool.parallel_for(count, 1, [&](int64_t begin, int64_t end, int) {
      for (int64_t i = begin; i < end; ++i) body(first + i, logits.row(i));
    });
  }
}

}  // namespace

LmHead::LmHead(std::shared_ptr<const PackedLinear> table, float scale)
    : table_(std::move(table)), scale_(scale) {}

int64_t LmHead::vocab() const { return table_->out(); }

ConstMat LmHead::compute(const Context& context, ConstMat hidden, int64_t first,
                         int64_t count) const {
  const int64_t capacity = std::min(kChunk, hidden.rows);
  if (logits_.rows() < capacity) {
    logits_ = Tensor(capacity, vocab());
    scaled_ = Tensor(capacity, table_->in());
  }
  const Mat logits = logits_.top(count);
  full(context, hidden.rows_from(first, count), logits);
  return logits;
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
  for (int64_t i = 0; i < logits.rows; ++i) {
    if (!all_finite(logits.row(i), vocab())) {
      throw Error(ErrorCode::corrupt_file,
                  "the model's weights give logits that are not finite (language model); the "
                  "checkpoint is damaged: fetch or convert it again");
    }
  }
}

void LmHead::argmax(const Context& context, ConstMat hidden, std::span<ScoredToken> best,
                    std::span<const int32_t> allowed) const {
  PALI_ASSERT(static_cast<int64_t>(best.size()) == hidden.rows);
  if (!allowed.empty()) return top_k(context, hidden, 1, best, allowed);
  const auto compute_rows = [&](int64_t first, int64_t count) {
    return compute(context, hidden, first, count);
  };
  for_each_row(context, hidden.rows, compute_rows, [&](int64_t b, const float* logits) {
    const float largest = context.kernels.max(logits, vocab());
    const float* at = std::find(logits, logits + vocab(), largest);
    const double log_sum = log_sum_exp(context.kernels, logits, vocab());
    best[static_cast<size_t>(b)] = {static_cast<int32_t>(at - logits),
                                    static_cast<float>(largest - log_sum)};
  });
}

void LmHead::top_k(const Context& context, ConstMat hidden, int64_t k, std::span<ScoredToken> out,
                   std::span<const int32_t> allowed) const {
  PALI_ASSERT(k >= 1 && static_cast<int64_t>(out.size()) == hidden.rows * k);
  PALI_ASSERT(allowed.empty() || (allowed.front() >= 0 && allowed.back() < vocab()));
  const auto compute_rows = [&](int64_t first, int64_t count) {
    return compute(context, hidden, first, count);
  };
  for_each_row(context, hidden.rows, compute_rows, [&](int64_t b, const float* logits) {
    BestTokens best(out.subspan(static_cast<size_t>(b * k), static_cast<size_t>(k)));
    if (allowed.empty()) {
      for (int64_t id = 0; id < vocab(); ++id) best.offer(static_cast<int32_t>(id), logits[id]);
      best.finish(log_sum_exp(context.kernels, logits, vocab()));
    } else {
      for (const int32_t id : allowed) best.offer(id, logits[id]);
      best.finish(log_sum_exp(logits, allowed));
    }
  });
}

void LmHead::logprob(const Context& context, ConstMat hidden, std::span<const int32_t> ids,
                     std::span<float> out) const {
  PALI_ASSERT(static_cast<int64_t>(ids.size()) == hidden.rows && out.size() == ids.size());
  const auto compute_rows = [&](int64_t first, int64_t count) {
    return compute(context, hidden, first, count);
  };
  for_each_row(context, hidden.rows, compute_rows, [&](int64_t b, const float* logits) {
    const auto i = static_cast<size_t>(b);
    PALI_ASSERT(ids[i] >= 0 && ids[i] < vocab());
    out[i] = static_cast<float>(logits[ids[i]] - log_sum_exp(context.kernels, logits, vocab()));
  });
}

}  // namespace pali
