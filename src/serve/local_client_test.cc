// Against a server that answers what the test says, byte by byte, on a local socket.
#include "serve/local_client.h"

#include <fmt/format.h>
#include <gtest/gtest.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include <future>
#include <thread>

#include "base/thread_pool.h"

namespace wideload::serve {
namespace {

// One answer for each connection, in turns; then it is closed.
class ScriptedServer {
 public:
  ScriptedServer(const std::string& name, std::vector<std::string> answers) {
    sockaddr_un address{};
    address.sun_family = AF_UNIX;
    name.copy(address.sun_path + 1, sizeof address.sun_path - 1);
    const auto size = static_cast<socklen_t>(offsetof(sockaddr_un, sun_path) + 1 + name.size());
    listener_ = ::socket(AF_UNIX, SOCK_STREAM, 0);
    EXPECT_EQ(::bind(listener_, reinterpret_cast<const sockaddr*>(&address), size), 0);
    EXPECT_EQ(::listen(listener_, 8), 0);
    thread_ = StartThread("scripted", [this, answers = std::move(answers)] {
      for (const std::string& answer : answers) Answer(answer);
    });
  }
  ~ScriptedServer() {
    if (thread_.joinable()) thread_.join();
    ::close(listener_);
  }

  // Once it has answered all.
  const std::vector<std::string>& Requests() {
    thread_.join();
    return requests_;
  }

 private:
  void Answer(const std::string& answer) {
    const int fd = ::accept(listener_, nullptr, nullptr);
    std::string request;
    char buffer[4096];
    while (request.find("\r\n\r\n") == std::string::npos) {
      const ssize_t n = ::recv(fd, buffer, sizeof buffer, 0);
      if (n <= 0) break;
      request.append(buffer, static_cast<size_t>(n));
    }
    requests_.push_back(request);
    EXPECT_EQ(::send(fd, answer.data(), answer.size(), MSG_NOSIGNAL),
              static_cast<ssize_t>(answer.size()));
    ::close(fd);
  }

  int listener_ = -1;
  std::vector<std::string> requests_;
  std::jthread thread_;
};

struct Outcome {
  std::string calls;  // in their order
  HttpResponse whole;
};

class LocalClientTest : public testing::Test {
 protected:
  static LocalSocket SocketOf(const char* name) {
    return {.name = fmt::format("wideload-local-client-test-{}-{}", ::getpid(), name)};
  }
  // What came of one request.
  Outcome Ask(const LocalSocket& socket, const HttpRequest& request) {
    Outcome outcome;
    std::promise<void> ended;
    const auto end = [&](const char* how) {
      outcome.calls += how;
      ended.set_value();
    };
    client_.Post([&] {
      call_ =
          client_.Ask(socket, request,
                      {.whole =
                           [&](HttpResponse response) {
                             outcome.whole = std::move(response);
                             end("whole");
                           },
                       .begun = [&](const std::string& type) { outcome.calls += type + "|"; },
                       .piece = [&](std::string_view piece) { outcome.calls += piece; },
                       .ended = [&] { end("|ended"); },
                       .lost = [&](bool was_taken) { end(was_taken ? "|lost" : "|not taken"); }});
    });
    ended.get_future().wait();
    return outcome;
  }

  std::shared_ptr<HttpCall> call_;
  LocalClient client_;
};

TEST_F(LocalClientTest, GivesAWholeAnswerWithoutWhatIsSaidAnew) {
  const LocalSocket socket = SocketOf("whole");
  ScriptedServer server(socket.name,
                        {"HTTP/1.1 429 Too Many Requests\r\ncontent-type: application/json\r\n"
                         "Retry-After: 2\r\nConnection: close\r\nContent-Length: 2\r\n\r\n{}"});
  const Outcome outcome = Ask(socket, {.method = "POST",
                                       .path = "/v1/completions",
                                       .query = "a=b",
                                       .authorization = "Bearer key",
                                       .origin = {},
                                       .body = "{}"});
  const std::string request = server.Requests().front();
  EXPECT_EQ(outcome.calls, "whole");
  EXPECT_EQ(outcome.whole.status, 429);
  EXPECT_EQ(outcome.whole.content_type, "application/json");
  EXPECT_EQ(outcome.whole.body, "{}");
  ASSERT_EQ(outcome.whole.headers.size(), 1U);
  EXPECT_EQ(outcome.whole.headers[0].second, "2");
  EXPECT_TRUE(request.starts_with("POST /v1/completions?a=b HTTP/1.1\r\n")) << request;
  EXPECT_NE(request.find("Authorization: Bearer key\r\n"), std::string::npos) << request;
}

TEST_F(LocalClientTest, HandsAStreamOnAsItComes) {
  const LocalSocket socket = SocketOf("stream");
  ScriptedServer server(
      socket.name, {"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\n"
                    "Transfer-Encoding: chunked\r\n\r\n8\r\ndata: a\n\r\n1\r\n\n\r\n0\r\n\r\n"});
  EXPECT_EQ(Ask(socket, {.method = "GET", .path = "/"}).calls,
            "text/event-stream|data: a\n\n|ended");
}

TEST_F(LocalClientTest, SaysThatAnAnswerWasLost) {
  const LocalSocket socket = SocketOf("lost");
  const std::string head =
      "HTTP/1.1 200 OK\r\nContent-Type: a\r\nTransfer-Encoding: chunked\r\n\r\n";
  ScriptedServer server(socket.name, {"", "HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nab",
                                      head + "3\r\nabc\r\n", head + "zz\r\n", "SSH-2.0\r\n\r\n"});
  EXPECT_EQ(Ask(socket, {.method = "GET", .path = "/"}).calls, "|lost");
  EXPECT_EQ(Ask(socket, {.method = "GET", .path = "/"}).calls, "|lost");
  EXPECT_EQ(Ask(socket, {.method = "GET", .path = "/"}).calls, "a|abc|lost");
  EXPECT_EQ(Ask(socket, {.method = "GET", .path = "/"}).calls, "a||lost");
  EXPECT_EQ(Ask(socket, {.method = "GET", .path = "/"}).calls, "|lost");
}

TEST_F(LocalClientTest, SaysThatNobodyListens) {
  EXPECT_FALSE(IsListening(SocketOf("nobody")));
  EXPECT_EQ(Ask(SocketOf("nobody"), {.method = "GET", .path = "/"}).calls, "|not taken");
}

// A sink may break its request off: nothing more is told.
TEST_F(LocalClientTest, TellsNothingAfterACancel) {
  const LocalSocket socket = SocketOf("cancel");
  std::promise<void> cancelled;
  {
    ScriptedServer server(socket.name,
                          {"HTTP/1.1 200 OK\r\nContent-Type: a\r\nTransfer-Encoding: chunked\r\n"
                           "\r\n3\r\nabc\r\n0\r\n\r\n"});
    client_.Post([&] {
      const auto fail = [] { ADD_FAILURE() << "told after a cancel"; };
      call_ = client_.Ask(socket, {.method = "GET", .path = "/"},
                          {.whole = [fail](const HttpResponse&) { fail(); },
                           .begun =
                               [&](const std::string&) {
                                 LocalClient::Cancel(*call_);
                                 cancelled.set_value();
                               },
                           .piece = [fail](std::string_view) { fail(); },
                           .ended = fail,
                           .lost = [fail](bool) { fail(); }});
    });
    cancelled.get_future().wait();
  }
  std::promise<void> behind;
  client_.Post([&] { behind.set_value(); });
  behind.get_future().wait();
}

}  // namespace
}  // namespace wideload::serve
