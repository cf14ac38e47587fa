// .npz checkpoints as far as a model is made of their names and shapes.
#include "model/configs/big_vision.hpp"

#include <algorithm>

#include "fuzz/targets/target.hpp"
#include "io/tensor_table.hpp"

// A line a tensor, "NAME SIZE SIZE ...": what the parsers below leave is names and shapes.
extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  return pali::fuzz::parse(data, size, [](pali::fuzz::Bytes bytes) {
    pali::WeightStore store;
    const std::string_view text(reinterpret_cast<const char*>(bytes.data()), bytes.size());
    for (size_t at = 0; at < text.size();) {
      const size_t end = std::min(text.find('\n', at), text.size());
      std::string_view line = text.substr(at, end - at);
      at = end + 1;
      const std::string name(line.substr(0, line.find(' ')));
      std::vector<int64_t> shape;
      int64_t elements = 1;
      for (line.remove_prefix(name.size()); !line.empty() && shape.size() < 6;) {
        line.remove_prefix(1);
        const std::string digits(line.substr(0, std::min(line.find(' '), size_t{5})));
        shape.push_back(std::atoi(digits.c_str()) & 0x3ff);
        elements *= std::max<int64_t>(shape.back(), 1);
        line.remove_prefix(std::min(line.find(' '), line.size()));
        if (elements > 1 << 16) return;
      }
      if (store.find(name) != nullptr) return;
      const std::span<std::byte> memory = store.add_owned(name, pali::DType::f32, shape);
      std::fill(memory.begin(), memory.end(), std::byte{0});  // may be empty
    }
    pali::Family family = pali::read_family(pali::big_vision_files(store));
    pali::use_big_vision_names(store, family.rules);
    pali::TensorTable table = pali::TensorTable::bind(store, std::move(family.rules));
    table.load(store);
    for (const auto& [name, bound] : table.bound()) table.values(name);
  });
}
