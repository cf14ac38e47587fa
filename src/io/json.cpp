#include "io/json.hpp"

#include <limits>
#include <utility>

#include "base/mapped_file.hpp"
#include "base/quote.hpp"
#include "pali/error.hpp"

namespace pali {
namespace {

constexpr int kDeepest = 64;

[[noreturn]] void corrupt(const std::string& what, const std::string& where) {
  throw Error(ErrorCode::corrupt_file, what + " (" + where + "); download or write the file again");
}

// Refuses deep nesting before anything is built. Brackets inside strings do not count; text that is
// no JSON at all is left to the parser.
void check_depth(std::string_view text, const std::string& where) {
  int depth = 0;
  bool in_string = false;
  for (size_t i = 0; i < text.size(); ++i) {
    const char c = text[i];
    if (in_string) {
      if (c == '\\') ++i;
      if (c == '"') in_string = false;
    } else if (c == '"') {
      in_string = true;
    } else if (c == '{' || c == '[') {
      if (++depth > kDeepest) {
        corrupt("JSON nested deeper than " + std::to_string(kDeepest) + " levels at byte " +
                    std::to_string(i),
                where);
      }
    } else if (c == '}' || c == ']') {
      --depth;
    }
  }
}

std::string describe(const Json& value) {
  if (value.is_string()) return "the string " + quote(value.get_ref<const std::string&>());
  if (value.is_structured()) return std::string("an ") + value.type_name();
  return value.dump();
}

}  // namespace

Json parse_json(std::string_view text, const std::string& where,
                const Json::parser_callback_t& keep) {
  check_depth(text, where);
  try {
    return Json::parse(text, keep);
  } catch (const Json::parse_error& error) {
    corrupt("not valid JSON at byte " + std::to_string(error.byte), where);
  } catch (const Json::exception&) {  // a number beyond double's range
    corrupt("JSON with a number out of range", where);
  }
}

Json read_json_file(const std::filesystem::path& path, int64_t max_bytes) {
  return parse_json(read_text_file(path, max_bytes), path.string());
}

JsonFields::JsonFields(const Json& object, std::string where)
    : object_(&object), where_(std::move(where)) {
  if (!object.is_object()) corrupt("expected a JSON object, found " + describe(object), where_);
}

const Json* JsonFields::find(std::string_view key) const {
  const auto it = object_->find(key);
  return it == object_->end() ? nullptr : &*it;
}

bool JsonFields::has(std::string_view key) const {
  const Json* value = find(key);
  return value != nullptr && !value->is_null();
}

// The value of a field that is there; the type is checked by the caller.
static const Json& present(const JsonFields& fields, std::string_view key, const char* expected) {
  if (!fields.has(key)) {
    corrupt("field " + quote(key) + " is missing, expected " + expected, fields.where());
  }
  return *fields.find(key);
}

[[noreturn]] static void wrong(const JsonFields& fields, std::string_view key,
                               const std::string& expected, const Json& found) {
  corrupt("field " + quote(key) + ": expected " + expected + ", found " + describe(found),
          fields.where());
}

int64_t JsonFields::integer(std::string_view key, int64_t lowest, int64_t highest,
                            std::optional<int64_t> fallback) const {
  if (fallback && !has(key)) {
    // A default that other fields of the file leave no room for.
    if (*fallback < lowest || *fallback > highest) {
      corrupt("field " + quote(key) + " is missing, and its default of " +
                  std::to_string(*fallback) + " is not from " + std::to_string(lowest) + " to " +
                  std::to_string(highest),
              where_);
    }
    return *fallback;
  }
  const Json& value = present(*this, key, "an integer");
  const bool fits =
      value.is_number_integer() &&
      (!value.is_number_unsigned() ||
       value.get<uint64_t>() <= static_cast<uint64_t>(std::numeric_limits<int64_t>::max()));
  if (!fits || value.get<int64_t>() < lowest || value.get<int64_t>() > highest) {
    wrong(*this, key,
          "an integer from " + std::to_string(lowest) + " to " + std::to_string(highest), value);
  }
  return value.get<int64_t>();
}

double JsonFields::number(std::string_view key, double lowest, double highest,
                          std::optional<double> fallback) const {
  if (fallback && !has(key)) return *fallback;
  const Json& value = present(*this, key, "a number");
  // Written so that a NaN, should one get here, fails too.
  if (!value.is_number() || !(value.get<double>() >= lowest && value.get<double>() <= highest)) {
    wrong(*this, key, "a number from " + Json(lowest).dump() + " to " + Json(highest).dump(),
          value);
  }
  return value.get<double>();
}

bool JsonFields::boolean(std::string_view key, bool fallback) const {
  if (!has(key)) return fallback;
  const Json& value = *find(key);
  if (!value.is_boolean()) wrong(*this, key, "true or false", value);
  return value.get<bool>();
}

std::string JsonFields::string(std::string_view key, std::optional<std::string> fallback) const {
  if (fallback && !has(key)) return *std::move(fallback);
  const Json& value = present(*this, key, "a string");
  if (!value.is_string()) wrong(*this, key, "a string", value);
  return value.get<std::string>();
}

JsonFields JsonFields::object(std::string_view key) const {
  const Json& value = present(*this, key, "an object");
  if (!value.is_object()) wrong(*this, key, "an object", value);
  return {value, where_ + ", field " + quote(key)};
}

}  // namespace pali
