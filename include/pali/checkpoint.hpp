// Looking into checkpoints without running them, and writing pali checkpoints.
#pragma once

#include <cstdint>
#include <filesystem>
#include <functional>
#include <map>
#include <string>
#include <vector>

#include "pali/export.hpp"
#include "pali/options.hpp"

namespace pali {

class Engine;

struct TensorSummary {
  std::string name;   // as in the file
  std::string dtype;  // "f32", "bf16", "f16", ...
  std::vector<int64_t> shape;
  int64_t bytes = 0;
};

struct CheckpointInfo {
  std::string format;  // "huggingface", "pali", "big_vision"
  std::string family;
  int64_t parameters = 0;                       // tied tensors once
  std::map<std::string, int64_t> dtypes;        // parameters by storage type
  std::map<std::string, int64_t> memory_bytes;  // "weights", "tokenizer", "total"
  std::string config_json;
  std::string task_style;                      // which checkpoint's prompts these are; may be empty
  std::map<std::string, std::string> prompts;  // templates of the tasks it knows
  std::vector<TensorSummary> tensors;
  std::vector<std::string> warnings;
};

// Opens and checks a model as Engine::open does, but computes nothing. `task_style`: as
// EngineOptions has it. Throws Error.
PALI_API CheckpointInfo inspect(const std::filesystem::path& model,
                                const std::string& task_style = {});

struct ConvertOptions {
  // Either `source` ...
  std::filesystem::path source;
  // ... or the parts of a PaLI-3: a SigLIP, ViT or CLIP folder, a T5 folder, and perhaps a
  // projector.
  std::filesystem::path vision, language, projector;
  int64_t resolution = 0;  // 0: as the vision tower has it; else positions are resized
  std::filesystem::path tokenizer;
  uint64_t seed = 0;  // of a random projector, where none is given
  WeightType dtype = WeightType::automatic;
  // Where set, for int8 and int4: runs requests of the kind that the model is for on the engine
  // that it is given, of the source in f32 and good during the call only. Integers are then chosen
  // to serve the activations that these bring (GPTQ). A large model is calibrated in parts: called
  // several times, it runs the same requests.
  std::function<void(const Engine&)> calibrate;
  EngineOptions engine;  // of that engine: threads, isa, matmul, preprocess
  // Matrices whose products with those activations err by more than this, as a root mean square,
  // take the next wider type: int8 after int4, bf16 after int8. Small models need it: pali-mini in
  // int4 chooses f32's token in 97 % of all steps.
  double max_product_error = 0.02;
  std::filesystem::path output;
};

// What rounding a tensor to integers cost it.
struct QuantisedTensor {
  std::string name, dtype;   // dtype: "int8" or "int4"
  double rms_error = 0;      // of the weights' own root mean square
  double max_error = 0;      // of the largest weight
  double product_error = 0;  // rms, of the products of a calibration; 0 without one
};

// A matrix that is stored wider than what was asked for.
struct KeptTensor {
  std::string name, dtype;  // dtype: as it is stored
  std::string refused;      // "int8" or "int4"
  double rms_error = 0;  // that it would have cost; 0: whatever it costs, such tensors stay wider
  double product_error = 0;  // likewise, of the products of a calibration
};

struct ConvertReport {
  int64_t tensors = 0, bytes = 0;
  std::vector<QuantisedTensor> quantised;
  std::vector<KeptTensor> kept;
  std::vector<std::string> warnings;
};

// Writes one .safetensors file that runs alone (config, processing, prompts, tokenizer inside);
// written beside and renamed, so that a failure leaves nothing. Layout: models/FORMAT.md.
PALI_API ConvertReport convert(const ConvertOptions& options);

// The folder of the built-in model and of the named configs: `models` of the installation, or of
// the source tree this library was built from. Throws not_found.
PALI_API std::filesystem::path models_folder();

// models_folder() / "pali-mini". Throws not_found.
PALI_API std::filesystem::path builtin_model();

}  // namespace pali
