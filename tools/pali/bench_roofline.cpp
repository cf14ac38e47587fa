#include "bench_roofline.hpp"

#include <cstdio>

#include "kernels/isa.hpp"

namespace pali::bench {
namespace {

// "f32   vfmadd231ps zmm              227.1     453.0 GFLOP/s"
std::string line(const std::string& kind, const LoopPeak& one, const LoopPeak& all,
                 const char* unit) {
  char text[160];
  std::snprintf(text, sizeof text, "%-12s%-22s%10.1f%10.1f %s\n", kind.c_str(), one.what.c_str(),
                one.giga(), all.giga(), unit);
  return text;
}

Row peak_row(const char* name, const LoopPeak& peak, int threads, bool reads) {
  Row row;
  row.name = name;
  row.shape = peak.what;
  row.dtype = reads ? "" : operands_name(peak.operands);
  row.isa = unit_name(peak.unit);
  row.threads = threads;
  row.times_ms = peak.times_ms;
  (reads ? row.cost.bytes : row.cost.flops) = peak.work;
  (reads ? row.peak_gbps : row.peak_gflops) = peak.work / row.min_ms() * 1e-6;
  return row;
}

}  // namespace

Roofline bench_roofline(const EngineOptions& options, int runs) {
  Setup setup(options);
  ThreadPool one(1);
  const int threads = setup.pool.size();
  Roofline result;
  char text[160];
  std::snprintf(text, sizeof text, "%s\n%-34s  1 thread%3d threads\n", cpu_name().c_str(), "",
                threads);
  result.text = text;

  PeakMeter single(one, setup.isa), all(setup.pool, setup.isa);
  for (int i = 0; i < runs; ++i) {
    single.sample_products();
    all.sample_products();
  }
  for (size_t i = 0; i < all.products().size(); ++i) {
    const LoopPeak &alone = single.products()[i], &together = all.products()[i];
    result.rows.push_back(peak_row("peak", alone, 1, /*reads=*/false));
    result.rows.push_back(peak_row("peak", together, threads, /*reads=*/false));
    result.text += line(operands_name(alone.operands), alone, together, "GFLOP/s");
  }

  for (const Pages pages : {Pages::ordinary, Pages::huge}) {
    // One buffer at a time.
    PeakMeter single_reads(one, setup.isa), all_reads(setup.pool, setup.isa);
    for (int i = 0; i < runs; ++i) single_reads.sample_reads(pages);
    single_reads.drop_memory();
    for (int i = 0; i < runs; ++i) all_reads.sample_reads(pages);
    const char* name = pages == Pages::huge ? "read_huge" : "read";
    for (size_t i = 0; i < all_reads.reads().size(); ++i) {
      const LoopPeak &alone = single_reads.reads()[i], &together = all_reads.reads()[i];
      result.rows.push_back(peak_row(name, alone, 1, /*reads=*/true));
      result.rows.push_back(peak_row(name, together, threads, /*reads=*/true));
      result.text += line(pages == Pages::huge ? "read, huge" : "read", alone, together, "GB/s");
    }
  }

  Row fork;
  fork.name = "fork_join";
  fork.isa = isa_name(setup.isa);
  fork.threads = threads;
  for (int i = 0; i < runs; ++i) fork.times_ms.push_back(fork_join_us(setup.pool) / 1000);
  std::snprintf(
      text, sizeof text,
      "fork-join   %.2f us\nRead: %.2f GB, a quarter at a time by turns; huge: on pages of 2 "
      "MB, as far as the system gives them.\n",
      1000 * fork.median_ms(), static_cast<double>(all.read_bytes()) * 1e-9);
  result.text += text;
  result.rows.push_back(std::move(fork));
  return result;
}

}  // namespace pali::bench
