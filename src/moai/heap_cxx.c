/* C++'s new and delete for the whole process, over the malloc of heap.c: without them ONNX
 * Runtime's would be mimalloc's own, which end the process where heap.c hands mimalloc another
 * piece of the region, and do not overwrite what is freed. */
#include <malloc.h>
#include <stdlib.h>

#include "base/macros.h"
#include "moai/sandbox.h"

#ifndef TG_SANITIZED

/* std::bad_alloc can't be thrown from C; libstdc++ has a function for it (it comes with ONNX
 * Runtime; where it is missing there is nobody who could catch). */
void tg_cxx_throw(void) __asm__("_ZSt17__throw_bad_allocv") __attribute__((weak));

/* A name of C++ for a function of ours (the Itanium C++ ABI, 5.1.5 and 5.1.3). */
#define NAMED(type, name, mangled, parameters)                                                     \
    type name parameters __asm__(mangled);                                                         \
    type name parameters

static void *must(void *p)
{
    if (p == NULL && tg_cxx_throw != NULL)
        tg_cxx_throw();
    if (p == NULL) /* never as if it had worked */
        __builtin_trap();
    return p;
}

static void *aligned(size_t n, size_t align)
{
    return aligned_alloc(align, n);
}

NAMED(void *, tg_cxx_new, "_Znwm", (size_t n))
{
    return must(malloc(n));
}

NAMED(void *, tg_cxx_new_array, "_Znam", (size_t n))
{
    return must(malloc(n));
}

NAMED(void *, tg_cxx_new_nothrow, "_ZnwmRKSt9nothrow_t", (size_t n, const void *tag))
{
    (void)tag;
    return malloc(n);
}

NAMED(void *, tg_cxx_new_array_nothrow, "_ZnamRKSt9nothrow_t", (size_t n, const void *tag))
{
    (void)tag;
    return malloc(n);
}

NAMED(void *, tg_cxx_new_aligned, "_ZnwmSt11align_val_t", (size_t n, size_t align))
{
    return must(aligned(n, align));
}

NAMED(void *, tg_cxx_new_array_aligned, "_ZnamSt11align_val_t", (size_t n, size_t align))
{
    return must(aligned(n, align));
}

NAMED(void *, tg_cxx_new_aligned_nothrow, "_ZnwmSt11align_val_tRKSt9nothrow_t",
      (size_t n, size_t align, const void *tag))
{
    (void)tag;
    return aligned(n, align);
}

NAMED(void *, tg_cxx_new_array_aligned_nothrow, "_ZnamSt11align_val_tRKSt9nothrow_t",
      (size_t n, size_t align, const void *tag))
{
    (void)tag;
    return aligned(n, align);
}

NAMED(void, tg_cxx_delete, "_ZdlPv", (void *p))
{
    free(p);
}

NAMED(void, tg_cxx_delete_array, "_ZdaPv", (void *p))
{
    free(p);
}

/* Sizes, alignments and tags of the other forms of delete say nothing that free would not know. */
#define DELETE1(name, mangled, type)                                                               \
    NAMED(void, name, mangled, (void *p, type a))                                                  \
    {                                                                                              \
        (void)a;                                                                                   \
        free(p);                                                                                   \
    }
#define DELETE2(name, mangled, type_a, type_b)                                                     \
    NAMED(void, name, mangled, (void *p, type_a a, type_b b))                                      \
    {                                                                                              \
        (void)a;                                                                                   \
        (void)b;                                                                                   \
        free(p);                                                                                   \
    }

DELETE1(tg_cxx_delete_sized, "_ZdlPvm", size_t)
DELETE1(tg_cxx_delete_array_sized, "_ZdaPvm", size_t)
DELETE1(tg_cxx_delete_aligned, "_ZdlPvSt11align_val_t", size_t)
DELETE1(tg_cxx_delete_array_aligned, "_ZdaPvSt11align_val_t", size_t)
DELETE1(tg_cxx_delete_nothrow, "_ZdlPvRKSt9nothrow_t", const void *)
DELETE1(tg_cxx_delete_array_nothrow, "_ZdaPvRKSt9nothrow_t", const void *)
DELETE2(tg_cxx_delete_sized_aligned, "_ZdlPvmSt11align_val_t", size_t, size_t)
DELETE2(tg_cxx_delete_array_sized_aligned, "_ZdaPvmSt11align_val_t", size_t, size_t)
DELETE2(tg_cxx_delete_aligned_nothrow, "_ZdlPvSt11align_val_tRKSt9nothrow_t", size_t, const void *)
DELETE2(tg_cxx_delete_array_aligned_nothrow, "_ZdaPvSt11align_val_tRKSt9nothrow_t", size_t,
        const void *)

#endif
