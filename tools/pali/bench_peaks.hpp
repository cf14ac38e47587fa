// What this machine attains at best, sampled beside the work that is held against it.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "base/tensor.hpp"
#include "bench_loops.hpp"
#include "exec/thread_pool.hpp"

namespace pali::bench {

// The median of the samples; 0 of none.
double median(std::vector<double> samples);

// Operations, or bytes, a second of one loop, in billions: a figure a sample.
struct LoopPeak {
  Unit unit = Unit::baseline;
  Operands operands = Operands::f32;
  std::string what;  // the instruction, or how is read
  double work = 0;   // operations or bytes of a sample
  std::vector<double> times_ms;
  double giga() const { return times_ms.empty() ? 0 : work / median(times_ms) * 1e-6; }
};

// The units that products of a run may use: those of its tier, and AMX where something drives it.
bool may_use(Unit unit, Isa tier, bool amx);

// What bounds products of such operands: the best of all loops over operands at least as wide,
// since a narrow product may be computed wider (Intel's bf16 dot products are slower than its f32
// ones).
double binding_peak(const std::vector<LoopPeak>& peaks, Operands operands, Isa tier, bool amx);

// Where read memory lies: on pages as a mapped file's and an allocation's are, or on 2 MB ones.
enum class Pages { ordinary, huge };

// All threads of a pool in the loops of this CPU, a sample at a time: machines that others share
// are slower in one minute than in the next. Medians count.
class PeakMeter {
 public:
  // `read_bytes` of memory are held and read by turns: much more than a cache can keep. Less where
  // the machine has not as much.
  static constexpr int64_t kReadBytes = int64_t{1} << 30;
  PeakMeter(ThreadPool& pool, Isa tier, int64_t read_bytes = kReadBytes);

  void sample_products();
  // Makes the memory where there is none yet; `pages` counts then.
  void sample_reads(Pages pages = Pages::ordinary);
  void sample() {
    sample_products();
    sample_reads();
  }
  void drop_memory() { memory_ = {}; }

  double gflops(Operands operands, bool amx) const {
    return binding_peak(products_, operands, tier_, amx);
  }
  double gbps() const;
  const std::vector<LoopPeak>& products() const { return products_; }
  const std::vector<LoopPeak>& reads() const { return reads_; }
  int64_t read_bytes() const { return read_bytes_; }

 private:
  ThreadPool& pool_;
  Isa tier_;
  std::vector<LoopPeak> products_, reads_;
  std::vector<int64_t> turns_;  // of a sample
  std::vector<const ProductLoop*> loops_;
  std::vector<const ReadLoop*> read_loops_;
  int64_t read_bytes_;
  AlignedBuffer<std::byte> memory_;
  int64_t next_slice_ = 0;
};

// Median microseconds from the call of a loop until every thread has been in it and it has ended.
double fork_join_us(ThreadPool& pool);

}  // namespace pali::bench
