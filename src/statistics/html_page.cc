#include "statistics/html_page.h"

#include <fmt/format.h>

#include <cmath>

#include "statistics/html_charts.h"

namespace wideload::statistics {
namespace {

// Blue below the mean, orange above, told apart by lightness too; text at least 4.5:1.
constexpr char kStyle[] = R"(
:root{color-scheme:light dark;--page:#fbfbfa;--card:#fff;--ink:#1b1d21;--soft:#5a606b;--rule:#dfe2e6;
--before:#8a93a3;--after:#1f6fd1;--band:#1f6fd133;
--l4:#1d4f91;--l3:#4a7fc0;--l2:#86b0dd;--l1:#c3daf0;--m:#eceef0;--h1:#fbd9ae;--h2:#f2a65a;--h3:#d96b1e;--h4:#9c3506}
@media(prefers-color-scheme:dark){:root{--page:#15171a;--card:#1d2024;--ink:#e8eaed;--soft:#a4abb6;--rule:#343a42;
--before:#7d8797;--after:#6cb0ff;--band:#6cb0ff33;
--l4:#8ec5ff;--l3:#5f9de0;--l2:#3c6fa8;--l1:#2a4866;--m:#2b3036;--h1:#5c452a;--h2:#96591f;--h3:#d9802f;--h4:#ffbd6b}}
*{box-sizing:border-box}
body{margin:0;background:var(--page);color:var(--ink);font:16px/1.5 system-ui,sans-serif}
main{max-width:960px;margin:0 auto;padding:32px 20px 64px}
h1{font-size:1.6rem;line-height:1.25;margin:0 0 4px}h2{font-size:1.1rem;margin:0 0 4px}h3{font-size:.95rem;margin:16px 0 0}
p{margin:0 0 12px}.soft,.legend,figcaption{color:var(--soft);font-size:.875rem}
code{overflow-wrap:anywhere}
.tiles{display:grid;grid-template-columns:repeat(auto-fit,minmax(200px,1fr));gap:12px;margin:20px 0;padding:0}
.tiles div,section{background:var(--card);border:1px solid var(--rule);border-radius:8px;padding:16px}
.tiles dt{color:var(--soft);font-size:.875rem}.tiles dd{margin:0;font-size:1.6rem;font-variant-numeric:tabular-nums}
section{margin:0 0 16px;overflow-x:auto}svg[role=img]{min-width:560px}svg{display:block;width:100%;height:auto;font:12px system-ui,sans-serif}
svg text{fill:var(--soft)}.grid{stroke:var(--rule)}
.even{stroke:var(--soft);stroke-dasharray:5 4}.band{fill:var(--band)}
.curve{fill:none;stroke:var(--after);stroke-width:2}
.over{fill:transparent}.before{fill:var(--before)}.after{fill:var(--after)}
.l4{fill:var(--l4)}.l3{fill:var(--l3)}.l2{fill:var(--l2)}.l1{fill:var(--l1)}.m{fill:var(--m)}
.none{fill:none;stroke:var(--rule);stroke-dasharray:2 3}
.h1{fill:var(--h1)}.h2{fill:var(--h2)}.h3{fill:var(--h3)}.h4{fill:var(--h4)}
.key{display:inline-block;width:12px;height:12px;vertical-align:-1px}.legend span{white-space:nowrap;margin-right:10px}
.scroll{overflow-x:auto}table{border-collapse:collapse;font-size:.875rem;font-variant-numeric:tabular-nums;width:100%}
th,td{text-align:right;padding:3px 8px;border-bottom:1px solid var(--rule)}th{color:var(--soft);font-weight:600}
summary{cursor:pointer}
)";

}  // namespace

std::string HtmlHead(std::string_view title) {
  const std::string text = EscapeHtml(title);
  return fmt::format(
      "<!DOCTYPE html>\n<html lang=\"en\">\n<head>\n<meta charset=\"utf-8\">\n"
      "<meta name=\"viewport\" content=\"width=device-width, initial-scale=1\">\n"
      "<title>{}</title>\n<style>{}</style>\n</head>\n<body>\n<main>\n<h1>{}</h1>\n",
      text, kStyle, text);
}

std::string HtmlFigure(double value, int digits) {
  return std::isfinite(value) ? fmt::format("{:.{}f}", value, digits) : "no load";
}

std::string HtmlTile(const std::string& what, const std::string& value) {
  return fmt::format("<div><dt>{}</dt><dd>{}</dd></div>\n", what, value);
}

}  // namespace wideload::statistics
