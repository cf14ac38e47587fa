// The one file that knows oneDNN (2.6 or 3.x). A product is cut into fixed tiles; each runs as one
// matmul primitive on one thread of our pool, with OpenMP held at one thread there. The epilogue is
// ours, so results of the two backends differ by the order of sums only. A weight that is not
// aligned to its element in the file gives the bits of one that is.
#include "matmul/backends.hpp"

#ifdef PALI_HAVE_ONEDNN

#include <algorithm>
#include <cstring>
#include <mutex>
#include <oneapi/dnnl/dnnl.hpp>
#include <unordered_map>
#include <vector>

#include "exec/scratch.hpp"
#include "kernels/isa.hpp"
#include "matmul/blocking.hpp"
#include "matmul/epilogue.hpp"

#if DNNL_CPU_THREADING_RUNTIME == DNNL_RUNTIME_OMP
extern "C" {
void omp_set_num_threads(int);
int omp_get_max_threads(void);
}
#endif

namespace pali {
namespace {

using dnnl::memory;

// oneDNN forks by OpenMP, inside of our workers that would be threads times threads. The limit is
// kept by OpenMP for each thread apart, so nobody else is affected; a caller's own is put back.
class OneThread {
 public:
#if DNNL_CPU_THREADING_RUNTIME == DNNL_RUNTIME_OMP
  OneThread() : before_(omp_get_max_threads()) {
    if (before_ != 1) omp_set_num_threads(1);
  }
  ~OneThread() {
    if (before_ != 1) omp_set_num_threads(before_);
  }

 private:
  int before_;
#else
  OneThread() {}
#endif
  OneThread(const OneThread&) = delete;
  OneThread& operator=(const OneThread&) = delete;
};

// x [m, k] times w [n, k] transposed; strides in elements.
struct TileShape {
  int64_t m, n, k, x_stride, w_stride, y_stride;
  bool operator==(const TileShape&) const = default;
};

dnnl::matmul::primitive_desc describe(const dnnl::engine& engine, const TileShape& shape,
                                      memory::data_type type) {
  const memory::desc x({shape.m, shape.k}, type, memory::dims{shape.x_stride, 1});
  const memory::desc w({shape.k, shape.n}, type, memory::dims{1, shape.w_stride});
  const memory::desc y({shape.m, shape.n}, memory::data_type::f32, memory::dims{shape.y_stride, 1});
  dnnl::primitive_attr attributes;
  attributes.set_scratchpad_mode(dnnl::scratchpad_mode::user);
#if DNNL_VERSION_MAJOR >= 3
  return dnnl::matmul::primitive_desc(engine, x, w, y, attributes);
#else
  return dnnl::matmul::primitive_desc(dnnl::matmul::desc(x, w, y), attributes, engine);
#endif
}

struct TileProduct {
  explicit TileProduct(const dnnl::matmul::primitive_desc& described)
      : desc(described), primitive(described) {}
  dnnl::matmul::primitive_desc desc;
  dnnl::matmul primitive;
};

class OneDnnLinear final : public PackedLinear {
 public:
  // Throws dnnl::error where oneDNN has no such product.
  explicit OneDnnLinear(const WeightRef& weight)
      : weight_(weight),
        engine_(dnnl::engine::kind::cpu, 0),
        type_(weight.dtype == DType::bf16 ? memory::data_type::bf16 : memory::data_type::f32),
        aligned_(reinterpret_cast<uintptr_t>(weight.data) %
                     static_cast<uintptr_t>(dtype_bytes(weight.dtype)) ==
                 0) {
    const OneThread one_thread;
    describe(engine_, {kRows, std::min(out(), kColumns), in(), in(), weight.out_stride, kColumns},
             type_);
  }
  int64_t out() const override { return weight_.out; }
  int64_t in() const override { return weight_.in; }
  std::string_view backend() const override { return "onednn"; }
  void run(const Context& context, ConstMat x, Mat y, const Epilogue& epilogue) const override;

