#include "tasks/mask_decoder.hpp"

#include <algorithm>
#include <cmath>
#include <string>
#include <system_error>

#include "base/quote.hpp"
#include "pali/error.hpp"

namespace pali {
namespace {

namespace fs = std::filesystem;

constexpr int64_t kMostChannels = 4096;
constexpr int kGrid = 4;  // codes lie 4 x 4

// Positions of a picture with their channels side by side: [side * side][channels].
struct Grid {
  int side = 0, channels = 0;
  std::vector<float> values;
  Grid(int side_, int channels_)
      : side(side_),
        channels(channels_),
        values(static_cast<size_t>(side_) * static_cast<size_t>(side_) *
               static_cast<size_t>(channels_)) {}
  float* at(int y, int x) { return values.data() + (static_cast<size_t>(y) * side + x) * channels; }
  const float* at(int y, int x) const { return const_cast<Grid*>(this)->at(y, x); }
};

void relu(Grid& grid) {
  for (float& value : grid.values) value = std::max(value, 0.0f);
}

// to[out] += from[in] * weight[in][out].
void add_product(const float* from, const float* weight, int in, int out, float* to) {
  for (int i = 0; i < in; ++i, weight += out) {
    const float value = from[i];
    if (value == 0) continue;  // after a ReLU, half of them
    for (int o = 0; o < out; ++o) to[o] += value * weight[o];
  }
}

Grid with_bias(const MaskConv& conv, int side) {
  Grid out(side, conv.out);
  for (size_t at = 0; at < out.values.size(); at += conv.bias.size()) {
    std::copy(conv.bias.begin(), conv.bias.end(), out.values.begin() + static_cast<long>(at));
  }
  return out;
}

// Kernel size x size, the picture's edge padded with zeros so that its size stays.
Grid convolve(const Grid& from, const MaskConv& conv, int size) {
  Grid out = with_bias(conv, from.side);
  const int reach = size / 2;
  for (int y = 0; y < from.side; ++y) {
    for (int x = 0; x < from.side; ++x) {
      for (int ky = 0; ky < size; ++ky) {
        for (int kx = 0; kx < size; ++kx) {
          const int fy = y + ky - reach, fx = x + kx - reach;
          if (fy < 0 || fx < 0 || fy >= from.side || fx >= from.side) continue;
          const auto tap = static_cast<size_t>((ky * size + kx) * conv.in) * conv.out;
          add_product(from.at(fy, fx), conv.weight.data() + tap, conv.in, conv.out, out.at(y, x));
        }
      }
    }
  }
  return out;
}

// Transposed convolution, kernel 4 x 4, stride 2, padding 1 (PyTorch's terms; flax's padding=2 with
// transpose_kernel is the same): twice the side. Input (y, x) goes to 2y - 1 + ky, 2x - 1 + kx.
Grid convolve_up(const Grid& from, const MaskConv& conv) {
  Grid out = with_bias(conv, 2 * from.side);
  for (int y = 0; y < from.side; ++y) {
    for (int x = 0; x < from.side; ++x) {
      for (int ky = 0; ky < 4; ++ky) {
        for (int kx = 0; kx < 4; ++kx) {
          const int ty = 2 * y - 1 + ky, tx = 2 * x - 1 + kx;
          if (ty < 0 || tx < 0 || ty >= out.side || tx >= out.side) continue;
          const auto tap = static_cast<size_t>((ky * 4 + kx) * conv.in) * conv.out;
          add_product(from.at(y, x), conv.weight.data() + tap, conv.in, conv.out, out.at(ty, tx));
        }
      }
    }
  }
  return out;
}

class Loader {
 public:
  explicit Loader(const WeightStore& store) : store_(store) {}

  // A tensor as f32, row-major; `expected` with -1 where any size will do.
  std::vector<float> tensor(const std::string& name, const std::vector<int64_t>& expected,
                            std::vector<int64_t>& shape) const {
    const StoredTensor* found = store_.find(name);
    if (found == nullptr) fail("tensor " + quote(name) + " is missing");
    bool fits = found->shape.size() == expected.size();
    for (size_t i = 0; fits && i < expected.size(); ++i) {
      const int64_t size = found->shape[i];
      fits = expected[i] < 0 ? size >= 1 && size <= kMostChannels : size == expected[i];
    }
    if (!fits || !is_float_weight(found->dtype)) {
      fail("tensor " + quote(name) + ": expected float of shape " + text(expected) + ", found " +
           dtype_name(found->dtype) + " of " + text(found->shape));
    }
    shape = found->shape;
    std::vector<std::byte> unpacked;
    const std::byte* data = found->data;
    if (data == nullptr) {
      unpacked.resize(static_cast<size_t>(found->bytes));
      found->unpack(unpacked);
      data = unpacked.data();
    }
    std::vector<float> values(static_cast<size_t>(found->elements()));
    for (size_t i = 0; i < values.size(); ++i) {
      values[i] = load_weight(data, found->dtype, place(*found, static_cast<int64_t>(i)));
      if (!std::isfinite(values[i])) fail("tensor " + quote(name) + " has a value not finite");
    }
    return values;
  }

