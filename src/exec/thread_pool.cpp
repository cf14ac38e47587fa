#include "exec/thread_pool.hpp"
