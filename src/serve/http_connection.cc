#include "serve/http_connection.h"

#include <sys/socket.h>
#include <unistd.h>

#include <algorithm>
#include <boost/asio/local/stream_protocol.hpp>

#include "base/error.h"

namespace wideload::serve {
namespace {

// What a client may send while its request is being answered: the begin of the next one.
constexpr size_t kMaxAheadBytes = 4096;

// Of a request's target; that of one for a proxy names the host, too.
std::string_view PathOf(std::string_view target) {
  for (const std::string_view scheme : {"http://", "https://"})
    if (target.starts_with(scheme))
      target.remove_prefix(std::min(target.find('/', scheme.size()), target.size()));
  return target.substr(0, target.find('?'));
}

// Why a body in this coding cannot be read: what is not decoded must not be taken for the body, nor
// for the next request.
std::pair<int, std::string> WrongCoding(const http::fields& head) {
  for (const auto& [field, allowed, status] :
       {std::tuple{http::field::transfer_encoding, "chunked", 501},
        std::tuple{http::field::content_encoding, "identity", 415}}) {
    const auto [first, last] = head.equal_range(field);
    for (auto line = first; line != last; ++line)
      if (line != first || !boost::beast::iequals(line->value(), allowed))
        return {status,
                fmt::format("{} is \"{}\"; allowed: {}, once", std::string(line->name_string()),
                            std::string(line->value().substr(0, 64)), allowed)};
  }
  return {};
}

// Why a head that was read is none all the same (RFC 9112, 3.2; RFC 9110, 10.1.1).
std::pair<int, std::string> WrongHead(const http::request_header<>& head) {
  if (head.version() != 10 && head.version() != 11)
    return {505, "HTTP/1.0 and HTTP/1.1 are spoken here"};
  const size_t num_hosts = head.count(http::field::host);
  if (num_hosts > 1 || (num_hosts == 0 && head.version() == 11))
    return {400, fmt::format("the header has {} fields Host; allowed: {}", num_hosts,
                             head.version() == 11 ? "one" : "one at most")};
  if (head.version() == 11)
    for (auto [line, last] = head.equal_range(http::field::expect); line != last; ++line)
      if (!boost::beast::iequals(line->value(), "100-continue"))
        return {417, fmt::format("Expect is \"{}\"; allowed: 100-continue",
                                 std::string(line->value().substr(0, 64)))};
  return WrongCoding(head);
}

}  // namespace

asio::generic::stream_protocol::endpoint EndpointOf(const LocalSocket& socket) {
  // Behind a zero byte it is a name of the kernel's and none of a file.
  return asio::local::stream_protocol::endpoint(std::string(1, '\0') + socket.name);
}

bool IsOfThisUser(Socket& socket) {
  ucred peer{};
  socklen_t size = sizeof peer;
  return ::getsockopt(socket.native_handle(), SOL_SOCKET, SO_PEERCRED, &peer, &size) == 0 &&
         peer.uid == ::geteuid();
}

std::string StatusLine(int status) {
  return fmt::format("HTTP/1.1 {} {}\r\n", status,
                     std::string(http::obsolete_reason(static_cast<http::status>(status))));
}

HttpConnection::HttpConnection(HttpShared& shared, Socket socket)
    : shared_(shared),
      stream_(std::move(socket), shared.tls.get()),
      timer_(shared.context),
      buffer_(shared.limits.header_bytes + kMaxAheadBytes) {}

void HttpConnection::Start() {
  error_code ignored;
  stream_.socket().set_option(asio::ip::tcp::no_delay(true), ignored);
  if (!stream_.has_handshake()) return ReadNext();
  LimitTime(shared_.limits.header_time);
  stream_.AsyncHandshake(
      Then([this](error_code failure, size_t) { failure ? Close() : ReadNext(); }));
}

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
  stream_.socket().close(ignored);
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
  // Not a wait for the socket: what TLS has read ahead is no event of it.
  stream_.async_read_some(buffer_.prepare(kMaxAheadBytes),
                          Then([this](error_code failure, size_t num_bytes) {
                            buffer_.commit(num_bytes);
                            failure ? Close() : ReadHead();
                          }));
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
  http::async_read_header(stream_, buffer_, *parser_,
                          Then([this](error_code failure, size_t) { TakeHead(failure); }));
}

