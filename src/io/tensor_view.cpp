#include "io/tensor_view.hpp"

#include <algorithm>
#include <cstring>
#include <string_view>

#include "base/assert.hpp"
#include "base/checked.hpp"
#include "base/quote.hpp"

namespace pali {
namespace {

std::vector<ViewAxis> stored_axes(const StoredTensor& tensor) {
  std::vector<ViewAxis> axes(tensor.shape.size());
  int64_t stride = 1;
  for (size_t i = axes.size(); i-- > 0;) {
    axes[i] = {tensor.shape[i], tensor.strides.empty() ? stride : tensor.strides[i]};
    stride *= tensor.shape[i];  // within the tensor's bytes, which were checked
  }
  return axes;
}

// Elements of some axes of a tensor whose own number of elements was checked.
int64_t elements(const std::vector<ViewAxis>& axes) {
  int64_t total = 1;
  for (const ViewAxis& axis : axes) total *= axis.size;
  return total;
}

// Neighbours that one step describes become one; axes of one element go.
std::vector<ViewAxis> merged(const std::vector<ViewAxis>& axes) {
  std::vector<ViewAxis> result;
  for (const ViewAxis& axis : axes) {
    if (axis.size == 1) continue;
    if (!result.empty() && result.back().stride == axis.size * axis.stride) {
      result.back() = {result.back().size * axis.size, axis.stride};
    } else {
      result.push_back(axis);
    }
  }
  return result;
}

// Where each index along the axes lies, in elements.
std::vector<int64_t> offsets(const std::vector<ViewAxis>& axes) {
  std::vector<int64_t> result = {0};
  for (const ViewAxis& axis : axes) {
    std::vector<int64_t> finer;
    finer.reserve(result.size() * static_cast<size_t>(axis.size));
    for (const int64_t base : result) {
      for (int64_t i = 0; i < axis.size; ++i) finer.push_back(base + i * axis.stride);
    }
    result = std::move(finer);
  }
  return result;
}

// "lihd>hd,i" of the rule taken apart.
std::optional<TensorView> view_by_axes(const TensorRule& rule, const std::vector<ViewAxis>& axes) {
  const std::string_view spec = rule.axes;
  const size_t arrow = spec.find('>');
  PALI_ASSERT(arrow != std::string_view::npos);
  const std::string_view stored = spec.substr(0, arrow), wanted = spec.substr(arrow + 1);
  if (stored.size() != axes.size()) return std::nullopt;
  TensorView view;
  const size_t comma = wanted.find(',');
  PALI_ASSERT((comma != std::string_view::npos) == (rule.shape.size() == 2));
  for (size_t i = 0; i < wanted.size(); ++i) {
    if (i == comma) continue;
    const size_t at = stored.find(wanted[i]);
    PALI_ASSERT(at != std::string_view::npos);
    (rule.shape.size() == 2 && i < comma ? view.out : view.in).push_back(axes[at]);
  }
  size_t picked = 0;
  for (size_t i = 0; i < stored.size(); ++i) {
    if (wanted.find(stored[i]) != std::string_view::npos) continue;
    PALI_ASSERT(picked < rule.picks.size());
    const Pick& pick = rule.picks[picked++];
    if (axes[i].size != pick.size || pick.index >= pick.size) return std::nullopt;
    view.offset += pick.index * axes[i].stride;
  }
  PALI_ASSERT(picked == rule.picks.size());
  if (elements(view.in) != rule.shape.back()) return std::nullopt;
  if (rule.shape.size() == 2 && elements(view.out) != rule.shape[0]) return std::nullopt;
  return view;
}

}  // namespace

std::optional<std::pair<int64_t, int64_t>> TensorView::strides() const {
  const std::vector<ViewAxis> rows = merged(out), columns = merged(in);
  if (rows.size() > 1 || columns.size() > 1) return std::nullopt;
  const int64_t in_stride = columns.empty() ? 1 : columns[0].stride;
  // A matrix of one row has no step between rows: as if rows followed one another.
  const int64_t out_stride = rows.empty() ? elements(in) * in_stride : rows[0].stride;
  if (in_stride < 1 || out_stride < 1) return std::nullopt;
  return std::pair(out_stride, in_stride);
}

namespace {

// In tiles: along one of the two sides neighbours are far apart, and a cache line holds many. The
// size of an element is known to the compiler: a move, not a call.
template <size_t kBytes>
void copy_tiles(const std::vector<int64_t>& rows, const std::vector<int64_t>& columns,
                const std::byte* from, std::byte* to) {
  constexpr size_t kTile = 32;
  for (size_t o0 = 0; o0 < rows.size(); o0 += kTile) {
    for (size_t i0 = 0; i0 < columns.size(); i0 += kTile) {
      for (size_t o = o0; o < std::min(o0 + kTile, rows.size()); ++o) {
        for (size_t i = i0; i < std::min(i0 + kTile, columns.size()); ++i) {
          std::memcpy(to + (o * columns.size() + i) * kBytes,
                      from + (rows[o] + columns[i]) * static_cast<int64_t>(kBytes), kBytes);
        }
      }
    }
  }
}

}  // namespace

void TensorView::copy(const std::byte* from, int64_t bytes, std::byte* to) const {
  const std::vector<int64_t> rows = offsets(out), columns = offsets(in);
  PALI_ASSERT(bytes == 2 || bytes == 4);  // float weights
  from += offset * bytes;
  if (bytes == 2) return copy_tiles<2>(rows, columns, from, to);
  copy_tiles<4>(rows, columns, from, to);
}

std::optional<TensorView> view_of(const TensorRule& rule, const StoredTensor& tensor) {
  const std::vector<int64_t>& stored = tensor.shape;
  const std::vector<ViewAxis> axes = stored_axes(tensor);
  const bool matrix = rule.shape.size() == 2;
  TensorView view;
  const bool canonical = tensor.name == rule.name && stored == rule.shape;
  switch (canonical ? Transform::none : rule.transform) {
    case Transform::none:
      // A scalar may be stored without an axis.
      if (stored != rule.shape && !(stored.empty() && rule.shape == std::vector<int64_t>{1})) {
        return std::nullopt;
      }
      view.in.assign(axes.begin() + (matrix ? 1 : 0), axes.end());
      break;
    case Transform::flatten_in:
      if (stored.empty() || stored[0] != rule.shape[0]) return std::nullopt;
      view.in.assign(axes.begin() + 1, axes.end());
      if (elements(view.in) != rule.shape[1]) return std::nullopt;
      break;
    case Transform::rows_part:
      if (stored.size() != rule.shape.size() ||
          checked_multiply(rule.shape[0], rule.parts) != stored[0] ||
          !std::equal(stored.begin() + 1, stored.end(), rule.shape.begin() + 1)) {
        return std::nullopt;
      }
      view.offset = rule.part * rule.shape[0] * axes[0].stride;
      view.in.assign(axes.begin() + (matrix ? 1 : 0), axes.end());
      if (!matrix) view.in[0].size = rule.shape[0];
      break;
    case Transform::axes:
      return view_by_axes(rule, axes);
  }
  if (matrix) view.out = {{rule.shape[0], axes[0].stride}};
  return view;
}

std::string shape_text(const std::vector<int64_t>& shape) {
  std::string text = "[";
  for (const int64_t size : shape) {
    if (text.size() > 1) text += ", ";
    text += std::to_string(size);
  }
  return text + "]";
}

std::string expected_shape(const TensorRule& rule) {
  if (rule.transform == Transform::flatten_in) {
    return "[" + std::to_string(rule.shape[0]) + ", ...] of " + std::to_string(rule.shape[1]) +
           " elements a row";
  }
  if (rule.transform == Transform::axes) {
    std::string text = rule.axes + " to make " + shape_text(rule.shape);
    for (const Pick& pick : rule.picks) text += ", one of " + std::to_string(pick.size);
    return text;
  }
  std::vector<int64_t> shape = rule.shape;
  if (rule.transform == Transform::rows_part) shape[0] *= rule.parts;
  return shape_text(shape);
}

}  // namespace pali
