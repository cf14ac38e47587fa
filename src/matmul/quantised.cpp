// Products with int8 and int4 weights on our own kernels. Few rows of x stream the weights in
// place, times f32, or integers where that is asked for; many rows multiply them by such integers
// too where the tier has a kernel for it, else widen a tile's rows of W to f32 and go the way of
// f32, or where no more than bf16 is asked for and the tier has tiles, to bf16 on the way into
// those.
#include <algorithm>

#include "exec/scratch.hpp"
#include "matmul/backends.hpp"
#include "matmul/blocking.hpp"
#include "matmul/fused.hpp"
#include "matmul/streamed.hpp"
#include "matmul/tiled.hpp"

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
    if (integers(kernels) != nullptr) return {&weight_, compute_};
    return {&weight_, in_bf16(kernels) ? ComputeType::bf16 : ComputeType::f32};
  }
  FusedWeight fused(const KernelTable& kernels) const override {
    if (const IntegerKernels* own = integers(kernels)) {
      const FusedGemm& gemm = weight_.dtype == DType::i8 ? own->by_int8 : own->by_int4;
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
  // Null where activations are not rounded to integers.
  const IntegerKernels* integers(const KernelTable& kernels) const {
    return compute_ == ComputeType::int8    ? &kernels.int8
           : compute_ == ComputeType::int16 ? &kernels.int16
                                            : nullptr;
  }
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
  const KernelType type = kernel_type(weight_.dtype);
  const bool grouped = weight_.dtype == DType::i4;
  const auto pack = [&](int64_t n0, int64_t n, int64_t k0, int64_t kc, std::byte* panel) {
    const int64_t stride = padded_stride(kc, sizeof(float));
    const int64_t skipped_scales = grouped ? int4_groups(k0) * 2 : 0;
    Scratch wide(gemm.nr * stride * 4);
    for (int64_t row = 0; row < n; ++row) {
      context.kernels.dequantise(weight_.row(n0 + row) + row_bytes(weight_.dtype, k0),
                                 weight_.row_scales(n0 + row) + skipped_scales, type, kc,
                                 wide.as<float>() + row * stride);
    }
    gemm.pack_weights(wide.as<const std::byte>(), KernelType::f32, stride, 1, n, kc, panel);
  };
  run_tiled(context, gemm, reinterpret_cast<const std::byte*>(x.data), x.stride, in(), {pack},
            /*ready=*/nullptr, y, epilogue);
}

}  // namespace

std::unique_ptr<PackedLinear> quantised_linear(const WeightRef& weight,
                                               const MatmulPolicy& policy) {
  return std::make_unique<QuantisedLinear>(weight, policy);
}

}  // namespace pali
