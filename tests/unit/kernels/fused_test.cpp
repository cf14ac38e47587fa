// Products from the file's rows to the stored result in one call: against f64, the same bits
// however the work is cut, nothing written or read where it may not.
#include <algorithm>
#include <cstring>

#include "base/tensor.hpp"
#include "not_finite.hpp"

namespace pali {
namespace {

constexpr KernelType kTypes[] = {KernelType::bf16, KernelType::int8, KernelType::int4};

// [n, k] rows at odd addresses, 0xff (a NaN, -1) around them; scales alike.
class AnyWeights {
 public:
  AnyWeights(KernelType type, int64_t n, int64_t k, std::mt19937& random)
      : type_(type), k_(k), groups_((k + 31) / 32) {
    const int64_t values = type == KernelType::int4 ? (k + 1) / 2 : k;
    stride_ = (type == KernelType::bf16 ? k * 2 : values) + 5;
    bytes_.assign(static_cast<size_t>(n * stride_ + 2 * kMargin), std::byte{0xff});
    scales_.assign(static_cast<size_t>(n * groups_ * 4 + 2 * kMargin), std::byte{0xff});
    std::normal_distribution<float> normal(0.0f, 1.0f);
    std::uniform_int_distribution<int> integer(-128, 127);
    for (int64_t j = 0; j < n; ++j) {
      for (int64_t i = 0; i < values; ++i) {
        if (type == KernelType::bf16) {
          set_bf16(j, i, normal(random));
        } else {
          at(j)[i] = static_cast<std::byte>(integer(random));
        }
      }
      for (int64_t g = 0; g < groups_; ++g) {
        const float scale = normal(random) / 64;
        const uint16_t half = f32_to_f16(scale);
        std::byte* to = scales_.data() + kMargin;
        if (type == KernelType::int4) std::memcpy(to + (j * groups_ + g) * 2, &half, 2);
        if (type == KernelType::int8 && g == 0) std::memcpy(to + j * 4, &scale, 4);
      }
    }
  }
  const std::byte* row(int64_t j) const { return bytes_.data() + kMargin + j * stride_; }
  int64_t stride() const { return stride_; }
  const std::byte* scales(int64_t j) const {
    if (type_ == KernelType::bf16) return nullptr;
    return scales_.data() + kMargin + j * (type_ == KernelType::int4 ? groups_ * 2 : 4);
  }
  // What the bf16 product multiplies by.
  double rounded(int64_t j, int64_t i) const {
    if (type_ == KernelType::bf16) return load_weight(row(j), DType::bf16, i);
    if (type_ == KernelType::int8) {
      return double{load_weight(scales(j), DType::f32, 0)} * static_cast<int8_t>(row(j)[i]);
    }
    const float scale = load_weight(scales(j), DType::f16, i / 32);
    return bf16_to_f32(f32_to_bf16(static_cast<float>(int4_value(row(j), k_, i)) * scale));
  }
  void put_zero(int64_t j, int64_t i) {
    if (type_ == KernelType::bf16) return set_bf16(j, i, 0.0f);
    if (type_ == KernelType::int8) at(j)[i] = std::byte{0};
    const int64_t first = i / 32 * 32, half = (std::min<int64_t>(k_ - first, 32) + 1) / 2;
    if (type_ == KernelType::int4) at(j)[first / 2 + (i - first) % half] = std::byte{0x88};
  }
  // Of column i of row j, with others.
  void put_scale(int64_t j, int64_t i, float value) {
    std::byte* of_row = scales_.data() + (scales(j) - scales_.data());
    const uint16_t half = f32_to_f16(value);
    if (type_ == KernelType::int8) std::memcpy(of_row, &value, 4);
    if (type_ == KernelType::int4) std::memcpy(of_row + i / 32 * 2, &half, 2);
  }
  void set_bf16(int64_t j, int64_t i, float value) {
    const uint16_t bits = f32_to_bf16(value);
    std::memcpy(at(j) + i * 2, &bits, 2);
  }

 private:
  static constexpr int64_t kMargin = 65;  // odd: files promise no alignment
  std::byte* at(int64_t j) { return bytes_.data() + kMargin + j * stride_; }
  KernelType type_;
  int64_t k_, groups_, stride_ = 0;
  std::vector<std::byte> bytes_, scales_;
};

class Fused : public EveryTier {
 protected:
  const FusedGemm& gemm() const { return table.fused_bf16; }

