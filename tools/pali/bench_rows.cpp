#include "bench_rows.hpp"

#include <sys/resource.h>

#include <algorithm>
#include <cstdio>
#include <fstream>
#include <nlohmann/json.hpp>

#include "bench_peaks.hpp"
#include "kernels/isa.hpp"

namespace pali::bench {
namespace {

std::string number(double value, const char* format) {
  char text[64];
  std::snprintf(text, sizeof text, format, value);
  return text;
}

std::string to_text(const std::vector<Row>& rows, int64_t rss_bytes) {
  std::string text =
      "name          shape                  dtype backend        median ms      min      max  runs"
      "   GFLOP/s     peak    GB/s    peak   share\n";
  for (const Row& row : rows) {
    char line[320];
    std::snprintf(
        line, sizeof line,
        "%-13s %-22s %-5s %-13s %10.3f %8.3f %8.3f %5zu %9.1f %8.1f %7.1f %7.1f  %5.1f%%\n",
        row.name.c_str(), row.shape.c_str(), row.dtype.c_str(), row.backend.c_str(),
        row.median_ms(), row.min_ms(), row.max_ms(), row.times_ms.size(), row.gflops(),
        row.peak_gflops, row.gbps(), row.peak_gbps, 100 * row.share());
    text += line;
  }
  const auto compare = [&](const Row& row, const char* with, double ms) {
    if (ms <= 0) return;
    char line[160];
    std::snprintf(line, sizeof line, "%s: %.2f times the %s of %.1f ms\n", row.name.c_str(),
                  row.median_ms() / ms, with, ms);
    text += line;
  };
  for (const Row& row : rows) {
    compare(row, "target", row.target_ms());
    if (!row.stages.empty()) compare(row, "floor", row.floor_ms());
  }
  if (!rows.empty()) {
    text += cpu_name() + ", " + rows.front().isa + ", " + std::to_string(rows.front().threads) +
            " threads; the peaks were measured in this run\n";
  }
  return text + "peak resident size " + number(static_cast<double>(rss_bytes) * 1e-9, "%.2f") +
         " GB\n";
}

nlohmann::ordered_json to_json(const std::vector<Row>& rows, int64_t rss_bytes) {
  nlohmann::ordered_json array = nlohmann::ordered_json::array();
  for (const Row& row : rows) {
    array.push_back({{"name", row.name},
                     {"shape", row.shape},
                     {"dtype", row.dtype},
                     {"isa", row.isa},
                     {"backend", row.backend},
                     {"threads", row.threads},
                     {"median_ms", row.median_ms()},
                     {"min_ms", row.min_ms()},
                     {"max_ms", row.max_ms()},
                     {"runs", row.times_ms.size()},
                     {"gflops", row.gflops()},
                     {"gbps", row.gbps()},
                     {"peak_gflops", row.peak_gflops},
                     {"peak_gbps", row.peak_gbps},
                     {"share", row.share()},
                     {"target_ms", row.target_ms()}});
  }
  array.push_back({{"name", "peak_rss"}, {"bytes", rss_bytes}});
  return array;
}

// The fields of the objects as columns, and "bytes" for the last row. No value has a comma or
// quote.
std::string to_csv(const std::vector<Row>& rows, int64_t rss_bytes) {
  std::string text =
      "name,shape,dtype,isa,backend,threads,median_ms,min_ms,max_ms,runs,gflops,gbps,peak_gflops,"
      "peak_gbps,share,target_ms,bytes\n";
  for (const Row& row : rows) {
    std::string shape = row.shape;
    std::replace(shape.begin(), shape.end(), ',', ';');
    text += row.name + "," + shape + "," + row.dtype + "," + row.isa + "," + row.backend + "," +
            std::to_string(row.threads);
    const auto add = [&](double value) { text += "," + number(value, "%.9g"); };
    add(row.median_ms());
    add(row.min_ms());
    add(row.max_ms());
    text += "," + std::to_string(row.times_ms.size());
    for (const double value :
         {row.gflops(), row.gbps(), row.peak_gflops, row.peak_gbps, row.share(), row.target_ms()}) {
      add(value);
    }
    text += ",\n";
  }
  return text + "peak_rss,,,,,,,,,,,,,,,," + std::to_string(rss_bytes) + "\n";
}

}  // namespace

Cost stage_cost(double product_flops, double attention_flops, double tokens, double bytes) {
  return {product_flops + attention_flops, bytes, attention_flops, tokens < 512 ? 0.55 : 0.70};
}

double Row::median_ms() const { return median(times_ms); }
double Row::min_ms() const {
  return times_ms.empty() ? 0 : *std::min_element(times_ms.begin(), times_ms.end());
}
double Row::max_ms() const {
  return times_ms.empty() ? 0 : *std::max_element(times_ms.begin(), times_ms.end());
}
double Row::gflops() const { return median_ms() > 0 ? cost.flops / median_ms() * 1e-6 : 0; }
double Row::gbps() const { return median_ms() > 0 ? cost.bytes / median_ms() * 1e-6 : 0; }
double Row::compute_ms(const Cost& work, double products, double attention) const {
  if (peak_gflops <= 0) return 0;
  const double attention_peak = attention_gflops > 0 ? attention_gflops : peak_gflops;
  return ((work.flops - work.attention_flops) / (products * peak_gflops) +
          work.attention_flops / (attention * attention_peak)) *
         1e-6;
}
double Row::floor_ms() const {
  const auto floor = [&](const Cost& work) {
    const double compute = compute_ms(work, 1, 1);
    const double memory = peak_gbps > 0 ? work.bytes / peak_gbps * 1e-6 : 0;
    return std::max(compute, memory);
  };
  if (stages.empty()) return floor(cost);
  double sum = 0;
  for (const Cost& stage : stages) sum += floor(stage);
  return sum;
}
double Row::share() const { return median_ms() > 0 ? floor_ms() / median_ms() : 0; }
double Row::target_ms() const {
  return cost.attention_share > 0 ? compute_ms(cost, product_share, cost.attention_share) : 0;
}

std::string to_report(const std::vector<Row>& rows, int64_t rss_bytes, Format format) {
  switch (format) {
    case Format::text:
      return to_text(rows, rss_bytes);
    case Format::json:
      return to_json(rows, rss_bytes).dump() + "\n";
    case Format::csv:
      return to_csv(rows, rss_bytes);
  }
  return {};
}

// VmHWM can be put back, ru_maxrss cannot. Ref: proc(5), clear_refs.
int64_t peak_rss_bytes() {
  std::ifstream status("/proc/self/status");
  std::string word;
  while (status >> word) {
    int64_t kilobytes = 0;
    if (word == "VmHWM:" && status >> kilobytes) return kilobytes * 1024;
  }
  rusage usage = {};
  ::getrusage(RUSAGE_SELF, &usage);
  return static_cast<int64_t>(usage.ru_maxrss) * 1024;
}

void restart_peak_rss() { std::ofstream("/proc/self/clear_refs") << "5"; }

}  // namespace pali::bench
