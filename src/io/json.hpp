// JSON of other people's files: nlohmann-json behind checks that name file and field.
#pragma once

#include <cstdint>
#include <filesystem>
#include <nlohmann/json.hpp>
#include <optional>
#include <string>
#include <string_view>

namespace pali {

using Json = nlohmann::json;

// Parses text; `where` names the file in errors. Throws Error(corrupt_file). Nesting deeper than 64
// levels is refused. `keep` is nlohmann's: it sees what is parsed, and may leave parts out.
Json parse_json(std::string_view text, const std::string& where,
                const Json::parser_callback_t& keep = nullptr);
Json read_json_file(const std::filesystem::path& path, int64_t max_bytes = 16 << 20);

// Fields of one JSON object, with defaults, ranges and errors that name file, field, expected and
// found. Never throws nlohmann's exceptions.
class JsonFields {
 public:
  JsonFields(const Json& object, std::string where);  // corrupt_file where it is no object
  bool has(std::string_view key) const;               // present and not null
  int64_t integer(std::string_view key, int64_t lowest, int64_t highest,
                  std::optional<int64_t> fallback = std::nullopt) const;
  double number(std::string_view key, double lowest, double highest,
                std::optional<double> fallback = std::nullopt) const;
  bool boolean(std::string_view key, bool fallback) const;
  std::string string(std::string_view key,
                     std::optional<std::string> fallback = std::nullopt) const;
  const Json* find(std::string_view key) const;   // null where absent
  JsonFields object(std::string_view key) const;  // corrupt_file where absent
  const std::string& where() const { return where_; }

 private:
  const Json* object_;
  std::string where_;
};

}  // namespace pali
