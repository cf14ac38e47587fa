// Products with int8 and int4 weights on our own kernels. Few rows of x stream the weights in
// place, times f32, or integers where that is asked for; many rows multiply them by such integers
// too (int4 where the tier has no tiles), else widen a tile's rows of W to f32 and go the way of
// f32, or where no more than bf16 is asked for and the tier has tiles, to bf16 on the way into
// those.
#include <algorithm>

#include "exec/scratch.hpp"
#include "matmul/backends.hpp"
#include "matmul/blocking.hpp"
#include "matmul/epilogue.hpp"
#include "matmul/fused.hpp"
#include "matmul/streamed.hpp"

namespace pali {
namespace {

class QuantisedLinear final : public PackedLinear {
 public:
  QuantisedLinear(const WeightRef& weight, const MatmulPolicy& policy)
      : weight_(weight), compute_(policy.compute) {}
  int64_t out() const override { return weight_.out; }
  int64_t in() const override { return weight_.in; }
  std::string_view backend() const override { return "native"; }
  StreamedWeight streamed(const KernelTable& kernels) const override {
    const bool int8 = compute_ == ComputeType::int8;
    return {&weight_, !int8 && in_bf16(kernels), int8};
  }
  FusedWeight fused(const KernelTable& kernels) const override {
    if (compute_ == ComputeType::int8) {
      const bool int8 = weight_.dtype == DType::i8;
      const FusedGemm& gemm = int8 ? kernels.fused_int8 : kernels.fused_int4;
      if (gemm.multiply != nullptr) return {&weight_, &gemm};
    }
    return in_bf16(kernels) ? FusedWeight{&weight_, &kernels.fused_bf16} : FusedWeight{};
  }

  void run(const Context& context, ConstMat x, Mat y, const Epilogue& epilogue) const override {
    check_run(*this, x, y, epilogue);
    if (x.rows == 0) return;
    const FusedWeight packed = fused(context.kernels);
    if (x.rows <= kGemvRows) {
      const StreamedWeight weight = streamed(context.kernels);
      const Product product{this, y, epilogue};
      run_streamed(context, x, {&weight, 1}, {&product, 1});
    } else if (packed.weight != nullptr) {
      run_fused(context, packed, x, y, epilogue);
    } else {
      run_gemm(context, x, y, epilogue);
    }
  }

 private:
  // Tiles only: AVX512-BF16 has no kernel that takes integers.
  bool in_bf16(const KernelTable& kernels) const {
    return compute_ != ComputeType::f32 && kernels.fused_bf16.multiply != nullptr;
  }
  void run_gemm(const Context& context, ConstMat x, Mat y, const Epilogue& epilogue) const;

  WeightRef weight_;
  ComputeType compute_;
};

void QuantisedLinear::run_gemm(const Context& context, ConstMat x, Mat y,
                               const Epilogue& epilogue) const {
  const GemmKernels& gemm = context.kernels.gemm_f32;
  const GemmBlocking blocking = gemm_blocking(x.rows, out(), in(), gemm);
  const int64_t panel = gemm.nr * blocking.kc;  // gemm_f32 pads nothing along k
  const int64_t panels = ceil_div(blocking.nc, gemm.nr);
  const int64_t c_stride = padded_stride(blocking.nc, sizeof(float));
  const int64_t wide_stride = padded_stride(in(), sizeof(float));
  const int64_t k_blocks = ceil_div(in(), blocking.kc);
  const KernelType type = kernel_type(weight_.dtype);

  // A tile's weights become panels for all of K at once, since scales belong to whole rows; its row
  // blocks then share them.
  const auto column = [&](int64_t n0, float* wide, float* packed, float* c) {
    const int64_t nc = std::min(blocking.nc, out() - n0);
    for (int64_t j = 0; j < nc; j += gemm.nr) {
      const int64_t n = std::min<int64_t>(gemm.nr, nc - j);
      for (int64_t row = 0; row < n; ++row) {
        context.kernels.dequantise(weight_.row(n0 + j + row), weight_.row_scales(n0 + j + row),
                                   type, in(), wide + row * wide_stride);
      }
      for (int64_t kb = 0; kb < k_blocks; ++kb) {
        const int64_t k0 = kb * blocking.kc;
        gemm.pack_weights(reinterpret_cast<const std::byte*>(wide + k0), KernelType::f32,
                          wide_stride, 1, n, std::min(blocking.kc, in() - k0),
                          packed + (kb * panels + j / gemm.nr) * panel);
      }
    }
    for (int64_t m0 = 0; m0 < x.rows; m0 += blocking.mc) {
      const int64_t mc = std::min(blocking.mc, x.rows - m0);
      for (int64_t kb = 0; kb < k_blocks; ++kb) {
        const int64_t k0 = kb * blocking.kc, kc = std::min(blocking.kc, in() - k0);
        for (int64_t i = 0; i < mc; i += gemm.mr) {
          for (int64_t j = 0; j < nc; j += gemm.nr) {
            gemm.multiply(x.row(m0 + i) + k0, x.stride, std::min<int64_t>(gemm.mr, mc - i),
                          packed + (kb * panels + j / gemm.nr) * panel, kc, c + i * c_stride + j,
                          c_stride, std::min<int64_t>(gemm.nr, nc - j), /*accumulate=*/kb != 0);
          }
        }
      }
      finish_tile(context.kernels, ConstMat(c, mc, nc, c_stride), m0, n0, epilogue, y);
    }
  };
  context.pool.parallel_for(ceil_div(out(), blocking.nc), 1, [&](int64_t begin, int64_t end, int) {
    Scratch wide(gemm.nr * wide_stride * 4), packed(k_blocks * panels * panel * 4);
    Scratch c(std::min(blocking.mc, x.rows) * c_stride * 4);
    for (int64_t n = begin; n < end; ++n) {
      column(n * blocking.nc, wide.as<float>(), packed.as<float>(), c.as<float>());
    }
  });
}

}  // namespace

std::unique_ptr<PackedLinear> quantised_linear(const WeightRef& weight,
                                               const MatmulPolicy& policy) {
  return std::make_unique<QuantisedLinear>(weight, policy);
}

}  // namespace pali
