#include "loadclient/http_client.h"

#include <boost/asio/basic_waitable_timer.hpp>
#include <boost/asio/connect.hpp>
#include <boost/asio/io_context.hpp>
#include <boost/asio/ip/tcp.hpp>
#include <boost/asio/post.hpp>
#include <boost/beast/core/flat_buffer.hpp>
#include <boost/beast/http.hpp>
#include <optional>

#include "base/error.h"
#include "config/number.h"

namespace wideload::loadclient {
namespace {

namespace asio = boost::asio;
namespace http = boost::beast::http;
using tcp = asio::ip::tcp;
using boost::system::error_code;

using Executor = asio::io_context::executor_type;
using Socket = asio::basic_stream_socket<tcp, Executor>;
using Resolver = asio::ip::basic_resolver<tcp, Executor>;
using Timer = asio::basic_waitable_timer<std::chrono::steady_clock,
                                         asio::wait_traits<std::chrono::steady_clock>, Executor>;

constexpr std::chrono::milliseconds kRest{100};  // between looks at what interrupts
constexpr uint32_t kMaxHeaderBytes = 64 << 10;

std::string Lowered(std::string text) {
  for (char& c : text)
    if (c >= 'A' && c <= 'Z') c = static_cast<char>(c - 'A' + 'a');
  return text;
}

}  // namespace

// A connection with what of it has been read ahead.
struct ClientConnection {
  explicit ClientConnection(asio::io_context& context) : socket(context) {}
  Socket socket;
  boost::beast::flat_buffer buffer;
};

// What the requests of a client share.
struct ClientShared {
  asio::io_context context{1};
  Resolver::results_type endpoints{};
  std::vector<std::unique_ptr<ClientConnection>> idle{};
};

// One request, kept alive by the handler of its operation.
class ClientCall : public std::enable_shared_from_this<ClientCall> {
 public:
  ClientCall(ClientShared& shared, ClientRequest request, std::string host, AnswerSink sink)
      : shared_(shared), sink_(std::move(sink)) {
    request_.method_string(request.method);
    request_.target(request.path);
    request_.version(11);
    request_.set(http::field::host, host);
    for (const auto& [name, value] : request.headers) request_.set(name, value);
    request_.body() = std::move(request.body);
    request_.prepare_payload();
  }

  void Start() {
    if (shared_.idle.empty()) return Connect();
    connection_ = std::move(shared_.idle.back());
    shared_.idle.pop_back();
    is_reused_ = true;
    Write();
  }

 private:
  template <class Act>
  auto Then(Act act) {
    return [self = shared_from_this(), act = std::move(act)](const error_code& failure,
                                                             const auto&...) { act(failure); };
  }
  void Connect() {
    is_reused_ = false;
    connection_ = std::make_unique<ClientConnection>(shared_.context);
    asio::async_connect(connection_->socket, shared_.endpoints,
                        Then([this](const error_code& failure) {
                          if (failure) return Fail(failure);
                          error_code ignored;
                          connection_->socket.set_option(tcp::no_delay(true), ignored);
                          Write();
                        }));
  }
  void Write() {
    parser_.emplace();
    parser_->header_limit(kMaxHeaderBytes);
    parser_->body_limit(boost::none);
    http::async_write(connection_->socket, request_, Then([this](const error_code& failure) {
                        failure ? Fail(failure) : ReadHead();
                      }));
  }
  void ReadHead() {
    http::async_read_header(connection_->socket, connection_->buffer, *parser_,
                            Then([this](const error_code& failure) {
                              if (failure) return Fail(failure);
                              has_head_ = true;
                              const int status = static_cast<int>(parser_->get().result_int());
                              if (Told([&] { sink_.head(status); })) ReadBody();
                            }));
  }
  void ReadBody() {
    if (parser_->is_done()) return Finish();
    http::async_read_some(connection_->socket, connection_->buffer, *parser_,
                          Then([this](const error_code& failure) {
                            std::string& body = parser_->get().body();
                            const bool goes_on = body.empty() || Told([&] { sink_.body(body); });
                            body.clear();
                            if (!goes_on) return;
                            failure ? Fail(failure) : ReadBody();
                          }));
  }
  void Finish() {
    if (parser_->get().keep_alive()) shared_.idle.push_back(std::move(connection_));
    sink_.end("");
  }
  // A server may end a connection while the next request on it is being sent: that one has not
  // been read, and goes out again.
  void Fail(const error_code& failure) {
    if (is_reused_ && !has_head_) return Connect();
    End(failure == http::error::end_of_stream || failure == asio::error::eof ||
                failure == http::error::partial_message
            ? "connection ended early"
            : Lowered(failure.message()));
  }
  void End(const std::string& error) {
    connection_.reset();
    sink_.end(error);
  }
  // False when the sink has thrown, and the request is at its end.
  template <class Tell>
  bool Told(Tell tell) {
    try {
      tell();
      return true;
    } catch (const std::exception& thrown) {
      End(thrown.what());
      return false;
    }
  }

