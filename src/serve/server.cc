#include "serve/server.h"

namespace wideload::serve {
namespace {

using Clock = std::chrono::steady_clock;

constexpr const char* kEnding = "the server is shutting down";
constexpr std::chrono::milliseconds kRest{100};  // between looks at what asks for the end
// For answers that are written but have not gone out, at the end.
constexpr std::chrono::milliseconds kFlushTime{2'000};

// Waits until clients have their answers, then ends all that could still use the loop or `http`.
void End(Api& api, HttpServer& http, runtime::JobRunner& runner) {
  api.Drain();
  http.Drain();
  const auto no_later = Clock::now() + kFlushTime;
  while (http.num_connections() > 0 && Clock::now() < no_later)
    std::this_thread::sleep_for(std::chrono::milliseconds(5));
  api.StopReading();
  http.Stop();
  runner.EndAll(kEnding);  // what nobody waits for any more
}

void Run(Api& api, HttpServer& http, runtime::JobRunner& runner, const ServerOptions& options,
         const std::function<bool()>& is_ending) {
  std::optional<Clock::time_point> no_later;
  while (!no_later || api.num_open() > 0) {
    if (runner.idle()) runner.Wait(kRest);
    runner.Step();
    if (!no_later && is_ending()) {
      api.Drain();
      http.Drain();
      no_later = Clock::now() + options.drain_time;
    }
    if (no_later && Clock::now() >= *no_later) runner.EndAll(kEnding);
    if (no_later && Clock::now() >= *no_later + kFlushTime) return;
  }
}

}  // namespace

void Serve(const ServedModel& model, runtime::JobRunner& runner, HttpServer& http,
           const ServerOptions& options, const std::function<void()>& started,
           const std::function<bool()>& is_ending) {
  runner.Watch();
  Api api(model, runner, options.api);
  api.SetConnections([&http] { return http.num_connections(); });
  try {
    http.Start(api.Handlers());
    started();
    Run(api, http, runner, options, is_ending);
  } catch (const std::exception&) {
    if (options.api.is_behind_front) http.Stop();  // nobody is told anything
    End(api, http, runner);
    throw;
  }
  End(api, http, runner);
}

}  // namespace wideload::serve
