// The stock: a few blocks a thread, the smallest that fits is taken. Several live at once (a call's
// own and, on the same thread, its part of a loop), so one growing block would not do.
#include "exec/scratch.hpp"

#include <algorithm>
#include <array>
#include <utility>

namespace pali {
namespace {

constexpr int64_t kSmallest = int64_t{64} << 10;  // rounding up makes blocks fit more uses

thread_local std::array<AlignedBuffer<std::byte>, 4> stock;

}  // namespace

Scratch::Scratch(int64_t bytes) {
  AlignedBuffer<std::byte>* best = nullptr;
  for (auto& block : stock) {
    if (block.size() < bytes || block.size() == 0) continue;
    if (best == nullptr || block.size() < best->size()) best = &block;
  }
  block_ = best != nullptr ? std::exchange(*best, {})
                           : AlignedBuffer<std::byte>(std::max(bytes, kSmallest));
}

Scratch::~Scratch() {
  if (block_.size() > kKeptBytes) return;
  auto* smallest = &*std::min_element(
      stock.begin(), stock.end(), [](const auto& a, const auto& b) { return a.size() < b.size(); });
  if (smallest->size() < block_.size()) *smallest = std::move(block_);
}

}  // namespace pali
