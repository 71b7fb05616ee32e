#include "serve/http_server.h"

#include <cstring>
#include <thread>

#include "base/error.h"
#include "base/log.h"
#include "base/thread_pool.h"
#include "serve/http_connection.h"

namespace wideload::serve {
namespace {

using Protocol = asio::generic::stream_protocol;
using Acceptor = asio::basic_socket_acceptor<Protocol, Executor>;

}  // namespace

HttpExchange::HttpExchange(std::shared_ptr<HttpConnection> connection, int64_t number,
                           HttpRequest request)
    : connection_(std::move(connection)),
      number_(number),
      request_(std::make_shared<const HttpRequest>(std::move(request))) {}

void HttpExchange::Respond(HttpResponse response) const {
  connection_->Post([c = connection_, n = number_, response = std::move(response)]() mutable {
    c->Respond(n, response);
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
  Impl(const std::string& host, int port, const HttpLimits& limits,
       const std::optional<TlsFiles>& tls)
      : acceptor_(shared_.context), retry_(shared_.context) {
    shared_.limits = limits;
    if (tls) shared_.tls = OpenTls(*tls);
    Bind(host, port);
  }
  Impl(const LocalSocket& socket, const HttpLimits& limits)
      : is_local_(true), acceptor_(shared_.context), retry_(shared_.context) {
    shared_.limits = limits;
    error_code failure;
    const Protocol::endpoint endpoint = EndpointOf(socket);
    acceptor_.open(endpoint.protocol(), failure);
    if (!failure) acceptor_.bind(endpoint, failure);
    if (failure)
      Throw(ErrorKind::kIo, "the socket {} cannot be taken: {}", socket.name, failure.message());
  }

  int port() const { return port_; }
  void Start(HttpHandlers handlers) {
    shared_.handlers = std::move(handlers);
    error_code failure;
    acceptor_.listen(asio::socket_base::max_listen_connections, failure);
    if (failure) Throw(ErrorKind::kIo, "cannot listen on port {}: {}", port_, failure.message());
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
  void AcceptLater();
  void TakeClient(Socket socket);
  void Run();

  HttpShared shared_;
  bool is_local_ = false;
  int port_ = 0;
  Acceptor acceptor_;
  Timer retry_;
  std::jthread thread_;
};

void HttpServer::Impl::Bind(const std::string& host, int port) {
  error_code failure;
  asio::ip::basic_resolver<asio::ip::tcp, Executor> resolver(shared_.context);
  const auto found = resolver.resolve(host, std::to_string(port), failure);
  if (failure || found.empty())
    Throw(ErrorKind::kInvalid, "--host is {}, which is no address of this machine: {}", host,
          failure.message());
  const Protocol::endpoint endpoint = found.begin()->endpoint();
  acceptor_.open(endpoint.protocol(), failure);
  if (!failure) acceptor_.set_option(asio::socket_base::reuse_address(true), failure);
  if (!failure) acceptor_.bind(endpoint, failure);
  if (failure)
    Throw(ErrorKind::kIo, "--host {} --port {} cannot be taken: {}", host, port, failure.message());
  const Protocol::endpoint taken = acceptor_.local_endpoint();
  asio::ip::tcp::endpoint address;
  address.resize(taken.size());
  std::memcpy(address.data(), taken.data(), taken.size());
  port_ = address.port();
}

// What taking one client throws, memory that has run out for one, leaves the next ones alone.
void HttpServer::Impl::Accept() {
  acceptor_.async_accept([this](error_code failure, Socket socket) {
    if (failure == asio::error::operation_aborted || !acceptor_.is_open()) return;
    if (failure) return AcceptLater();  // no descriptors left, for one
    try {
      TakeClient(std::move(socket));
      Accept();
    } catch (const std::exception& thrown) {
      LogWarn("http: a client is not taken: {}", thrown.what());
      AcceptLater();
    }
  });
}

void HttpServer::Impl::AcceptLater() {
  retry_.expires_after(std::chrono::milliseconds(100));
  retry_.async_wait([this](error_code ended) {
    if (!ended) Accept();
  });
}

void HttpServer::Impl::TakeClient(Socket socket) {
  if (is_local_ && !IsOfThisUser(socket)) return;
  if (shared_.num_connections >= shared_.limits.max_connections) {
    if (shared_.tls != nullptr) return;  // telling it would take a handshake
    error_code ignored;
    socket.non_blocking(true, ignored);
    const std::string text =
        StatusLine(503) + "Retry-After: 1\r\nContent-Length: 0\r\nConnection: close\r\n\r\n";
    socket.write_some(asio::buffer(text), ignored);
    return;
  }
  auto connection = std::make_shared<HttpConnection>(shared_, std::move(socket));
  ++shared_.num_connections;
  shared_.connections.insert(connection);
  connection->Start();
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

HttpServer::HttpServer(const std::string& host, int port, const HttpLimits& limits,
                       const std::optional<TlsFiles>& tls)
    : impl_(std::make_unique<Impl>(host, port, limits, tls)) {}
HttpServer::HttpServer(const LocalSocket& socket, const HttpLimits& limits)
    : impl_(std::make_unique<Impl>(socket, limits)) {}
HttpServer::~HttpServer() { Stop(); }
int HttpServer::port() const { return impl_->port(); }
void HttpServer::Start(HttpHandlers handlers) { impl_->Start(std::move(handlers)); }
void HttpServer::Stop() { impl_->Stop(); }
void HttpServer::Drain() { impl_->Drain(); }
int64_t HttpServer::num_connections() const { return impl_->num_connections(); }

}  // namespace wideload::serve
