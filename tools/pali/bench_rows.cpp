#include "bench_rows.hpp"

#include <sys/resource.h>

#include <algorithm>
#include <chrono>
#include <cstdio>
#include <nlohmann/json.hpp>
#include <numeric>

#include "base/tensor.hpp"

namespace pali::bench {
namespace {

double seconds(const std::function<void()>& work) {
  const auto start = std::chrono::steady_clock::now();
  work();
  return std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
}

// All threads multiply one packed panel again and again.
double tile_gflops(ThreadPool& pool, const GemmKernels& gemm) {
  if (gemm.multiply == nullptr) return 0;
  constexpr int64_t kDepth = 256;
  constexpr int64_t kRepeats = 4000;
  const int threads = pool.size();
  const int64_t a_bytes = gemm.mr * kDepth * gemm.element_bytes;
  const int64_t panel_bytes = gemm.nr * kDepth * gemm.element_bytes;
  const int64_t c_floats = static_cast<int64_t>(gemm.mr) * gemm.nr;
  std::vector<AlignedBuffer<std::byte>> a, panel;
  std::vector<AlignedBuffer<float>> c;
  for (int t = 0; t < threads; ++t) {
    a.emplace_back(a_bytes);
    panel.emplace_back(panel_bytes);
    c.emplace_back(c_floats);
    // 0x3f3f is an ordinary number in both formats; zeros would flatter the clock.
    std::fill_n(a.back().data(), a_bytes, std::byte{0x3f});
    std::fill_n(panel.back().data(), panel_bytes, std::byte{0x3f});
  }
  double best = 0;
  for (int round = 0; round < 5; ++round) {
    const double elapsed = seconds([&] {
      pool.parallel_for(threads, 1, [&](int64_t begin, int64_t end, int) {
        for (int64_t t = begin; t < end; ++t) {
          const auto i = static_cast<size_t>(t);
          for (int64_t r = 0; r < kRepeats; ++r) {
            gemm.multiply(a[i].data(), kDepth, gemm.mr, panel[i].data(), kDepth, c[i].data(),
                          gemm.nr, gemm.nr, /*accumulate=*/false);
          }
        }
      });
    });
    const double flops = 2.0 * gemm.mr * gemm.nr * kDepth * kRepeats * threads;
    best = std::max(best, flops / elapsed * 1e-9);
  }
  return best;
}

double read_gbps(ThreadPool& pool, const KernelTable& kernels) {
  constexpr int64_t kFloats = 128 << 20;
  AlignedBuffer<float> memory(kFloats);
  std::fill_n(memory.data(), kFloats, 1.0f);
  double best = 0;
  for (int round = 0; round < 5; ++round) {
    const double elapsed = seconds([&] {
      pool.parallel_for(kFloats, 1 << 20, [&](int64_t begin, int64_t end, int) {
        volatile float sink = kernels.max(memory.data() + begin, end - begin);
        (void)sink;
      });
    });
    best = std::max(best, kFloats * 4e-9 / elapsed);
  }
  return best;
}

std::string number(double value, const char* format) {
  char text[64];
  std::snprintf(text, sizeof text, format, value);
  return text;
}

}  // namespace

Peaks measure_peaks(ThreadPool& pool, const KernelTable& kernels) {
  return {tile_gflops(pool, kernels.gemm_f32), tile_gflops(pool, kernels.gemm_bf16),
          read_gbps(pool, kernels)};
}

double Row::median_ms() const {
  std::vector<double> sorted = times_ms;
  std::sort(sorted.begin(), sorted.end());
  return sorted.empty() ? 0 : sorted[sorted.size() / 2];
}
double Row::gflops() const { return median_ms() > 0 ? cost.flops / median_ms() * 1e-6 : 0; }
double Row::gbps() const { return median_ms() > 0 ? cost.bytes / median_ms() * 1e-6 : 0; }
double Row::share() const {
  const double compute = peak_gflops > 0 ? gflops() / peak_gflops : 0;
  const double memory = peak_gbps > 0 ? gbps() / peak_gbps : 0;
  return std::max(compute, memory);
}

int64_t peak_rss_bytes() {
  rusage usage = {};
  ::getrusage(RUSAGE_SELF, &usage);
  return static_cast<int64_t>(usage.ru_maxrss) * 1024;
}

std::string to_text(const std::vector<Row>& rows) {
  std::string text =
      "name          shape                            median ms    min      max  runs   GFLOP/s"
      "     GB/s   share\n";
  for (const Row& row : rows) {
    const auto [low, high] = std::minmax_element(row.times_ms.begin(), row.times_ms.end());
    char line[256];
    std::snprintf(line, sizeof line, "%-13s %-32s %9.2f %8.2f %8.2f %5zu %9.1f %8.1f  %5.1f%%\n",
                  row.name.c_str(), row.shape.c_str(), row.median_ms(), *low, *high,
                  row.times_ms.size(), row.gflops(), row.gbps(), 100 * row.share());
    text += line;
  }
  if (!rows.empty()) {
    const Row& row = rows.front();
    text += row.dtype + " weights, " + row.isa + ", " + row.backend + ", " +
            std::to_string(row.threads) +
            " threads; peaks measured in this run: " + number(row.peak_gflops, "%.0f") +
            " GFLOP/s, " + number(row.peak_gbps, "%.1f") + " GB/s\n";
  }
  return text + "peak resident size " +
         number(static_cast<double>(peak_rss_bytes()) * 1e-9, "%.2f") + " GB\n";
}

std::string to_json(const std::vector<Row>& rows) {
  nlohmann::ordered_json array = nlohmann::ordered_json::array();
  for (const Row& row : rows) {
    const auto [low, high] = std::minmax_element(row.times_ms.begin(), row.times_ms.end());
    array.push_back({{"name", row.name},
                     {"shape", row.shape},
                     {"dtype", row.dtype},
                     {"isa", row.isa},
                     {"backend", row.backend},
                     {"threads", row.threads},
                     {"median_ms", row.median_ms()},
                     {"min_ms", *low},
                     {"max_ms", *high},
                     {"runs", row.times_ms.size()},
                     {"gflops", row.gflops()},
                     {"gbps", row.gbps()},
                     {"peak_gflops", row.peak_gflops},
                     {"peak_gbps", row.peak_gbps},
                     {"share", row.share()}});
  }
  array.push_back({{"name", "peak_rss"}, {"bytes", peak_rss_bytes()}});
  return array.dump() + "\n";
}

}  // namespace pali::bench