  // "{name}.weight" [out, in, size, size], or [in, out, size, size] where transposed, and
  // "{name}.bias" [out]. in -1: any.
  MaskConv conv(const std::string& name, int64_t in, int64_t out, int size, bool transposed) const {
    std::vector<int64_t> shape;
    const std::vector<int64_t> expected = transposed ? std::vector<int64_t>{in, out, size, size}
                                                     : std::vector<int64_t>{out, in, size, size};
    const std::vector<float> theirs = tensor(name + ".weight", expected, shape);
    MaskConv conv;
    conv.in = static_cast<int>(shape[transposed ? 0 : 1]);
    conv.out = static_cast<int>(shape[transposed ? 1 : 0]);
    conv.weight.resize(theirs.size());
    const auto taps = static_cast<size_t>(size) * static_cast<size_t>(size);
    const auto ins = static_cast<size_t>(conv.in), outs = static_cast<size_t>(conv.out);
    for (size_t i = 0; i < ins; ++i) {
      for (size_t o = 0; o < outs; ++o) {
        const size_t row = transposed ? i * outs + o : o * ins + i;
        for (size_t tap = 0; tap < taps; ++tap) {
          conv.weight[(tap * ins + i) * outs + o] = theirs[row * taps + tap];
        }
      }
    }
    conv.bias = tensor(name + ".bias", {conv.out}, shape);
    return conv;
  }

  [[noreturn]] void fail(const std::string& what) const {
    throw Error(ErrorCode::corrupt_file, "not a usable mask decoder: " + what + " (" +
                                             store_.where() + "); fetch vae-oid.npz again");
  }

 private:
  static int64_t place(const StoredTensor& tensor, int64_t index) {
    if (tensor.strides.empty() || tensor.data == nullptr) return index;
    int64_t at = 0;
    for (size_t axis = tensor.shape.size(); axis-- > 0;) {
      at += index % tensor.shape[axis] * tensor.strides[axis];
      index /= tensor.shape[axis];
    }
    return at;
  }
  static std::string text(const std::vector<int64_t>& shape) {
    std::string out = "[";
    for (const int64_t size : shape) {
      if (out.size() > 1) out += ", ";
      out += size < 0 ? "?" : std::to_string(size);
    }
    return out + "]";
  }
  const WeightStore& store_;
};

}  // namespace

MaskDecoder MaskDecoder::open(const fs::path& file) {
  std::error_code ignored;
  if (!fs::exists(file, ignored)) {
    throw Error(ErrorCode::not_found,
                "no such file (" + file.string() + "); give vae-oid.npz, PaliGemma's mask decoder");
  }
  const bool npz = file.extension() != ".safetensors";
  return from_store(npz ? WeightStore::open_npz(file) : WeightStore::open_safetensors(file));
}

MaskDecoder MaskDecoder::from_store(const WeightStore& store) {
  const Loader load(store);
  MaskDecoder decoder;
  std::vector<int64_t> shape;
  decoder.codebook_ = load.tensor("_vq_vae._embedding", {kMaskCodes, -1}, shape);
  decoder.code_width_ = static_cast<int>(shape[1]);
  decoder.in_ = load.conv("decoder.0", shape[1], -1, 1, /*transposed=*/false);
  int64_t width = decoder.in_.out;
  for (int i = 0; i < 2; ++i) {
    const std::string name = "decoder." + std::to_string(2 + i) + ".net.";
    ResidualBlock& block = decoder.blocks_[i];
    block.first = load.conv(name + "0", width, -1, 3, /*transposed=*/false);
    block.second = load.conv(name + "2", block.first.out, -1, 3, /*transposed=*/false);
    block.third = load.conv(name + "4", block.second.out, width, 1, /*transposed=*/false);
  }
  for (int i = 0; i < 4; ++i) {
    const std::string name = "decoder." + std::to_string(4 + 2 * i);
    decoder.up_[i] = load.conv(name, width, -1, 4, /*transposed=*/true);
    width = decoder.up_[i].out;
  }
  decoder.out_ = load.conv("decoder.12", width, 1, 1, /*transposed=*/false);
  return decoder;
}

fs::path MaskDecoder::find_beside(const fs::path& model) {
  std::error_code ignored;
  const fs::path folder = fs::is_directory(model, ignored) ? model : model.parent_path();
  const fs::path file = folder / "vae-oid.npz";
  return fs::is_regular_file(file, ignored) ? file : fs::path();
}

std::vector<float> MaskDecoder::decode(const MaskCodes& codes) const {
  Grid grid(kGrid, code_width_);
  for (size_t i = 0; i < codes.size(); ++i) {
    const auto code = static_cast<size_t>(std::min<int>(codes[i], kMaskCodes - 1));
    const auto width = static_cast<size_t>(code_width_);
    std::copy_n(codebook_.begin() + static_cast<long>(code * width), width,
                grid.values.begin() + static_cast<long>(i * width));
  }
  grid = convolve(grid, in_, 1);
  relu(grid);
  for (const ResidualBlock& block : blocks_) {
    Grid inner = convolve(grid, block.first, 3);
    relu(inner);
    inner = convolve(inner, block.second, 3);
    relu(inner);
    inner = convolve(inner, block.third, 1);
    for (size_t i = 0; i < grid.values.size(); ++i) grid.values[i] += inner.values[i];
  }
  for (const MaskConv& up : up_) {
    grid = convolve_up(grid, up);
    relu(grid);
  }
  return convolve(grid, out_, 1).values;
}

}  // namespace pali
