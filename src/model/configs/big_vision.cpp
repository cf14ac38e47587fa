// Ref: big_vision's models/vit.py, models/proj/image_text/{two_towers,text_transformer}.py,
// models/proj/paligemma/paligemma.py and models/ppp/gemma.py for names and shapes.
#include "model/configs/big_vision.hpp"

#include <algorithm>
#include <cmath>
#include <filesystem>

#include "base/quote.hpp"

namespace pali {
namespace {

constexpr const char* kPatchKernel = "img/embedding/kernel";
constexpr const char* kTokenTable = "llm/embedder/input_embedding";

// A row of the table: the end of our name, the end of theirs, how it lies there. `part` counts
// along an axis of `parts` (fused keys and values).
struct Row {
  const char* ours;
  const char* theirs;
  const char* axes;
  int part = 0, parts = 0;
};

// A ViT block, and the attention pooling with "norm" for its one LayerNorm.
constexpr Row kVitBlock[] = {
    {"norm1.weight", "LayerNorm_0/scale", "n>n"},
    {"norm1.bias", "LayerNorm_0/bias", "n>n"},
    {"norm2.weight", "LayerNorm_1/scale", "n>n"},
    {"norm2.bias", "LayerNorm_1/bias", "n>n"},
    {"norm.weight", "LayerNorm_0/scale", "n>n"},
    {"norm.bias", "LayerNorm_0/bias", "n>n"},
    {"attn.q.weight", "MultiHeadDotProductAttention_0/query/kernel", "ihd>hd,i"},
    {"attn.q.bias", "MultiHeadDotProductAttention_0/query/bias", "hd>hd"},
    {"attn.k.weight", "MultiHeadDotProductAttention_0/key/kernel", "ihd>hd,i"},
    {"attn.k.bias", "MultiHeadDotProductAttention_0/key/bias", "hd>hd"},
    {"attn.v.weight", "MultiHeadDotProductAttention_0/value/kernel", "ihd>hd,i"},
    {"attn.v.bias", "MultiHeadDotProductAttention_0/value/bias", "hd>hd"},
    {"attn.o.weight", "MultiHeadDotProductAttention_0/out/kernel", "hdo>o,hd"},
    {"attn.o.bias", "MultiHeadDotProductAttention_0/out/bias", "n>n"},
    {"mlp.up.weight", "MlpBlock_0/Dense_0/kernel", "io>o,i"},
    {"mlp.up.bias", "MlpBlock_0/Dense_0/bias", "n>n"},
    {"mlp.down.weight", "MlpBlock_0/Dense_1/kernel", "io>o,i"},
    {"mlp.down.bias", "MlpBlock_0/Dense_1/bias", "n>n"},
};

constexpr Row kGemmaBlock[] = {
    {"norm1.weight", "pre_attention_norm/scale", "n>n"},
    {"norm1_after.weight", "post_attention_norm/scale", "n>n"},
    {"norm2.weight", "pre_ffw_norm/scale", "n>n"},
    {"norm2_after.weight", "post_ffw_norm/scale", "n>n"},
    {"attn.q.weight", "attn/q_einsum/w", "hid>hd,i"},
    {"attn.k.weight", "attn/kv_einsum/w", "phid>hd,i", 0, 2},
    {"attn.v.weight", "attn/kv_einsum/w", "phid>hd,i", 1, 2},
    {"attn.o.weight", "attn/attn_vec_einsum/w", "hdo>o,hd"},
    {"mlp.gate.weight", "mlp/gating_einsum", "pio>o,i", 0, 2},
    {"mlp.up.weight", "mlp/gating_einsum", "pio>o,i", 1, 2},
    {"mlp.down.weight", "mlp/linear", "io>o,i"},
};
// As many heads for keys and values as for queries: one tensor holds all three.
constexpr Row kFusedAttention[] = {
    {"attn.q.weight", "attn/qkv_einsum/w", "phid>hd,i", 0, 3},
    {"attn.k.weight", "attn/qkv_einsum/w", "phid>hd,i", 1, 3},
    {"attn.v.weight", "attn/qkv_einsum/w", "phid>hd,i", 2, 3},
};

// Names of their own.
constexpr Row kSingle[] = {
    {"vision.patch.weight", kPatchKernel, "yxco>o,cyx"},
    {"vision.patch.bias", "img/embedding/bias", "n>n"},
    {"vision.pos", "img/pos_embedding", "poi>o,i", 0, 1},
    {"vision.norm.weight", "img/Transformer/encoder_norm/scale", "n>n"},
    {"vision.norm.bias", "img/Transformer/encoder_norm/bias", "n>n"},
    {"vision.head.probe", "img/MAPHead_0/probe", "poi>o,i", 0, 1},
    {"projector.weight", "img/head/kernel", "io>o,i"},
    {"projector.bias", "img/head/bias", "n>n"},
    {"text.embed", "txt/Embed_0/embedding", ""},
    {"text.pos", "txt/pos_embedding", "poi>o,i", 0, 1},
    {"text.norm.weight", "txt/Encoder_0/encoder_norm/scale", "n>n"},
    {"text.norm.bias", "txt/Encoder_0/encoder_norm/bias", "n>n"},
    {"text.head.weight", "txt/head/kernel", "io>o,i"},
    {"text.head.bias", "txt/head/bias", "n>n"},
    {"logit_scale", "t", ""},
    {"logit_bias", "b", ""},
    {"lm.embed", kTokenTable, ""},
    {"lm.decoder.norm.weight", "llm/final_norm/scale", "n>n"},
};

// The tensors under the names of the model, whatever stands before them in the file.
class Tensors {
 public:
  explicit Tensors(const WeightStore& store)
      : store_(store),
        prefix_(store.find(std::string("params/") + kPatchKernel) != nullptr ? "params/" : "") {}

