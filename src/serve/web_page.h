// The server's own pages (pages/*.html), each whole in one file. They hold nothing of the model or
// of requests: what they show they ask for at other routes, with the reader's key. Thread-safe.
#pragma once

#include <string_view>

#include "serve/http_server.h"

namespace wideload::serve {

// "/": a conversation with the model.
std::string_view ChatPageText();
// "/dashboard": what the engine does.
std::string_view DashboardPageText();

// The page with a Content-Security-Policy that lets run what it has itself, by a number drawn for
// this answer, and ask this server; nothing else, from nowhere.
HttpResponse WebPage(std::string_view text);

}  // namespace wideload::serve
