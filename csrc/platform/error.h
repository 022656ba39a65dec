// error.h: the one exception type of the core, its codes, and the CHECK macros. Anyone may include
// it. Not here: how an error reaches JavaScript (binding/guard.h). Trap: inside an Ops step nothing
// throws; errors of a step surface in Ops::collect().
#pragma once

#include <cstdint>
#include <exception>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "platform/quote.h"  // every message that shows a stranger's text needs it

namespace polylm {

enum class Code : uint8_t {
#define ROW(name, public_name, sentence) k##name,
#include "platform/error_codes.def"
#undef ROW
};

inline constexpr int kCodeCount = 0
#define ROW(name, public_name, sentence) +1
#include "platform/error_codes.def"
#undef ROW
    ;

// "INVALID_OPTION" for Code::kInvalidOption: the `code` of a PolyLMError.
const char* code_name(Code code);
// One sentence for people, the same for every error of this code.
const char* code_sentence(Code code);

// A fact that belongs to an error's code and that programs may read, under its public name:
// {"promptTokens", 2100} or {"file", path}. The set per code is documented with PolyLMError.
struct ErrorField {
  ErrorField(const char* field_name, int64_t value)
      : name(field_name), number(static_cast<double>(value)) {}
  ErrorField(const char* field_name, std::string value)
      : name(field_name), text(std::move(value)), is_text(true) {}
  const char* name;  // a string literal
  double number = 0;
  std::string text;
  bool is_text = false;
};

// Identity is data (code), the message is for people, the hint is the next thing to try.
class Error : public std::exception {
 public:
  Error(Code code, std::string message, std::string hint = "",
        std::vector<ErrorField> fields = {})
      : code_(code),
        message_(std::move(message)),
        hint_(std::move(hint)),
        fields_(std::move(fields)) {}
  Code code() const noexcept { return code_; }
  const std::string& message() const noexcept { return message_; }
  const std::string& hint() const noexcept { return hint_; }
  const std::vector<ErrorField>& fields() const noexcept { return fields_; }
  const char* what() const noexcept override { return message_.c_str(); }

 private:
  Code code_;
  std::string message_;
  std::string hint_;
  std::vector<ErrorField> fields_;
};

[[noreturn]] void fail(Code code, std::string message, std::string hint = "");
[[noreturn]] void fail(Code code, std::string message, std::string hint,
                       std::vector<ErrorField> fields);
// A broken invariant: INTERNAL with file and line. Used through CHECK.
[[noreturn]] void check_failed(const char* file, int line, const char* what);
[[noreturn]] void check_failed(const char* file, int line, const char* what, int64_t a, int64_t b);

// The exception being handled, as a core error. Call inside a catch block; needs no memory when
// there is none.
Error caught_error() noexcept;

}  // namespace polylm

// Invariants of ours, on in every build: a broken one ends the request with INTERNAL, never the
// process.
#define POLYLM_CHECK(condition) \
  ((condition) ? (void)0 : ::polylm::check_failed(__FILE__, __LINE__, #condition))
#define POLYLM_CHECK_OP(a, op, b)                                                         \
  do {                                                                                    \
    const auto check_a = (a);                                                             \
    const auto check_b = (b);                                                             \
    if (!(check_a op check_b))                                                            \
      ::polylm::check_failed(__FILE__, __LINE__, #a " " #op " " #b,                       \
                             static_cast<int64_t>(check_a), static_cast<int64_t>(check_b)); \
  } while (false)
#define POLYLM_CHECK_EQ(a, b) POLYLM_CHECK_OP(a, ==, b)
#define POLYLM_CHECK_LT(a, b) POLYLM_CHECK_OP(a, <, b)
#define POLYLM_CHECK_LE(a, b) POLYLM_CHECK_OP(a, <=, b)
