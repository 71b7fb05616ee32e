#include "serve/http_client.h"

#include <array>
#include <boost/asio/connect.hpp>
#include <boost/asio/executor_work_guard.hpp>
#include <boost/asio/local/stream_protocol.hpp>
#include <thread>

#include "base/log.h"
#include "base/thread_pool.h"
#include "serve/http_connection.h"

namespace wideload::serve {

class HttpCall : public std::enable_shared_from_this<HttpCall> {
 private:
  // A handler that keeps the call alive, and loses it with an error.
  template <class Act>
  auto Then(Act act) {
    return [self = shared_from_this(), act = std::move(act)](error_code failure, size_t = 0) {
      if (self->is_closed_) return;
      // The piece's place is full: no failure of the connection.
      if (failure && failure != http::error::need_buffer) return self->Lose();
      act();
    };
  }

 public:
  HttpCall(asio::io_context& context, HttpAnswerSink sink)
      : socket_(context), sink_(std::move(sink)) {
    parser_.body_limit(boost::none);
    parser_.header_limit(64 << 10);
  }

  void Start(const LocalSocket& server, const HttpRequest& request) {
    request_.method_string(request.method);
    request_.target(request.path);
    request_.version(11);
    request_.keep_alive(false);
    request_.set(http::field::host, "localhost");
    if (!request.authorization.empty())
      request_.set(http::field::authorization, request.authorization);
    if (!request.origin.empty()) request_.set(http::field::origin, request.origin);
    request_.body() = request.body;
    request_.prepare_payload();
    socket_.async_connect(EndpointOf(server), Then([this] {
                            was_taken_ = IsOfThisUser(socket_);
                            was_taken_ ? Write() : Lose();
                          }));
  }
  void Cancel() {
    sink_ = {};
    Close();
  }

 private:
  void Write() {
    http::async_write(socket_, request_, Then([this] { ReadHead(); }));
  }
  void ReadHead() {
    http::async_read_header(socket_, buffer_, parser_, Then([this] { TakeHead(); }));
  }
  void TakeHead() {
    const auto& head = parser_.get();
    whole_.status = static_cast<int>(head.result_int());
    whole_.content_type = std::string(head[http::field::content_type]);
    for (const auto& field : head) {
      switch (field.name()) {
        case http::field::content_type:
        case http::field::content_length:
        case http::field::connection:
        case http::field::cache_control:
        case http::field::transfer_encoding:
          break;  // said anew to the client
        default:
          whole_.headers.emplace_back(std::string(field.name_string()), std::string(field.value()));
      }
    }
    is_stream_ = parser_.chunked();
    if (is_stream_) sink_.begun(whole_.content_type);
    ReadBody();
  }
  void ReadBody() {
    if (is_closed_) return;
    if (parser_.is_done()) return Finish();
    auto& body = parser_.get().body();
    body.data = piece_.data();
    body.size = piece_.size();
    http::async_read_some(socket_, buffer_, parser_, Then([this] {
                            TakeBody();
                            ReadBody();
                          }));
  }
  void TakeBody() {
    const std::string_view piece(piece_.data(), piece_.size() - parser_.get().body().size);
    if (!is_stream_)
      whole_.body += piece;
    else if (!piece.empty())
      sink_.piece(piece);
  }
  void Finish() {
    const HttpAnswerSink sink = std::exchange(sink_, {});
    Close();
    is_stream_ ? sink.ended() : sink.whole(std::move(whole_));
  }
  void Lose() {
    const HttpAnswerSink sink = std::exchange(sink_, {});
    Close();
    if (sink.lost) sink.lost(was_taken_);
  }
  void Close() {
    is_closed_ = true;
    error_code ignored;
    socket_.close(ignored);
  }

  Socket socket_;
  HttpAnswerSink sink_;
  http::request<http::string_body> request_;
  boost::beast::flat_buffer buffer_;
  http::response_parser<http::buffer_body> parser_;
  std::array<char, 16384> piece_{};
  HttpResponse whole_;
  bool was_taken_ = false;
  bool is_stream_ = false;
  bool is_closed_ = false;
};

class HttpClient::Impl {
 public:
  Impl() : work_(context.get_executor()) {
    thread_ = StartThread("front", [this] { Run(); });
  }
  ~Impl() {
    context.stop();
    thread_.join();
  }

  asio::io_context context{1};

 private:
  // A failure of one request's work leaves the others alone.
  void Run() {
    while (!context.stopped()) {
      try {
        context.run();
      } catch (const std::exception& failure) {
        LogWarn("http: {}", failure.what());
      }
    }
  }

  asio::executor_work_guard<Executor> work_;
  std::jthread thread_;
};

HttpClient::HttpClient() : impl_(std::make_unique<Impl>()) {}
HttpClient::~HttpClient() = default;

void HttpClient::Post(std::function<void()> work) { asio::post(impl_->context, std::move(work)); }

void HttpClient::PostAfter(std::chrono::milliseconds time, std::function<void()> work) {
  const auto timer = std::make_shared<Timer>(impl_->context);  // owner: its handler
  timer->expires_after(time);
  timer->async_wait([timer, work = std::move(work)](error_code ended) {
    if (!ended) work();
  });
}

std::shared_ptr<HttpCall> HttpClient::Ask(const LocalSocket& server, const HttpRequest& request,
                                          HttpAnswerSink sink) {
  auto call = std::make_shared<HttpCall>(impl_->context, std::move(sink));
  call->Start(server, request);
  return call;
}

void HttpClient::Cancel(HttpCall& call) { call.Cancel(); }

bool IsListening(const LocalSocket& server) {
  asio::io_context context{1};
  Socket socket(context);
  error_code failure;
  socket.connect(EndpointOf(server), failure);
  return !failure && IsOfThisUser(socket);
}

}  // namespace wideload::serve
