// Products on our own kernels. Weights stay where the file has them: few rows of x stream them in
// place (gemv), many rows pack panels of them on the fly into cache-sized scratch (gemm).
// Work is shared out over M and N, never over K: the same bits at any thread count.
#include <algorithm>
#include <cstring>

#include "exec/scratch.hpp"
#include "matmul/backends.hpp"
#include "matmul/blocking.hpp"
#include "matmul/fused.hpp"
#include "matmul/streamed.hpp"
#include "matmul/tiled.hpp"

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
    const bool bf16 = compute_ == ComputeType::bf16 && weight_.dtype == DType::bf16 &&
                      kernels.gemm_bf16.multiply != nullptr;
    return {&weight_, bf16 ? ComputeType::bf16 : ComputeType::f32};
  }

  FusedWeight fused(const KernelTable& kernels) const override {
    const bool bf16 = streamed(kernels).x == ComputeType::bf16;
    const bool has = bf16 && kernels.fused_bf16.multiply != nullptr;
    return has ? FusedWeight{&weight_, &kernels.fused_bf16} : FusedWeight{};
  }

  void run(const Context& context, ConstMat x, Mat y, const Epilogue& epilogue) const override {
    check_run(*this, x, y, epilogue);
    if (x.rows == 0) return;
    const StreamedWeight weight = streamed(context.kernels);
    const bool bf16 = weight.x == ComputeType::bf16;
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
  const KernelType type = kernel_type(weight_.dtype);
  const auto pack = [&](int64_t n0, int64_t n, int64_t k0, int64_t kc, std::byte* panel) {
    gemm.pack_weights(weight_.row(n0) + k0 * dtype_bytes(weight_.dtype), type, weight_.out_stride,
                      1, n, kc, panel);
  };
  if (gemm.pack_activations == nullptr) {  // f32 is used as it is
    run_tiled(context, gemm, reinterpret_cast<const std::byte*>(x.data), x.stride, in(), pack, y,
              epilogue);
    return;
  }
  // Activations in the kernel's type, all rows at once.
  const int64_t stride = padded_stride(round_up(in(), gemm.k_step), gemm.element_bytes);
  Scratch packed(x.rows * stride * gemm.element_bytes);
  std::byte* const rows = packed.as<std::byte>();
  context.pool.parallel_for(x.rows, rows_per_grain(in()), [&](int64_t begin, int64_t end, int) {
    for (int64_t m = begin; m < end; ++m) {
      gemm.pack_activations(x.row(m), in(), rows + m * stride * gemm.element_bytes);
    }
  });
  run_tiled(context, gemm, rows, stride, in(), pack, y, epilogue);
}

}  // namespace

std::unique_ptr<PackedLinear> native_linear(const WeightRef& weight, const MatmulPolicy& policy) {
  return std::make_unique<NativeLinear>(weight, policy);
}

}  // namespace pali
