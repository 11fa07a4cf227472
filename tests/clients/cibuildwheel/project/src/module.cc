#include "words.h"
#include <pybind11/pybind11.h>
#include <pybind11/stl.h>

PYBIND11_MODULE(words, module) {
    module.def("most_frequent", [](const std::string &text) { return most_frequent(count(split(text))); });
    module.def("compiler", [] { return std::string(__VERSION__); });
}
