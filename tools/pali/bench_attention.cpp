#include "base/assert.hpp"
#include "bench_products.hpp"
#include "kernels/isa.hpp"
#include "model/random.hpp"
#include "ops/attention.hpp"

namespace pali::bench {
namespace {

struct Shape {
  int64_t tokens, heads, head_dim;
};

Tensor random_tensor(int64_t rows, int64_t cols, uint64_t seed) {
  Tensor tensor(rows, cols);
  RandomBits random(seed);
  for (int64_t i = 0; i < rows; ++i) {
    for (float& value : tensor.view().row_span(i)) value = random.symmetric();
  }
  return tensor;
}

Row bench_shape(const ProductBench& bench, Setup& setup, PeakMeter& peaks, const Shape& shape) {
  const int64_t width = shape.heads * shape.head_dim;
  const Tensor q = random_tensor(shape.tokens, width, 1), k = random_tensor(shape.tokens, width, 2),
               v = random_tensor(shape.tokens, width, 3);
  Tensor out(shape.tokens, width);
  AttentionShape attended;
  attended.heads = attended.kv_heads = shape.heads;
  attended.head_dim = shape.head_dim;
  attended.scale = 0.1f;
  const Context context = setup.context();
  // As an Engine with such weights would compute, if the tier can.
  const DType weights = bench.options.dtype == WeightType::f32 ? DType::f32 : DType::bf16;
  attended.compute = compute_for(bench.options, MatmulBackend::automatic, weights, setup.isa);
  const bool bf16 = attends_in_bf16(attended.compute, context.kernels);
  const auto once = [&] {
    attention(context, attended, q.view(), k.view(), v.view(), {}, out.view());
  };
  once();
  Row row;
  row.name = "attention";
  row.shape = by({shape.tokens, shape.heads, shape.head_dim});
  row.dtype = bf16 ? "bf16" : "f32";
  row.isa = isa_name(setup.isa);
  row.backend = "native";
  row.threads = setup.pool.size();
  const auto tokens = static_cast<double>(shape.tokens);
  row.cost.flops = 4 * tokens * tokens * static_cast<double>(width);
  row.cost.bytes = 4 * 4 * tokens * static_cast<double>(width);
  for (int round = 0; round < bench.runs; ++round) {
    peaks.sample_products();
    row.times_ms.push_back(milliseconds(once));
  }
  row.peak_gflops =
      peaks.gflops(bf16 ? Operands::bf16 : Operands::f32, bf16 && setup.isa == Isa::amx);
  return row;
}

}  // namespace

std::vector<Row> bench_attention(ProductBench& bench) {
  std::vector<Shape> shapes;
  for (const std::string& text : bench.shapes) {
    const std::vector<int64_t> sizes = parse_shape(text);
    PALI_ASSERT(sizes.size() == 3);
    shapes.push_back({sizes[0], sizes[1], sizes[2]});
  }
  // ViT-G at 224, 812 and 1064 px, So400m at 224, 448 and 896 px.
  if (shapes.empty()) {
    shapes = {{256, 16, 104}, {3364, 16, 104}, {5776, 16, 104},
              {256, 16, 72},  {1024, 16, 72},  {4096, 16, 72}};
  }
  Setup setup(bench.options);
  PeakMeter peaks(setup.pool, setup.isa, /*read_bytes=*/0);
  std::vector<Row> rows;
  for (const Shape& shape : shapes) {
    if (bench.on_progress) bench.on_progress(by({shape.tokens, shape.heads, shape.head_dim}));
    rows.push_back(bench_shape(bench, setup, peaks, shape));
  }
  return rows;
}

}  // namespace pali::bench
