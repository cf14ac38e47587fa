// The pool's promises: every index once, exceptions to the caller, nothing lost when it is busy.
#include "exec/thread_pool.hpp"

#include <gtest/gtest.h>

#include <atomic>
#include <chrono>
#include <stdexcept>
#include <string>
#include <thread>
#include <vector>

#include "pali/error.hpp"

namespace pali {
namespace {

TEST(ThreadPool, EveryIndexOnceInRangesOfGrain) {
  for (const int threads : {1, 2, 3, 7}) {
    ThreadPool pool(threads);
    EXPECT_EQ(pool.size(), threads);
    for (const int64_t n : {1, 2, 3, 15, 16, 17, 100, 1000}) {
      for (const int64_t grain : {1, 2, 7, 16, 2000}) {
        std::vector<std::atomic<int>> seen(static_cast<size_t>(n));
        std::atomic<bool> in_range{true};
        pool.parallel_for(n, grain, [&](int64_t begin, int64_t end, int thread) {
          if (begin < 0 || end > n || begin >= end || begin % grain != 0 ||
              (end % grain != 0 && end != n) || thread < 0 || thread >= threads) {
            in_range = false;
            return;
          }
          for (int64_t i = begin; i < end; ++i) ++seen[static_cast<size_t>(i)];
        });
        ASSERT_TRUE(in_range) << n << " " << grain;
        for (const auto& count : seen) ASSERT_EQ(count, 1) << n << " " << grain;
      }
    }
  }
}

TEST(ThreadPool, EmptyRangeCallsNothing) {
  ThreadPool pool(2);
  pool.parallel_for(0, 1, [](int64_t, int64_t, int) { FAIL(); });
  pool.parallel_for(-5, 1, [](int64_t, int64_t, int) { FAIL(); });
}

TEST(ThreadPool, NoTwoBodiesOfOneCallShareAThreadIndex) {
  ThreadPool pool(4);
  std::vector<std::atomic<int>> inside(4);
  std::atomic<bool> shared{false};
  for (int round = 0; round < 50; ++round) {
    pool.parallel_for(64, 1, [&](int64_t, int64_t, int thread) {
      if (inside[static_cast<size_t>(thread)]++ != 0) shared = true;
      std::this_thread::yield();
      --inside[static_cast<size_t>(thread)];
    });
  }
  EXPECT_FALSE(shared);
}

TEST(ThreadPool, SecondThreadTakesPart) {
  ThreadPool pool(2);
  // Each body waits for the other: this ends only if two threads are inside at once.
  std::atomic<int> arrived{0};
  pool.parallel_for(2, 1, [&](int64_t, int64_t, int) {
    ++arrived;
    while (arrived < 2) std::this_thread::yield();
  });
  EXPECT_EQ(arrived, 2);
}

TEST(ThreadPool, WakesSleepingWorkers) {
  ThreadPool pool(2);
  for (int round = 0; round < 5; ++round) {
    std::this_thread::sleep_for(std::chrono::milliseconds(20));  // well beyond the spin
    std::atomic<int> arrived{0};
    pool.parallel_for(2, 1, [&](int64_t, int64_t, int) {
      ++arrived;
      while (arrived < 2) std::this_thread::yield();
    });
    EXPECT_EQ(arrived, 2);
  }
}

TEST(ThreadPool, CarriesTheExceptionAndStaysUsable) {
  for (const int threads : {1, 2, 4}) {
    ThreadPool pool(threads);
    for (const int64_t thrower : {0, 37, 99}) {
      std::string message;
      try {
        pool.parallel_for(100, 1, [&](int64_t begin, int64_t end, int) {
          if (begin <= thrower && thrower < end) {
            throw Error(ErrorCode::internal, "at " + std::to_string(thrower));
          }
        });
      } catch (const Error& error) {
        message = error.what();
      }
      EXPECT_EQ(message, "at " + std::to_string(thrower));
      std::atomic<int64_t> sum{0};
      pool.parallel_for(100, 1, [&](int64_t begin, int64_t end, int) { sum += end - begin; });
      EXPECT_EQ(sum, 100);
    }
  }
}

TEST(ThreadPool, ManyExceptionsGiveOne) {
  ThreadPool pool(3);
  for (int round = 0; round < 20; ++round) {
    EXPECT_THROW(
        pool.parallel_for(60, 1, [](int64_t, int64_t, int) { throw std::runtime_error("each"); }),
        std::runtime_error);
  }
}

TEST(ThreadPool, NestedCallsRunSeriallyOnTheCaller) {
  ThreadPool pool(3);
  std::atomic<int64_t> total{0};
  std::atomic<bool> elsewhere{false};
  pool.parallel_for(16, 1, [&](int64_t begin, int64_t end, int) {
    for (int64_t i = begin; i < end; ++i) {
      const auto outer = std::this_thread::get_id();
      pool.parallel_for(10, 1, [&](int64_t b, int64_t e, int thread) {
        if (std::this_thread::get_id() != outer || thread != 0 || b != 0 || e != 10) {
          elsewhere = true;
        }
        total += e - b;
      });
    }
  });
  EXPECT_EQ(total, 160);
  EXPECT_FALSE(elsewhere);
}

TEST(ThreadPool, ConcurrentCallersAllFinish) {
  ThreadPool pool(2);
  constexpr int kCallers = 4, kRounds = 300, kLength = 40;
  std::vector<std::thread> callers;
  std::vector<int64_t> sums(kCallers, 0);
  for (int caller = 0; caller < kCallers; ++caller) {
    callers.emplace_back([&pool, &sums, caller] {
      for (int round = 0; round < kRounds; ++round) {
        std::vector<int64_t> values(kLength, 0);  // not atomic: disjoint ranges, joined at the end
        pool.parallel_for(kLength, 3, [&](int64_t begin, int64_t end, int) {
          for (int64_t i = begin; i < end; ++i) values[static_cast<size_t>(i)] += i + caller;
        });
        for (const int64_t value : values) sums[static_cast<size_t>(caller)] += value;
      }
    });
  }
  for (std::thread& caller : callers) caller.join();
  for (int caller = 0; caller < kCallers; ++caller) {
    EXPECT_EQ(sums[static_cast<size_t>(caller)],
              int64_t{kRounds} * (kLength * (kLength - 1) / 2 + kLength * caller));
  }
}

TEST(ThreadPool, ConcurrentCallersKeepTheirOwnExceptions) {
  ThreadPool pool(2);
  std::atomic<bool> mixed{false};
  std::vector<std::thread> callers;
  for (int caller = 0; caller < 3; ++caller) {
    callers.emplace_back([&, caller] {
      for (int round = 0; round < 100; ++round) {
        try {
          pool.parallel_for(8, 1, [&](int64_t begin, int64_t, int) {
            if (begin == 0) throw std::runtime_error(std::to_string(caller));
          });
          mixed = true;  // the exception got lost
        } catch (const std::runtime_error& error) {
          if (error.what() != std::to_string(caller)) mixed = true;
        }
      }
    });
  }
  for (std::thread& caller : callers) caller.join();
  EXPECT_FALSE(mixed);
}

TEST(ThreadPool, CreatedAndEndedAtAnyMoment) {
  for (int round = 0; round < 30; ++round) {
    ThreadPool pool(3);
    if (round % 3 == 0) continue;  // never used
    pool.parallel_for(5, 1, [](int64_t, int64_t, int) {});
    if (round % 3 == 1) std::this_thread::sleep_for(std::chrono::milliseconds(2));  // asleep
  }
}

TEST(ThreadPool, RefusesSillyCounts) {
  for (const int threads : {0, -1, 1025, 1 << 30}) {
    try {
      ThreadPool pool(threads);
      FAIL() << threads;
    } catch (const Error& error) {
      EXPECT_EQ(error.code(), ErrorCode::invalid_argument);
      EXPECT_NE(std::string(error.what()).find(std::to_string(threads)), std::string::npos);
    }
  }
}

}  // namespace
}  // namespace pali
