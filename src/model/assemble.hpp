// From a path to a model that runs: the one place that looks at what family a checkpoint is of.
#pragma once

#include <cstdint>
#include <filesystem>
#include <functional>
#include <map>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "io/tensor_table.hpp"
#include "io/weight_store.hpp"
#include "matmul/matmul.hpp"
#include "model/decoder.hpp"
#include "model/model_config.hpp"
#include "model/storage.hpp"
#include "model/text_tower.hpp"
#include "model/vision.hpp"
#include "text/tokenizer.hpp"

namespace pali {

// Visual tokens into the language model's width. Ref: PaLI-3, section 3.1: one linear layer;
// T5Gemma2MultiModalProjector pools and norms before it.
class Projector {
 public:
  Projector(const ProjectorConfig& config, const TensorTable& table, const MatmulPolicy& policy);
  // [N, Dv], a square of tokens where they are pooled -> [tokens(N), D]. Stage: projected.
  // Tokens at the beginning may be left out: LLaVA's vision_feature_select_strategy.
  Tensor run(const Context& context, ConstMat tokens) const;
  int64_t width() const { return weight_->out(); }
  // How many are left of N visual tokens.
  int64_t tokens(int64_t visual) const;

 private:
  ProjectorConfig config_;
  std::vector<float> norm_;
  std::unique_ptr<PackedLinear> weight_;
  std::vector<float> bias_;
};

// A checkpoint opened and checked, nothing computed yet.
struct Checkpoint {
  std::string format;  // "huggingface", "big_vision", "pali"
  std::filesystem::path path;
  ModelConfig config;
  WeightStore store;
  TensorTable table;
  std::optional<Tokenizer> tokenizer;
  std::vector<std::string> warnings;
};

struct CheckpointOptions {
  bool mmap = true;
  std::filesystem::path tokenizer;
  std::string task_style =
      {};  // configs/task_style.hpp; empty: as the checkpoint says, or its name
};

// A Hugging Face folder, a big_vision .npz or a pali checkpoint, by path or by its name on the hub
// (model/hub_cache.hpp). Throws Error.
Checkpoint open_checkpoint(const std::filesystem::path& model,
                           const CheckpointOptions& options = {});

// Parts of a PaLI-3 put together in memory: what `pali convert --vision --language` writes.
struct ComposeOptions {
  std::filesystem::path vision, language, projector, tokenizer;
  int64_t resolution = 0;
  uint64_t seed = 0;
};
Checkpoint compose_checkpoint(const ComposeOptions& options);

// A checkpoint of random weights with the shapes of a config file of models/configs, made in memory
// (f32, bf16, i8, i4; never narrower than a row allows): for benchmarks. No tokenizer.
Checkpoint random_checkpoint(const std::filesystem::path& config_file, DType dtype, uint64_t seed);

// What rounding to integers cost a tensor.
struct TensorError {
  std::string name;
  DType dtype = DType::i8;
  QuantisationError error;
};

// A matrix that stays wider than what was asked for; `error`: of what was refused, 0 where the
// provenance table refuses it whatever it costs.
struct TensorKept {
  std::string name;
  DType dtype, refused;
  QuantisationError error;
};

struct QuantisationReport {
  std::vector<TensorError> rounded;
  std::vector<TensorKept> kept;  // a tensor may stand in both: int8 where int4 was refused
};

// Tensors whose form is decided already, by name; they borrow the rows of a checkpoint's table.
using StoredForms = std::map<std::string, StoredForm, std::less<>>;

// Writes a pali checkpoint (models/FORMAT.md) of one whose table is loaded; `dtype` empty keeps
// each tensor's own. `forms`: of this checkpoint's tensors.
QuantisationReport write_checkpoint(const Checkpoint& checkpoint, std::optional<DType> dtype,
                                    const std::filesystem::path& path, StoredForms forms = {});

// The running model. Immutable; owns the checkpoint its weights lie in.
struct Model {
  Checkpoint checkpoint;
  std::optional<VisionTower> vision;
  std::optional<TextTower> text_tower;
  std::optional<Projector> projector;
  std::unique_ptr<LanguageModel> language;
  float logit_scale = 0, logit_bias = 0;  // SigLIP's, where the text tower is there
};

struct ModelOptions {
  MatmulPolicy policy;
  int64_t resolution = 0;
  std::function<void(double)> on_progress;
};

Model build_model(Checkpoint checkpoint, const ModelOptions& options);

}  // namespace pali
