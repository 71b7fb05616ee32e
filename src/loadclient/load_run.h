// Sends the requests of a load test when they are due and takes down what comes of them. Not
// thread-safe.
#pragma once

#include <cstdint>
#include <functional>
#include <string>
#include <utility>
#include <vector>

#include "loadclient/http_client.h"
#include "loadclient/load_report.h"

namespace wideload::loadclient {

// A request whose answer is a stream of events.
struct LoadRequest {
  std::string body;           // JSON
  int64_t prompt_tokens = 0;  // counted where the server does not say; 0: not known
};

// How requests go out.
struct LoadOptions {
  std::string path;  // of all of them
  std::vector<std::pair<std::string, std::string>> headers{};
  std::vector<double> arrivals_s{};  // of each, since the start, rising
  int64_t max_concurrency = 0;       // further ones wait, and start when one has ended; 0: no limit
  std::function<bool()> is_interrupted{};  // asked ten times a second
  std::function<void(int64_t num_ended, int64_t num_running)> progress{};  // may be empty
};

// What came of a run.
struct LoadResult {
  std::vector<Outcome> outcomes;  // of the requests, in order; of an interrupted run the ended ones
  double duration_s = 0;
  bool is_complete = false;  // false: interrupted
};

// Runs all of them. A request fails when its status is not 200, its stream breaks, has an error
// event or no choice; everything that went wrong is in its outcome, by name.
LoadResult RunLoad(HttpClient& client, const std::vector<LoadRequest>& requests,
                   const LoadOptions& options);

}  // namespace wideload::loadclient
