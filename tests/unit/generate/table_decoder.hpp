// A decoder that reads its logits from a function of the tokens so far: every hypothesis of a small
// vocabulary can then be enumerated. Its hidden states are the logits, its head the identity.
#pragma once

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <cstring>
#include <functional>
#include <memory>
#include <string_view>
#include <utility>
#include <vector>

#include "generate/generate.hpp"
#include "kernels/isa.hpp"
#include "matmul/matmul.hpp"
#include "model/decoder.hpp"

namespace pali::test {

// Logits after `tokens` (the start token left out) in request `request`.
using Table = std::function<std::vector<float>(int request, const std::vector<int32_t>& tokens)>;

// y = x.
class IdentityLinear : public PackedLinear {
 public:
  explicit IdentityLinear(int64_t size) : size_(size) {}
  int64_t out() const override { return size_; }
  int64_t in() const override { return size_; }
  void run(const Context&, ConstMat x, Mat y, const Epilogue&) const override {
    for (int64_t i = 0; i < x.rows; ++i) {
      std::memcpy(y.row(i), x.row(i), static_cast<size_t>(x.cols) * sizeof(float));
    }
  }
  std::string_view backend() const override { return "identity"; }

 private:
  int64_t size_;
};

class TableDecoder : public Decoder {
 public:
  TableDecoder(Table table, int64_t vocab, int requests)
      : table_(std::move(table)),
        head_(std::make_unique<IdentityLinear>(vocab), 1.0f),
        requests_(requests) {
    restart();
  }
  int64_t batch() const override { return static_cast<int64_t>(sequences_.size()); }
  ConstMat step(const Context&, std::span<const int32_t> ids) override {
    PALI_ASSERT(ids.size() == sequences_.size());
    hidden_ = Tensor(batch(), head_.vocab());
    for (size_t b = 0; b < ids.size(); ++b) {
      Sequence& sequence = sequences_[b];
      if (sequence.started)
        sequence.tokens.push_back(ids[b]);
      else
        first_fed.push_back(ids[b]);
      sequence.started = true;
      const std::vector<float> logits = table_(sequence.request, sequence.tokens);
      std::copy(logits.begin(), logits.end(), hidden_.row(static_cast<int64_t>(b)));
    }
    ++steps;
    largest_batch = std::max(largest_batch, batch());
    batches.push_back(batch());
    return std::as_const(hidden_).view();
  }
  void reorder(std::span<const int32_t> source) override {
    std::vector<Sequence> next;
    for (const int32_t s : source) next.push_back(sequences_.at(static_cast<size_t>(s)));
    sequences_ = std::move(next);
  }
  void restart() override {
    sequences_.clear();
    for (int r = 0; r < requests_; ++r) sequences_.push_back({r, {}});
  }
  const LmHead& head() const override { return head_; }

  // What the tests look at.
  int steps = 0;
  int64_t largest_batch = 0;
  std::vector<int64_t> batches;    // by step
  std::vector<int32_t> first_fed;  // ids of the first step

 private:
  struct Sequence {
    int request = 0;
    std::vector<int32_t> tokens;
    bool started = false;
  };
  Table table_;
  LmHead head_;
  int requests_;
  std::vector<Sequence> sequences_;
  Tensor hidden_;
};

// Thread pool and kernels of a test.
struct Fixture {
  ThreadPool pool{1};
  KernelTable kernels = kernel_table(Isa::scalar);
  Context context{pool, kernels, nullptr};
};

// A table of pseudo-random logits in [-3, 3], steps of 0.001, the same in any language: an FNV hash
// of seed and tokens, then of the id. `end_bias` is added to token 1's logit.
inline Table hashed_table(uint32_t seed, int vocab, double end_bias = 0) {
  return [=](int request, const std::vector<int32_t>& tokens) {
    const auto mix = [](uint32_t hash, uint32_t value) { return (hash ^ value) * 16777619u; };
    uint32_t hash = mix(mix(2166136261u, seed), static_cast<uint32_t>(request));
    for (const int32_t token : tokens) hash = mix(hash, static_cast<uint32_t>(token) + 7u);
    std::vector<float> logits;
    for (int id = 0; id < vocab; ++id) {
      uint32_t h = mix(mix(hash, static_cast<uint32_t>(id) + 101u), 57u);
      h ^= h >> 15;
      h *= 2246822519u;
      h ^= h >> 13;
      const double value = static_cast<double>(h % 6001u) / 1000.0 - 3.0;
      logits.push_back(static_cast<float>(value + (id == 1 ? end_bias : 0)));
    }
    return logits;
  };
}

inline std::vector<double> log_softmax(const std::vector<float>& logits) {
  double largest = logits[0], total = 0;
  for (const float x : logits) largest = std::max(largest, static_cast<double>(x));
  for (const float x : logits) total += std::exp(static_cast<double>(x) - largest);
  std::vector<double> out;
  for (const float x : logits) out.push_back(static_cast<double>(x) - largest - std::log(total));
  return out;
}

inline GenerationRun run_of(const GenerationOptions& options) { return {options, {}, {}}; }

}  // namespace pali::test
