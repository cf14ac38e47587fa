// PyTorch state dicts made by hand, opcode by opcode.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>

#include "unit/io/zip_bytes.hpp"

namespace pali::test {

inline std::string pickled_text(std::string_view text) {
  return "X" + little(text.size(), 4) + std::string(text);
}
inline std::string pickled_number(int64_t value) {
  return "\x8a\x08" + little(static_cast<uint64_t>(value), 8);
}
inline std::string pickled_sizes(std::initializer_list<int64_t> sizes) {
  std::string text = "(";
  for (const int64_t size : sizes) text += pickled_number(size);
  return text + "t";
}
inline std::string global(std::string_view module, std::string_view name) {
  return "c" + std::string(module) + "\n" + std::string(name) + "\n";
}

// torch._utils._rebuild_tensor_v2(storage, offset, shape, strides, False, OrderedDict())
inline std::string pickled_tensor(std::initializer_list<int64_t> shape,
                                  std::initializer_list<int64_t> strides, int64_t offset = 0,
                                  int64_t elements = 6, std::string_view type = "FloatStorage",
                                  std::string_view key = "0") {
  return global("torch._utils", "_rebuild_tensor_v2") + "((" + pickled_text("storage") +
         global("torch", type) + pickled_text(key) + pickled_text("cpu") +
         pickled_number(elements) + "tQ" + pickled_number(offset) + pickled_sizes(shape) +
         pickled_sizes(strides) + "\x89" + global("collections", "OrderedDict") + ")RtR";
}

// OrderedDict of one name, with the attribute _metadata that state dicts have.
inline std::string pickled_dict(std::string_view value, std::string_view name = "w") {
  return "\x80\x02" + global("collections", "OrderedDict") + ")Rq" + little(0, 1) + "(" +
         pickled_text(name) + std::string(value) + "u}q" + little(1, 1) +
         pickled_text("_metadata") + "}sb.";
}

inline std::string torch_file(std::string pickle, std::string storage,
                              std::string_view byteorder = "little") {
  return zip_bytes({{.name = "m/data.pkl", .content = std::move(pickle)},
                    {.name = "m/byteorder", .content = std::string(byteorder)},
                    {.name = "m/data/0", .content = std::move(storage)},
                    {.name = "m/version", .content = "3\n"}},
                   /*zip64_end=*/true);
}

}  // namespace pali::test
