// What the eplb commands do with many layers: all cores, one error, time per layer.
#include <algorithm>
#include <charconv>
#include <ctime>
#include <exception>
#include <thread>

#include "base/error.h"
#include "base/thread_pool.h"
#include "eplb_commands.h"
#include "interrupt.h"

namespace wideload::apps {

void StopIfInterrupted() {
  if (InterruptSignal() != 0) Throw(ErrorKind::kRunFailed, "interrupted; nothing was written");
}

void ForEachLayer(size_t num_layers, const std::function<void(size_t)>& work) {
  CatchInterrupts();
  std::vector<std::exception_ptr> errors(num_layers);
  ThreadPool pool("eplb", static_cast<int>(std::max(1U, std::thread::hardware_concurrency())));
  pool.Run(static_cast<int64_t>(num_layers), [&](int64_t i, int) {
    try {
      StopIfInterrupted();
      work(static_cast<size_t>(i));
    } catch (...) {
      errors[static_cast<size_t>(i)] = std::current_exception();
    }
  });
  for (const std::exception_ptr& error : errors)
    if (error) std::rethrow_exception(error);
}

double ThreadMilliseconds() { return static_cast<double>(ThreadCpuNs()) / 1e6; }

std::vector<int32_t> ParseLayers(const std::string& text) {
  constexpr int32_t kMaxLayer = statistics::kMaxEplbLayers - 1;
  const auto refuse = [&]() {
    Throw(ErrorKind::kInvalid,
          "--layers is \"{}\"; it must be layers 0 to {} in ascending order, like 3-60 or 0,2,5-7",
          text, kMaxLayer);
  };
  std::vector<int32_t> layers;
  size_t at = 0;
  const auto number = [&]() {
    int32_t value = 0;
    const auto [end, error] = std::from_chars(text.data() + at, text.data() + text.size(), value);
    if (error != std::errc() || value < 0 || value > kMaxLayer) refuse();
    at = static_cast<size_t>(end - text.data());
    return value;
  };
  for (bool more = true; more;) {
    const int32_t first = number();
    int32_t last = first;
    if (at < text.size() && text[at] == '-') {
      ++at;
      last = number();
    }
    if (last < first || (!layers.empty() && first <= layers.back())) refuse();
    for (int32_t layer = first; layer <= last; ++layer) layers.push_back(layer);
    more = at < text.size();
    if (more && text[at++] != ',') refuse();
  }
  return layers;
}

}  // namespace wideload::apps
