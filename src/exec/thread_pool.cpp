// The pool: workers spin for a moment after each loop, then sleep. A loop is handed out in chunks
// through one counter, large ones first; a worker that wakes late misses it and nobody waits for
// that worker.
#include "exec/thread_pool.hpp"

#include <algorithm>
#include <atomic>
#include <chrono>
#include <condition_variable>
#include <exception>
#include <mutex>
#include <string>
#include <system_error>
#include <thread>
#include <vector>

#include "base/assert.hpp"
#include "pali/error.hpp"

namespace pali {
namespace {

// A futex wake takes 60-85 us, a spinning worker answers in 0.1 us, and the loops of one layer
// follow each other well within the longer time. A worker that spun in vain (somebody pauses
// between loops, or another process wants the core) spins half as long next time, until a loop
// comes while it spins.
constexpr std::chrono::microseconds kMostSpin{1000}, kLeastSpin{60};
constexpr int kPausesPerClockRead = 64;
// A chunk is this part of what is left for each thread, at least `grain`: long ones while there is
// much to do, and short ones at the end, which a thread that is slow, or was taken off its core for
// a while, cannot hold up for long.
constexpr int64_t kChunkShare = 2;
constexpr int kMaxThreads = 1024;

inline void pause() {
#if defined(__x86_64__) || defined(__i386__)
  __builtin_ia32_pause();
#else
  std::this_thread::yield();
#endif
}

// state_ = epoch << 17 | open << 16 | workers inside. A worker enters by adding 1 while the loop is
// open; the caller closes it when all chunks are taken and waits for those inside.
constexpr uint64_t kInside = 0xffff;
constexpr uint64_t kOpen = uint64_t{1} << 16;
constexpr uint64_t kEpoch = uint64_t{1} << 17;

constexpr uint64_t epoch_of(uint64_t state) { return state / kEpoch; }

}  // namespace

struct ThreadPool::Impl {
  explicit Impl(int threads) : size(threads) {}
  ~Impl();

  void start();
  void work(int thread);
  bool wait_for_loop(uint64_t seen_epoch, uint64_t& state, std::chrono::microseconds& spin);
  bool enter(uint64_t state);
  bool take_chunk(int64_t& begin, int64_t& end);
  void run_chunks(int thread);
  void keep_first_error();

  const int size;
  std::vector<std::thread> workers;

  std::atomic<bool> busy{false};
  alignas(64) std::atomic<uint64_t> state{0};

  // The loop in progress: written while nobody is inside, read by those who entered.
  int64_t n = 0;
  int64_t grain = 1;
  const FunctionRef<void(int64_t, int64_t, int)>* body = nullptr;
  alignas(64) std::atomic<int64_t> next{0};

  std::mutex error_mutex;
  std::exception_ptr error;

