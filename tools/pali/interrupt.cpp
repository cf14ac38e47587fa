#include "interrupt.hpp"

#include <pthread.h>
#include <signal.h>
#include <unistd.h>

#include <ctime>
#include <mutex>
#include <string>
#include <thread>

#include "base/output_file.hpp"

namespace pali::cli {
namespace {

// The one place of the program with state of its own: signals belong to the process.
struct Watch {
  std::stop_source stop;
  std::mutex mutex;
  std::filesystem::path unfinished;
};

Watch& watch() {
  static Watch* const instance = new Watch;  // outlives the detached thread
  return *instance;
}

void remove_unfinished() {
  const std::lock_guard lock(watch().mutex);
  if (watch().unfinished.empty()) return;
  // OutputFile's temporaries: NAME.tmp-PID-N in the same folder.
  const std::filesystem::path folder = watch().unfinished.parent_path();
  const std::string prefix =
      watch().unfinished.filename().string() + ".tmp-" + std::to_string(::getpid()) + "-";
  std::error_code ignored;
  for (const auto& entry :
       std::filesystem::directory_iterator(folder.empty() ? "." : folder, ignored)) {
    if (entry.path().filename().string().starts_with(prefix)) {
      std::filesystem::remove(entry.path(), ignored);
    }
  }
}

void wait_for_signals(sigset_t signals) {
  int signal = 0;
  sigwait(&signals, &signal);
  watch().stop.request_stop();
  const timespec patience{2, 0};
  sigtimedwait(&signals, nullptr, &patience);
  remove_unfinished();
  ::_exit(130);
}

}  // namespace

void watch_interrupts() {
  sigset_t signals;
  sigemptyset(&signals);
  sigaddset(&signals, SIGINT);
  sigaddset(&signals, SIGTERM);
  struct sigaction hangup = {};
  const bool nohup = ::sigaction(SIGHUP, nullptr, &hangup) == 0 && hangup.sa_handler == SIG_IGN;
  if (!nohup) sigaddset(&signals, SIGHUP);
  pthread_sigmask(SIG_BLOCK, &signals, nullptr);
  std::thread(wait_for_signals, signals).detach();
}

std::stop_token stop_token() { return watch().stop.get_token(); }
bool interrupted() { return watch().stop.stop_requested(); }

void clean_up_on_interrupt(const std::filesystem::path& path) {
  const std::lock_guard lock(watch().mutex);
  watch().unfinished = OutputFile::place_of(path);
}

}  // namespace pali::cli
