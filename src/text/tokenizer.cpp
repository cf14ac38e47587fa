#include "text/tokenizer.hpp"

#include <sentencepiece_processor.h>

#include <algorithm>
#include <initializer_list>
#include <optional>
#include <system_error>
#include <utility>

#include "base/mapped_file.hpp"
#include "pali/error.hpp"
#include "text/added_tokens.hpp"
#include "text/bpe.hpp"
#include "text/lower_case.hpp"
#include "text/model_check.hpp"
#include "text/tokenizer_json.hpp"

namespace pali {
namespace {

namespace fs = std::filesystem;

constexpr int64_t kLongestModel = 64 << 20;
constexpr std::string_view kSpaceMark = "\xe2\x96\x81";  // U+2581, a space inside pieces

bool is_there(const fs::path& path) {
  std::error_code ignored;
  return fs::exists(path, ignored);
}

// transformers parts words at any white space before the pieces are looked up; sentencepiece knows
// only those that its normaliser turns into spaces, and a model without one knows none.
std::string plain_spaces(std::string_view text) {
  std::string out;
  out.reserve(text.size());
  for (size_t i = 0; i < text.size();) {
    const size_t white = white_space_at(text, i);
    out += white > 0 ? ' ' : text[i];
    i += std::max<size_t>(white, 1);
  }
  return out;
}

}  // namespace

// What an id adds to decoded text.
enum class PieceKind : uint8_t { text, byte, hidden };

struct Tokenizer::Impl {
  sentencepiece::SentencePieceProcessor processor;  // unless bpe
  std::optional<Bpe> bpe;
  std::vector<std::string> bpe_pieces;
  bool bpe_lower_case = false;
  std::vector<std::byte> model;
  SentencePieceFacts facts;
  std::vector<PieceKind> kinds;  // by id
  int extra_ids = 0;
  int32_t pad = -1, eos = -1, bos = -1, unk = -1;
  AddedTokens added;             // found in the text as it is
  AddedTokens added_normalized;  // found after normalisation; BPE only

  const std::string& piece(int32_t id) const {
    return bpe ? bpe_pieces[static_cast<size_t>(id)] : processor.IdToPiece(id);
  }

  // Ref: GemmaTokenizer and Siglip2Tokenizer in transformers: Lowercase, then Replace(" ", U+2581).
  std::string bpe_normalised(std::string_view text) const {
    const std::string lower = bpe_lower_case ? lower_case(text, FinalSigma::common) : "";
    if (bpe_lower_case) text = lower;
    std::string out;
    out.reserve(text.size() + text.size() / 4);
    for (const char c : text) {
      if (c == ' ') {
        out += kSpaceMark;
      } else {
        out += c;
      }
    }
    return out;
  }

  std::vector<int> encode_segment(std::string_view text) const {
    std::vector<int> ids;
    const auto status = processor.Encode(absl::string_view(text.data(), text.size()), &ids);
    if (!status.ok()) {
      throw Error(ErrorCode::internal, "the tokenizer failed on a text of " +
                                           std::to_string(text.size()) +
                                           " bytes; please report this");
    }
    return ids;
  }

  void load_model(std::span<const std::byte> bytes, const TokenizerOptions& options,
                  const std::string& where);
  void load_json(std::string_view text, const std::string& where);

