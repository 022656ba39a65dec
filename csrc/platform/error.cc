// error.cc: names and sentences of the error codes, and the throwing helpers. No policy lives here.
#include "platform/error.h"

#include <array>
#include <cstdio>
#include <utility>

namespace polylm {
namespace {

struct Row {
  const char* name;
  const char* sentence;
};

constexpr std::array<Row, kCodeCount> kRows = {{
#define ROW(name, public_name, sentence) {public_name, sentence},
#include "platform/error_codes.def"
#undef ROW
}};

// Build machines' directories are nobody's business: only the part from csrc on is shown.
std::string_view short_path(const char* file) {
  const std::string_view path(file);
  const size_t at = path.rfind("csrc/");
  return at == std::string_view::npos ? path : path.substr(at);
}

}  // namespace

const char* code_name(Code code) { return kRows[static_cast<size_t>(code)].name; }

const char* code_sentence(Code code) { return kRows[static_cast<size_t>(code)].sentence; }

void fail(Code code, std::string message, std::string hint) {
  throw Error(code, std::move(message), std::move(hint));
}

void fail(Code code, std::string message, std::string hint, std::vector<ErrorField> fields) {
  throw Error(code, std::move(message), std::move(hint), std::move(fields));
}

void check_failed(const char* file, int line, const char* what) {
  std::string message = "internal check failed: ";
  message.append(what).append(" (").append(short_path(file)).append(":");
  message.append(std::to_string(line)).append(")");
  fail(Code::kInternal, std::move(message), "this is a bug in polylm; please report it");
}

void check_failed(const char* file, int line, const char* what, int64_t a, int64_t b) {
  std::string message = "internal check failed: ";
  message.append(what).append(" with ").append(std::to_string(a)).append(" and ");
  message.append(std::to_string(b)).append(" (").append(short_path(file)).append(":");
  message.append(std::to_string(line)).append(")");
  fail(Code::kInternal, std::move(message), "this is a bug in polylm; please report it");
}

std::string quoted(std::string_view text) {
  constexpr size_t kMaxBytes = 200;
  std::string out = "\"";
  for (const char c : text.substr(0, kMaxBytes)) {
    const auto byte = static_cast<unsigned char>(c);
    if (byte >= 0x20 && byte != 0x7f && c != '"' && c != '\\') {
      out.push_back(c);
      continue;
    }
    char escaped[8];
    std::snprintf(escaped, sizeof escaped, "\\x%02x", byte);
    out.append(escaped);
  }
  out.push_back('"');
  if (text.size() > kMaxBytes) out.append("...");
  return out;
}

}  // namespace polylm
