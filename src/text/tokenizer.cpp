#include "text/tokenizer.hpp"

#include <sentencepiece_processor.h>

#include <algorithm>
#include <array>
#include <system_error>
#include <utility>

#include "base/mapped_file.hpp"
#include "pali/error.hpp"
#include "text/lower_case.hpp"
#include "text/model_check.hpp"

namespace pali {
namespace {

namespace fs = std::filesystem;

constexpr int64_t kLongestModel = 64 << 20;
constexpr std::string_view kSpaceMark = "\xe2\x96\x81";  // U+2581, a space inside pieces
constexpr std::string_view kReplacement = "\xef\xbf\xbd";

bool is_there(const fs::path& path) {
  std::error_code ignored;
  return fs::exists(path, ignored);
}

std::string shell_quote(const std::string& text) {
  std::string quoted = "'";
  for (const char c : text) {
    if (c == '\'') {
      quoted += "'\\''";
    } else {
      quoted += c;
    }
  }
  return quoted + "'";
}

[[noreturn]] void refuse_tokenizer_json(const fs::path& file) {
  throw Error(
      ErrorCode::unsupported,
      "only tokenizer.json, a SentencePiece model is needed (" + file.string() +
          "); take spiece.model or tokenizer.model from where the model came from, or, where it is "
          "of the unigram kind (T5, SigLIP), rebuild one: python3 -c \"import base64, json, re, "
          "sys; from sentencepiece import sentencepiece_model_pb2 as pb; f = sys.argv[1]; t = "
          "json.load(open(f)); u = t['model']['unk_id']; m = pb.ModelProto(); [m.pieces.add("
          "piece=p, score=s, type=2 if i == u else 3 if p in ('<pad>', '</s>', '<s>') else 1) for "
          "i, (p, s) in enumerate(t['model']['vocab']) if not p.startswith('<extra_id_')]; "
          "m.trainer_spec.model_type = 1; m.normalizer_spec.precompiled_charsmap = "
          "b''.join(base64.b64decode(c) for c in re.findall('precompiled_charsmap.: .([A-Za-z0-9+/="
          "]*)', json.dumps(t))); open(f[:-5] + '.model', 'wb').write("
          "m.SerializeToString())\" " +
          shell_quote(file.string()));
}

// Length of the white space at text[position] that sentencepiece's own normalisers turn into a
// space, 0 where there is none. U+000B is none of it: they drop it.
size_t white_space_at(std::string_view text, size_t position) {
  const auto lead = static_cast<uint8_t>(text[position]);
  if (lead < 0x80) {
    return lead == ' ' || lead == '\t' || lead == '\n' || lead == '\f' || lead == '\r' ? 1 : 0;
  }
  size_t next = position;
  const uint32_t c = next_code_point(text, next);
  const bool white = c == 0x85 || c == 0xa0 || c == 0x1680 || (c >= 0x2000 && c <= 0x200a) ||
                     c == 0x2028 || c == 0x2029 || c == 0x202f || c == 0x205f || c == 0x3000;
  return white ? next - position : 0;
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

// Moves what is settled of byte pieces into the text: whole characters, and U+FFFD for bytes that
// can become none. `at_end` settles the rest.
void settle_bytes(PieceText& decoded, bool at_end) {
  size_t position = 0;
  while (position < decoded.bytes.size()) {
    const size_t start = position;
    if (next_code_point(decoded.bytes, position) != kInvalid) {
      decoded.text.append(decoded.bytes, start, position - start);
      continue;
    }
    // Up to three bytes may still be the beginning of a character.
    const auto lead = static_cast<uint8_t>(decoded.bytes[start]);
    const size_t wanted = lead >= 0xf0 && lead <= 0xf4 ? 4
                          : lead >= 0xe0               ? 3
                          : lead >= 0xc2               ? 2
                                                       : 1;
    const size_t have = decoded.bytes.size() - start;
    const bool may_grow =
        lead <= 0xf4 && have < wanted &&
        std::all_of(decoded.bytes.begin() + static_cast<std::ptrdiff_t>(start) + 1,
                    decoded.bytes.end(), [](char c) { return (c & 0xc0) == 0x80; });
    if (may_grow && !at_end) {
      decoded.bytes.erase(0, start);
      return;
    }
    decoded.text += kReplacement;
    position = start + 1;
  }
  decoded.bytes.clear();
}

}  // namespace

struct Tokenizer::Impl {
  sentencepiece::SentencePieceProcessor processor;
  std::vector<std::byte> model;
  SentencePieceFacts facts;
  int extra_ids = 0;
  // Whole strings that stand for one id, longest first.
  std::vector<std::pair<std::string, int32_t>> specials;

  // The special at text[position], or null.
  const std::pair<std::string, int32_t>* special_at(std::string_view text, size_t position) const {
    if (text[position] != specials_lead) return nullptr;
    for (const auto& special : specials) {
      if (text.compare(position, special.first.size(), special.first) == 0) return &special;
    }
    return nullptr;
  }

