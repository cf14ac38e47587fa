// Scratch memory of one thread, kept for the next call: a decoder's step allocates nothing once it
// has run.
#pragma once

#include <cstddef>
#include <cstdint>

#include "base/tensor.hpp"

namespace pali {

// `bytes` of 64-byte aligned memory, not initialised. Made and destroyed on one thread. Blocks up
// to kKeptBytes go back to a small stock of that thread; larger ones to the system.
class Scratch {
 public:
  static constexpr int64_t kKeptBytes = int64_t{4} << 20;

  explicit Scratch(int64_t bytes);
  ~Scratch();
  Scratch(const Scratch&) = delete;
  Scratch& operator=(const Scratch&) = delete;

  template <class T>
  T* as() const {
    return reinterpret_cast<T*>(block_.data());
  }

 private:
  AlignedBuffer<std::byte> block_;
};

}  // namespace pali
