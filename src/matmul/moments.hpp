// What the activations that a weight meets have in common: the sum of their outer products.
#pragma once

#include "exec/context.hpp"

namespace pali {

// Sum over all rows x of x^T x, [width, width] in f32: what the squared error of a product turns
// on. GPTQ's H, but for a factor. Ref: Frantar et al., arXiv 2210.17323, section 3.
class ActivationMoments {
 public:
  explicit ActivationMoments(int64_t width);
  void add(const Context& context, ConstMat x);  // x [M, width]
  ConstMat sum(const Context& context);          // of all rows so far
  static int64_t bytes(int64_t width);           // that one of these holds

 private:
  void flush(const Context& context);

  int64_t waiting_ = 0;
  Tensor sum_, columns_;  // columns_: rows of x that wait, turned
};

}  // namespace pali
