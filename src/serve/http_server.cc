#include "serve/http_server.h"

#include <algorithm>
#include <atomic>
#include <boost/asio/basic_waitable_timer.hpp>
#include <boost/asio/io_context.hpp>
#include <boost/asio/ip/tcp.hpp>
#include <boost/asio/post.hpp>
#include <boost/asio/write.hpp>
#include <boost/beast/core/flat_buffer.hpp>
#include <boost/beast/http.hpp>
#include <set>
#include <thread>

#include "base/error.h"
#include "base/log.h"
#include "base/thread_pool.h"

namespace wideload::serve {

namespace asio = boost::asio;
namespace http = boost::beast::http;
using tcp = asio::ip::tcp;
using boost::system::error_code;

namespace {

using Executor = asio::io_context::executor_type;
using Socket = asio::basic_stream_socket<tcp, Executor>;
using Acceptor = asio::basic_socket_acceptor<tcp, Executor>;
using Timer = asio::basic_waitable_timer<std::chrono::steady_clock,
                                         asio::wait_traits<std::chrono::steady_clock>, Executor>;

// What a client may send while its request is being answered: the begin of the next one.
constexpr size_t kMaxAheadBytes = 4096;

std::string StatusLine(int status) {
  return fmt::format("HTTP/1.1 {} {}\r\n", status,
                     std::string(http::obsolete_reason(static_cast<http::status>(status))));
}

}  // namespace

// What connections share.
struct Shared {
  asio::io_context context{1};
  HttpLimits limits;
  HttpHandlers handlers;
  std::set<std::shared_ptr<HttpConnection>> connections;  // with the handlers of their operations
  std::atomic<int64_t> num_connections{0};
  bool is_draining = false;
};

// One client. Reads a request, has it answered, and reads the next. All on the server's thread.
class HttpConnection : public std::enable_shared_from_this<HttpConnection> {
 public:
  HttpConnection(Shared& shared, Socket socket)
      : shared_(shared),
        socket_(std::move(socket)),
        timer_(shared.context),
        buffer_(shared.limits.header_bytes + kMaxAheadBytes) {}

  void Start() {
    error_code ignored;
    socket_.set_option(tcp::no_delay(true), ignored);
    ReadNext();
  }
  // Ends it unless an answer is under way.
  void Drain() {
    if (state_ == State::kIdle) Close();
  }
  void Close();
  template <class Work>
  void Post(Work work) {
    asio::post(shared_.context, std::move(work));
  }

  // Of the answer to request `number`.
  void Respond(int64_t number, HttpResponse response);
  void BeginStream(int64_t number, const std::string& content_type);
  void Write(int64_t number, std::string_view piece);
  void End(int64_t number);
  void OnGone(int64_t number, std::function<void()> gone);
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
  void Send(std::string bytes);
  void WriteSome();
  void AnswerSent();
  void Linger();
  void LimitTime(std::chrono::milliseconds time);
  bool IsAnswering(int64_t number) const {
    return number == number_ && state_ == State::kAnswering && !has_ended_;
  }
  std::string Head(int status, const std::string& content_type) const;
  // Calls (this->*method)(error) with the connection kept alive.
  template <class Method>
  auto Then(Method method) {
    return [self = shared_from_this(), method](error_code failure, size_t = 0) {
      if (self->state_ != State::kClosed) ((*self).*method)(failure);
    };
  }

