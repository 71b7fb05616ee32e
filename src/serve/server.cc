#include "serve/server.h"

namespace wideload::serve {
namespace {

using Clock = std::chrono::steady_clock;

constexpr const char* kEnding = "the server is shutting down";
constexpr std::chrono::milliseconds kRest{100};  // between looks at what asks for the end
// For answers that are written but have not gone out, at the end.
constexpr std::chrono::milliseconds kFlushTime{2'000};

// Waits until clients have their answers, then ends all that could still use the loop or `http`.
void End(Api& api, HttpServer& http, runtime::EngineLoop& loop) {
  api.Drain();
  http.Drain();
  const auto no_later = Clock::now() + kFlushTime;
  while (http.num_connections() > 0 && Clock::now() < no_later)
    std::this_thread::sleep_for(std::chrono::milliseconds(5));
  api.StopReading();
  http.Stop();
  loop.EndAll(kEnding);  // what nobody waits for any more
}

void Run(Api& api, HttpServer& http, runtime::EngineLoop& loop, const ServerOptions& options,
         const std::function<bool()>& is_ending) {
  std::optional<Clock::time_point> no_later;
  while (!no_later || api.num_open() > 0) {
    if (loop.idle()) loop.Wait(kRest);
    loop.Step();
    if (!no_later && is_ending()) {
      api.Drain();
      http.Drain();
      no_later = Clock::now() + options.drain_time;
    }
    if (no_later && Clock::now() >= *no_later) loop.EndAll(kEnding);
    if (no_later && Clock::now() >= *no_later + kFlushTime) return;
  }
}

}  // namespace

void Serve(const ServedModel& model, runtime::EngineLoop& loop, HttpServer& http,
           const ServerOptions& options, const std::function<void()>& started,
           const std::function<bool()>& is_ending) {
  loop.Watch();
  Api api(model, loop, options.api);
  api.SetConnections([&http] { return http.num_connections(); });
  try {
    http.Start(api.Handlers());
    started();
    Run(api, http, loop, options, is_ending);
  } catch (const std::exception&) {
    if (options.api.is_behind_front) http.Stop();  // nobody is told anything
    End(api, http, loop);
    throw;
  }
  End(api, http, loop);
}

}  // namespace wideload::serve
