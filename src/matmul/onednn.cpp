// The one file that knows oneDNN (2.6 or 3.x). A product is cut into fixed tiles; each runs as one
// matmul primitive on one thread of our pool, with OpenMP held at one thread there. The epilogue is
// ours, so results of the two backends differ by the order of sums only. In int8 a tile is one
// primitive for each group of x, whose scale oneDNN could not take along. A weight that is not
// aligned to its element in the file gives the bits of one that is.
#include "matmul/backends.hpp"

#ifdef PALI_HAVE_ONEDNN

#include <algorithm>
#include <cstring>
#include <mutex>
#include <oneapi/dnnl/dnnl.hpp>
#include <vector>

#include "exec/scratch.hpp"
#include "kernels/isa.hpp"
#include "matmul/blocking.hpp"
#include "matmul/epilogue.hpp"
#include "matmul/int8_rows.hpp"

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

// x [m, k] times w [n, k] transposed; strides in elements. w_stride 0: w in the layout that the
// primitive likes best.
struct TileShape {
  int64_t m, n, k, x_stride, w_stride, y_stride;
  bool operator==(const TileShape&) const = default;
};

dnnl::matmul::primitive_desc describe(const dnnl::engine& engine, const TileShape& shape,
                                      memory::data_type type, const memory::desc* packed) {
  const bool integers = type == memory::data_type::s8;
  const memory::desc x({shape.m, shape.k}, type, memory::dims{shape.x_stride, 1});
  const memory::desc plain =
      shape.w_stride == 0 ? memory::desc({shape.k, shape.n}, type, memory::format_tag::any)
                          : memory::desc({shape.k, shape.n}, type, memory::dims{1, shape.w_stride});
  const memory::desc& w = packed != nullptr ? *packed : plain;
  const memory::desc y({shape.m, shape.n},
                       integers ? memory::data_type::s32 : memory::data_type::f32,
                       memory::dims{shape.y_stride, 1});
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

// A part of W, columns [k0, k0 + k) of rows [n0, n0 + n), in oneDNN's own layout.
struct PackedTile {
  memory::desc desc;
  AlignedBuffer<std::byte> bytes;
};

// Rows of x in the type that is multiplied: `data`, rows of `stride` elements.
struct Operand {
  const std::byte* data = nullptr;
  int64_t rows = 0, stride = 0;
  const float* scales = nullptr;  // of int8: those of all rows' first group, then of the next
};

class OneDnnLinear final : public PackedLinear {
 public:
  // Throws dnnl::error where oneDNN has no such product.
  OneDnnLinear(const WeightRef& weight, bool prepack)
      : weight_(weight),
        engine_(dnnl::engine::kind::cpu, 0),
        type_(weight.dtype == DType::i8     ? memory::data_type::s8
              : weight.dtype == DType::bf16 ? memory::data_type::bf16
                                            : memory::data_type::f32),
        element_(dtype_bytes(weight.dtype)),
        depth_(weight.dtype == DType::i8 ? kIntegerGroup : weight.in),
        aligned_(reinterpret_cast<uintptr_t>(weight.data) % static_cast<uintptr_t>(element_) == 0) {
    const OneThread one_thread;
    const int64_t n = std::min(out(), kColumns), k = std::min(in(), depth_);
    describe(engine_, {kRows, n, k, in(), weight.out_stride, kColumns}, type_, nullptr);
    if (prepack) pack();
  }
  int64_t out() const override { return weight_.out; }
  int64_t in() const override { return weight_.in; }
  std::string_view backend() const override { return "onednn"; }
  int64_t packed_bytes() const override {
    int64_t bytes = 0;
    for (const PackedTile& tile : packed_) bytes += tile.bytes.size();
    return bytes;
  }
  void run(const Context& context, ConstMat x, Mat y, const Epilogue& epilogue) const override;

 private:
  // oneDNN turns a tile's part of W into panels by itself, so tiles are tall; columns give the
  // threads their work. Measured with AMX over rows 256-4096 and columns 64-8192: one product of
  // the whole runs at 60 % of this, other tiles of this order within 10 to 20 %, in either
  // direction.
  static constexpr int64_t kRows = 1024;
  static constexpr int64_t kInt8Rows = 256;  // integer sums and their floats stay in L2
  static constexpr int64_t kColumns = 256;
  // Rows that a layout is chosen for, where W is packed at load.
  static constexpr int64_t kPackedRows = 256;
  static constexpr size_t kKept = 16;

  bool is_int8() const { return type_ == memory::data_type::s8; }
  int64_t parts() const { return ceil_div(in(), depth_); }
  void pack();
  const PackedTile& packed(int64_t n0, int64_t k0) const {
    return packed_[static_cast<size_t>(n0 / kColumns * parts() + k0 / depth_)];
  }
  int64_t operand_stride() const {
    return padded_stride(is_int8() ? parts() * kIntegerGroup : in(), element_);
  }
  int64_t operand_bytes(ConstMat x) const;
  Operand operand(const Context& context, ConstMat x, Scratch& room) const;
  std::shared_ptr<const TileProduct> product(const TileShape& shape, int64_t n0, int64_t k0) const;
  void multiply(const Operand& x, TileShape shape, int64_t m0, int64_t n0, int64_t k0,
                std::byte* sums, dnnl::stream& stream) const;
  void multiply_integers(const Operand& x, const TileShape& shape, int64_t m0, int64_t n0, Mat sums,
                         dnnl::stream& stream) const;

  WeightRef weight_;
  dnnl::engine engine_;
  memory::data_type type_;
  int64_t element_;  // bytes
  // Columns of one product: all, or of int8 those that have one scale in a row of x.
  int64_t depth_;
  // oneDNN wants elements at multiples of their size: else a tile's rows are copied before each
  // product, their steps kept, since those decide which of its kernels oneDNN takes.
  bool aligned_;
  std::vector<PackedTile> packed_;  // tile after tile of n, its parts of k; empty: W is read where
                                    // it lies
  // oneDNN keeps the generated code in a cache of its own; ours saves describing a tile anew (tens
  // of microseconds). Bounded: emptied when a run of ever new shapes fills it.
  mutable std::mutex mutex_;
  mutable std::vector<std::pair<TileShape, std::shared_ptr<const TileProduct>>> kept_;
};

void OneDnnLinear::pack() {
  dnnl::stream stream(engine_);
  for (int64_t n0 = 0; n0 < out(); n0 += kColumns) {
    for (int64_t k0 = 0; k0 < in(); k0 += depth_) {
      const int64_t n = std::min(kColumns, out() - n0), k = std::min(depth_, in() - k0);
      const TileShape shape{kPackedRows, n, k, k, /*w_stride=*/0, n};
      PackedTile tile{describe(engine_, shape, type_, nullptr).weights_desc(), {}};
      tile.bytes = AlignedBuffer<std::byte>(static_cast<int64_t>(tile.desc.get_size()));
      // A copy, so that W may lie at any address.
      Scratch rows(n * k * element_);
      for (int64_t j = 0; j < n; ++j) {
        std::memcpy(rows.as<std::byte>() + j * k * element_, weight_.row(n0 + j) + k0 * element_,
                    static_cast<size_t>(k * element_));
      }
      memory from(memory::desc({k, n}, type_, memory::dims{1, k}), engine_, rows.as<std::byte>());
      memory to(tile.desc, engine_, tile.bytes.data());
      dnnl::reorder(from, to).execute(stream, from, to);
      stream.wait();
      packed_.push_back(std::move(tile));
    }
  }
}

std::shared_ptr<const TileProduct> OneDnnLinear::product(const TileShape& shape, int64_t n0,
                                                         int64_t k0) const {
  const std::lock_guard lock(mutex_);
  for (const auto& [kept_shape, kept] : kept_) {
    if (kept_shape == shape) return kept;
  }
  const memory::desc* layout = packed_.empty() ? nullptr : &packed(n0, k0).desc;
  auto made = std::make_shared<const TileProduct>(describe(engine_, shape, type_, layout));
  if (kept_.size() >= kKept) kept_.clear();
  kept_.emplace_back(shape, made);
  return made;
}

int64_t OneDnnLinear::operand_bytes(ConstMat x) const {
  if (type_ == memory::data_type::f32) return 0;
  const int64_t scales = is_int8() ? parts() * int64_t{sizeof(float)} : 0;
  return x.rows * (operand_stride() * element_ + scales);
}

Operand OneDnnLinear::operand(const Context& context, ConstMat x, Scratch& room) const {
  if (type_ == memory::data_type::f32) {
    return {reinterpret_cast<const std::byte*>(x.data), x.rows, x.stride};
  }
  std::byte* const data = room.as<std::byte>();
  const int64_t stride = operand_stride();
  float* const scales = reinterpret_cast<float*>(data + x.rows * stride * element_);
  context.pool.parallel_for(x.rows, rows_per_grain(in()), [&](int64_t begin, int64_t end, int) {
    for (int64_t m = begin; m < end; ++m) {
      std::byte* row = data + m * stride * element_;
      if (is_int8()) {
        for (int64_t p = 0; p < parts(); ++p) {
          scales[p * x.rows + m] =
              int8_group(x.row(m) + p * depth_, std::min(depth_, in() - p * depth_),
                         reinterpret_cast<int8_t*>(row) + p * depth_);
        }
        continue;
      }
      uint16_t* narrow = reinterpret_cast<uint16_t*>(row);
      context.kernels.to_bf16(x.row(m), in(), narrow);
      // oneDNN 3 reads the pair that an odd width ends in, and a NaN there spoils the sum.
      std::fill(narrow + in(), narrow + stride, uint16_t{0});
    }
  });
  return {data, x.rows, stride, scales};
}

// Rows m0 on of x times part k0 of tile n0 of W: m x n sums, of f32 or int32.
void OneDnnLinear::multiply(const Operand& x, TileShape shape, int64_t m0, int64_t n0, int64_t k0,
                            std::byte* sums, dnnl::stream& stream) const {
  shape.k = std::min(depth_, in() - k0);
  const auto part = product(shape, n0, k0);
  const int64_t w_bytes = ((shape.n - 1) * weight_.out_stride + shape.k) * element_;
  Scratch moved(aligned_ || !packed_.empty() ? 0 : w_bytes);
  // oneDNN takes pointers to mutable memory only; sources are not written.
  std::byte* w = const_cast<std::byte*>(weight_.row(n0)) + k0 * element_;
  std::byte* const from = const_cast<std::byte*>(x.data) + (m0 * x.stride + k0) * element_;
  if (!packed_.empty()) {
    w = packed(n0, k0).bytes.data();
  } else if (!aligned_) {
    w = static_cast<std::byte*>(
        std::memcpy(moved.as<std::byte>(), w, static_cast<size_t>(w_bytes)));
  }
  const auto& desc = part->desc;
  Scratch scratchpad(static_cast<int64_t>(desc.scratchpad_desc().get_size()));
  part->primitive.execute(
      stream,
      {{DNNL_ARG_SRC, memory(desc.src_desc(), engine_, from)},
       {DNNL_ARG_WEIGHTS, memory(desc.weights_desc(), engine_, w)},
       {DNNL_ARG_DST, memory(desc.dst_desc(), engine_, sums)},
       {DNNL_ARG_SCRATCHPAD, memory(desc.scratchpad_desc(), engine_, scratchpad.as<std::byte>())}});
  stream.wait();
}

void OneDnnLinear::multiply_integers(const Operand& x, const TileShape& shape, int64_t m0,
                                     int64_t n0, Mat sums, dnnl::stream& stream) const {
  Scratch part(sums.rows * sums.stride * 4);
  for (int64_t i = 0; i < sums.rows; ++i) std::fill(sums.row(i), sums.row(i) + sums.cols, 0.0f);
  for (int64_t k0 = 0; k0 < in(); k0 += depth_) {
    multiply(x, shape, m0, n0, k0, part.as<std::byte>(), stream);
    const float* const scales = x.scales + k0 / depth_ * x.rows + m0;
    for (int64_t i = 0; i < sums.rows; ++i) {
      const int32_t* integers = part.as<int32_t>() + i * sums.stride;
      float* const row = sums.row(i);
      for (int64_t j = 0; j < sums.cols; ++j) row[j] += static_cast<float>(integers[j]) * scales[i];
    }
  }
  for (int64_t j = 0; j < sums.cols; ++j) {
    const float scale = load_weight(weight_.scales, DType::f32, n0 + j);
    for (int64_t i = 0; i < sums.rows; ++i) sums.row(i)[j] *= scale;
  }
}

void OneDnnLinear::run(const Context& context, ConstMat x, Mat y, const Epilogue& epilogue) const {
  check_run(*this, x, y, epilogue);
  if (x.rows == 0) return;
  Scratch room(operand_bytes(x));
  const Operand rows = operand(context, x, room);
  const int64_t m_blocks = ceil_div(x.rows, is_int8() ? kInt8Rows : kRows);
  const int64_t mc = ceil_div(x.rows, m_blocks), nc = std::min(kColumns, out());
  const int64_t n_blocks = ceil_div(out(), nc), y_stride = padded_stride(nc, sizeof(float));
  const int64_t w_stride = packed_.empty() ? weight_.out_stride : 0;
  try {
    context.pool.parallel_for(m_blocks * n_blocks, 1, [&](int64_t begin, int64_t end, int) {
      const OneThread one_thread;
      Scratch tile(mc * y_stride * 4);
      dnnl::stream stream(engine_);
      for (int64_t index = begin; index < end; ++index) {
        const int64_t m0 = index % m_blocks * mc, n0 = index / m_blocks * nc;
        const Mat sums(tile.as<float>(), std::min(mc, x.rows - m0), std::min(nc, out() - n0),
                       y_stride);
        const TileShape shape{sums.rows, sums.cols, in(), rows.stride, w_stride, y_stride};
        if (is_int8()) {
          multiply_integers(rows, shape, m0, n0, sums, stream);
        } else {
          multiply(rows, shape, m0, n0, /*k0=*/0, tile.as<std::byte>(), stream);
        }
        finish_tile(context.kernels, sums, m0, n0, epilogue, y);
      }
    });
  } catch (const dnnl::error& error) {
    throw Error(error.status == dnnl_out_of_memory ? ErrorCode::out_of_memory : ErrorCode::internal,
                std::string("oneDNN failed: ") + error.message + " (tensor " + weight_.name +
                    "); run with the native matmul");
  }
}

// What oneDNN itself takes: it may be held back by ONEDNN_MAX_CPU_ISA. Tiers are sets of bits.
bool onednn_takes(dnnl::cpu_isa tier) {
  const auto bits = static_cast<unsigned>(tier);
  return (static_cast<unsigned>(dnnl::get_effective_cpu_isa()) & bits) == bits;
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
  } else if (weight.dtype == DType::i4) {
    declined = "oneDNN is not given int4 weights here";
  } else if (weight.dtype == DType::i8 && policy.compute != ComputeType::int8) {
    declined = "oneDNN multiplies int8 weights by int8 alone (--compute int8)";
  } else if (weight.dtype == DType::i8 && !onednn_takes(dnnl::cpu_isa::avx512_core_vnni)) {
    declined = "oneDNN has no products of bytes here that do not saturate";
  } else if (weight.dtype == DType::f16) {
    declined = "oneDNN does not multiply f16 here";
  } else if (weight.dtype == DType::bf16 && policy.compute != ComputeType::bf16) {
    declined = "oneDNN cannot widen bf16 weights to f32 on the way";
  } else if (weight.dtype == DType::bf16 && !onednn_takes(dnnl::cpu_isa::avx512_core_bf16)) {
    declined = "oneDNN has no bf16 products here, it would emulate them";
  }
  if (!declined.empty()) return nullptr;
  try {
    return std::make_unique<OneDnnLinear>(weight, policy.prepack);
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
