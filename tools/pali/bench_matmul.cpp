#include <algorithm>
#include <cstdio>
#include <cstring>

#include "base/assert.hpp"
#include "bench_products.hpp"
#include "kernels/isa.hpp"
#include "model/random.hpp"

namespace pali::bench {
namespace {

// A product's weights lie in memory, not in a cache, when their layer's turn comes.
constexpr int64_t kWorkingSet = int64_t{1} << 30;
constexpr int64_t kMostCopies = 64;
// Shorter ones are repeated within a sample.
constexpr double kSampleMs = 5;
constexpr int64_t kGemvRows = 8;

struct Shape {
  int64_t m, n, k;
};

// Random weights of one shape and type, several times over.
class Weights {
 public:
  Weights(const Shape& shape, DType dtype) {
    const int64_t bytes = shape.n * row_bytes(dtype, shape.k);
    const int64_t scale_bytes = dtype == DType::i8   ? shape.n * 4
                                : dtype == DType::i4 ? shape.n * int4_groups(shape.k) * 2
                                                     : 0;
    const int64_t copies = std::clamp<int64_t>(kWorkingSet / bytes, 1, kMostCopies);
    RandomWeights random(dtype, /*seed=*/1);
    for (int64_t i = 0; i < copies; ++i) {
      std::byte* const data = buffers_.emplace_back(bytes).data();
      random.fill({data, static_cast<size_t>(bytes)});
      std::byte* const scales = buffers_.emplace_back(scale_bytes).data();
      random.fill_scales({scales, static_cast<size_t>(scale_bytes)});
      WeightRef ref;
      ref.name = "bench";
      ref.dtype = dtype;
      ref.out = shape.n;
      ref.in = ref.out_stride = shape.k;
      ref.data = data;
      ref.scales = scales;
      refs_.push_back(ref);
    }
  }
  const std::vector<WeightRef>& refs() const { return refs_; }

 private:
  std::vector<AlignedBuffer<std::byte>> buffers_;
  std::vector<WeightRef> refs_;
};

// One backend's turn.
struct Candidate {
  std::vector<std::unique_ptr<PackedLinear>> linears;  // of each copy
  size_t next = 0;
  int64_t repeats = 1;
  Row row;
  Operands operands = Operands::f32;
  bool amx = false;

  void run(const Context& context, ConstMat x, Mat y) {
    linears[next++ % linears.size()]->run(context, x, y);
  }
  double sample(const Context& context, ConstMat x, Mat y) {
    return milliseconds([&] {
             for (int64_t i = 0; i < repeats; ++i) run(context, x, y);
           }) /
           static_cast<double>(repeats);
  }
};

std::vector<MatmulBackend> backends(MatmulBackend asked) {
  if (asked != MatmulBackend::automatic) return {asked};
  return {MatmulBackend::native, MatmulBackend::onednn, MatmulBackend::automatic};
}

std::vector<DType> dtypes(WeightType asked) {
  switch (asked) {
    case WeightType::f32:
      return {DType::f32};
    case WeightType::bf16:
      return {DType::bf16};
    case WeightType::int8:
      return {DType::i8};
    case WeightType::int4:
      return {DType::i4};
    default:
      return {DType::f32, DType::bf16, DType::i8, DType::i4};
  }
}

std::string row_name(int64_t m, Operands operands) {
  return m <= kGemvRows ? "gemv" : std::string("gemm_") + operands_name(operands);
}

class Bench {
 public:
  Bench(ProductBench& bench, Setup& setup)
      : bench_(bench), setup_(setup), peaks_(setup.pool, setup.isa) {}

