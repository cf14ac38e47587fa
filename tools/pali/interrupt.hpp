// Ctrl-C: the run ends at its next token, the program with status 130.
#pragma once

#include <filesystem>
#include <stop_token>

namespace pali::cli {

// Call once, before any other thread is started. SIGINT, SIGTERM and SIGHUP ask `token()` to stop;
// should that take more than two seconds, or a second signal come, the program ends at once.
void watch_interrupts();
std::stop_token stop_token();
bool interrupted();
// Where a file is being written beside `path`: an abrupt end removes what is there of it.
void clean_up_on_interrupt(const std::filesystem::path& path);

}  // namespace pali::cli
