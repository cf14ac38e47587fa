// Reading safetensors headers. Ref: the format section of safetensors' README, and the checks of
// `SafeTensors::read_metadata` in its Rust source.
#include "io/safetensors.hpp"

#include <algorithm>
#include <limits>
#include <nlohmann/json.hpp>
#include <optional>
#include <set>
#include <tuple>
#include <utility>

#include "base/checked.hpp"
#include "base/quote.hpp"
#include "io/safetensors_dtype.hpp"
#include "pali/error.hpp"

namespace pali {
namespace {

constexpr int64_t kLongestHeader = 100'000'000;  // the reference reader's own limit
constexpr size_t kMostDimensions = 16;

[[noreturn]] void corrupt(const std::string& what, const std::string& where) {
  throw Error(ErrorCode::corrupt_file, what + " (" + where + "); download or convert it again");
}

// Takes the header apart as nlohmann's parser walks through it. No tree is built, so memory stays
// near the size of the header, names that stand twice are seen, and nesting cannot go deep.
class HeaderReader {
 public:
  using number_integer_t = nlohmann::json::number_integer_t;
  using number_unsigned_t = nlohmann::json::number_unsigned_t;
  using number_float_t = nlohmann::json::number_float_t;
  using string_t = nlohmann::json::string_t;
  using binary_t = nlohmann::json::binary_t;

  HeaderReader(SafetensorsHeader& header, const std::string& where)
      : header_(header), where_(where) {}

  bool start_object(size_t) {
    if (state_ == State::begin) {
      state_ = State::names;
    } else if (state_ == State::names && name_ == "__metadata__") {
      if (std::exchange(metadata_seen_, true)) corrupt("__metadata__ stands twice", where_);
      state_ = State::metadata;
    } else if (state_ == State::names) {
      entry_ = {};
      entry_.name = name_;
      dtype_.reset();
      shape_seen_ = offsets_seen_ = false;
      state_ = State::fields;
    } else {
      unexpected("an object");
    }
    return true;
  }

  bool end_object() {
    if (state_ == State::fields) {
      finish_entry();
      state_ = State::names;
    } else {
      state_ = state_ == State::metadata ? State::names : State::end;
    }
    return true;
  }

  bool key(string_t& text) {
    if (state_ == State::names) {
      name_ = text;
      field_.clear();
      if (name_ != "__metadata__" && !names_.insert(name_).second) {
        corrupt("tensor " + quote(name_) + " stands twice", where_);
      }
    } else {
      field_ = text;
      if (state_ == State::fields && field_ != "dtype" && field_ != "shape" &&
          field_ != "data_offsets") {
        corrupt("tensor " + quote(name_) + ": unknown field " + quote(field_), where_);
      }
    }
    return true;
  }

  bool start_array(size_t) {
    if (state_ != State::fields) unexpected("an array");
    if (field_ == "shape") {
      if (std::exchange(shape_seen_, true)) unexpected("a second shape");
      state_ = State::shape;
    } else if (field_ == "data_offsets") {
      if (std::exchange(offsets_seen_, true)) unexpected("a second pair of offsets");
      offsets_.clear();
      state_ = State::offsets;
    } else {
      unexpected("an array");
    }
    return true;
  }

  bool end_array() {
    if (state_ == State::offsets && offsets_.size() != 2) unexpected("not two offsets");
    state_ = State::fields;
    return true;
  }

  bool number_unsigned(number_unsigned_t value) {
    if (value > static_cast<uint64_t>(std::numeric_limits<int64_t>::max())) {
      unexpected(std::to_string(value));
    }
    std::vector<int64_t>* list = state_ == State::shape     ? &entry_.shape
                                 : state_ == State::offsets ? &offsets_
                                                            : nullptr;
    if (list == nullptr) unexpected("a number");
    if (list->size() == kMostDimensions) unexpected("more than 16 numbers");
    list->push_back(static_cast<int64_t>(value));
    return true;
  }

  bool string(string_t& value) {
    if (state_ == State::metadata) {
      if (!header_.metadata.emplace(field_, value).second) {
        corrupt("__metadata__ has " + quote(field_) + " twice", where_);
      }
    } else if (state_ == State::fields && field_ == "dtype" && !dtype_) {
      dtype_ = safetensors_dtype(value);
      if (!dtype_) {
        const bool known = is_foreign_safetensors_dtype(value);
        throw Error(known ? ErrorCode::unsupported : ErrorCode::corrupt_file,
                    "tensor " + quote(name_) +
                        ": expected a dtype of f32, bf16, f16 or integers, "
                        "found " +
                        quote(value) + " (" + where_ + "); save the weights as F32 or BF16");
      }
    } else {
      unexpected("the string " + quote(value));
    }
    return true;
  }

