// HTTP/1.1 requests to one server, many at once on one thread, whose answers are taken as they
// come. Connections are used again. Stands for Boost: no other file of this module includes it. Not
// thread-safe; callbacks are called inside Run.
#pragma once

#include <chrono>
#include <functional>
#include <memory>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

namespace wideload::loadclient {

// Where a server is.
struct ServerAddress {
  std::string host;
  int port = 80;
  std::string path;  // that comes before those of all requests; "" or "/..."
};
// "http://HOST[:PORT][/PATH]". Errors: kInvalid, naming `flag`, found and allowed.
ServerAddress ParseUrl(const std::string& url, const std::string& flag);

// A request; `path` begins with '/'.
struct ClientRequest {
  std::string method = "POST";
  std::string path;
  std::vector<std::pair<std::string, std::string>> headers{};  // beside Host and Content-Length
  std::string body{};
};

// Who takes an answer. What one throws ends the request with its text.
struct AnswerSink {
  // The status line has come, before any byte of the body.
  std::function<void(int status)> head;
  // The next bytes of the body, without HTTP's framing.
  std::function<void(std::string_view bytes)> body;
  // The last call: `error` is empty when the whole answer has come, else what went wrong
  // ("connection refused").
  std::function<void(const std::string& error)> end;
};

class HttpClient {
 public:
  using Clock = std::chrono::steady_clock;

  // Errors: kInvalid when the host is not known.
  explicit HttpClient(const ServerAddress& server);
  ~HttpClient();
  HttpClient(const HttpClient&) = delete;
  HttpClient& operator=(const HttpClient&) = delete;

  // Sends a request once Run is called, or at once inside it.
  void Send(ClientRequest request, AnswerSink sink);
  // Calls `act` at this time, inside Run.
  void At(Clock::time_point when, std::function<void()> act);
  // Returns once nothing is under way, true; or false when `is_interrupted` says so, asked every
  // 100 ms: what is under way is dropped without a call, and no second Run may follow.
  bool Run(const std::function<bool()>& is_interrupted);

 private:
  class Impl;
  std::unique_ptr<Impl> impl_;
};

}  // namespace wideload::loadclient