  // Rows [m0, m1) times rows [n0, n1) of W.
  void run(const AnyWeights& w, KernelType type, const Poisoned& x, Poisoned& y, int64_t k,
           int64_t k_block, int64_t m0, int64_t m1, int64_t n0, int64_t n1,
           KernelEpilogue epilogue = {}) {
    const FusedGemm& gemm = this->gemm();
    const int64_t m = m1 - m0, panels = (m + gemm.rows - 1) / gemm.rows;
    AlignedBuffer<std::byte> packed(panels * gemm.panel_bytes(k) + 64);
    std::fill_n(packed.data(), packed.size(), std::byte{0xff});
    for (int64_t p = 0; p < panels; ++p) {
      gemm.pack_activations(x.row(m0 + p * gemm.rows), x.stride(),
                            std::min(gemm.rows, m - p * gemm.rows), 0, k, k,
                            packed.data() + p * gemm.panel_bytes(k));
    }
    EXPECT_EQ(packed.data()[packed.size() - 64], std::byte{0xff});
    const int64_t bytes = gemm.scratch_bytes(m, n1 - n0, k, k_block);
    AlignedBuffer<std::byte> scratch(bytes + 64);
    std::fill_n(scratch.data(), scratch.size(), std::byte{0xff});
    gemm.multiply({.x = packed.data(),
                   .m = m,
                   .w = w.row(n0),
                   .w_stride = w.stride(),
                   .scales = w.scales(n0),
                   .type = type,
                   .n = n1 - n0,
                   .k = k,
                   .k_block = k_block,
                   .epilogue = epilogue,
                   .y = y.row(m0) + n0,
                   .y_stride = y.stride(),
                   .scratch = scratch.data(),
                   .next_w = w.row(n0)});
    EXPECT_EQ(scratch.data()[bytes], std::byte{0xff});
  }

