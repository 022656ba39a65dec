// mini_json.h: reads the JSON of golden fixtures for native tests. It trusts its input (files of
// this repository) and understands what they contain: no escapes but \", \\ and \/.
// Not a product parser.
#pragma once

#include <cctype>
#include <cstdlib>
#include <fstream>
#include <map>
#include <sstream>
#include <stdexcept>
#include <string>
#include <vector>

namespace polylm::test {

struct Json {
  enum class Kind { kNull, kNumber, kBool, kString, kArray, kObject };
  Kind kind = Kind::kNull;
  double number = 0;  // also of a boolean
  std::string string;
  std::vector<Json> array;
  std::map<std::string, Json> object;

  bool is_null() const { return kind == Kind::kNull; }
  bool has(const std::string& key) const { return object.count(key) != 0; }
  const Json& at(const std::string& key) const { return object.at(key); }
  const Json& at(size_t index) const { return array.at(index); }
  size_t size() const { return array.size(); }
  template <class T>
  std::vector<T> numbers() const {
    std::vector<T> out;
    for (const Json& value : array) out.push_back(static_cast<T>(value.number));
    return out;
  }
};

class JsonReader {
 public:
  static Json read_file(const std::string& path) {
    std::ifstream file(path, std::ios::binary);
    if (!file) throw std::runtime_error("cannot read " + path);
    std::stringstream text;
    text << file.rdbuf();
    JsonReader reader(text.str());
    return reader.value();
  }

 private:
  explicit JsonReader(std::string text) : text_(std::move(text)) {}

  char peek() {
    while (at_ < text_.size() && std::isspace(static_cast<unsigned char>(text_[at_]))) ++at_;
    if (at_ >= text_.size()) throw std::runtime_error("the JSON ends too early");
    return text_[at_];
  }
  bool accept(char c) {
    if (peek() != c) return false;
    ++at_;
    return true;
  }
  void expect(char c) {
    if (!accept(c)) throw std::runtime_error("unexpected character at " + std::to_string(at_));
  }
  void word(const char* w) {
    for (; *w != '\0'; ++w) expect(*w);
  }

  std::string string() {
    std::string out;
    expect('"');
    while (text_.at(at_) != '"') {
      if (text_[at_] == '\\') ++at_;
      out += text_.at(at_++);
    }
    ++at_;
    return out;
  }

  Json value() {
    Json out;
    const char c = peek();
    if (c == '{') {
      out.kind = Json::Kind::kObject;
      ++at_;
      for (bool first = true; !accept('}'); first = false) {
        if (!first) expect(',');
        peek();
        const std::string key = string();
        expect(':');
        out.object[key] = value();
      }
    } else if (c == '[') {
      out.kind = Json::Kind::kArray;
      ++at_;
      for (bool first = true; !accept(']'); first = false) {
        if (!first) expect(',');
        out.array.push_back(value());
      }
    } else if (c == '"') {
      out.kind = Json::Kind::kString;
      out.string = string();
    } else if (c == 'n') {
      word("null");
    } else if (c == 't' || c == 'f') {
      word(c == 't' ? "true" : "false");
      out.kind = Json::Kind::kBool;
      out.number = c == 't' ? 1 : 0;
    } else {
      out.kind = Json::Kind::kNumber;
      char* end = nullptr;
      out.number = std::strtod(text_.c_str() + at_, &end);
      if (end == text_.c_str() + at_) {
        throw std::runtime_error("not JSON at " + std::to_string(at_));
      }
      at_ = static_cast<size_t>(end - text_.c_str());
    }
    return out;
  }

  std::string text_;
  size_t at_ = 0;
};

}  // namespace polylm::test