  std::string name(const std::string& path) const { return prefix_ + path; }
  const StoredTensor* find(const std::string& path) const { return store_.find(name(path)); }

  // Size of an axis, from the front (0, 1, ...) or from the back (-1, -2, ...), of a tensor that
  // must have `rank` axes.
  int64_t size(const std::string& path, size_t rank, int axis) const {
    const StoredTensor* tensor = find(path);
    if (tensor == nullptr || tensor->shape.size() != rank) {
      throw Error(ErrorCode::corrupt_file,
                  "tensor " + quote(name(path)) + ": expected one of " + std::to_string(rank) +
                      " axes, found " +
                      (tensor == nullptr ? "none" : std::to_string(tensor->shape.size())) + " (" +
                      store_.where() + "); download the checkpoint again");
    }
    return tensor->shape[axis < 0 ? rank - static_cast<size_t>(-axis) : static_cast<size_t>(axis)];
  }
  std::string where() const { return store_.where(); }

 private:
  const WeightStore& store_;
  std::string prefix_;
};

// A stack of ViT blocks: a tensor a block, or all blocks in one ("scanned").
struct Blocks {
  std::string path;  // before the number of the block, where there is one
  bool scanned = false;
  int64_t count = 0;

  Blocks(const Tensors& tensors, std::string blocks) : path(std::move(blocks)) {
    const std::string norm = "/LayerNorm_0/scale";
    if (tensors.find(path + norm) != nullptr) {
      scanned = true;
      count = tensors.size(path + norm, 2, 0);
      return;
    }
    while (tensors.find(path + "_" + std::to_string(count) + norm) != nullptr) ++count;
  }
  std::string of(int64_t index) const {
    return scanned ? path + "/" : path + "_" + std::to_string(index) + "/";
  }
};

Json tower_config(const Tensors& tensors, const Blocks& blocks, int64_t width) {
  const size_t stacked = blocks.scanned ? 1 : 0;
  const std::string first = blocks.of(0);
  return Json{
      {"hidden_size", width},
      {"num_hidden_layers", blocks.count},
      {"num_attention_heads",
       tensors.size(first + "MultiHeadDotProductAttention_0/query/kernel", 3 + stacked, -2)},
      {"intermediate_size", tensors.size(first + "MlpBlock_0/Dense_0/kernel", 2 + stacked, -1)},
      {"hidden_act", "gelu_pytorch_tanh"},
      {"layer_norm_eps", 1e-6}};
}

// Side of the images: what the file is named for, where that has as many patches as there are
// positions, else exactly the patches.
int64_t image_size(const Tensors& tensors, int64_t patch) {
  const int64_t positions = tensors.size("img/pos_embedding", 3, 1);
  const auto grid = static_cast<int64_t>(std::sqrt(static_cast<double>(positions)) + 0.5);
  if (grid < 1 || grid * grid != positions || grid > (1 << 14) / patch) {
    throw Error(ErrorCode::corrupt_file, "tensor " + quote(tensors.name("img/pos_embedding")) +
                                             ": expected the positions of a square grid, found " +
                                             std::to_string(positions) + " (" + tensors.where() +
                                             "); download the checkpoint again");
  }
  const std::string stem = std::filesystem::path(tensors.where()).stem().string();
  int64_t number = 0;
  for (const char c : stem + "-") {
    if (c >= '0' && c <= '9' && number < (1 << 14)) {
      number = number * 10 + (c - '0');
      continue;
    }
    if (number / patch == grid) return number;
    number = 0;
  }
  return grid * patch;
}

Json vision_config(const Tensors& tensors) {
  const int64_t patch = tensors.size(kPatchKernel, 4, 0);
  if (patch < 1 || patch > 1024) {
    throw Error(ErrorCode::corrupt_file, "tensor " + quote(tensors.name(kPatchKernel)) +
                                             ": expected patches of 1 to 1024 px, found " +
                                             std::to_string(patch) + " (" + tensors.where() +
                                             "); download the checkpoint again");
  }
  Json config = tower_config(tensors, Blocks(tensors, "img/Transformer/encoderblock"),
                             tensors.size(kPatchKernel, 4, 3));
  config["model_type"] = "siglip_vision_model";
  config["patch_size"] = patch;
  config["image_size"] = image_size(tensors, patch);
  config["vision_use_head"] = tensors.find("img/MAPHead_0/probe") != nullptr;
  return config;
}

Json text_config(const Tensors& tensors) {
  const int64_t vocab = tensors.size("txt/Embed_0/embedding", 2, 0);
  Json config = tower_config(tensors, Blocks(tensors, "txt/Encoder_0/encoderblock"),
                             tensors.size("txt/Embed_0/embedding", 2, 1));
  config["model_type"] = "siglip_text_model";
  config["vocab_size"] = vocab;
  config["max_position_embeddings"] = tensors.size("txt/pos_embedding", 3, 1);
  config["projection_size"] = tensors.size("txt/head/kernel", 2, 1);
  return config;
}

// Gemma 1, or Gemma 2 where there are norms behind attention and MLP.
Json gemma_config(const Tensors& tensors) {
  const std::string layers = "llm/layers/";
  const bool second = tensors.find(layers + "post_attention_norm/scale") != nullptr;
  const bool fused = tensors.find(layers + "attn/qkv_einsum/w") != nullptr;
  const std::string query = layers + (fused ? "attn/qkv_einsum/w" : "attn/q_einsum/w");
  const size_t rank = fused ? 5 : 4;
  const int64_t width = tensors.size(kTokenTable, 2, 1);
  const int64_t heads = tensors.size(query, rank, -3), head = tensors.size(query, rank, -1);
  Json config{
      {"model_type", second ? "gemma2" : "gemma"},
      {"vocab_size", tensors.size(kTokenTable, 2, 0)},
      {"hidden_size", width},
      {"num_hidden_layers", tensors.size(layers + "pre_attention_norm/scale", 2, 0)},
      {"num_attention_heads", heads},
      {"num_key_value_heads", fused ? heads : tensors.size(layers + "attn/kv_einsum/w", 5, 2)},
      {"head_dim", head},
      {"intermediate_size", tensors.size(layers + "mlp/linear", 3, 1)},
      {"hidden_activation", "gelu_pytorch_tanh"},
      {"rms_norm_eps", 1e-6},
      {"rope_theta", 10000.0},
      {"pad_token_id", 0},
      {"eos_token_id", 1},
      {"bos_token_id", 2}};
  if (second) {
    // gemma.py: "rsqrt_emb_per_head" for 27b alone, which is the one of that width.
    constexpr int64_t kWidth27b = 4608;
    config["query_pre_attn_scalar"] =
        width == kWidth27b ? width / std::max<int64_t>(heads, 1) : head;
    config["attn_logit_softcapping"] = 50.0;
    // paligemma.py never caps its logits, and gemma.py has no sliding window.
    config["final_logit_softcapping"] = nullptr;
    config["sliding_window"] = nullptr;
  }
  return config;
}

// The row's tensor, block `index` of `blocks` of them stacked on the first axis (0: not stacked).
void set_source(TensorRule& rule, const Tensors& tensors, const std::string& path, const Row& row,
                int64_t index, int64_t blocks) {
  rule.sources = {tensors.name(path)};
  rule.transform = Transform::none;
  rule.part = 0;
  rule.parts = 1;
  if (*row.axes == '\0') return;
  rule.transform = Transform::axes;
  rule.axes = blocks > 0 ? std::string("l") + row.axes : row.axes;
  rule.picks.clear();
  if (blocks > 0) rule.picks.push_back({index, blocks});
  if (row.parts > 0) rule.picks.push_back({row.part, row.parts});
}

const Row* find_row(std::span<const Row> table, const std::string& ours) {
  const auto it =
      std::find_if(table.begin(), table.end(), [&](const Row& row) { return ours == row.ours; });
  return it == table.end() ? nullptr : &*it;
}

// "vision.blocks.3.attn.q.weight" behind "vision.blocks.": the block and the rest.
std::pair<int64_t, std::string> split_block(const std::string& name, size_t at) {
  const size_t dot = name.find('.', at);
  return {std::stoll(name.substr(at, dot - at)), name.substr(dot + 1)};
}

class Translation {
 public:
  explicit Translation(const WeightStore& store)
      : tensors_(store),
        image_blocks_(tensors_, "img/Transformer/encoderblock"),
        text_blocks_(tensors_, "txt/Encoder_0/encoderblock") {}

