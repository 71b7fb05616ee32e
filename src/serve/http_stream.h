// The bytes of one client's connection, plain or through TLS: a stream as Boost.Asio and Beast know
// them. On the server's thread; at most one read and one write at a time.
#pragma once

#include <boost/asio/basic_stream_socket.hpp>
#include <boost/asio/generic/stream_protocol.hpp>
#include <boost/asio/io_context.hpp>
#include <boost/asio/ip/tcp.hpp>
#include <boost/asio/ssl/error.hpp>
#include <boost/asio/ssl/stream.hpp>
#include <optional>
#include <utility>

#include "base/error.h"

namespace wideload::serve {

namespace asio = boost::asio;
using boost::system::error_code;

// The library's general types cost a call through a pointer for each operation.
using Executor = asio::io_context::executor_type;
// A connection below HTTP and TLS, by TCP or within the machine.
using Socket = asio::basic_stream_socket<asio::generic::stream_protocol, Executor>;

class HttpStream {
 public:
  using executor_type = Executor;  // NOLINT(readability-identifier-naming): the library's name

  // `tls`: what TLS starts from, which must outlive this object; null: bytes are plain.
  HttpStream(Socket socket, asio::ssl::context* tls) : socket_(std::move(socket)) {
    if (tls != nullptr) tls_.emplace(socket_, *tls);
  }
  HttpStream(const HttpStream&) = delete;
  HttpStream& operator=(const HttpStream&) = delete;

  // The connection below.
  Socket& socket() { return socket_; }
  // Of the one thread; the library's name.
  executor_type get_executor() { return socket_.get_executor(); }

  // The first thing to do where bytes are not plain.
  bool has_handshake() const { return tls_.has_value(); }
  // handler(error), once both sides have agreed on keys.
  template <class Handler>
  void AsyncHandshake(Handler&& handler) {
    WIDELOAD_CHECK(tls_, "bytes are plain");
    tls_->async_handshake(asio::ssl::stream_base::server, std::forward<Handler>(handler));
  }

  // As the socket's function of this name: some bytes, at least one.
  template <class Buffers, class Handler>
  void async_read_some(const Buffers& buffers, Handler&& handler) {
    if (tls_) return tls_->async_read_some(buffers, std::forward<Handler>(handler));
    socket_.async_read_some(buffers, std::forward<Handler>(handler));
  }
  // The same for what is sent.
  template <class Buffers, class Handler>
  void async_write_some(const Buffers& buffers, Handler&& handler) {
    if (tls_) return tls_->async_write_some(buffers, std::forward<Handler>(handler));
    socket_.async_write_some(buffers, std::forward<Handler>(handler));
  }

  // Sends a few bytes if they can go at once.
  void SendNow(asio::const_buffer bytes, error_code& failure) {
    socket_.non_blocking(true, failure);
    if (failure) return;
    tls_ ? tls_->write_some(bytes, failure) : socket_.write_some(bytes, failure);
  }

  // Tells the client that nothing follows, if that can go at once. Nothing is written afterwards,
  // and what is read is that of the socket.
  void EndSending() {
    error_code ignored;
    socket_.non_blocking(true, ignored);
    if (tls_) tls_->shutdown(ignored);  // writes its own end and does not wait for the client's
    socket_.shutdown(Socket::shutdown_send, ignored);
  }

  // Whether nothing can be said to the client any more: it has gone, or speaks no TLS.
  static bool IsGone(error_code failure) {
    return failure == asio::error::eof || failure == asio::error::connection_reset ||
           failure.category() == asio::error::get_ssl_category() ||
           failure == asio::ssl::error::stream_truncated;
  }

 private:
  Socket socket_;
  std::optional<asio::ssl::stream<Socket&>> tls_;
};

}  // namespace wideload::serve
