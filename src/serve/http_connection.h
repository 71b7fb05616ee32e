// One client of the HTTP server: reads a request, has it answered, and reads the next. All on the
// server's thread.
#pragma once

#include <atomic>
#include <boost/asio/basic_waitable_timer.hpp>
#include <boost/asio/post.hpp>
#include <boost/beast/core/flat_buffer.hpp>
#include <boost/beast/http.hpp>
#include <memory>
#include <optional>
#include <set>
#include <string>

#include "base/log.h"
#include "serve/http_server.h"
#include "serve/http_stream.h"

namespace wideload::serve {

namespace http = boost::beast::http;
// Of the steady clock.
using Timer = asio::basic_waitable_timer<std::chrono::steady_clock,
                                         asio::wait_traits<std::chrono::steady_clock>, Executor>;

// Where a local socket is.
asio::generic::stream_protocol::endpoint EndpointOf(const LocalSocket& socket);
// Whether the process at the other end of a local socket belongs to the user of this one.
bool IsOfThisUser(Socket& socket);

// "HTTP/1.1 404 Not Found\r\n"
std::string StatusLine(int status);

// What connections share.
struct HttpShared {
  asio::io_context context{1};
  std::shared_ptr<asio::ssl::context> tls;  // of this server alone; null: bytes are plain
  HttpLimits limits;
  HttpHandlers handlers;
  std::set<std::shared_ptr<HttpConnection>> connections;  // with the handlers of their operations
  std::atomic<int64_t> num_connections{0};
  bool is_draining = false;
};

class HttpConnection : public std::enable_shared_from_this<HttpConnection> {
 public:
  // `shared` must outlive this object.
  HttpConnection(HttpShared& shared, Socket socket);

  // Reads the first request.
  void Start();
  // Ends it unless an answer is under way.
  void Drain() {
    if (state_ == State::kIdle) Close();
  }
  // Ends it, whatever is under way.
  void Close();
  // Runs `work` on the server's thread, after what was posted before. What it throws ends this
  // connection. Any thread.
  template <class Work>
  void Post(Work work) {
    asio::post(shared_.context, [self = shared_from_this(), work = std::move(work)]() mutable {
      self->Guard(work);
    });
  }

  // What HttpExchange says, of the answer to request `number`; without effect when that is not the
  // one under way. The whole answer.
  void Respond(int64_t number, const HttpResponse& response);
  // The head of an answer in pieces.
  void BeginStream(int64_t number, const std::string& content_type);
  // A piece. Ends the connection of a reader that leaves too many bytes lying.
  void Write(int64_t number, std::string_view piece);
  // The end of an answer in pieces.
  void End(int64_t number);
  // `gone` is called at once when the request is not the one under way any more.
  void OnGone(int64_t number, std::function<void()> gone);
  // Breaks the connection.
  void Abort(int64_t number) {
    if (IsAnswering(number)) Close();
  }

 private:
  enum class State { kIdle, kReading, kAnswering, kLingering, kClosed };

  void ReadNext();
  void ReadHead();
  void TakeHead(error_code failure);
  void ReadBody();
  void TakeBody(error_code failure);
  void Watch();
  void Refuse(int status, const std::string& message);
  void RespondAndClose(const HttpResponse& response);
  void Send(std::string_view bytes);
  void WriteSome();
  void AnswerSent();
  void Linger();
  void LimitTime(std::chrono::milliseconds time);
  bool IsAnswering(int64_t number) const {
    return number == number_ && state_ == State::kAnswering && !has_ended_;
  }
  std::string Head(int status, const std::string& content_type) const;
  // A client whose answer failed would wait for ever: the connection ends with what `work` throws.
  template <class Work>
  void Guard(Work&& work) {
    try {
      work();
    } catch (const std::exception& failure) {
      LogWarn("http: {}", failure.what());
      Close();
    }
  }
  // A handler that keeps the connection alive, and calls act(error, bytes) unless it is closed.
  template <class Act>
  auto Then(Act act) {
    return [self = shared_from_this(), act = std::move(act)](error_code failure,
                                                             size_t num_bytes = 0) {
      if (self->state_ != State::kClosed) self->Guard([&] { act(failure, num_bytes); });
    };
  }

  HttpShared& shared_;
  HttpStream stream_;
  Timer timer_;
  boost::beast::flat_buffer buffer_;
  std::optional<http::request_parser<http::string_body>> parser_;
  State state_ = State::kIdle;
  HttpRequest request_;
  int64_t number_ = 0;  // of the request being read or answered
  bool keep_alive_ = false;
  bool is_http_1_0_ = false;
  bool has_ended_ = false;  // the answer is in `unsent_` or sent
  bool must_linger_ = false;
  bool is_watching_ = false;  // for the client's end, while an answer is made
  bool is_writing_ = false;
  uint64_t timer_number_ = 0;
  std::string unsent_;
  size_t num_sent_ = 0;  // of unsent_
  std::function<void()> gone_;
};

}  // namespace wideload::serve
