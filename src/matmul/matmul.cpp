#include "matmul/matmul.hpp"