  bool null() { unexpected("null"); }
  bool boolean(bool value) { unexpected(value ? "true" : "false"); }
  bool number_integer(number_integer_t value) { unexpected(std::to_string(value)); }
  bool number_float(number_float_t, const string_t& text) { unexpected(text); }
  bool binary(binary_t&) { unexpected("binary data"); }
  bool parse_error(size_t position, const std::string&, const nlohmann::detail::exception&) {
    corrupt("the header is not valid JSON at byte " + std::to_string(position + 8), where_);
  }

 private:
  enum class State { begin, names, fields, shape, offsets, metadata, end };

  [[noreturn]] void unexpected(const std::string& found) const {
    std::string place = "header";
    if (state_ != State::begin && state_ != State::end) place = "tensor " + quote(name_);
    if (!field_.empty()) place += ", field " + quote(field_);
    corrupt(place + ": unexpected " + found, where_);
  }

  void finish_entry() {
    if (!dtype_ || !shape_seen_ || !offsets_seen_) {
      corrupt("tensor " + quote(name_) + ": expected dtype, shape and data_offsets, found no " +
                  (!dtype_        ? "dtype"
                   : !shape_seen_ ? "shape"
                                  : "data_offsets"),
              where_);
    }
    entry_.dtype = *dtype_;
    entry_.begin = offsets_[0];
    entry_.end = offsets_[1];
    const std::optional<int64_t> bytes = checked_bytes(entry_.shape, dtype_bytes(*dtype_));
    if (!bytes) corrupt("tensor " + quote(name_) + ": its shape overflows", where_);
    if (entry_.end < entry_.begin || entry_.end - entry_.begin != *bytes) {
      corrupt("tensor " + quote(name_) + ": expected " + std::to_string(*bytes) +
                  " bytes by shape and dtype, found offsets " + std::to_string(entry_.begin) +
                  " to " + std::to_string(entry_.end),
              where_);
    }
    header_.entries.push_back(std::move(entry_));
    field_.clear();
  }

  SafetensorsHeader& header_;
  const std::string& where_;
  State state_ = State::begin;
  std::string name_, field_;
  std::set<std::string> names_;
  bool metadata_seen_ = false;
  SafetensorsEntry entry_;
  std::optional<DType> dtype_;
  bool shape_seen_ = false, offsets_seen_ = false;
  std::vector<int64_t> offsets_;
};

// The tensors must lie one after another from the first byte of data to the last of the file.
void check_cover(const SafetensorsHeader& header, int64_t data_bytes, const std::string& where) {
  int64_t cursor = 0;
  for (const SafetensorsEntry& entry : header.entries) {
    if (entry.begin != cursor) {
      corrupt("tensor " + quote(entry.name) + ": expected its data at offset " +
                  std::to_string(cursor) + ", found " + std::to_string(entry.begin) +
                  (entry.begin < cursor ? ", overlapping another" : ", leaving a gap"),
              where);
    }
    cursor = entry.end;
    if (cursor > data_bytes) {
      corrupt("tensor " + quote(entry.name) + " ends at byte " +
                  std::to_string(cursor + header.data_offset) + ", found a file of " +
                  std::to_string(data_bytes + header.data_offset) + " bytes: it is cut short",
              where);
    }
  }
  if (cursor != data_bytes) {
    corrupt("expected a file of " + std::to_string(cursor + header.data_offset) + " bytes, found " +
                std::to_string(data_bytes + header.data_offset),
            where);
  }
}

}  // namespace

SafetensorsHeader parse_safetensors(std::span<const std::byte> file, const std::string& where) {
  if (file.size() < 8) {
    corrupt(
        "expected a safetensors header of at least 8 bytes, found " + std::to_string(file.size()),
        where);
  }
  uint64_t length = 0;  // little-endian
  for (int i = 7; i >= 0; --i) length = length << 8 | static_cast<uint8_t>(file[i]);
  if (length > static_cast<uint64_t>(kLongestHeader) || length > file.size() - 8) {
    corrupt("expected a header of at most " +
                std::to_string(std::min<uint64_t>(kLongestHeader, file.size() - 8)) +
                " bytes, found a length of " + std::to_string(length),
            where);
  }
  SafetensorsHeader header;
  header.data_offset = static_cast<int64_t>(length) + 8;
  const char* text = reinterpret_cast<const char*>(file.data()) + 8;
  if (length == 0 || text[0] != '{') corrupt("the header does not begin with '{'", where);
  HeaderReader reader(header, where);
  nlohmann::json::sax_parse(text, text + length, &reader);
  std::stable_sort(header.entries.begin(), header.entries.end(),
                   [](const SafetensorsEntry& a, const SafetensorsEntry& b) {
                     return std::tie(a.begin, a.end) < std::tie(b.begin, b.end);
                   });
  check_cover(header, static_cast<int64_t>(file.size()) - header.data_offset, where);
  return header;
}

}  // namespace pali
