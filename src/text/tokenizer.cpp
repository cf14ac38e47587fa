#include "text/tokenizer.hpp"
