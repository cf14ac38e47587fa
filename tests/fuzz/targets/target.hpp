// What a parser may do with any bytes: take them, or throw pali::Error of one line. Anything else
// stops the fuzzer, as a sanitizer's report does.
#pragma once

#include <cstddef>
#include <cstdint>
#include <cstring>
#include <span>

#include "pali/error.hpp"

namespace pali::fuzz {

using Bytes = std::span<const std::byte>;

template <class Parser>
int parse(const uint8_t* data, size_t size, const Parser& parser) {
  try {
    parser(Bytes(reinterpret_cast<const std::byte*>(data), size));
  } catch (const Error& error) {
    const bool one_line = std::strchr(error.what(), '\n') == nullptr;
    if (error.code() == ErrorCode::internal || !one_line) __builtin_trap();
  }
  return 0;
}

}  // namespace pali::fuzz
