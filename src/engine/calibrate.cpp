#include "engine/calibrate.hpp"

#include <mutex>
#include <utility>

#include "engine/state.hpp"
#include "matmul/moments.hpp"
#include "pali/error.hpp"

namespace pali {
namespace {

// Adds up the activations of some matrices, and leaves the others aside.
class MomentsObserver final : public ActivationObserver {
 public:
  using Moments = std::map<std::string, ActivationMoments, std::less<>>;

  explicit MomentsObserver(int64_t most_bytes) : most_bytes_(most_bytes) {}

  // False where the matrix is one too many.
  bool add(const BoundTensor& tensor) {
    const int64_t bytes = ActivationMoments::bytes(tensor.ref.in);
    if (!wanted_.empty() && bytes_ + bytes > most_bytes_) return false;
    bytes_ += bytes;
    wanted_.insert_or_assign(tensor.rule.name, &tensor);
    return true;
  }

  void see(const Context& context, const std::string& weight, ConstMat x) override {
    if (!wanted_.contains(weight)) return;
    const std::lock_guard lock(mutex_);
    moments_.try_emplace(weight, x.cols).first->second.add(context, x);
  }

  const BoundTensor& tensor(const std::string& name) const { return *wanted_.at(name); }
  Moments take() { return std::exchange(moments_, {}); }

 private:
  std::map<std::string, const BoundTensor*, std::less<>> wanted_;
  std::mutex mutex_;
  Moments moments_;
  int64_t bytes_ = 0, most_bytes_;
};

bool may_be_calibrated(const BoundTensor& tensor) {
  const bool integers = tensor.rule.least == Precision::any || tensor.rule.least == Precision::int8;
  return integers && is_float_weight(tensor.ref.dtype);
}

}  // namespace

StoredForms calibrated_forms(const Checkpoint& checkpoint, DType dtype,
                             const ConvertOptions& options, const std::function<Checkpoint()>& open,
                             int64_t most_bytes) {
  EngineOptions engine = options.engine;
  engine.dtype = WeightType::automatic;
  engine.compute = ComputeType::f32;
  StoredForms forms;
  const auto& bound = checkpoint.table.bound();
  for (auto next = bound.begin(); next != bound.end();) {
    MomentsObserver observer(most_bytes);
    for (; next != bound.end(); ++next) {
      if (may_be_calibrated(next->second) && !observer.add(next->second)) break;
    }
    const auto state = make_engine_state(open(), engine, &observer);
    options.calibrate(EngineAccess::engine(state));
    MomentsObserver::Moments seen = observer.take();
    while (!seen.empty()) {
      auto one = seen.extract(seen.begin());
      const Context context = state->context();
      const Calibration calibration{context, one.mapped().sum(context), options.max_product_error};
      forms.try_emplace(one.key(), observer.tensor(one.key()), dtype, &calibration);
    }
  }
  if (forms.empty()) {
    throw Error(ErrorCode::invalid_argument,
                "a calibration without a request (convert); run some, of the kind that the model "
                "is for");
  }
  return forms;
}

}  // namespace pali
