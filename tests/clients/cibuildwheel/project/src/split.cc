#include "words.h"
#include <regex>

std::vector<std::string> split(const std::string &text) {
    static const std::regex word("[a-z]+", std::regex::icase);
    std::vector<std::string> words;
    for (std::sregex_iterator at(text.begin(), text.end(), word), end; at != end; ++at) words.push_back(at->str());
    return words;
}
