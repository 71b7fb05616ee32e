#include "serve/secrets.h"

#include <openssl/crypto.h>
#include <openssl/err.h>
#include <openssl/hmac.h>
#include <openssl/rand.h>
#include <openssl/ssl.h>

#include <boost/asio/ssl/context.hpp>

#include "base/error.h"
#include "base/file.h"

namespace wideload::serve {
namespace {

namespace ssl = boost::asio::ssl;

constexpr size_t kMaxPemBytes = 1 << 20;

boost::asio::const_buffer BufferOf(const std::string& text) { return {text.data(), text.size()}; }

}  // namespace

Hash RandomBytes() {
  Hash bytes{};
  if (RAND_bytes(bytes.data(), static_cast<int>(bytes.size())) != 1)
    Throw(ErrorKind::kIo, "there are no random bytes to be had");
  return bytes;
}

Hash SaltedHash(const Hash& salt, std::string_view text) {
  Hash hash{};
  const unsigned char* made =
      HMAC(EVP_sha256(), salt.data(), static_cast<int>(salt.size()),
           reinterpret_cast<const unsigned char*>(text.data()), text.size(), hash.data(), nullptr);
  WIDELOAD_CHECK(made != nullptr, "SHA-256 is not there");
  return hash;
}

bool IsEqual(const Hash& a, const Hash& b) {
  return CRYPTO_memcmp(a.data(), b.data(), a.size()) == 0;
}

void Erase(std::string& text) {
  OPENSSL_cleanse(text.data(), text.size());
  text.clear();
}

std::shared_ptr<ssl::context> OpenTls(const TlsFiles& files) {
  auto context = std::make_shared<ssl::context>(ssl::context::tls_server);
  SSL_CTX_set_min_proto_version(context->native_handle(), TLS1_2_VERSION);
  // What a client could have repeated at the server's cost.
  SSL_CTX_set_options(context->native_handle(), SSL_OP_NO_RENEGOTIATION);
  boost::system::error_code failure;
  const std::string certificate = ReadFile(files.certificate, kMaxPemBytes);
  context->use_certificate_chain(BufferOf(certificate), failure);
  if (failure)
    Throw(ErrorKind::kInvalid, "{}: there is no certificate in PEM form that can be used: {}",
          files.certificate, failure.message());
  // Without an answer OpenSSL would ask at the terminal.
  bool asks_password = false;
  context->set_password_callback([&asks_password](size_t, ssl::context::password_purpose) {
    asks_password = true;
    return std::string();
  });
  std::string key = ReadFile(files.key, kMaxPemBytes);
  context->use_private_key(BufferOf(key), ssl::context::pem, failure);
  Erase(key);
  if (asks_password)
    Throw(ErrorKind::kInvalid, "{}: the key needs a password; give one that needs none", files.key);
  const bool is_other = failure.category() == boost::asio::error::get_ssl_category() &&
                        ERR_GET_LIB(static_cast<unsigned long>(failure.value())) == ERR_LIB_X509;
  if (is_other || (!failure && SSL_CTX_check_private_key(context->native_handle()) != 1))
    Throw(ErrorKind::kInvalid, "{}: the key is not that of the certificate in {}", files.key,
          files.certificate);
  if (failure)
    Throw(ErrorKind::kInvalid, "{}: there is no private key in PEM form that can be used: {}",
          files.key, failure.message());
  context->set_password_callback(
      [](size_t, ssl::context::password_purpose) { return std::string(); });
  return context;
}

}  // namespace wideload::serve
