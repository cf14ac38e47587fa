// Vision towers. Ref: SiglipVisionModel, ViTModel and CLIPVisionModel in transformers'
// modeling_{siglip,vit,clip}.py.
#include "model/vision.hpp"

#include <algorithm>
#include <cmath>
#include <string>

#include "model/encoder_stack.hpp"

namespace pali {
namespace {

// Past this side an image is a mistake: 1064 px are the most that the family was trained at.
constexpr int64_t kMaxResolution = 16384;

BlockSpec block_spec(const VisionConfig& config) {
  BlockSpec spec;
  spec.width = config.width;
  spec.heads = spec.kv_heads = config.heads;
  spec.head_dim = config.width / config.heads;
  spec.attention_scale = 1.0f / std::sqrt(static_cast<float>(spec.head_dim));
  spec.norm = NormKind::layer;
  spec.eps = config.eps;
  spec.mlp_width = config.mlp;
  spec.mlp = MlpKind::plain;
  spec.activation = config.activation;
  return spec;
}

StackSpec stack_spec(const VisionConfig& config) {
  StackSpec spec;
  spec.block = block_spec(config);
  spec.layers = config.layers;
  spec.norm_after = config.norm_after;
  return spec;
}

// pixels [3, S*S] -> [N, 3*p*p], a patch a row in (channel, y, x) order, as the kernel of a
// convolution [D, 3, p, p] lies in memory. Pixels beyond the last whole patch are ignored
// (Conv2d with padding="valid").
Tensor extract_patches(ConstMat pixels, int64_t size, int64_t patch) {
  const int64_t grid = size / patch;
  Tensor patches(grid * grid, 3 * patch * patch);
  for (int64_t gy = 0; gy < grid; ++gy) {
    for (int64_t gx = 0; gx < grid; ++gx) {
      float* out = patches.row(gy * grid + gx);
      for (int64_t c = 0; c < 3; ++c) {
        for (int64_t y = 0; y < patch; ++y) {
          out = std::copy_n(pixels.row(c) + (gy * patch + y) * size + gx * patch, patch, out);
        }
      }
    }
  }
  return patches;
}

// The multi-head attention pooling of SigLIP: one learned query looks at all tokens.
// Ref: SiglipMultiheadAttentionPoolingHead.
class PoolingHead {
 public:
  PoolingHead(const BlockSpec& spec, const TensorTable& table, const std::string& name,
              const MatmulPolicy& policy)
      : spec_(spec),
        probe_(table.values(name + ".probe")),
        attention_(spec, table, name + ".attn", policy),
        norm_(spec, table, name + ".norm"),
        mlp_(spec, table, name + ".mlp", policy) {}

  // tokens [N, D] -> [1, D]
  Tensor run(const Context& context, ConstMat tokens) const {
    const int64_t width = spec_.width;
    Tensor q(1, width), k(tokens.rows, width), v(tokens.rows, width), attended(1, width);
    Tensor x(1, width), normed(1, width), hidden(1, spec_.mlp_width), pooled(1, width);
    // x = attention(probe, tokens, tokens)
    attention_.q.run(context, ConstMat(probe_.data(), 1, width), q.view());
    attention_.k.run(context, tokens, k.view());
    attention_.v.run(context, tokens, v.view());
    attention(context, spec_.attention(), q.view(), k.view(), v.view(), {}, attended.view());
    attention_.o.run(context, attended.view(), x.view());
    // x = x + mlp(layernorm(x)): no residual around the attention
    norm_.run(context, x.view(), normed.view());
    mlp_.run(context, normed.view(), hidden.view(), Mat(), x.view(), pooled.view());
    return pooled;
  }

