#include "http/response_reader.h"

#include <gtest/gtest.h>

#include <stdexcept>

namespace wideload::http {
namespace {

// What a reader made of a text.
struct Reading {
  ResponseHead head;
  int num_heads = 0;
  std::string body;
  bool is_right = true;  // of Feed, or End where the connection has ended
  bool is_done = false;
  bool keeps_alive = false;
  std::string rest;
  std::string error;
};

Reading Read(std::string_view text, size_t piece, bool has_ended = false) {
  Reading reading;
  ResponseReader reader;
  const auto head = [&](const ResponseHead& told) {
    reading.head = told;
    ++reading.num_heads;
  };
  const auto body = [&](std::string_view bytes) {
    EXPECT_EQ(reading.num_heads, 1);
    reading.body += bytes;
  };
  for (size_t at = 0; at < text.size() && reading.is_right; at += piece)
    reading.is_right = reader.Feed(text.substr(at, piece), {head, body});
  if (has_ended && reading.is_right) reading.is_right = reader.End();
  reading.is_done = reader.is_done();
  reading.keeps_alive = reader.keeps_alive();
  reading.rest = reader.rest();
  reading.error = reader.error();
  return reading;
}

constexpr size_t kPieces[] = {1, 2, 3, 7, 16, 1000000};

TEST(ResponseReader, TakesABodyOfKnownLength) {
  for (const size_t piece : kPieces) {
    const Reading reading =
        Read("HTTP/1.1 429 Too Many Requests\r\nRetry-After: 3\r\nContent-Length: 5\r\n\r\nlater",
             piece);
    EXPECT_EQ(reading.head.status, 429);
    EXPECT_EQ(reading.head.Find("retry-after"), "3");
    EXPECT_EQ(reading.head.Find("server"), "");
    EXPECT_FALSE(reading.head.is_chunked);
    EXPECT_EQ(reading.body, "later");
    EXPECT_TRUE(reading.is_right && reading.is_done && reading.keeps_alive) << piece;
  }
}

TEST(ResponseReader, TakesChunksApart) {
  for (const size_t piece : kPieces) {
    const Reading reading = Read(
        "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"
        "6\r\ndata: \r\nA;x=y\r\n0123456789\r\n0\r\nAfter: all\r\n\r\n",
        piece);
    EXPECT_TRUE(reading.head.is_chunked);
    EXPECT_EQ(reading.body, "data: 0123456789") << piece;
    EXPECT_TRUE(reading.is_right && reading.is_done && reading.keeps_alive) << piece;
  }
}

TEST(ResponseReader, TakesABodyThatEndsWithTheConnection) {
  const std::string text = "HTTP/1.0 200 OK\r\n\r\n" + std::string(100'000, 'x');
  const Reading open = Read(text, 5000);
  EXPECT_EQ(open.body.size(), 100'000U);
  EXPECT_FALSE(open.is_done);
  const Reading reading = Read(text, 5000, true);
  EXPECT_EQ(reading.body, std::string(100'000, 'x'));
  EXPECT_TRUE(reading.is_right && reading.is_done);
  EXPECT_FALSE(reading.keeps_alive);
}

TEST(ResponseReader, SaysWhenTheConnectionEndsTooEarly) {
  const std::string texts[] = {"", "HTTP/1.1 200 O",
                               "HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nlat",
                               "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n4\r\n0123\r\n",
                               "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n4\r\n01"};
  for (const std::string& text : texts) {
    const Reading reading = Read(text, 4, true);
    EXPECT_FALSE(reading.is_right) << text;
    EXPECT_FALSE(reading.is_done) << text;
  }
}

TEST(ResponseReader, RefusesWhatIsNoResponse) {
  const std::string head = "HTTP/1.1 200 OK\r\n";
  const std::string texts[] = {"GET / HTTP/1.1\r\n\r\n",
                               "HTTP/1.1 20 OK\r\n\r\n",
                               "SSH-2.0-a server\r\n\r\n",
                               head + "Content-Length: 4\r\nContent-Length: 5\r\n\r\n",
                               head + "Content-Length: -1\r\n\r\n",
                               head + "Content-Length: 99999999999999999999\r\n\r\n",
                               head + "Transfer-Encoding: chunked\r\n\r\n-4\r\n",
                               head + "Transfer-Encoding: chunked\r\n\r\nfffffffffffffffff\r\n",
                               head + "Transfer-Encoding: chunked\r\n\r\n2\r\nabc\r\n",
                               head + "Transfer-Encoding: chunked\r\n\r\n0\r\nno field\r\n",
                               head + "Transfer-Encoding: chunked\r\nContent-Length: 4\r\n\r\n",
                               head + " folded: 4\r\n\r\n",
                               head + "a b: 4\r\n\r\n",
                               head + "a: \x01\r\n\r\n",
                               "HTTP/1.1 101 Switching Protocols\r\n\r\n",
                               "HTTP/2.0 200 OK\r\n\r\n"};
  for (const std::string& text : texts)
    for (const size_t piece : kPieces) {
      const Reading reading = Read(text, piece);
      EXPECT_FALSE(reading.is_right) << text << piece;
      EXPECT_NE(reading.error, "") << text;
    }
}

// A server that says so of a body does not make the reader take so much memory.
TEST(ResponseReader, TakesNoMemoryForALengthThatIsOnlySaid) {
  const Reading reading =
      Read("HTTP/1.1 200 OK\r\nContent-Length: 900000000000000000\r\n\r\nab", 10, true);
  EXPECT_EQ(reading.body, "ab");
  EXPECT_FALSE(reading.is_right);
}

TEST(ResponseReader, LimitsHeadsAndFraming) {
  const std::string head = "HTTP/1.1 200 OK\r\n";
  const std::string long_text(100'000, 'a');
  for (const std::string& text : {head + "X: " + long_text + "\r\n\r\n",
                                  head + "Transfer-Encoding: chunked\r\n\r\n1;" + long_text})
    for (const size_t piece : {size_t{100}, size_t{1} << 20}) {
      const Reading reading = Read(text, piece);
      EXPECT_FALSE(reading.is_right) << piece;
      EXPECT_NE(reading.error, "");
    }
}

TEST(ResponseReader, SkipsWhatSaysThatAnotherOneComes) {
  for (const size_t piece : kPieces) {
    const Reading reading =
        Read("HTTP/1.1 100 Continue\r\nX: y\r\n\r\nHTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nab",
             piece);
    EXPECT_EQ(reading.num_heads, 1);
    EXPECT_EQ(reading.head.fields.size(), 1U);
    EXPECT_EQ(reading.body, "ab");
    EXPECT_TRUE(reading.is_done);
  }
}

TEST(ResponseReader, SaysWhetherTheConnectionMayBeUsedAgain) {
  const std::string length = "Content-Length: 1\r\n\r\na";
  EXPECT_TRUE(Read("HTTP/1.1 200 OK\r\n" + length, 9).keeps_alive);
  EXPECT_FALSE(Read("HTTP/1.1 200 OK\r\nConnection: x, Close\r\n" + length, 9).keeps_alive);
  EXPECT_FALSE(Read("HTTP/1.0 200 OK\r\n" + length, 9).keeps_alive);
  EXPECT_TRUE(Read("HTTP/1.0 200\r\nConnection: Keep-Alive\r\n" + length, 9).keeps_alive);
}

TEST(ResponseReader, LeavesWhatComesBehindTheEnd) {
  const Reading reading = Read("HTTP/1.1 204 No Content\r\n\r\nHTTP/1.1 200 OK\r\n", 1'000'000);
  EXPECT_TRUE(reading.is_done);
  EXPECT_EQ(reading.rest, "HTTP/1.1 200 OK\r\n");
  EXPECT_FALSE(reading.keeps_alive);
}

TEST(ResponseReader, LetsWhatASinkThrowsThrough) {
  ResponseReader reader;
  const auto head = [](const ResponseHead&) { throw std::runtime_error("no more"); };
  const auto body = [](std::string_view) {};
  EXPECT_THROW(reader.Feed("HTTP/1.1 200 OK\r\nContent-Length: 1\r\n\r\na", {head, body}),
               std::runtime_error);
}

}  // namespace
}  // namespace wideload::http