  alignas(64) std::atomic<int> sleepers{0};
  std::atomic<bool> stopping{false};
  std::mutex sleep_mutex;
  std::condition_variable wake;
};

ThreadPool::Impl::~Impl() {
  {
    std::lock_guard lock(sleep_mutex);
    stopping = true;
  }
  wake.notify_all();
  for (std::thread& worker : workers) worker.join();
}

void ThreadPool::Impl::start() {
  workers.reserve(static_cast<size_t>(size - 1));
  try {
    for (int thread = 1; thread < size; ++thread) {
      workers.emplace_back([this, thread] { work(thread); });
    }
  } catch (const std::system_error& refused) {
    throw Error(ErrorCode::out_of_memory,
                "thread " + std::to_string(workers.size() + 2) + " of " + std::to_string(size) +
                    " cannot be started: " + refused.code().message() + " (--threads); give fewer");
  }
}

// Waits until a loop other than `seen_epoch` begins; false when the pool ends. `spin`: how long to
// look out before sleeping, now and, as this wait turns out, next time.
bool ThreadPool::Impl::wait_for_loop(uint64_t seen_epoch, uint64_t& current,
                                     std::chrono::microseconds& spin) {
  const auto ready = [&] {
    current = state.load();
    return stopping.load() || epoch_of(current) != seen_epoch;
  };
  const auto deadline = std::chrono::steady_clock::now() + spin;
  do {
    for (int i = 0; i < kPausesPerClockRead; ++i) {
      if (ready()) {
        spin = kMostSpin;
        return !stopping.load();
      }
      pause();
    }
  } while (std::chrono::steady_clock::now() < deadline);
  spin = std::max(spin / 2, kLeastSpin);

  std::unique_lock lock(sleep_mutex);
  // Counted before the last look at `state`; the caller sets `state` before it looks at the count:
  // one of the two sees the other.
  ++sleepers;
  wake.wait(lock, ready);
  --sleepers;
  return !stopping.load();
}

bool ThreadPool::Impl::enter(uint64_t current) {
  const uint64_t epoch = epoch_of(current);
  while ((current & kOpen) != 0 && epoch_of(current) == epoch) {
    if (state.compare_exchange_weak(current, current + 1)) return true;
  }
  return false;
}

void ThreadPool::Impl::work(int thread) {
  uint64_t seen_epoch = 0;
  uint64_t current = 0;
  std::chrono::microseconds spin = kMostSpin;
  while (wait_for_loop(seen_epoch, current, spin)) {
    seen_epoch = epoch_of(current);
    if (!enter(current)) continue;
    run_chunks(thread);
    state.fetch_sub(1);
  }
}

void ThreadPool::Impl::keep_first_error() {
  std::lock_guard lock(error_mutex);
  if (!error) error = std::current_exception();
}

// Takes the next chunk; false when none is left.
bool ThreadPool::Impl::take_chunk(int64_t& begin, int64_t& end) {
  begin = next.load(std::memory_order_relaxed);
  do {
    if (begin >= n) return false;
    const int64_t grains = (n - begin) / (kChunkShare * size) / grain;
    const int64_t chunk = grain * std::max<int64_t>(1, grains);
    end = n - begin > chunk ? begin + chunk : n;
  } while (!next.compare_exchange_weak(begin, end, std::memory_order_relaxed));
  return true;
}

void ThreadPool::Impl::run_chunks(int thread) {
  int64_t begin = 0, end = 0;
  while (take_chunk(begin, end)) {
    try {
      (*body)(begin, end, thread);
    } catch (...) {
      keep_first_error();
      next.store(n, std::memory_order_relaxed);  // the rest is not begun
      return;
    }
  }
}

ThreadPool::ThreadPool(int threads) {
  if (threads < 1 || threads > kMaxThreads) {
    throw Error(ErrorCode::invalid_argument, "thread count " + std::to_string(threads) +
                                                 " is out of range; give 1 to " +
                                                 std::to_string(kMaxThreads));
  }
  impl_ = std::make_unique<Impl>(threads);
  impl_->start();
}

ThreadPool::~ThreadPool() = default;

int ThreadPool::size() const { return impl_->size; }

void ThreadPool::parallel_for(int64_t n, int64_t grain,
                              FunctionRef<void(int64_t, int64_t, int)> body) {
  PALI_ASSERT(grain >= 1);
  if (n <= 0) return;
  Impl& pool = *impl_;
  const int64_t grains = (n - 1) / grain + 1;
  if (pool.size == 1 || grains == 1 || pool.busy.exchange(true)) {
    body(0, n, 0);
    return;
  }
  pool.n = n;
  pool.grain = grain;
  pool.body = &body;
  pool.next.store(0, std::memory_order_relaxed);
  pool.state.store((epoch_of(pool.state.load()) + 1) * kEpoch | kOpen);
  if (pool.sleepers.load() > 0) {
    // Taking the lock once makes sure that a worker between its last look and its sleep is asleep.
    { std::lock_guard lock(pool.sleep_mutex); }
    pool.wake.notify_all();
  }
  pool.run_chunks(0);

  pool.state.fetch_and(~kOpen);
  for (int64_t spins = 0; (pool.state.load() & kInside) != 0; ++spins) {
    if (spins < 20000) {
      pause();
    } else {
      std::this_thread::yield();  // a worker was taken off its core in the middle of a chunk
    }
  }
  const std::exception_ptr error = std::exchange(pool.error, nullptr);
  pool.busy.store(false);
  if (error) std::rethrow_exception(error);
}

}  // namespace pali
