// What every benchmark starts from: threads, tier and kernels; and how a repetition is timed.
#pragma once

#include <chrono>
#include <functional>
#include <string>
#include <vector>

#include "bench_peaks.hpp"
#include "bench_rows.hpp"
#include "exec/context.hpp"
#include "matmul/matmul.hpp"
#include "pali/options.hpp"

namespace pali::bench {

struct Setup {
  explicit Setup(const EngineOptions& options);
  const EngineOptions options;
  const Isa isa;
  const KernelTable kernels;
  ThreadPool pool;
  Context context() { return {pool, kernels, nullptr}; }
};

using Progress = std::function<void(const std::string&)>;

constexpr const char* backend_name(MatmulBackend backend) {
  return backend == MatmulBackend::onednn      ? "onednn"
         : backend == MatmulBackend::reference ? "reference"
         : backend == MatmulBackend::native    ? "native"
                                               : "auto";
}

// "256x8192x1664"
std::string by(std::initializer_list<int64_t> sizes);
// Three whole positive numbers with x between; empty where it is anything else.
std::vector<int64_t> parse_shape(const std::string& text);

// What products of such weights are computed in, as an Engine would decide.
ComputeType compute_for(const EngineOptions& options, MatmulBackend backend, DType weights,
                        Isa isa);
// Whether those products may run on AMX, and their operands.
bool on_amx(MatmulBackend backend, ComputeType compute, Isa isa);
Operands operands_of(ComputeType compute, DType weights);

template <class Work>
double milliseconds(const Work& work) {
  const auto start = std::chrono::steady_clock::now();
  work();
  return std::chrono::duration<double, std::milli>(std::chrono::steady_clock::now() - start)
      .count();
}

}  // namespace pali::bench