  Shared& shared_;
  Socket socket_;
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

void HttpConnection::LimitTime(std::chrono::milliseconds time) {
  const uint64_t number = ++timer_number_;
  timer_.expires_after(time);
  timer_.async_wait([self = shared_from_this(), number](error_code failure) {
    if (!failure && number == self->timer_number_) self->Close();
  });
}

void HttpConnection::Close() {
  if (state_ == State::kClosed) return;
  state_ = State::kClosed;
  ++timer_number_;
  error_code ignored;
  timer_.cancel();
  socket_.close(ignored);
  if (const auto gone = std::exchange(gone_, {}); gone && !has_ended_) gone();
  shared_.connections.erase(shared_from_this());
  --shared_.num_connections;
}

// Waits for the next request as long as a client may be idle.
void HttpConnection::ReadNext() {
  if (shared_.is_draining) return Close();
  state_ = State::kIdle;
  gone_ = {};
  if (buffer_.size() > 0) return ReadHead();
  LimitTime(shared_.limits.idle_time);
  socket_.async_wait(Socket::wait_read, [self = shared_from_this()](error_code failure) {
    if (self->state_ == State::kClosed) return;
    failure ? self->Close() : self->ReadHead();
  });
}

void HttpConnection::ReadHead() {
  state_ = State::kReading;
  ++number_;
  request_ = {};
  keep_alive_ = is_http_1_0_ = has_ended_ = must_linger_ = false;
  parser_.emplace();
  parser_->header_limit(shared_.limits.header_bytes);
  parser_->body_limit(shared_.limits.body_bytes);
  LimitTime(shared_.limits.header_time);
  http::async_read_header(socket_, buffer_, *parser_, Then(&HttpConnection::TakeHead));
}

void HttpConnection::TakeHead(error_code failure) {
  if (failure == http::error::end_of_stream || failure == asio::error::eof ||
      failure == asio::error::connection_reset || failure == http::error::partial_message)
    return Close();
  if (failure == http::error::header_limit || failure == http::error::buffer_overflow)
    return Refuse(431,
                  fmt::format("the header has more than {} bytes", shared_.limits.header_bytes));
  if (failure == http::error::body_limit)
    return Refuse(413, fmt::format("the body has more than {} bytes", shared_.limits.body_bytes));
  if (failure) return Refuse(400, "this is no HTTP/1.1 request: " + failure.message());
  const auto& head = parser_->get();
  const std::string_view target(head.target().data(), head.target().size());
  request_.method = std::string(head.method_string());
  request_.path = std::string(target.substr(0, target.find('?')));
  request_.authorization = std::string(head[http::field::authorization]);
  keep_alive_ = head.keep_alive();
  is_http_1_0_ = head.version() < 11;
  if (head.version() != 10 && head.version() != 11)
    return Refuse(505, "HTTP/1.0 and HTTP/1.1 are spoken here");
  if (auto refusal = shared_.handlers.check(request_)) {
    must_linger_ = !parser_->is_done();
    return RespondAndClose(*refusal);
  }
  if (head[http::field::expect].size() > 0 && !parser_->is_done()) {
    // It is short and the first thing sent: a client that does not take it is none.
    error_code unsent;
    const std::string_view go_on = "HTTP/1.1 100 Continue\r\n\r\n";
    socket_.non_blocking(true, unsent);
    socket_.write_some(asio::buffer(go_on.data(), go_on.size()), unsent);
    if (unsent) return Close();
  }
  ReadBody();
}

void HttpConnection::ReadBody() {
  LimitTime(shared_.limits.body_time);
  http::async_read(socket_, buffer_, *parser_, Then(&HttpConnection::TakeBody));
}

void HttpConnection::TakeBody(error_code failure) {
  if (failure == http::error::body_limit)
    return Refuse(413, fmt::format("the body has more than {} bytes", shared_.limits.body_bytes));
  if (failure == http::error::partial_message || failure == asio::error::eof ||
      failure == asio::error::connection_reset)
    return Close();
  if (failure) return Refuse(400, "the body is no HTTP: " + failure.message());
  ++timer_number_;
  timer_.cancel();
  HttpRequest request = request_;
  request.body = std::move(parser_->get().body());
  parser_.reset();
  state_ = State::kAnswering;
  Watch();
  if (state_ == State::kClosed) return;
  shared_.handlers.handle(HttpExchange(shared_from_this(), number_, std::move(request)));
}

// Sees the client go while its answer is made. What it sends meanwhile is kept, up to a limit.
void HttpConnection::Watch() {
  if (buffer_.size() >= kMaxAheadBytes) return;
  is_watching_ = true;
  const auto room = kMaxAheadBytes - buffer_.size();
  socket_.async_read_some(buffer_.prepare(room),
                          [self = shared_from_this()](error_code failure, size_t num_bytes) {
                            self->is_watching_ = false;
                            if (self->state_ == State::kClosed) return;
                            self->buffer_.commit(num_bytes);
                            const bool is_done = self->has_ended_ && self->unsent_.empty();
                            if (is_done && (!failure || failure == asio::error::operation_aborted))
                              return self->ReadNext();
                            failure ? self->Close() : self->Watch();
                          });
}

void HttpConnection::Refuse(int status, const std::string& message) {
  must_linger_ = true;
  RespondAndClose(shared_.handlers.refuse(status, message));
}

void HttpConnection::RespondAndClose(const HttpResponse& response) {
  keep_alive_ = false;
  state_ = State::kAnswering;
  Respond(number_, response);
}

std::string HttpConnection::Head(int status, const std::string& content_type) const {
  return fmt::format("{}Content-Type: {}\r\nCache-Control: no-store\r\nConnection: {}\r\n",
                     StatusLine(status), content_type, keep_alive_ ? "keep-alive" : "close");
}

void HttpConnection::Respond(int64_t number, HttpResponse response) {
  if (!IsAnswering(number)) return;
  keep_alive_ = keep_alive_ && !shared_.is_draining;
  shared_.handlers.note(request_, response.status);
  std::string bytes = Head(response.status, response.content_type);
  for (const auto& [name, value] : response.headers)
    bytes += fmt::format("{}: {}\r\n", name, value);
  bytes += fmt::format("Content-Length: {}\r\n\r\n", response.body.size());
  if (request_.method != "HEAD") bytes += response.body;
  has_ended_ = true;
  Send(std::move(bytes));
}

void HttpConnection::BeginStream(int64_t number, const std::string& content_type) {
  if (!IsAnswering(number)) return;
  shared_.handlers.note(request_, 200);
  keep_alive_ = keep_alive_ && !is_http_1_0_ && !shared_.is_draining;
  Send(Head(200, content_type) + (is_http_1_0_ ? "\r\n" : "Transfer-Encoding: chunked\r\n\r\n"));
}

void HttpConnection::Write(int64_t number, std::string_view piece) {
  if (!IsAnswering(number) || piece.empty()) return;
  if (unsent_.size() - num_sent_ + piece.size() > shared_.limits.unsent_bytes) return Close();
  Send(is_http_1_0_ ? std::string(piece) : fmt::format("{:x}\r\n{}\r\n", piece.size(), piece));
}

void HttpConnection::End(int64_t number) {
  if (!IsAnswering(number)) return;
  has_ended_ = true;
  Send(is_http_1_0_ ? "" : "0\r\n\r\n");
}

void HttpConnection::OnGone(int64_t number, std::function<void()> gone) {
  if (IsAnswering(number))
    gone_ = std::move(gone);
  else if (number != number_ || state_ == State::kClosed)
    gone();
}

void HttpConnection::Send(std::string bytes) {
  unsent_ += bytes;
  if (!is_writing_) WriteSome();
}

void HttpConnection::WriteSome() {
  if (num_sent_ == unsent_.size()) {
    unsent_.clear();
    num_sent_ = 0;
    ++timer_number_;
    timer_.cancel();
    if (has_ended_) AnswerSent();
    return;
  }
  is_writing_ = true;
  LimitTime(shared_.limits.write_stall);
  // A copy: more may be added to the text meanwhile.
  const size_t count = std::min<size_t>(unsent_.size() - num_sent_, 64 << 10);
  auto piece = std::make_shared<const std::string>(unsent_.substr(num_sent_, count));
  socket_.async_write_some(asio::buffer(*piece),
                           [self = shared_from_this(), piece](error_code failure, size_t sent) {
                             self->is_writing_ = false;
                             if (self->state_ == State::kClosed) return;
                             if (failure) return self->Close();
                             self->num_sent_ += sent;
                             if (self->num_sent_ > (1 << 20)) {
                               self->unsent_.erase(0, self->num_sent_);
                               self->num_sent_ = 0;
                             }
                             self->WriteSome();
                           });
}

void HttpConnection::AnswerSent() {
  gone_ = {};
  if (must_linger_) return Linger();
  if (!keep_alive_) {
    error_code ignored;
    socket_.shutdown(Socket::shutdown_send, ignored);
    return Close();
  }
  // The watch, if there is one, goes on with the next request once it has ended.
  if (!is_watching_) return ReadNext();
  error_code ignored;
  socket_.cancel(ignored);
}

// Closing while a request is still coming in would reset the connection before the client has seen
// the answer.
void HttpConnection::Linger() {
  if (state_ != State::kLingering) {
    state_ = State::kLingering;
    error_code ignored;
    socket_.shutdown(Socket::shutdown_send, ignored);
    LimitTime(std::chrono::seconds(2));
    buffer_.clear();
  }
  socket_.async_read_some(buffer_.prepare(kMaxAheadBytes),
                          [self = shared_from_this()](error_code failure, size_t) {
                            if (self->state_ == State::kClosed) return;
                            failure ? self->Close() : self->Linger();
                          });
}

HttpExchange::HttpExchange(std::shared_ptr<HttpConnection> connection, int64_t number,
                           HttpRequest request)
    : connection_(std::move(connection)),
      number_(number),
      request_(std::make_shared<const HttpRequest>(std::move(request))) {}

void HttpExchange::Respond(HttpResponse response) const {
  connection_->Post([c = connection_, n = number_, response = std::move(response)]() mutable {
    c->Respond(n, std::move(response));
  });
}
void HttpExchange::BeginStream(std::string content_type) const {
  connection_->Post(
      [c = connection_, n = number_, type = std::move(content_type)] { c->BeginStream(n, type); });
}
void HttpExchange::Write(std::string piece) const {
  connection_->Post(
      [c = connection_, n = number_, piece = std::move(piece)] { c->Write(n, piece); });
}
void HttpExchange::End() const {
  connection_->Post([c = connection_, n = number_] { c->End(n); });
}
void HttpExchange::Abort() const {
  connection_->Post([c = connection_, n = number_] { c->Abort(n); });
}
void HttpExchange::OnGone(std::function<void()> gone) const {
  connection_->Post([c = connection_, n = number_, gone = std::move(gone)]() mutable {
    c->OnGone(n, std::move(gone));
  });
}
void HttpExchange::Post(std::function<void()> work) const { connection_->Post(std::move(work)); }

class HttpServer::Impl {
 public:
  Impl(const std::string& host, int port, const HttpLimits& limits)
      : acceptor_(shared_.context), retry_(shared_.context) {
    shared_.limits = limits;
    Bind(host, port);
  }

