#include "io/npy.hpp"

#include <array>
#include <optional>
#include <string_view>
#include <utility>

#include "base/checked.hpp"
#include "base/quote.hpp"
#include "pali/error.hpp"

namespace pali {
namespace {

constexpr std::string_view kMagic = "\x93NUMPY";
constexpr size_t kMostDimensions = 32;  // numpy's own limit until 2.0

constexpr std::array<std::pair<std::string_view, DType>, 12> kTypes = {{
    {"<f8", DType::f64},
    {"<f4", DType::f32},
    {"<f2", DType::f16},
    {"|V2", DType::bf16},
    {"<V2", DType::bf16},
    {"<i8", DType::i64},
    {"<i4", DType::i32},
    {"<i2", DType::i16},
    {"|i1", DType::i8},
    {"|u1", DType::u8},
    {"|b1", DType::boolean},
    {"bfloat16", DType::bf16},
}};

[[noreturn]] void corrupt(const std::string& what, const std::string& where) {
  throw Error(ErrorCode::corrupt_file, what + " (" + where + "); download or save it again");
}

[[noreturn]] void unsupported(const std::string& what, const std::string& where,
                              const std::string& advice) {
  throw Error(ErrorCode::unsupported, what + " (" + where + "); " + advice);
}

// The dictionary of a header, a Python literal of a fixed form:
// {'descr': '<f4', 'fortran_order': False, 'shape': (3, 4), }
class Literal {
 public:
  Literal(std::string_view text, const std::string& where) : text_(text), where_(where) {}

  NpyHeader read() {
    NpyHeader header;
    bool descr = false, order = false, shape = false;
    expect('{');
    while (!take('}')) {
      const std::string_view key = string();
      expect(':');
      if (key == "descr" && !std::exchange(descr, true)) {
        header.dtype = type();
      } else if (key == "fortran_order" && !std::exchange(order, true)) {
        if (boolean()) {
          unsupported("an array in Fortran order", where_, "save numpy.ascontiguousarray() of it");
        }
      } else if (key == "shape" && !std::exchange(shape, true)) {
        header.shape = tuple();
      } else {
        fail("an unknown or second key " + quote(key));
      }
      if (!take(',')) {
        expect('}');
        break;
      }
    }
    skip_space();
    if (at_ != text_.size()) fail("text behind the dictionary");
    if (!descr || !order || !shape) {
      fail(std::string("no ") + (!descr ? "descr" : !order ? "fortran_order" : "shape"));
    }
    return header;
  }

 private:
  [[noreturn]] void fail(const std::string& found) const {
    corrupt(
        "the header of an array: expected {'descr': ..., 'fortran_order': ..., 'shape': ...}, "
        "found " +
            found,
        where_);
  }
  void skip_space() {
    while (at_ < text_.size() && (text_[at_] == ' ' || text_[at_] == '\n')) ++at_;
  }
  char peek() {
    skip_space();
    return at_ < text_.size() ? text_[at_] : '\0';
  }
  bool take(char wanted) {
    if (peek() != wanted || at_ == text_.size()) return false;
    ++at_;
    return true;
  }
  void expect(char wanted) {
    if (!take(wanted)) fail(std::string("no '") + wanted + "' at byte " + std::to_string(at_));
  }

  std::string_view string() {
    const char mark = peek();
    if (mark != '\'' && mark != '"') fail("no string at byte " + std::to_string(at_));
    const size_t begin = ++at_;
    const size_t end = text_.find(mark, begin);
    if (end == std::string_view::npos) fail("a string without an end");
    at_ = end + 1;
    return text_.substr(begin, end - begin);
  }

  bool boolean() {
    skip_space();
    for (const auto& [word, value] : {std::pair<std::string_view, bool>{"True", true},
                                      std::pair<std::string_view, bool>{"False", false}}) {
      if (text_.substr(at_, word.size()) != word) continue;
      at_ += word.size();
      return value;
    }
    fail("neither True nor False at byte " + std::to_string(at_));
  }

  std::vector<int64_t> tuple() {
    std::vector<int64_t> sizes;
    expect('(');
    while (!take(')')) {
      if (sizes.size() == kMostDimensions) fail("more than 32 dimensions");
      sizes.push_back(size());
      if (!take(',')) {
        expect(')');
        break;
      }
    }
    return sizes;
  }

  int64_t size() {
    skip_space();
    const size_t begin = at_;
    int64_t value = 0;
    for (; at_ < text_.size() && text_[at_] >= '0' && text_[at_] <= '9'; ++at_) {
      if (__builtin_mul_overflow(value, int64_t{10}, &value) ||
          __builtin_add_overflow(value, int64_t{text_[at_] - '0'}, &value)) {
        fail("a size beyond 64 bits");
      }
    }
    if (at_ == begin) fail("no size at byte " + std::to_string(at_));
    if (at_ < text_.size() && text_[at_] == 'L') ++at_;  // as Python 2 wrote long numbers
    return value;
  }

  DType type() {
    if (peek() == '[') {
      unsupported("an array of structures", where_, "save each field as an array of its own");
    }
    const std::string_view name = string();
    for (const auto& [known, dtype] : kTypes) {
      if (known == name) return dtype;
    }
    if (name == "|O" || name == "O") {
      unsupported("an array of pickled objects", where_,
                  "save arrays of numbers; pickles are never run");
    }
    unsupported("expected an array of f32, f16, bf16 or integers, found " + quote(name), where_,
                "save it as little-endian float32");
  }

  std::string_view text_;
  const std::string& where_;
  size_t at_ = 0;
};

}  // namespace

NpyHeader parse_npy(std::span<const std::byte> head, const std::string& where) {
  const std::string_view bytes(reinterpret_cast<const char*>(head.data()), head.size());
  if (bytes.size() < 10 || bytes.substr(0, kMagic.size()) != kMagic) {
    corrupt("expected a .npy array, found something else", where);
  }
  const auto byte = [&](size_t i) { return static_cast<size_t>(static_cast<uint8_t>(bytes[i])); };
  const size_t version = byte(6);
  if (version < 1 || version > 3) {
    unsupported(".npy version " + std::to_string(version) + ", 1 to 3 expected", where,
                "save it with numpy.save");
  }
  size_t begin = 10, length = byte(8) | byte(9) << 8;
  if (version > 1) {
    if (bytes.size() < 12) corrupt("the header of an array is cut short", where);
    length |= byte(10) << 16 | byte(11) << 24;
    begin = 12;
  }
  if (length > bytes.size() - begin) {
    corrupt("the header of an array: expected at most " + std::to_string(bytes.size() - begin) +
                " bytes, found a length of " + std::to_string(length),
            where);
  }
  NpyHeader header = Literal(bytes.substr(begin, length), where).read();
  header.data_offset = static_cast<int64_t>(begin + length);
  const std::optional<int64_t> size = checked_bytes(header.shape, dtype_bytes(header.dtype));
  if (!size) corrupt("the shape of an array overflows", where);
  header.bytes = *size;
  return header;
}

}  // namespace pali
