#include "loadclient/http_client.h"

#include <array>
#include <boost/asio/basic_waitable_timer.hpp>
#include <boost/asio/connect.hpp>
#include <boost/asio/io_context.hpp>
#include <boost/asio/ip/tcp.hpp>
#include <boost/asio/post.hpp>
#include <boost/beast/http.hpp>
#include <optional>

#include "base/error.h"
#include "config/number.h"
#include "http/response_reader.h"

namespace wideload::loadclient {
namespace {

namespace asio = boost::asio;
namespace beast = boost::beast::http;
using tcp = asio::ip::tcp;
using boost::system::error_code;

using Executor = asio::io_context::executor_type;
using Socket = asio::basic_stream_socket<tcp, Executor>;
using Resolver = asio::ip::basic_resolver<tcp, Executor>;
using Timer = asio::basic_waitable_timer<std::chrono::steady_clock,
                                         asio::wait_traits<std::chrono::steady_clock>, Executor>;

constexpr std::chrono::milliseconds kRest{100};  // between looks at what interrupts

std::string Lowered(std::string text) {
  for (char& c : text)
    if (c >= 'A' && c <= 'Z') c = static_cast<char>(c - 'A' + 'a');
  return text;
}

}  // namespace

// A connection and where its bytes come in.
struct ClientConnection {
  explicit ClientConnection(asio::io_context& context) : socket(context) {}
  Socket socket;
  std::array<char, 16384> bytes{};
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
    request_.set(beast::field::host, host);
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
                          if (failure) return Fail(failure.message());
                          error_code ignored;
                          connection_->socket.set_option(tcp::no_delay(true), ignored);
                          Write();
                        }));
  }
  void Write() {
    reader_.emplace();
    beast::async_write(connection_->socket, request_, Then([this](const error_code& failure) {
                         failure ? Fail(failure.message()) : Read();
                       }));
  }
  void Read() {
    connection_->socket.async_read_some(
        asio::buffer(connection_->bytes),
        [self = shared_from_this()](const error_code& failure, size_t num_bytes) {
          failure ? self->TakeEnd(failure) : self->Take(num_bytes);
        });
  }
  // What a sink throws ends the request.
  void Take(size_t num_bytes) {
    bool is_right = false;
    try {
      is_right = reader_->Feed({connection_->bytes.data(), num_bytes},
                               {[this](const http::ResponseHead& head) { sink_.head(head.status); },
                                [this](std::string_view bytes) { sink_.body(bytes); }});
    } catch (const std::exception& thrown) {
      return End(thrown.what());
    }
    if (!is_right) return Fail(reader_->error());
    reader_->is_done() ? Finish() : Read();
  }
  void TakeEnd(const error_code& failure) {
    if (failure != asio::error::eof) return Fail(failure.message());
    reader_->End() ? Finish() : Fail("connection ended early");
  }
  void Finish() {
    if (reader_->keeps_alive()) shared_.idle.push_back(std::move(connection_));
    sink_.end("");
  }
  // A server may end a connection while the next request on it is being sent: that one has not
  // been read, and goes out again.
  void Fail(const std::string& failure) {
    if (is_reused_ && !reader_->has_head()) return Connect();
    End(Lowered(failure));
  }
  void End(const std::string& error) {
    connection_.reset();
    sink_.end(error);
  }

  ClientShared& shared_;
  beast::request<beast::string_body> request_;
  AnswerSink sink_;
  std::unique_ptr<ClientConnection> connection_;
  std::optional<http::ResponseReader> reader_;  // from the first write on
  bool is_reused_ = false;
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