  int port() const { return acceptor_.local_endpoint().port(); }
  void Start(HttpHandlers handlers) {
    shared_.handlers = std::move(handlers);
    error_code failure;
    acceptor_.listen(asio::socket_base::max_listen_connections, failure);
    if (failure) Throw(ErrorKind::kIo, "cannot listen on port {}: {}", port(), failure.message());
    Accept();
    thread_ = StartThread("http", [this] { Run(); });
  }
  void Stop() {
    if (!thread_.joinable()) return;
    Post([this] {
      CloseAcceptor();
      const auto connections = shared_.connections;
      for (const auto& connection : connections) connection->Close();
      shared_.context.stop();
    });
    thread_.join();
  }
  void Drain() {
    Post([this] {
      shared_.is_draining = true;
      CloseAcceptor();
      const auto connections = shared_.connections;
      for (const auto& connection : connections) connection->Drain();
    });
  }
  int64_t num_connections() const { return shared_.num_connections; }

 private:
  void Bind(const std::string& host, int port);
  void Post(std::function<void()> work) { asio::post(shared_.context, std::move(work)); }
  void CloseAcceptor() {
    error_code ignored;
    acceptor_.close(ignored);
    retry_.cancel();
  }
  void Accept();
  void TakeClient(error_code failure, Socket socket);
  void Run();