  void append(PieceText& decoded, int32_t id) const {
    if (id < 0 || id >= facts.pieces) return;
    const PieceKind kind = kinds[static_cast<size_t>(id)];
    if (kind == PieceKind::hidden) return;
    if (kind == PieceKind::byte) {
      const std::string& name = piece(id);  // "<0xE2>", checked at load
      const auto digit = [](char c) { return c <= '9' ? c - '0' : c - 'A' + 10; };
      decoded.bytes += static_cast<char>(digit(name[3]) * 16 + digit(name[4]));
      decoded.first = false;
      settle_bytes(decoded, /*at_end=*/false);
      return;
    }
    settle_bytes(decoded, /*at_end=*/true);
    std::string_view rest = piece(id);
    if (decoded.first && facts.add_dummy_prefix && rest.substr(0, 3) == kSpaceMark) {
      rest.remove_prefix(kSpaceMark.size());
    }
    decoded.first = false;
    while (!rest.empty()) {
      if (rest.substr(0, 3) == kSpaceMark) {
        decoded.text += ' ';
        rest.remove_prefix(kSpaceMark.size());
      } else {
        decoded.text += rest[0];
        rest.remove_prefix(1);
      }
    }
  }
};

namespace {

void load_sentencepiece(std::span<const std::byte> model, const std::string& where,
                        sentencepiece::SentencePieceProcessor& processor,
                        SentencePieceFacts& facts) {
  facts = check_sentencepiece_model(model, where);
  bool loaded = false;
  try {
    const absl::string_view bytes(reinterpret_cast<const char*>(model.data()), model.size());
    loaded = processor.LoadFromSerializedProto(bytes).ok();
  } catch (const std::bad_alloc&) {
    throw;
  } catch (const std::exception&) {  // darts-clone's, on sets of pieces that it cannot index
  }
  if (!loaded || processor.GetPieceSize() != facts.pieces) {
    throw Error(ErrorCode::corrupt_file, "sentencepiece refuses the tokenizer model (" + where +
                                             "); download the tokenizer again");
  }
}

bool is_byte_piece(std::string_view piece) {
  const auto is_hex = [](char c) { return (c >= '0' && c <= '9') || (c >= 'A' && c <= 'F'); };
  return piece.size() == 6 && piece.starts_with("<0x") && is_hex(piece[3]) && is_hex(piece[4]) &&
         piece[5] == '>';
}

// The id of the first of these names that is an added token; -1: none.
int32_t id_named(const std::vector<AddedToken>& added, std::initializer_list<const char*> names) {
  for (const char* name : names) {
    for (const AddedToken& token : added) {
      if (token.text == name) return token.id;
    }
  }
  return -1;
}

}  // namespace

void Tokenizer::Impl::load_model(std::span<const std::byte> bytes, const TokenizerOptions& options,
                                 const std::string& where) {
  load_sentencepiece(bytes, where, processor, facts);
  pad = processor.pad_id(), eos = processor.eos_id(), bos = processor.bos_id();
  unk = processor.unk_id();
  for (int32_t id = 0; id < facts.pieces; ++id) {
    const bool hidden = processor.IsControl(id) || processor.IsUnknown(id);
    kinds.push_back(hidden                 ? PieceKind::hidden
                    : processor.IsByte(id) ? PieceKind::byte
                                           : PieceKind::text);
  }
  std::vector<AddedToken> specials;
  for (const int32_t id : {pad, eos, bos, unk}) {
    if (id < 0 || id >= facts.pieces || piece(id)[0] != '<') continue;
    specials.push_back({piece(id), id});
  }
  const auto has_piece = [&](const char* name) { return processor.PieceToId(name) != unk; };
  const bool inside = has_piece("<extra_id_0>") || has_piece("\xe2\x96\x81<extra_id_0>");
  extra_ids = inside ? 0 : std::clamp(options.extra_ids, 0, 1 << 16);
  for (int i = 0; i < extra_ids; ++i) {
    specials.push_back({"<extra_id_" + std::to_string(i) + ">", facts.pieces + extra_ids - 1 - i});
  }
  added = AddedTokens(std::move(specials));
}

void Tokenizer::Impl::load_json(std::string_view text, const std::string& where) {
  TokenizerJson json = read_tokenizer_json(text, where);
  pad = id_named(json.added, {"<pad>"}), eos = id_named(json.added, {"</s>", "<eos>"});
  bos = id_named(json.added, {"<bos>", "<s>"});
  std::vector<AddedToken> raw, normalized;
  if (json.kind == TokenizerJson::Kind::unigram) {
    const std::string bytes = unigram_model_bytes(json);
    load_sentencepiece(std::as_bytes(std::span(bytes)), where, processor, facts);
    unk = json.unknown;
    raw = json.added;
  } else {
    bpe.emplace(json.pieces, json.merges, json.bpe);
    bpe_lower_case = json.lower_case;
    facts = {static_cast<int32_t>(json.pieces.size()), /*add_dummy_prefix=*/false,
             /*remove_extra_whitespaces=*/false};
    unk = json.bpe.unknown.value_or(-1);
    for (AddedToken& token : json.added) {
      if (token.normalized) token.text = bpe_normalised(token.text);
      (token.normalized ? normalized : raw).push_back(token);
    }
  }
  const bool bytes = json.bpe.byte_fallback || json.byte_fallback;
  kinds.assign(json.pieces.size(), PieceKind::text);
  for (size_t id = 0; id < kinds.size(); ++id) {
    if (bytes && is_byte_piece(json.pieces[id])) kinds[id] = PieceKind::byte;
    if (json.pieces[id].empty()) kinds[id] = PieceKind::hidden;
  }
  if (unk >= 0) kinds[static_cast<size_t>(unk)] = PieceKind::hidden;
  for (const AddedToken& token : json.added) {
    kinds[static_cast<size_t>(token.id)] = token.special ? PieceKind::hidden : PieceKind::text;
  }
  if (bpe) bpe_pieces = std::move(json.pieces);
  added = AddedTokens(std::move(raw));
  added_normalized = AddedTokens(std::move(normalized));
}

Tokenizer Tokenizer::from_bytes(std::span<const std::byte> model, const TokenizerOptions& options,
                                const std::string& where) {
  auto impl = std::make_unique<Impl>();
  impl->model.assign(model.begin(), model.end());
  const std::string_view text(reinterpret_cast<const char*>(model.data()), model.size());
  if (text.starts_with('{')) {  // no field of a SentencePiece model begins so
    impl->load_json(text, where);
  } else {
    impl->load_model(model, options, where);
  }
  return Tokenizer(std::move(impl));
}

Tokenizer Tokenizer::open(const fs::path& path, const TokenizerOptions& options) {
  return from_bytes(read_file(path, kLongestModel), options, path.string());
}

fs::path Tokenizer::find_beside(const fs::path& model) {
  std::error_code ignored;
  const fs::path folder = fs::is_directory(model, ignored) ? model : model.parent_path();
  for (const char* name :
       {"tokenizer.model", "spiece.model", "paligemma_tokenizer.model", "tokenizer.json"}) {
    if (is_there(folder / name)) return folder / name;
  }
  return {};
}

Tokenizer::Tokenizer(std::unique_ptr<Impl> impl) : impl_(std::move(impl)) {}
Tokenizer::Tokenizer(Tokenizer&&) noexcept = default;
Tokenizer& Tokenizer::operator=(Tokenizer&&) noexcept = default;
Tokenizer::~Tokenizer() = default;

int32_t Tokenizer::size() const { return impl_->facts.pieces + impl_->extra_ids; }
int32_t Tokenizer::pad_id() const { return impl_->pad; }
int32_t Tokenizer::eos_id() const { return impl_->eos; }
int32_t Tokenizer::bos_id() const { return impl_->bos; }
int32_t Tokenizer::unk_id() const { return impl_->unk; }
std::span<const std::byte> Tokenizer::model_bytes() const { return impl_->model; }
int Tokenizer::extra_ids() const { return impl_->extra_ids; }

std::vector<int32_t> Tokenizer::encode(std::string_view text) const {
  std::vector<int32_t> ids;
  const auto append_id = [&](int32_t id) { ids.push_back(id); };
  if (impl_->bpe) {
    const auto append_pieces = [&](std::string_view segment) { impl_->bpe->encode(segment, ids); };
    impl_->added.split(
        text,
        [&](std::string_view segment) {
          const std::string normalised = impl_->bpe_normalised(segment);
          impl_->added_normalized.split(normalised, append_pieces, append_id);
        },
        append_id);
    return ids;
  }
  const auto append_text = [&](std::string_view segment) {
    const std::vector<int> part = impl_->facts.remove_extra_whitespaces
                                      ? impl_->encode_segment(plain_spaces(segment))
                                      : impl_->encode_segment(segment);
    ids.insert(ids.end(), part.begin(), part.end());
  };
  impl_->added.split(text, append_text, append_id);
  return ids;
}

std::optional<int32_t> Tokenizer::id_of(std::string_view piece) const {
  if (!impl_->bpe) {
    const int32_t id = impl_->processor.PieceToId(absl::string_view(piece.data(), piece.size()));
    if (id < 0 || id >= impl_->facts.pieces || impl_->piece(id) != piece) return std::nullopt;
    return id;
  }
  const auto& pieces = impl_->bpe_pieces;
  const auto found = std::find(pieces.begin(), pieces.end(), piece);
  if (piece.empty() || found == pieces.end()) return std::nullopt;
  return static_cast<int32_t>(found - pieces.begin());
}

std::string Tokenizer::decode(std::span<const int32_t> ids) const {
  PieceText decoded;
  for (const int32_t id : ids) impl_->append(decoded, id);
  settle_bytes(decoded, /*at_end=*/true);
  return std::move(decoded.text);
}

std::vector<size_t> Tokenizer::decode_offsets(std::span<const int32_t> ids) const {
  PieceText decoded;
  std::vector<size_t> offsets;
  offsets.reserve(ids.size());
  for (const int32_t id : ids) {
    impl_->append(decoded, id);
    offsets.push_back(decoded.text.size());
  }
  settle_bytes(decoded, /*at_end=*/true);
  if (!offsets.empty()) offsets.back() = decoded.text.size();
  return offsets;
}

std::string_view StreamDecoder::next(int32_t id) {
  shown_ = decoded_.text.size();
  tokenizer_.impl_->append(decoded_, id);
  return std::string_view(decoded_.text).substr(shown_);
}

std::vector<int32_t> siglip_encode(const Tokenizer& tokenizer, std::string_view text,
                                   int64_t length, int32_t pad) {
  const Tokenizer::Impl& impl = *tokenizer.impl_;
  const auto padded = [&](std::vector<int32_t> ids) {
    const auto wanted = static_cast<size_t>(std::max<int64_t>(length, 1));
    ids.resize(std::min(ids.size(), wanted - 1));
    ids.push_back(tokenizer.eos_id());
    ids.resize(wanted, pad);
    return ids;
  };
  if (impl.bpe) return padded(tokenizer.encode(text));  // it lower-cases by itself
  const std::string unknown = impl.piece(impl.unk);
  const size_t unknown_length = impl.encode_segment(unknown).size();

  // Python's str.isspace, punctuation of string.punctuation.
  const auto canonical = [](std::string_view segment) {
    std::string out;
    bool space = false;
    for (size_t i = 0; i < segment.size();) {
      const auto c = static_cast<uint8_t>(segment[i]);
      const bool control_space = c == '\v' || (c >= 0x1c && c <= 0x1f);
      const size_t white = control_space ? 1 : white_space_at(segment, i);
      if (white > 0) {
        space = true;
        i += white;
        continue;
      }
      ++i;
      const bool punctuation =
          c > 0x20 && c < 0x7f && !(c >= '0' && c <= '9') && !((c | 32) >= 'a' && (c | 32) <= 'z');
      if (punctuation) continue;
      if (space && !out.empty()) out += ' ';
      space = false;
      out += static_cast<char>(c);
    }
    return out;
  };
  // The reference writes a space mark before the text, and the unknown's own name before every
  // part, whose pieces it drops again: so the first part alone begins a word.
  std::vector<int32_t> ids;
  const auto append_text = [&](std::string_view segment) {
    std::vector<int> part = impl.encode_segment(unknown + canonical(segment));
    const size_t drop = part.size() >= unknown_length ? unknown_length : 0;
    ids.insert(ids.end(), part.begin() + static_cast<std::ptrdiff_t>(drop), part.end());
  };
  std::string marked(kSpaceMark);
  const std::string lower = lower_case(text);
  for (size_t i = 0; i < lower.size();) {
    const bool mark = std::string_view(lower).substr(i, 3) == kSpaceMark;
    marked += mark ? ' ' : lower[i];
    i += mark ? kSpaceMark.size() : 1;
  }
  impl.added.split(marked, append_text, [&](int32_t id) { ids.push_back(id); });
  return padded(std::move(ids));
}

}  // namespace pali