  std::vector<Row> run(const Shape& shape, DType dtype) {
    const Weights weights(shape, dtype);
    Tensor x(shape.m, shape.k), y(shape.m, shape.n);
    RandomBits random(2);
    for (int64_t i = 0; i < shape.m; ++i) {
      for (float& value : x.view().row_span(i)) value = random.symmetric();
    }
    const Context context = setup_.context();
    std::vector<Candidate> candidates;
    for (const MatmulBackend backend : backends(bench_.options.matmul)) {
      add(candidates, shape, dtype, backend, weights.refs());
    }
    for (Candidate& candidate : candidates) {
      candidate.run(context, x.view(), y.view());
      const double ms = candidate.sample(context, x.view(), y.view());
      candidate.repeats = std::clamp<int64_t>(static_cast<int64_t>(kSampleMs / ms), 1, 1000);
    }
    for (int round = 0; round < bench_.runs; ++round) {
      peaks_.sample();
      for (Candidate& candidate : candidates) {
        candidate.row.times_ms.push_back(candidate.sample(context, x.view(), y.view()));
      }
    }
    std::vector<Row> rows;
    for (Candidate& candidate : candidates) {
      candidate.row.peak_gflops = peaks_.gflops(candidate.operands, candidate.amx);
      candidate.row.peak_gbps = peaks_.gbps();
      rows.push_back(std::move(candidate.row));
    }
    return rows;
  }

 private:
  void add(std::vector<Candidate>& candidates, const Shape& shape, DType dtype,
           MatmulBackend backend, const std::vector<WeightRef>& refs) {
    const ComputeType compute = compute_for(bench_.options, backend, dtype, setup_.isa);
    std::map<std::string, int64_t> declined;
    const MatmulPolicy policy{backend,  compute, setup_.isa, nullptr, bench_.options.prepack,
                              &declined};
    Candidate candidate;
    const std::string what = by({shape.m, shape.n, shape.k}) + " " + weight_name(dtype) + ": ";
    double packing_ms = 0;
    for (const WeightRef& ref : refs) {
      packing_ms += milliseconds([&] { candidate.linears.push_back(pack_linear(ref, policy)); });
      if (!declined.empty()) {
        bench_.remarks.push_back(what + declined.begin()->first);
        return;
      }
    }
    if (candidate.linears.front()->packed_bytes() > 0) {
      char text[80];
      std::snprintf(text, sizeof(text), "%s: packing once, on one thread, takes %.3g ms",
                    backend_name(backend), packing_ms / static_cast<double>(refs.size()));
      bench_.remarks.push_back(what + text);
    }
    candidate.operands = operands_of(compute, dtype);
    candidate.amx = on_amx(backend, compute, setup_.isa);
    Row& row = candidate.row;
    row.name = row_name(shape.m, candidate.operands);
    row.shape = by({shape.m, shape.n, shape.k});
    row.dtype = weight_name(dtype);
    row.isa = isa_name(setup_.isa);
    row.backend = backend_name(backend);
    row.threads = setup_.pool.size();
    row.cost.flops = 2.0 * static_cast<double>(shape.m) * static_cast<double>(shape.n) *
                     static_cast<double>(shape.k);
    const int64_t scales = dtype == DType::i8   ? 4
                           : dtype == DType::i4 ? int4_groups(shape.k) * 2
                                                : 0;
    row.cost.bytes = static_cast<double>(shape.n * (row_bytes(dtype, shape.k) + scales));
    candidates.push_back(std::move(candidate));
  }

  ProductBench& bench_;
  Setup& setup_;
  PeakMeter peaks_;
};

}  // namespace

std::vector<Row> bench_matmul(ProductBench& bench) {
  std::vector<Shape> shapes;
  for (const std::string& text : bench.shapes) {
    const std::vector<int64_t> sizes = parse_shape(text);
    PALI_ASSERT(sizes.size() == 3);
    shapes.push_back({sizes[0], sizes[1], sizes[2]});
  }
  // ViT-G's MLP at 224 px and at 812 px, UL2-XL's at 272 tokens; its decoder's, alone and with four
  // beams; its vocabulary.
  if (shapes.empty()) {
    shapes = {{256, 8192, 1664}, {256, 1664, 8192}, {272, 5120, 2048}, {3364, 8192, 1664},
              {1, 5120, 2048},   {4, 5120, 2048},   {1, 250112, 2048}};
  }
  Setup setup(bench.options);
  Bench run(bench, setup);
  std::vector<Row> rows;
  for (const Shape& shape : shapes) {
    for (const DType dtype : dtypes(bench.options.dtype)) {
      const std::string what = by({shape.m, shape.n, shape.k}) + " " + weight_name(dtype);
      if (bench.on_progress) bench.on_progress(what);
      for (Row& row : run.run(shape, dtype)) rows.push_back(std::move(row));
    }
  }
  return rows;
}

}  // namespace pali::bench