  Shared shared_;
  Acceptor acceptor_;
  Timer retry_;
  std::jthread thread_;
};

void HttpServer::Impl::Bind(const std::string& host, int port) {
  error_code failure;
  asio::ip::basic_resolver<tcp, Executor> resolver(shared_.context);
  const auto found = resolver.resolve(host, std::to_string(port), failure);
  if (failure || found.empty())
    Throw(ErrorKind::kInvalid, "--host is {}, which is no address of this machine: {}", host,
          failure.message());
  const tcp::endpoint endpoint = found.begin()->endpoint();
  acceptor_.open(endpoint.protocol(), failure);
  if (!failure) acceptor_.set_option(tcp::acceptor::reuse_address(true), failure);
  if (!failure) acceptor_.bind(endpoint, failure);
  if (failure)
    Throw(ErrorKind::kIo, "--host {} --port {} cannot be taken: {}", host, port, failure.message());
}

void HttpServer::Impl::Accept() {
  acceptor_.async_accept(
      [this](error_code failure, Socket socket) { TakeClient(failure, std::move(socket)); });
}

void HttpServer::Impl::TakeClient(error_code failure, Socket socket) {
  if (failure == asio::error::operation_aborted || !acceptor_.is_open()) return;
  if (failure) {  // no descriptors left, for one: what is open goes on
    retry_.expires_after(std::chrono::milliseconds(100));
    retry_.async_wait([this](error_code ended) {
      if (!ended) Accept();
    });
    return;
  }
  if (shared_.num_connections >= shared_.limits.max_connections) {
    error_code ignored;
    socket.non_blocking(true, ignored);
    const std::string text =
        StatusLine(503) + "Retry-After: 1\r\nContent-Length: 0\r\nConnection: close\r\n\r\n";
    socket.write_some(asio::buffer(text), ignored);
  } else {
    ++shared_.num_connections;
    auto connection = std::make_shared<HttpConnection>(shared_, std::move(socket));
    shared_.connections.insert(connection);
    connection->Start();
  }
  Accept();
}

// A failure of one connection's work leaves the others alone.
void HttpServer::Impl::Run() {
  while (!shared_.context.stopped()) {
    try {
      shared_.context.run();
    } catch (const std::exception& failure) {
      LogWarn("http: {}", failure.what());
    }
  }
}

HttpServer::HttpServer(const std::string& host, int port, const HttpLimits& limits)
    : impl_(std::make_unique<Impl>(host, port, limits)) {}
HttpServer::~HttpServer() { Stop(); }
int HttpServer::port() const { return impl_->port(); }
void HttpServer::Start(HttpHandlers handlers) { impl_->Start(std::move(handlers)); }
void HttpServer::Stop() { impl_->Stop(); }
void HttpServer::Drain() { impl_->Drain(); }
int64_t HttpServer::num_connections() const { return impl_->num_connections(); }

}  // namespace wideload::serve
