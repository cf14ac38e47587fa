// A fork-join pool: one parallel loop at a time, low latency, exceptions carried to the caller.
#pragma once

#include <cstdint>
#include <memory>
#include <type_traits>
#include <utility>

namespace pali {

// A borrowed callable: what std::function is without owning or allocating.
template <class Signature>
class FunctionRef;
template <class R, class... Args>
class FunctionRef<R(Args...)> {
 public:
  template <class F>
  requires(!std::is_same_v<std::remove_cvref_t<F>, FunctionRef>)
      FunctionRef(F&& f)  // NOLINT: implicit on purpose
      : object_(const_cast<void*>(static_cast<const void*>(&f))),
        call_([](void* object, Args... args) -> R {
          return (*static_cast<std::remove_reference_t<F>*>(object))(std::forward<Args>(args)...);
        }) {}
  R operator()(Args... args) const { return call_(object_, std::forward<Args>(args)...); }

 private:
  void* object_;
  R (*call_)(void*, Args...);
};

class ThreadPool {
 public:
  // `threads` counts the calling thread: a pool of 1 starts none. Throws Error(invalid_argument)
  // outside of 1..1024.
  explicit ThreadPool(int threads);
  ~ThreadPool();
  ThreadPool(const ThreadPool&) = delete;
  ThreadPool& operator=(const ThreadPool&) = delete;

  int size() const;

  // Calls body(begin, end, thread) for disjoint ranges that cover [0, n), each a multiple of
  // `grain` long but the last; thread in [0, size()) tells scratch areas of this call apart: within
  // one call, no two bodies with the same `thread` run at once. Returns when all have ended;
  // rethrows the first exception, after which ranges not yet begun are left out.
  // May be called from several threads and from inside a body: where the pool is busy, the whole
  // range runs on the calling thread as thread 0. So scratch belongs to the call, never to the
  // pool. Results must not depend on how the range was cut.
  void parallel_for(int64_t n, int64_t grain,
                    FunctionRef<void(int64_t begin, int64_t end, int thread)> body);

 private:
  struct Impl;
  std::unique_ptr<Impl> impl_;
};

// The physical cores this process may use: affinity mask, hyper-threads and cgroup quota
// considered.
int default_thread_count();

}  // namespace pali
