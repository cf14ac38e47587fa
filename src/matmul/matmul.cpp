// Binds a weight to a backend: the one that was asked for, or by shape from the policy table.
#include "matmul/matmul.hpp"

#include <array>
#include <limits>
#include <utility>

#include "matmul/backends.hpp"
#include "matmul/blocking.hpp"
#include "matmul/fused.hpp"
#include "matmul/streamed.hpp"

namespace pali {
namespace {

// Products of few rows by one backend, of many by another.
class LinearByShape final : public PackedLinear {
 public:
  LinearByShape(std::unique_ptr<PackedLinear> native, std::unique_ptr<PackedLinear> onednn,
                DType weight, const MatmulPolicy& policy)
      : native_(std::move(native)),
        onednn_(std::move(onednn)),
        weight_(weight),
        compute_(policy.compute),
        isa_(policy.isa) {}
  int64_t out() const override { return native_->out(); }
  int64_t in() const override { return native_->in(); }
  std::string_view backend() const override { return "native+onednn"; }
  int64_t packed_bytes() const override {
    return native_->packed_bytes() + onednn_->packed_bytes();
  }
  StreamedWeight streamed(const KernelTable& kernels) const override {
    return native_->streamed(kernels);
  }
  void run(const Context& context, ConstMat x, Mat y, const Epilogue& epilogue) const override {
    const bool onednn = backend_for(x.rows, weight_, compute_, isa_) == MatmulBackend::onednn;
    (onednn ? onednn_ : native_)->run(context, x, y, epilogue);
  }

 private:
  std::unique_ptr<PackedLinear> native_, onednn_;
  DType weight_;
  ComputeType compute_;
  Isa isa_;
};

// Shows an observer what each product is given. Its products run one by one.
class ObservedLinear final : public PackedLinear {
 public:
  ObservedLinear(std::unique_ptr<PackedLinear> linear, std::string name,
                 ActivationObserver& observer)
      : linear_(std::move(linear)), name_(std::move(name)), observer_(observer) {}
  int64_t out() const override { return linear_->out(); }
  int64_t in() const override { return linear_->in(); }
  std::string_view backend() const override { return linear_->backend(); }
  void run(const Context& context, ConstMat x, Mat y, const Epilogue& epilogue) const override {
    observer_.see(context, name_, x);
    linear_->run(context, x, y, epilogue);
  }

 private:
  std::unique_ptr<PackedLinear> linear_;
  std::string name_;
  ActivationObserver& observer_;
};

void check_weight(const WeightRef& weight) {
  if (!is_float_weight(weight.dtype) && !is_quantised(weight.dtype)) {
    throw Error(ErrorCode::unsupported, "products with " + std::string(dtype_name(weight.dtype)) +
                                            " weights are not supported (tensor " + weight.name +
                                            "); convert it to f32, bf16, f16, int8 or int4");
  }
  PALI_ASSERT(!weight.empty() && weight.out >= 1 && weight.in >= 1);
  PALI_ASSERT(weight.out_stride >= 1 && weight.in_stride >= 1);
  PALI_ASSERT(
      !is_quantised(weight.dtype) ||
      (weight.scales != nullptr && weight.out_stride == weight.in && weight.in_stride == 1));
}

}  // namespace

void check_run(const PackedLinear& linear, ConstMat x, Mat y, const Epilogue& epilogue) {
  PALI_ASSERT(x.cols == linear.in() && y.cols == linear.out() && x.rows == y.rows);
  const auto matches = [&](const ConstMat& mat) {
    return mat.empty() || (mat.rows == y.rows && mat.cols == y.cols);
  };
  PALI_ASSERT(matches(epilogue.gate) && matches(epilogue.residual));
}

void run_products(const Context& context, ConstMat x, std::span<const Product> products) {
  constexpr size_t kMost = 8;
  std::array<StreamedWeight, kMost> weights;
  bool together = x.rows >= 1 && x.rows <= kGemvRows && products.size() <= kMost;
  for (size_t p = 0; together && p < products.size(); ++p) {
    weights[p] = products[p].weight->streamed(context.kernels);
    together = weights[p].weight != nullptr && weights[p].x == weights[0].x &&
               weights[p].weight->dtype == weights[0].weight->dtype;
  }
  if (!together) {
    for (const Product& product : products) {
      product.weight->run(context, x, product.y, product.epilogue);
    }
    return;
  }
  for (const Product& product : products) {
    check_run(*product.weight, x, product.y, product.epilogue);
  }
  run_streamed(context, x, std::span(weights).first(products.size()), products);
}

void run_chain(const Context& context, ConstMat x, std::span<const Product> first,
               const Product& last) {
  PALI_ASSERT(first.size() == 1 || first.size() == 2);
  std::array<FusedWeight, 3> weights;
  weights[2] = last.weight->fused(context.kernels);
  bool fused = x.rows > kGemvRows && weights[2].weight != nullptr;
  for (size_t p = 0; p < first.size(); ++p) {
    check_run(*first[p].weight, x, first[p].y, first[p].epilogue);
    weights[p] = first[p].weight->fused(context.kernels);
    fused = fused && weights[p].weight != nullptr && weights[p].gemm == weights[2].gemm;
  }
  const Mat h = first.back().y;
  check_run(*last.weight, h, last.y, last.epilogue);
  if (fused) return run_fused_chain(context, weights, x, first, last);
  run_products(context, x, first);
  last.weight->run(context, h, last.y, last.epilogue);
}

std::unique_ptr<PackedLinear> pack_linear(const WeightRef& weight, const MatmulPolicy& given) {
  check_weight(weight);
  MatmulPolicy policy = given;
  if (ActivationObserver* observer = std::exchange(policy.observer, nullptr)) {
    return std::make_unique<ObservedLinear>(pack_linear(weight, policy), weight.name, *observer);
  }
  auto* const declined = std::exchange(policy.declined, nullptr);
  policy.compute = compute_beside(weight.dtype, policy.compute, policy.isa);
  PALI_ASSERT(policy.isa != Isa::best);
  PALI_ASSERT(policy.compute != ComputeType::automatic);
  if (policy.backend == MatmulBackend::reference) return reference_linear(weight);

  const bool asked = policy.backend == MatmulBackend::onednn;
  const bool useful = policy.backend == MatmulBackend::automatic &&
                      backend_for(std::numeric_limits<int64_t>::max(), weight.dtype, policy.compute,
                                  policy.isa) == MatmulBackend::onednn;
  std::unique_ptr<PackedLinear> onednn;
  if (asked || useful) {
    std::string reason;
    onednn = onednn_linear(weight, policy, reason);
    if (asked && onednn == nullptr && declined != nullptr) ++(*declined)[reason];
  }
  if (asked && onednn != nullptr) return onednn;
  if (onednn != nullptr) policy.prepack = false;  // its many rows are not native's
  auto native =
      is_quantised(weight.dtype) ? quantised_linear(weight, policy) : native_linear(weight, policy);
  if (onednn == nullptr) return native;
  return std::make_unique<LinearByShape>(std::move(native), std::move(onednn), weight.dtype,
                                         policy);
}

std::vector<std::string> declined_remarks(const std::map<std::string, int64_t>& declined) {
  std::vector<std::string> remarks;
  for (const auto& [reason, count] : declined) {
    remarks.push_back("native kernels multiply " + std::to_string(count) +
                      " matrices (--matmul): " + reason);
  }
  return remarks;
}

}  // namespace pali
