// TLS of the server, with a certificate made here.
#include <arpa/inet.h>
#include <gtest/gtest.h>
#include <netinet/in.h>
#include <openssl/pem.h>
#include <openssl/ssl.h>
#include <openssl/x509.h>
#include <sys/socket.h>
#include <unistd.h>

#include "base/error.h"
#include "checkpoint/test_folder.h"
#include "serve/http_server.h"

namespace wideload::serve {
namespace {

constexpr std::chrono::milliseconds kShakeTime{30};

std::string TextOf(BIO* memory) {
  char* data = nullptr;
  const auto size = static_cast<size_t>(BIO_get_mem_data(memory, &data));
  std::string text(data, size);
  BIO_free(memory);
  return text;
}

// A key in PEM form, with a password where one is given.
std::string KeyText(EVP_PKEY* key, const char* password = nullptr) {
  BIO* memory = BIO_new(BIO_s_mem());
  const EVP_CIPHER* cipher = password == nullptr ? nullptr : EVP_aes_128_cbc();
  PEM_write_bio_PKCS8PrivateKey(memory, key, cipher, nullptr, 0, nullptr,
                                const_cast<char*>(password));
  return TextOf(memory);
}

// A certificate of the key that its owner has signed.
std::string CertificateText(EVP_PKEY* key) {
  X509* certificate = X509_new();
  X509_gmtime_adj(X509_getm_notBefore(certificate), 0);
  X509_gmtime_adj(X509_getm_notAfter(certificate), 3600);
  X509_set_pubkey(certificate, key);
  X509_sign(certificate, key, EVP_sha256());
  BIO* memory = BIO_new(BIO_s_mem());
  PEM_write_bio_X509(memory, certificate);
  X509_free(certificate);
  return TextOf(memory);
}

class TlsTest : public testing::Test {
 public:
  ~TlsTest() override { EVP_PKEY_free(key_); }

 protected:
  TlsTest() : key_(EVP_EC_gen("P-256")) {
    folder_.Write("key.pem", KeyText(key_));
    folder_.Write("certificate.pem", CertificateText(key_));
  }

  TlsFiles Files() const {
    return {.certificate = folder_.path() + "/certificate.pem", .key = folder_.path() + "/key.pem"};
  }
  // The error that opening the files gives.
  std::string Refusal() const {
    return checkpoint::Refusal([&] { OpenTls(Files()); });
  }
  // Answers with the body.
  void Start(const HttpLimits& limits) {
    server_.emplace("127.0.0.1", 0, limits, Files());
    server_->Start({.check = [](const HttpRequest&) { return std::optional<HttpResponse>(); },
                    .handle =
                        [](const HttpExchange& exchange) {
                          exchange.Respond({.body = exchange.request().body});
                        },
                    .refuse =
                        [](int status, const std::string& message) {
                          return HttpResponse{.status = status, .body = message};
                        },
                    .note = [](const HttpRequest&, int) {}});
  }
  int Connect() {
    WIDELOAD_CHECK(server_, "it has not been started");
    const int fd = ::socket(AF_INET, SOCK_STREAM, 0);
    sockaddr_in address{};
    address.sin_family = AF_INET;
    address.sin_port = htons(static_cast<uint16_t>(server_->port()));
    address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    EXPECT_EQ(::connect(fd, reinterpret_cast<const sockaddr*>(&address), sizeof(address)), 0);
    return fd;
  }

  checkpoint::TestFolder folder_;
  EVP_PKEY* key_;
  std::optional<HttpServer> server_;
};

// A client whose bytes go out when it has nothing left to write: the end of its handshake and its
// first requests together.
class TlsClient {
 public:
  explicit TlsClient(int fd)
      : fd_(fd), context_(SSL_CTX_new(TLS_client_method())), tls_(SSL_new(context_)) {
    SSL_set_bio(tls_, BIO_new(BIO_s_mem()), BIO_new(BIO_s_mem()));
    while (SSL_connect(tls_) != 1 && Receive()) continue;
    EXPECT_GE(SSL_version(tls_), TLS1_2_VERSION);
  }
  ~TlsClient() {
    SSL_free(tls_);
    SSL_CTX_free(context_);
    ::close(fd_);
  }
  TlsClient(const TlsClient&) = delete;
  TlsClient& operator=(const TlsClient&) = delete;

