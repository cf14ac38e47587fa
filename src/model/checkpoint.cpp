// Opening a checkpoint: the small files, the weights behind the provenance table, the tokenizer.
#include "model/checkpoint.hpp"

#include <algorithm>
#include <array>
#include <fstream>
#include <set>
#include <system_error>
#include <utility>

#include "base/quote.hpp"
#include "model/configs/big_vision.hpp"
#include "model/configs/task_style.hpp"
#include "model/hub_cache.hpp"

namespace pali {
namespace {

namespace fs = std::filesystem;

constexpr int64_t kMaxConfigBytes = 16 << 20;

// What a file begins with; zeros where it is none (a named pipe would wait for its writer).
std::array<char, 4> first_bytes(const fs::path& file) {
  std::array<char, 4> head{};
  std::error_code ignored;
  if (fs::is_regular_file(file, ignored)) {
    std::ifstream(file, std::ios::binary).read(head.data(), head.size());
  }
  return head;
}

// One file out of a model folder, or a format of another program.
void refuse_other_files(const fs::path& path) {
  const std::array<char, 4> head = first_bytes(path);
  const std::string_view bytes(head.data(), head.size());
  const std::string name = path.filename().string(), extension = path.extension().string();
  const std::string where = " (" + path.string() + "); ";
  if (bytes == "GGUF") {
    throw Error(ErrorCode::unsupported,
                "GGUF files are not read" + where + "use the model's Hugging Face folder");
  }
  if (extension == ".bin" || extension == ".pt" || extension == ".pth") {
    throw Error(ErrorCode::unsupported,
                "one file of a model" + where + "give the folder that holds it and config.json");
  }
  if (extension == ".json" || extension == ".model") {
    throw Error(ErrorCode::invalid_argument,
                "one file of a model" + where + "give the folder that holds it and the others");
  }
}

bool is_zip(const fs::path& file) {
  const std::array<char, 4> head = first_bytes(file);
  return std::string_view(head.data(), 2) == "PK" || file.extension() == ".npz";
}

// The first bytes of what people give instead of a model.
bool looks_like_an_image(const fs::path& file) {
  const std::array<char, 4> head = first_bytes(file);
  const std::string_view bytes(head.data(), head.size());
  return bytes.starts_with("\xff\xd8\xff") || bytes.starts_with("\x89PNG") ||
         bytes.starts_with("GIF8") || bytes.starts_with("RIFF") || bytes.starts_with("BM");
}

std::optional<Json> read_if_present(const fs::path& file) {
  std::error_code ignored;
  if (!fs::exists(file, ignored)) return std::nullopt;
  return read_json_file(file, kMaxConfigBytes);
}

ConfigFiles folder_files(const fs::path& folder) {
  std::error_code ignored;
  const fs::path config = folder / "config.json";
  if (!fs::exists(config, ignored)) {
    throw Error(ErrorCode::not_found,
                "no config.json (" + folder.string() +
                    "); give a Hugging Face model folder, or a file that `pali convert` wrote");
  }
  ConfigFiles files;
  files.where = config.string();
  files.config_text = read_text_file(config, kMaxConfigBytes);
  files.config = parse_json(files.config_text, files.where);
  // transformers 5 saves one file about all that goes into a model, and reads it first.
  const char* const whole = "processor_config.json";
  const std::optional<Json> processor = read_if_present(folder / whole);
  if (processor && processor->is_object() && processor->contains("image_processor") &&
      !processor->at("image_processor").is_null()) {
    files.preprocessor = processor->at("image_processor");
    files.preprocessor_name = whole;
  } else {
    files.preprocessor = read_if_present(folder / files.preprocessor_name);
  }
  files.generation = read_if_present(folder / "generation_config.json");
  files.tokenizer = read_if_present(folder / "tokenizer_config.json");
  return files;
}

ConfigFiles metadata_files(const WeightStore& store) {
  const std::map<std::string, std::string>& metadata = store.metadata();
  const auto value = [&](const char* key) {
    const auto it = metadata.find(key);
    return it == metadata.end() ? nullptr : &it->second;
  };
  const std::string* format = value(metadata_key::kFormat);
  if (format == nullptr || *format != "pali") {
    throw Error(ErrorCode::unsupported,
                "a .safetensors file without pali's metadata (" + store.where() +
                    "); give the folder that holds it and its config.json, or a file that `pali "
                    "convert` wrote");
  }
  const std::string* version = value(metadata_key::kVersion);
  if (version == nullptr || (*version != kFormatVersion && *version != kQuantisedVersion)) {
    throw Error(ErrorCode::unsupported, "format_version " + quote(version ? *version : "") + " (" +
                                            store.where() + "); this program reads versions " +
                                            kFormatVersion + " and " + kQuantisedVersion +
                                            ": convert the model again");
  }
  const auto parsed = [&](const char* key) -> std::optional<Json> {
    const std::string* text = value(key);
    if (text == nullptr) return std::nullopt;
    return parse_json(*text, store.where() + ", metadata " + key);
  };
  const std::string* config = value(metadata_key::kConfig);
  if (config == nullptr) {
    throw Error(ErrorCode::corrupt_file,
                "metadata \"config\" is missing (" + store.where() + "); convert the model again");
  }
  ConfigFiles files;
  files.where = store.where() + ", metadata config";
  files.config_text = *config;
  files.config = parse_json(*config, files.where);
  files.preprocessor = parsed(metadata_key::kPreprocessor);
  files.generation = parsed(metadata_key::kGeneration);
  files.tokenizer = parsed(metadata_key::kTokenizer);
  if (const std::string* style = value(metadata_key::kTaskStyle)) files.task_style = *style;
  return files;
}

// A row of 63 int4 weights takes as many bytes as one of 64: the metadata say which it is.
void check_int4_shapes(const Checkpoint& checkpoint) {
  std::optional<Json> shapes;
  for (const auto& [name, tensor] : checkpoint.table.bound()) {
    if (tensor.ref.dtype != DType::i4) continue;
    const std::string where = checkpoint.store.where() + ", metadata int4_shapes";
    if (!shapes) {
      const auto text = checkpoint.store.metadata().find(metadata_key::kInt4Shapes);
      shapes = text == checkpoint.store.metadata().end() ? Json::object()
                                                         : parse_json(text->second, where);
    }
    const Json expected = tensor.rule.shape;
    const Json found = shapes->is_object() ? shapes->value(name, Json()) : Json();
    if (found == expected) continue;
    throw Error(ErrorCode::corrupt_file, "tensor " + quote(name) + ": expected shape " +
                                             expected.dump() + ", found " + quote(found.dump()) +
                                             " (" + where + "); convert the model again");
  }
}

// Tensors that checkpoints carry and nobody needs: position indices, other names of the embedding
// table, and a bias that original T5 files have and transformers ignores.
bool known_leftover(const std::string& name, const std::set<std::string_view>& sources) {
  return sources.contains(name) || name.ends_with("embeddings.position_ids") ||
         name.ends_with("EncDecAttention.relative_attention_bias.weight");
}

void warn_of_unused(Checkpoint& checkpoint, const std::vector<TensorRule>& rules) {
  std::set<std::string_view> sources;
  for (const TensorRule& rule : rules) sources.insert(rule.sources.begin(), rule.sources.end());
  std::vector<std::string> unused;
  for (const std::string& name : checkpoint.table.unused()) {
    if (!known_leftover(name, sources)) unused.push_back(name);
  }
  if (unused.empty()) return;
  std::string text = std::to_string(unused.size()) + " tensors are not used: ";
  for (size_t i = 0; i < std::min<size_t>(unused.size(), 5); ++i) {
    text += (i > 0 ? ", " : "") + quote(unused[i]);
  }
  checkpoint.warnings.push_back(text + (unused.size() > 5 ? ", ..." : "") + " (" +
                                checkpoint.store.where() + ")");
}

// A tokenizer whose every id has a row in the tables it indexes.
class TokenizerOpener {
 public:
  TokenizerOpener(const ModelConfig& config, int extra_ids, bool extra_ids_given)
      : config_(config), extra_ids_(extra_ids), given_(extra_ids_given) {}

