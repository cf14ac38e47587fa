// The export macro of the shared library. Static builds and consumers need not define anything.
#pragma once

#if defined(PALI_STATIC)
#define PALI_API
#elif defined(_WIN32)
#if defined(PALI_BUILDING)
#define PALI_API __declspec(dllexport)
#else
#define PALI_API __declspec(dllimport)
#endif
#else
#define PALI_API __attribute__((visibility("default")))
#endif
