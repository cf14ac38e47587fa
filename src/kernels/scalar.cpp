#include "kernels/kernel_table.hpp"
