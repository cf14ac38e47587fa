#include "bench_peaks.hpp"

#include <algorithm>
#include <atomic>
#include <chrono>
#include <cstring>

#include "exec/memory.hpp"

#if defined(__linux__)
#include <sys/mman.h>
#endif

namespace pali::bench {
namespace {

// Long beside a fork and join, short beside a round of what is measured.
constexpr double kSampleMs = 4;
constexpr int64_t kSlices = 4;

double time_ms(FunctionRef<void()> work) {
  const auto start = std::chrono::steady_clock::now();
  work();
  return std::chrono::duration<double, std::milli>(std::chrono::steady_clock::now() - start)
      .count();
}

void run_on_all(ThreadPool& pool, const ProductLoop& loop, int64_t turns) {
  pool.parallel_for(pool.size(), 1, [&](int64_t begin, int64_t end, int) {
    for (int64_t t = begin; t < end; ++t) loop.run(turns);
  });
}

// A wish only. The span is cut to whole small pages, which the call asks for.
void ask_for_huge_pages(const AlignedBuffer<std::byte>& memory) {
#if defined(__linux__)
  const auto first = reinterpret_cast<uintptr_t>(memory.data());
  const uintptr_t begin = (first + 4095) / 4096 * 4096;
  const uintptr_t end = (first + static_cast<uintptr_t>(memory.size())) / 4096 * 4096;
  if (begin < end) ::madvise(reinterpret_cast<void*>(begin), end - begin, MADV_HUGEPAGE);
#else
  (void)memory;
#endif
}

int64_t readable_bytes(int64_t wanted) {
  const int64_t available = available_memory_bytes("/");
  if (available > 0) wanted = std::min(wanted, available / 4);
  return std::max<int64_t>(1, wanted / (kSlices * kReadBlock)) * kSlices * kReadBlock;
}

}  // namespace

double median(std::vector<double> samples) {
  if (samples.empty()) return 0;
  const auto middle = samples.begin() + static_cast<std::ptrdiff_t>(samples.size() / 2);
  std::nth_element(samples.begin(), middle, samples.end());
  return *middle;
}

bool may_use(Unit unit, Isa tier, bool amx) {
  switch (unit) {
    case Unit::baseline:
      return true;
    case Unit::avx2:
      return tier >= Isa::avx2;
    case Unit::avx_vnni:  // the tiers above do not stand on it
      return tier == Isa::avx_vnni;
    case Unit::avx512:
      return tier >= Isa::avx512;
    case Unit::avx512_vnni:
      return tier >= Isa::avx512_vnni;
    case Unit::avx512_bf16:
      return tier >= Isa::avx512_bf16;
    case Unit::amx_bf16:
    case Unit::amx_int8:
      return amx;
  }
  return false;
}

double binding_peak(const std::vector<LoopPeak>& peaks, Operands operands, Isa tier, bool amx) {
  double best = 0;
  for (const LoopPeak& peak : peaks) {
    if (peak.operands <= operands && may_use(peak.unit, tier, amx)) {
      best = std::max(best, peak.giga());
    }
  }
  return best;
}

PeakMeter::PeakMeter(ThreadPool& pool, Isa tier, int64_t read_bytes)
    : pool_(pool), tier_(tier), read_bytes_(readable_bytes(read_bytes)) {
  for (const ProductLoop& loop : product_loops()) {
    if (!has_unit(loop.unit)) continue;
    int64_t turns = 1000;
    run_on_all(pool_, loop, turns);
    const double ms = time_ms([&] { run_on_all(pool_, loop, turns); });
    turns = std::max<int64_t>(1, static_cast<int64_t>(static_cast<double>(turns) * kSampleMs / ms));
    loops_.push_back(&loop);
    turns_.push_back(turns);
    const double work = loop.operations * static_cast<double>(turns * pool_.size());
    products_.push_back({loop.unit, loop.operands, loop.instruction, work, {}});
  }
  for (const ReadLoop& loop : read_loops()) {
    if (!has_unit(loop.unit)) continue;
    read_loops_.push_back(&loop);
    const double work = static_cast<double>(read_bytes_ / kSlices);
    reads_.push_back({loop.unit, Operands::f32, loop.how, work, {}});
  }
}

void PeakMeter::sample_products() {
  for (size_t i = 0; i < loops_.size(); ++i) {
    products_[i].times_ms.push_back(time_ms([&] { run_on_all(pool_, *loops_[i], turns_[i]); }));
  }
}

void PeakMeter::sample_reads(Pages pages) {
  if (memory_.size() == 0) {
    memory_ = AlignedBuffer<std::byte>(read_bytes_);
    if (pages == Pages::huge) ask_for_huge_pages(memory_);
    pool_.parallel_for(read_bytes_, int64_t{1} << 20, [&](int64_t begin, int64_t end, int) {
      std::memset(memory_.data() + begin, 0x3f, static_cast<size_t>(end - begin));
    });
  }
  const int64_t slice = read_bytes_ / kSlices;
  for (size_t i = 0; i < read_loops_.size(); ++i) {
    // Never the slice that was read last: the others pushed it out of the caches.
    const std::byte* data = memory_.data() + next_slice_++ % kSlices * slice;
    reads_[i].times_ms.push_back(time_ms([&] {
      pool_.parallel_for(slice / kReadBlock, 16, [&](int64_t begin, int64_t end, int) {
        read_loops_[i]->run(data + begin * kReadBlock, (end - begin) * kReadBlock);
      });
    }));
  }
}

double PeakMeter::gbps() const {
  double best = 0;
  for (const LoopPeak& peak : reads_) best = std::max(best, peak.giga());
  return best;
}

double fork_join_us(ThreadPool& pool) {
  constexpr int kRounds = 2000;
  std::vector<double> times;
  times.reserve(kRounds);
  for (int i = 0; i < kRounds; ++i) {
    std::atomic<int64_t> arrived{0};
    times.push_back(1000 * time_ms([&] {
                      pool.parallel_for(pool.size(), 1, [&](int64_t begin, int64_t end, int) {
                        arrived += end - begin;
                        while (arrived.load() < pool.size()) {  // nobody may do it all alone
                        }
                      });
                    }));
  }
  return median(std::move(times));
}

}  // namespace pali::bench
