// Products by Eigen: slow, plain, and independent of the kernel table, so that the two can be held
// against each other. Always f32, whatever `compute` says.
#include <Eigen/Core>
#include <algorithm>
#include <cmath>
#include <numbers>

#include "exec/scratch.hpp"
#include "matmul/backends.hpp"

namespace pali {
namespace {

using RowMajor = Eigen::Matrix<float, Eigen::Dynamic, Eigen::Dynamic, Eigen::RowMajor>;
using Strided = Eigen::Map<const RowMajor, Eigen::Unaligned, Eigen::OuterStride<>>;

// Rows of W widened and multiplied at a time: a fixed block, so that the cut does not depend on the
// number of threads.
constexpr int64_t kRows = 64;

double activate(Activation activation, double x) {
  switch (activation) {
    case Activation::none:
      return x;
    case Activation::gelu_tanh:  // jax.nn.gelu(approximate=True)
      return 0.5 * x *
             (1 + std::tanh(std::sqrt(2 / std::numbers::pi) * (x + 0.044715 * x * x * x)));
    case Activation::gelu_erf:
      return 0.5 * x * std::erfc(-x / std::numbers::sqrt2);
    case Activation::quick_gelu:
      return x / (1 + std::exp(-1.702 * x));
    case Activation::silu:
      return x / (1 + std::exp(-x));
    case Activation::relu:
      return std::isnan(x) ? x : std::max(x, 0.0);
  }
  return x;
}

class ReferenceLinear final : public PackedLinear {
 public:
  explicit ReferenceLinear(const WeightRef& weight) : weight_(weight) {}
  int64_t out() const override { return weight_.out; }
  int64_t in() const override { return weight_.in; }
  std::string_view backend() const override { return "reference"; }

  void run(const Context& context, ConstMat x, Mat y, const Epilogue& epilogue) const override {
    check_run(*this, x, y, epilogue);
    if (x.rows == 0) return;
    context.pool.parallel_for(ceil_div(out(), kRows), 1, [&](int64_t begin, int64_t end, int) {
      for (int64_t block = begin; block < end; ++block) run_block(block * kRows, x, y, epilogue);
    });
  }

 private:
  void run_block(int64_t first, ConstMat x, Mat y, const Epilogue& epilogue) const {
    const int64_t count = std::min(kRows, out() - first);
    RowMajor w(count, in());
    for (int64_t o = 0; o < count; ++o) {
      for (int64_t i = 0; i < in(); ++i) w(o, i) = weight_.at(first + o, i);
    }
    RowMajor product(x.rows, count);
    product.noalias() =
        Strided(x.data, x.rows, x.cols, Eigen::OuterStride<>(x.stride)) * w.transpose();
    for (int64_t m = 0; m < x.rows; ++m) {
      for (int64_t o = 0; o < count; ++o) {
        double value = product(m, o);
        if (epilogue.bias != nullptr) value += epilogue.bias[first + o];
        value = activate(epilogue.activation, value);
        if (!epilogue.gate.empty()) value *= epilogue.gate.row(m)[first + o];
        if (!epilogue.residual.empty()) value += epilogue.residual.row(m)[first + o];
        y.row(m)[first + o] = static_cast<float>(value);
      }
    }
  }

  WeightRef weight_;
};

}  // namespace

std::unique_ptr<PackedLinear> reference_linear(const WeightRef& weight) {
  return std::make_unique<ReferenceLinear>(weight);
}

}  // namespace pali
