// What the server takes from OpenSSL: hashes of keys, and certificates. Stateless; thread-safe.
#pragma once

#include <array>
#include <memory>
#include <string>
#include <string_view>

namespace boost::asio::ssl {
class context;  // NOLINT(readability-identifier-naming): the library's name
}  // namespace boost::asio::ssl

namespace wideload::serve {

using Hash = std::array<unsigned char, 32>;

// Bytes that nobody can guess. Errors: kIo when the system has none.
Hash RandomBytes();
// HMAC-SHA-256 (RFC 2104) of `text` under `salt`.
Hash SaltedHash(const Hash& salt, std::string_view text);
// Takes the same time wherever they differ.
bool IsEqual(const Hash& a, const Hash& b);
// Overwrites a text that nobody is to find in memory, and empties it.
void Erase(std::string& text);

// PEM files of a server's certificate with those that it is signed by, and of its private key.
struct TlsFiles {
  std::string certificate;
  std::string key;
};

// What connections of TLS 1.2 and 1.3 start from. Errors: as ReadFile; kInvalid, naming the file,
// for one without what it should have, a key that asks for a password, and a key of another
// certificate.
std::shared_ptr<boost::asio::ssl::context> OpenTls(const TlsFiles& files);

}  // namespace wideload::serve