  bool apply(TensorRule& rule) const {
    const std::string& name = rule.name;
    for (const auto& [prefix, blocks] :
         {std::pair("vision.blocks.", &image_blocks_), std::pair("text.blocks.", &text_blocks_)}) {
      if (!name.starts_with(prefix)) continue;
      const auto [index, rest] = split_block(name, std::string_view(prefix).size());
      const Row* row = find_row(kVitBlock, rest);
      if (row == nullptr) return false;
      set_source(rule, tensors_, blocks->of(index) + row->theirs, *row, index,
                 blocks->scanned ? blocks->count : 0);
      return true;
    }
    constexpr std::string_view kHead = "vision.head.", kGemma = "lm.decoder.blocks.";
    if (const Row* row = find_row(kSingle, name)) {
      set_source(rule, tensors_, row->theirs, *row, 0, 0);
      return true;
    }
    if (name.starts_with(kHead)) {
      const Row* row = find_row(kVitBlock, name.substr(kHead.size()));
      if (row != nullptr) {
        set_source(rule, tensors_, std::string("img/MAPHead_0/") + row->theirs, *row, 0, 0);
      }
      return row != nullptr;
    }
    return name.starts_with(kGemma) && apply_gemma(rule, kGemma.size());
  }

 private:
  bool apply_gemma(TensorRule& rule, size_t at) const {
    const auto [index, rest] = split_block(rule.name, at);
    const std::string layers = "llm/layers/";
    const Row* row = nullptr;
    if (tensors_.find(layers + "attn/qkv_einsum/w")) row = find_row(kFusedAttention, rest);
    if (row == nullptr) row = find_row(kGemmaBlock, rest);
    if (row == nullptr) return false;
    Row used = *row;
    if (std::string_view(used.theirs) == "mlp/gating_einsum" &&
        tensors_.size(layers + used.theirs, 4, -1) == rule.shape[1] &&
        rule.shape[0] != rule.shape[1]) {
      used.axes = "poi>o,i";  // gemma.py: transpose_gating_einsum
    }
    set_source(rule, tensors_, layers + used.theirs, used, index,
               tensors_.size(layers + "pre_attention_norm/scale", 2, 0));
    return true;
  }