 private:
  BlockSpec spec_;
  std::vector<float> probe_;  // [D]
  AttentionLayer attention_;
  Norm norm_;
  Mlp mlp_;
};

}  // namespace

struct VisionTower::Impl {
  VisionConfig config;
  int64_t size = 0, grid = 0;
  Linear patch;                    // [D, 3*p*p], the convolution as a matrix
  std::vector<float> class_token;  // [D]; empty: none
  Tensor positions;                // [N, D]
  std::unique_ptr<Norm> norm_before;
  EncoderStack stack;
  std::unique_ptr<PoolingHead> head;
};

VisionTower::VisionTower(const VisionConfig& config, const TensorTable& table,
                         const MatmulPolicy& policy, int64_t resolution) {
  const int64_t size = resolution == 0 ? config.image_size : resolution;
  if (size < config.patch || size > kMaxResolution) {
    throw Error(ErrorCode::invalid_argument,
                "resolution of " + std::to_string(size) + " px, " + std::to_string(config.patch) +
                    " to " + std::to_string(kMaxResolution) +
                    " expected (--resolution); choose a multiple of the patch size");
  }
  const int64_t grid = size / config.patch;
  impl_.reset(new Impl{config,
                       size,
                       grid,
                       Linear(table, "vision.patch", policy),
                       {},
                       positions_for(config, table, grid),
                       nullptr,
                       EncoderStack(stack_spec(config), table, "vision", policy),
                       nullptr});
  if (config.class_token) impl_->class_token = table.values("vision.class");
  if (config.norm_before) {
    impl_->norm_before = std::make_unique<Norm>(block_spec(config), table, "vision.norm_before");
  }
  if (config.pooling_head) {
    impl_->head = std::make_unique<PoolingHead>(block_spec(config), table, "vision.head", policy);
  }
}

VisionTower::VisionTower(VisionTower&&) noexcept = default;
VisionTower::~VisionTower() = default;

int64_t VisionTower::width() const { return impl_->config.width; }
int64_t VisionTower::image_size() const { return impl_->size; }
int64_t VisionTower::tokens() const { return impl_->positions.rows(); }
bool VisionTower::has_pooling_head() const { return impl_->head != nullptr; }

Tensor VisionTower::run(const Context& context, ConstMat pixels) const {
  const Impl& tower = *impl_;
  PALI_ASSERT(pixels.rows == 3 && pixels.cols == tower.size * tower.size);
  context.trace("pixels", pixels);
  const Tensor patches = extract_patches(pixels, tower.size, tower.config.patch);  // [g*g, 3pp]
  Tensor x(tokens(), tower.config.width);                                          // [N, Dv]
  const Mat patch_rows = x.view().rows_from(tower.config.class_tokens(), patches.rows());
  // patch_embeds = patch_embedding(pixel_values), flattened row by row
  tower.patch.run(context, patches.view(), patch_rows);
  context.trace("patches", patch_rows);
  // embeddings = cat([class_embeds, patch_embeds]) + position_embedding
  std::copy(tower.class_token.begin(), tower.class_token.end(), x.row(0));
  add_rows(context, tower.positions.view(), x.view());
  context.trace("vision.embed", x.view());
  // CLIPVisionModel: hidden_states = pre_layrnorm(embeddings)
  if (tower.norm_before) tower.norm_before->run(context, x.view(), x.view());
  // last_hidden_state = post_layernorm(encoder(embeddings)); CLIPVisionModel: without that norm
  tower.stack.run(context, x.view(), "vision");
  context.trace("vision.tokens", x.view());
  return x;
}

Tensor VisionTower::pool(const Context& context, ConstMat tokens) const {
  PALI_ASSERT(impl_->head != nullptr);
  Tensor pooled = impl_->head->run(context, tokens);
  context.trace("vision.pooled", pooled.view());
  return pooled;
}

Tensor resize_positions(ConstMat positions, int64_t grid, int64_t new_grid) {
  PALI_ASSERT(grid >= 1 && new_grid >= 1 && positions.rows == grid * grid);
  Tensor resized(new_grid * new_grid, positions.cols);
  // Corners on corners; the last row and column are clamped (scipy's zoom zeroes them at a few
  // sizes, an artefact not to copy).
  const double step = new_grid > 1 ? static_cast<double>(grid - 1) / (new_grid - 1) : 0.0;
  for (int64_t y = 0; y < new_grid; ++y) {
    const int64_t y0 = std::min(static_cast<int64_t>(y * step), grid - 1);
    const int64_t y1 = std::min(y0 + 1, grid - 1);
    const double fy = y * step - static_cast<double>(y0);
    for (int64_t x = 0; x < new_grid; ++x) {
      const int64_t x0 = std::min(static_cast<int64_t>(x * step), grid - 1);
      const int64_t x1 = std::min(x0 + 1, grid - 1);
      const double fx = x * step - static_cast<double>(x0);
      const float* corners[4] = {positions.row(y0 * grid + x0), positions.row(y0 * grid + x1),
                                 positions.row(y1 * grid + x0), positions.row(y1 * grid + x1)};
      float* out = resized.row(y * new_grid + x);
      for (int64_t d = 0; d < positions.cols; ++d) {
        const double top = corners[0][d] * (1 - fx) + corners[1][d] * fx;
        const double bottom = corners[2][d] * (1 - fx) + corners[3][d] * fx;
        out[d] = static_cast<float>(top * (1 - fy) + bottom * fy);
      }
    }
  }
  return resized;
}

Tensor positions_for(const VisionConfig& config, const TensorTable& table, int64_t new_grid) {
  const std::vector<float> stored = table.values("vision.pos");
  const ConstMat positions(stored.data(), config.tokens(), config.width);
  const int64_t apart = config.class_tokens(), patches = config.tokens() - apart;
  const Tensor resized =
      resize_positions(positions.rows_from(apart, patches), config.grid(), new_grid);
  Tensor all(apart + resized.rows(), config.width);
  for (int64_t i = 0; i < all.rows(); ++i) {
    std::copy_n(i < apart ? positions.row(i) : resized.row(i - apart), config.width, all.row(i));
  }
  return all;
}

}  // namespace pali
