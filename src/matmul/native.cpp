// Products on our own kernels. Weights stay where the file has them: few rows of x stream them in
// place (gemv), many rows pack panels of them on the fly into cache-sized scratch (gemm).
// Work is cut over M and N, never over K, and the cut follows from the shape alone: the same bits
// at any thread count.
#include <algorithm>
#include <cstring>

#include "exec/scratch.hpp"
#include "matmul/backends.hpp"
#include "matmul/blocking.hpp"
#include "matmul/epilogue.hpp"
#include "matmul/fused.hpp"
#include "matmul/streamed.hpp"

namespace pali {
namespace {

class NativeLinear final : public PackedLinear {
 public:
  NativeLinear(const WeightRef& weight, const MatmulPolicy& policy)
      : weight_(weight), compute_(policy.compute) {
    if (!weight.rows_contiguous()) turn();
  }
  int64_t out() const override { return weight_.out; }
  int64_t in() const override { return weight_.in; }
  std::string_view backend() const override { return "native"; }
  StreamedWeight streamed(const KernelTable& kernels) const override {
    return {&weight_, compute_ == ComputeType::bf16 && weight_.dtype == DType::bf16 &&
                          kernels.gemm_bf16.multiply != nullptr};
  }

  FusedWeight fused(const KernelTable& kernels) const override {
    const bool has = streamed(kernels).rounds_x && kernels.fused_bf16.multiply != nullptr;
    return has ? FusedWeight{&weight_, &kernels.fused_bf16} : FusedWeight{};
  }

  void run(const Context& context, ConstMat x, Mat y, const Epilogue& epilogue) const override {
    check_run(*this, x, y, epilogue);
    if (x.rows == 0) return;
    const StreamedWeight weight = streamed(context.kernels);
    const bool bf16 = weight.rounds_x;
    const FusedWeight tiles = fused(context.kernels);
    if (x.rows <= kGemvRows) {
      const Product product{this, y, epilogue};
      run_streamed(context, x, {&weight, 1}, {&product, 1});
    } else if (tiles.weight != nullptr) {
      run_fused(context, tiles, x, y, epilogue);
    } else {
      const GemmKernels& gemm = bf16 ? context.kernels.gemm_bf16 : context.kernels.gemm_f32;
      run_gemm(context, gemm, x, y, epilogue);
    }
  }

 private:
  void turn();
  void run_gemm(const Context& context, const GemmKernels& gemm, ConstMat x, Mat y,
                const Epilogue& epilogue) const;

