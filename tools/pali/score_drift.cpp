#include "score_drift.hpp"

#include <cstdio>

#include "interrupt.hpp"
#include "json_lines.hpp"

namespace pali::cli {
namespace {

const char* task_name(Task task) {
  switch (task) {
    case Task::caption:
      return "caption";
    case Task::vqa:
      return "vqa";
    case Task::ocr:
      return "ocr";
    case Task::detect:
      return "detect";
    case Task::segment:
      return "segment";
    case Task::run:
      break;
  }
  return "run";
}

bench::Drift total_of(const DriftByTask& by_task) {
  bench::Drift total;
  for (const auto& [task, drift] : by_task) total.add(drift);
  return total;
}

std::string text_line(const std::string& name, const bench::Drift& drift) {
  char line[160];
  std::snprintf(line, sizeof line, "%-8s %9lld %11.1f %% %8lld %14.2f %% %10.5f %9.4f\n",
                name.c_str(), static_cast<long long>(drift.requests), 100 * drift.same_share(),
                static_cast<long long>(drift.steps), 100 * drift.top1_agreement(), drift.kl_mean(),
                drift.kl_max);
  return line;
}

Json object_of(const bench::Drift& drift) {
  return {{"requests", drift.requests},
          {"same_answers", drift.same_answers},
          {"steps", drift.steps},
          {"agreeing", drift.agreeing},
          {"top1_agreement", rounded(drift.top1_agreement())},
          {"kl_mean", rounded(drift.kl_mean(), 9)},
          {"kl_max", rounded(drift.kl_max, 9)}};
}

}  // namespace

DriftByTask drift_over(const Engine& reference, const Engine& other, const std::string& path,
                       const BatchDefaults& defaults) {
  JsonLines lines(path);
  DriftByTask by_task;
  for (std::string text; !interrupted() && lines.next(text);) {
    BatchLine line;
    try {
      read_line(text, defaults, line);
      by_task[task_name(line.request.task)].add(bench::drift(reference, other, line.request));
    } catch (const Error& error) {
      if (error.code() == ErrorCode::cancelled) break;
      throw Error(error.code(), std::string(error.what()) + " (" + lines.where() + ")");
    }
  }
  if (by_task.empty() && !interrupted()) {
    throw Error(ErrorCode::invalid_argument,
                "no requests (" + path + "); give a line of JSON each");
  }
  return by_task;
}

std::string to_text(const DriftByTask& by_task) {
  std::string text =
      "task      requests  same answer    steps  top-1 the same    KL mean    KL max\n";
  for (const auto& [task, drift] : by_task) text += text_line(task, drift);
  return text + text_line("all", total_of(by_task));
}

Json to_json(const DriftByTask& by_task) {
  Json object = object_of(total_of(by_task));
  for (const auto& [task, drift] : by_task) object["tasks"][task] = object_of(drift);
  return object;
}

}  // namespace pali::cli
