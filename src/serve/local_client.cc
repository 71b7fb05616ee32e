#include "serve/local_client.h"

#include <array>
#include <boost/asio/connect.hpp>
#include <boost/asio/executor_work_guard.hpp>
#include <boost/asio/local/stream_protocol.hpp>
#include <thread>

#include "base/log.h"
#include "base/thread_pool.h"
#include "http/response_reader.h"
#include "serve/http_connection.h"

namespace wideload::serve {

using wideload::http::IsFieldName;
using wideload::http::ResponseHead;

class HttpCall : public std::enable_shared_from_this<HttpCall> {
 private:
  // A handler that keeps the call alive, and loses it with an error.
  template <class Act>
  auto Then(Act act) {
    return [self = shared_from_this(), act = std::move(act)](error_code failure, size_t = 0) {
      if (self->is_closed_) return;
      failure ? self->Lose() : act();
    };
  }

 public:
  HttpCall(asio::io_context& context, HttpAnswerSink sink)
      : socket_(context), sink_(std::move(sink)) {}

  void Start(const LocalSocket& server, const HttpRequest& request) {
    request_.method_string(request.method);
    request_.target(request.query.empty() ? request.path : request.path + "?" + request.query);
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
  // The sink stays: it may be what calls this.
  void Cancel() { Close(); }

 private:
  void Write() {
    http::async_write(socket_, request_, Then([this] { Read(); }));
  }
  void Read() {
    socket_.async_read_some(asio::buffer(bytes_),
                            [self = shared_from_this()](error_code failure, size_t num_bytes) {
                              if (!self->is_closed_) self->Take(failure, num_bytes);
                            });
  }
  // The sink may close the call meanwhile.
  void Take(error_code failure, size_t num_bytes) {
    const bool is_right = failure
                              ? failure == asio::error::eof && reader_.End()
                              : reader_.Feed({bytes_.data(), num_bytes},
                                             {[this](const ResponseHead& head) { TakeHead(head); },
                                              [this](std::string_view piece) { TakeBody(piece); }});
    if (is_closed_) return;
    if (!is_right) return Lose();
    reader_.is_done() ? Finish() : Read();
  }
  void TakeHead(const ResponseHead& head) {
    // These are said anew to the client.
    static constexpr std::string_view kOwn[] = {"content-type", "content-length", "connection",
                                                "cache-control", "transfer-encoding"};
    whole_.status = head.status;
    whole_.content_type = std::string(head.Find("content-type"));
    for (const auto& field : head.fields)
      if (std::ranges::none_of(kOwn, [&](auto own) { return IsFieldName(field.first, own); }))
        whole_.headers.push_back(field);
    is_stream_ = head.is_chunked;
    if (is_stream_) sink_.begun(whole_.content_type);
  }
  void TakeBody(std::string_view piece) {
    if (is_closed_) return;
    is_stream_ ? sink_.piece(piece) : void(whole_.body += piece);
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
  wideload::http::ResponseReader reader_;
  std::array<char, 16384> bytes_{};
  HttpResponse whole_;
  bool was_taken_ = false;
  bool is_stream_ = false;
  bool is_closed_ = false;
};

class LocalClient::Impl {
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

LocalClient::LocalClient() : impl_(std::make_unique<Impl>()) {}
LocalClient::~LocalClient() = default;

void LocalClient::Post(std::function<void()> work) { asio::post(impl_->context, std::move(work)); }

void LocalClient::PostAfter(std::chrono::milliseconds time, std::function<void()> work) {
  const auto timer = std::make_shared<Timer>(impl_->context);  // owner: its handler
  timer->expires_after(time);
  timer->async_wait([timer, work = std::move(work)](error_code ended) {
    if (!ended) work();
  });
}

std::shared_ptr<HttpCall> LocalClient::Ask(const LocalSocket& server, const HttpRequest& request,
                                           HttpAnswerSink sink) {
  auto call = std::make_shared<HttpCall>(impl_->context, std::move(sink));
  call->Start(server, request);
  return call;
}

void LocalClient::Cancel(HttpCall& call) { call.Cancel(); }

bool IsListening(const LocalSocket& server) {
  asio::io_context context{1};
  Socket socket(context);
  error_code failure;
  socket.connect(EndpointOf(server), failure);
  return !failure && IsOfThisUser(socket);
}

}  // namespace wideload::serve
