// Against a server that answers what the test says, byte by byte.
#include "loadclient/http_client.h"

#include <arpa/inet.h>
#include <gtest/gtest.h>
#include <netinet/in.h>
#include <sys/socket.h>
#include <unistd.h>

#include <thread>

#include "base/error.h"
#include "base/thread_pool.h"

namespace wideload::loadclient {
namespace {

// For each connection the answers to its requests, in turns; then it is closed.
class ScriptedServer {
 public:
  explicit ScriptedServer(std::vector<std::vector<std::string>> connections) {
    sockaddr_in address{};
    address.sin_family = AF_INET;
    address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    listener_ = ::socket(AF_INET, SOCK_STREAM, 0);
    EXPECT_EQ(::bind(listener_, reinterpret_cast<const sockaddr*>(&address), sizeof address), 0);
    EXPECT_EQ(::listen(listener_, 8), 0);
    socklen_t size = sizeof address;
    ::getsockname(listener_, reinterpret_cast<sockaddr*>(&address), &size);
    port_ = ntohs(address.sin_port);
    thread_ = StartThread("scripted", [this, connections = std::move(connections)] {
      for (const auto& answers : connections) Serve(answers);
    });
  }
  ~ScriptedServer() {
    thread_.join();
    ::close(listener_);
  }
  ServerAddress address() const { return {.host = "127.0.0.1", .port = port_, .path = ""}; }

 private:
  void Serve(const std::vector<std::string>& answers) const {
    const int fd = ::accept(listener_, nullptr, nullptr);
    for (const std::string& answer : answers) {
      std::string request;
      char byte = 0;
      while (!request.ends_with("\r\n\r\n") && ::recv(fd, &byte, 1, 0) == 1) request += byte;
      EXPECT_EQ(::send(fd, answer.data(), answer.size(), MSG_NOSIGNAL),
                static_cast<ssize_t>(answer.size()));
    }
    ::close(fd);
  }

  int listener_ = -1;
  int port_ = 0;
  std::jthread thread_;
};

// What came of requests that follow each other: "STATUS body(error)".
std::vector<std::string> AskAll(const ServerAddress& address, size_t count) {
  HttpClient client(address);
  std::vector<std::string> outcomes(count);
  const std::function<void(size_t)> ask = [&](size_t i) {
    if (i == count) return;
    client.Send({.method = "GET", .path = "/"},
                {.head = [&, i](int status) { outcomes[i] += std::to_string(status) + " "; },
                 .body = [&, i](std::string_view bytes) { outcomes[i] += bytes; },
                 .end =
                     [&, i](const std::string& error) {
                       outcomes[i] += "(" + error + ")";
                       ask(i + 1);
                     }});
  };
  ask(0);
  EXPECT_TRUE(client.Run([] { return false; }));
  return outcomes;
}

constexpr char kAnswer[] = "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nab";

TEST(HttpClient, UsesAConnectionAgain) {
  ScriptedServer server({{kAnswer, kAnswer, kAnswer}});
  EXPECT_EQ(AskAll(server.address(), 3), std::vector<std::string>(3, "200 ab()"));
}

TEST(HttpClient, SendsAgainWhatAConnectionThatHasEndedDidNotAnswer) {
  ScriptedServer server({{kAnswer, ""}, {kAnswer}});
  EXPECT_EQ(AskAll(server.address(), 2), std::vector<std::string>(2, "200 ab()"));
}

TEST(HttpClient, LeavesAConnectionThatIsToEnd) {
  ScriptedServer server({{"HTTP/1.1 200 OK\r\nConnection: close\r\n\r\nto the end"}, {kAnswer}});
  EXPECT_EQ(AskAll(server.address(), 2),
            (std::vector<std::string>{"200 to the end()", "200 ab()"}));
}

TEST(HttpClient, SaysWhatIsWrongWithAnAnswer) {
  ScriptedServer server({{"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nab"},
                         {"HTTP/1.1 200 OK\r\nContent-Length: 900000000000000000\r\n\r\nab"},
                         {"SSH-2.0\r\n\r\n"}});
  EXPECT_EQ(AskAll(server.address(), 3),
            (std::vector<std::string>{"200 ab(connection ended early)",
                                      "200 ab(connection ended early)", "(bad version)"}));
}

TEST(HttpClient, EndsARequestWithWhatItsSinkThrows) {
  ScriptedServer server({{kAnswer}});
  HttpClient client(server.address());
  std::string error;
  client.Send({.method = "GET", .path = "/"},
              {.head = [](int) {},
               .body = [](std::string_view) { Throw(ErrorKind::kCorrupt, "no event"); },
               .end = [&](const std::string& told) { error = told; }});
  EXPECT_TRUE(client.Run([] { return false; }));
  EXPECT_EQ(error, "no event");
}

TEST(ParseUrl, TakesHostPortAndPath) {
  const ServerAddress plain = ParseUrl("http://a.b", "--base-url");
  EXPECT_EQ(plain.host, "a.b");
  EXPECT_EQ(plain.port, 80);
  const ServerAddress all = ParseUrl("http://[::1]:8000/v1/", "--base-url");
  EXPECT_EQ(all.host, "::1");
  EXPECT_EQ(all.port, 8000);
  EXPECT_EQ(all.path, "/v1");
  for (const char* url : {"https://a", "http://", "http://a:0", "http://a:x", "http://u@a", "a"})
    EXPECT_THROW(ParseUrl(url, "--base-url"), Error) << url;
}

}  // namespace
}  // namespace wideload::loadclient
