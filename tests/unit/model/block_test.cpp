// The parts of a block.
#include "model/block.hpp"

#include <gtest/gtest.h>

#include "unit/model/tiny.hpp"

namespace pali::test {
namespace {

// Any number of rows at a time: the same values, in place too.
TEST(Mlp, GoesThroughManyRowsInParts) {
  const Checkpoint gated = tiny_checkpoint(t5_json(), 3);
  const Checkpoint plain = tiny_checkpoint(siglip_json(), 3);
  const MatmulPolicy policy{MatmulBackend::native, ComputeType::f32, Isa::scalar};
  for (const bool has_gate : {true, false}) {
    BlockSpec spec;
    spec.mlp = has_gate ? MlpKind::gated : MlpKind::plain;
    spec.activation = Activation::silu;
    const TensorTable& table = has_gate ? gated.table : plain.table;
    const Mlp mlp(spec, table, has_gate ? "lm.encoder.blocks.0.mlp" : "vision.blocks.0.mlp",
                  policy);
    const int64_t width = has_gate ? 18 : 12, inner = has_gate ? 22 : 19;
    TestContext run(2);
    const auto in_parts = [&](int64_t rows, int64_t at_once) {
      const Tensor x = random_matrix(rows, width, 5);
      Tensor y = random_matrix(rows, width, 6);  // what the MLP is added to
      Tensor hidden(at_once, inner), more(at_once, inner);
      mlp.run(run.context, x.view(), hidden.view(), has_gate ? more.view() : Mat(), y.view(),
              y.view());
      return flat(y.view());
    };
    for (const int64_t rows : {1, 7, 50, 130}) {
      const std::vector<float> whole = in_parts(rows, rows);
      for (const int64_t at_once : {32, 64, 96, 160}) {
        const std::vector<float> found = in_parts(rows, at_once);
        for (size_t i = 0; i < whole.size(); ++i) {
          ASSERT_NEAR(found[i], whole[i], 1e-5f) << rows << " rows, " << at_once << " at once";
        }
      }
    }
  }
}

}  // namespace
}  // namespace pali::test
