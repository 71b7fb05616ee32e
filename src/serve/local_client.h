// Asks an HTTP server on a local socket, each request on a connection of its own, and takes the
// answers as they come. One thread runs all of it.
#pragma once

#include <chrono>
#include <functional>
#include <memory>
#include <string>
#include <string_view>

#include "serve/http_server.h"

namespace wideload::serve {

// Who takes an answer; called on the client's thread. Either `whole`, or `begun`, pieces and
// `ended`; `lost` when the connection ends before. Nothing is called after the last of these.
struct HttpAnswerSink {
  std::function<void(HttpResponse)> whole;
  // A streamed answer: its head has come,
  std::function<void(const std::string& content_type)> begun;
  // the next bytes of its body, without HTTP's framing,
  std::function<void(std::string_view)> piece;
  // and its end.
  std::function<void()> ended;
  // was_taken: the server had the connection; else nobody listened.
  std::function<void(bool was_taken)> lost;
};

// A request under way. On the client's thread.
class HttpCall;

class LocalClient {
 public:
  // Starts the thread.
  LocalClient();
  // Ends it; nothing is called any more.
  ~LocalClient();
  LocalClient(const LocalClient&) = delete;
  LocalClient& operator=(const LocalClient&) = delete;

  // Runs `work`, which must not throw, on the client's thread, now or after a time. Any thread.
  void Post(std::function<void()> work);
  // As Post; the time is from now.
  void PostAfter(std::chrono::milliseconds time, std::function<void()> work);

  // On the client's thread, these two: sends a request, and breaks it off.
  std::shared_ptr<HttpCall> Ask(const LocalSocket& server, const HttpRequest& request,
                                HttpAnswerSink sink);
  static void Cancel(HttpCall& call);

 private:
  class Impl;
  std::unique_ptr<Impl> impl_;
};

// Whether a server of this user listens there. Any thread.
bool IsListening(const LocalSocket& server);

}  // namespace wideload::serve