void HttpConnection::TakeHead(error_code failure) {
  if (HttpStream::IsGone(failure) || failure == http::error::end_of_stream ||
      failure == http::error::partial_message)
    return Close();
  if (failure == http::error::header_limit || failure == http::error::buffer_overflow)
    return Refuse(431,
                  fmt::format("the header has more than {} bytes", shared_.limits.header_bytes));
  if (failure == http::error::body_limit)
    return Refuse(413, fmt::format("the body has more than {} bytes", shared_.limits.body_bytes));
  if (failure) return Refuse(400, "this is no HTTP/1.1 request: " + failure.message());
  WIDELOAD_CHECK(parser_, "nothing is being read");
  const auto& head = parser_->get();
  const std::string_view target(head.target().data(), head.target().size());
  request_.method = std::string(head.method_string());
  request_.path = std::string(PathOf(target));
  const size_t path_end = std::min(target.find('?'), target.size());
  request_.query = std::string(target.substr(std::min(path_end + 1, target.size())));
  request_.authorization = std::string(head[http::field::authorization]);
  request_.origin = std::string(head[http::field::origin]);
  keep_alive_ = head.keep_alive();
  is_http_1_0_ = head.version() < 11;
  if (const auto [status, wrong] = WrongHead(head); status != 0) return Refuse(status, wrong);
  if (auto refusal = shared_.handlers.check(request_)) {
    must_linger_ = !parser_->is_done();
    return RespondAndClose(*refusal);
  }
  if (!is_http_1_0_ && head.count(http::field::expect) > 0 && !parser_->is_done()) {
    // It is short and the first thing sent: a client that does not take it is none.
    error_code unsent;
    const std::string_view go_on = "HTTP/1.1 100 Continue\r\n\r\n";
    stream_.SendNow(asio::buffer(go_on.data(), go_on.size()), unsent);
    if (unsent) return Close();
  }
  ReadBody();
}

void HttpConnection::ReadBody() {
  WIDELOAD_CHECK(parser_, "nothing is being read");
  LimitTime(shared_.limits.body_time);
  http::async_read(stream_, buffer_, *parser_,
                   Then([this](error_code failure, size_t) { TakeBody(failure); }));
}

void HttpConnection::TakeBody(error_code failure) {
  if (failure == http::error::body_limit)
    return Refuse(413, fmt::format("the body has more than {} bytes", shared_.limits.body_bytes));
  if (HttpStream::IsGone(failure) || failure == http::error::partial_message) return Close();
  if (failure) return Refuse(400, "the body is no HTTP: " + failure.message());
  ++timer_number_;
  timer_.cancel();
  WIDELOAD_CHECK(parser_, "nothing is being read");
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
  stream_.async_read_some(buffer_.prepare(room), Then([this](error_code failure, size_t num_bytes) {
                            is_watching_ = false;
                            buffer_.commit(num_bytes);
                            const bool is_done = has_ended_ && unsent_.empty();
                            if (is_done && (!failure || failure == asio::error::operation_aborted))
                              return ReadNext();
                            failure ? Close() : Watch();
                          }));
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

void HttpConnection::Respond(int64_t number, const HttpResponse& response) {
  if (!IsAnswering(number)) return;
  keep_alive_ = keep_alive_ && !shared_.is_draining;
  shared_.handlers.note(request_, response.status);
  std::string bytes = Head(response.status, response.content_type);
  for (const auto& [name, value] : response.headers)
    bytes += fmt::format("{}: {}\r\n", name, value);
  bytes += fmt::format("Content-Length: {}\r\n\r\n", response.body.size());
  if (request_.method != "HEAD") bytes += response.body;
  has_ended_ = true;
  Send(bytes);
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

void HttpConnection::Send(std::string_view bytes) {
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
  stream_.async_write_some(asio::buffer(*piece),
                           Then([this, piece](error_code failure, size_t sent) {
                             is_writing_ = false;
                             if (failure) return Close();
                             num_sent_ += sent;
                             if (num_sent_ > (1 << 20)) {
                               unsent_.erase(0, num_sent_);
                               num_sent_ = 0;
                             }
                             WriteSome();
                           }));
}

void HttpConnection::AnswerSent() {
  gone_ = {};
  if (must_linger_) return Linger();
  if (!keep_alive_) {
    stream_.EndSending();
    return Close();
  }
  // The watch, if there is one, goes on with the next request once it has ended.
  if (!is_watching_) return ReadNext();
  error_code ignored;
  stream_.socket().cancel(ignored);
}

// Closing while a request is still coming in would reset the connection before the client has seen
// the answer.
void HttpConnection::Linger() {
  if (state_ != State::kLingering) {
    state_ = State::kLingering;
    stream_.EndSending();
    LimitTime(std::chrono::seconds(2));
    buffer_.clear();
  }
  stream_.socket().async_read_some(
      buffer_.prepare(kMaxAheadBytes),
      Then([this](error_code failure, size_t) { failure ? Close() : Linger(); }));
}

}  // namespace wideload::serve
