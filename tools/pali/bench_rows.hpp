// Rows of a benchmark's report: what was measured, and its share of the peak that binds it.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

namespace pali::bench {

// What a piece of work costs, from its shapes alone.
struct Cost {
  double flops = 0;            // two a multiply-add
  double bytes = 0;            // weights and caches that must be read
  double attention_flops = 0;  // of `flops`
  double attention_share = 0;  // of the peak, asked of attention; 0 where nothing is asked
};

// A stage that reads many tokens: 70 % of the peak are asked of its attention, 55 % below 512
// tokens.
Cost stage_cost(double product_flops, double attention_flops, double tokens, double bytes);

struct Row {
  std::string name, shape, dtype, isa, backend;
  int threads = 1;
  std::vector<double> times_ms;
  Cost cost;
  std::vector<Cost> stages;  // done one after the other: `cost` is their sum; none: it is one
  double peak_gflops = 0, peak_gbps = 0;  // measured in the same run
  double attention_gflops =
      0;  // the peak of attention's operands, where they are not the products'
  double product_share = 0.86;  // of the peak, asked of products

  double median_ms() const;
  double min_ms() const;
  double max_ms() const;
  double gflops() const;
  double gbps() const;
  // The time of the peak that binds, stage by stage; 0 where none was measured.
  double floor_ms() const;
  // The floor's share of the median.
  double share() const;
  // The time in which the shares that are asked would be attained; 0 where nothing is asked.
  double target_ms() const;

 private:
  // At these shares of the peaks.
  double compute_ms(const Cost& work, double products, double attention) const;
};

enum class Format { text, json, csv };

// A table for people, an array of objects, or comma-separated values under a line of names
// (cli.md). The peak resident size, `rss_bytes`, is the last row.
std::string to_report(const std::vector<Row>& rows, int64_t rss_bytes, Format format);

int64_t peak_rss_bytes();
// From here on peak_rss_bytes() is of what comes; where the system does not let one, it stays of
// the whole process.
void restart_peak_rss();

}  // namespace pali::bench