  WeightRef weight_;
  ComputeType compute_;
  AlignedBuffer<std::byte> turned_;  // [out, in] copy of an [in, out] weight
};

// [in, out] weights are turned once, here: a decode step reads rows in place, and a column of such
// a file touches one cache line for two bytes.
void NativeLinear::turn() {
  constexpr int64_t kTile = 32;
  const int64_t bytes = dtype_bytes(weight_.dtype);
  turned_ = AlignedBuffer<std::byte>(weight_.out * weight_.in * bytes);
  for (int64_t o0 = 0; o0 < weight_.out; o0 += kTile) {
    for (int64_t i0 = 0; i0 < weight_.in; i0 += kTile) {
      for (int64_t o = o0; o < std::min(o0 + kTile, weight_.out); ++o) {
        for (int64_t i = i0; i < std::min(i0 + kTile, weight_.in); ++i) {
          const int64_t from = o * weight_.out_stride + i * weight_.in_stride;
          std::memcpy(turned_.data() + (o * weight_.in + i) * bytes, weight_.data + from * bytes,
                      static_cast<size_t>(bytes));
        }
      }
    }
  }
  weight_.data = turned_.data();
  weight_.out_stride = weight_.in;
  weight_.in_stride = 1;
}

void NativeLinear::run_gemm(const Context& context, const GemmKernels& gemm, ConstMat x, Mat y,
                            const Epilogue& epilogue) const {
  const GemmBlocking blocking = gemm_blocking(x.rows, out(), in(), gemm);
  const int64_t element = gemm.element_bytes;
  const KernelType type = kernel_type(weight_.dtype);

  // Activations in the kernel's type, all rows at once; f32 is used as it is.
  const bool pack_rows = gemm.pack_activations != nullptr;
  const int64_t a_stride =
      pack_rows ? padded_stride(round_up(in(), gemm.k_step), element) : x.stride;
  Scratch packed_rows(pack_rows ? x.rows * a_stride * element : 0);
  if (pack_rows) {
    context.pool.parallel_for(x.rows, rows_per_grain(in()), [&](int64_t begin, int64_t end, int) {
      for (int64_t m = begin; m < end; ++m) {
        for (int64_t k = 0; k < in(); k += blocking.kc) {
          gemm.pack_activations(x.row(m) + k, std::min(blocking.kc, in() - k),
                                packed_rows.as<std::byte>() + (m * a_stride + k) * element);
        }
      }
    });
  }
  const std::byte* a =
      pack_rows ? packed_rows.as<const std::byte>() : reinterpret_cast<const std::byte*>(x.data);

  const int64_t panel_bytes = gemm.nr * round_up(blocking.kc, gemm.k_step) * element;
  const int64_t panels = ceil_div(blocking.nc, gemm.nr);
  const int64_t c_stride = padded_stride(blocking.nc, sizeof(float));
  const int64_t m_blocks = ceil_div(x.rows, blocking.mc);

  const auto tile = [&](int64_t index, std::byte* panel_scratch, float* c_scratch) {
    const int64_t m0 = index % m_blocks * blocking.mc, n0 = index / m_blocks * blocking.nc;
    const int64_t mc = std::min(blocking.mc, x.rows - m0);
    const int64_t nc = std::min(blocking.nc, out() - n0);
    for (int64_t k0 = 0; k0 < in(); k0 += blocking.kc) {
      const int64_t kc = std::min(blocking.kc, in() - k0);
      for (int64_t j = 0; j < nc; j += gemm.nr) {
        gemm.pack_weights(weight_.row(n0 + j) + k0 * dtype_bytes(weight_.dtype), type,
                          weight_.out_stride, 1, std::min<int64_t>(gemm.nr, nc - j), kc,
                          panel_scratch + j / gemm.nr * panel_bytes);
      }
      // Rows outside, panels inside: mr rows of x stay in L1 while the panels come from L2.
      for (int64_t i = 0; i < mc; i += gemm.mr) {
        const int64_t rows = std::min<int64_t>(gemm.mr, mc - i);
        const std::byte* a_rows = a + ((m0 + i) * a_stride + k0) * element;
        for (int64_t j = 0; j < nc; j += gemm.nr) {
          gemm.multiply(a_rows, a_stride, rows, panel_scratch + j / gemm.nr * panel_bytes, kc,
                        c_scratch + i * c_stride + j, c_stride, std::min<int64_t>(gemm.nr, nc - j),
                        /*accumulate=*/k0 != 0);
        }
      }
    }
    finish_tile(context.kernels, ConstMat(c_scratch, mc, nc, c_stride), m0, n0, epilogue, y);
  };
  const int64_t tiles = m_blocks * ceil_div(out(), blocking.nc);
  context.pool.parallel_for(tiles, 1, [&](int64_t begin, int64_t end, int) {
    Scratch panel_scratch(panels * panel_bytes);
    Scratch c_scratch(std::min(blocking.mc, x.rows) * c_stride * 4);
    for (int64_t index = begin; index < end; ++index) {
      tile(index, panel_scratch.as<std::byte>(), c_scratch.as<float>());
    }
  });
}

}  // namespace

std::unique_ptr<PackedLinear> native_linear(const WeightRef& weight, const MatmulPolicy& policy) {
  return std::make_unique<NativeLinear>(weight, policy);
}

}  // namespace pali
