#include "bench_setup.hpp"

#include <charconv>

#include "kernels/isa.hpp"

namespace pali::bench {

Setup::Setup(const EngineOptions& given)
    : options(given),
      isa(resolve_isa(given.isa)),
      kernels(kernel_table(isa)),
      pool(given.threads == 0 ? default_thread_count() : given.threads) {}

std::string by(std::initializer_list<int64_t> sizes) {
  std::string text;
  for (const int64_t size : sizes) text += (text.empty() ? "" : "x") + std::to_string(size);
  return text;
}

std::vector<int64_t> parse_shape(const std::string& text) {
  constexpr int64_t kMost = int64_t{1} << 24;
  std::vector<int64_t> sizes;
  const char* at = text.data();
  const char* const end = at + text.size();
  for (bool more = true; more;) {
    int64_t size = 0;
    const auto [stop, error] = std::from_chars(at, end, size);
    if (error != std::errc() || size < 1 || size > kMost) return {};
    sizes.push_back(size);
    more = stop != end && *stop == 'x';
    at = more ? stop + 1 : stop;
  }
  return at == end && sizes.size() == 3 ? sizes : std::vector<int64_t>{};
}

ComputeType compute_for(const EngineOptions& options, MatmulBackend backend, DType weights,
                        Isa isa) {
  if (options.compute != ComputeType::automatic) {
    return compute_beside(weights, options.compute, isa);
  }
  return automatic_compute(weights, backend, isa, cpu_is_intel());
}

bool on_amx(MatmulBackend backend, ComputeType compute, Isa isa) {
  if (isa < Isa::avx512_bf16 || compute == ComputeType::f32 || compute == ComputeType::int16) {
    return false;
  }
  const bool tier = isa == Isa::amx;
  return (tier || backend == MatmulBackend::onednn) &&
         has_unit(compute == ComputeType::int8 ? Unit::amx_int8 : Unit::amx_bf16);
}

Operands operands_of(ComputeType compute, DType weights) {
  if (compute == ComputeType::int8) {
    return weights == DType::i4 ? Operands::int4 : Operands::int8;
  }
  if (compute == ComputeType::int16) return Operands::int16;
  return compute == ComputeType::bf16 ? Operands::bf16 : Operands::f32;
}

}  // namespace pali::bench
