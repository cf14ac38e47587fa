// What products of many rows prefetch: an address that is wrong changes no result, only the speed.
#include "matmul/tiled.hpp"

#include <gtest/gtest.h>

#include <algorithm>
#include <map>
#include <vector>

#include "exec/thread_pool.hpp"
#include "kernels/isa.hpp"
#include "matmul/blocking.hpp"

namespace pali {
namespace {

constexpr int64_t kM = 11, kN = 71, kK = 150;
constexpr int kMr = 4, kNr = 16;

struct Call {
  const void* panel;
  GemmArgs::Ahead ahead;
};
std::vector<Call> calls;

using Bytes = std::map<const std::byte*, int>;  // how often each was asked for

class TiledAhead : public ::testing::Test {
 protected:
  TiledAhead() : kernels_(kernel_table(Isa::scalar)), x_(kM * kK), y_(kM * kN) {
    gemm_.mr = kMr, gemm_.nr = kNr, gemm_.k_step = 1, gemm_.element_bytes = 4, gemm_.k_most = 64;
    gemm_.multiply = [](const GemmArgs& args) {
      for (int64_t i = 0; i < args.m; ++i) std::fill_n(args.c + i * args.c_stride, args.n, 0.0f);
      calls.push_back({args.panel, args.ahead});
    };
    kernels_.l2_bytes = 16 << 10;
    blocking_ = gemm_blocking(kM, kN, kK, gemm_, kernels_.l2_bytes);
    calls.clear();
    // Parts of the columns, of each all of K: a block is multiplied in so many calls.
    const int64_t all = ceil_div(kN, kNr), parts = ceil_div(all, blocking_.panels);
    for (int64_t part = 0; part < parts; ++part) {
      for (int64_t k0 = 0; k0 < kK; k0 += blocking_.kc) {
        const int64_t panels = all * (part + 1) / parts - all * part / parts;
        calls_of_blocks_.push_back(static_cast<size_t>(panels * ceil_div(kM, kMr)));
      }
    }
  }

  void run(const PanelSource& source, const std::byte* ready) {
    ThreadPool pool(1);
    run_tiled({pool, kernels_}, gemm_, reinterpret_cast<const std::byte*>(x_.data()), kK, kK,
              source, ready, Mat(y_.data(), kM, kN), {});
  }

  // What was asked for while each block was multiplied.
  std::vector<Bytes> asked() const {
    std::vector<Bytes> blocks;
    auto call = calls.begin();
    for (const size_t count : calls_of_blocks_) {
      Bytes& bytes = blocks.emplace_back();
      for (size_t i = 0; i < count; ++i, ++call) {
        const GemmArgs::Ahead& ahead = call->ahead;
        for (int64_t row = 0; row < ahead.rows; ++row) {
          for (int64_t b = 0; b < ahead.bytes; ++b) ++bytes[ahead.first + row * ahead.stride + b];
        }
      }
    }
    EXPECT_EQ(call, calls.end());
    return blocks;
  }

  KernelTable kernels_;
  GemmKernels gemm_{};
  GemmBlocking blocking_;
  std::vector<float> x_, y_;
  std::vector<size_t> calls_of_blocks_;
};

TEST_F(TiledAhead, RowsOfEachNextBlockOnce) {
  ASSERT_GT(calls_of_blocks_.size(), 4U);  // of columns and of K both
  ASSERT_NE(kK % blocking_.kc, 0);
  constexpr int64_t kValue = 2, kStride = kK * kValue + 6;
  const std::vector<std::byte> w(kN * kStride);
  std::vector<Bytes> packed;  // of W, by each block
  int64_t last_k0 = -1;
  const auto pack = [&](int64_t n0, int64_t n, int64_t k0, int64_t kc, std::byte*) {
    if (k0 != last_k0) packed.emplace_back();
    last_k0 = k0;
    for (int64_t row = n0; row < n0 + n; ++row) {
      const std::byte* from = w.data() + row * kStride + k0 * kValue;
      for (int64_t b = 0; b < kc * kValue; ++b) ++packed.back()[from + b];
    }
  };
  run({pack, w.data(), kStride, kValue}, nullptr);
  ASSERT_EQ(packed.size(), calls_of_blocks_.size());
  packed.erase(packed.begin());
  packed.emplace_back();  // behind the last block there is nothing
  EXPECT_EQ(asked(), packed);
}

TEST_F(TiledAhead, PackedPanelsOfEachNextBlockOnce) {
  const auto pack = [](int64_t, int64_t, int64_t, int64_t, std::byte*) {};
  const AlignedBuffer<std::byte> ready = pack_panels(gemm_, kN, kK, pack);
  run({pack}, ready.data());
  std::vector<Bytes> read;
  auto call = calls.begin();
  for (const size_t count : calls_of_blocks_) {
    Bytes& bytes = read.emplace_back();
    for (size_t i = 0; i < count; ++i, ++call) {
      const auto* panel = static_cast<const std::byte*>(call->panel);
      for (int64_t b = 0; b < blocking_.panel_bytes(gemm_); ++b) bytes[panel + b] = 1;
    }
  }
  read.erase(read.begin());
  read.emplace_back();
  EXPECT_EQ(asked(), read);
}

TEST_F(TiledAhead, NothingOfRowsThatAreNotGiven) {
  run({[](int64_t, int64_t, int64_t, int64_t, std::byte*) {}}, nullptr);
  ASSERT_FALSE(calls.empty());
  for (const Call& call : calls) EXPECT_EQ(call.ahead.rows, 0);
}

}  // namespace
}  // namespace pali
