// The one door to matrix products: a weight bound to a backend, and the product with its epilogue.
#pragma once

#include <cstdint>
#include <map>
#include <memory>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "base/tensor.hpp"
#include "base/weight_ref.hpp"
#include "exec/context.hpp"
#include "pali/options.hpp"

namespace pali {

enum class Activation { none, gelu_tanh, gelu_erf, quick_gelu, silu, relu };

// What happens to a product before it is stored, in this order:
//   y = act(x W^T + bias);  y *= gate (where given);  y += residual (where given)
// `residual` and `gate` have y's shape; residual may be y itself.
struct Epilogue {
  const float* bias = nullptr;  // [out]
  Activation activation = Activation::none;
  ConstMat gate;
  ConstMat residual;
};

// Sees the activations that matrices meet.
class ActivationObserver {
 public:
  virtual ~ActivationObserver() = default;
  // Before each product of `weight` (its canonical name): x [M, in]. Runs may be concurrent.
  virtual void see(const Context& context, const std::string& weight, ConstMat x) = 0;
};

// How products are computed, decided once an Engine (never `automatic` here).
struct MatmulPolicy {
  MatmulBackend backend = MatmulBackend::native;  // automatic: by shape, see matmul/policy.cpp
  // f32: activations stay f32, weights are widened exactly. bf16: activations are rounded to bf16
  // where weights are bf16, or on AMX int8 or int4, and the tier multiplies them; sums stay f32.
  // int16, int8: activations that meet int8 or int4 weights are rounded to integers, group by group
  // of kIntegerGroup (kernels/kernel_table.hpp), but for many rows in int8 that meet int4 where the
  // tier has no such kernel; those and other products beside int8 are in bf16 on AMX, all others
  // in f32.
  ComputeType compute = ComputeType::f32;
  Isa isa = Isa::scalar;                   // the tier of the Context's kernel table
  ActivationObserver* observer = nullptr;  // outlives what is packed
  // Weights are laid out for products of many rows when they are bound, besides where they lie:
  // float ones, but for bf16 on tiles; oneDNN's of int8 too. Else on the way. The same bits on
  // native.
  bool prepack = false;
  // Where given: counts the weights that `backend` was asked to multiply and declines, by its
  // reason. Outlives the binding.
  std::map<std::string, int64_t>* declined = nullptr;
};

// What ComputeType::automatic stands for: bf16 where the weights are bf16, int8 or int4 and the
// tier multiplies them so faster than in f32, int16 beside int8 and int4 where that takes fewer
// instructions, else f32.
// `intel`: of a CPU whose AVX512-BF16 products are slower than its f32 ones. Figures in
// matmul/policy.cpp.
ComputeType automatic_compute(DType weights, MatmulBackend backend, Isa isa, bool intel);

// What products with weights of a type are in where `wanted` is asked for of a whole model:
// integers meet int8 and int4 weights only.
ComputeType compute_beside(DType weights, ComputeType wanted, Isa isa);

// A weight that few rows of x stream from where it lies.
struct StreamedWeight {
  const WeightRef* weight = nullptr;  // rows contiguous; null: this backend has other ways
  // What x is rounded to: bf16 as its product of many rows does.
  ComputeType x = ComputeType::f32;
};

// A weight that many rows of x are packed for.
struct FusedWeight {
  const WeightRef* weight = nullptr;  // rows contiguous; null: this backend has other ways
  const FusedGemm* gemm = nullptr;
};

// A weight bound to a backend. Immutable: runs may be concurrent. The weight's bytes must outlive
// it.
class PackedLinear {
 public:
  virtual ~PackedLinear() = default;
  virtual int64_t out() const = 0;
  virtual int64_t in() const = 0;
  // x [M, in], y [M, out]; y must not overlap x. Bit-equal at any thread count. M >= 0.
  virtual void run(const Context& context, ConstMat x, Mat y,
                   const Epilogue& epilogue = {}) const = 0;
  virtual std::string_view backend() const = 0;
  // What MatmulPolicy::prepack made, in bytes.
  virtual int64_t packed_bytes() const { return 0; }
  // What products of few rows need to know of it; see run_products().
  virtual StreamedWeight streamed(const KernelTable&) const { return {}; }
  // What those of many rows need to; see run_chain().
  virtual FusedWeight fused(const KernelTable&) const { return {}; }
};

// One of several products of the same x.
struct Product {
  const PackedLinear* weight = nullptr;
  Mat y;
  Epilogue epilogue;  // its gate may be the y of an earlier product
};

// y = x W^T for all products, in their order; where x has few rows, in one parallel loop. The same
// bits as one run() after the other.
void run_products(const Context& context, ConstMat x, std::span<const Product> products);

// y = h W^T of `last`, h being the y of the last of one or two `first` products of x; the second's
// gate may be the y of the first. Nobody else reads those: where kernels allow, they never are in
// memory, and are not written. The same bits as the products one after the other.
void run_chain(const Context& context, ConstMat x, std::span<const Product> first,
               const Product& last);

// Binds `weight` (f32, bf16 or f16 in any strides; int8, int4). Falls back to native where a
// backend declines. Throws Error(unsupported) for other types.
std::unique_ptr<PackedLinear> pack_linear(const WeightRef& weight, const MatmulPolicy& policy);

// What MatmulPolicy::declined came to, a line a reason.
std::vector<std::string> declined_remarks(const std::map<std::string, int64_t>& declined);

// True where this build carries oneDNN; its version, e.g. "2.6.3".
bool onednn_built();
std::string onednn_version();

}  // namespace pali
