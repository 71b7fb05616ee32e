// HTTP/1.1 over TCP or TLS with every limit a server in front of strangers needs. One thread runs
// all connections; an HttpExchange may be used by any thread.
#pragma once

#include <chrono>
#include <cstdint>
#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "serve/secrets.h"

namespace wideload::serve {

// What a client may take at most.
struct HttpLimits {
  uint32_t header_bytes = 16 << 10;
  uint64_t body_bytes = 4 << 20;
  int64_t max_connections = 1024;
  std::chrono::milliseconds header_time{10'000};  // from a request's first byte; for TLS to begin
  std::chrono::milliseconds body_time{60'000};    // from the end of its header
  std::chrono::milliseconds idle_time{75'000};    // between requests
  std::chrono::milliseconds write_stall{30'000};  // in which a reader takes nothing
  uint64_t unsent_bytes = 1 << 20;                // of a stream, that its reader has not taken
};

// A place on this machine to listen at instead of a port: a name that is in no folder and goes with
// its process. Processes of the same user alone are answered there.
struct LocalSocket {
  std::string name;  // up to 100 bytes
};

// A request, as far as anybody looks at it.
struct HttpRequest {
  std::string method;
  std::string path;           // without the query
  std::string query;          // what stands behind the first "?"; "": nothing
  std::string authorization;  // the header's value; "" when absent; likewise the next one
  std::string origin;         // set by browsers for scripts of a page
  std::string body;
};

// A whole answer.
struct HttpResponse {
  int status = 200;
  std::string content_type = "application/json";
  std::vector<std::pair<std::string, std::string>> headers{};  // further ones
  std::string body{};
};

class HttpConnection;

// A request and the way back to its client. Copies mean the same. Thread-safe; what is written
// after the end or to a client that has gone is dropped.
class HttpExchange {
 public:
  // Made by the connection for its request `number`.
  HttpExchange(std::shared_ptr<HttpConnection> connection, int64_t number, HttpRequest request);

  const HttpRequest& request() const { return *request_; }
  // The whole answer.
  void Respond(HttpResponse response) const;
  // An answer in pieces: BeginStream, Write as often as wanted, End.
  void BeginStream(std::string content_type) const;
  // The next piece.
  void Write(std::string piece) const;
  // No piece follows.
  void End() const;
  // Breaks the connection: the client sees that the answer is not whole.
  void Abort() const;
  // `gone` is called once, on the server's thread, when the client goes away before the answer's
  // end.
  void OnGone(std::function<void()> gone) const;
  // Runs `work` on the server's thread, in the order of the calls.
  void Post(std::function<void()> work) const;

 private:
  std::shared_ptr<HttpConnection> connection_;  // with the server and other copies
  int64_t number_;                              // of the request on its connection
  std::shared_ptr<const HttpRequest> request_;  // with other copies
};

// Who answers; all are called on the server's thread.
struct HttpHandlers {
  // Looks at a request whose body has not been read; an answer refuses it.
  std::function<std::optional<HttpResponse>(const HttpRequest&)> check;
  // Takes a request; answers now or later. Must not throw.
  std::function<void(HttpExchange)> handle;
  // What a client is told whose request is no good HTTP or exceeds a limit.
  std::function<HttpResponse(int status, const std::string& message)> refuse;
  // Told of every answer, with the request but for its body.
  std::function<void(const HttpRequest&, int status)> note;
};

class HttpServer {
 public:
  // Takes the port; 0: any that is free. With `tls` clients must speak TLS. Errors: kInvalid for a
  // host that is none; kIo when the port cannot be had; as OpenTls.
  HttpServer(const std::string& host, int port, const HttpLimits& limits,
             const std::optional<TlsFiles>& tls = {});
  // The same at a local socket. Errors: kIo when it cannot be had.
  HttpServer(const LocalSocket& socket, const HttpLimits& limits);
  // Stop, and takes the connections down. No HttpExchange may be left elsewhere.
  ~HttpServer();
  HttpServer(const HttpServer&) = delete;
  HttpServer& operator=(const HttpServer&) = delete;

  // The one that was taken; 0 of a local socket.
  int port() const;
  // Listens, and starts the thread. Errors: kIo.
  void Start(HttpHandlers handlers);
  // Ends the thread; nothing is read, written or called any more.
  void Stop();
  // Takes no new connections, and ends those that have no request under way, now or once they have
  // answered it.
  void Drain();
  // Any thread.
  int64_t num_connections() const;

 private:
  class Impl;
  std::unique_ptr<Impl> impl_;
};

}  // namespace wideload::serve
