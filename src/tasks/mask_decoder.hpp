// The decoder of PaliGemma's segmentation codes: 16 of them become a mask of 64 x 64.
#pragma once

#include <cstddef>
#include <cstdint>
#include <filesystem>
#include <vector>

#include "io/weight_store.hpp"
#include "tasks/locations.hpp"

namespace pali {

inline constexpr int kMaskSide = 64;

// A convolution's weights, [kh * kw][in][out], and bias [out].
struct MaskConv {
  int in = 0, out = 0;
  std::vector<float> weight, bias;
};

// Immutable; decode may run concurrently.
// Ref: get_reconstruct_masks in big_vision's evaluators/proj/paligemma/transfers/segmentation.py.
class MaskDecoder {
 public:
  // vae-oid.npz, or any file of tensors under its names (io/weight_store.hpp). Tensors of the
  // encoder are left alone. Throws Error(not_found, corrupt_file).
  static MaskDecoder open(const std::filesystem::path& file);
  static MaskDecoder from_store(const WeightStore& store);
  // vae-oid.npz in the model's folder, or in the folder that a model file lies in; empty: none.
  static std::filesystem::path find_beside(const std::filesystem::path& model);

  // [64 * 64], row-major; above 0 is inside.
  std::vector<float> decode(const MaskCodes& codes) const;

 private:
  struct ResidualBlock {
    MaskConv first, second, third;
  };
  int code_width_ = 0;
  std::vector<float> codebook_;  // [128][code_width]
  MaskConv in_, out_;
  ResidualBlock blocks_[2];
  MaskConv up_[4];
};

}  // namespace pali
