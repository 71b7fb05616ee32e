// Limits of the server against clients that are slow, many or greedy; over real sockets, with
// limits so short that the server ends each of them at once.
#include "serve/http_server.h"

#include <arpa/inet.h>
#include <gtest/gtest.h>
#include <netinet/in.h>
#include <sys/socket.h>
#include <unistd.h>

#include <future>

#include "base/error.h"

namespace wideload::serve {
namespace {

constexpr std::chrono::milliseconds kShort{30};

class HttpServerTest : public testing::Test {
 protected:
  // Answers with the body; a request for /stream is kept for the test.
  void Start(const HttpLimits& limits) {
    server_.emplace("127.0.0.1", 0, limits);
    server_->Start({.check = [](const HttpRequest& request) -> std::optional<HttpResponse> {
                      if (request.path == "/no") return HttpResponse{.status = 404, .body = "no"};
                      return std::nullopt;
                    },
                    .handle =
                        [this](const HttpExchange& exchange) {
                          if (exchange.request().path == "/throw") throw std::bad_alloc();
                          if (exchange.request().path == "/throw-later")
                            return exchange.Post([] { throw std::bad_alloc(); });
                          if (exchange.request().path != "/stream")
                            return exchange.Respond({.body = exchange.request().body});
                          exchange.OnGone([this] { gone_.set_value(); });
                          stream_.set_value(exchange);
                        },
                    .refuse =
                        [](int status, const std::string& message) {
                          return HttpResponse{.status = status, .body = message};
                        },
                    .note = [](const HttpRequest&, int) {}});
  }
  void TearDown() override {
    stream_ = {};
    if (server_) server_->Stop();
  }

  HttpServer& server() {
    WIDELOAD_CHECK(server_, "it has not been started");
    return *server_;
  }
  int Connect() {
    const int fd = ::socket(AF_INET, SOCK_STREAM, 0);
    sockaddr_in address{};
    address.sin_family = AF_INET;
    address.sin_port = htons(static_cast<uint16_t>(server().port()));
    address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    EXPECT_EQ(::connect(fd, reinterpret_cast<const sockaddr*>(&address), sizeof(address)), 0);
    return fd;
  }
  static void Send(int fd, std::string_view text) {
    ASSERT_EQ(::send(fd, text.data(), text.size(), MSG_NOSIGNAL),
              static_cast<ssize_t>(text.size()));
  }
  // All that comes until the server closes.
  static std::string ReadAll(int fd) {
    std::string text;
    char buffer[4096];
    for (ssize_t n = 0; (n = ::recv(fd, buffer, sizeof(buffer), 0)) > 0;)
      text.append(buffer, static_cast<size_t>(n));
    ::close(fd);
    return text;
  }