  void Write(const std::string& text) {
    SSL_write(tls_, text.data(), static_cast<int>(text.size()));
  }
  // All that comes until the server says that this is the end.
  std::string ReadAll() {
    std::string text;
    char buffer[4096];
    while (true) {
      const int n = SSL_read(tls_, buffer, sizeof(buffer));
      if (n > 0)
        text.append(buffer, static_cast<size_t>(n));
      else if (SSL_get_error(tls_, n) != SSL_ERROR_WANT_READ || !Receive())
        break;
    }
    EXPECT_TRUE(SSL_get_shutdown(tls_) & SSL_RECEIVED_SHUTDOWN) << "the end was not told";
    return text;
  }

 private:
  // Sends what there is, and waits for some bytes.
  bool Receive() {
    char* data = nullptr;
    const auto size = static_cast<size_t>(BIO_get_mem_data(SSL_get_wbio(tls_), &data));
    EXPECT_EQ(::send(fd_, data, size, MSG_NOSIGNAL), static_cast<ssize_t>(size));
    EXPECT_EQ(BIO_reset(SSL_get_wbio(tls_)), 1);
    char buffer[4096];
    const ssize_t n = ::recv(fd_, buffer, sizeof(buffer), 0);
    return n > 0 && BIO_write(SSL_get_rbio(tls_), buffer, static_cast<int>(n)) > 0;
  }

  int fd_;
  SSL_CTX* context_;
  SSL* tls_;
};

TEST_F(TlsTest, AnswersRequestsThatComeTogether) {
  Start({});
  TlsClient client(Connect());
  client.Write("POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 2\r\n\r\nab");
  client.Write("POST / HTTP/1.1\r\nHost: x\r\nConnection: close\r\nContent-Length: 100000\r\n\r\n" +
               std::string(100'000, 'x'));
  const std::string text = client.ReadAll();
  EXPECT_NE(text.find("\r\n\r\nabHTTP/1.1 200 OK\r\n"), std::string::npos) << text.substr(0, 400);
  EXPECT_TRUE(text.ends_with(std::string(1000, 'x')));
}

TEST_F(TlsTest, AHandshakeThatDoesNotEndHasTheTimeOfAHeader) {
  Start({.header_time = kShakeTime});
  const int fd = Connect();
  EXPECT_EQ(::send(fd, "\x16\x03\x01", 3, MSG_NOSIGNAL), 3);  // begins a record
  char byte = 0;
  EXPECT_EQ(::recv(fd, &byte, 1, 0), 0);
  ::close(fd);
}

TEST_F(TlsTest, WhatIsNoTlsGetsNoAnswerInPlainText) {
  Start({});
  const int fd = Connect();
  const std::string_view request = "GET / HTTP/1.1\r\nHost: x\r\n\r\n";
  EXPECT_EQ(::send(fd, request.data(), request.size(), MSG_NOSIGNAL),
            static_cast<ssize_t>(request.size()));
  std::string text;
  char buffer[4096];
  for (ssize_t n = 0; (n = ::recv(fd, buffer, sizeof(buffer), 0)) > 0;)
    text.append(buffer, static_cast<size_t>(n));
  EXPECT_EQ(text.find("HTTP"), std::string::npos) << text;
  ::close(fd);
}

TEST_F(TlsTest, FilesThatDoNotGoTogetherAreRefused) {
  EXPECT_EQ(Refusal(), "accepted");
  EVP_PKEY* other = EVP_EC_gen("P-256");
  folder_.Write("key.pem", KeyText(other));
  EVP_PKEY_free(other);
  EXPECT_NE(Refusal().find("key.pem: the key is not that of the certificate in"), std::string::npos)
      << Refusal();
  EVP_PKEY* other_kind = EVP_RSA_gen(2048);
  folder_.Write("key.pem", KeyText(other_kind));
  EVP_PKEY_free(other_kind);
  EXPECT_NE(Refusal().find("key.pem: the key is not that of the certificate in"), std::string::npos)
      << Refusal();
}

TEST_F(TlsTest, FilesWithoutWhatTheyShouldHaveAreRefusedByName) {
  folder_.Write("key.pem", KeyText(key_, "secret"));
  EXPECT_NE(Refusal().find("key.pem: the key needs a password"), std::string::npos) << Refusal();
  folder_.Write("key.pem", "no key");
  EXPECT_NE(Refusal().find("key.pem: there is no private key"), std::string::npos) << Refusal();
  folder_.Write("certificate.pem", KeyText(key_));
  EXPECT_NE(Refusal().find("certificate.pem: there is no certificate"), std::string::npos)
      << Refusal();
}

}  // namespace
}  // namespace wideload::serve
