// Plain option structs: one comment and one default a field.
#pragma once

#include <cstdint>
#include <filesystem>
#include <functional>
#include <optional>
#include <string>

namespace pali {

// Kernel tiers, worst to best. `best` takes what the CPU has.
enum class Isa { best, scalar, avx2, avx_vnni, avx512, avx512_vnni, avx512_bf16, amx };

// Who multiplies matrices. `reference` is Eigen: slow, plain, independent; for tests.
enum class MatmulBackend { automatic, native, onednn, reference };

// Storage type of the weights: as the file has them, or converted at load.
enum class WeightType { automatic, f32, bf16, int8, int4 };

// Type of the operands of the products (sums are always f32). `automatic`: bf16 where this CPU
// multiplies it faster than f32 (bf16 weights: AMX, AVX512-BF16 of AMD; int8 and int4: AMX), int16
// beside int8 and int4 weights where that takes fewer instructions (AVX2, VNNI), else f32. `int16`,
// `int8`: activations are rounded to such integers beside int8 and int4 weights, 256 columns with
// one scale (int8 on AMX beside int4 ones only where few rows are multiplied: decoding); other
// products are in f32, but beside int8 on AMX in bf16. int16 moves activations by some 3e-5 of
// their norm (at most 2.5e-4), bf16 by 1.6e-3.
enum class ComputeType { automatic, f32, bf16, int16, int8 };

// How a picture becomes the model's square of pixels: as Hugging Face's processors do (Pillow), or
// as big_vision does (TensorFlow's bilinear), without or with antialias.
enum class Preprocess { hf, bv, bv_aa };

struct EngineOptions {
  int threads = 0;  // 0: the physical cores that this process may use
  Isa isa = Isa::best;
  MatmulBackend matmul = MatmulBackend::automatic;
  WeightType dtype = WeightType::automatic;
  ComputeType compute = ComputeType::automatic;
  // Lay weights out for products of many rows at load instead of on the way, in the type that is
  // multiplied, besides the file's own: f32, bf16 and f16, with oneDNN int8 too. Nothing for bf16
  // on AMX, for integers else, for the head, or with `reference`. The same bits where native
  // multiplies. Pays little, for small products most.
  bool prepack = false;
  bool mmap = true;                    // false reads the files into memory
  std::filesystem::path tokenizer;     // empty: inside or beside the model
  std::filesystem::path mask_decoder;  // empty: vae-oid.npz beside the model, where there is one
  // Which checkpoint's prompts are used: "pt", "mix", "ft-vqav2", ... Empty: by the model's name.
  std::string task_style;
  std::optional<Preprocess> preprocess;  // none: as where the model comes from does
  int64_t resolution = 0;                // 0: the model's own; else position embeddings are resized
  // Called on the loading thread with a fraction in [0, 1].
  std::function<void(double)> on_progress;
};

enum class Task { run, caption, vqa, ocr, detect, segment };

struct GenerationOptions {
  int max_tokens = 0;  // counts the end token; 0: the task's default (64 caption, 32 vqa, else 256)
  int beams = 1;       // 1: greedy, or sampling where temperature > 0
  int n_best = 1;      // hypotheses returned, <= beams
  double length_penalty = 1.0;  // score = logprob / length^length_penalty (transformers)
  double temperature = 0.0;     // 0: no sampling
  int top_k = 0;                // 0: off
  double top_p = 1.0;           // 1: off
  uint64_t seed = 0;
  // detect and segment of models with location tokens: only tokens that keep the answer well-formed
  // are chosen, and probabilities are those among them. Greedy and beams.
  bool constrain = false;
};

}  // namespace pali