 private:
  // oneDNN turns a tile's part of W into panels by itself, so tiles are tall; columns give the
  // threads their work. Measured with AMX over rows 256-4096 and columns 64-8192: one product of
  // the whole runs at 60 % of this, other tiles of this order within 10 to 20 %, in either
  // direction.
  static constexpr int64_t kRows = 1024;
  static constexpr int64_t kColumns = 256;
  static constexpr size_t kKept = 16;

  std::shared_ptr<const TileProduct> product(const TileShape& shape) const;

  WeightRef weight_;
  dnnl::engine engine_;
  memory::data_type type_;
  // oneDNN wants elements at multiples of their size: else a tile's rows are copied before each
  // product, their steps kept, since those decide which of its kernels oneDNN takes.
  bool aligned_;
  // oneDNN keeps the generated code in a cache of its own; ours saves describing a tile anew (tens
  // of microseconds). Bounded: emptied when a run of ever new shapes fills it.
  mutable std::mutex mutex_;
  mutable std::vector<std::pair<TileShape, std::shared_ptr<const TileProduct>>> kept_;
};

std::shared_ptr<const TileProduct> OneDnnLinear::product(const TileShape& shape) const {
  const std::lock_guard lock(mutex_);
  for (const auto& [kept_shape, kept] : kept_) {
    if (kept_shape == shape) return kept;
  }
  auto made = std::make_shared<const TileProduct>(describe(engine_, shape, type_));
  if (kept_.size() >= kKept) kept_.clear();
  kept_.emplace_back(shape, made);
  return made;
}

void OneDnnLinear::run(const Context& context, ConstMat x, Mat y, const Epilogue& epilogue) const {
  check_run(*this, x, y, epilogue);
  if (x.rows == 0) return;
  const bool bf16 = type_ == memory::data_type::bf16;
  const int64_t element = bf16 ? 2 : 4;
  const int64_t x_stride = bf16 ? padded_stride(in(), element) : x.stride;
  Scratch narrow(bf16 ? x.rows * x_stride * element : 0);
  if (bf16) {
    context.pool.parallel_for(x.rows, rows_per_grain(in()), [&](int64_t begin, int64_t end, int) {
      for (int64_t m = begin; m < end; ++m) {
        uint16_t* row = narrow.as<uint16_t>() + m * x_stride;
        context.kernels.to_bf16(x.row(m), in(), row);
        // oneDNN 3 reads the pair that an odd width ends in, and a NaN there spoils the sum.
        std::fill(row + in(), row + x_stride, uint16_t{0});
      }
    });
  }
  const std::byte* rows =
      bf16 ? narrow.as<const std::byte>() : reinterpret_cast<const std::byte*>(x.data);

  const int64_t m_blocks = ceil_div(x.rows, kRows);
  const int64_t mc = ceil_div(x.rows, m_blocks), nc = std::min(kColumns, out());
  const int64_t y_stride = padded_stride(nc, sizeof(float));
  // At most four shapes: whole tiles, the last row of them, the last column, the corner.
  const auto shape_of = [&](int64_t m, int64_t n) {
    return TileShape{m, n, in(), x_stride, weight_.out_stride, y_stride};
  };
  const int64_t m_tail = x.rows - (m_blocks - 1) * mc, n_blocks = ceil_div(out(), nc);
  const int64_t n_tail = out() - (n_blocks - 1) * nc;
  std::shared_ptr<const TileProduct> products[2][2];
  int64_t scratchpad_bytes = 0;
  try {
    const OneThread one_thread;
    for (const bool last_m : {false, true}) {
      for (const bool last_n : {false, true}) {
        auto& slot = products[last_m][last_n];
        slot = product(shape_of(last_m ? m_tail : mc, last_n ? n_tail : nc));
        scratchpad_bytes = std::max(scratchpad_bytes,
                                    static_cast<int64_t>(slot->desc.scratchpad_desc().get_size()));
      }
    }
    context.pool.parallel_for(m_blocks * n_blocks, 1, [&](int64_t begin, int64_t end, int) {
      const OneThread one_thread_here;
      Scratch scratchpad(scratchpad_bytes), tile(mc * y_stride * 4);
      const auto tile_bytes = [&](int64_t n) {
        return ((n - 1) * weight_.out_stride + in()) * element;
      };
      Scratch moved(aligned_ ? 0 : tile_bytes(nc));
      dnnl::stream stream(engine_);
      for (int64_t index = begin; index < end; ++index) {
        const int64_t mb = index % m_blocks, nb = index / m_blocks;
        const TileProduct& part = *products[mb == m_blocks - 1][nb == n_blocks - 1];
        const int64_t m0 = mb * mc, n0 = nb * nc;
        // oneDNN takes pointers to mutable memory only; sources are not written.
        void* x_data = const_cast<std::byte*>(rows + m0 * x_stride * element);
        void* w_data = const_cast<std::byte*>(weight_.row(n0));
        const int64_t m = mb == m_blocks - 1 ? m_tail : mc, n = nb == n_blocks - 1 ? n_tail : nc;
        if (!aligned_) {
          std::memcpy(moved.as<std::byte>(), w_data, static_cast<size_t>(tile_bytes(n)));
          w_data = moved.as<std::byte>();
        }
        part.primitive.execute(
            stream, {{DNNL_ARG_SRC, memory(part.desc.src_desc(), engine_, x_data)},
                     {DNNL_ARG_WEIGHTS, memory(part.desc.weights_desc(), engine_, w_data)},
                     {DNNL_ARG_DST, memory(part.desc.dst_desc(), engine_, tile.as<float>())},
                     {DNNL_ARG_SCRATCHPAD,
                      memory(part.desc.scratchpad_desc(), engine_, scratchpad.as<std::byte>())}});
        stream.wait();
        finish_tile(context.kernels, ConstMat(tile.as<float>(), m, n, y_stride), m0, n0, epilogue,
                    y);
      }
    });
  } catch (const dnnl::error& error) {
    throw Error(error.status == dnnl_out_of_memory ? ErrorCode::out_of_memory : ErrorCode::internal,
                std::string("oneDNN failed: ") + error.message + " (tensor " + weight_.name +
                    "); run with the native matmul");
  }
}

}  // namespace

bool onednn_built() { return true; }

std::string onednn_version() {
  const dnnl_version_t* version = dnnl_version();
  return std::to_string(version->major) + "." + std::to_string(version->minor) + "." +
         std::to_string(version->patch);
}

std::unique_ptr<PackedLinear> onednn_linear(const WeightRef& weight, const MatmulPolicy& policy,
                                            std::string& declined) {
  // oneDNN's cap on instructions is one for the process, and set once: it cannot follow an Engine.
  Isa best = Isa::scalar;
  for (const IsaTier& tier : isa_tiers()) {
    if (tier.available) best = tier.isa;
  }
  if (policy.isa != best) {
    declined = std::string("oneDNN follows the CPU's best tier only, and ") + isa_name(policy.isa) +
               " is forced";
  } else if (!weight.rows_contiguous()) {
    declined = "oneDNN is given [out, in] weights only";
  } else if (is_quantised(weight.dtype)) {
    declined = "oneDNN is not given quantised weights here";
  } else if (weight.dtype == DType::f16) {
    declined = "oneDNN does not multiply f16 here";
  } else if (weight.dtype == DType::bf16 && policy.compute != ComputeType::bf16) {
    declined = "oneDNN cannot widen bf16 weights to f32 on the way";
  } else if (weight.dtype == DType::bf16 && policy.isa < Isa::avx512_bf16) {
    declined = "this CPU has no bf16 products, oneDNN would emulate them";
  }
  if (!declined.empty()) return nullptr;
  try {
    return std::make_unique<OneDnnLinear>(weight);
  } catch (const dnnl::error& error) {
    declined = std::string("oneDNN: ") + error.message;
    return nullptr;
  }
}

}  // namespace pali

#else

namespace pali {

bool onednn_built() { return false; }

std::string onednn_version() { return ""; }

std::unique_ptr<PackedLinear> onednn_linear(const WeightRef&, const MatmulPolicy&,
                                            std::string& declined) {
  declined = "this build has no oneDNN";
  return nullptr;
}

}  // namespace pali

#endif