  Tensors tensors_;
  Blocks image_blocks_, text_blocks_;
};

}  // namespace

ConfigFiles big_vision_files(const WeightStore& store) {
  const Tensors tensors(store);
  const bool text = tensors.find("txt/Embed_0/embedding") != nullptr;
  const bool language = tensors.find(kTokenTable) != nullptr;
  if (tensors.find(kPatchKernel) == nullptr) {
    throw Error(ErrorCode::unsupported,
                "an .npz without " + quote(kPatchKernel) + " (" + store.where() +
                    "); SigLIP and PaliGemma checkpoints of big_vision are read (vae-oid.npz is "
                    "given as --mask-decoder)");
  }
  Json config = vision_config(tensors);
  if (language) {
    Json gemma = gemma_config(tensors);
    config["vision_use_head"] = false;
    config = Json{{"model_type", "paligemma"},
                  {"vision_config", std::move(config)},
                  {"image_token_index", gemma["vocab_size"]},
                  {"projection_dim", gemma["hidden_size"]},
                  {"pad_token_id", 0},
                  {"eos_token_id", 1},
                  {"bos_token_id", 2},
                  {"text_config", std::move(gemma)}};
  } else if (text) {
    config = Json{{"model_type", "siglip"},
                  {"vision_config", std::move(config)},
                  {"text_config", text_config(tensors)}};
  }
  ConfigFiles files;
  files.where = store.where() + ", shapes";
  files.config_text = config.dump(2) + "\n";
  files.config = std::move(config);
  files.preprocessor = Json{{"preprocess", "bv-aa"}};
  return files;
}

void use_big_vision_names(const WeightStore& store, std::vector<TensorRule>& rules) {
  const Translation translation(store);
  std::erase_if(rules, [&](TensorRule& rule) {
    if (translation.apply(rule)) return false;
    if (rule.optional) return true;
    throw Error(ErrorCode::internal, "no big_vision name for " + quote(rule.name) + " (" +
                                         store.where() + "); please report this");
  });
}

}  // namespace pali
