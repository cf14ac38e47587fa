// The provenance table: one row a canonical tensor, shared by loader, converter and benchmark.
#pragma once

#include <cstdint>
#include <map>
#include <string>
#include <string_view>
#include <vector>

#include "base/weight_ref.hpp"
#include "io/weight_store.hpp"

namespace pali {

// How a stored tensor becomes the canonical one.
enum class Transform {
  none,
  flatten_in,  // [out, a, b, ...] is seen as [out, a*b*...]: a convolution kernel as a matrix
  rows_part,   // part `part` of `parts` equal slices of the first axis (fused q, k, v)
  axes,        // as TensorRule::axes says: turned, heads split, layers stacked
};

// One place along an axis of `size`: layer 3 of a stack of 26.
struct Pick {
  int64_t index = 0, size = 1;
};

// Least storage precision that conversion may give a tensor; any: int4. Whatever a row allows,
// integers that err too much are not stored (model/storage.hpp).
//   int8  token embeddings of a language model, which may be its output head as well;
//   bf16  what makes visual tokens of pixels, and the language model's of those: a thousandth of a
//         model of billions.
// Steps of pali-mini's answers that choose the token of f32, 400 requests: int4 everywhere 88.1 %,
// with lm.embed in int8 91.3 %, by all of these rules 93.1 %; int8 everywhere 98.4 %, by the rules
// 99.1 %. What int4 costs beyond that lies in all matrices alike, and takes a calibration.
enum class Precision { f32, bf16, int8, any };

struct TensorRule {
  std::string name;                  // ours: "vision.blocks.3.attn.q.weight"
  std::vector<std::string> sources;  // tried in order; the canonical name itself is tried first
  std::vector<int64_t> shape;        // canonical: [n] vectors, [out, in] matrices
  Transform transform = Transform::none;
  int part = 0, parts = 1;
  Precision least = Precision::any;
  bool optional = false;
  // Transform::axes: a letter an axis as it is stored, '>', the axes that make a row's number, ',',
  // those along it. "io>o,i" is [in, out]; "ihd>hd,i" has its rows split into heads; "lihd>hd,i" is
  // one of a stack of layers: axes not named again are picked, in order. A vector is one row
  // ("hd>hd").
  std::string axes = {};
  std::vector<Pick> picks = {};
};

// A row bound to its bytes. Vectors are seen as one row.
struct BoundTensor {
  TensorRule rule;
  WeightRef ref;       // vectors: out = 1, in = n; without data where load() has yet to make it
  std::string source;  // the name found in the file
};

// Canonical tensors of a store. Borrows the bytes of the store where it can.
class TensorTable {
 public:
  // Throws Error(corrupt_file): missing tensors (the first five and the count), wrong shape or
  // dtype (tensor, expected, found). A matrix under its canonical name may be quantised: I8 or U8
  // with its "NAME.scale" beside it (models/FORMAT.md).
  static TensorTable bind(const WeightStore& store, std::vector<TensorRule> rules);

  // Makes all that is used ready: unpacks what is deflated, turns what no strides can describe,
  // compares checksums, looks at scales. Apart from bind, which reads no data: to look into a large
  // file takes no pass over it. `store` is the one of bind. Throws Error(corrupt_file).
  void load(const WeightStore& store);

  // After load(): puts the rows of every matrix one after another, as products want them. What lies
  // so already stays where it is.
  void turn();
  bool has(std::string_view name) const;
  // After load(). Throws Error(internal) for a name without a row or an absent optional one.
  const WeightRef& matrix(std::string_view name) const;
  // A vector (or matrix, row by row) widened to f32.
  std::vector<float> values(std::string_view name) const;
  const std::map<std::string, BoundTensor, std::less<>>& bound() const { return bound_; }
  // Names in the store that no row used.
  const std::vector<std::string>& unused() const { return unused_; }
  // Parameters by storage type; each stored tensor once.
  std::map<std::string, int64_t> parameters_by_dtype() const;
  int64_t parameters() const;

 private:
  void check_scales(const std::string& where) const;
  std::byte* own(int64_t bytes);

  std::map<std::string, BoundTensor, std::less<>> bound_;
  std::vector<std::string> unused_;
  std::map<std::string, int64_t> parameters_by_dtype_;
  std::vector<AlignedBuffer<std::byte>> owned_;  // unpacked or turned by load()
};

}  // namespace pali