  void check(KernelType type, int64_t m, int64_t n, int64_t k, int64_t k_block) {
    std::mt19937 random(static_cast<unsigned>(m * 3 + n * 5 + k * 7));
    const AnyWeights w(type, n, k, random);
    Poisoned x(m, k), y(m, n);
    x.fill(random);
    run(w, type, x, y, k, k_block, 0, m, 0, n);
    for (int64_t i = 0; i < m; ++i) {
      for (int64_t j = 0; j < n; ++j) {
        double expected = 0, magnitude = 0;
        for (int64_t t = 0; t < k; ++t) {
          const double product = double{bf16_to_f32(f32_to_bf16(x.at(i, t)))} * w.rounded(j, t);
          expected += product, magnitude += std::abs(product);
        }
        // One chain along K: a term passes k roundings at most, and that of its scale.
        ASSERT_NEAR(y.at(i, j), expected, magnitude * static_cast<double>(k + 2) * kEps)
            << "type " << static_cast<int>(type) << " m " << m << " n " << n << " k " << k << " at "
            << i << "," << j;
      }
    }
    ASSERT_TRUE(y.untouched());
    // However the work is cut, and whatever stands beside it.
    Poisoned again(m, n);
    const int64_t mc = m > 1 ? m / 2 : m, nc = std::min(n, gemm().w_rows);
    for (int64_t i = 0; i < m; i += mc) {
      for (int64_t j = 0; j < n; j += nc) {
        run(w, type, x, again, k, k_block, i, std::min(i + mc, m), j, std::min(j + nc, n));
      }
    }
    for (int64_t i = 0; i < m; ++i) {
      ASSERT_EQ(0, std::memcmp(y.row(i), again.row(i), static_cast<size_t>(n) * 4));
    }
  }
};
// The one tier that has them; IsaTable.HasEveryEntry sees to it.
INSTANTIATE_TEST_SUITE_P(, Fused, testing::Values(Isa::amx), tier_label);

TEST_P(Fused, MatchesF64) {
  for (const KernelType type : kTypes) {
    for (const int64_t k : lengths()) {
      check(type, 1 + k % 37, 1 + (k * 5) % 41, k, k > 200 ? 96 : 32);
    }
    for (int64_t n = 1; n <= 65; n += n < 31 ? 5 : 1) check(type, 1 + n % 5, n, 40, 64);
    for (int64_t m = 1; m <= 65; m += m < 31 ? 5 : 1) check(type, m, 1 + m % 3, 70, 64);
    check(type, 70, 100, 1664, 1664);
    check(type, 33, 33, 2100, 704);
    for (const int64_t k : kLongLengths) check(type, 3, 5, k, 2048);
  }
}

TEST_P(Fused, PacksColumnsInParts) {
  std::mt19937 random(21);
  for (const int64_t k : {20, 64, 300}) {
    const int64_t m = 19;
    Poisoned x(m, k);
    x.fill(random);
    const size_t bytes = static_cast<size_t>(gemm().panel_bytes(k));
    AlignedBuffer<std::byte> whole(gemm().panel_bytes(k)), parts(gemm().panel_bytes(k));
    std::fill_n(whole.data(), bytes, std::byte{0x5a});
    std::fill_n(parts.data(), bytes, std::byte{0x5a});
    gemm().pack_activations(x.row(0), x.stride(), m, 0, k, k, whole.data());
    for (int64_t first = 0; first < k; first += 128) {
      gemm().pack_activations(x.row(0) + first, x.stride(), m, first,
                              std::min<int64_t>(128, k - first), k, parts.data());
    }
    EXPECT_EQ(std::memcmp(whole.data(), parts.data(), bytes), 0) << k;
  }
}

TEST_P(Fused, EpilogueIsTheRowKernels) {
  const int64_t m = 45, n = 77, k = 33;
  std::mt19937 random(3);
  const AnyWeights w(KernelType::bf16, n, k, random);
  Poisoned x(m, k);
  x.fill(random);
  expect_row_epilogue(table, m, n, random, [&](Poisoned& y, const KernelEpilogue& epilogue) {
    run(w, KernelType::bf16, x, y, k, 64, 0, m, 0, n, epilogue);
  });
}

// As the tile unit has it: a subnormal operand is zero, so is a step's subnormal sum.
TEST_P(Fused, SubnormalsAreZero) {
  const int64_t m = 20, n = 40, k = 50;
  for (const KernelType type : kTypes) {
    std::mt19937 random(4);
    AnyWeights w(type, n, k, random);
    Poisoned x(m, k), y(m, n);
    x.fill(random, 0x1p80f);
    for (int64_t i = 0; i < m; ++i) {
      for (int64_t t = i % 3; t < k; t += 3) x.at(i, t) = 0x1.8p-128f;
    }
    for (int64_t j = 0; type == KernelType::bf16 && j < n; ++j) {
      for (int64_t t = j % 2; t < k; t += 2) w.set_bf16(j, t, 0x1.4p-130f);
    }
    const auto flushed = [](double value) { return std::abs(value) < 0x1p-126 ? 0.0 : value; };
    run(w, type, x, y, k, 64, 0, m, 0, n);
    for (int64_t i = 0; i < m; ++i) {
      for (int64_t j = 0; j < n; ++j) {
        double expected = 0, magnitude = 0;
        for (int64_t t = 0; t < k; ++t) {
          const double a = flushed(bf16_to_f32(f32_to_bf16(x.at(i, t))));
          const double product =
              a * (type == KernelType::bf16 ? flushed(w.rounded(j, t)) : w.rounded(j, t));
          expected += product, magnitude += std::abs(product);
        }
        ASSERT_NEAR(y.at(i, j), expected, magnitude * static_cast<double>(k + 2) * kEps)
            << static_cast<int>(type) << " at " << i << "," << j;
      }
    }
  }
}

TEST_P(Fused, InfinitiesAndNaNStayInTheirSums) {
  const int64_t m = 40, n = 40, k = 70;
  for (const KernelType type : kTypes) {
    std::mt19937 random(5);
    AnyWeights w(type, n, k, random);
    for (const int64_t t : spoilt_columns(k)) w.put_zero(5, t);
    Poisoned x(m, k), before(m, n), y(m, n);
    x.fill(random);
    x.at(0, 33) = x.at(5, 69) = 0.0f;  // to meet infinities of W
    run(w, type, x, before, k, 64, 0, m, 0, n);
    spoil_rows(x, k);
    x.at(38, 69) = kNaN;
    if (type == KernelType::bf16) {
      w.set_bf16(1, 69, kInfinity), w.set_bf16(2, 33, -kInfinity);
      w.set_bf16(4, 0, kInfinity), w.set_bf16(4, 1, -kInfinity);
      w.set_bf16(36, 12, kNaN);
    }
    run(w, type, x, y, k, 64, 0, m, 0, n);
    expect_kinds(y, before, m, n, k, [&](int64_t i, int64_t j, int64_t t) {
      return double{bf16_to_f32(f32_to_bf16(x.at(i, t)))} * w.rounded(j, t);
    });
  }
}

// A scale may multiply a sum, which is of one sign or zero where its terms are of both.
TEST_P(Fused, AScaleThatIsNotFiniteStaysInItsColumn) {
  const int64_t m = 20, n = 40, k = 70;
  for (const KernelType type : {KernelType::int8, KernelType::int4}) {
    for (const float scale : {kInfinity, -kInfinity, kNaN}) {
      std::mt19937 random(7);
      AnyWeights w(type, n, k, random);
      Poisoned x(m, k), before(m, n), y(m, n);
      x.fill(random);
      run(w, type, x, before, k, 64, 0, m, 0, n);
      w.put_scale(33, 69, scale);
      run(w, type, x, y, k, 64, 0, m, 0, n);
      expect_not_finite_in(y, before, m, n, 33, scale);
    }
  }
}

#if defined(__x86_64__)
// Tiles in use are 8 KB more for every switch of threads, and keep a core from its deepest sleep.
TEST_P(Fused, LeavesNoTilesInUse) {
  std::mt19937 random(5);
  const AnyWeights w(KernelType::bf16, 3, 4, random);
  Poisoned x(2, 4), y(2, 3);
  x.fill(random);
  run(w, KernelType::bf16, x, y, 4, 32, 0, 2, 0, 3);
  uint32_t low = 0, high = 0;
  __asm__ volatile("xgetbv" : "=a"(low), "=d"(high) : "c"(1));  // states in use: SDM 1, 13.3
  EXPECT_EQ(low & 0x60000u, 0u);
}
#endif

}  // namespace
}  // namespace pali
