// Products on our own kernels. Weights stay where the file has them: few rows of x stream them in
// place (gemv), many rows pack panels of them on the fly into cache-sized scratch (gemm), or find
// them packed where that was asked for.
// Work is shared out over M and N, never over K: the same bits at any thread count.
#include <algorithm>
#include <cstring>

#include "exec/scratch.hpp"
#include "kernels/isa.hpp"
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
    if (policy.prepack) prepack(kernel_table(policy.isa));
  }
  int64_t out() const override { return weight_.out; }
  int64_t in() const override { return weight_.in; }
  std::string_view backend() const override { return "native"; }
  int64_t packed_bytes() const override { return panels_.size(); }
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
    if (x.rows <= kGemvRows) {
      const StreamedWeight weight = streamed(context.kernels);
      const Product product{this, y, epilogue};
      run_streamed(context, x, {&weight, 1}, {&product, 1});
    } else if (const GemmKernels* gemm = panelled(context.kernels)) {
      run_gemm(context, *gemm, x, y, epilogue);
    } else {
      run_fused(context, fused(context.kernels), x, y, epilogue);
    }
  }

 private:
  void turn();
  void prepack(const KernelTable& kernels);
  // The kernel of products of many rows; null where a fused one does without panels.
  const GemmKernels* panelled(const KernelTable& kernels) const {
    if (fused(kernels).weight != nullptr) return nullptr;
    return streamed(kernels).x == ComputeType::bf16 ? &kernels.gemm_bf16 : &kernels.gemm_f32;
  }
  auto packing(const GemmKernels& gemm) const {
    return [this, &gemm](int64_t n0, int64_t n, int64_t k0, int64_t kc, std::byte* panel) {
      gemm.pack_weights(weight_.row(n0) + k0 * dtype_bytes(weight_.dtype),
                        kernel_type(weight_.dtype), weight_.out_stride, 1, n, kc, panel);
    };
  }
  void run_gemm(const Context& context, const GemmKernels& gemm, ConstMat x, Mat y,
                const Epilogue& epilogue) const;

  WeightRef weight_;
  ComputeType compute_;
  AlignedBuffer<std::byte> turned_;  // [out, in] copy of an [in, out] weight
  AlignedBuffer<std::byte> panels_;  // pack_panels() of the weight; empty: packed on the way
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

void NativeLinear::prepack(const KernelTable& kernels) {
  if (const GemmKernels* gemm = panelled(kernels)) {
    panels_ = pack_panels(*gemm, out(), in(), packing(*gemm));
  }
}

void NativeLinear::run_gemm(const Context& context, const GemmKernels& gemm, ConstMat x, Mat y,
                            const Epilogue& epilogue) const {
  const auto pack = packing(gemm);
  const int64_t value_bytes = dtype_bytes(weight_.dtype);
  const PanelSource source{pack, weight_.row(0), weight_.out_stride * value_bytes, value_bytes};
  const std::byte* ready = panels_.size() > 0 ? panels_.data() : nullptr;
  if (gemm.pack_activations == nullptr) {  // f32 is used as it is
    run_tiled(context, gemm, reinterpret_cast<const std::byte*>(x.data), x.stride, in(), source,
              ready, y, epilogue);
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
  run_tiled(context, gemm, rows, stride, in(), source, ready, y, epilogue);
}

}  // namespace

std::unique_ptr<PackedLinear> native_linear(const WeightRef& weight, const MatmulPolicy& policy) {
  return std::make_unique<NativeLinear>(weight, policy);
}

}  // namespace pali