  // `open` makes a tokenizer with the given number of extra ids.
  template <class Open>
  Tokenizer run(const Open& open, const std::string& where) const {
    Tokenizer tokenizer = open(TokenizerOptions{extra_ids_});
    const int64_t vocab = config_.language ? config_.language->vocab : config_.text_tower->vocab;
    if (!given_ && tokenizer.extra_ids() > 0 && tokenizer.size() > vocab) {
      // The 100 were a guess: as many as the table has rows for.
      const int64_t room = vocab - (tokenizer.size() - tokenizer.extra_ids());
      tokenizer = open(TokenizerOptions{static_cast<int>(std::max<int64_t>(room, 0))});
    }
    check(tokenizer.size(), vocab, where);
    if (config_.text_tower) {
      check(tokenizer.size() - tokenizer.extra_ids(), config_.text_tower->vocab, where);
    }
    return tokenizer;
  }

 private:
  static void check(int64_t size, int64_t vocab, const std::string& where) {
    if (size <= vocab) return;
    throw Error(ErrorCode::corrupt_file, "the tokenizer has " + std::to_string(size) +
                                             " tokens, the embedding table " +
                                             std::to_string(vocab) + " rows (" + where +
                                             "); use the tokenizer that belongs to the model");
  }
  const ModelConfig& config_;
  int extra_ids_;
  bool given_;
};

// The tokenizer given, else the one inside the checkpoint, else the one beside it.
void open_tokenizer(Checkpoint& checkpoint, const TokenizerOpener& opener, const fs::path& given) {
  const ModelConfig& config = checkpoint.config;
  if (!config.language && !config.text_tower) return;
  const StoredTensor* inside =
      checkpoint.format == "pali" ? checkpoint.store.find(kTokenizerTensor) : nullptr;
  if (given.empty() && inside != nullptr) {
    const std::string where =
        checkpoint.store.where() + ", tensor " + std::string(kTokenizerTensor);
    if (inside->dtype != DType::u8) {
      throw Error(ErrorCode::corrupt_file, "expected dtype u8, found " +
                                               std::string(dtype_name(inside->dtype)) + " (" +
                                               where + "); convert the model again");
    }
    const std::span<const std::byte> bytes{inside->data, static_cast<size_t>(inside->bytes)};
    checkpoint.tokenizer = opener.run(
        [&](const TokenizerOptions& how) { return Tokenizer::from_bytes(bytes, how, where); },
        where);
    return;
  }
  try {
    const fs::path file = given.empty() ? Tokenizer::find_beside(checkpoint.path) : given;
    if (file.empty()) return;
    checkpoint.tokenizer = opener.run(
        [&](const TokenizerOptions& how) { return Tokenizer::open(file, how); }, file.string());
  } catch (const Error& error) {
    // A vision tower is of use without a tokenizer; a language model is not.
    if (config.language || !given.empty() || error.code() != ErrorCode::unsupported) throw;
    checkpoint.warnings.push_back(error.what());
  }
}

}  // namespace

Checkpoint bind_checkpoint(Family family, WeightStore store, std::string format, fs::path path) {
  Checkpoint checkpoint;
  checkpoint.format = std::move(format);
  checkpoint.path = std::move(path);
  checkpoint.config = std::move(family.config);
  checkpoint.store = std::move(store);
  checkpoint.warnings = std::move(family.warnings);
  const std::vector<TensorRule> rules = family.rules;
  checkpoint.table = TensorTable::bind(checkpoint.store, std::move(family.rules));
  warn_of_unused(checkpoint, rules);
  if (checkpoint.config.language) {
    // Files tie and untie the output head in their own ways: the tensor decides.
    checkpoint.config.language->separate_head = checkpoint.table.has("lm.head.weight");
    checkpoint.config.language->extra_ids = family.extra_ids;
  }
  return checkpoint;
}

Checkpoint open_checkpoint(const fs::path& model, const CheckpointOptions& options) {
  const fs::path path = find_model(model);
  std::error_code error;
  ConfigFiles files;
  WeightStore store;
  std::string format;
  if (fs::is_directory(path, error)) {
    format = "huggingface";
    files = folder_files(path);
  } else {
    format = "pali";
    if (looks_like_an_image(path)) {
      throw Error(ErrorCode::invalid_argument, "an image, where a model was expected (" +
                                                   path.string() +
                                                   "); give a model folder or a pali checkpoint");
    }
    refuse_other_files(path);
    if (is_zip(path)) {
      format = "big_vision";
      store = WeightStore::open_npz(path, options.mmap);
      files = big_vision_files(store);
    } else {
      store = WeightStore::open_safetensors(path, options.mmap);
      files = metadata_files(store);
    }
  }
  Family family = read_family(files);
  if (format == "big_vision") use_big_vision_names(store, family.rules);
  const bool own_style = options.task_style.empty() && !family.config.task_style.empty();
  if (own_style && !files.task_style.empty() && !is_task_style(files.task_style)) {
    throw Error(ErrorCode::corrupt_file,
                "unknown task style " + quote(files.task_style) + " (" + path.string() +
                    ", metadata " + metadata_key::kTaskStyle + "); give one with --task-style");
  }
  apply_task_style(own_style ? files.task_style : options.task_style, path, family.config);
  if (format == "huggingface") store = WeightStore::open_folder(path, options.mmap);
  const int extra_ids = family.extra_ids;
  const bool given = family.extra_ids_given;
  Checkpoint checkpoint =
      bind_checkpoint(std::move(family), std::move(store), std::move(format), path);
  check_int4_shapes(checkpoint);
  open_tokenizer(checkpoint, TokenizerOpener(checkpoint.config, extra_ids, given),
                 options.tokenizer);
  if (checkpoint.config.language && checkpoint.tokenizer) {
    checkpoint.config.language->extra_ids = checkpoint.tokenizer->extra_ids();
  }
  return checkpoint;
}

}  // namespace pali
