#include "words.h"
#include <algorithm>

std::vector<std::string> most_frequent(const std::map<std::string, int> &counts) {
    std::vector<std::string> words;
    for (const auto &[word, number] : counts) words.push_back(word);
    std::stable_sort(words.begin(), words.end(), [&](const std::string &a, const std::string &b) {
        return counts.at(a) > counts.at(b);
    });
    return words;
}
