// error.cc: names and sentences of the error codes, the throwing helpers, and what any exception is
// as a core error. No policy lives here.
#include "platform/error.h"

#include <array>
#include <new>
#include <system_error>
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

namespace {

Error out_of_memory() {
  return {Code::kInsufficientMemory, "an allocation failed", "free memory or load a smaller model"};
}

Error translated() {
  try {
    throw;
  } catch (const Error& e) {
    return e;
  } catch (const std::bad_alloc&) {
    return out_of_memory();
  } catch (const std::system_error& e) {
    const bool full = e.code() == std::errc::resource_unavailable_try_again ||
                      e.code() == std::errc::not_enough_memory;
    if (!full) return {Code::kInternal, std::string("unexpected exception: ") + e.what()};
    return {Code::kInsufficientMemory, std::string("a thread could not be started: ") + e.what(),
            "free memory, or raise the limits of memory, processes or threads"};
  } catch (const std::exception& e) {
    return {Code::kInternal, std::string("unexpected exception: ") + e.what()};
  } catch (...) {
    return {Code::kInternal, "unexpected exception"};
  }
}

Code translated_code() {
  try {
    throw;
  } catch (const Error& e) {
    return e.code();
  } catch (const std::bad_alloc&) {
    return Code::kInsufficientMemory;
  } catch (const std::system_error&) {
    return Code::kInsufficientMemory;
  } catch (...) {
    return Code::kInternal;
  }
}

}  // namespace

Error caught_error() noexcept {
  try {
    return translated();
  } catch (...) {  // no memory for the words: these are short enough to need none
  }
  return {translated_code(), "out of memory"};
}

}  // namespace polylm