  std::promise<HttpExchange> stream_;
  std::promise<void> gone_;
  std::optional<HttpServer> server_;
};

TEST_F(HttpServerTest, ClosesOnAHeaderThatDoesNotEnd) {
  Start({.header_time = kShort});
  const int fd = Connect();
  Send(fd, "GET / HTTP/1.1\r\nHost");
  EXPECT_EQ(ReadAll(fd), "");
}

TEST_F(HttpServerTest, ClosesWhereAnAnswerCannotBeMade) {
  Start({});
  for (const std::string path : {"/throw", "/throw-later"}) {
    const int fd = Connect();
    Send(fd, "GET " + path + " HTTP/1.1\r\nHost: x\r\n\r\n");
    EXPECT_EQ(ReadAll(fd), "");
  }
  const int fd = Connect();
  Send(fd, "GET / HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n");
  EXPECT_TRUE(ReadAll(fd).starts_with("HTTP/1.1 200 OK\r\n"));
}

TEST_F(HttpServerTest, ClosesOnABodyThatDoesNotCome) {
  Start({.body_time = kShort});
  const int fd = Connect();
  Send(fd, "POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 10\r\n\r\nabc");
  EXPECT_EQ(ReadAll(fd), "");
}

TEST_F(HttpServerTest, RefusesBodiesInCodingsThatItDoesNotRead) {
  Start({});
  for (const auto& [head, status] :
       {std::pair("Transfer-Encoding: gzip", "501"),
        std::pair("Transfer-Encoding: gzip, chunked", "501"),
        std::pair("Content-Encoding: gzip\r\nContent-Length: 3", "415")}) {
    const int fd = Connect();
    Send(fd, std::string("POST / HTTP/1.1\r\nHost: x\r\n") + head + "\r\n\r\nabc");
    ::shutdown(fd, SHUT_WR);
    // Nothing follows: what was not read is no request.
    const std::string answer = ReadAll(fd);
    EXPECT_TRUE(answer.starts_with(std::string("HTTP/1.1 ") + status)) << head << answer;
    EXPECT_EQ(answer.rfind("HTTP/1.1"), 0U) << answer;
  }
}

TEST_F(HttpServerTest, WantsOneHost) {
  Start({});
  for (const auto& [head, status] :
       {std::pair("1.1\r\n", "400"), std::pair("1.1\r\nHost: a\r\nhost: a\r\n", "400"),
        std::pair("1.0\r\nHost: a\r\nHost: b\r\n", "400"),
        std::pair("1.1\r\nConnection: close\r\nHost:\r\n", "200"), std::pair("1.0\r\n", "200")}) {
    const int fd = Connect();
    Send(fd, std::string("GET / HTTP/") + head + "\r\n");
    const std::string answer = ReadAll(fd);
    EXPECT_TRUE(answer.starts_with(std::string("HTTP/1.1 ") + status)) << head << answer;
  }
}

TEST_F(HttpServerTest, GoesOnWhereItIsAskedToAndExpectsNothingElse) {
  Start({});
  for (const auto& [head, begin] :
       {std::pair("1.1\r\nExpect: 100-Continue", "HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 200"),
        std::pair("1.1\r\nExpect: 200-ok", "HTTP/1.1 417"),
        std::pair("1.1\r\nExpect: 100-continue\r\nExpect: a", "HTTP/1.1 417"),
        // No client of HTTP/1.0 knows what it asks for.
        std::pair("1.0\r\nExpect: 100-continue", "HTTP/1.1 200"),
        std::pair("1.0\r\nExpect: a", "HTTP/1.1 200")}) {
    const int fd = Connect();
    Send(fd, std::string("POST / HTTP/") + head +
                 "\r\nHost: x\r\nConnection: close\r\nContent-Length: 2\r\n\r\n");
    Send(fd, "ab");
    const std::string answer = ReadAll(fd);
    EXPECT_TRUE(answer.starts_with(begin)) << head << answer;
  }
}

TEST_F(HttpServerTest, TakesTheTargetThatAProxyGets) {
  Start({});
  for (const std::string target : {"http://host:80/no?a=b", "https://host/no"}) {
    const int fd = Connect();
    Send(fd, "GET " + target + " HTTP/1.1\r\nHost: x\r\n\r\n");
    EXPECT_TRUE(ReadAll(fd).starts_with("HTTP/1.1 404")) << target;
  }
}

TEST_F(HttpServerTest, ClosesAnIdleConnectionAfterItsAnswer) {
  Start({.idle_time = kShort});
  const int fd = Connect();
  Send(fd, "POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 2\r\n\r\nab");
  const std::string answer = ReadAll(fd);
  EXPECT_TRUE(answer.starts_with("HTTP/1.1 200 OK\r\n")) << answer;
  EXPECT_TRUE(answer.ends_with("\r\n\r\nab")) << answer;
}

TEST_F(HttpServerTest, AReaderThatTakesNothingLosesItsConnection) {
  Start({.write_stall = kShort, .unsent_bytes = uint64_t{1} << 40});
  const int fd = Connect();
  Send(fd, "GET /stream HTTP/1.1\r\nHost: x\r\n\r\n");
  const HttpExchange exchange = stream_.get_future().get();
  exchange.BeginStream("text/plain");
  // More than the system's buffers hold.
  for (int i = 0; i < 64; ++i) exchange.Write(std::string(1 << 20, 'x'));
  gone_.get_future().get();
  ::close(fd);
}

TEST_F(HttpServerTest, AStreamKeepsNoMoreThanItsLimit) {
  Start({.unsent_bytes = 1 << 20});
  const int fd = Connect();
  Send(fd, "GET /stream HTTP/1.1\r\nHost: x\r\n\r\n");
  const HttpExchange exchange = stream_.get_future().get();
  exchange.BeginStream("text/plain");
  for (int i = 0; i < 1024; ++i) exchange.Write(std::string(1 << 16, 'x'));
  gone_.get_future().get();
  ::close(fd);
}

TEST_F(HttpServerTest, AClientThatGoesIsNoticed) {
  Start({});
  const int fd = Connect();
  Send(fd, "GET /stream HTTP/1.1\r\nHost: x\r\n\r\n");
  const HttpExchange exchange = stream_.get_future().get();
  ::close(fd);
  gone_.get_future().get();
  exchange.Respond({.body = "nobody reads this"});
}

TEST_F(HttpServerTest, MoreConnectionsThanAllowedAreTurnedAway) {
  Start({.max_connections = 1});
  const int first = Connect();
  Send(first, "GET /stream HTTP/1.1\r\nHost: x\r\n\r\n");
  stream_.get_future().get();
  EXPECT_TRUE(ReadAll(Connect()).starts_with("HTTP/1.1 503"));
  ::close(first);
  gone_.get_future().get();
}

TEST_F(HttpServerTest, ARefusalBeforeTheBodyReachesItsClient) {
  Start({});
  const int fd = Connect();
  Send(fd, "POST /no HTTP/1.1\r\nHost: x\r\nContent-Length: 1000000\r\n\r\n" +
               std::string(100'000, 'x'));
  ::shutdown(fd, SHUT_WR);
  EXPECT_TRUE(ReadAll(fd).starts_with("HTTP/1.1 404"));
}

TEST_F(HttpServerTest, DrainingEndsIdleConnectionsAndKeepsAnswersUnderWay) {
  Start({});
  const int busy = Connect();
  Send(busy, "GET /stream HTTP/1.1\r\nHost: x\r\n\r\n");
  const HttpExchange exchange = stream_.get_future().get();
  const int idle = Connect();
  server().Drain();
  EXPECT_EQ(ReadAll(idle), "");
  exchange.Respond({.body = "late"});
  const std::string answer = ReadAll(busy);
  EXPECT_TRUE(answer.ends_with("late")) << answer;
  EXPECT_NE(answer.find("Connection: close"), std::string::npos);
}

TEST_F(HttpServerTest, APortThatIsTakenIsRefused) {
  Start({});
  EXPECT_THROW(HttpServer("127.0.0.1", server().port(), {}).Start({}), Error);
  EXPECT_THROW(HttpServer("no.such.host.invalid", 0, {}), Error);
}

}  // namespace
}  // namespace wideload::serve
