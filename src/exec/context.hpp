// All that a run borrows: threads, kernels, and somebody who may be watching.
#pragma once

#include <functional>
#include <string_view>

#include "base/tensor.hpp"
#include "exec/thread_pool.hpp"
#include "kernels/kernel_table.hpp"

namespace pali {

// Called with every named stage of a run ("vision.block.3", "encoder.memory", ...). Parity dumps
// and benchmarks hang here. Names are those of tests/data's goldens.
using Tracer = std::function<void(std::string_view name, ConstMat values)>;

struct Context {
  ThreadPool& pool;
  const KernelTable& kernels;
  const Tracer* tracer = nullptr;

  void trace(std::string_view name, ConstMat values) const {
    if (tracer != nullptr) (*tracer)(name, values);
  }
  bool tracing() const { return tracer != nullptr; }
};

}  // namespace pali