  // Calls on_text(segment) and on_special(id) in the order of the text; no empty segments.
  template <class OnText, class OnSpecial>
  void split(std::string_view text, OnText on_text, OnSpecial on_special) const {
    size_t start = 0;
    for (size_t i = 0; i < text.size();) {
      const auto* special = special_at(text, i);
      if (special == nullptr) {
        ++i;
        continue;
      }
      if (i > start) on_text(text.substr(start, i - start));
      on_special(special->second);
      start = i += special->first.size();
    }
    if (start < text.size()) on_text(text.substr(start));
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

  void append(PieceText& decoded, int32_t id) const {
    if (id < 0 || id >= facts.pieces || processor.IsControl(id) || processor.IsUnknown(id)) return;
    if (processor.IsByte(id)) {
      const std::string& piece = processor.IdToPiece(id);  // "<0xE2>", checked at load
      const auto digit = [](char c) { return c <= '9' ? c - '0' : c - 'A' + 10; };
      decoded.bytes += static_cast<char>(digit(piece[3]) * 16 + digit(piece[4]));
      decoded.first = false;
      settle_bytes(decoded, /*at_end=*/false);
      return;
    }
    settle_bytes(decoded, /*at_end=*/true);
    std::string_view rest = processor.IdToPiece(id);
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

  static constexpr char specials_lead = '<';
};

Tokenizer Tokenizer::from_bytes(std::span<const std::byte> model, const TokenizerOptions& options,
                                const std::string& where) {
  auto impl = std::make_unique<Impl>();
  impl->facts = check_sentencepiece_model(model, where);
  impl->model.assign(model.begin(), model.end());
  auto& processor = impl->processor;
  bool loaded = false;
  try {
    const absl::string_view bytes(reinterpret_cast<const char*>(impl->model.data()),
                                  impl->model.size());
    loaded = processor.LoadFromSerializedProto(bytes).ok();
  } catch (const std::bad_alloc&) {
    throw;
  } catch (const std::exception&) {  // darts-clone's, on sets of pieces that it cannot index
  }
  if (!loaded || processor.GetPieceSize() != impl->facts.pieces) {
    throw Error(ErrorCode::corrupt_file, "sentencepiece refuses the tokenizer model (" + where +
                                             "); download the tokenizer again");
  }

  const auto add_special = [&](int32_t id) {
    if (id < 0 || id >= impl->facts.pieces) return;
    const std::string& piece = processor.IdToPiece(id);
    if (piece[0] == Impl::specials_lead) impl->specials.emplace_back(piece, id);
  };
  add_special(processor.pad_id());
  add_special(processor.eos_id());
  add_special(processor.unk_id());
  const auto has_piece = [&](const char* piece) {
    return processor.PieceToId(piece) != processor.unk_id();
  };
  const bool inside = has_piece("<extra_id_0>") || has_piece("\xe2\x96\x81<extra_id_0>");
  impl->extra_ids = inside ? 0 : std::clamp(options.extra_ids, 0, 1 << 16);
  for (int i = 0; i < impl->extra_ids; ++i) {
    impl->specials.emplace_back("<extra_id_" + std::to_string(i) + ">",
                                impl->facts.pieces + impl->extra_ids - 1 - i);
  }
  std::stable_sort(impl->specials.begin(), impl->specials.end(),
                   [](const auto& a, const auto& b) { return a.first.size() > b.first.size(); });
  return Tokenizer(std::move(impl));
}

Tokenizer Tokenizer::open(const fs::path& path, const TokenizerOptions& options) {
  if (path.extension() == ".json" && is_there(path)) refuse_tokenizer_json(path);
  return from_bytes(read_file(path, kLongestModel), options, path.string());
}

fs::path Tokenizer::find_beside(const fs::path& model) {
  std::error_code ignored;
  const fs::path folder = fs::is_directory(model, ignored) ? model : model.parent_path();
  for (const char* name : {"tokenizer.model", "spiece.model", "paligemma_tokenizer.model"}) {
    if (is_there(folder / name)) return folder / name;
  }
  if (is_there(folder / "tokenizer.json")) refuse_tokenizer_json(folder / "tokenizer.json");
  return {};
}

Tokenizer::Tokenizer(std::unique_ptr<Impl> impl) : impl_(std::move(impl)) {}
Tokenizer::Tokenizer(Tokenizer&&) noexcept = default;
Tokenizer& Tokenizer::operator=(Tokenizer&&) noexcept = default;
Tokenizer::~Tokenizer() = default;

int32_t Tokenizer::size() const { return impl_->facts.pieces + impl_->extra_ids; }
int32_t Tokenizer::pad_id() const { return impl_->processor.pad_id(); }
int32_t Tokenizer::eos_id() const { return impl_->processor.eos_id(); }
int32_t Tokenizer::unk_id() const { return impl_->processor.unk_id(); }
std::span<const std::byte> Tokenizer::model_bytes() const { return impl_->model; }
int Tokenizer::extra_ids() const { return impl_->extra_ids; }

std::vector<int32_t> Tokenizer::encode(std::string_view text) const {
  std::vector<int32_t> ids;
  const auto append_text = [&](std::string_view segment) {
    const std::vector<int> part = impl_->facts.remove_extra_whitespaces
                                      ? impl_->encode_segment(plain_spaces(segment))
                                      : impl_->encode_segment(segment);
    ids.insert(ids.end(), part.begin(), part.end());
  };
  impl_->split(text, append_text, [&](int32_t id) { ids.push_back(id); });
  return ids;
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
  const std::string unknown = impl.processor.IdToPiece(impl.processor.unk_id());
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
  impl.split(marked, append_text, [&](int32_t id) { ids.push_back(id); });

  const auto wanted = static_cast<size_t>(std::max<int64_t>(length, 1));
  ids.resize(std::min(ids.size(), wanted - 1));
  ids.push_back(tokenizer.eos_id());
  ids.resize(wanted, pad);
  return ids;
}

}  // namespace pali
