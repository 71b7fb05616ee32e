#include "serve_front.h"

#include <filesystem>
#include <sstream>
#include <thread>

#include "base/error.h"
#include "base/file.h"
#include "interrupt.h"
#include "runtime/engine_loop.h"

namespace wideload::apps {
namespace {

using Clock = std::chrono::steady_clock;
constexpr std::chrono::milliseconds kRest{20};
constexpr std::chrono::milliseconds kFlushTime{2'000};  // as serve::Serve
constexpr std::chrono::milliseconds kEndTime{5'000};    // of an engine that nobody asks anything

void Stop(serve::Front& front, serve::HttpServer& http, const std::string& message) {
  front.Drain();
  http.Drain();
  front.EndAll(message);
  const auto no_later = Clock::now() + kFlushTime;
  while (http.num_connections() > 0 && Clock::now() < no_later)
    std::this_thread::sleep_for(std::chrono::milliseconds(5));
  http.Stop();
}

void Run(serve::Front& front, serve::HttpServer& http, EngineKeeper& keeper,
         std::chrono::milliseconds drain_time) {
  while (InterruptSignal() == 0 && keeper.Look()) std::this_thread::sleep_for(kRest);
  front.Drain();
  http.Drain();
  const auto no_later = Clock::now() + drain_time;
  while (front.num_open() > 0 && Clock::now() < no_later && keeper.Look())
    std::this_thread::sleep_for(kRest);
}

}  // namespace

std::vector<std::string> EngineArguments(const std::string& launcher) {
  std::vector<std::string> argv;
  std::istringstream words(launcher);
  for (std::string word; words >> word;) argv.push_back(word);
  // As it was started: the file may have been replaced since.
  argv.push_back(argv.empty() ? "/proc/self/exe"
                              : std::filesystem::read_symlink("/proc/self/exe").string());
  const std::string line = ReadFile("/proc/self/cmdline");
  std::istringstream given(line);
  std::string word;
  for (std::getline(given, word, '\0'); std::getline(given, word, '\0');) argv.push_back(word);
  return argv;
}

void RunFront(serve::HttpServer& http, serve::FrontOptions options, EngineProcess process,
              std::chrono::milliseconds drain_time, const std::function<void()>& started) {
  serve::Front front(std::move(options));
  EngineKeeper keeper(front, std::move(process));
  if (!keeper.Start()) return;
  http.Start(front.Handlers());
  started();
  try {
    Run(front, http, keeper, drain_time);
  } catch (const std::exception&) {
    Stop(front, http, runtime::kEngineStopped);
    throw;
  }
  Stop(front, http, "the server is shutting down");
  keeper.End(kEndTime);
}

}  // namespace wideload::apps