  ClientShared& shared_;
  http::request<http::string_body> request_;
  AnswerSink sink_;
  std::unique_ptr<ClientConnection> connection_;
  std::optional<http::response_parser<http::string_body>> parser_;
  bool is_reused_ = false;
  bool has_head_ = false;
};

ServerAddress ParseUrl(const std::string& url, const std::string& flag) {
  constexpr std::string_view kScheme = "http://";
  const auto refuse = [&] {
    Throw(ErrorKind::kInvalid, "{} is {}; allowed: http://HOST[:PORT][/PATH]", flag, url);
  };
  if (!url.starts_with(kScheme)) refuse();
  std::string rest = url.substr(kScheme.size());
  ServerAddress address;
  if (const size_t slash = rest.find('/'); slash != std::string::npos) {
    address.path = rest.substr(slash);
    rest.resize(slash);
    while (address.path.ends_with('/')) address.path.pop_back();
  }
  const size_t colon = rest.rfind(':');
  if (colon != std::string::npos && rest.find(']', colon) == std::string::npos) {
    address.port = config::ParseNumber<int32_t>(flag + "'s port", rest.substr(colon + 1),
                                                {.min = 1, .max = 65535});
    rest.resize(colon);
  }
  if (rest.starts_with('[') && rest.ends_with(']')) rest = rest.substr(1, rest.size() - 2);
  if (rest.empty() || rest.find_first_of("@? #") != std::string::npos) refuse();
  address.host = rest;
  return address;
}

class HttpClient::Impl {
 public:
  explicit Impl(const ServerAddress& server) : server_(server) {
    const bool is_v6 = server.host.find(':') != std::string::npos;
    host_ = (is_v6 ? "[" + server.host + "]" : server.host) + ":" + std::to_string(server.port);
    error_code failure;
    Resolver resolver(shared_.context);
    shared_.endpoints = resolver.resolve(server.host, std::to_string(server.port), failure);
    if (failure || shared_.endpoints.empty())
      Throw(ErrorKind::kInvalid, "the host {} is not known: {}", server.host, failure.message());
  }
  void Send(ClientRequest request, AnswerSink sink) {
    request.path = server_.path + request.path;
    auto call = std::make_shared<ClientCall>(shared_, std::move(request), host_, std::move(sink));
    asio::post(shared_.context, [call = std::move(call)] { call->Start(); });
  }
  void At(Clock::time_point when, std::function<void()> act) {
    // Owner: the handler.
    auto timer = std::make_shared<Timer>(shared_.context);
    timer->expires_at(when);
    timer->async_wait([timer, act = std::move(act)](const error_code& failure) {
      if (!failure) act();
    });
  }
  bool Run(const std::function<bool()>& is_interrupted) {
    shared_.context.restart();
    while (!shared_.context.stopped()) {
      shared_.context.run_for(kRest);
      if (is_interrupted()) return false;
    }
    return true;
  }

 private:
  ServerAddress server_;
  std::string host_;  // of the header
  ClientShared shared_;
};

HttpClient::HttpClient(const ServerAddress& server) : impl_(std::make_unique<Impl>(server)) {}
HttpClient::~HttpClient() = default;
void HttpClient::Send(ClientRequest request, AnswerSink sink) {
  impl_->Send(std::move(request), std::move(sink));
}
void HttpClient::At(Clock::time_point when, std::function<void()> act) {
  impl_->At(when, std::move(act));
}
bool HttpClient::Run(const std::function<bool()>& is_interrupted) {
  return impl_->Run(is_interrupted);
}

}  // namespace wideload::loadclient
